//! What only `[store.operator]` may be told: whose keys lie there, whose connections stand, what
//! was slow, and whether the gateway's user may do more than it needs.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::connect_error::ConnectError;
use super::connection::Connection;
use super::dial::user;
use super::doctor_info::about;
use super::doctor_row::{Checked, SLOW_REMEDY, Verdict, lost};
use super::reply::server_error;
use super::selftest::{Look, Sight};
use super::slow_log::{self, OURS, kind};
use crate::config::{self, reread_secret};

/// Most keys that are looked at.
const KEYS_MAX: usize = 2000;
/// Keys that Redis walks over in one step, and most steps: where other prefixes have most of the
/// keys, few of those that are met are the gateway's.
const SCAN_COUNT: usize = 200;
const SCANS_MAX: usize = 250;
/// Longest time for that.
const SCANNING_MAX: Duration = Duration::from_secs(5);
/// A value above this is large, in bytes.
const LARGE_BYTES: u64 = 1 << 20;
/// The family whose keys may have no end.
const ENDLESS: &str = "api_keys";
/// What nobody needs of the gateway's rights.
const SURPLUS: &str = "FLUSHALL";
/// Checks of this file, for those who are told of none of them.
const NAMES: [&str; 3] = ["keys", "slow_log", "surplus"];

/// All of it, of one server. Each row is there as soon as it is known: the look may be ended.
pub(super) async fn look(settings: &config::Store, sight: Sight, rows: &mut Vec<Checked>) {
    let table = settings.usage.table();
    let Some(operator) = &settings.operator else {
        let remedy = format!(
            "`portcullis acl --operator` prints a user who may look; name it in [{table}.operator]"
        );
        return rows.extend(none(Verdict::Unknown, "nobody may look", &remedy));
    };
    let (written, file) = (operator.password.clone(), operator.password_file.clone());
    // A disk may take its time.
    let read = tokio::task::spawn_blocking(move || file.and_then(|file| reread_secret(&file).ok()));
    let password = read.await.ok().flatten().or(written);
    let own = config::Store {
        username: Some(operator.username.clone()),
        password,
        password_file: None,
        ..settings.clone()
    };
    let look = Look::new(&own, sight);
    let connection = match look.dial(|_| {}).await {
        Ok(connection) => connection,
        Err(error) => return rows.extend(not_answered(&error, table)),
    };
    let seen = keys(&look, &connection, &settings.prefix).await;
    rows.push(seen.unwrap_or_else(|error| lost("keys", &error)));
    let seen = slow(&look, &connection, settings).await;
    rows.push(seen.unwrap_or_else(|error| lost("slow_log", &error)));
    let seen = surplus(&look, &connection, settings).await;
    rows.push(seen.unwrap_or_else(|error| lost("surplus", &error)));
}

fn none(verdict: Verdict, value: &str, remedy: &str) -> [Checked; 3] {
    NAMES.map(|name| Checked::new(name, verdict, value, "").or(remedy))
}

/// A user whom Redis refuses leaves this unknown; a Redis that is silent now is not well.
fn not_answered(error: &ConnectError, table: &str) -> [Checked; 3] {
    let value = format!("the operator is not answered: {error}");
    if error.is_answer() || matches!(error, ConnectError::Files(_)) {
        let remedy = format!("see that [{table}.operator] is right: `portcullis acl --operator`");
        return none(Verdict::Unknown, &value, &remedy);
    }
    none(Verdict::Poor, &value, SLOW_REMEDY)
}

fn not_permitted(check: &'static str, settings: &config::Store, rights: &str) -> Checked {
    let user = settings.operator.as_deref().map(|it| &*it.username).unwrap_or_default();
    let row = Checked::new(check, Verdict::Unknown, "the operator may not look", "");
    row.or(format!("ACL SETUSER {user} {rights}"))
}

/// What keys were met.
#[derive(Debug, Default)]
struct Sample {
    keys: u64,
    bytes: u64,
    /// Bytes by family.
    families: BTreeMap<&'static str, u64>,
    /// Keys without an end that should have one, by family.
    endless: BTreeMap<&'static str, u64>,
    large: u64,
    /// Whether these are all that there are.
    is_whole: bool,
}

