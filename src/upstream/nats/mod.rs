//! An upstream that is reached over NATS: a request is a message to a subject, and its answer a
//! message, or several, to a subject of the request's own.
//!
//! `link` keeps one connection, and makes another one where that is lost. Nothing that was handed
//! to a lost connection is sent by the next one, since its client may have been answered by then.
//! `replies` brings each message to the request that waits for it. `message` makes of a request
//! what is sent, and `packet` knows what services write and read in it; both do no I/O.
//! `ack` is what a stream of JetStream says of a message that it was to store.
//!
//! Who listens has a connection of its own (`listening`): to subjects, where what was `heard` waits
//! within bounds, or by a `consumer` to a stream, which says in each message where it stands
//! (`position`). `asking` is one attempt, and ends like one over HTTP.

mod ack;
mod asking;
mod consumer;
mod heard;
mod known;
mod link;
mod listening;
mod message;
mod packet;
mod position;
mod replies;
mod users;

pub use ack::Ack;
pub(super) use asking::ask;
pub use consumer::{Consumer, Pull, Pulled};
pub use heard::Heard;
pub(super) use link::Link;
pub use listening::{Bus, Listener, Unheard};
pub use position::Position;

/// Longest message that is sent or made of others, in bytes: what a server announces may be more.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most values that are one answer.
const VALUES_MAX: usize = 1_000;
/// Most messages that are one answer: the values, and one that says that there are no more.
const REPLIES_MAX: usize = VALUES_MAX + 1;
/// Most messages that wait.
const HEARD_MAX: usize = 1_024;
