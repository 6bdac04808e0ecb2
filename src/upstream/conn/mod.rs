//! Connections to servers: TCP and TLS (`transport`), HTTP/1.1 on them (`h1`), what of a response's
//! head and body is about the connection, and the unused ones (`pool`).
//!
//! Knows neither permits nor which server is chosen. HTTP/2 to upstreams belongs here.

mod body;
mod content_length;
mod count;
mod exchange;
mod h1;
mod head;
mod pool;
mod transport;

pub(super) use body::Body;
pub(super) use count::ConnectionCount;
pub(super) use exchange::exchange;
pub(super) use h1::{Connection, Unanswered};
pub(super) use pool::Pool;
pub(super) use transport::Transport;
