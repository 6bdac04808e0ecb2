//! The histories of servers' data: which one a connection shows, and that a server has another one
//! than before.
//!
//! A server has a replication id from its start on, and another one from the moment on at which it
//! takes over; then it tells the former one too. It is asked for it before a connection is used,
//! and once a second on one that nobody waits for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use redis::{InfoDict, RedisError, Value};
use tokio::sync::watch;

use super::connection::Connection;
use super::stream::millis;
use crate::config;
use crate::store::EPOCH_TTL;
use crate::store::keys::Keys;
use crate::store::lineage::{Lineage, LineageChange, LineageChanges, LineageSource, Loss};

/// What is written where a server does not know a former history.
const NO_ID: &str = "0000000000000000000000000000000000000000";
/// Most servers whose histories are known at a time.
const SERVERS_MAX: usize = 4096;
/// Most changes that are remembered for those who have not heard of them yet.
const CHANGES_MAX: usize = 64;

/// What stands in for an id where the server tells none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// One of several servers: a key lies on one of them, and says nothing of the others.
    Nothing,
    /// What a key holds; something new, where all connections had been lost.
    Key { is_new: bool },
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    is_replica: bool,
    id: String,
    source: LineageSource,
    /// The history that it goes on with.
    former: Option<String>,
    /// Another one after each start.
    run_id: String,
    /// How many replicas follow it.
    pub(super) replicas: u32,
}

impl Told {
    /// Of the answers to INFO; nothing where they hold no id.
    fn read(info: &InfoDict) -> Option<Self> {
        let text = |name: &str| info.get::<String>(name).filter(|text| !text.is_empty());
        let run_id = text("run_id").unwrap_or_default();
        let (id, source) = match text("master_replid") {
            Some(id) => (id, LineageSource::ReplicationId),
            None if !run_id.is_empty() => (run_id.clone(), LineageSource::RunId),
            None => return None,
        };
        Some(Self {
            is_replica: text("role").is_some_and(|role| role == "slave" || role == "replica"),
            id,
            source,
            former: text("master_replid2").filter(|id| id != NO_ID),
            run_id,
            replicas: info.get("connected_slaves").unwrap_or_default(),
        })
    }

    fn of_id(id: String, source: LineageSource) -> Self {
        let (former, run_id) = (None, String::new());
        Self { is_replica: false, id, source, former, run_id, replicas: 0 }
    }

    /// That of what the server answers; nothing of a replica, which may get another one any time.
    pub(super) fn lineage(&self) -> Option<Lineage> {
        (!self.is_replica).then(|| Lineage::of(&self.id))
    }
}

/// Asks a server. The caller has a deadline around it.
///
/// # Errors
/// The connection failed.
pub(super) async fn ask(
    connection: &Connection,
    settings: &config::Store,
    otherwise: Otherwise,
) -> Result<Told, RedisError> {
    let mut info = String::new();
    for section in ["replication", "server"] {
        match connection.run(redis::cmd("INFO").arg(section)).await {
            Ok(text) => info += &redis::from_redis_value::<String>(text)?,
            // It may not be asked.
            Err(error) if error.code().is_some() => {}
            Err(error) => return Err(error),
        }
    }
    if let Some(told) = Told::read(&InfoDict::new(&info)) {
        return Ok(told);
    }
    let is_new = match otherwise {
        Otherwise::Nothing => return Ok(Told::of_id(String::new(), LineageSource::Nothing)),
        Otherwise::Key { is_new } => is_new,
    };
    Ok(Told::of_id(key(connection, settings, is_new).await?, LineageSource::Key))
}

/// What the key holds that stands for the history where nobody tells it. All gateways see it; one
/// that had lost all its connections cannot know what became of the data, and replaces it.
async fn key(
    connection: &Connection,
    settings: &config::Store,
    is_new: bool,
) -> Result<String, RedisError> {
    let key = Keys::new(&settings.prefix).lineage();
    let fresh =
        format!("{:032x}", u128::from(fastrand::u64(..)) << 64 | u128::from(fastrand::u64(..)));
    let mut set = redis::cmd("SET");
    set.arg(key).arg(&fresh).arg("PX").arg(millis(EPOCH_TTL));
    if !is_new {
        set.arg("NX").arg("GET");
    }
    Ok(match connection.run(&set).await? {
        Value::BulkString(known) => String::from_utf8_lossy(&known).into_owned(),
        _ => fresh,
    })
}

