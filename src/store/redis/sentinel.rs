//! One sentinel: a connection on which it is asked where the primary is, each second and whenever
//! it tells of a change.

use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::{Pipeline, PushInfo, PushKind, Value};
use tokio::sync::{Notify, mpsc, watch};

use super::claims::{PROMOTED, SWITCHED, View, address, promoted};
use super::common::Common;
use super::connect_error::ConnectError;
use super::connection::Connection;
use super::credentials::Material;
use super::dial::{Call, Purpose};
use super::files::Looks;
use super::link::BACKOFF_MIN;
use super::node::Node;
use super::slots::Address;
use crate::config::{self, StoreUrl};

/// Pause between two questions when nothing asks for one.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// The same while the primary is lost: its successor may be chosen any time.
const LOOK_PAUSE_LOST: Duration = Duration::from_millis(100);
/// Longest pause between two attempts to connect.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How sentinels are spoken to, and about which primary.
#[derive(Debug)]
pub(super) struct Speech {
    settings: config::Store,
    pub(super) common: Arc<Common>,
    watched: String,
}

impl Speech {
    /// Sentinels have a user, a password and certificates of their own.
    pub(super) fn of(settings: &config::Store, watched: &str) -> Self {
        let own = settings.sentinel.as_deref().cloned().unwrap_or_default();
        let settings = config::Store {
            username: own.username,
            password: own.password,
            password_file: own.password_file,
            tls: own.tls,
            ..settings.clone()
        };
        let common = Common::of(&settings);
        Self { settings, common, watched: watched.to_owned() }
    }

    /// What a sentinel says, on a connection that ends with it.
    ///
    /// # Errors
    /// It says nothing that can be used.
    pub(super) async fn ask_once(&self, address: &Address) -> Result<View, Fault> {
        let connection = self.dial(&self.node(address), |_| {}).await?;
        self.ask(&connection).await
    }

    /// Which replicas the primary has, as a sentinel knows it, those that are away included.
    ///
    /// # Errors
    /// It says nothing that can be used.
    pub(super) async fn replicas(&self, of: &Address) -> Result<Vec<Address>, Fault> {
        let connection = self.dial(&self.node(of), |_| {}).await?;
        let mut question = redis::cmd("SENTINEL");
        question.arg("REPLICAS").arg(&self.watched);
        let said = tokio::time::timeout(self.settings.connect_timeout, connection.run(&question));
        let said = said.await.map_err(|_| ConnectError::Timeout)?.map_err(ConnectError::from)?;
        let Value::Array(listed) = said else { return Err(Fault::Garbled) };
        let map = &self.settings.address_map;
        Ok(listed.iter().filter_map(address).map(|it| map.of(it)).collect())
    }

    fn node(&self, (host, port): &Address) -> Node {
        let url = StoreUrl::Redis { host: host.clone(), port: *port, db: 0 };
        Node::new(&url, &self.common)
    }

    async fn dial(
        &self,
        node: &Node,
        on_push: impl FnMut(PushInfo) + Send + 'static,
    ) -> Result<Connection, ConnectError> {
        self.dial_with(node, &self.common.credentials.now(), on_push).await
    }

    async fn dial_with(
        &self,
        node: &Node,
        material: &Material,
        on_push: impl FnMut(PushInfo) + Send + 'static,
    ) -> Result<Connection, ConnectError> {
        let settings = &self.settings;
        let call = Call { settings, node, material, purpose: Purpose::Sentinel }.dial(on_push);
        let dialled = tokio::time::timeout(settings.connect_timeout, call).await;
        dialled.map_err(|_| ConnectError::Timeout)?
    }

    /// Looks at the files. True when they had changed, and one of these sentinels accepts what is
    /// in them: it is used from then on.
    async fn look_at_files(&self, named: &[Address]) -> Result<bool, String> {
        let credentials = &self.common.credentials;
        let Some(change) = credentials.changed().await? else { return Ok(false) };
        let mut why = String::new();
        for address in named {
            match self.dial_with(&self.node(address), &change.material, |_| {}).await {
                Ok(_) => {
                    credentials.adopt(change);
                    return Ok(true);
                }
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }

    async fn ask(&self, connection: &Connection) -> Result<View, Fault> {
        let mut pipeline = Pipeline::with_capacity(3);
        pipeline.cmd("SENTINEL").arg("MASTER").arg(&self.watched);
        pipeline.cmd("SENTINEL").arg("SENTINELS").arg(&self.watched);
        pipeline.cmd("SENTINEL").arg("MYID");
        let sent = connection.send(&pipeline);
        let replies = tokio::time::timeout(self.settings.connect_timeout, sent).await;
        let replies = replies.map_err(|_| ConnectError::Timeout)?.map_err(ConnectError::from)?;
        let [primary, others, id] = replies.as_slice() else { return Err(Fault::Garbled) };
        if let Value::ServerError(_) = primary {
            primary.clone().extract_error().map_err(ConnectError::from)?;
        }
        let view = View::read(primary, others, id).ok_or(Fault::Garbled)?;
        Ok(view.called_by(&self.settings.address_map))
    }

    /// Has the connection tell of changes.
    async fn subscribe(&self, connection: &Connection) -> Result<(), ConnectError> {
        let mut subscribe = redis::cmd("SUBSCRIBE");
        subscribe.arg(SWITCHED).arg(PROMOTED);
        let subscribed = connection.subscribe(&subscribe);
        let subscribed = tokio::time::timeout(self.settings.connect_timeout, subscribed).await;
        Ok(subscribed.map_err(|_| ConnectError::Timeout)??)
    }
}

/// Follows the files of what sentinels are asked with, as those for Redis are followed. Ends when
/// nobody speaks any more.
pub(super) async fn follow_files(speech: Weak<Speech>, named: Vec<Address>) {
    let Some(look_now) = speech.upgrade().map(|it| Arc::clone(&it.common.credentials.look)) else {
        return;
    };
    let mut looks = Looks::default();
    loop {
        Looks::next(&look_now).await;
        let Some(speech) = speech.upgrade() else { return };
        looks.tell("store.sentinel", speech.look_at_files(&named).await);
    }
}

/// Why a sentinel cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("its answer is none of a sentinel")]
    Garbled,
}

impl Fault {
    /// Whether something has answered there.
    pub(super) fn is_answer(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_answer(),
            Self::Garbled => true,
        }
    }

