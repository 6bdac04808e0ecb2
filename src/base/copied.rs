//! The copy of a body that is kept while somebody reads it, if it is short enough.
//!
//! What is read is copied, byte by byte: a piece of a body as it comes may be a few bytes of a
//! large buffer, which would be held for as long as the piece is.

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

/// A body is longer than what is copied of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// What was read of a body, up to so many bytes.
#[derive(Debug)]
pub struct BoundedCopy {
    bytes: BytesMut,
    /// How many more bytes are kept; none where there were too many.
    left: Option<usize>,
}

impl BoundedCopy {
    /// Keeps up to `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes: BytesMut::new(), left: Some(bytes_max) }
    }

    /// A piece has been read.
    pub fn add(&mut self, data: &[u8]) {
        self.left = self.left.and_then(|left| left.checked_sub(data.len()));
        if self.left.is_some() {
            self.bytes.extend_from_slice(data);
        } else {
            self.forget();
        }
    }

    /// Nobody will want it.
    pub fn forget(&mut self) {
        (self.bytes, self.left) = (BytesMut::new(), None);
    }

    /// Whether all of it is here.
    pub fn is_whole(&self) -> bool {
        self.left.is_some()
    }

    /// What was read since the last call, where all of it is here.
    pub fn take(&mut self) -> Option<Bytes> {
        self.is_whole().then(|| self.bytes.split().freeze())
    }
}

/// The body, once it has come to its end; nothing comes where it does not.
pub type Copied = oneshot::Receiver<Result<Bytes, TooLong>>;

/// Where the copy of a body is made that is for somebody else.
#[derive(Debug)]
pub struct Tee {
    copy: BoundedCopy,
    to: Option<oneshot::Sender<Result<Bytes, TooLong>>>,
}

impl Tee {
    /// Keeps up to `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> (Self, Copied) {
        let (to, copied) = oneshot::channel();
        (Self { copy: BoundedCopy::new(bytes_max), to: Some(to) }, copied)
    }

    /// A piece has been read.
    pub fn keep(&mut self, data: &Bytes) {
        if self.to.is_none() {
            return;
        }
        self.copy.add(data);
        if !self.copy.is_whole() {
            self.end();
        }
    }

    /// The end has been read, or more than is copied.
    pub fn end(&mut self) {
        if let Some(to) = self.to.take() {
            // Whoever wanted it may have given up.
            let _ = to.send(self.copy.take().ok_or(TooLong));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body may come in pieces of a byte, each of which is a part of a buffer of its own.
    #[test]
    fn what_is_kept_of_a_body_takes_no_more_memory_than_it_is_long() {
        let mut copy = BoundedCopy::new(1_000);
        for at in 0..1_000_usize {
            let buffer = Bytes::from(vec![(at % 251) as u8; 4_096]);
            copy.add(&buffer.slice(7..8));
            assert!(buffer.is_unique(), "byte {at} holds its buffer");
        }
        assert!(copy.bytes.capacity() <= 2_048, "{}", copy.bytes.capacity());
        let kept = copy.take().unwrap();
        assert!(kept.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
        assert_eq!(kept.len(), 1_000);
        copy.add(b"x");
        assert_eq!((copy.is_whole(), copy.take()), (false, None));
        assert_eq!(copy.bytes.capacity(), 0, "nobody wants it");
    }
}
