//! A connection with NATS of its own, for who listens: to a subject, where what comes while nobody
//! listens is lost, or to a stream by a consumer, where it waits.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::heard::{Heard, Queue};
use super::known::Known;
use super::link::{Link, Live};
use super::replies::Reply;

/// Most questions of one who listens that wait for an answer.
const QUESTIONS_MAX: usize = 16;
/// What is asked to learn that a subscription has reached the server.
const ECHO: &str = "echo";
/// How long what was denied may take to be known here, behind the echo: errors come by a task of
/// their own. One that comes later still ends the listening.
const DENIAL: Duration = Duration::from_millis(50);

/// Why nothing is heard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unheard {
    /// There is no connection, or it was lost. What comes meanwhile to a subject is missed.
    #[error("there is no connection with NATS at the moment")]
    Disconnected,
    /// The server denies what this needs.
    #[error("NATS denies it ({0}); docs/events.md names the rights that the user needs")]
    Denied(String),
    /// The server has not answered within `connect_timeout`.
    #[error(
        "NATS has not answered {0} within connect_timeout; does the user have the rights that \
         docs/events.md names?"
    )]
    Silent(String),
    /// There is no JetStream.
    #[error("no JetStream answers; is it enabled on the server, and for this account?")]
    NoJetStream,
    /// There is no such consumer, or it cannot be used.
    #[error(
        "the consumer {consumer} of the stream {stream} cannot be read: {why}; make it with `nats \
         consumer add {stream} {consumer} --pull --ack explicit --wait 5s --max-deliver -1 \
         --defaults`"
    )]
    NoConsumer {
        /// The name of its stream.
        stream: String,
        /// Its name.
        consumer: String,
        /// What is wrong with it.
        why: String,
    },
    /// JetStream does not do what it was asked.
    #[error("JetStream says: {0}")]
    Refused(String),
    /// What it has said cannot be read.
    #[error("JetStream has said something that cannot be read")]
    Malformed,
}

/// See the module. It ends with this.
#[derive(Debug)]
pub struct Bus {
    link: Arc<Link>,
    /// What it knows of the consumer that it reads.
    pub(super) known: Mutex<Known>,
}

/// One who listens to a subject.
#[derive(Debug)]
pub struct Listener {
    live: Arc<Live>,
    queue: Queue,
}

impl Bus {
    /// A connection with the servers of this one, which is not made yet.
    pub(in crate::upstream) fn new(of: &Link, label: &str) -> Self {
        let link = of.for_listening(label);
        link.start();
        Self { link, known: Mutex::default() }
    }

    /// Listens to a subject, which may have wildcards. What is published from now on is heard.
    ///
    /// # Errors
    /// There is no connection, or the server does not say that it has heard of this.
    pub async fn listen(&self, subject: &str) -> Result<Listener, Unheard> {
        let live = self.live().await?;
        let subscriber = live.client.subscribe(subject.to_owned()).await;
        let subscriber = subscriber.map_err(|_| live.gone())?;
        // A server does one after the other: where it brings this, it has made the subscription,
        // or denied it.
        let place = live.replies.wait(QUESTIONS_MAX).map_err(|_| live.gone())?;
        let own = format!("{}.{}", live.inbox, place.token());
        publish(&live, own, ECHO.into()).await?;
        self.answer(&live, place, || format!("to a message to its own inbox ({subject})")).await?;
        if timeout(DENIAL, live.lost.cancelled()).await.is_ok() {
            return Err(live.gone());
        }
        let queue = Queue::fill(&live, subscriber);
        Ok(Listener { live, queue })
    }

    /// The connection, which is waited for as long as one may take.
    pub(super) async fn live(&self) -> Result<Arc<Live>, Unheard> {
        self.link.connected(self.link.patience()).await;
        self.link.live().ok_or_else(|| gone(self.link.denied()))
    }

    /// Asks, and waits for an answer of one message.
    pub(super) async fn ask(
        &self,
        live: &Arc<Live>,
        subject: &str,
        payload: Bytes,
    ) -> Result<Message, Unheard> {
        let place = live.replies.wait(QUESTIONS_MAX).map_err(|_| live.gone())?;
        let reply = format!("{}.{}", live.inbox, place.token());
        let sent = live.client.publish_with_reply(subject.to_owned(), reply, payload);
        self.in_time(sent).await?.map_err(|_| live.gone())?;
        let message = self.answer(live, place, || subject.to_owned()).await?;
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(Unheard::NoJetStream);
        }
        Ok(message)
    }

    async fn answer(
        &self,
        live: &Live,
        mut place: super::replies::Waiter,
        what: impl FnOnce() -> String,
    ) -> Result<Message, Unheard> {
        match timeout(self.link.patience(), place.next()).await {
            Ok(Some(Reply::Message(message))) => Ok(message),
            Ok(Some(Reply::TooMuch)) => Err(Unheard::Malformed),
            Ok(None) => Err(live.gone()),
            Err(_) => Err(Unheard::Silent(what())),
        }
    }

    /// Waits no longer than a connection may take: what is to be sent may have no room.
    async fn in_time<T>(&self, sent: impl Future<Output = T>) -> Result<T, Unheard> {
        timeout(self.link.patience(), sent).await.map_err(|_| Unheard::Disconnected)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.link.leave();
    }
}

impl Live {
    /// Why nothing is heard by it any more.
    pub(super) fn gone(&self) -> Unheard {
        gone(self.denied.get().cloned())
    }
}

fn gone(denied: Option<String>) -> Unheard {
    denied.map_or(Unheard::Disconnected, Unheard::Denied)
}

impl Listener {
    /// The next messages, at most `most`: none where none has come for so long. What came before
    /// a loss is heard before that.
    ///
    /// # Errors
    /// The connection is lost, or something that came is: whoever listens anew has missed some.
    pub async fn hear(&mut self, most: usize, patience: Duration) -> Result<Vec<Heard>, Unheard> {
        self.queue.take(most, patience).await.ok_or_else(|| self.live.gone())
    }
}

/// The next message of a subscription; nothing where none has come for so long.
///
/// # Errors
/// The connection is lost.
pub(super) async fn next(
    subscriber: &mut Subscriber,
    live: &Live,
    patience: Duration,
) -> Result<Option<Message>, Unheard> {
    tokio::select! {
        biased;
        () = live.lost.cancelled() => Err(live.gone()),
        message = timeout(patience, subscriber.next()) => match message {
            Ok(None) => Err(live.gone()),
            Ok(Some(message)) => Ok(Some(message)),
            Err(_) => Ok(None),
        },
    }
}

/// Publishes without waiting for an answer.
pub(super) async fn publish(live: &Live, to: String, payload: Bytes) -> Result<(), Unheard> {
    if live.lost.is_cancelled() {
        return Err(live.gone());
    }
    live.client.publish(to, payload).await.map_err(|_| live.gone())
}
