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
use super::doctor_row::{Checked, Verdict};
use super::doctor_times;
use super::finding::Located;
use super::selftest::{Depth, Look, Sight};
use super::{selftest_cluster, selftest_sentinels};
use crate::config::{self, CacheEpochs, StoreUrl};

/// Longest look at one server, its connections included.
const VISIT_MAX: Duration = Duration::from_secs(30);
/// Most servers of a Redis Cluster that are visited; the self-test looks at all.
const PLACES_MAX: usize = 16;

/// One server that is visited.
struct Place {
    name: Option<String>,
    settings: config::Store,
    sight: Sight,
}

/// All of it, of the Redis of these settings. Its own keys live for some seconds. Must be called
/// within a tokio runtime.
pub async fn doctor(settings: &config::Store) -> Vec<Checked> {
    if settings.url == StoreUrl::Memory {
        return vec![Checked::good("store", "memory", "nothing to look at")];
    }
    let mut seen: Option<Facts> = None;
    let (mut rows, mut refusal) = (Vec::new(), false);
    let places = places(settings).await;
    for place in places.iter().take(PLACES_MAX) {
        let visited = timeout(VISIT_MAX, visit(place)).await;
        match visited.unwrap_or(Err(ConnectError::Timeout)) {
            Ok((facts, mut more)) => {
                more.iter_mut().for_each(|row| row.servers.extend(place.name.clone()));
                rows.extend(more);
                seen.get_or_insert(facts);
            }
            Err(error) => refusal |= error.condition().is_some(),
        }
    }
    if let Some(others) = places.len().checked_sub(PLACES_MAX).filter(|others| *others > 0) {
        let value = format!("{others} more servers were not visited");
        let bound = format!("at most {PLACES_MAX} are");
        rows.push(Checked::new("servers", Verdict::Unknown, value, bound));
    }
    let is_silent = seen.is_none() && !refusal;
    let mut all = of_selftest(settings, &selftest(settings).await, seen.as_ref());
    if is_silent {
        let lost = |row: &&mut Checked| row.verdict == Verdict::Unusable;
        all.iter_mut().filter(lost).for_each(|row| row.verdict = Verdict::Unreachable);
    }
    all.extend(rows);
    all
}

/// The servers of these settings, as far as anybody says where they are.
async fn places(settings: &config::Store) -> Vec<Place> {
    let sight = |is_in_cluster, tag| Sight { depth: Depth::Whole, is_in_cluster, tag };
    match &settings.url {
        StoreUrl::Cluster { seeds } => {
            let all = selftest_cluster::primaries(settings, seeds).await.into_iter();
            let place = |(name, settings, tag)| Place {
                name: Some(name),
                settings,
                sight: sight(true, tag),
            };
            all.map(place).collect()
        }
        StoreUrl::Sentinel { sentinels, primary } => {
            let (address, _) = selftest_sentinels::find(settings, sentinels, primary).await;
            let place = |(host, port)| {
                let url = StoreUrl::Redis { host, port, db: 0 };
                let settings = config::Store { url, ..settings.clone() };
                Place { name: None, settings, sight: sight(false, None) }
            };
            address.map(place).into_iter().collect()
        }
        _ => vec![Place { name: None, settings: settings.clone(), sight: sight(false, None) }],
    }
}

/// What the self-test looks at, under the name of its row; the last is what to compare with.
const ROWS: [(&str, &[&str], &str); 8] = [
    ("connection", &["connection"], "it answers"),
    ("server", &["version", "mode"], "Redis 7.0 or newer, or Valkey"),
    ("role", &["role", "replicas"], "a primary that takes no writes without its replicas"),
    ("rights", &["rights"], "all that `portcullis acl` prints"),
    ("scripts", &["scripts"], "three charges of a limit of two, and a refund"),
    ("tracking", &["tracking"], "a change is told of"),
    ("sentinel", &["sentinel"], "three sentinels that agree"),
    ("slots", &["slots"], "somebody has each of the 16,384"),
];

/// The rows of what the self-test found, and of what it found nothing wrong with.
fn of_selftest(settings: &config::Store, found: &[Located], seen: Option<&Facts>) -> Vec<Checked> {
    let is_fatal = found.iter().any(|it| it.finding.is_fatal);
    let applies = |row: &str| match row {
        "connection" => false,
        "tracking" => settings.cache_epochs == CacheEpochs::Follow,
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
            Some(_) if !is_fatal => Some("as it should be".to_owned()),
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
        "connection" | "rights" | "slots" => Verdict::Poor,
        _ => Verdict::Watch,
    };
    let value = format!("{}; what suffers: {}", finding.seen, finding.suffers);
    let checked = Checked::new(row, verdict, value, bound).or(&finding.remedy);
    Checked { servers: servers.clone(), ..checked }
}

/// What one server tells of itself, and how well it answers.
async fn visit(place: &Place) -> Result<(Facts, Vec<Checked>), ConnectError> {
    let settings = &place.settings;
    let look = Look::new(settings, place.sight.clone());
    let connection = look.dial(|_| {}).await?;
    let mut pipeline = Pipeline::new();
    pipeline.cmd("INFO");
    let info = look.send(&connection, &pipeline).await?.pop().unwrap_or_default();
    let info = redis::from_redis_value::<InfoDict>(info).ok();
    let Sight { is_in_cluster, tag, .. } = &place.sight;
    let has_key = tag.is_some() || !is_in_cluster;
    let mut rows = doctor_times::look(&look, &connection, settings, has_key).await?;
    match &info {
        Some(info) => rows.extend(doctor_info::rows(info, now_s())),
        None => {
            let value = "the gateway's user may not ask INFO";
            let row = Checked::new("memory", Verdict::Unknown, value, "INFO");
            rows.push(row.or("ACL SETUSER … +info, or all that `portcullis acl` prints"));
        }
    }
    rows.extend(doctor_operator::look(settings, place.sight.clone()).await);
    Ok((doctor_info::facts(info.as_ref()), rows))
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
    fn old_servers_are_unusable_whoever_they_are() {
        let old = located(Finding::fatal("version", "redis 6.2, which lacks", "use 7.0"));
        assert_eq!(told(&[old], None)[0], ("server", Verdict::Unusable));
        let worst = [Verdict::Watch, Verdict::Unreachable, Verdict::Good].into_iter().max();
        assert_eq!(worst.map(Verdict::word), Some("unreachable"));
    }
}
