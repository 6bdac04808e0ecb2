//! What is delivered later, and where its callers learn what became of it.

use std::collections::BTreeSet;
use std::time::Duration;

use http::HeaderName;

use super::names::names;
use super::own_answer;
use super::queue_bodies;
use super::queue_fields;
use crate::config::{self, Config, Problems, QueueDurability, StoreUrl, StoreUse};
use crate::store::queue::{Durability, QueueBounds};

/// How often a lease must be longer than the longest wait for the store: it is renewed three times
/// before it ends.
const TIMEOUTS_PER_LEASE: u32 = 3;
/// Why no answers are kept of what is delivered later.
const KEYS: &str = "a queue looks at keys itself, and the answer is not here yet";
/// Why a queue sends no messages.
const SUBJECT: &str = "a queue sends no messages; deliver = { jetstream = \"JOBS\" } has a stream \
                       store them";
/// What the path of a route that tells of deliveries ends with.
const ID: &str = "/{id}";

/// How long the keys of a queue outlive what they are needed for.
const TTL_MORE: Duration = Duration::from_secs(24 * 60 * 60);

/// How much one shard of a queue may hold, and for how long its keys live from when an item is due.
pub fn queue_bounds(queue: &config::Queue, shard: u8) -> QueueBounds {
    let ttl = queue.max_age + queue.keep_dead + TTL_MORE;
    let of_shard = |all| share(all, queue.shards.into(), shard.into());
    QueueBounds { items: of_shard(queue.max_items), bytes: of_shard(queue.max_bytes), ttl }
}

/// The part of a bound that one of so many shards has: together they have all of it, and each has
/// 1 at least. Those beyond, of a queue that had more, have as much as the last one.
pub fn share(all: u64, shards: u64, shard: u64) -> u64 {
    let shards = shards.max(1);
    (all / shards + u64::from(shard < all % shards)).max(1)
}

/// Who must have what is accepted.
pub fn durability(queue: &config::Queue) -> Durability {
    match queue.durability {
        QueueDurability::Memory => Durability::Memory,
        QueueDurability::Replicas(count) => Durability::Replicas(count),
        QueueDurability::Fsync => Durability::Fsync,
    }
}

/// How the requests of a route are delivered later.
#[derive(Debug, Clone)]
pub struct Deferred {
    /// As the route says it.
    pub written: config::Deliver,
    /// Its queue.
    pub queue: config::Queue,
    /// The fields that are kept of each, beside those that are kept of all.
    pub kept_fields: Vec<HeaderName>,
    /// The path where their callers learn what became of them, up to the id; nothing where no route
    /// tells that.
    pub told_at: Option<String>,
}

impl Deferred {
    pub(super) fn compile(
        config: &Config,
        written: &config::Route,
        at: &impl Fn(&str) -> String,
        problems: &mut Problems,
    ) -> Option<Box<Self>> {
        let deliver = written.deliver.as_ref().filter(|it| it.jetstream.is_none())?;
        let mut problem = |key: &str, what: &str, remedy: &str| {
            problems.push(at(key), what.to_owned(), remedy.to_owned());
        };
        later(config, written, &mut problem);
        let others = [
            ("grpc", written.grpc.is_some(), "a call waits for its status"),
            ("upgrade", written.tunnel.is_some(), "a tunnel cannot open later"),
            ("mirror", written.mirror.is_some(), "what is delivered later has one upstream"),
            ("respond", written.respond.is_some(), "it is answered without an upstream"),
            ("subject", written.subject.is_some(), SUBJECT),
        ];
        for (key, _, what) in others.into_iter().filter(|(_, is_written, _)| *is_written) {
            problem(key, what, "remove it, or deliver");
        }
        let Some(queue) = config.queues.get(&deliver.queue) else {
            let known = names(config.queues.keys(), "[queues.NAME]");
            let what = format!("no queue is named {:?}", deliver.queue);
            problem("deliver.queue", &what, &format!("name one of {known}"));
            return None;
        };
        if queue.drain_only {
            let what = format!("[queues.{}] takes nothing more: drain_only", deliver.queue);
            let remedy = "take the route away, name another queue, or remove drain_only there";
            problem("deliver.queue", &what, remedy);
        }
        let by = written.auth.iter().flat_map(|auth| &auth.by);
        let mut by = by.filter_map(|name| config.auth.get(name));
        if queue.recheck && !by.any(|verifier| verifier.revocation) {
            let what = format!(
                "queues.{}.recheck has nothing to ask: no caller of this route can be revoked",
                deliver.queue
            );
            let remedy = "name a verifier with revocation in auth, or remove recheck";
            problem("deliver", &what, remedy);
        }
        let told_at = told_at(config, written);
        let kept_fields = queue_fields::kept(config, written, queue);
        Some(Box::new(Self {
            written: deliver.clone(),
            queue: queue.clone(),
            kept_fields,
            told_at,
        }))
    }
}

