//! Connections to servers: TCP and TLS (`transport`), and one of two carriers of exchanges on them.
//!
//! An HTTP/1.1 connection (`h1`) has one exchange at a time, is driven by its task, and rests in
//! `pool`. An HTTP/2 connection (`trunk`, all of them in `trunks`) has many, and a task of its own
//! that does the I/O; each exchange (`branch`) sends its body (`pump`) and reads the answer's
//! (`received`) in its own task. `exchange` and `body` are what both have in common.
//!
//! Knows neither permits nor which server is chosen.

mod body;
mod branch;
mod content_length;
mod count;
mod exchange;
mod h1;
mod head;
mod pool;
mod pump;
mod received;
mod transport;
mod trunk;
mod trunks;
mod unanswered;

pub(super) use body::Body;
pub(super) use count::{ConnectionCount, Counted};
pub(super) use exchange::{Carrier, exchange};
pub(super) use h1::Connection;
pub(super) use pool::Pool;
pub(super) use transport::Transport;
pub(super) use trunk::{Seat, Trunk};
pub(super) use trunks::Trunks;
pub(super) use unanswered::Unanswered;
