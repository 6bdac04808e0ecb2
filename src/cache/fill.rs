//! Collects a response body while it streams past on its way to the client.
//!
//! It must not know where the body goes or what it belongs to. It holds at most the bound it was
//! given, and only [`Fill::finish`] yields a body: whatever ends in another way (an aborted
//! transfer, a client that left, a task that was cancelled) drops the fill and stores nothing.

use bytes::Bytes;

/// A body in the making, bounded by the route's `max_bytes`.
#[derive(Debug)]
pub struct Fill {
    /// None once the body was given up, so that its memory is free from that moment on.
    collected: Option<Vec<u8>>,
    max_bytes: usize,
}

impl Fill {
    /// Starts with nothing; memory is taken as the body arrives.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self { collected: Some(Vec::new()), max_bytes }
    }

    /// Takes a copy of the next piece. False once the body has outgrown the bound.
    ///
    /// A copy, because a small piece may be a view into a large network buffer, and keeping views
    /// would keep memory that no bound counts.
    pub fn push(&mut self, piece: &Bytes) -> bool {
        let Some(collected) = &mut self.collected else {
            return false;
        };
        let length = collected.len().saturating_add(piece.len());
        if length > self.max_bytes {
            self.give_up();
            return false;
        }
        if length > collected.capacity() {
            // Doubling, as Vec would, but never past the bound that was promised.
            let capacity = collected.capacity().saturating_mul(2).min(self.max_bytes).max(length);
            collected.reserve_exact(capacity - collected.len());
        }
        collected.extend_from_slice(piece);
        true
    }

    /// Ends the attempt: the body failed, or trailers followed it, which an entry cannot hold.
    pub fn give_up(&mut self) {
        self.collected = None;
    }

    /// The whole body, after its clean end. None if it was given up, or if its length is not the
    /// one that Content-Length announced (RFC 9111 §3.3: incomplete).
    #[must_use]
    pub fn finish(self, announced: Option<u64>) -> Option<Bytes> {
        let mut body = self.collected?;
        if announced.is_some_and(|length| length != body.len() as u64) {
            return None;
        }
        body.shrink_to_fit();
        Some(Bytes::from(body))
    }
}
