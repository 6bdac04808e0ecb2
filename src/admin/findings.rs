//! What an operator should know now, and what to do about it. One table: each finding has its
//! bound here, and says it.

use serde::Serialize;

use super::hints::{self, HITS, HITS_OF_MIN};
use crate::observe::CacheCounts;

/// From this part of a bound on something is nearly full, and from that on it is full.
const FULL: (f64, f64) = (0.7, 0.9);
/// The same of the share of server errors.
const ERRORS: (f64, f64) = (0.01, 0.05);
/// With fewer requests in ten seconds that share says nothing.
const ERRORS_OF_MIN: f64 = 20.0;
/// The same of the memory of Redis.
const MEMORY: (f64, f64) = (0.8, 0.9);
/// The same of `store.timeout`, for the slowest hundredth of its answers.
const SLOW: (f64, f64) = (0.5, 0.9);
/// From this part on the near cache is full; it works all the same.
pub(super) const NEAR: f64 = 0.95;
/// A route without a request for so long may be one that nobody needs, in hours.
pub(super) const UNUSED_HOURS: u64 = 24;
/// Most unused routes that have a finding of their own.
const UNUSED_MAX: usize = 8;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// Something is broken, or will be.
    Poor,
    /// Something deserves a look.
    Watch,
    /// Nothing is wrong, and somebody may want to know.
    Info,
}

/// One of them.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Finding {
    /// What it is known by.
    pub(super) id: String,
    pub(super) level: Level,
    /// What is seen.
    pub(super) what: String,
    /// By which bound, over what time.
    pub(super) why: String,
    /// What to do.
    #[serde(rename = "do")]
    pub(super) remedy: String,
    /// The page of the dashboard that shows more.
    pub(super) page: &'static str,
    /// Whether `admin.mute` names it: it is told all the same, and counts nowhere.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) muted: bool,
}

/// What was found by a look at Redis.
#[derive(Debug, Default)]
pub(super) struct OfStore {
    /// The use of the store, in its word.
    pub(super) usage: &'static str,
    pub(super) check: &'static str,
    pub(super) seen: String,
    pub(super) suffers: String,
    pub(super) remedy: String,
}

/// What the cache of one route did within a quarter of an hour.
#[derive(Debug, Default)]
pub(super) struct OfCache {
    pub(super) route: String,
    pub(super) counts: CacheCounts,
}

/// How full an upstream is, and whether it has anybody to ask.
#[derive(Debug, Default)]
pub(super) struct OfUpstream {
    pub(super) name: String,
    /// Connections in use, and `max_connections`.
    pub(super) connections: (u64, u64),
    /// Requests in progress, and `max_requests`.
    pub(super) requests: (u64, u64),
    /// Servers that are in, and all.
    pub(super) servers: (usize, usize),
    /// Whether another one answers in its place where it cannot.
    pub(super) gives_way: bool,
}

/// What waits to be delivered, and the bounds of `warn`.
#[derive(Debug, Default)]
pub(super) struct OfQueue {
    pub(super) name: String,
    /// Requests that are not settled, and how many are too many.
    pub(super) open: (u64, u64),
    /// The age of the oldest of them, and which one is too old, in seconds.
    pub(super) oldest_s: (u64, u64),
}

/// How many keys are under pressure by one limit.
#[derive(Debug, Default)]
pub(super) struct OfLimit {
    pub(super) policy: String,
    /// Keys of which 80 % or more are in use.
    pub(super) near: u64,
    /// Those of them that were refused within about a minute.
    pub(super) refused: u64,
}

/// What is looked at.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The uses whose store does not answer.
    pub(super) away: Vec<&'static str>,
    pub(super) store: Vec<OfStore>,
    /// The slowest hundredth of the store's answers and `store.timeout`, in seconds.
    pub(super) store_p99_s: Option<(f64, f64)>,
    /// The use of a store, bytes that its Redis uses, and its `maxmemory`, as operators are told.
    pub(super) memory: Vec<(&'static str, u64, u64)>,
    pub(super) connections: (u64, u64),
    pub(super) backlog: (u64, u64),
    pub(super) near: (u64, u64),
    /// The requests of the last ten seconds, and the share of them that ended in a server error.
    pub(super) errors: Option<(f64, f64)>,
    pub(super) cached: Vec<OfCache>,
    pub(super) reload_refused: bool,
    pub(super) file_differs: bool,
    pub(super) lines_lost: u64,
    pub(super) spans_lost: u64,
    pub(super) upstreams: Vec<OfUpstream>,
    pub(super) queues: Vec<OfQueue>,
    pub(super) limits: Vec<OfLimit>,
    /// Routes that have had no request for [`UNUSED_HOURS`].
    pub(super) unused: Vec<String>,
    /// Verifiers whose keys are older than two refreshes, and where these come from.
    pub(super) old_keys: Vec<(String, String)>,
}

