//! The connection in service, if there is one, and how it is given up.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwapOption;
use redis::Value;
use tokio::sync::Notify;

use super::connection::Connection;
use super::credentials::Material;
use super::history::Shown;
use super::misses::Misses;
use super::tally::Tally;

/// A connection that answered its probe.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) connection: Connection,
    /// What it was made with.
    pub(super) material: Arc<Material>,
    pub(super) misses: Misses,
    /// Of which history its answers are.
    pub(super) shown: Shown,
    /// Set when the connection is closed, also while nobody asks.
    pub(super) closed: Arc<AtomicBool>,
}

/// What one exchange said about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// It answered.
    Good,
    /// It did not answer in time.
    Silent,
    /// It cannot be used any more.
    Broken,
    /// The server refuses who the gateway is: on this connection.
    LoggedOut,
    /// It said with this code that it cannot serve, on whatever connection.
    Refused(&'static str),
    /// It cannot serve now, and will on the connections that stand.
    Down,
}

/// Codes of a server that serves on no connection any more.
const UNUSABLE: [&str; 3] = ["READONLY", "LOADING", "MASTERDOWN"];
/// Of a server of a Redis Cluster that is down as a whole, and not only some slots of it.
const DOWN: &str = "The cluster is down";

impl Health {
    /// What the replies say about the server: some errors mean that this connection will not do any
    /// more. Those that any connection would get, and those that hold for writes alone, do not:
    /// another connection would fare no better, and what can be read is read.
    pub(super) fn of(replies: &[Value]) -> Self {
        let of = |reply: &Value| {
            let Value::ServerError(error) = reply else { return None };
            let code = error.code();
            if let Some(known) = UNUSABLE.into_iter().find(|known| *known == code) {
                return Some(Self::Refused(known));
            }
            match code {
                "NOAUTH" => Some(Self::LoggedOut),
                "CLUSTERDOWN" if error.details() == Some(DOWN) => Some(Self::Down),
                _ => None,
            }
        };
        replies.iter().find_map(of).unwrap_or(Self::Good)
    }
}

/// Where requests find the connection.
#[derive(Debug)]
pub(super) struct Slot {
    current: ArcSwapOption<Published>,
    /// Wakes the supervisor: the current connection was given up.
    pub(super) lost: Notify,
    /// What became of what was asked here.
    pub(super) tally: Arc<Tally>,
}

impl Slot {
    /// No connection yet.
    pub(super) fn new(tally: Arc<Tally>) -> Self {
        Self { current: ArcSwapOption::empty(), lost: Notify::new(), tally }
    }

    /// The connection, if there is one.
    pub(super) fn get(&self) -> Option<Arc<Published>> {
        self.current.load_full()
    }

    /// Whether there is one.
    pub(super) fn is_taken(&self) -> bool {
        self.current.load().is_some()
    }

    /// Takes whatever is in service out of it.
    pub(super) fn clear(&self) {
        self.current.store(None);
    }

    /// Puts a connection into service.
    pub(super) fn put(&self, published: &Arc<Published>) {
        self.current.store(Some(Arc::clone(published)));
    }

    /// Puts another connection in the place of this one. False when it is not in service.
    pub(super) fn replace(&self, old: &Arc<Published>, new: &Arc<Published>) -> bool {
        let previous = self.current.compare_and_swap(old, Some(Arc::clone(new)));
        previous.as_ref().is_some_and(|previous| Arc::ptr_eq(previous, old))
    }

    /// Whether this is the connection in service.
    pub(super) fn holds(&self, published: &Arc<Published>) -> bool {
        self.current.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, published))
    }

    /// Takes a connection out of service. True when it was in service; the supervisor is not told
    /// yet.
    pub(super) fn take(&self, published: &Arc<Published>) -> bool {
        let previous = self.current.compare_and_swap(published, None);
        previous.as_ref().is_some_and(|previous| Arc::ptr_eq(previous, published))
    }
}
