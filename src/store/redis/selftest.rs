//! Looks whether a Redis can do all that is asked of it, before anybody needs it: who it is, what
//! its user may do, whether its scripts count right, how it is set up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use redis::{InfoDict, Pipeline, PushInfo, PushKind, Value};
use tokio::sync::Notify;

use super::common::Common;
use super::connect_error::ConnectError;
use super::connection::Connection;
use super::dial::{Call, Purpose};
use super::finding::Finding;
use super::findings::Report;
use super::link::now_ms;
use super::mismatch;
use super::node::Node;
use super::reply::server_error;
use super::rights::{Function, RIGHTS, Right};
use super::scripts::Scripts;
use super::selftest_sentinels;
use super::set_up;
use crate::config::{self, CacheEpochs, StoreUrl, StoreUse};
use crate::store::window::{Window, WindowSet};

/// Life of the keys that it makes, in milliseconds.
const KEYS_TTL_MS: u64 = 5000;
/// The oldest Redis that has all that is used.
const VERSION_MIN: (u32, u32) = (7, 0);
/// How far clocks may be apart before limits on them are noticed by people, in milliseconds.
const CLOCK_OFFSET_MAX_MS: i64 = 2000;
/// How long a change may take to be told of.
const PUSH_TIMEOUT: Duration = Duration::from_millis(200);

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// All.
    Whole,
    /// What changes with the server: who it is, its clock, how it is set up.
    Short,
    /// The same of a replica, and whether pieces of cached bodies may be read there.
    Reader,
}

/// How a server is looked at.
#[derive(Debug, Clone)]
pub(super) struct Sight {
    pub(super) depth: Depth,
    pub(super) is_in_cluster: bool,
    /// A hash tag of keys that lie there. In a Redis Cluster, no key is tried without.
    pub(super) tag: Option<String>,
}

/// One look.
pub(super) struct Look<'a> {
    settings: &'a config::Store,
    node: Node,
    /// Where its keys lie.
    prefix: String,
    depth: Depth,
    is_in_cluster: bool,
    pub(super) checks: BTreeSet<&'static str>,
    pub(super) findings: Vec<Finding>,
}

/// All of them, of the store with this table.
fn of(table: &str, findings: Vec<Finding>) -> Vec<Finding> {
    findings.into_iter().map(|finding| finding.of(table)).collect()
}

/// All that is not as it should be with the server at `address`, which answers, and with its
/// sentinels where all is looked at; what is fatal ends the look. Its own keys live for 5 s. Which
/// process it is comes with it, where this user may know. Nothing is looked at where that is
/// `former`.
///
/// # Errors
/// It does not answer any more.
pub(super) async fn of_server(
    settings: &config::Store,
    address: &StoreUrl,
    sight: Sight,
    former: Option<&str>,
) -> Result<(Option<String>, Option<Report>), ConnectError> {
    let own = config::Store { url: address.clone(), ..settings.clone() };
    let depth = sight.depth;
    let mut look = Look::new(&own, sight);
    let run_id = look.run_id().await?;
    if former.is_some() && former == run_id.as_deref() {
        return Ok((run_id, None));
    }
    if let (StoreUrl::Sentinel { sentinels, primary }, Depth::Whole) = (&settings.url, depth) {
        look.checks.insert("sentinel");
        look.findings = selftest_sentinels::find(settings, sentinels, primary).await.findings;
    }
    look.take().await?;
    let findings = of(settings.usage.table(), look.findings);
    Ok((run_id, Some(Report { checks: look.checks, findings })))
}

impl<'a> Look<'a> {
    /// Of the server at `url` of these settings.
    pub(super) fn new(settings: &'a config::Store, sight: Sight) -> Self {
        let Sight { mut depth, is_in_cluster, tag } = sight;
        let node = Node::new(&settings.url, &Common::of(settings));
        if is_in_cluster && tag.is_none() && depth == Depth::Whole {
            depth = Depth::Short;
        }
        let tag = tag.unwrap_or_else(|| format!("{:016x}", fastrand::u64(..)));
        let prefix = format!("{}:selftest:{{{tag}}}", settings.prefix);
        let (checks, findings) = (BTreeSet::new(), Vec::new());
        Self { settings, node, prefix, depth, is_in_cluster, checks, findings }
    }

