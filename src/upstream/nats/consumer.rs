//! A pull consumer of JetStream: messages are asked for, done, and acknowledged. What was not
//! acknowledged comes again, to whoever asks then.
//!
//! The consumer is the operator's: it must be there, and its settings are left alone.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::ack::ApiError;
use super::known::Known;
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
    #[serde(default)]
    created: String,
    config: Settings,
    delivered: Sequences,
    ack_floor: Sequences,
    #[serde(default)]
    num_ack_pending: u64,
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
    #[serde(default)]
    created: String,
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
        let subscriber = subscriber.map_err(|_| live.gone())?;
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
        };
        consumer.batch = consumer.batch.min(BATCH_MAX);
        consumer.expires = consumer.expires.min(EXPIRES);
        let of_stream = consumer.of_stream().await?;
        if info.is_new() {
            // It begins with what is there.
            consumer.last = of_stream.state.first_seq.saturating_sub(1);
        }
        self.known().meet(&info, &of_stream);
        Ok(consumer)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Known {
    /// Notes whether some were missed since it was last met.
    fn meet(&mut self, info: &Info, of_stream: &OfStream) {
        let made = [info.created.clone(), of_stream.created.clone()];
        // What the former one had not brought yet may be none of this one's.
        let is_other = self.made.as_ref().is_some_and(|known| *known != made);
        self.made = Some(made);
        let first = of_stream.state.first_seq;
        let has_dropped = !info.is_new() && first > info.done().saturating_add(1);
        if is_other || has_dropped && first > self.first {
            self.misses(first);
        }
    }

    /// Those before this one were dropped unread.
    fn misses(&mut self, first: u64) {
        (self.first, self.has_missed) = (first, true);
    }
}

impl Info {
    /// Whether it has brought nothing yet, and so misses nothing of what was before it.
    fn is_new(&self) -> bool {
        self.delivered.consumer_seq == 0
    }

    /// The last message of the stream up to which all are done. One who is brought some subjects
    /// alone goes past others, of which none are acknowledged.
    fn done(&self) -> u64 {
        let is_idle = self.num_ack_pending == 0;
        if is_idle { self.delivered.stream_seq } else { self.ack_floor.stream_seq }
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
                Some(None) => return Err(self.live.gone()),
                None => break,
            }
        }
        self.note_gaps(&messages).await?;
        let has_missed = std::mem::take(&mut self.bus.known().has_missed);
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
            return Err(self.live.gone());
        }
        let sent = self.live.client.publish_with_reply(subject, self.inbox.clone(), payload.into());
        sent.await.map_err(|_| self.live.gone())?;
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
            if self.is_whole && seq > self.last + 1 {
                let first = self.of_stream().await?.state.first_seq;
                if first > self.last + 1 {
                    self.bus.known().misses(first);
                }
            }
            self.last = self.last.max(seq);
        }
        Ok(())
    }

    /// What the stream says of itself.
    async fn of_stream(&self) -> Result<OfStream, Unheard> {
        let what = format!("STREAM.INFO.{}", self.stream);
        let asked = self.bus.api::<OfStream>(&self.live, &what).await?;
        asked.map_err(|error| Unheard::Refused(error.description))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dropped_is_noted_once_and_so_is_another_consumer_or_stream() {
        let mut known = Known::default();
        let mut meets = |made: [&str; 2], first: u64, said: [u64; 4]| {
            let [brought, delivered, floor, open] = said;
            let info = serde_json::json!({
                "created": made[0], "config": {}, "num_ack_pending": open,
                "delivered": { "consumer_seq": brought, "stream_seq": delivered },
                "ack_floor": { "consumer_seq": 0, "stream_seq": floor },
            });
            let stream = serde_json::json!({
                "created": made[1], "state": { "first_seq": first },
            });
            let info = serde_json::from_value(info).unwrap();
            known.meet(&info, &serde_json::from_value(stream).unwrap());
            std::mem::take(&mut known.has_missed)
        };
        let same = ["a", "s"];
        for (made, first, said, expected, why) in [
            (same, 7, [0, 0, 0, 0], false, "a new one begins with what is there"),
            (same, 8, [1, 7, 7, 0], false, "all is done"),
            (same, 9, [1, 7, 7, 0], true, "one is gone"),
            (same, 9, [1, 7, 7, 0], false, "which was told"),
            (same, 11, [1, 10, 7, 0], false, "others went past, and nothing is open"),
            (same, 11, [2, 10, 7, 1], true, "one is open, and may be gone"),
            (["b", "s"], 11, [0, 0, 0, 0], true, "another consumer"),
            (["b", "s"], 11, [0, 0, 0, 0], false, "which was told"),
            (["b", "t"], 1, [0, 0, 0, 0], true, "another stream"),
            (["b", "t"], 3, [1, 1, 1, 0], true, "and what it drops"),
        ] {
            assert_eq!(meets(made, first, said), expected, "{why}");
        }
    }
}