/// The level of a share that is bad when it is large.
fn level(share: f64, (watch, poor): (f64, f64)) -> Option<Level> {
    match share {
        share if share >= poor => Some(Level::Poor),
        share if share >= watch => Some(Level::Watch),
        _ => None,
    }
}

fn part((used, most): (u64, u64)) -> f64 {
    if most == 0 { 0.0 } else { used as f64 / most as f64 }
}

fn percent(share: f64) -> String {
    let percent = (share * 1000.0).floor() / 10.0;
    format!("{percent} %")
}

/// All findings, the worst first; those whose ids are in `mute` come last.
pub(super) fn find(seen: &Seen, mute: &[String]) -> Vec<Finding> {
    let mut all = Vec::new();
    of_store(seen, &mut all);
    of_bounds(seen, &mut all);
    of_upstreams(seen, &mut all);
    of_queues(seen, &mut all);
    of_requests(seen, &mut all);
    of_limits(seen, &mut all);
    of_files(seen, &mut all);
    of_unused(seen, &mut all);
    for finding in &mut all {
        finding.muted = mute.contains(&finding.id);
    }
    all.sort_by_key(|finding| (finding.muted, finding.level));
    all
}

fn finding(
    id: impl Into<String>,
    level: Level,
    page: &'static str,
    [what, why, remedy]: [String; 3],
) -> Finding {
    Finding { id: id.into(), level, what, why, remedy, page, muted: false }
}

fn of_store(seen: &Seen, all: &mut Vec<Finding>) {
    for usage in &seen.away {
        let what = format!("The {usage} store does not answer.");
        let why = "Requests are served as store.on_outage says.".to_owned();
        let remedy = "See that Redis runs: portcullis check --store tells more.".to_owned();
        all.push(finding(format!("store_away_{usage}"), Level::Poor, "store", [what, why, remedy]));
    }
    for OfStore { usage, check, seen: what, suffers, remedy } in &seen.store {
        let (id, level) = match *check {
            "eviction" => (format!("redis_evicts_{usage}"), Level::Poor),
            // The operator's numbers say it, with their own bounds.
            "memory" if seen.memory.iter().any(|(told, ..)| told == usage) => continue,
            "memory" => (format!("redis_memory_{usage}"), Level::Poor),
            check => (format!("selftest_{check}_{usage}"), Level::Watch),
        };
        let what = format!("The {usage} store: {what}.");
        let texts = [what, format!("What suffers: {suffers}."), remedy.clone()];
        all.push(finding(id, level, "store", texts));
    }
    for (usage, used, most) in &seen.memory {
        let share = part((*used, *most));
        if let Some(level) = level(share, MEMORY) {
            let what =
                format!("The {usage} store: Redis uses {} of its maxmemory.", percent(share));
            let why = format!("{used} of {most} bytes; 80 % is watched, 90 % is poor.");
            let remedy = "Raise maxmemory, or store less: GET /v1/store shows what grows.";
            let id = format!("redis_memory_{usage}");
            all.push(finding(id, level, "store", [what, why, remedy.to_owned()]));
        }
    }
    if let Some((p99, timeout)) = seen.store_p99_s
        && let Some(level) = level(p99 / timeout, SLOW)
    {
        let what = format!("The slowest answers of the store take {:.1} ms.", p99 * 1e3);
        let why = format!(
            "p99 of the last seconds, of {:.0} ms (store.timeout); 50 % is watched, 90 % is poor.",
            timeout * 1e3
        );
        let remedy = "Look at Redis's SLOWLOG, processor and network.".to_owned();
        all.push(finding("store_slow", level, "store", [what, why, remedy]));
    }
}