/// The lineage of what one connection answers.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Unknown on a connection to a replica, until that takes over.
    lineage: OnceLock<Lineage>,
    /// How often the server had been in doubt when it was last asked; so many as now.
    asked: AtomicU64,
    /// Whether the server has another one by now. Such a connection is replaced: what it had
    /// answered before must not be taken for what it answers now.
    is_over: AtomicBool,
}

impl Shown {
    /// What a server said that was asked after so many doubts.
    pub(super) fn of(lineage: Option<Lineage>, asked: u64) -> Self {
        let lineage = lineage.map_or_else(OnceLock::new, OnceLock::from);
        Self { lineage, asked: AtomicU64::new(asked), is_over: AtomicBool::new(false) }
    }

    /// Nothing where it is not known, or was not asked for since the last of so many doubts.
    pub(super) fn get(&self, doubts: u64) -> Option<Lineage> {
        let is_certain = !self.is_over() && self.asked.load(Ordering::Acquire) == doubts;
        self.lineage.get().copied().filter(|_| is_certain)
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// The server has none of its own any more: what is not known is known later, and what was is
    /// over. True where it is.
    pub(super) fn end(&self) -> bool {
        if self.lineage.get().is_some() {
            self.is_over.store(true, Ordering::Release);
        }
        self.is_over()
    }

    /// The server has this one, as it said after so many doubts. False when the connection cannot
    /// show it.
    pub(super) fn is_now(&self, lineage: Lineage, asked: u64) -> bool {
        if *self.lineage.get_or_init(|| lineage) != lineage {
            self.is_over.store(true, Ordering::Release);
        }
        self.asked.fetch_max(asked, Ordering::AcqRel);
        !self.is_over()
    }
}

/// Which histories the servers of one store have, as far as this process knows.
#[derive(Debug)]
pub(super) struct Histories {
    known: Mutex<Vec<Known>>,
    source: OnceLock<LineageSource>,
    fail_overs: AtomicU64,
    data_lost: AtomicU64,
    changes: watch::Sender<Vec<(u64, LineageChange)>>,
}

#[derive(Debug)]
struct Known {
    /// Empty where one server at a time has everything.
    server: String,
    id: String,
    run_id: String,
}

impl Default for Histories {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            source: OnceLock::new(),
            fail_overs: AtomicU64::new(0),
            data_lost: AtomicU64::new(0),
            changes: watch::Sender::new(Vec::new()),
        }
    }
}

impl Histories {
    /// With how many fail-overs, and how often with all data lost.
    pub(super) fn counts(&self) -> [u64; 2] {
        [self.fail_overs.load(Ordering::Relaxed), self.data_lost.load(Ordering::Relaxed)]
    }

    pub(super) fn source(&self) -> Option<LineageSource> {
        self.source.get().copied()
    }

    /// Tells of changes from now on.
    pub(super) fn changes(&self) -> LineageChanges {
        let told = self.changes.subscribe();
        let heard = told.borrow().last().map_or(0, |(number, _)| *number);
        LineageChanges { told, heard }
    }

