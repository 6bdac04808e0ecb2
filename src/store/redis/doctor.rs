//! `portcullis doctor`: all that can be asked of a Redis, with its value, its bound and what to do.
//! What it can do is asked by the self-test (`selftest`); here is added how well it does, as its
//! users see it. Connections are its own, so that no request waits behind it.

use std::time::Duration;

use redis::{InfoDict, Pipeline};
use tokio::time::timeout;

use super::check::selftest;
use super::connect_error::ConnectError;
use super::doctor_info::{self, Facts};
use super::doctor_operator;
use super::doctor_row::{Checked, SLOW_REMEDY, Verdict, lost};
use super::doctor_times;
use super::finding::Located;
use super::selftest::{Depth, Look, Sight};
use super::{selftest_cluster, selftest_sentinels};
use crate::config::{self, CacheEpochs, StoreUrl};

/// Longest look at one server, its connections included. What was seen until then is told.
const VISIT_MAX: Duration = Duration::from_secs(30);
/// Most servers of a Redis Cluster that are visited; the self-test looks at all.
const PLACES_MAX: usize = 16;

/// One server that is visited.
struct Place {
    name: Option<String>,
    settings: config::Store,
    sight: Sight,
}

/// Where the servers are.
#[derive(Default)]
struct Places {
    all: Vec<Place>,
    /// Whether somebody who was asked for them has answered, but not so.
    is_refused: bool,
    /// Whether the sentinels were asked, and none has answered.
    is_silent: bool,
}

/// What was seen of one server so far.
#[derive(Default)]
struct Visit {
    /// Who it is, once there was a connection.
    facts: Option<Facts>,
    /// What was measured, what INFO tells, what the operator is told.
    rows: [Vec<Checked>; 3],
}

/// All of it, of the Redis of these settings. Its own keys live for some seconds. Must be called
/// within a tokio runtime.
pub async fn doctor(settings: &config::Store) -> Vec<Checked> {
    if settings.url == StoreUrl::Memory {
        return vec![Checked::good("store", "memory", "nothing to look at")];
    }
    let mut seen: Option<Facts> = None;
    let (mut rows, mut gone) = (Vec::new(), Vec::new());
    let places = places(settings).await;
    let mut is_refused = places.is_refused;
    for place in places.all.iter().take(PLACES_MAX) {
        let mut visit = Visit::default();
        let ended = timeout(VISIT_MAX, visit.pay(place)).await;
        let named = |mut row: Checked| {
            row.servers.extend(place.name.clone());
            row
        };
        rows.extend(visit.rows.into_iter().flatten().map(named));
        seen = seen.or(visit.facts);
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                is_refused |= error.is_answer();
                gone.push(named(lost("connection", &error)));
            }
            Err(_) => rows.push(named(cut())),
        }
    }
    if let Some(others) = places.all.len().checked_sub(PLACES_MAX).filter(|others| *others > 0) {
        let value = format!("{others} more servers were not visited");
        let bound = format!("at most {PLACES_MAX} are");
        rows.push(Checked::new("servers", Verdict::Unknown, value, bound));
    }
    let found = selftest(settings).await;
    let mut all = of_selftest(settings, &found, seen.as_ref());
    if seen.is_none() && !is_refused {
        all.iter_mut().for_each(|row| unreachable(row, places.is_silent));
    }
    // Otherwise that is told already, with what to do.
    if found.iter().all(|it| it.finding.check != "connection") {
        all.extend(gone);
    }
    all.extend(rows);
    all
}

/// What a silence shows cannot be reached, rather than not be used.
fn unreachable(row: &mut Checked, are_sentinels_silent: bool) {
    let is_of_silence = match row.check {
        "connection" => true,
        "sentinel" => are_sentinels_silent,
        _ => false,
    };
    if is_of_silence && row.verdict == Verdict::Unusable {
        row.verdict = Verdict::Unreachable;
    }
}

/// The look at a server took too long.
fn cut() -> Checked {
    let most = VISIT_MAX.as_secs();
    let value = format!("ended after {most} s: what is missing here was not looked at");
    let row = Checked::new("visit", Verdict::Poor, value, format!("{most} s for one server"));
    row.or(SLOW_REMEDY)
}

