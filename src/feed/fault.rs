//! Why a source cannot be read.

use crate::store::StoreError;
use crate::upstream::Unheard;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The store does not tell, or has not taken what was told.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// NATS does not tell.
    #[error(transparent)]
    Nats(#[from] Unheard),
}
