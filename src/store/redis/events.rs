//! Streams and channels of events on Redis: see [`crate::store::Store::read_events`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use redis::{Cmd, PushInfo, PushKind, Value};
use tokio::sync::mpsc;

use super::RedisStore;
use super::connection::Connection;
use super::dial::Purpose;
use super::index::eval;
use super::reply::unexpected;
use super::topology::Moves;
use crate::store::{
    EVENTS_CONSUMER, EVENTS_PAGE, EVENTS_PAGE_BYTES, EventBody, EventEntry, EventPage, EventStream,
    EventTopic, Reply, StoreError, Told, Unread, keyspace_channels,
};

/// Most messages of a channel that wait to be carried out; one more is a gap.
const MESSAGES_MAX: usize = 4096;
/// Most bytes of them; more is a gap.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// How often a connection that only listens is asked whether it is there.
const PING: Duration = Duration::from_secs(1);

impl RedisStore {
    /// See [`crate::store::Store::read_events`].
    ///
    /// # Errors
    /// See there.
    pub async fn read_events(&self, stream: EventStream<'_>) -> Result<EventPage, StoreError> {
        page(self.ask_patiently(take(stream, "read")).await?)
    }

    /// See [`crate::store::Store::begin_events`].
    ///
    /// # Errors
    /// See there.
    pub async fn begin_events(
        &self,
        stream: EventStream<'_>,
        unread: Unread,
    ) -> Result<(), StoreError> {
        let mut call = take(stream, "begin");
        call.arg(match unread {
            Unread::New => 0,
            Unread::Gone(entries) => entries,
        });
        self.ask_patiently(call).await.map(drop)
    }

    /// See [`crate::store::Store::acknowledge_events`].
    ///
    /// # Errors
    /// See there.
    pub async fn acknowledge_events(
        &self,
        stream: EventStream<'_>,
        ids: &[&str],
    ) -> Result<(), StoreError> {
        let mut call = redis::cmd("XACK");
        call.arg(stream.key).arg(stream.group).arg(ids);
        self.ask_patiently(call).await.map(drop)
    }

    /// See [`crate::store::Store::listen`].
    ///
    /// # Errors
    /// See there.
    pub async fn listen(&self, topic: &EventTopic) -> Result<Listening, StoreError> {
        let topology = &self.topology;
        // Begun before the connection, so that no move is missed.
        let moves = topology.moves();
        let (tell, told) = mpsc::channel(MESSAGES_MAX);
        let waiting = Arc::new(Waiting::default());
        let waits = Arc::clone(&waiting);
        let on_push = move |push: PushInfo| {
            let is_over = push.kind == PushKind::Disconnection;
            if is_over || message(push).is_some_and(|message| !waits.put(&tell, message)) {
                waits.is_lost.store(true, Ordering::Release);
            }
        };
        let (key, subscribe) = match topic {
            EventTopic::Channel(name) => (name, subscribe("SUBSCRIBE", name)),
            EventTopic::Keys(pattern) => {
                let channels = keyspace_channels(&topology.settings.url, pattern);
                (pattern, subscribe("PSUBSCRIBE", &channels))
            }
        };
        let away = |_| StoreError::Unavailable;
        let connection = topology.dial(key, Purpose::Events, on_push).await.map_err(away)?;
        let patience = topology.settings.connect_timeout;
        let subscribed = tokio::time::timeout(patience, connection.subscribe(&subscribe)).await;
        match subscribed {
            Ok(Ok(())) => Ok(Listening { connection, told, waiting, moves, patience }),
            Ok(Err(error)) => Err(StoreError::Refused(error.to_string())),
            Err(_) => Err(StoreError::Timeout),
        }
    }
}

/// What waits to be carried out.
#[derive(Debug, Default)]
struct Waiting {
    bytes: AtomicUsize,
    /// Whether something was told and not heard, or may have been.
    is_lost: AtomicBool,
}

impl Waiting {
    /// Has a message wait. False where there is no room, or something is lost already: what comes
    /// behind that is covered by the gap.
    fn put(&self, tell: &mpsc::Sender<Told>, message: Told) -> bool {
        let bytes = bytes(&message);
        let before = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        before.saturating_add(bytes) <= BYTES_MAX
            && !self.is_lost.load(Ordering::Acquire)
            && tell.try_send(message).is_ok()
    }
}