/// What nobody can have who is answered before his request is carried out.
pub(super) fn later(
    config: &Config,
    written: &config::Route,
    problem: &mut dyn FnMut(&str, &str, &str),
) {
    let is_safe = |method: &http::Method| method.is_safe();
    if written.methods.is_empty() || written.methods.iter().any(is_safe) {
        let what = "whoever reads waits for the answer, and this route delivers later";
        problem("methods", what, "write methods = [\"POST\"], and give reads another route");
    }
    let others = [
        ("cache", written.cache.is_some(), "nothing is stored of what is delivered later"),
        ("split", written.split.is_some(), "what is delivered later has one upstream"),
        ("deadline", written.deadline.is_some(), "nobody waits for what is delivered later"),
        ("idempotency", written.idempotency.is_some(), KEYS),
    ];
    for (key, _, what) in others.into_iter().filter(|(_, is_written, _)| *is_written) {
        problem(key, what, "remove it, or deliver");
    }
    let verifiers = written.auth.iter().flat_map(|auth| &auth.by);
    let mut verifiers = verifiers.filter_map(|name| config.auth.get(name));
    if verifiers.any(|verifier| verifier.forward_token) {
        let what = "a token would lie in the store, and be too old when it is sent";
        let remedy = "remove forward_token from the verifier, or deliver; claims_to_headers tells \
                      the upstream who called";
        problem("deliver", what, remedy);
    }
}

/// The path of the route that tells of the deliveries of this one: at the same host, if there is
/// one.
fn told_at(config: &Config, of: &config::Route) -> Option<String> {
    let telling = || config.routes.values().filter(|route| route.answers_deliveries());
    let same_host = telling().find(|route| route.host == of.host);
    let found = same_host.or_else(|| telling().find(|route| route.host.is_none()));
    found.and_then(|route| prefix(&route.path))
}

/// What stands before the id.
fn prefix(path: &str) -> Option<String> {
    let prefix = path.strip_suffix(ID)?;
    (!prefix.contains(['{', '*'])).then(|| format!("{prefix}/"))
}

