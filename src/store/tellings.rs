//! What gateways tell each other once in a while, and nobody else: each writes one field, and reads
//! those of all in the same step. What was not said again for some time is forgotten.

use std::time::Duration;

use bytes::Bytes;

use super::separate::One;
use super::{Reply, Store};

/// Longest thing that one gateway says, in bytes.
pub const TELLING_BYTES_MAX: usize = 16 * 1024;
/// Most gateways that hear each other. Of more nobody hears anything: each one reads what all say.
pub const TELLERS_MAX: usize = 256;

/// What one gateway says.
#[derive(Debug, Clone, Copy)]
pub struct Telling<'a> {
    /// Where all say it.
    pub key: &'a str,
    /// Who says it.
    pub from: &'a str,
    /// What.
    pub value: &'a [u8],
    /// Longest thing that one gateway says there, in bytes, and [`TELLING_BYTES_MAX`] at most: what
    /// is longer is not heard.
    pub bytes_max: usize,
    /// How long it holds.
    pub kept: Duration,
}

/// What all say of one thing, by who says it.
pub type Heard = Vec<(Bytes, Bytes)>;

impl Store {
    /// Says these, and hears of each what all say by now; this gateway too. One question for all of
    /// them: what one of them is refused, or gets no answer to, leaves the others as they are.
    pub async fn tell(&self, tellings: &[Telling<'_>]) -> Vec<Reply<Heard>> {
        match self.main() {
            One::Redis(store) => store.tell_all(tellings).await,
            One::Memory(store) => tellings.iter().map(|telling| store.tell(*telling)).collect(),
        }
    }
}
