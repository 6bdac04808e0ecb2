//! What Redis tells the user who may only look, `[store.operator]`: INFO for the metrics, and what
//! an operator asks to see. The connections are its own, so that no request waits behind it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use redis::{InfoDict, Pipeline, Value};
use tokio::time::Instant;

use super::connect_error::ConnectError;
use super::connection::Connection;
use super::credentials::Material;
use super::dial::{Call, Purpose};
use super::findings::Report;
use super::node::Node;
use super::reply::server_error;
use super::server::Server;
use super::set_up;
use super::slow_log::{self, Slow};
use super::topology::Topology;
use crate::base::units::Secret;
use crate::config::{self, StoreOperator, reread_secret};
use crate::observe::RedisNow;

/// Longest wait for one look at a server, its connection included.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is asked for on request, and the right to it, behind a PING.
const PANELS: [(&str, &[&str]); 3] =
    [("info", &["INFO"]), ("dbsize", &["DBSIZE"]), ("slowlog|get", &["SLOWLOG", "GET", "16"])];

/// The rights to all that is shown.
pub const SHOWN: [&str; PANELS.len()] = [PANELS[0].0, PANELS[1].0, PANELS[2].0];

/// What one server said when it was asked.
#[derive(Debug, Default)]
pub struct Look {
    /// Host and port, or the path of its socket.
    pub node: String,
    /// How long a PING took.
    pub ping: Option<Duration>,
    /// Its INFO.
    pub told: Option<RedisNow>,
    /// How many keys it has, of all prefixes.
    pub keys: Option<u64>,
    /// Its slow log, the newest first.
    pub slow: Vec<Slow>,
    /// The rights that are missing for the rest.
    pub not_permitted: Vec<&'static str>,
    /// Why there is nothing of it.
    pub failure: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Operator {
    user: StoreOperator,
    /// How its connections are made.
    pub(super) settings: config::Store,
    known: Mutex<BTreeMap<String, Watched>>,
    /// When the last step of a walk was made. There is one walk at a time.
    pub(super) walking: tokio::sync::Mutex<Option<Instant>>,
}

/// One server.
#[derive(Debug, Default)]
struct Watched {
    connection: Option<Arc<Connection>>,
    told: Option<RedisNow>,
    /// Whether it was said that it tells nothing.
    is_silent: bool,
}

impl Operator {
    /// Begins to ask for INFO, where there is such a user. Must be called within a tokio runtime.
    pub(super) fn start(topology: &Arc<Topology>) -> Option<Arc<Self>> {
        let user = (**topology.settings.operator.as_ref()?).clone();
        let username = Some(user.username.clone());
        let settings = config::Store { username, ..topology.settings.clone() };
        let every = user.info;
        let operator = Arc::new(Self {
            user,
            settings,
            known: Mutex::default(),
            walking: tokio::sync::Mutex::default(),
        });
        if !every.is_zero() {
            tokio::spawn(follow(Arc::downgrade(topology), Arc::downgrade(&operator), every));
        }
        Some(operator)
    }

    /// What servers said last. Who did not answer the last time has nothing to say.
    pub(super) fn told(&self) -> Vec<RedisNow> {
        self.known().values().filter_map(|it| it.told.clone()).collect()
    }

