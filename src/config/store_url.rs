//! `store.url`: where a store is.

use std::path::PathBuf;

use toml::de::DeValue;

use super::sentinel;
use super::value::{Mistake, Read, host_and_port, no_credentials, string};

/// Most servers that `redis-cluster://` names.
const CLUSTER_SEEDS_MAX: usize = 64;

/// The schemes of `store.url` that this build speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `memory:`
    Memory,
    /// `redis://host:port/db`, and `rediss://` with [`Store::tls`]
    Redis {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
        /// Database number.
        db: i64,
    },
    /// `redis+unix:///path/to/socket`
    Unix {
        /// Socket path.
        path: PathBuf,
    },
    /// `redis-cluster://host:port,host:port`
    Cluster {
        /// Hosts and ports of some of its servers, which tell of the others.
        seeds: Vec<(String, u16)>,
    },
    /// `redis-sentinel://host:port,host:port/name`
    Sentinel {
        /// Hosts and ports of some sentinels, which tell of the others.
        sentinels: Vec<(String, u16)>,
        /// The name by which they watch the primary.
        primary: String,
    },
}

/// A wrong url is never echoed, because it may contain a password.
pub(super) fn read(value: &DeValue<'_>) -> Read<StoreUrl> {
    const EXAMPLES: &str = "write \"memory:\", \"redis://127.0.0.1:6379/0\", \
                            \"rediss://redis.internal:6380/0\", \
                            \"redis+unix:///run/redis.sock\", \
                            \"redis-sentinel://s1:26379,s2:26379/main\" or \
                            \"redis-cluster://r1:6379,r2:6379\"";
    let text = string(value, "it in quotes, such as \"redis://127.0.0.1:6379\"")?;
    let wrong = || Mistake::new("is not the address of a store", EXAMPLES);
    let (scheme, rest) = text.split_once(':').ok_or_else(wrong)?;
    match scheme {
        "memory" if rest.is_empty() => Ok(StoreUrl::Memory),
        "redis" | "rediss" => redis_url(rest.strip_prefix("//").ok_or_else(wrong)?),
        "redis+unix" => {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            if !path.starts_with('/') || path.contains(['?', '#']) {
                return Err(Mistake::new(
                    "is not the path of a socket",
                    "write an absolute path alone: \"redis+unix:///run/redis.sock\"",
                ));
            }
            Ok(StoreUrl::Unix { path: PathBuf::from(path) })
        }
        "redis-cluster" => cluster_url(rest.strip_prefix("//").ok_or_else(wrong)?),
        "redis-sentinel" => {
            let (sentinels, primary) = sentinel::url(rest.strip_prefix("//").ok_or_else(wrong)?)?;
            Ok(StoreUrl::Sentinel { sentinels, primary })
        }
        _ => Err(wrong()),
    }
}

/// `host:port,host:port`, each with port 6379 when it is left out. A cluster has one database.
fn cluster_url(rest: &str) -> Read<StoreUrl> {
    const EXAMPLE: &str = "write some of its servers, such as \"redis-cluster://r1:6379,r2:6379\"";
    no_credentials(rest)?;
    let (hosts, db) = rest.split_once('/').unwrap_or((rest, ""));
    if !matches!(db, "" | "0") {
        return Err(Mistake::new(
            "names a database, and a Redis Cluster has only number 0",
            "leave out what stands behind the last `/`",
        ));
    }
    let seeds = hosts.split(',').map(|host| host_and_port(host.trim(), 6379));
    let seeds = seeds.collect::<Option<Vec<_>>>().filter(|seeds| seeds.len() <= CLUSTER_SEEDS_MAX);
    let wrong = || Mistake::new("does not name servers of a Redis Cluster", EXAMPLE);
    Ok(StoreUrl::Cluster { seeds: seeds.ok_or_else(wrong)? })
}

/// `host:port/db`, with port 6379 and database 0 when they are left out.
fn redis_url(rest: &str) -> Read<StoreUrl> {
    const EXAMPLE: &str = "write redis://host:port/database, such as \"redis://127.0.0.1:6379/0\"";
    let wrong = || Mistake::new("is not the address of a Redis server", EXAMPLE);
    no_credentials(rest)?;
    let (authority, db) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = host_and_port(authority, 6379).ok_or_else(wrong)?;
    let db = match db {
        "" => 0,
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse::<u16>().map_err(|_| wrong())?.into()
        }
        _ => return Err(wrong()),
    };
    Ok(StoreUrl::Redis { host, port, db })
}