fn bytes(message: &Told) -> usize {
    message.channel.len() + message.payload.len()
}

/// A connection that listens, and what it has heard.
#[derive(Debug)]
pub struct Listening {
    connection: Connection,
    told: mpsc::Receiver<Told>,
    waiting: Arc<Waiting>,
    /// Whether who listens must do so elsewhere.
    moves: Moves,
    patience: Duration,
}

impl Listening {
    /// Waits for what is told, `most` messages at most, and for a second at most.
    ///
    /// # Errors
    /// The connection is lost, or more was told than is kept. What was heard before that has been
    /// returned by then.
    pub async fn hear(&mut self, most: usize) -> Result<Vec<Told>, StoreError> {
        let mut told = Vec::new();
        if self.waiting.is_lost.load(Ordering::Acquire) {
            self.told.close();
        }
        let heard = tokio::select! {
            biased;
            () = self.moves.next() => {
                self.waiting.is_lost.store(true, Ordering::Release);
                return Ok(told);
            }
            heard = self.told.recv_many(&mut told, most) => Some(heard),
            () = tokio::time::sleep(PING) => None,
        };
        match heard {
            Some(0) => Err(StoreError::Unavailable),
            Some(_) => {
                let heard = told.iter().map(bytes).sum();
                self.waiting.bytes.fetch_sub(heard, Ordering::AcqRel);
                Ok(told)
            }
            None => {
                let ping = redis::cmd("PING");
                let answer = tokio::time::timeout(self.patience, self.connection.run(&ping)).await;
                if !matches!(answer, Ok(Ok(_))) {
                    self.waiting.is_lost.store(true, Ordering::Release);
                }
                Ok(told)
            }
        }
    }
}

fn take(stream: EventStream<'_>, step: &str) -> Cmd {
    let mut call = eval(include_str!("../scripts/events_take.lua"), &[stream.key]);
    call.arg(stream.group).arg(EVENTS_CONSUMER).arg(EVENTS_PAGE).arg(step).arg(EVENTS_PAGE_BYTES);
    call
}

fn subscribe(verb: &str, channel: &str) -> Cmd {
    let mut command = redis::cmd(verb);
    command.arg(channel);
    command
}

/// A message of a channel, or of one that matches a pattern.
fn message(push: PushInfo) -> Option<Told> {
    let PushKind::Other(kind) = push.kind else { return None };
    let before = match kind.as_str() {
        "message" => 0,
        "pmessage" => 1,
        _ => return None,
    };
    let mut data = push.data.into_iter().skip(before);
    match (data.next()?, data.next()?) {
        (Value::BulkString(channel), Value::BulkString(payload)) => Some(Told { channel, payload }),
        _ => None,
    }
}

fn page(reply: Value) -> Reply<EventPage> {
    let Value::Array(parts) = reply else { return Err(unexpected(&reply)) };
    let mut parts = parts.into_iter();
    let state = parts.next();
    let mut number = || parts.next().and_then(text).and_then(|it| it.parse::<u64>().ok());
    let [now_ms, gone, added] = [(); 3].map(|()| number().unwrap_or_default());
    let unread = match state {
        Some(Value::Int(1)) => Some(Unread::Gone(gone)),
        Some(Value::Int(2)) => Some(Unread::New),
        _ => None,
    };
    let has_more = parts.next() == Some(Value::Int(1));
    let entries = parts.filter_map(entry).collect();
    Ok(EventPage { unread, now_ms, added, has_more, entries })
}

fn entry(value: Value) -> Option<EventEntry> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    let id = text(parts.next()?)?;
    let body = match parts.next() {
        Some(Value::Array(flat)) => EventBody::Pairs(pairs(flat)),
        Some(Value::Int(_)) => EventBody::TooLong,
        _ => EventBody::Gone,
    };
    Some(EventEntry { id, body })
}

fn pairs(flat: Vec<Value>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut bytes = flat.into_iter().map(|value| match value {
        Value::BulkString(bytes) => bytes,
        _ => Vec::new(),
    });
    std::iter::from_fn(|| Some((bytes.next()?, bytes.next()?))).collect()
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}
