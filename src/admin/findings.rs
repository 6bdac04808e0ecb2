//! What an operator should know now, and what to do about it. One table: each finding has its
//! bound here, and says it.

use serde::Serialize;

use super::hints::{self, HITS, HITS_OF_MIN};
use crate::observe::CacheCounts;
use crate::store::WhyAway;

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

/// A store that does not answer.
#[derive(Debug, Default)]
pub(super) struct OfAway {
    /// Its use, in its word.
    pub(super) usage: &'static str,
    /// What the last attempt to reach it found; nothing where there was none.
    pub(super) why: Option<WhyAway>,
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
    pub(super) away: Vec<OfAway>,
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
    /// Verifiers that have no key: why it was not fetched, and what to do.
    pub(super) no_keys: Vec<(String, [String; 2])>,
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

/// A sentence begins so.
fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
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
    for OfAway { usage, why } in &seen.away {
        let what = match why {
            None => format!("The {usage} store does not answer."),
            Some(WhyAway { seen, .. }) => format!("The {usage} store does not answer: {seen}."),
        };
        let remedy = why.as_ref().and_then(|why| why.remedy.as_deref()).map_or_else(
            || "See that Redis runs: portcullis check --store tells more.".to_owned(),
            |remedy| format!("{}.", capitalised(remedy)),
        );
        let why = "Requests are served as store.on_outage says.".to_owned();
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
        let remedy = "portcullis requests --status 5xx names them, and says why.".to_owned();
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
            "See whether its upstream is away or slow, or whether it is paused: portcullis \
             deliveries list {name} --state retrying names errors."
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
        let remedy = "portcullis limits --pressed names them: raise the limit, or talk to them.";
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
    for (name, [failure, remedy]) in &seen.no_keys {
        let at = if name.contains('.') { name.clone() } else { format!("auth.{name}") };
        let what = format!("The keys of {at} were never fetched: {failure}.");
        let why = "Requests that need them are answered with 503.".to_owned();
        let remedy = match remedy.as_str() {
            "" => "portcullis doctor fetches them, and says more.".to_owned(),
            remedy => format!("{remedy} ({at}; portcullis doctor fetches them again)"),
        };
        let id = format!("issuer_keys_missing_{name}");
        all.push(finding(id, Level::Poor, "identity", [what, why, remedy]));
    }
    let mut watch = |id: &str, page, texts: [&str; 3]| {
        all.push(finding(id, Level::Watch, page, texts.map(str::to_owned)));
    };
    if seen.reload_refused {
        let what = "The last reload was refused; the configuration before it runs.";
        let why = "The file has a mistake, or what it changes needs a restart; the log names it.";
        let remedy = "portcullis diff says what is wrong, or what needs a restart.";
        watch("reload_refused", "config", [what, why, remedy]);
    } else if seen.file_differs {
        let what = "The configuration file is another one than the one that runs.";
        let remedy = "Reload it: SIGHUP, or POST /v1/config/reload.";
        watch("config_differs", "config", [what, "By its SHA-256.", remedy]);
    }
    for (name, url) in &seen.old_keys {
        let what = format!("The keys of auth.{name} are old: {url}.");
        let why = "They could not be fetched for two jwks.refresh.";
        let remedy = "portcullis doctor fetches them, and says why.";
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
mod tests;
