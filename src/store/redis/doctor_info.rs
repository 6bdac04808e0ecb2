//! What INFO tells of how a Redis is set up and how full it is, each with its bound. Pure.

use std::time::Duration;

use redis::InfoDict;

use super::doctor_row::{Checked, Verdict};
use crate::base::units::size_text;

/// From this part of `maxmemory` on it is watched, and from that on it is poor.
const MEMORY: (f64, f64) = (0.8, 0.9);
/// The same of `maxclients`.
const CLIENTS: (f64, f64) = (0.7, 0.9);
/// Memory that the system gave, as a multiple of what is used.
const FRAGMENTATION: f64 = 1.5;
/// With less in use that says nothing, in bytes.
const FRAGMENTED_BYTES_MIN: u64 = 64 << 20;

/// Who a server says it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its kind, its version and its mode.
    pub(super) server: String,
    /// Its role, and its replicas.
    pub(super) role: String,
}

/// See [`Facts`]; nothing is known without INFO.
pub(super) fn facts(info: Option<&InfoDict>) -> Facts {
    let Some(info) = info else {
        let unknown = "as it should be".to_owned();
        return Facts { server: unknown.clone(), role: unknown };
    };
    let valkey = word(info, "valkey_version");
    let (kind, version) =
        if valkey.is_empty() { ("Redis", word(info, "redis_version")) } else { ("Valkey", valkey) };
    let replicas = number(info, "connected_slaves");
    let lag = (0..replicas.min(64)).filter_map(|at| lag_s(info, at)).max();
    let role = match (replicas, lag) {
        (0, _) => "primary without replicas".to_owned(),
        (count, None) => format!("primary of {count} replicas"),
        (count, Some(lag)) => format!("primary of {count} replicas, at most {lag} s behind"),
    };
    Facts { server: format!("{kind} {version}, {}", word(info, "redis_mode")), role }
}

/// How far the replica with this number is behind, in seconds.
fn lag_s(info: &InfoDict, at: u64) -> Option<u64> {
    let replica: String = info.get(&format!("slave{at}"))?;
    replica.split(',').find_map(|part| part.strip_prefix("lag=")?.parse().ok())
}

/// All rows, where `now_s` is the time in Unix seconds.
pub(super) fn rows(info: &InfoDict, now_s: u64) -> Vec<Checked> {
    vec![
        memory(info),
        policy(info),
        evictions(info),
        fragmentation(info),
        persistence(info, now_s),
        clients(info),
    ]
}

fn level(used: u64, most: u64, (watch, poor): (f64, f64)) -> Verdict {
    match used as f64 / most as f64 {
        part if part >= poor => Verdict::Poor,
        part if part >= watch => Verdict::Watch,
        _ => Verdict::Good,
    }
}

fn memory(info: &InfoDict) -> Checked {
    const BOUND: &str = "80 % of maxmemory is watched, 90 % is poor";
    let (used, most) = (number(info, "used_memory"), number(info, "maxmemory"));
    if most == 0 {
        let system = number(info, "total_system_memory");
        let value = format!(
            "{} in use, without a maxmemory; the machine has {}",
            about(used),
            about(system)
        );
        let remedy = "CONFIG SET maxmemory to what the machine can spare: without it Redis grows \
                      until the system ends it";
        return Checked::new("memory", Verdict::Watch, value, BOUND).or(remedy);
    }
    let percent = (used as f64 / most as f64 * 100.0).floor();
    let value = format!("{} of maxmemory {}: {percent} %", about(used), about(most));
    let row = Checked::new("memory", level(used, most, MEMORY), value, BOUND);
    row.or("raise maxmemory, or find what fills it: the row keys has the shares")
}

fn policy(info: &InfoDict) -> Checked {
    let policy = word(info, "maxmemory_policy");
    let verdict = match policy.as_str() {
        "noeviction" => Verdict::Good,
        "" => Verdict::Unknown,
        _ => Verdict::Poor,
    };
    let remedy = "CONFIG SET maxmemory-policy noeviction: limits, revocations and sessions are no \
                  cache";
    Checked::new("policy", verdict, format!("maxmemory-policy {policy}"), "noeviction").or(remedy)
}

fn evictions(info: &InfoDict) -> Checked {
    let evicted = number(info, "evicted_keys");
    let verdict = if evicted > 0 { Verdict::Poor } else { Verdict::Good };
    let remedy = "give it more memory and maxmemory-policy noeviction; the count begins anew with \
                  CONFIG RESETSTAT";
    Checked::new("evictions", verdict, format!("{evicted} keys evicted"), "none").or(remedy)
}

fn fragmentation(info: &InfoDict) -> Checked {
    let ratio: f64 = info.get("mem_fragmentation_ratio").unwrap_or_default();
    let is_much = number(info, "used_memory") >= FRAGMENTED_BYTES_MIN;
    let verdict = if is_much && ratio > FRAGMENTATION { Verdict::Watch } else { Verdict::Good };
    let value = format!("{ratio:.2} times what is in use");
    let bound = format!("{FRAGMENTATION} times, from 64 MiB in use on");
    let remedy = "CONFIG SET activedefrag yes, or restart it at a quiet time";
    Checked::new("fragmentation", verdict, value, bound).or(remedy)
}

