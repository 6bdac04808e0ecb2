//! What the gateway's user must be allowed in Redis, and what for: one table, from which come the
//! line that makes such a user and the look whether this one has all of it.

use super::claims::{PROMOTED, SWITCHED};

/// What rights are needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Connections,
    Limits,
    Revocation,
    Sessions,
    ApiKeys,
    /// Refresh tokens.
    Tokens,
    Cache,
    Certificates,
    /// Reads that follow their caller's writes.
    Pools,
    /// Requests that take effect once.
    Idempotency,
    /// How many gateways share the limits.
    Gateways,
    /// What gateways tell each other of upstreams and canaries.
    Fleet,
    /// Revocations that are known during an outage.
    KnownRevocations,
    /// `store.cache_epochs = "follow"`.
    KnownEpochs,
    /// Deferred deliveries.
    Queues,
    /// `durability = "fsync"` of a queue.
    Disk,
    /// Events of applications.
    Events,
    /// `redis-cluster://`.
    Cluster,
}

use crate::config::{EventSource, StoreUrl, StoreUse};
use crate::store::keyspace_channels;
use Function::{
    ApiKeys, Cache, Certificates, Cluster, Connections, Disk, Events, Fleet, Gateways, Idempotency,
    KnownEpochs, KnownRevocations, Limits, Pools, Queues, Revocation, Sessions, Tokens,
};

impl Function {
    /// As people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Connections => "connections",
            Limits => "limits",
            Revocation => "revocation",
            Sessions => "sessions",
            ApiKeys => "API keys",
            Tokens => "refresh tokens",
            Cache => "the cache",
            Certificates => "certificates by ACME",
            Pools => "reads behind writes",
            Idempotency => "idempotency keys",
            Gateways => "counting the gateways that share limits",
            Fleet => "what gateways tell each other of upstreams",
            KnownRevocations => "revocations during an outage",
            KnownEpochs => "store.cache_epochs = \"follow\"",
            Queues => "deferred deliveries",
            Disk => "queues with durability = \"fsync\"",
            Events => "events of applications",
            Cluster => "finding the servers of a Redis Cluster",
        }
    }

    /// What the store is used for that has this function; nothing where each store has it.
    fn usage(self) -> Option<StoreUse> {
        match self {
            Connections | Cluster => None,
            Limits => Some(StoreUse::Limits),
            Cache | KnownEpochs => Some(StoreUse::Cache),
            Queues | Disk => Some(StoreUse::Queue),
            Revocation | Sessions | ApiKeys | Tokens | Certificates | Pools | Idempotency
            | Gateways | Fleet | KnownRevocations | Events => Some(StoreUse::Main),
        }
    }
}

/// A command that the gateway sends or a script of it calls.
#[derive(Debug)]
pub(super) struct Right {
    /// As the rules of Redis name it.
    pub(super) command: &'static str,
    /// Who needs it.
    pub(super) functions: &'static [Function],
    /// A harmless call of it. `$string` and the like stand for keys; nothing where the connection
    /// itself has shown it, or another call does.
    pub(super) trial: &'static str,
}

const fn right(
    command: &'static str,
    functions: &'static [Function],
    trial: &'static str,
) -> Right {
    Right { command, functions, trial }
}

impl Right {
    /// Whether a store needs it that is used for these.
    pub(super) fn is_for(&self, uses: &[StoreUse]) -> bool {
        self.functions.iter().any(|it| it.usage().is_none_or(|usage| uses.contains(&usage)))
    }
}

/// Commands that are sent to sentinels.
const SENTINEL_COMMANDS: [&str; 8] = [
    "hello",
    "auth",
    "ping",
    "subscribe",
    "sentinel|master",
    "sentinel|sentinels",
    "sentinel|replicas",
    "sentinel|myid",
];

/// Commands that only look, for `[store.operator]`.
const OPERATOR_COMMANDS: [&str; 25] = [
    "hello",
    "ping",
    "client|setname",
    "client|list",
    "select",
    "info",
    "role",
    "dbsize",
    "scan",
    "type",
    "pttl",
    "strlen",
    "hlen",
    "zcard",
    "xlen",
    "memory|usage",
    "object|freq",
    "slowlog|get",
    "latency|latest",
    "cluster|info",
    "cluster|shards",
    "xinfo|stream",
    "acl|whoami",
    "acl|dryrun",
    "time",
];