    /// Looks at all servers.
    pub(super) async fn look(&self, topology: &Topology) -> Vec<Look> {
        let servers = topology.servers();
        join_all(servers.iter().map(|server| self.look_at(topology, server))).await
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Watched>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_at(&self, topology: &Topology, server: &Server) -> Look {
        let mut look = Look { node: name(server), ..Look::default() };
        if let Err(error) = self.take(topology, server, &mut look).await {
            look.failure = Some(text(&error));
        }
        look
    }

    async fn take(
        &self,
        topology: &Topology,
        server: &Server,
        look: &mut Look,
    ) -> Result<(), ConnectError> {
        let mut ping = Pipeline::new();
        ping.cmd("PING");
        // It may be the first question of a connection, whose making is no part of a round trip.
        self.ask(topology, server, &ping).await?;
        let begin = Instant::now();
        self.ask(topology, server, &ping).await?;
        look.ping = Some(begin.elapsed());
        let mut panels = Pipeline::new();
        for (_, words) in PANELS {
            words.iter().enumerate().for_each(|(at, word)| {
                if at == 0 {
                    panels.cmd(word)
                } else {
                    panels.arg(word)
                };
            });
        }
        let replies = self.ask(topology, server, &panels).await?;
        let refused =
            PANELS.iter().zip(&replies).filter(|(_, reply)| server_error(reply).is_some());
        look.not_permitted = refused.map(|((right, _), _)| *right).collect();
        let [info, keys, slow] = <[Value; PANELS.len()]>::try_from(replies).unwrap_or_default();
        look.told = redis::from_redis_value::<InfoDict>(info)
            .ok()
            .map(|info| set_up::read(&look.node, &info));
        look.keys = redis::from_redis_value(keys).ok();
        look.slow = slow_log::read(&slow, &self.settings.prefix);
        Ok(())
    }

    /// Commands on the connection that stands, or on another one where it does not any more.
    pub(super) async fn ask(
        &self,
        topology: &Topology,
        server: &Server,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>, ConnectError> {
        let name = name(server);
        let asked = async {
            let standing = self.known().get(&name).and_then(|it| it.connection.clone());
            if let Some(connection) = standing
                && let Ok(replies) = connection.send(pipeline).await
            {
                return Ok(replies);
            }
            let connection = Arc::new(self.dial(topology, server).await?);
            let replies = connection.send(pipeline).await?;
            self.known().entry(name.clone()).or_default().connection = Some(connection);
            Ok(replies)
        };
        let asked = tokio::time::timeout(PATIENCE, asked).await;
        let result = asked.unwrap_or(Err(ConnectError::Timeout));
        if result.is_err()
            && let Some(watched) = self.known().get_mut(&name)
        {
            watched.connection = None;
        }
        result
    }

    async fn dial(&self, topology: &Topology, server: &Server) -> Result<Connection, ConnectError> {
        let tls = topology.common.credentials.now().tls.clone();
        let material = &Material { tls, password: self.password().await };
        // What is the matter with this user says nothing of the gateway's.
        let node = &Node::new(server.node.address(), &topology.common);
        let (settings, purpose) = (&self.settings, Purpose::Operator);
        Call { settings, node, material, purpose }.dial(|_| {}).await
    }

    async fn password(&self) -> Option<Secret> {
        let written = self.user.password.clone();
        let Some(path) = self.user.password_file.clone() else { return written };
        match tokio::task::spawn_blocking(move || reread_secret(&path)).await {
            Ok(Ok(now)) => Some(now),
            Ok(Err(_)) | Err(_) => written,
        }
    }

    /// Asks all servers for INFO.
    async fn ask_info(&self, topology: &Topology) {
        let servers = topology.servers();
        let names: Vec<String> = servers.iter().map(|server| name(server)).collect();
        self.known().retain(|known, _| names.contains(known));
        let mut info = Pipeline::new();
        info.cmd("INFO");
        join_all(servers.iter().map(async |server| {
            let replies = self.ask(topology, server, &info).await;
            self.take_info(topology, &name(server), replies);
        }))
        .await;
    }

    fn take_info(
        &self,
        topology: &Topology,
        name: &str,
        replies: Result<Vec<Value>, ConnectError>,
    ) {
        let info = replies.and_then(|mut replies| {
            let reply = replies.pop().unwrap_or_default().extract_error()?;
            Ok(redis::from_redis_value::<InfoDict>(reply).map_err(redis::RedisError::from)?)
        });
        let told = info.as_ref().ok().map(|info| set_up::read(name, info));
        let is_silent = told.is_none();
        let was_silent = {
            let mut known = self.known();
            let watched = known.entry(name.to_owned()).or_default();
            watched.told = told;
            std::mem::replace(&mut watched.is_silent, is_silent)
        };
        match info {
            Ok(info) => {
                let checks = set_up::CHECKS.into_iter().collect();
                topology.common.tell(name, Report { checks, findings: set_up::findings(&info) });
            }
            Err(error) if !was_silent => {
                let (user, error) = (&self.user.username, text(&error));
                tracing::warn!(
                    error,
                    server = name,
                    user,
                    "Redis tells its operator nothing, so its metrics are missing\n    help: \
                     `portcullis acl --operator` prints the user that may look"
                );
            }
            Err(_) => {}
        }
    }
}

/// Asks again and again. Ends when the store is dropped.
async fn follow(topology: Weak<Topology>, operator: Weak<Operator>, every: Duration) {
    loop {
        if let (Some(topology), Some(operator)) = (topology.upgrade(), operator.upgrade()) {
            operator.ask_info(&topology).await;
        } else {
            return;
        }
        tokio::time::sleep(every).await;
    }
}

pub(super) fn name(server: &Server) -> String {
    server.node.name().unwrap_or_default().to_owned()
}

pub(super) fn text(error: &ConnectError) -> String {
    match error {
        ConnectError::Timeout => format!("no answer within {PATIENCE:?}"),
        other => other.to_string(),
    }
}