    /// Looks at it.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) async fn take(&mut self) -> Result<(), ConnectError> {
        let connection = self.dial(|_| {}).await?;
        self.checks.extend(["version", "mode", "role"]);
        self.identity(&connection).await?;
        if self.findings.iter().any(|finding| finding.is_fatal) {
            return Ok(());
        }
        let has = |usage| self.settings.uses().any(|own| own == usage);
        let (counts, caches) = (has(StoreUse::Limits), has(StoreUse::Cache));
        if matches!(self.depth, Depth::Whole | Depth::Reader) {
            self.checks.insert("rights");
            self.rights().await?;
        }
        if self.depth == Depth::Whole && counts {
            self.checks.insert("scripts");
            self.limits(&connection).await?;
        }
        self.checks.insert("clock");
        self.checks.extend(set_up::CHECKS);
        self.clock(&connection).await?;
        self.set_up(&connection).await?;
        let follows = self.settings.cache_epochs == CacheEpochs::Follow;
        if self.depth == Depth::Whole && caches && follows {
            self.checks.insert("tracking");
            self.tracking(&connection).await?;
        }
        Ok(())
    }

    /// The key of this kind among its own.
    pub(super) fn key(&self, kind: &str) -> String {
        format!("{}:{kind}", self.prefix)
    }

    /// A connection to it, within `store.connect_timeout`.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn dial(
        &self,
        on_push: impl FnMut(PushInfo) + Send + 'static,
    ) -> Result<Connection, ConnectError> {
        let (settings, node, material) =
            (self.settings, &self.node, &self.node.common.credentials.now());
        let call = Call { settings, node, material, purpose: Purpose::Probe }.dial(on_push);
        let dialled = tokio::time::timeout(settings.connect_timeout, call).await;
        dialled.map_err(|_| ConnectError::Timeout)?
    }

    /// Which process it is. Nothing where this user may not know.
    async fn run_id(&self) -> Result<Option<String>, ConnectError> {
        let connection = self.dial(|_| {}).await?;
        let mut pipeline = Pipeline::new();
        pipeline.cmd("INFO").arg("server");
        let info = self.send(&connection, &pipeline).await?.pop().unwrap_or_default();
        Ok(redis::from_redis_value::<InfoDict>(info).ok().and_then(|info| info.get("run_id")))
    }

    /// What is the matter where it does not answer, and what to do.
    pub(super) async fn explain(&self, error: &ConnectError) -> (String, String) {
        let condition = match error.condition() {
            Some(condition) => Some(condition),
            None => mismatch::find(self.settings, self.node.address()).await,
        };
        match condition {
            Some(condition) => {
                let (what, remedy) = condition.text(self.node.common.table);
                (format!("{what}: {error}"), remedy)
            }
            None if self.is_in_cluster => (
                error.to_string(),
                "see to it that it runs, and that it can be reached from here where the Redis \
                 Cluster says that it is, or name another way in store.address_map"
                    .to_owned(),
            ),
            None => (
                error.to_string(),
                "see to it that Redis runs and can be reached at {store}.url".to_owned(),
            ),
        }
    }

    /// Commands within `store.connect_timeout`: nothing here is about how quick Redis is.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) async fn send(
        &self,
        connection: &Connection,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>, ConnectError> {
        let sent = connection.send(pipeline);
        match tokio::time::timeout(self.settings.connect_timeout, sent).await {
            Ok(replies) => Ok(replies?),
            Err(_) => Err(ConnectError::Timeout),
        }
    }

    async fn identity(&mut self, connection: &Connection) -> Result<(), ConnectError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("HELLO");
        let hello = self.send(connection, &pipeline).await?.pop().unwrap_or_default();
        let hello: std::collections::HashMap<String, Value> =
            redis::from_redis_value(hello).unwrap_or_default();
        let text = |name: &str| {
            let value = hello.get(name).cloned().unwrap_or_default();
            redis::from_redis_value::<String>(value).unwrap_or_default()
        };
        let version = text("version");
        if number(&version) < VERSION_MIN {
            let seen = format!("{} {version}, which lacks commands that are used", text("server"));
            self.findings.push(Finding::fatal(
                "version",
                seen,
                "use Redis 7.0 or newer, or Valkey",
            ));
        }
        match &*text("mode") {
            "sentinel" => {
                let seen = "what answers is a Sentinel, which keeps no data";
                let remedy = "write redis-sentinel://host:port/NAME in {store}.url, or name the \
                              primary that it watches";
                self.findings.push(Finding::fatal("mode", seen, remedy));
            }
            "cluster" if !self.is_in_cluster => {
                let seen = "what answers is a node of a Redis Cluster, which sends clients on";
                let remedy = "write redis-cluster:// with some of its servers in {store}.url";
                self.findings.push(Finding::fatal("mode", seen, remedy));
            }
            _ => {}
        }
        if self.depth != Depth::Reader && matches!(&*text("role"), "replica" | "slave") {
            let seen = "Redis is a replica and takes no writes";
            let remedy = "name the primary, or an address that follows it, in {store}.url";
            self.findings.push(Finding::fatal("role", seen, remedy));
        }
        Ok(())
    }

    /// On a connection of its own, which may end up inside a transaction.
    async fn rights(&mut self) -> Result<(), ConnectError> {
        let connection = &self.dial(|_| {}).await?;
        let tried = self.tried();
        let mut pipeline = Pipeline::new();
        for right in &tried {
            let mut words = right.trial.split(' ');
            let command = pipeline.cmd(words.next().unwrap_or_default());
            for word in words {
                match word.strip_prefix('$') {
                    Some("script") => command.arg("return 1"),
                    Some(kind) => command.arg(format!("{}:{kind}", self.prefix)),
                    None => command.arg(word),
                };
            }
        }
        let replies = self.send(connection, &pipeline).await?;
        for (right, reply) in tried.iter().zip(&replies) {
            let Some(error) = server_error(reply) else { continue };
            if is_elsewhere(reply) {
                continue;
            }
            if self.findings.iter().any(|finding| finding.seen.contains(&quoted(right.command))) {
                continue;
            }
            self.findings.push(self.refused(right, &error.to_string()));
        }
        Ok(())
    }

    /// The rights that are tried, in the order of the table.
    fn tried(&self) -> Vec<&'static Right> {
        let is_wanted = |usage: &StoreUse| self.settings.has(*usage);
        let uses: Vec<StoreUse> = self.settings.uses().filter(is_wanted).collect();
        let is_tried = |right: &&Right| {
            !right.trial.is_empty()
                && right.is_for(&uses)
                && (self.is_in_cluster || right.functions != [Function::Cluster])
                && (self.settings.waits_for_disk() || right.functions != [Function::Disk])
        };
        // A replica is read from, once it is told that it may be.
        let is_read = |right: &&Right| right.command == "mget";
        let first = RIGHTS.iter().filter(|right| right.command == "readonly");
        let all = RIGHTS.iter().filter(is_tried);
        match self.depth {
            Depth::Reader => first.chain(all.filter(is_read)).collect(),
            Depth::Whole | Depth::Short => all.collect(),
        }
    }

    fn refused(&self, right: &Right, error: &str) -> Finding {
        let command = quoted(right.command);
        let suffers: Vec<&str> = right.functions.iter().map(|it| it.name()).collect();
        let suffers = suffers.join(", ");
        let is_of_all = matches!(right.command, "script|load" | "eval");
        let user = self.settings.username.as_deref().unwrap_or("default");
        let (seen, remedy) = if error.contains("access") && error.contains("key") {
            let keys = format!("~{}:*", self.settings.prefix);
            let seen = format!("the user {user} may not use {command} on keys of the gateway");
            (seen, format!("ACL SETUSER {user} {keys}"))
        } else if error.contains("NOPERM") || error.contains("no permissions") {
            let seen = format!("the user {user} lacks the right to {command}");
            (
                seen,
                format!(
                    "ACL SETUSER {user} +{}, or all that `portcullis acl` prints",
                    right.command
                ),
            )
        } else {
            let seen = format!("Redis does not take {command} as it is sent ({error})");
            let version = if right.functions == [Function::Disk] { "7.2" } else { "7.0" };
            (seen, format!("use Redis {version} or newer, or Valkey"))
        };
        Finding { is_fatal: is_of_all, check: "rights", seen, suffers, remedy }
    }

    /// Whether the scripts of limits count as they should, and give back.
    async fn limits(&mut self, connection: &Connection) -> Result<(), ConnectError> {
        let scripts = Scripts::new();
        let set = WindowSet::new(vec![Window::new(2, Duration::from_millis(KEYS_TTL_MS))]);
        let key = format!("{}:limit", self.prefix);
        let mut pipeline = Pipeline::new();
        for _ in 0..3 {
            let call = pipeline.cmd("EVAL").arg(scripts.take.code).arg(1).arg(&key);
            call.arg(set.records.as_slice()).arg(&set.ttls);
        }
        let mut replies = self.send(connection, &pipeline).await?;
        let at = match replies.first() {
            Some(Value::BulkString(packed)) => packed.get(1..7).unwrap_or_default().to_vec(),
            _ => Vec::new(),
        };
        let mut pipeline = Pipeline::new();
        let refund = pipeline.cmd("EVAL").arg(scripts.refund.code).arg(1).arg(&key);
        refund.arg(at).arg(set.records.as_slice());
        let take = pipeline.cmd("EVAL").arg(scripts.take.code).arg(1).arg(&key);
        take.arg(set.records.as_slice()).arg(&set.ttls);
        replies.extend(self.send(connection, &pipeline).await?);
        if replies.iter().any(is_elsewhere) {
            return Ok(());
        }
        let error = replies.iter().find_map(server_error);
        let took: Vec<Option<bool>> =
            [0, 1, 2, 4].iter().map(|at| replies.get(*at).and_then(is_allowed)).collect();
        let seen = match error {
            // A missing right, which was found already.
            Some(_) if self.findings.iter().any(|finding| finding.check == "rights") => {
                return Ok(());
            }
            Some(error) => format!("the script of limits does not run: {error}"),
            None if took == [Some(true), Some(true), Some(false), Some(true)] => return Ok(()),
            None => {
                format!("three charges of a limit of two, and one after a refund, gave {took:?}")
            }
        };
        self.findings.push(Finding::fatal("scripts", seen, "use Redis 7.0 or newer, or Valkey"));
        Ok(())
    }

    async fn clock(&mut self, connection: &Connection) -> Result<(), ConnectError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("TIME");
        let before = now_ms();
        let time = self.send(connection, &pipeline).await?.pop().unwrap_or_default();
        if let Ok((seconds, _)) = redis::from_redis_value::<(i64, i64)>(time) {
            let offset = seconds.saturating_mul(1000).saturating_sub(before);
            if offset.abs() > CLOCK_OFFSET_MAX_MS {
                self.findings.push(Finding::warning(
                    "clock",
                    format!("Redis's clock and this machine's are {offset} ms apart"),
                    "tokens and sessions, whose ends are told by both",
                    "have both follow the same time servers (NTP)",
                ));
            }
        }
        Ok(())
    }

    async fn set_up(&mut self, connection: &Connection) -> Result<(), ConnectError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("INFO");
        let info = self.send(connection, &pipeline).await?.pop().unwrap_or_default();
        // Without the right, which was said already, nothing is known.
        let Ok(info) = redis::from_redis_value::<InfoDict>(info) else { return Ok(()) };
        self.findings.extend(set_up::findings(&info));
        if self.settings.waits_for_disk() && self.depth != Depth::Reader {
            self.checks.insert("fsync");
            self.findings.extend(set_up::no_file(&info));
        }
        Ok(())
    }

    /// Whether Redis tells of a change that another connection makes.
    async fn tracking(&mut self, connection: &Connection) -> Result<(), ConnectError> {
        let told = Arc::new(Notify::new());
        let tell = Arc::clone(&told);
        let ear = self
            .dial(move |push| {
                if push.kind == PushKind::Invalidate {
                    tell.notify_one();
                }
            })
            .await?;
        let mut pipeline = Pipeline::new();
        pipeline
            .cmd("CLIENT")
            .arg("TRACKING")
            .arg("ON")
            .arg("BCAST")
            .arg("PREFIX")
            .arg(&self.prefix);
        let tracked = self.send(&ear, &pipeline).await?.pop().unwrap_or_default();
        let mut write = Pipeline::new();
        let key = format!("{}:epoch", self.prefix);
        write.cmd("SET").arg(key).arg(1).arg("PX").arg(KEYS_TTL_MS);
        self.send(connection, &write).await?;
        let seen = match server_error(&tracked) {
            Some(error) => error.to_string(),
            None if tokio::time::timeout(PUSH_TIMEOUT, told.notified()).await.is_ok() => {
                return Ok(());
            }
            None => format!("a change was not told of within {PUSH_TIMEOUT:?}"),
        };
        self.findings.push(Finding::warning(
            "tracking",
            format!("CLIENT TRACKING does not work: {seen}"),
            Function::KnownEpochs.name(),
            "ACL SETUSER … +client|tracking, or write cache_epochs = \"ask\"",
        ));
        Ok(())
    }
}

/// Whether it says that the keys of the look lie elsewhere by now: their slot has moved, or nobody
/// has it, which others tell of. Or that the server has become a replica meanwhile, which does not
/// take WAIT.
fn is_elsewhere(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error)
        if matches!(error.code(), "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN")
            || error.details().is_some_and(|said| said.contains("replica instances")))
}

/// What the script of limits says of a charge.
fn is_allowed(reply: &Value) -> Option<bool> {
    match reply {
        Value::BulkString(packed) => packed.first().map(|allowed| *allowed == 1),
        _ => None,
    }
}

fn quoted(command: &str) -> String {
    format!("`{command}`")
}

/// The first two numbers of a version.
pub(super) fn number(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or_default());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}