/// The servers of these settings, as far as anybody says where they are.
async fn places(settings: &config::Store) -> Places {
    let sight = |is_in_cluster, tag| Sight { depth: Depth::Whole, is_in_cluster, tag };
    match &settings.url {
        StoreUrl::Cluster { seeds } => {
            let (all, is_refused) = selftest_cluster::primaries(settings, seeds).await;
            let place = |(name, settings, tag)| Place {
                name: Some(name),
                settings,
                sight: sight(true, tag),
            };
            Places { all: all.into_iter().map(place).collect(), is_refused, ..Places::default() }
        }
        StoreUrl::Sentinel { sentinels, primary } => {
            let found = selftest_sentinels::find(settings, sentinels, primary).await;
            let place = |(host, port)| {
                let url = StoreUrl::Redis { host, port, db: 0 };
                let settings = config::Store { url, ..settings.clone() };
                Place { name: None, settings, sight: sight(false, None) }
            };
            let all = found.primary.map(place).into_iter().collect();
            Places { all, is_silent: found.is_silent, ..Places::default() }
        }
        _ => {
            let own = Place { name: None, settings: settings.clone(), sight: sight(false, None) };
            Places { all: vec![own], ..Places::default() }
        }
    }
}

/// What the self-test looks at, under the name of its row; the last is what to compare with.
const ROWS: [(&str, &[&str], &str); 9] = [
    ("connection", &["connection"], "it answers"),
    ("server", &["version", "mode"], "Redis 7.0 or newer, or Valkey"),
    ("role", &["role", "replicas"], "a primary that takes no writes without its replicas"),
    ("rights", &["rights"], "all that `portcullis acl` prints"),
    ("scripts", &["scripts"], "three charges of a limit of two, and a refund"),
    ("tracking", &["tracking"], "a change is told of"),
    ("fsync", &["fsync"], "appendonly yes, and WAITAOF (Redis 7.2)"),
    ("sentinel", &["sentinel"], "three sentinels that agree"),
    ("slots", &["slots"], "somebody has each of the 16,384"),
];

/// The rows of what the self-test found, and of what it found nothing wrong with.
fn of_selftest(settings: &config::Store, found: &[Located], seen: Option<&Facts>) -> Vec<Checked> {
    let is_fatal = found.iter().any(|it| it.finding.is_fatal);
    let applies = |row: &str| match row {
        "connection" => false,
        "tracking" => settings.cache_epochs == CacheEpochs::Follow,
        "fsync" => settings.waits_for_disk(),
        "sentinel" => matches!(settings.url, StoreUrl::Sentinel { .. }),
        "slots" => matches!(settings.url, StoreUrl::Cluster { .. }),
        _ => true,
    };
    let mut rows: Vec<Checked> = Vec::new();
    for (row, checks, bound) in ROWS {
        let of_row = || found.iter().filter(|it| checks.contains(&it.finding.check));
        rows.extend(of_row().map(|it| of_finding(row, bound, it)));
        if of_row().next().is_some() || !applies(row) {
            continue;
        }
        // What is fatal has ended the look; who it is was asked before.
        let value = match seen {
            Some(facts) if row == "server" => Some(facts.server.clone()),
            Some(facts) if row == "role" => Some(facts.role.clone()),
            _ if !is_fatal => Some("as it should be".to_owned()),
            _ => None,
        };
        rows.push(value.map_or_else(
            || Checked::new(row, Verdict::Unknown, "not looked at", bound),
            |value| Checked::good(row, value, bound),
        ));
    }
    rows
}

fn of_finding(row: &'static str, bound: &str, Located { servers, finding }: &Located) -> Checked {
    let verdict = match row {
        _ if finding.is_fatal => Verdict::Unusable,
        "connection" | "rights" | "slots" | "fsync" => Verdict::Poor,
        _ => Verdict::Watch,
    };
    let value = format!("{}; what suffers: {}", finding.seen, finding.suffers);
    let checked = Checked::new(row, verdict, value, bound).or(&finding.remedy);
    Checked { servers: servers.clone(), ..checked }
}

