//! Certificates that an authority issues by itself (RFC 8555), shared by the fleet through the
//! store: `keeper` knows when, `order` how. One gateway orders, under a lease; all of them answer
//! the authority and serve what comes of it. It must not know requests.

mod account;
mod answers;
mod client;
mod failure;
mod keeper;
mod lease;
mod order;
mod proofs;
mod records;
mod schedule;
mod served;
mod vault;

pub use self::keeper::Acme;
pub use self::served::State;
