//! A pull consumer of JetStream: messages are asked for, done, and acknowledged. What was not
//! acknowledged comes again, to whoever asks then.
//!
//! The consumer is the operator's: it must be there, and its settings are left alone.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::ack::ApiError;
use super::link::Live;
use super::listening::{Bus, Unheard, next, publish};
use super::position::Position;

/// Most messages that are asked for at a time.
const BATCH_MAX: usize = 64;
/// How long JetStream keeps a question for messages, and how much later it is surely over.
const EXPIRES: Duration = Duration::from_secs(30);
const EXPIRED: Duration = Duration::from_secs(32);
/// It is done.
const ACK: &[u8] = b"+ACK";
/// It is not, and is to come again a second later, in nanoseconds.
const NAK: &[u8] = b"-NAK {\"delay\":1000000000}";

/// See the module.
#[derive(Debug)]
pub struct Consumer<'b> {
    bus: &'b Bus,
    live: Arc<Live>,
    subscriber: Subscriber,
    /// Where messages come to.
    inbox: String,
    stream: String,
    name: String,
    /// How many are asked for at a time, and how long such a question is kept.
    batch: usize,
    expires: Duration,
    /// How many may still come of what was asked for, and until when.
    asked: usize,
    until: Instant,
    /// Whether it gets all that the stream has.
    is_whole: bool,
    /// The last message of the stream that came, or is done.
    last: u64,
    has_missed: bool,
}

/// A message that is to be acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Its subject.
    pub subject: String,
    /// Its payload.
    pub payload: Bytes,
    /// Where it stands.
    pub at: Position,
    /// Where it is acknowledged.
    reply: String,
}

/// What has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pull {
    /// Messages, in order.
    pub messages: Vec<Pulled>,
    /// Whether the stream has dropped some before they were read.
    pub has_missed: bool,
}

#[derive(Deserialize)]
struct Info {
    config: Settings,
    delivered: Sequences,
    ack_floor: Sequences,
}

#[derive(Deserialize)]
struct Settings {
    deliver_subject: Option<String>,
    #[serde(default)]
    ack_policy: String,
    filter_subject: Option<String>,
    filter_subjects: Option<Vec<String>>,
    /// Below 1: as often as it takes.
    max_deliver: Option<i64>,
    max_batch: Option<usize>,
    /// In nanoseconds.
    max_expires: Option<u64>,
}

#[derive(Deserialize)]
struct Sequences {
    consumer_seq: u64,
    stream_seq: u64,
}

#[derive(Deserialize)]
struct OfStream {
    state: State,
}

#[derive(Deserialize)]
struct State {
    first_seq: u64,
}

#[derive(Deserialize)]
struct Failed {
    error: ApiError,
}

impl Bus {
    /// The consumer of this name, which must be there.
    ///
    /// # Errors
    /// There is no connection, or no such consumer, or it is of another kind.
    pub async fn consume(&self, stream: &str, name: &str) -> Result<Consumer<'_>, Unheard> {
        let live = self.live().await?;
        let inbox = live.client.new_inbox();
        let subscriber = live.client.subscribe(inbox.clone()).await;
        let subscriber = subscriber.map_err(|_| Unheard::Disconnected)?;
        let no = |why: String| {
            let (stream, consumer) = (stream.to_owned(), name.to_owned());
            Unheard::NoConsumer { stream, consumer, why }
        };
        let asked = self.api::<Info>(&live, &format!("CONSUMER.INFO.{stream}.{name}")).await?;
        let info = asked.map_err(|error| no(error.description))?;
        let Settings { deliver_subject, ack_policy, .. } = &info.config;
        if deliver_subject.as_ref().is_some_and(|it| !it.is_empty()) {
            return Err(no("it pushes messages".into()));
        }
        // With `all`, whatever is done acknowledges what was handed back before it.
        if ack_policy != "explicit" {
            return Err(no(format!("its ack_policy is {ack_policy:?}, and not \"explicit\"")));
        }
        if let Some(most) = info.config.max_deliver.filter(|most| *most > 0) {
            return Err(no(format!("it gives up after {most} deliveries")));
        }
        let mut consumer = Consumer {
            bus: self,
            live,
            subscriber,
            inbox,
            stream: stream.to_owned(),
            name: name.to_owned(),
            batch: info.config.max_batch.filter(|most| *most > 0).unwrap_or(BATCH_MAX),
            expires: info
                .config
                .max_expires
                .filter(|it| *it > 0)
                .map_or(EXPIRES, Duration::from_nanos),
            asked: 0,
            until: Instant::now(),
            is_whole: info.config.is_whole(),
            last: info.delivered.stream_seq,
            has_missed: false,
        };
        consumer.batch = consumer.batch.min(BATCH_MAX);
        consumer.expires = consumer.expires.min(EXPIRES);
        let first = consumer.first().await?;
        if info.delivered.consumer_seq == 0 {
            // A new one begins with what is there, and misses nothing by that.
            consumer.last = first.saturating_sub(1);
        } else {
            consumer.has_missed = first > info.ack_floor.stream_seq.saturating_add(1);
        }
        Ok(consumer)
    }

    /// Asks the API of JetStream.
    async fn api<T: DeserializeOwned>(
        &self,
        live: &Arc<Live>,
        what: &str,
    ) -> Result<Result<T, ApiError>, Unheard> {
        let message = self.ask(live, &format!("$JS.API.{what}"), Bytes::new()).await?;
        if let Ok(Failed { error }) = serde_json::from_slice(&message.payload) {
            return Ok(Err(error));
        }
        serde_json::from_slice(&message.payload).map(Ok).map_err(|_| Unheard::Malformed)
    }
}