fn of_bounds(seen: &Seen, all: &mut Vec<Finding>) {
    let bounds = [
        ("connections", seen.connections, "server.limits.connections", "connections of clients"),
        ("backlog", seen.backlog, "store.backlog_bytes", "bytes on their way to the store"),
    ];
    for (id, (used, most), key, of_what) in bounds {
        if let Some(level) = level(part((used, most)), FULL) {
            let what = format!("{used} of {most} {of_what}.");
            let why = "70 % is watched, 90 % is poor.".to_owned();
            let remedy = format!("Find who holds them, or raise {key}.");
            all.push(finding(id, level, "overview", [what, why, remedy]));
        }
    }
    if part(seen.near) >= NEAR {
        let (used, most) = seen.near;
        let what = format!("The near cache is full: {used} of {most} bytes.");
        let why = "From 95 % on.".to_owned();
        let remedy = "Raise store.near_cache_bytes: fewer answers are read from Redis.".to_owned();
        all.push(finding("near_full", Level::Watch, "cache", [what, why, remedy]));
    }
}

fn of_requests(seen: &Seen, all: &mut Vec<Finding>) {
    if let Some((requests, ratio)) = seen.errors
        && requests >= ERRORS_OF_MIN
        && let Some(level) = level(ratio, ERRORS)
    {
        let what = format!("{} of {requests} requests ended in a server error.", percent(ratio));
        let why = "In ten seconds, from 20 requests on; 1 % is watched, 5 % is poor.".to_owned();
        let remedy = "GET /v1/requests?status=5xx names them, and says why.".to_owned();
        all.push(finding("errors", level, "traffic", [what, why, remedy]));
    }
    for OfCache { route, counts } in &seen.cached {
        let (requests, ratio) = (counts.requests(), counts.hit_ratio().unwrap_or(1.0));
        if requests < HITS_OF_MIN || ratio >= HITS.0 {
            continue;
        }
        let level = if ratio < HITS.1 { Level::Poor } else { Level::Watch };
        let what = format!(
            "routes.{route}: {} hits of {requests} requests in 15 minutes.",
            percent(ratio)
        );
        let why =
            "Hits, stale and collapsed of all GET and HEAD in 15 minutes, from 100 on; below \
                   90 % is watched, below 50 % is poor."
                .to_owned();
        let texts = [what, why, hints::remedy(counts)];
        all.push(finding(format!("cache_poor_{route}"), level, "cache", texts));
    }
}

fn of_upstreams(seen: &Seen, all: &mut Vec<Finding>) {
    for OfUpstream { name, connections, requests, servers, gives_way } in &seen.upstreams {
        if servers.0 == 0 {
            let what = format!("No server of upstreams.{name} is in, of {}.", servers.1);
            let why = "All are out: by checks, by their answers, by hand, or their name is not \
                       known."
                .to_owned();
            let remedy = "GET /v1/upstreams says why of each; see that one runs, then \
                          POST /v1/upstreams/restore."
                .to_owned();
            let level = if *gives_way { Level::Watch } else { Level::Poor };
            let id = format!("upstream_down_{name}");
            all.push(finding(id, level, "upstreams", [what, why, remedy]));
        }
        let (places, key, of_what) = if part(*connections) > part(*requests) {
            (*connections, "max_connections", "connections")
        } else {
            (*requests, "max_requests", "requests at a time")
        };
        if let Some(level) = level(part(places), FULL) {
            let (used, most) = places;
            let what = format!("upstreams.{name}: {used} of {most} {of_what}.");
            let why = "Now; 70 % is watched, 90 % is poor. Beyond it requests wait, then end with \
                       503."
                .to_owned();
            let remedy = format!("See whether its servers are slow, or raise {key}.");
            let id = format!("upstream_full_{name}");
            all.push(finding(id, level, "upstreams", [what, why, remedy]));
        }
    }
}

