//! The copy of a body that somebody else reads, if it is short enough.

use bytes::Bytes;
use tokio::sync::oneshot;

/// A body is longer than what is copied of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// The pieces of the body, once it has come to its end; nothing comes where it does not.
pub type Copied = oneshot::Receiver<Result<Vec<Bytes>, TooLong>>;

/// Where the pieces of a body are kept while it is read.
#[derive(Debug)]
pub struct Tee {
    kept: Vec<Bytes>,
    left: usize,
    to: Option<oneshot::Sender<Result<Vec<Bytes>, TooLong>>>,
}

impl Tee {
    /// Keeps up to `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> (Self, Copied) {
        let (to, copied) = oneshot::channel();
        (Self { kept: Vec::new(), left: bytes_max, to: Some(to) }, copied)
    }

    /// A piece has been read.
    pub fn keep(&mut self, data: &Bytes) {
        if self.to.is_none() {
            return;
        }
        if let Some(left) = self.left.checked_sub(data.len()) {
            self.left = left;
            self.kept.push(data.clone());
        } else {
            self.kept = Vec::new();
            self.tell(Err(TooLong));
        }
    }

    /// The end has been read.
    pub fn end(&mut self) {
        let kept = std::mem::take(&mut self.kept);
        self.tell(Ok(kept));
    }

    fn tell(&mut self, copied: Result<Vec<Bytes>, TooLong>) {
        if let Some(to) = self.to.take() {
            // Whoever wanted it may have given up.
            let _ = to.send(copied);
        }
    }
}