    /// A server that serves has said this; the log calls it by its `name`.
    pub(super) fn hear(&self, server: &str, name: Option<&str>, told: &Told) {
        let _ = self.source.set(told.source);
        if told.source == LineageSource::Nothing {
            return;
        }
        let Some(loss) = self.judge(server, told) else { return };
        let change = LineageChange { loss, server: server.to_owned() };
        match loss {
            Loss::FailOver => {
                self.fail_overs.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    server = name,
                    "another server goes on with the data of Redis: the last writes may be lost; \
                     what is cached is fetched anew"
                );
            }
            Loss::Data => {
                self.data_lost.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    server = name,
                    "Redis has lost its data, or goes on with what it had saved; what is cached is \
                     fetched anew"
                );
            }
        }
        self.changes.send_modify(|changes| {
            let number = changes.last().map_or(0, |(number, _)| *number) + 1;
            if changes.len() >= CHANGES_MAX {
                changes.remove(0);
            }
            changes.push((number, change));
        });
    }

    /// What was lost, if this is another history than before.
    fn judge(&self, server: &str, told: &Told) -> Option<Loss> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let of_id = |id: &String| known.iter().position(|it| it.id == *id);
        let now =
            Known { server: server.to_owned(), id: told.id.clone(), run_id: told.run_id.clone() };
        let (at, loss) = if let Some(at) = of_id(&told.id) {
            (Some(at), None)
        } else if let Some(at) = told.former.as_ref().and_then(of_id) {
            (Some(at), Some(Loss::FailOver))
        } else {
            let at = known.iter().rposition(|it| it.server == server);
            // It takes a new id also some time after its last replica has left: of the same
            // process that goes on with nothing, nothing is lost.
            let is_same = |it: &Known| it.run_id == now.run_id && told.former.is_none();
            (at, at.filter(|at| !known.get(*at).is_some_and(is_same)).map(|_| Loss::Data))
        };
        // The former one is remembered: where two servers take turns behind one name, to go back to
        // it is no loss.
        let at = at.filter(|_| loss != Some(Loss::Data));
        match at.and_then(|at| known.get_mut(at)) {
            Some(place) => *place = now,
            None => {
                if known.len() >= SERVERS_MAX {
                    known.remove(0);
                }
                known.push(now);
            }
        }
        loss
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(id: &str, former: Option<&str>, run_id: &str) -> Told {
        Told {
            former: former.map(str::to_owned),
            run_id: run_id.to_owned(),
            ..Told::of_id(id.to_owned(), LineageSource::ReplicationId)
        }
    }

    #[test]
    fn a_change_is_known_by_what_the_server_goes_on_with() {
        use Loss::{Data, FailOver};
        for (steps, expected) in [
            // The same one, from however many connections.
            (&[("", "a", None, "1"), ("", "a", None, "1")][..], None),
            (&[("", "a", None, "1"), ("", "b", Some("a"), "2")], Some(FailOver)),
            (&[("", "a", None, "1"), ("", "b", None, "2")], Some(Data)),
            (&[("", "a", None, "1"), ("", "b", Some("x"), "1")], Some(Data)),
            // Its last replica left long ago.
            (&[("", "a", None, "1"), ("", "b", None, "1")], None),
            // Another server of a cluster is no loss, and one that takes over from another is.
            (&[("s", "a", None, "1"), ("t", "b", None, "2")], None),
            (&[("s", "a", None, "1"), ("t", "b", Some("a"), "2")], Some(FailOver)),
            (&[("s", "a", None, "1"), ("t", "b", None, "2"), ("t", "c", None, "3")], Some(Data)),
        ] {
            let histories = Histories::default();
            let mut last = None;
            for (server, id, former, run_id) in steps {
                last = histories.judge(server, &told(id, *former, run_id));
            }
            assert_eq!(last, expected, "{steps:?}");
            let (server, id, former, run_id) = steps[steps.len() - 1];
            assert_eq!(histories.judge(server, &told(id, former, run_id)), None, "{steps:?}");
        }
    }

    #[test]
    fn changes_are_counted_and_told() {
        let histories = Histories::default();
        histories.hear("", None, &told("a", None, "1"));
        let changes = histories.changes();
        histories.hear("", None, &told("b", Some("a"), "2"));
        histories.hear("", None, &told("c", None, "3"));
        histories.hear("", None, &told("c", None, "3"));
        assert_eq!(histories.counts(), [1, 1]);
        let losses: Vec<Loss> = changes.told.borrow().iter().map(|(_, it)| it.loss).collect();
        assert_eq!(losses, [Loss::FailOver, Loss::Data]);
    }

    #[test]
    fn what_a_connection_shows_is_known_once() {
        let (one, other) = (Lineage::of("1"), Lineage::of("2"));
        let replica = Shown::of(None, 0);
        assert_eq!(replica.get(0), None);
        assert!(!replica.end(), "nothing was known");
        assert!(replica.is_now(one, 0) && replica.get(0) == Some(one), "it has taken over");
        assert!(!replica.is_now(other, 0), "and then another time");
        assert_eq!(replica.get(0), None);
        let primary = Shown::of(Some(one), 0);
        assert!(primary.end() && primary.get(0).is_none() && !primary.is_now(one, 0));
    }

    #[test]
    fn what_was_doubted_is_known_again_once_the_server_was_asked() {
        let (one, other) = (Lineage::of("1"), Lineage::of("2"));
        let [same, changed] = [Shown::of(Some(one), 4), Shown::of(Some(one), 4)];
        assert_eq!((same.get(4), same.get(5)), (Some(one), None), "there was a doubt");
        assert!(same.is_now(one, 4) && same.get(5).is_none(), "asked before it");
        assert!(same.is_now(one, 5) && same.get(5) == Some(one));
        assert!(!changed.is_now(other, 5) && changed.get(5).is_none());
    }
}
