//! The metrics of what Redis says of itself (`INFO`), to a user who may only look. All words are
//! Redis's own or the configuration's.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::series::{Described, family};

/// One server, as it said last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RedisNow {
    /// Host and port, or the path of its socket.
    pub node: String,
    /// `primary` or `replica`.
    pub role: &'static str,
    /// How many replicas it has.
    pub replicas: u64,
    /// Its version.
    pub version: String,
    /// `maxmemory-policy`
    pub policy: String,
    /// `standalone`, `cluster` or `sentinel`.
    pub mode: String,
    /// Bytes in use.
    pub memory_used: u64,
    /// `maxmemory`; zero: no bound.
    pub memory_max: u64,
    /// Memory of its process by what it uses of it.
    pub fragmentation: f64,
    /// Keys that were evicted, since it runs.
    pub evicted: u64,
    /// Keys that have ended, since it runs.
    pub expired: u64,
    /// Connections of clients.
    pub clients: u64,
    /// Look-ups that found a key, since it runs.
    pub hits: u64,
    /// Look-ups that found none.
    pub misses: u64,
}

/// A server, and which store it is of.
type Of<'n> = &'n (&'static str, RedisNow);

/// Writes all of them.
pub(super) fn encode(
    servers: &[(&'static str, RedisNow)],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let labels =
        |(store, now): Of<'_>| [("store", (*store).to_owned()), ("node", now.node.clone())];
    type Value = fn(&RedisNow) -> u64;
    let bytes = || Some(Unit::Bytes);
    let gauges: [(&str, &str, Option<Unit>, Value); 3] = [
        ("redis_memory_used", "Memory that Redis uses.", bytes(), |it| it.memory_used),
        ("redis_memory_max", "The maxmemory of Redis; 0 for no bound.", bytes(), |it| {
            it.memory_max
        }),
        ("redis_clients", "Connections of clients to Redis.", None, |it| it.clients),
    ];
    for (name, help, unit, value) in gauges {
        let series = servers.iter().map(|it| {
            (labels(it), ConstGauge::new(i64::try_from(value(&it.1)).unwrap_or(i64::MAX)))
        });
        let described = match unit {
            Some(unit) => Described::new(name, help).in_unit(unit),
            None => Described::new(name, help),
        };
        family(encoder, &described, series)?;
    }
    let counters: [(&str, &str, Value); 4] = [
        ("redis_evicted_keys", "Keys that Redis evicted.", |it| it.evicted),
        ("redis_expired_keys", "Keys that have ended in Redis.", |it| it.expired),
        ("redis_keyspace_hits", "Look-ups in Redis that found their key.", |it| it.hits),
        ("redis_keyspace_misses", "Look-ups in Redis that found no key.", |it| it.misses),
    ];
    for (name, help, value) in counters {
        let series = servers.iter().map(|it| (labels(it), ConstCounter::new(value(&it.1))));
        family(encoder, &Described::new(name, help), series)?;
    }
    let series = servers.iter().map(|it| (labels(it), ConstGauge::new(it.1.fragmentation)));
    let help = "Memory of Redis's process by what it uses of it.";
    family(encoder, &Described::new("redis_fragmentation_ratio", help), series)?;
    encode_words(servers, encoder)
}

fn encode_words(
    servers: &[(&'static str, RedisNow)],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let roles = servers.iter().flat_map(|(store, now)| {
        ["primary", "replica"].into_iter().map(move |role| {
            let labels = [("store", *store), ("node", &*now.node), ("role", role)];
            (labels, ConstGauge::new(i64::from(role == now.role)))
        })
    });
    let help = "1 for what a server of Redis is: primary or replica.";
    family(encoder, &Described::new("redis_role", help), roles)?;
    let words = servers.iter().map(|(store, now)| {
        let RedisNow { node, version, policy, mode, .. } = now;
        let labels = [
            ("store", *store),
            ("node", node),
            ("version", version),
            ("policy", policy),
            ("mode", mode),
        ];
        (labels, ConstGauge::new(1))
    });
    let help = "What a server of Redis is: its version, maxmemory-policy and mode; always 1.";
    family(encoder, &Described::new("redis_info", help), words)
}
