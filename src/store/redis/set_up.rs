//! What INFO tells of a Redis, and what of that is not as it should be.

use redis::InfoDict;

use super::finding::Finding;
use crate::observe::RedisNow;

/// What [`findings`] looks at, where all of INFO is known.
pub(super) const CHECKS: [&str; 3] = ["eviction", "memory", "replicas"];
/// From this part of its memory on, in percent, Redis is nearly full.
const MEMORY_USED_MAX: u64 = 90;
/// Longest word of Redis that is passed on, in letters.
const WORD_MAX: usize = 64;

/// What is not as it should be. What INFO does not tell is not looked at.
pub(super) fn findings(info: &InfoDict) -> Vec<Finding> {
    let mut findings = Vec::new();
    let policy: Option<String> = info.get("maxmemory_policy");
    if let Some(policy) = policy.filter(|policy| policy != "noeviction") {
        findings.push(Finding::warning(
            "eviction",
            format!("maxmemory-policy is {policy}: keys go when memory is full"),
            "limits, revocation, sessions, the cache",
            "CONFIG SET maxmemory-policy noeviction",
        ));
    }
    let (used, most) = (number(info, "used_memory"), number(info, "maxmemory"));
    if most > 0 && used.saturating_mul(100) / most > MEMORY_USED_MAX {
        findings.push(Finding::warning(
            "memory",
            format!("{used} bytes of maxmemory {most} are used"),
            "everything that writes, once it is full",
            "raise maxmemory, or find what fills it",
        ));
    }
    if number(info, "connected_slaves") > 1 && !info.contains_key(&"min_slaves_good_slaves") {
        findings.push(Finding::warning(
            "replicas",
            "Redis takes writes also when it is cut off from all of its replicas",
            "what is written before a fail-over: revocations, limits",
            "CONFIG SET min-replicas-to-write 1, and min-replicas-max-lag 2",
        ));
    }
    findings
}

/// That it writes nothing to a file, where what is on the disk is waited for.
pub(super) fn no_file(info: &InfoDict) -> Option<Finding> {
    let appends = info.get::<u8>("aof_enabled")?;
    (appends == 0).then(|| {
        Finding::warning(
            "fsync",
            "appendonly is no: nothing of what is written is known to be on the disk",
            "queues with durability = \"fsync\": they accept nothing",
            "CONFIG SET appendonly yes, or write another durability",
        )
    })
}

/// What the server called `node` tells of itself.
pub(super) fn read(node: &str, info: &InfoDict) -> RedisNow {
    let word = |name: &str| {
        let text: String = info.get(name).unwrap_or_default();
        text.chars().filter(|it| !it.is_control()).take(WORD_MAX).collect()
    };
    let role: String = word("role");
    RedisNow {
        node: node.to_owned(),
        role: if role == "master" { "primary" } else { "replica" },
        replicas: number(info, "connected_slaves"),
        version: word("redis_version"),
        policy: word("maxmemory_policy"),
        mode: word("redis_mode"),
        memory_used: number(info, "used_memory"),
        memory_max: number(info, "maxmemory"),
        fragmentation: info.get("mem_fragmentation_ratio").unwrap_or_default(),
        evicted: number(info, "evicted_keys"),
        expired: number(info, "expired_keys"),
        clients: number(info, "connected_clients"),
        hits: number(info, "keyspace_hits"),
        misses: number(info, "keyspace_misses"),
    }
}

fn number(info: &InfoDict, name: &str) -> u64 {
    info.get(name).unwrap_or_default()
}
