//! How the servers of `store.url` are reached: what belongs to one kind of it alone.

use toml::de::DeValue;

use super::address_map::{self, AddressMap};
use super::reader::Section;
use super::sentinel::{self, StoreSentinel};
use super::store_tls::{self, StoreTls};
use super::store_use::StoreUse;
use super::value::{Read, choice, count};

/// Most threads that have a connection to each server.
const CONNECTIONS_MAX: u64 = 1024;

/// Which servers of a Redis Cluster pieces of long cached bodies are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheReads {
    /// Who takes the writes.
    Primary,
    /// A replica, and the primary where none has the piece.
    Replica,
}

/// What `store.url` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One server, or none.
    One {
        /// Whether it is to be spoken to in TLS.
        is_tls: bool,
    },
    Sentinel,
    Cluster,
}

/// Keys of [`super::Store`].
pub(super) struct Reach {
    pub(super) tls: Option<StoreTls>,
    pub(super) sentinel: Option<Box<StoreSentinel>>,
    pub(super) address_map: AddressMap,
    pub(super) connections: Option<usize>,
    pub(super) cache_reads: CacheReads,
}

/// Reads them.
pub(super) fn read(store: &mut Section<'_>, kind: Kind, usage: StoreUse) -> Reach {
    let is_sentinel = kind == Kind::Sentinel;
    let names_others = is_sentinel || kind == Kind::Cluster;
    let tls = store.optional("tls", store_tls::read);
    let is_tls = kind == Kind::One { is_tls: true } || (names_others && tls.is_some());
    if tls.is_some() && !is_tls && !store.is_survey() {
        let what = "is of no use where url does not begin with rediss://, redis-sentinel:// or \
                    redis-cluster://";
        store.problem("tls", what, "write rediss://host:port in url, or remove the table");
    }
    let sentinel = store.optional("sentinel", sentinel::read);
    if sentinel.is_some() && !is_sentinel && !store.is_survey() {
        let what = "is of no use where url does not begin with redis-sentinel://";
        let remedy = "write redis-sentinel://host:port/name in url, or remove the table";
        store.problem("sentinel", what, remedy);
    }
    let address_map = address_map::read(store);
    if !address_map.is_empty() && !names_others {
        let what =
            "is of no use where url does not begin with redis-sentinel:// or redis-cluster://";
        let remedy = "write in url where the one server is, and remove the table";
        store.problem("address_map", what, remedy);
    }
    let reads = [("primary", CacheReads::Primary), ("replica", CacheReads::Replica)];
    let cache_reads = match usage {
        StoreUse::Limits | StoreUse::Queue => CacheReads::Primary,
        StoreUse::Main | StoreUse::Cache => {
            store.or("cache_reads", CacheReads::Primary, choice(&reads))
        }
    };
    if cache_reads == CacheReads::Replica && kind != Kind::Cluster {
        let what = "\"replica\" is of no use where url does not begin with redis-cluster://";
        store.problem("cache_reads", what, "write \"primary\", or leave it out");
    }
    Reach {
        tls: is_tls.then(|| tls.unwrap_or_default()),
        sentinel: is_sentinel.then(|| Box::new(sentinel.unwrap_or_default())),
        address_map,
        connections: store.or("connections", None, connections),
        cache_reads,
    }
}

/// "auto", or how many threads have a connection to each server.
fn connections(value: &DeValue<'_>) -> Read<Option<usize>> {
    if value.is_integer() {
        count(1..=CONNECTIONS_MAX)(value).map(Some)
    } else {
        choice(&[("auto", None)])(value)
    }
}
