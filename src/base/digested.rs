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
pub struct Meter {
    /// Nothing once the body has ended.
    taken: Option<(Sha256, oneshot::Sender<Sha256>)>,
    /// How many bytes are to come, where that is known.
    left: Option<u64>,
}

impl Meter {
    /// Goes on from what has passed before. `bytes`: how long the body is, where that is known. It
    /// has ended with so many: not everybody reads on behind the last byte, and over HTTP/2 the
    /// word that it was the last one may come later.
    pub fn new(before: Sha256, bytes: Option<u64>) -> (Self, Digested) {
        let (to, digested) = oneshot::channel();
        let mut meter = Self { taken: Some((before, to)), left: bytes };
        meter.add(&[]);
        (meter, digested)
    }

    /// A piece has been read.
    pub fn add(&mut self, data: &[u8]) {
        if let Some((digest, _)) = &mut self.taken {
            digest.add(data);
        }
        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        if self.left == Some(0) {
            self.end();
        }
    }

    /// The end has been read.
    pub fn end(&mut self) {
        if let Some((digest, to)) = self.taken.take() {
            // Whoever wanted it may have given up.
            let _ = to.send(digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_whose_length_is_known_has_ended_with_its_last_byte() {
        let whole = |bytes| {
            let (mut meter, mut digested) = Meter::new(Sha256::default(), bytes);
            meter.add(b"ab");
            assert!(digested.try_recv().is_err(), "more is to come");
            meter.add(b"c");
            let early = digested.try_recv().ok().map(Sha256::finish);
            meter.end();
            (early, digested.try_recv().ok().map(Sha256::finish))
        };
        let mut expected = Sha256::default();
        expected.add(b"abc");
        let expected = Some(expected.finish());
        assert_eq!(whole(Some(3)), (expected, None));
        assert_eq!(whole(None), (None, expected));
        let (_meter, mut digested) = Meter::new(Sha256::default(), Some(0));
        assert!(digested.try_recv().is_ok(), "nothing is to come");
    }
}