fn persistence(info: &InfoDict, now_s: u64) -> Checked {
    let is_bad = |name: &str| matches!(word(info, name).as_str(), "err" | "fail" | "failed");
    let appends = number(info, "aof_enabled") == 1;
    let changes = number(info, "rdb_changes_since_last_save");
    let saves = number(info, "rdb_saves");
    let loses = match (appends, saves) {
        (true, _) => "append-only file; a restart loses a second".to_owned(),
        (false, 0) => format!("no save yet; a restart loses {changes} changes"),
        (false, _) => {
            let ago = now_s.saturating_sub(number(info, "rdb_last_save_time"));
            let ago = Duration::from_secs(ago).as_secs();
            format!("last save {ago} s ago; a restart loses {changes} changes")
        }
    };
    let failed: Vec<&str> = [
        ("rdb_last_bgsave_status", "the last save failed"),
        ("aof_last_write_status", "the last write of the append-only file failed"),
        ("aof_last_bgrewrite_status", "the last rewrite of the append-only file failed"),
    ]
    .into_iter()
    .filter_map(|(name, text)| is_bad(name).then_some(text))
    .collect();
    let (verdict, value) = if failed.is_empty() {
        (Verdict::Good, loses)
    } else {
        (Verdict::Poor, format!("{}; {loses}", failed.join(", ")))
    };
    let remedy = "look into its log and at its disk: by default Redis takes no writes after a \
                  save has failed (stop-writes-on-bgsave-error)";
    Checked::new("persistence", verdict, value, "the last save went well").or(remedy)
}

fn clients(info: &InfoDict) -> Checked {
    const BOUND: &str = "70 % of maxclients is watched, 90 % is poor";
    let (now, most) = (number(info, "connected_clients"), number(info, "maxclients"));
    if most == 0 {
        return Checked::new("clients", Verdict::Unknown, format!("{now} connections"), BOUND);
    }
    let value = format!("{now} connections of maxclients {most}");
    let row = Checked::new("clients", level(now, most, CLIENTS), value, BOUND);
    row.or("CLIENT LIST tells whose they are; raise maxclients, or lower store.connections")
}

/// Bytes for people, in the largest unit of which there is at least one.
pub(super) fn about(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    UNITS.iter().find(|(size, _)| bytes >= *size).map_or_else(
        || size_text(bytes),
        |(size, unit)| format!("{:.1} {unit}", bytes as f64 / *size as f64),
    )
}

fn word(info: &InfoDict, name: &str) -> String {
    let text: String = info.get(name).unwrap_or_default();
    text.chars().filter(|it| !it.is_control()).take(64).collect()
}

fn number(info: &InfoDict, name: &str) -> u64 {
    info.get(name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    fn info(lines: &str) -> InfoDict {
        let text = Value::BulkString(lines.replace(' ', "\r\n").into_bytes());
        redis::from_redis_value(text).unwrap()
    }

    fn of(check: &str, lines: &str) -> Checked {
        rows(&info(lines), 1000).into_iter().find(|it| it.check == check).unwrap()
    }

    #[test]
    fn each_row_has_its_bound() {
        use Verdict::{Good, Poor, Unknown, Watch};
        for (check, lines, expected) in [
            ("memory", "used_memory:79 maxmemory:100", Good),
            ("memory", "used_memory:80 maxmemory:100", Watch),
            ("memory", "used_memory:90 maxmemory:100", Poor),
            ("memory", "used_memory:9 maxmemory:0", Watch),
            ("policy", "maxmemory_policy:noeviction", Good),
            ("policy", "maxmemory_policy:volatile-lru", Poor),
            ("policy", "", Unknown),
            ("evictions", "evicted_keys:0", Good),
            ("evictions", "evicted_keys:1", Poor),
            ("fragmentation", "mem_fragmentation_ratio:7.7 used_memory:900000", Good),
            ("fragmentation", "mem_fragmentation_ratio:1.6 used_memory:90000000", Watch),
            ("persistence", "rdb_last_bgsave_status:ok aof_last_write_status:ok", Good),
            ("persistence", "rdb_last_bgsave_status:err", Poor),
            ("persistence", "aof_enabled:1 aof_last_write_status:err", Poor),
            ("clients", "connected_clients:69 maxclients:100", Good),
            ("clients", "connected_clients:70 maxclients:100", Watch),
            ("clients", "connected_clients:90 maxclients:100", Poor),
            ("clients", "connected_clients:90", Unknown),
        ] {
            let row = of(check, lines);
            assert_eq!(row.verdict, expected, "{check}: {lines}: {row:?}");
            let is_told = matches!(expected, Watch | Poor);
            assert!(!is_told || !row.remedy.is_empty(), "{row:?}");
        }
    }

    #[test]
    fn what_a_restart_loses_is_told() {
        let lines = "rdb_saves:2 rdb_last_save_time:940 rdb_changes_since_last_save:7";
        let saved = of("persistence", lines);
        assert_eq!(saved.value, "last save 60 s ago; a restart loses 7 changes");
        let never = of("persistence", "rdb_changes_since_last_save:9");
        assert_eq!(never.value, "no save yet; a restart loses 9 changes");
        assert!(of("persistence", "aof_enabled:1").value.contains("loses a second"));
    }

    #[test]
    fn a_server_says_who_it_is() {
        let lines = "redis_version:7.2.4 valkey_version:8.1.0 redis_mode:standalone \
                     connected_slaves:2 slave0:ip=a,port=1,lag=0 slave1:ip=b,port=2,lag=3";
        let told = facts(Some(&info(lines)));
        assert_eq!(told.server, "Valkey 8.1.0, standalone");
        assert_eq!(told.role, "primary of 2 replicas, at most 3 s behind");
        let told = facts(Some(&info("redis_version:7.0.15 redis_mode:standalone")));
        assert_eq!(told.server, "Redis 7.0.15, standalone");
        assert_eq!(told.role, "primary without replicas");
        assert_eq!([about(100), about(1536), about(3 << 30)], ["100B", "1.5 KiB", "3.0 GiB"]);
    }
}