/// In the order in which they are tried: what reads comes after what writes, and what may leave the
/// connection inside a transaction comes last.
pub(super) const RIGHTS: [Right; 78] = [
    right("hello", &[Connections], ""),
    right("auth", &[Connections], ""),
    right("ping", &[Connections], "PING"),
    right("select", &[Connections], ""),
    right("info", &[Connections], "INFO server"),
    right("role", &[Connections], "ROLE"),
    right("time", &[Connections, Limits, Sessions, Tokens, Fleet, Queues, Events], "TIME"),
    right("script|load", &[Connections], "SCRIPT LOAD $script"),
    right(
        "eval",
        &[
            Limits,
            Sessions,
            ApiKeys,
            Tokens,
            Cache,
            Certificates,
            Pools,
            Idempotency,
            Fleet,
            Queues,
            Events,
        ],
        "EVAL $script 0",
    ),
    right("evalsha", &[Limits, Sessions, Cache, Queues], ""),
    right(
        "set",
        &[Limits, Revocation, Sessions, ApiKeys, Tokens, Cache, Pools, Idempotency, Queues],
        "SET $string 1 PX 5000",
    ),
    right("setrange", &[Limits, Cache], "SETRANGE $string 0 1"),
    right("get", &[Limits, Revocation, Tokens, Idempotency, Queues], "GET $string"),
    right(
        "getrange",
        &[Sessions, ApiKeys, Tokens, Cache, Certificates, Pools],
        "GETRANGE $string 0 1",
    ),
    right("mget", &[Cache, Certificates, Events], "MGET $string"),
    right(
        "exists",
        &[Revocation, Sessions, ApiKeys, Tokens, Cache, Queues, Events],
        "EXISTS $string",
    ),
    right("type", &[Sessions], "TYPE $string"),
    right("pttl", &[Sessions, ApiKeys, Tokens, Cache, Queues, Events], "PTTL $string"),
    right("persist", &[ApiKeys], "PERSIST $string"),
    right("pexpire", &[Limits, Revocation, ApiKeys, Cache, Queues], "PEXPIRE $string 5000 NX"),
    right("pexpireat", &[Sessions], "PEXPIREAT $string 1 GT"),
    right(
        "del",
        &[Limits, Revocation, Sessions, ApiKeys, Tokens, Cache, Idempotency, Queues],
        "DEL $string",
    ),
    right("hset", &[Sessions, Tokens, Cache, Fleet, Queues], "HSET $hash f 1"),
    right("pexpire", &[Tokens, Cache, Fleet], "PEXPIRE $hash 5000"),
    right("hget", &[Sessions, Cache, Queues], "HGET $hash f"),
    right("hmget", &[Sessions, Tokens, Cache, Queues], "HMGET $hash f"),
    right("hgetall", &[Sessions, Fleet], "HGETALL $hash"),
    right("hlen", &[Sessions, Cache, Fleet], "HLEN $hash"),
    right("hstrlen", &[Sessions, Queues], "HSTRLEN $hash f"),
    right("hrandfield", &[Cache], "HRANDFIELD $hash"),
    right("hdel", &[Sessions, Cache, Fleet], "HDEL $hash f"),
    right("zadd", &[Limits, Sessions, ApiKeys, Tokens, Gateways, Queues], "ZADD $set 1 m"),
    right("pexpire", &[Limits, Gateways], "PEXPIRE $set 5000"),
    right("zcard", &[Limits, Sessions, ApiKeys, Tokens, Gateways, Queues], "ZCARD $set"),
    right("zcount", &[Limits, Queues], "ZCOUNT $set 0 1"),
    right("zrange", &[Sessions, ApiKeys, Tokens, Queues], "ZRANGE $set 0 1"),
    right("zscore", &[Sessions, ApiKeys, Queues], "ZSCORE $set m"),
    right("zremrangebyscore", &[Limits, Gateways], "ZREMRANGEBYSCORE $set 0 0"),
    right("zrem", &[Limits, Sessions, ApiKeys, Tokens, Queues], "ZREM $set m"),
    right("xadd", &[Revocation, ApiKeys, Queues], "XADD $stream MAXLEN ~ 10 * f 1"),
    right("pexpire", &[Revocation, Queues], "PEXPIRE $stream 5000"),
    right("xread", &[KnownRevocations], "XREAD COUNT 1 STREAMS $stream 0"),
    right("xinfo|stream", &[KnownRevocations, Events], "XINFO STREAM $stream"),
    right("unlink", &[Queues], "UNLINK $string"),
    right("incrby", &[Queues], "INCRBY $number 1"),
    right("decrby", &[Queues], "DECRBY $number 1"),
    right("pexpire", &[Queues], "PEXPIRE $number 5000"),
    right("zrank", &[Queues], "ZRANK $set m"),
    right("zrangebyscore", &[Queues], "ZRANGEBYSCORE $set 0 0"),
    right("rpush", &[Queues], "RPUSH $list a"),
    right("pexpire", &[Queues], "PEXPIRE $list 5000"),
    right("lindex", &[Queues], "LINDEX $list 0"),
    right("lrem", &[Queues], "LREM $list 1 a"),
    right("xgroup|create", &[Queues, Events], "XGROUP CREATE $stream g 0 MKSTREAM"),
    right("xgroup|setid", &[Events], "XGROUP SETID $stream g 0 ENTRIESREAD 0"),
    right("xinfo|groups", &[Events], "XINFO GROUPS $stream"),
    right("xlen", &[Queues], "XLEN $stream"),
    right("xrange", &[Queues], "XRANGE $stream 0 0"),
    right("xpending", &[Queues], "XPENDING $stream g"),
    right("xreadgroup", &[Queues, Events], "XREADGROUP GROUP g gw COUNT 1 STREAMS $stream >"),
    right("xautoclaim", &[Queues], "XAUTOCLAIM $stream g gw 5000 0 COUNT 1"),
    right("xclaim", &[Queues], "XCLAIM $stream g gw 5000 0-1 JUSTID"),
    right("xack", &[Queues, Events], "XACK $stream g 0-1"),
    right("xdel", &[Queues], "XDEL $stream 0-1"),
    right("del", &[Revocation], "DEL $stream"),
    right("del", &[Sessions, Tokens, Fleet], "DEL $hash"),
    right("del", &[Limits], "DEL $set"),
    right("wait", &[Revocation, Sessions, ApiKeys, Cache, Queues], "WAIT 0 1"),
    right("waitaof", &[Disk], "WAITAOF 0 0 1"),
    right("multi", &[Revocation, ApiKeys, Cache], "MULTI"),
    right("exec", &[Revocation, ApiKeys, Cache], "EXEC"),
    right("client|tracking", &[KnownEpochs], ""),
    right("cluster|info", &[Cluster], "CLUSTER INFO"),
    right("cluster|myid", &[Cluster], "CLUSTER MYID"),
    right("cluster|nodes", &[Cluster], "CLUSTER NODES"),
    right("cluster|slots", &[Cluster], "CLUSTER SLOTS"),
    right("asking", &[Cluster], "ASKING"),
    right("readonly", &[Cluster], "READONLY"),
];