impl Sample {
    /// `pttl` is -1 for a key without an end, as Redis says it.
    fn add(&mut self, key: &str, bytes: u64, pttl: i64) {
        let family = kind(key);
        self.keys += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        let sum = self.families.entry(family).or_default();
        *sum = sum.saturating_add(bytes);
        self.large += u64::from(bytes > LARGE_BYTES);
        if pttl == -1 && family != ENDLESS {
            *self.endless.entry(family).or_default() += 1;
        }
    }

    fn row(&self) -> Checked {
        const BOUND: &str = "each but those of API keys has an end, none has more than 1 MiB";
        let whole = if self.is_whole { "all" } else { "looked at" };
        let mut shares: Vec<(&str, u64)> = self.families.iter().map(|(k, v)| (*k, *v)).collect();
        shares.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let share = |(family, bytes): &(&str, u64)| {
            format!("{family} {:.0} %", *bytes as f64 / self.bytes.max(1) as f64 * 100.0)
        };
        let shares: Vec<String> = shares.iter().map(share).collect();
        let mut value = format!("{} keys ({whole}), {}", self.keys, about(self.bytes));
        for more in [shares.join(", "), self.wrong()].into_iter().filter(|it| !it.is_empty()) {
            value = format!("{value}; {more}");
        }
        let is_well = self.endless.is_empty() && self.large == 0;
        let verdict = if is_well { Verdict::Good } else { Verdict::Watch };
        let remedy = "have the application that writes them give each an end (EXPIRE), and split \
                      what is large: it holds up all others while it is read";
        Checked::new("keys", verdict, value, BOUND).or(remedy)
    }

    fn wrong(&self) -> String {
        let endless = self.endless.iter().map(|(family, count)| format!("{count} of {family}"));
        let endless: Vec<String> = endless.collect();
        let mut parts = Vec::new();
        if !endless.is_empty() {
            parts.push(format!("without an end: {}", endless.join(", ")));
        }
        if self.large > 0 {
            parts.push(format!("above 1 MiB: {}", self.large));
        }
        parts.join("; ")
    }
}

/// Walks over some keys of the prefix.
async fn keys(
    look: &Look<'_>,
    connection: &Connection,
    prefix: &str,
) -> Result<Checked, ConnectError> {
    let (mut sample, mut cursor) = (Sample::default(), "0".to_owned());
    let begin = Instant::now();
    for _ in 0..SCANS_MAX {
        let mut scan = Pipeline::new();
        scan.cmd("SCAN").arg(&cursor).arg("MATCH").arg(format!("{prefix}:*"));
        scan.arg("COUNT").arg(SCAN_COUNT);
        let reply = look.send(connection, &scan).await?.pop().unwrap_or_default();
        let Ok((next, met)) = redis::from_redis_value::<(String, Vec<Vec<u8>>)>(reply) else {
            return Ok(refused_keys());
        };
        if !met.is_empty() && !weigh(look, connection, &met, &mut sample).await? {
            return Ok(refused_keys());
        }
        cursor = next;
        sample.is_whole = cursor == "0";
        if sample.is_whole || sample.keys >= KEYS_MAX as u64 || begin.elapsed() >= SCANNING_MAX {
            break;
        }
    }
    Ok(sample.row())
}

fn refused_keys() -> Checked {
    let row = Checked::new("keys", Verdict::Unknown, "the operator may not look", "");
    row.or("`portcullis acl --operator` prints all rights; here +scan, +memory|usage and +pttl")
}