fn of_queues(seen: &Seen, all: &mut Vec<Finding>) {
    for OfQueue { name, open, oldest_s } in &seen.queues {
        if open.0 <= open.1 && oldest_s.0 <= oldest_s.1 {
            continue;
        }
        let what =
            format!("queues.{name}: {} to be delivered, the oldest for {} s.", open.0, oldest_s.0);
        let why = format!("Above {} or {} s (queues.{name}.warn).", open.1, oldest_s.1);
        let remedy = format!(
            "See whether its upstream is away or slow, or whether it is paused: GET \
             /v1/queues/{name}/items?state=retrying names errors."
        );
        let id = format!("queue_late_{name}");
        all.push(finding(id, Level::Watch, "queues", [what, why, remedy]));
    }
}

fn of_limits(seen: &Seen, all: &mut Vec<Finding>) {
    for OfLimit { policy, near, refused } in &seen.limits {
        let keys = |count: u64| if count == 1 { "1 key".into() } else { format!("{count} keys") };
        let (level, what) = if *refused > 0 {
            (Level::Watch, format!("limits.{policy}: {} over the limit.", keys(*refused)))
        } else {
            (Level::Info, format!("limits.{policy}: {} near the limit.", keys(*near)))
        };
        let why = format!(
            "{} at 80 % or more, in the last minute, as far as this gateway knows.",
            keys(*near)
        );
        let remedy = "GET /v1/limits/pressed names them: raise the limit, or talk to them.";
        let id = format!("limit_near_{policy}");
        all.push(finding(id, level, "limits", [what, why, remedy.to_owned()]));
    }
}

fn of_unused(seen: &Seen, all: &mut Vec<Finding>) {
    let why = || format!("For {UNUSED_HOURS} hours, as this gateway counts.");
    let remedy = || "Remove it, if nobody needs it: what is reachable can be attacked.".to_owned();
    for route in seen.unused.iter().take(UNUSED_MAX) {
        let what = format!("routes.{route} has had no request.");
        let id = format!("route_unused_{route}");
        all.push(finding(id, Level::Info, "traffic", [what, why(), remedy()]));
    }
    let others = seen.unused.len().saturating_sub(UNUSED_MAX);
    if others > 0 {
        let what = format!("{others} more routes have had no request.");
        all.push(finding("routes_unused", Level::Info, "traffic", [what, why(), remedy()]));
    }
}

