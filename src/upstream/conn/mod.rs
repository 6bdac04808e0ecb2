//! Connections to servers: HTTP/1.1 on clear TCP (`h1`), what of a response's head and body is
//! about the connection, and the unused ones (`pool`).
//!
//! Knows neither permits nor which server is chosen. HTTP/2 and TLS to upstreams belong here.

mod body;
mod content_length;
mod count;
mod exchange;
mod h1;
mod head;
mod pool;

pub(super) use body::Body;
pub(super) use count::{ConnectionCount, Counted};
pub(super) use exchange::exchange;
pub(super) use h1::{Connection, Unanswered};
pub(super) use pool::Pool;