/// What a user is to be allowed beside what all need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AclFor {
    /// What `store.cache_epochs = "follow"` needs.
    pub follow: bool,
    /// What a Redis Cluster needs.
    pub cluster: bool,
    /// What `durability = "fsync"` of a queue needs. Redis 7.0 knows no such command, and takes no
    /// line that has it.
    pub fsync: bool,
}

/// The commands that a user of a store that is used for these needs, each once.
fn commands(uses: &[StoreUse], beside: AclFor) -> Vec<&'static str> {
    let mut commands: Vec<&str> = Vec::new();
    for right in RIGHTS.iter().filter(|right| right.is_for(uses)) {
        let is_wanted = match right.functions {
            [KnownEpochs] => beside.follow,
            [Cluster] => beside.cluster,
            [Disk] => beside.fsync,
            _ => true,
        };
        if is_wanted && !commands.contains(&right.command) {
            commands.push(right.command);
        }
    }
    commands
}

/// The command that makes a user with these rights and no others, under a prefix of keys.
pub fn acl(user: &str, prefix: &str, follow: bool, cluster: bool) -> String {
    let beside = AclFor { follow, cluster, ..AclFor::default() };
    acl_for(&StoreUse::ALL, (user, prefix), beside)
}

/// The same for a store that is used for these alone.
pub fn acl_for(uses: &[StoreUse], (user, prefix): (&str, &str), beside: AclFor) -> String {
    let mut line =
        format!("ACL SETUSER {user} on >PASSWORD resetkeys ~{prefix}:* resetchannels -@all");
    for command in commands(uses, beside) {
        line += " +";
        line += command;
    }
    line
}

/// What such a line needs beside for what `[events]` name: the application's own streams and
/// channels. `url` is that of the store.
pub fn events_acl<'e>(sources: impl Iterator<Item = &'e EventSource>, url: &StoreUrl) -> String {
    let mut words: Vec<String> = Vec::new();
    for source in sources {
        words.extend(match source {
            EventSource::Stream(key) => vec![format!("~{}", literally(key))],
            EventSource::Channel(name) => {
                vec![format!("&{}", literally(name)), "+subscribe".to_owned()]
            }
            // A pattern that is subscribed to must stand in the rule as it is.
            EventSource::Keyspace(pattern) => {
                vec![format!("&{}", keyspace_channels(url, pattern)), "+psubscribe".to_owned()]
            }
            EventSource::Webhook | EventSource::Nats(_) | EventSource::Jetstream { .. } => {
                Vec::new()
            }
        });
    }
    let mut line = String::new();
    for (at, word) in words.iter().enumerate() {
        if !words.iter().take(at).any(|before| before == word) {
            line.extend([" ", word]);
        }
    }
    line
}