impl Settings {
    /// Whether it names no subjects among those of the stream.
    fn is_whole(&self) -> bool {
        let names_one = self.filter_subject.as_ref().is_some_and(|it| !it.is_empty() && it != ">");
        let names_some = self.filter_subjects.as_ref().is_some_and(|all| !all.is_empty());
        !names_one && !names_some
    }
}

impl Consumer<'_> {
    /// The next messages: none where none has come for so long. Dropping it loses none: they come
    /// again.
    ///
    /// # Errors
    /// The connection is lost, or the consumer is gone.
    pub async fn pull(&mut self, patience: Duration) -> Result<Pull, Unheard> {
        let mut messages = Vec::new();
        let until = Instant::now() + patience;
        while messages.is_empty() {
            self.ask_for_more().await?;
            let left = until.min(self.until).saturating_duration_since(Instant::now());
            match next(&mut self.subscriber, &self.live, left).await? {
                Some(message) => messages.extend(self.read(message)?),
                None if Instant::now() >= until => break,
                None => {}
            }
        }
        while !messages.is_empty() && messages.len() < self.batch {
            match self.subscriber.next().now_or_never() {
                Some(Some(message)) => messages.extend(self.read(message)?),
                Some(None) => return Err(Unheard::Disconnected),
                None => break,
            }
        }
        self.note_gaps(&messages).await?;
        let has_missed = std::mem::take(&mut self.has_missed);
        Ok(Pull { messages, has_missed })
    }

    /// All of these are done. Waits until JetStream knows.
    ///
    /// # Errors
    /// Nobody knows whether it does: some may come again.
    pub async fn acknowledge(&self, messages: &[Pulled]) -> Result<(), Unheard> {
        let Some((last, others)) = messages.split_last() else { return Ok(()) };
        for message in others {
            publish(&self.live, message.reply.clone(), Bytes::from_static(ACK)).await?;
        }
        // What was sent before it is read before it.
        self.bus.ask(&self.live, &last.reply, Bytes::from_static(ACK)).await.map(|_| ())
    }

    /// This one is not done, and is to come again a little later.
    ///
    /// # Errors
    /// The connection is lost: it comes again later.
    pub async fn hand_back(&self, message: &Pulled) -> Result<(), Unheard> {
        publish(&self.live, message.reply.clone(), Bytes::from_static(NAK)).await
    }

    /// Asks for messages, unless that was done.
    async fn ask_for_more(&mut self) -> Result<(), Unheard> {
        let now = Instant::now();
        if self.asked > 0 && now < self.until {
            return Ok(());
        }
        let expires = self.expires.as_nanos();
        let payload = format!("{{\"batch\":{},\"expires\":{expires}}}", self.batch);
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.name);
        if self.live.lost.is_cancelled() {
            return Err(Unheard::Disconnected);
        }
        let sent = self.live.client.publish_with_reply(subject, self.inbox.clone(), payload.into());
        sent.await.map_err(|_| Unheard::Disconnected)?;
        (self.asked, self.until) = (self.batch, now + EXPIRED);
        Ok(())
    }

    /// A message that is to be done; nothing where it is one about the question.
    fn read(&mut self, message: Message) -> Result<Option<Pulled>, Unheard> {
        let Message { subject, reply, payload, status, description, .. } = message;
        match status {
            None => {}
            Some(StatusCode::IDLE_HEARTBEAT) => return Ok(None),
            Some(StatusCode::NOT_FOUND | StatusCode::TIMEOUT) => {
                self.asked = 0;
                return Ok(None);
            }
            Some(StatusCode::NO_RESPONDERS) => return Err(Unheard::NoJetStream),
            Some(_) => {
                let said = description.map(|text| text.to_string()).unwrap_or_default();
                return Err(Unheard::Refused(said));
            }
        }
        self.asked = self.asked.saturating_sub(1);
        let reply = reply.map(|reply| reply.to_string()).unwrap_or_default();
        let at = Position::of(&reply).ok_or(Unheard::Malformed)?;
        Ok(Some(Pulled { subject: subject.to_string(), payload, at, reply }))
    }

    /// Notes where the stream has dropped what was to come between two messages.
    async fn note_gaps(&mut self, messages: &[Pulled]) -> Result<(), Unheard> {
        let fresh = |message: &&Pulled| message.at.delivered == 1;
        for message in messages.iter().filter(fresh) {
            let seq = message.at.stream_seq;
            // Of some subjects alone the others are left out, and nobody can tell.
            if self.is_whole && seq > self.last + 1 && self.first().await? > self.last + 1 {
                self.has_missed = true;
            }
            self.last = self.last.max(seq);
        }
        Ok(())
    }

    /// The first message that the stream still has.
    async fn first(&self) -> Result<u64, Unheard> {
        let what = format!("STREAM.INFO.{}", self.stream);
        let asked = self.bus.api::<OfStream>(&self.live, &what).await?;
        let info = asked.map_err(|error| Unheard::Refused(error.description))?;
        Ok(info.state.first_seq)
    }
}
