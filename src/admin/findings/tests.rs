//! What is found of what was seen.

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

fn away(why: Option<WhyAway>) -> Vec<OfAway> {
    vec![OfAway { usage: "main", why }]
}

#[test]
fn a_store_that_is_away_says_why_and_what_to_do() {
    let told = |why| {
        let found = find(&Seen { away: away(why), ..Seen::default() }, &[]).remove(0);
        [found.what, found.remedy]
    };
    let why = |remedy: Option<&str>| WhyAway {
        seen: "it is odd (a:1)".to_owned(),
        remedy: remedy.map(str::to_owned),
    };
    let run = "See that Redis runs: portcullis check --store tells more.";
    assert_eq!(told(None), ["The main store does not answer.", run]);
    let odd = "The main store does not answer: it is odd (a:1).";
    assert_eq!(told(Some(why(None))), [odd, run]);
    assert_eq!(told(Some(why(Some("mend it")))), [odd, "Mend it."]);
}

#[test]
fn what_is_muted_is_told_last() {
    let seen = Seen { reload_refused: true, away: away(None), ..Seen::default() };
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
        ("errors", 1, 5, |n| Seen { errors: Some((20.0, n as f64 / 100.0)), ..Seen::default() }),
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
        away: away(None),
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
    let refused = find(&seen, &[]).into_iter().find(|it| it.id == "reload_refused").unwrap();
    // A file without mistakes is refused, too, where what it changes needs a restart.
    assert_eq!(refused.remedy, "portcullis diff says what is wrong, or what needs a restart.");
    let differs = Seen { file_differs: true, ..Seen::default() };
    assert_eq!(ids(&differs), [("config_differs".to_owned(), Level::Watch)]);
}
