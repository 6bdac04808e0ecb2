//! A piece of a response body, as hyper holds it until it is on its way to the client.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::clock::Handed;

/// Bytes, and who wants to know when hyper has let go of them.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    handed: Option<Arc<Handed>>,
}

impl Piece {
    /// A piece; without `handed` nobody wants to know.
    pub(super) fn new(bytes: Bytes, handed: Option<Arc<Handed>>) -> Self {
        if let Some(handed) = &handed {
            handed.hold();
        }
        Self { bytes, handed }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(handed) = &self.handed {
            handed.let_go();
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.bytes.copy_to_bytes(length)
    }
}