/// What stands before the id in the paths of a route that tells of deliveries.
pub(super) fn telling(
    written: &config::Route,
    at: &impl Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<String> {
    if !written.answers_deliveries() {
        return None;
    }
    own_answer::alone(written, at, problems);
    let prefix = prefix(&written.path);
    if prefix.is_none() && !written.path.is_empty() {
        let what = "a delivery is asked for by its id, and nothing else in the path is chosen";
        let remedy = "write one like \"/deliveries/{id}\"".to_owned();
        problems.push(at("path"), what.to_owned(), remedy);
    }
    prefix
}

/// The pattern of a route that tells of deliveries: what is below an id is part of it.
pub(super) fn pattern(written: &config::Route) -> Option<String> {
    let prefix = prefix(&written.path).filter(|_| written.answers_deliveries())?;
    Some(format!("{prefix}*"))
}

/// The methods of such a route, where it names none.
pub(super) const METHODS: [http::Method; 3] =
    [http::Method::GET, http::Method::HEAD, http::Method::DELETE];

/// Queues that could not keep what they promise.
pub(super) fn check(config: &Config, problems: &mut Problems) {
    let timeout = config.store.timeout;
    let is_memory = config.store.used_for(StoreUse::Queue).url == StoreUrl::Memory;
    for (name, queue) in &config.queues {
        let at = |key: &str| format!("queues.{name}.{key}");
        if queue.lease < timeout * TIMEOUTS_PER_LEASE {
            let what = "ends before it can be renewed: the store may take store.timeout".to_owned();
            let remedy = format!("write at least {TIMEOUTS_PER_LEASE} times store.timeout");
            problems.push(at("lease"), what, remedy);
        }
        if is_memory && queue.durable {
            let what = "what is accepted would be lost with this process: the store is embedded";
            let remedy = "name a Redis in store.url or store.queue_url, or write durable = false";
            problems.push(at("durable"), what.to_owned(), remedy.to_owned());
        }
        if is_memory && queue.durability != QueueDurability::Memory {
            let what = "the store is embedded: it has no replicas, and nothing on a disk";
            let remedy = "name a Redis in store.url or store.queue_url, or write \"memory\"";
            problems.push(at("durability"), what.to_owned(), remedy.to_owned());
        }
        sends_more(config, (name, queue), problems);
        queue_bodies::check(config, (name, queue), problems);
        queue_fields::check(config, (name, queue), problems);
    }
}

/// Upstreams that send one request several times, where each is to be counted.
fn sends_more(config: &Config, (name, queue): (&str, &config::Queue), problems: &mut Problems) {
    let delivers = |route: &&config::Route| {
        let is_here = |deliver: &config::Deliver| deliver.queue == name;
        queue.rate.is_some() && route.deliver.as_ref().is_some_and(is_here)
    };
    let repeats = |upstream: &&String| {
        config.upstreams.get(*upstream).is_some_and(|upstream| upstream.retry.is_some())
    };
    let upstreams = config.routes.values().filter(delivers).map(|route| &route.upstream);
    let all: BTreeSet<&String> = upstreams.filter(repeats).collect();
    for upstream in all {
        let what = format!(
            "upstreams.{upstream}.retry sends a request more than once, and rate counts it once"
        );
        let remedy = "remove one of them: a queue tries again by itself, and counts that";
        problems.push(format!("queues.{name}.rate"), what, remedy);
    }
}

#[cfg(test)]
mod tests {
    use super::share;
    use crate::plan::tests::problems_of;

    const BASE: &str = "[upstreams.bus]\nnats = [\"nats://127.0.0.1:1\"]\n\
                        [upstreams.shop]\nservers = [\"http://127.0.0.1:1\"]\n\
                        [queues.mail]\ndurable = false\n";

    /// The problems of a route, by their keys.
    fn problems(route: &str) -> Vec<String> {
        problems_of(&format!("{BASE}[routes.r]\n{route}"))
    }

    #[test]
    fn shards_have_all_of_a_bound_together_and_something_each() {
        for (all, shards) in [(10, 1), (10, 3), (16, 16), (17, 16), (u64::MAX, 7)] {
            let shares: Vec<u64> = (0..shards).map(|shard| share(all, shards, shard)).collect();
            assert_eq!(shares.iter().sum::<u64>(), all, "{shares:?}");
            assert!(shares[0] - shares[shares.len() - 1] <= 1, "{shares:?}");
        }
        assert_eq!((share(10, 3, 9), share(2, 3, 2), share(5, 0, 0)), (3, 1, 5));
    }

    #[test]
    fn a_store_in_memory_has_no_disk_and_no_replicas_to_wait_for() {
        const ROUTE: &str = "[routes.r]\npath = \"/r\"\nupstream = \"shop\"\n";
        for (durability, is_refused) in [("memory", false), ("fsync", true), ("replicas:1", true)] {
            let text = format!("{BASE}durability = \"{durability}\"\n{ROUTE}");
            let expected = if is_refused { vec!["queues.mail.durability"] } else { vec![] };
            assert_eq!(problems_of(&text), expected, "{durability}");
        }
    }

    #[test]
    fn what_makes_no_sense_for_later_is_refused() {
        const LATER: &str = "path = \"/r\"\nmethods = [\"POST\"]\n\
                             deliver = { queue = \"mail\" }\n";
        let none: [&str; 0] = [];
        let shop = format!("{LATER}upstream = \"shop\"\n");
        assert_eq!(problems(&shop), none);
        assert_eq!(problems(&format!("{shop}invalidates = [\"/a\"]")), none);
        assert_eq!(problems(&format!("{shop}idempotency = {{}}")), ["routes.r.idempotency"]);
        let bus = format!("{LATER}upstream = \"bus\"\nsubject = \"mail.send\"\n");
        assert_eq!(problems(&bus), ["routes.r.subject"]);
    }

    /// What is sent twice within one attempt is counted once.
    #[test]
    fn a_queue_with_a_rate_has_no_upstream_that_repeats() {
        const ROUTES: &str = "[routes.r]\npath = \"/r\"\nmethods = [\"POST\"]\n\
                              upstream = \"shop\"\ndeliver = { queue = \"mail\" }\n\
                              [routes.other]\npath = \"/o\"\nupstream = \"other\"\n\
                              [upstreams.other]\nservers = [\"http://127.0.0.1:1\"]\n";
        let of = |queue: &str, of_upstream: &str| {
            problems_of(&format!("{BASE}{queue}{ROUTES}[upstreams.{of_upstream}.retry]\n"))
        };
        let none: [&str; 0] = [];
        let rate = "rate = \"10/1s\"\n";
        assert_eq!(of(rate, "shop"), ["queues.mail.rate"]);
        assert_eq!(of(rate, "other"), none);
        assert_eq!(of("", "shop"), none);
    }

    #[test]
    fn a_queue_names_no_field_in_which_a_credential_may_stand() {
        const MORE: &str = "[auth.app]\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
                            algorithms = [\"HS256\"]\nfrom = [\"header:x-app-token\"]\n\
                            [auth.keys]\napi_keys = true\n\
                            [session]\nid_from = [\"header:x-sid\"]\nheader = \"x-session\"\n\
                            [routes.r]\npath = \"/r\"\nupstream = \"shop\"\n";
        let of = |names: &str| {
            let queue = format!("keep_headers = [{names}]\n");
            problems_of(&format!("{BASE}{queue}{MORE}"))
        };
        let none: [&str; 0] = [];
        assert_eq!(of("\"x-order-id\", \"X-Tenant\", \"signature\""), none);
        for name in [
            "authorization",
            "cookie",
            "proxy-authorization",
            "x-api-key",
            "x_api_key",
            "x-app-token",
            "x-sid",
            "x-delivery-id",
            "host",
        ] {
            assert_eq!(of(&format!("\"{name}\"")), ["queues.mail.keep_headers"], "{name}");
        }
        let ordered =
            |name: &str| problems_of(&format!("{BASE}order_by = \"header:{name}\"\n{MORE}"));
        assert_eq!(ordered("x-order-id"), none);
        let delivers = |rules: &str| {
            let rest = "methods = [\"POST\"]\ndeliver = { queue = \"mail\" }\n";
            problems_of(&format!("{BASE}{MORE}{rest}request_headers.{rules}\n"))
        };
        for name in ["authorization", "x-api-key", "x_app_token", "x-sid"] {
            assert_eq!(ordered(name), ["queues.mail.order_by"], "{name}");
            let add = delivers(&format!("add = {{ {name} = \"a\" }}"));
            assert_eq!(add, ["routes.r.request_headers.add"], "{name}");
            assert_eq!(delivers(&format!("set = {{ {name} = \"a\" }}")), none, "{name}");
        }
    }

    /// What was written and cannot be read is lost.
    #[test]
    fn what_is_kept_fits_into_one_reply() {
        const REDIS: &str = "[store]\nurl = \"redis://127.0.0.1:1\"\nreply_bytes = \"4MiB\"\n";
        const ROUTE: &str = "[routes.r]\npath = \"/r\"\nupstream = \"shop\"\n";
        let of = |store: &str, queue: &str| problems_of(&format!("{store}{BASE}{queue}\n{ROUTE}"));
        let none: [&str; 0] = [];
        for (key, fits, is_too_long) in
            [("max_body", "4032KiB", "4033KiB"), ("keep_response", "4032KiB", "4MiB")]
        {
            let line = |size: &str| format!("{key} = \"{size}\"");
            let path = format!("queues.mail.{key}");
            assert_eq!(of(REDIS, &line(fits)), none, "{key}");
            assert_eq!(of(REDIS, &line(is_too_long)), [&*path], "{key}");
            let own = format!("{REDIS}[store.queue]\nurl = \"redis://127.0.0.1:2\"\n");
            assert_eq!(of(&format!("{own}reply_bytes = \"8MiB\"\n"), &line(is_too_long)), none);
            assert_eq!(of("", &line("8MiB")), none, "the embedded store has no replies");
        }
    }

    #[test]
    fn a_route_that_tells_of_deliveries_does_nothing_else() {
        let with = |more: &str| {
            let keys = problems(&format!("path = \"/d/{{id}}\"\nanswers = \"deliveries\"\n{more}"));
            keys.into_iter().collect::<std::collections::BTreeSet<_>>()
        };
        assert!(with("").is_empty());
        for (key, line) in [
            ("idempotency", "idempotency = {}"),
            ("invalidates", "invalidates = [\"/a\"]"),
            ("subject", "subject = \"a\""),
        ] {
            let key = format!("routes.r.{key}");
            assert!(with(line).contains(&key), "{line}");
        }
    }
}