/// A name as a pattern that matches nothing else.
fn literally(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for letter in name.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

/// The same for a user who may look, and neither read values nor write, kill or configure.
pub fn operator_acl(user: &str, prefix: &str) -> String {
    let mut line =
        format!("ACL SETUSER {user} on >PASSWORD resetkeys %R~{prefix}:* resetchannels -@all");
    for command in OPERATOR_COMMANDS {
        line += " +";
        line += command;
    }
    line
}

/// The same for a user of sentinels, who has keys of none.
pub fn sentinel_acl(user: &str) -> String {
    let mut line = format!("ACL SETUSER {user} on >PASSWORD resetkeys resetchannels");
    for channel in [SWITCHED, PROMOTED] {
        line += " &";
        line += channel;
    }
    line += " -@all";
    for command in SENTINEL_COMMANDS {
        line += " +";
        line += command;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_is_sent_has_a_right() {
        let all = AclFor { follow: true, cluster: true, fsync: true };
        let known = commands(&StoreUse::ALL, all);
        // A store of its own for them may have a user of its own.
        let of_queues = commands(&[StoreUse::Queue], all);
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store");
        let scripts = std::fs::read_dir(format!("{folder}/scripts")).unwrap();
        let mut called = 0;
        for script in scripts {
            let path = script.unwrap().path();
            let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
            let known = if name.starts_with("q_") { &of_queues } else { &known };
            let text = std::fs::read_to_string(&path).unwrap();
            for call in text.split("call(").skip(1) {
                let Some(verb) = call.trim_start().strip_prefix(['\'', '"']) else { continue };
                let verb = verb.split(['\'', '"']).next().unwrap().to_lowercase();
                let below = format!("{verb}|");
                let is_known = |it: &&str| **it == *verb || it.starts_with(&below);
                assert!(known.iter().any(is_known), "{name}: {verb}");
                called += 1;
            }
        }
        assert!(called > 50, "only {called} calls in scripts");
    }

    #[test]
    fn the_line_holds_each_command_once_and_tracking_by_choice() {
        let line = acl("gateway", "shop", false, false);
        assert!(line.starts_with("ACL SETUSER gateway on >PASSWORD resetkeys ~shop:* "), "{line}");
        assert_eq!(line.matches(" +pexpire ").count(), 1);
        assert!(!line.contains("client|tracking"));
        assert_eq!(acl("gateway", "shop", true, false), line + " +client|tracking");
    }

    #[test]
    fn who_waits_for_the_disk_may_and_nobody_else() {
        let of = |uses: &[StoreUse], fsync| {
            commands(uses, AclFor { fsync, ..AclFor::default() }).contains(&"waitaof")
        };
        assert!(of(&StoreUse::ALL, true) && of(&[StoreUse::Queue], true));
        assert!(!of(&StoreUse::ALL, false) && !of(&[StoreUse::Main], true));
    }

    #[test]
    fn what_events_name_is_allowed_and_nothing_that_is_like_it() {
        let sources = [
            EventSource::Stream("shop:events".to_owned()),
            EventSource::Stream("shop:*".to_owned()),
            EventSource::Stream("shop:events".to_owned()),
            EventSource::Channel("shop:changes".to_owned()),
            EventSource::Keyspace("product:*".to_owned()),
            EventSource::Webhook,
        ];
        let url = StoreUrl::Redis { host: "redis".to_owned(), port: 6379, db: 3 };
        let expected = " ~shop:events ~shop:\\* &shop:changes +subscribe \
                        &__keyspace@3__:product:* +psubscribe";
        assert_eq!(events_acl(sources.iter(), &url), expected);
        assert_eq!(events_acl([EventSource::Webhook].iter(), &url), "");
    }

    #[test]
    fn a_store_of_one_use_needs_less() {
        let beside = AclFor { follow: true, ..AclFor::default() };
        let of = |usage| commands(&[usage], beside);
        let [main, cache, limits, queue] = StoreUse::ALL.map(of);
        for (commands, has, lacks) in [
            (&main, "xadd", "client|tracking"),
            (&main, "zremrangebyscore", "setrange"),
            (&cache, "client|tracking", "zadd"),
            (&cache, "hmget", "xadd"),
            (&limits, "zcount", "hmget"),
            (&limits, "setrange", "multi"),
        ] {
            assert!(commands.contains(&has) && !commands.contains(&lacks), "{commands:?}");
        }
        for command in commands(&StoreUse::ALL, beside) {
            let all = [&main, &cache, &limits, &queue];
            assert!(all.iter().any(|own| own.contains(&command)), "{command}");
        }
        assert!([main, cache, limits, queue].iter().all(|own| own.contains(&"script|load")));
    }
}