/// Adds these keys. False where Redis does not tell.
async fn weigh(
    look: &Look<'_>,
    connection: &Connection,
    met: &[Vec<u8>],
    sample: &mut Sample,
) -> Result<bool, ConnectError> {
    let mut pipeline = Pipeline::new();
    for key in met {
        pipeline.cmd("MEMORY").arg("USAGE").arg(key.as_slice());
        pipeline.cmd("PTTL").arg(key.as_slice());
    }
    let replies = look.send(connection, &pipeline).await?;
    for (key, told) in met.iter().zip(replies.chunks(2)) {
        match told {
            [Value::Int(bytes), Value::Int(pttl)] => {
                let bytes = u64::try_from(*bytes).unwrap_or_default();
                sample.add(&String::from_utf8_lossy(key), bytes, *pttl);
            }
            // It has ended meanwhile.
            [Value::Nil, _] => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// What took long, and whose connections stand.
async fn slow(
    look: &Look<'_>,
    connection: &Connection,
    settings: &config::Store,
) -> Result<Checked, ConnectError> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("SLOWLOG").arg("GET").arg(128);
    pipeline.cmd("LATENCY").arg("LATEST");
    pipeline.cmd("CLIENT").arg("LIST");
    let replies = look.send(connection, &pipeline).await?;
    let [log, events, clients] = replies.as_slice() else {
        return Ok(not_permitted("slow_log", settings, "+slowlog|get"));
    };
    if server_error(log).is_some() {
        return Ok(not_permitted("slow_log", settings, "+slowlog|get"));
    }
    let log = slow_log::read(log, &settings.prefix);
    let worst = log.iter().filter(|it| it.keys.is_some()).map(|it| it.took).max();
    let events = if let Value::Array(events) = events { events.len() } else { 0 };
    let clients: String = redis::from_redis_value(clients.clone()).unwrap_or_default();
    let ours = clients.lines().filter(|line| line.contains(&format!(" name={OURS}"))).count();
    let longest = worst.unwrap_or_default();
    let verdict = match longest {
        longest if longest >= settings.timeout => Verdict::Watch,
        _ => Verdict::Good,
    };
    let value = format!(
        "{} commands in the slow log, the longest on the gateway's keys {:.1} ms; {events} latency \
         events; {ours} connections of gateways",
        log.len(),
        longest.as_secs_f64() * 1e3
    );
    let bound = format!("store.timeout, {} ms", settings.timeout.as_millis());
    let remedy = "GET /v1/store names the commands; LATENCY DOCTOR explains the events";
    Ok(Checked::new("slow_log", verdict, value, bound).or(remedy))
}

/// Whether the gateway's user may do what it never needs.
async fn surplus(
    look: &Look<'_>,
    connection: &Connection,
    settings: &config::Store,
) -> Result<Checked, ConnectError> {
    const BOUND: &str = "the user may do what `portcullis acl` prints, and nothing else";
    let gateway = user(settings);
    let mut pipeline = Pipeline::new();
    pipeline.cmd("ACL").arg("DRYRUN").arg(gateway).arg(SURPLUS);
    let reply = look.send(connection, &pipeline).await?.pop().unwrap_or_default();
    let row = match &reply {
        Value::Okay => {
            let value = format!("the user {gateway} may also {SURPLUS}");
            Checked::new("surplus", Verdict::Watch, value, BOUND)
                .or("make one by what `portcullis acl` prints, and name it in store.username")
        }
        reply if server_error(reply).is_some() => not_permitted("surplus", settings, "+acl|dryrun"),
        _ => Checked::good("surplus", format!("the user {gateway} may not {SURPLUS}"), BOUND),
    };
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_who_is_refused_is_unknown_and_a_silent_redis_poor() {
        let verdicts = |error| not_answered(&error, "store").map(|it| it.verdict);
        let answers = [ConnectError::Replica, ConnectError::Files("no file".to_owned())];
        for error in answers {
            assert_eq!(verdicts(error), [Verdict::Unknown; 3]);
        }
        assert_eq!(verdicts(ConnectError::Timeout), [Verdict::Poor; 3]);
    }

    #[test]
    fn keys_are_told_by_family_and_by_what_is_wrong_with_them() {
        let mut sample = Sample { is_whole: true, ..Sample::default() };
        assert_eq!(sample.row().value, "0 keys (all), 0B");
        sample.add("app:ratelimit:{sub=42}:api:1m", 300, 5000);
        sample.add("app:auth:key:0f", 100, -1);
        assert_eq!(sample.row().verdict, Verdict::Good, "API keys need no end");
        sample.add("app:session:x", 2 << 20, -1);
        let row = sample.row();
        assert_eq!(row.verdict, Verdict::Watch);
        let expected = "3 keys (all), 2.0 MiB; sessions 100 %, limits 0 %, api_keys 0 %; without \
                        an end: 1 of sessions; above 1 MiB: 1";
        assert_eq!(row.value, expected);
    }
}