    fn is_refusal(&self) -> bool {
        matches!(self, Self::Connect(error) if error.is_refusal())
    }
}

/// What is told of a sentinel.
#[derive(Debug)]
pub(super) enum Said {
    /// What it says.
    View(View),
    /// It has promoted this one.
    Promoted(Address),
    /// It does not answer, for this reason.
    Nothing(String),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Sentinel {
    pub(super) speech: Arc<Speech>,
    pub(super) address: Address,
    /// Whether the primary is lost.
    pub(super) is_lost: watch::Receiver<bool>,
    pub(super) tell: mpsc::Sender<(Address, Said)>,
}

impl Sentinel {
    /// Connects, asks until something fails, and again. Ends when nobody is told any more.
    pub(super) async fn follow(mut self) {
        let node = self.speech.node(&self.address);
        let mut backoff = BACKOFF_MIN;
        loop {
            let mut has_said = false;
            let fault = self.listen(&node, &mut has_said).await;
            if has_said {
                backoff = BACKOFF_MIN;
            }
            if self.say(Said::Nothing(fault.to_string())).await.is_err() {
                return;
            }
            if fault.is_refusal() {
                // What a file holds now can only be better.
                self.speech.common.credentials.give_way().await;
            }
            // Jitter keeps a fleet from knocking in step.
            tokio::time::sleep(backoff.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn say(&self, said: Said) -> Result<(), ()> {
        self.tell.send((self.address.clone(), said)).await.map_err(|_| ())
    }

    /// Asks again and again, until something fails.
    async fn listen(&mut self, node: &Node, has_said: &mut bool) -> Fault {
        let told = Arc::new(Notify::new());
        let connection = match self.connect(node, &told).await {
            Ok(connection) => connection,
            Err(error) => return error.into(),
        };
        loop {
            match self.speech.ask(&connection).await {
                Ok(view) => {
                    *has_said = true;
                    if self.say(Said::View(view)).await.is_err() {
                        return ConnectError::Timeout.into();
                    }
                }
                Err(fault) => return fault,
            }
            let is_lost = *self.is_lost.borrow_and_update();
            let pause = if is_lost { LOOK_PAUSE_LOST } else { LOOK_PAUSE };
            tokio::select! {
                () = told.notified() => {}
                // It fails with the store alone, and then nobody can be told.
                _ = self.is_lost.changed() => {}
                // Jitter spreads the questions of a fleet.
                () = tokio::time::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)) => {}
            }
        }
    }

    async fn connect(&self, node: &Node, told: &Arc<Notify>) -> Result<Connection, ConnectError> {
        let (told, tell) = (Arc::clone(told), self.tell.clone());
        let (speech, address) = (Arc::clone(&self.speech), self.address.clone());
        let on_push = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                told.notify_one();
            } else if let Some((channel, event)) = message(&push) {
                match channel {
                    PROMOTED => {
                        if let Some(promoted) = promoted(event, &speech.watched) {
                            // Without it the switch is met with a moment later.
                            let promoted = speech.settings.address_map.of(promoted);
                            let _ = tell.try_send((address.clone(), Said::Promoted(promoted)));
                        }
                    }
                    _ if event.split(' ').next() == Some(&speech.watched) => told.notify_one(),
                    _ => {}
                }
            }
        };
        let connection = self.speech.dial(node, on_push).await?;
        self.speech.subscribe(&connection).await?;
        Ok(connection)
    }
}

/// A channel, and what was said on it.
fn message(push: &PushInfo) -> Option<(&str, &str)> {
    match (&push.kind, push.data.as_slice()) {
        (PushKind::Other(kind), [Value::BulkString(channel), Value::BulkString(event)])
            if kind == "message" =>
        {
            Some((std::str::from_utf8(channel).ok()?, std::str::from_utf8(event).ok()?))
        }
        _ => None,
    }
}
