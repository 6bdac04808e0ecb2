//! What gateways tell each other once in a while, and nobody else: each writes one field, and reads
//! those of all in the same step. What was not said again for some time is forgotten.

use std::time::Duration;

use bytes::Bytes;

use super::separate::One;
use super::{Store, StoreError};

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
    /// What, in [`TELLING_BYTES_MAX`] at most.
    pub value: &'a [u8],
    /// How long it holds.
    pub kept: Duration,
}

impl Store {
    /// Says it, and hears what all say by now, by who says it; this gateway too.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn tell(&self, telling: Telling<'_>) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        match self.main() {
            One::Redis(store) => store.tell_all(telling).await,
            One::Memory(store) => store.tell_all(telling),
        }
    }
}
