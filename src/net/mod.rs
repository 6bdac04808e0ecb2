//! The gateway as a client for its own errands: TLS towards servers, and one small HTTP client.
//! What clients of the gateway ask for goes through `upstream`; what is asked of Redis, through
//! `store`.

mod client;
mod fault;
pub mod supervisor;
mod tls;

pub use self::client::{Connection, collect};
pub use self::fault::Fault;
pub use self::tls::encrypt;
