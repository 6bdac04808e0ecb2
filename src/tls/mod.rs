//! TLS to clients: which certificate a name gets, what a client must show, and both anew when their
//! files change. Knows no connection and no request.

mod certificate;
mod flaw;
mod issued;
mod live;
mod name_policy;
mod table;
mod tickets;
mod wrapping;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use certificate::{FIELDS, facts};
pub use flaw::Flaw;
pub use issued::{ACME_TLS, Issued, proof};
pub use live::{Live, Looked};
pub use table::{Entry, Table};
pub use tickets::{TicketKey, TicketKeys, epoch_at, key_ttl};
pub use wrapping::{WrapError, Wrapping};

/// The cryptography of all TLS here.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