impl Visit {
    /// Adds what one server tells of itself, and how well it answers.
    ///
    /// # Errors
    /// There is no connection to it.
    async fn pay(&mut self, place: &Place) -> Result<(), ConnectError> {
        let Place { settings, sight, .. } = place;
        let [times, told, operator] = &mut self.rows;
        let look = Look::new(settings, sight.clone());
        let connection = look.dial(|_| {}).await?;
        let mut pipeline = Pipeline::new();
        pipeline.cmd("INFO");
        match look.send(&connection, &pipeline).await {
            Ok(mut replies) => {
                let info = replies.pop().unwrap_or_default();
                let info = redis::from_redis_value::<InfoDict>(info).ok();
                self.facts = Some(doctor_info::facts(info.as_ref()));
                told.extend(of_info(info.as_ref()));
            }
            Err(error) => {
                self.facts = Some(doctor_info::facts(None));
                told.push(lost("memory", &error));
            }
        }
        let has_key = sight.tag.is_some() || !sight.is_in_cluster;
        doctor_times::look(&look, &connection, settings, has_key, times).await;
        doctor_operator::look(settings, sight.clone(), operator).await;
        Ok(())
    }
}

fn of_info(info: Option<&InfoDict>) -> Vec<Checked> {
    if let Some(info) = info {
        return doctor_info::rows(info, now_s());
    }
    let value = "the gateway's user may not ask INFO";
    let row = Checked::new("memory", Verdict::Unknown, value, "INFO");
    vec![row.or("ACL SETUSER … +info, or all that `portcullis acl` prints")]
}

fn now_s() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

#[cfg(test)]
mod tests {
    use super::super::finding::Finding;
    use super::*;

    fn located(finding: Finding) -> Located {
        Located { servers: Vec::new(), finding }
    }

    fn told(found: &[Located], seen: Option<&Facts>) -> Vec<(&'static str, Verdict)> {
        let rows = of_selftest(&config::Store::default(), found, seen);
        rows.iter().map(|it| (it.check, it.verdict)).collect()
    }

    #[test]
    fn what_is_fatal_leaves_the_rest_unknown() {
        let facts = Facts { server: "s".to_owned(), role: "r".to_owned() };
        let well = ["server", "role", "rights", "scripts"].map(|it| (it, Verdict::Good));
        assert_eq!(told(&[], Some(&facts)), well);
        let replica = located(Finding::fatal("role", "is a replica", "name the primary"));
        let expected = [
            ("server", Verdict::Good),
            ("role", Verdict::Unusable),
            ("rights", Verdict::Unknown),
            ("scripts", Verdict::Unknown),
        ];
        assert_eq!(told(&[replica], Some(&facts)), expected);
        let right = located(Finding::warning("rights", "lacks `exec`", "all", "+exec"));
        assert_eq!(told(&[right], Some(&facts))[2], ("rights", Verdict::Poor));
        let gone = located(Finding::fatal("connection", "refused", "run it"));
        let rows = told(&[gone], None);
        assert_eq!(rows[0], ("connection", Verdict::Unusable));
        assert!(rows[1..].iter().all(|(_, verdict)| *verdict == Verdict::Unknown), "{rows:?}");
    }

    #[test]
    fn a_silence_is_unreachable_and_an_answer_is_not() {
        let verdict = |check, silent| {
            let mut row = Checked::new(check, Verdict::Unusable, "", "");
            unreachable(&mut row, silent);
            row.verdict
        };
        assert_eq!(verdict("connection", false), Verdict::Unreachable);
        assert_eq!(verdict("server", true), Verdict::Unusable);
        let of_sentinels = [false, true].map(|silent| verdict("sentinel", silent));
        assert_eq!(of_sentinels, [Verdict::Unusable, Verdict::Unreachable]);
        assert_eq!(cut().verdict, Verdict::Poor);
    }

    #[test]
    fn old_servers_are_unusable_whoever_they_are() {
        let old = located(Finding::fatal("version", "redis 6.2, which lacks", "use 7.0"));
        assert_eq!(told(&[old], None)[0], ("server", Verdict::Unusable));
        let worst = [Verdict::Watch, Verdict::Unreachable, Verdict::Good].into_iter().max();
        assert_eq!(worst.map(Verdict::word), Some("unreachable"));
    }
}
