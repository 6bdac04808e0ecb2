//! `GET /v1/live`: what happens, as it happens, as a stream of events (HTML §9.2). One write waits
//! for the one before, so a reader that is behind loses events and is told how many.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::{self, Sender};
use tokio::time::{Instant, interval_at};

use super::connection::Connection;
use super::guard::Caller;
use super::logins::Logins;
use super::masked::mask;
use super::reply::{Body, Fault, Reply};
use crate::base::instance;
use crate::runtime::{Event, Gateway, STREAMS_MAX, Viewer};

/// Longest time without a byte.
const COMMENT_PERIOD: Duration = Duration::from_secs(15);
/// Longest time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pieces that wait for the socket.
const WAITING_MAX: usize = 2;

/// Whoever reads a stream, for as long as it may.
pub(super) struct Reader {
    pub(super) gateway: Arc<Gateway>,
    pub(super) logins: Arc<Logins>,
    pub(super) caller: Caller,
    pub(super) connection: Arc<Connection>,
}

impl Reader {
    /// Whether it may go on. A session that is watched is used.
    fn may_go_on(&self) -> bool {
        let session = self.caller.session();
        !self.gateway.is_draining()
            && session.is_none_or(|it| self.logins.find(&it.digest, Instant::now()).is_some())
    }
}

/// Begins a stream.
pub(super) fn begin(reader: Reader) -> Result<Reply, Fault> {
    let look = reader.gateway.looking.look().ok_or_else(|| Fault::Problem {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "streams_full",
        detail: format!("There are {STREAMS_MAX} streams already: close a tab."),
    })?;
    reader.connection.give_place_back();
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    tokio::spawn(async move {
        let writer = Writer { sender };
        let ended = follow(&reader, look, &writer).await;
        drop(writer);
        if ended != Err(End::Stuck) {
            // Whoever reads has the rest by then.
            tokio::time::sleep(WRITE_TIMEOUT).await;
        }
        // What the socket holds would keep it open.
        reader.connection.end();
    });
    let mut reply = Reply::new(Body::Streamed(receiver));
    for (name, value) in [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
        // It has no place among the listener's any more.
        (CONNECTION, "close"),
    ] {
        reply.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(reply)
}

/// Why nothing more can be written.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The client has left.
    Gone,
    /// It has read nothing for too long.
    Stuck,
}

/// The way to the client.
struct Writer {
    sender: Sender<Bytes>,
}

impl Writer {
    async fn event(&self, kind: &str, data: &str) -> Result<(), End> {
        let mut text = String::with_capacity(kind.len() + data.len() + 16);
        // Writing to a String cannot fail, and JSON has no line break outside of strings' escapes.
        let _ = write!(text, "event: {kind}\ndata: {data}\n\n");
        self.write(text).await
    }

    async fn write(&self, text: String) -> Result<(), End> {
        let sent = tokio::time::timeout(WRITE_TIMEOUT, self.sender.send(Bytes::from(text))).await;
        sent.map_err(|_| End::Stuck)?.map_err(|_| End::Gone)
    }
}

/// Writes until the reader leaves, is stuck, or may not go on.
async fn follow(reader: &Reader, mut look: Viewer, writer: &Writer) -> Result<(), End> {
    let hello = json!({
        "t": format!("{:.3}", jiff::Timestamp::now()),
        "node": instance::name(),
        "version": env!("CARGO_PKG_VERSION"),
        "role": reader.caller.role.word(),
    });
    writer.event("hello", &hello.to_string()).await?;
    let mut comments = interval_at(Instant::now() + COMMENT_PERIOD, COMMENT_PERIOD);
    loop {
        tokio::select! {
            () = writer.sender.closed() => return Err(End::Gone),
            changed = look.ticks.changed() => {
                if changed.is_err() || !reader.may_go_on() {
                    return Ok(());
                }
                let tick = Arc::clone(&look.ticks.borrow_and_update());
                writer.event("tick", &tick).await?;
            }
            event = look.events.recv() => match event {
                Ok(event) => {
                    let data = told(&event, reader.caller.is_masked());
                    writer.event(event.kind, &data.to_string()).await?;
                }
                Err(RecvError::Lagged(lost)) => {
                    writer.event("lagged", &json!({ "lost": lost }).to_string()).await?;
                }
                Err(RecvError::Closed) => return Ok(()),
            },
            _ = comments.tick() => writer.write(": still here\n\n".to_owned()).await?,
        }
    }
}

/// What an event says to this reader.
fn told(event: &Event, is_masked: bool) -> Value {
    let mut data = event.data.clone();
    if is_masked {
        mask(&mut data);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_write_that_is_stuck_ends_a_stream() {
        let (sender, mut receiver) = mpsc::channel(WAITING_MAX);
        let writer = Writer { sender };
        for _ in 0..WAITING_MAX {
            assert_eq!(writer.event("tick", "{}").await, Ok(()));
        }
        let begun = Instant::now();
        assert_eq!(writer.event("tick", "{}").await, Err(End::Stuck));
        assert_eq!(begun.elapsed(), WRITE_TIMEOUT);
        // One that reads again in time goes on.
        let first = receiver.recv().await.unwrap();
        assert_eq!(&first[..], b"event: tick\ndata: {}\n\n");
        assert_eq!(writer.event("tick", "{}").await, Ok(()));
        drop(receiver);
        assert_eq!(writer.event("tick", "{}").await, Err(End::Gone));
    }

    #[test]
    fn whoever_only_reads_is_told_of_no_caller() {
        let data = json!({ "object": { "sub": "ursula", "path": "/x" } });
        let event = Event { kind: "operation", data };
        assert_eq!(told(&event, false)["object"]["sub"], "ursula");
        let masked = told(&event, true);
        assert!(!masked.to_string().contains("ursula"), "{masked}");
        assert_eq!(masked["object"]["path"], "/x");
    }
}
