//! The digest of a body that is taken while somebody reads it: nothing of it is kept.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use tokio::sync::oneshot;

/// SHA-256 of what has passed until now.
#[derive(Clone)]
pub struct Sha256(Context);

impl Default for Sha256 {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Sha256 {
    /// More has passed.
    pub fn add(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The digest.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.finish().as_ref());
        bytes
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256")
    }
}

/// The digest, once the body has come to its end; nothing comes where it does not.
pub type Digested = oneshot::Receiver<Sha256>;

/// Where the digest is taken.
#[derive(Debug)]
pub struct Meter(Option<(Sha256, oneshot::Sender<Sha256>)>);

impl Meter {
    /// Goes on from what has passed before.
    pub fn new(before: Sha256) -> (Self, Digested) {
        let (to, digested) = oneshot::channel();
        (Self(Some((before, to))), digested)
    }

    /// A piece has been read.
    pub fn add(&mut self, data: &[u8]) {
        if let Some((digest, _)) = &mut self.0 {
            digest.add(data);
        }
    }

    /// The end has been read.
    pub fn end(&mut self) {
        if let Some((digest, to)) = self.0.take() {
            // Whoever wanted it may have given up.
            let _ = to.send(digest);
        }
    }
}