fn of_files(seen: &Seen, all: &mut Vec<Finding>) {
    let mut watch = |id: &str, page, texts: [&str; 3]| {
        all.push(finding(id, Level::Watch, page, texts.map(str::to_owned)));
    };
    if seen.reload_refused {
        let what = "The last reload was refused; the configuration before it runs.";
        let why = "The file has a mistake, which the log names.";
        watch("reload_refused", "config", [what, why, "Run portcullis check, and mend the file."]);
    } else if seen.file_differs {
        let what = "The configuration file is another one than the one that runs.";
        let remedy = "Reload it: SIGHUP, or POST /v1/config/reload.";
        watch("config_differs", "config", [what, "By its SHA-256.", remedy]);
    }
    for (name, url) in &seen.old_keys {
        let what = format!("The keys of auth.{name} are old: {url}.");
        let why = "They could not be fetched for two jwks.refresh.";
        let remedy = "issuers in GET /v1/status says why.";
        watch(&format!("issuer_keys_old_{name}"), "identity", [&what, why, remedy]);
    }
    if seen.lines_lost > 0 {
        let what = format!("{} lines of the access log were lost.", seen.lines_lost);
        let remedy = "The log says whether the disk or the reader was too slow.";
        watch("lines_dropped", "overview", [&what, "Since the start.", remedy]);
    }
    if seen.spans_lost > 0 {
        let what = format!("{} spans of traces were lost.", seen.spans_lost);
        let remedy = "See that the collector at telemetry.traces.endpoint answers in time.";
        watch("spans_dropped", "overview", [&what, "Since the start.", remedy]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(seen: &Seen) -> Vec<(String, Level)> {
        find(seen, &[]).into_iter().map(|it| (it.id, it.level)).collect()
    }

    #[test]
    fn a_gateway_that_is_well_has_none() {
        assert_eq!(find(&Seen::default(), &[]), []);
        let cached = |requests, hits| {
            let counts = CacheCounts { hits, others: requests - hits, ..CacheCounts::default() };
            let cached = vec![OfCache { route: "a".to_owned(), counts }];
            ids(&Seen { cached, ..Seen::default() })
        };
        assert_eq!(cached(99, 0), []);
        assert_eq!(cached(100, 90), []);
        assert_eq!(cached(100, 89), [("cache_poor_a".to_owned(), Level::Watch)]);
        assert_eq!(cached(100, 50), [("cache_poor_a".to_owned(), Level::Watch)]);
        assert_eq!(cached(100, 49), [("cache_poor_a".to_owned(), Level::Poor)]);
    }

    #[test]
    fn a_cache_that_answers_little_is_told_of_with_the_key_to_change() {
        let not_kept = [("no_freshness", 80)].into_iter().collect();
        let counts = CacheCounts { hits: 20, others: 80, not_kept, ..CacheCounts::default() };
        let cached = vec![OfCache { route: "a".to_owned(), counts }];
        let found = find(&Seen { cached, ..Seen::default() }, &[]);
        assert_eq!(found[0].what, "routes.a: 20 % hits of 100 requests in 15 minutes.");
        assert!(found[0].remedy.contains("set cache.ttl"), "{found:?}");
    }

    #[test]
    fn an_upstream_is_watched_by_its_places_and_down_without_a_server() {
        let of = |connections, requests, servers, gives_way| {
            let name = "u".to_owned();
            let upstreams = vec![OfUpstream { name, connections, requests, servers, gives_way }];
            ids(&Seen { upstreams, ..Seen::default() })
        };
        let full = |level| [("upstream_full_u".to_owned(), level)];
        assert_eq!(of((69, 100), (69, 100), (1, 2), false), []);
        assert_eq!(of((70, 100), (0, 100), (1, 1), false), full(Level::Watch));
        assert_eq!(of((89, 100), (5, 100), (1, 1), false), full(Level::Watch));
        assert_eq!(of((0, 100), (90, 100), (1, 1), false), full(Level::Poor));
        let down = |level| [("upstream_down_u".to_owned(), level)];
        assert_eq!(of((0, 100), (0, 100), (0, 2), false), down(Level::Poor));
        assert_eq!(of((0, 100), (0, 100), (0, 2), true), down(Level::Watch), "readers");
    }

    #[test]
    fn a_queue_is_told_of_above_its_own_bounds() {
        let of = |open, oldest_s| {
            let queues = vec![OfQueue { name: "mail".to_owned(), open, oldest_s }];
            ids(&Seen { queues, ..Seen::default() })
        };
        let late = [("queue_late_mail".to_owned(), Level::Watch)];
        assert_eq!(of((9, 9), (60, 60)), []);
        assert_eq!(of((10, 9), (0, 60)), late);
        assert_eq!(of((1, 9), (61, 60)), late);
    }

    #[test]
    fn what_is_near_unused_or_lost_is_told_without_alarm() {
        let limit = |policy: &str, near, refused| OfLimit { policy: policy.into(), near, refused };
        let seen = Seen {
            limits: vec![limit("api", 3, 0), limit("login", 2, 1)],
            unused: (0..10).map(|number| number.to_string()).collect(),
            spans_lost: 7,
            ..Seen::default()
        };
        let found = find(&seen, &[]);
        let of = |id: &str| found.iter().find(|it| it.id == id).unwrap();
        assert_eq!(of("limit_near_api").level, Level::Info);
        assert_eq!(of("limit_near_api").what, "limits.api: 3 keys near the limit.");
        assert_eq!(of("limit_near_login").level, Level::Watch);
        assert_eq!(of("limit_near_login").what, "limits.login: 1 key over the limit.");
        assert_eq!(of("spans_dropped").level, Level::Watch);
        assert_eq!(of("route_unused_7").level, Level::Info);
        assert_eq!(of("routes_unused").what, "2 more routes have had no request.");
        assert_eq!(found.len(), 2 + 1 + 8 + 1);
    }

    #[test]
    fn what_is_muted_is_told_last() {
        let seen = Seen { reload_refused: true, away: vec!["main"], ..Seen::default() };
        let mute = ["store_away_main", "unheard_of"].map(str::to_owned);
        let found = find(&seen, &mute);
        let told: Vec<_> = found.iter().map(|it| (it.id.as_str(), it.muted)).collect();
        assert_eq!(told, [("reload_refused", false), ("store_away_main", true)]);
        let text = serde_json::to_string(&found).unwrap();
        assert_eq!(text.matches("\"muted\":true").count(), 1, "{text}");
        assert_eq!(text.matches("muted").count(), 1, "{text}");
    }

    #[test]
    fn a_bound_is_watched_before_it_is_met() {
        type Make = fn(u64) -> Seen;
        let of: [(&str, u64, u64, Make); 5] = [
            ("connections", 70, 90, |n| Seen { connections: (n, 100), ..Seen::default() }),
            ("backlog", 70, 90, |n| Seen { backlog: (n, 100), ..Seen::default() }),
            ("redis_memory_main", 80, 90, |n| Seen {
                memory: vec![("main", n, 100)],
                ..Seen::default()
            }),
            ("errors", 1, 5, |n| Seen {
                errors: Some((20.0, n as f64 / 100.0)),
                ..Seen::default()
            }),
            ("store_slow", 25, 45, |n| Seen {
                store_p99_s: Some((n as f64 / 1000.0 + 1e-9, 0.05)),
                ..Seen::default()
            }),
        ];
        for (id, watch, poor, make) in of {
            let id = || id.to_owned();
            assert_eq!(ids(&make(watch - 1)), [], "{}", id());
            assert_eq!(ids(&make(watch)), [(id(), Level::Watch)]);
            assert_eq!(ids(&make(poor - 1)), [(id(), Level::Watch)]);
            assert_eq!(ids(&make(poor)), [(id(), Level::Poor)]);
        }
        let near = |used| ids(&Seen { near: (used, 100), ..Seen::default() });
        assert_eq!((near(94), near(95)), (vec![], vec![("near_full".to_owned(), Level::Watch)]));
        assert_eq!(ids(&Seen { memory: vec![("main", 9, 0)], ..Seen::default() }), []);
        let few = Seen { errors: Some((19.0, 1.0)), ..Seen::default() };
        assert_eq!(ids(&few), [], "too few requests");
    }

    #[test]
    fn each_store_and_each_issuer_is_muted_by_itself() {
        let of = |usage, check| OfStore { usage, check, ..OfStore::default() };
        let old = |name: &str| (name.to_owned(), "https://id.example/keys".to_owned());
        let seen = Seen {
            store: vec![of("cache", "eviction"), of("limits", "eviction"), of("limits", "memory")],
            old_keys: vec![old("staff"), old("shop")],
            ..Seen::default()
        };
        let mute = ["redis_evicts_cache", "issuer_keys_old_staff"].map(str::to_owned);
        let found = find(&seen, &mute);
        let told: Vec<_> = found.iter().map(|it| (it.id.as_str(), it.muted)).collect();
        let expected = [
            ("redis_evicts_limits", false),
            ("redis_memory_limits", false),
            ("issuer_keys_old_shop", false),
            ("redis_evicts_cache", true),
            ("issuer_keys_old_staff", true),
        ];
        assert_eq!(told, expected);
        assert_eq!(found[1].level, Level::Poor, "it is above 90 %, whoever has told so");
        assert!(found[0].what.contains("limits store"), "{found:?}");
    }

    #[test]
    fn the_worst_comes_first_and_a_refused_file_is_told_of_once() {
        let seen = Seen {
            away: vec!["main"],
            store: vec![
                OfStore { usage: "main", check: "eviction", ..OfStore::default() },
                OfStore { usage: "main", check: "clock", ..OfStore::default() },
                OfStore { usage: "main", check: "memory", ..OfStore::default() },
            ],
            memory: vec![("main", 70, 100)],
            reload_refused: true,
            file_differs: true,
            lines_lost: 1,
            old_keys: vec![("staff".to_owned(), "u".to_owned())],
            ..Seen::default()
        };
        let found: Vec<String> = ids(&seen).into_iter().map(|(id, _)| id).collect();
        let expected = [
            "store_away_main",
            "redis_evicts_main",
            "selftest_clock_main",
            "reload_refused",
            "issuer_keys_old_staff",
            "lines_dropped",
        ];
        assert_eq!(found, expected);
        let differs = Seen { file_differs: true, ..Seen::default() };
        assert_eq!(ids(&differs), [("config_differs".to_owned(), Level::Watch)]);
    }
}
