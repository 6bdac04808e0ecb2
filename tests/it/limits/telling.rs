//! What a client is told of its limits, and that it is true.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::{by_address, store, upstream};
use crate::auth::code;
use crate::support::{Client, Gateway, Redis, Reply, eventually};

fn number(reply: &Reply, name: &str) -> u64 {
    let text = reply.header(name).unwrap_or_else(|| panic!("no {name} in {reply:?}"));
    text.parse().unwrap_or_else(|_| panic!("{name}: {text}"))
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

/// `r` and `t` of each item of `RateLimit`.
fn items(reply: &Reply) -> Vec<(String, u64, u64)> {
    let item = |text: &str| {
        let (name, rest) = text.strip_prefix('"')?.split_once('"')?;
        let (left, time) = rest.strip_prefix(";r=")?.split_once(";t=")?;
        Some((name.to_owned(), left.parse().ok()?, time.parse().ok()?))
    };
    let text = reply.header("ratelimit").expect("RateLimit");
    text.split(", ").map(|text| item(text).unwrap_or_else(|| panic!("{text}"))).collect()
}

#[test]
fn the_first_request_and_the_last_are_told_what_is_left() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = Gateway::start(&(store(&redis.url()) + &by_address(&upstream, "\"3/1m\"")));
    for left in [2, 1, 0] {
        let before = unix_seconds();
        let reply = Client::get(gateway.public, "/").send();
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("ratelimit-policy"), Some("\"api\";q=3;w=60"));
        assert_eq!(number(&reply, "x-ratelimit-limit"), 3);
        assert_eq!(number(&reply, "x-ratelimit-remaining"), left);
        // The charge of this very request comes back after the window, and no earlier charge is
        // older than this test: all is back in a minute, the first unit not much before.
        let reset = number(&reply, "x-ratelimit-reset");
        assert!((before + 59..=unix_seconds() + 61).contains(&reset), "{before}: {reply:?}");
        let [(name, remaining, time)] = &items(&reply)[..] else { panic!("{reply:?}") };
        assert_eq!((name.as_str(), *remaining), ("api", left));
        assert!((1..=60).contains(time), "{reply:?}");
        assert_eq!(reply.header("retry-after"), None);
    }
    let refused = Client::get(gateway.public, "/").send();
    assert_eq!((refused.status, &*code(&refused)), (429, "limit_exceeded"));
    assert_eq!(refused.header("ratelimit-policy"), Some("\"api\";q=3;w=60"));
    assert_eq!(number(&refused, "x-ratelimit-remaining"), 0);
    let retry_after = number(&refused, "retry-after");
    assert!((1..=60).contains(&retry_after), "{refused:?}");
    assert!(retry_after >= items(&refused)[0].2, "earlier than RateLimit says: {refused:?}");
    assert!(number(&refused, "x-ratelimit-reset") >= unix_seconds());
}

#[test]
fn an_upstream_cannot_speak_for_the_gateway() {
    let redis = Redis::start();
    let theirs = "200 OK\r\nX-RateLimit-Remaining: 999\r\nRateLimit: \"x\";r=999;t=1\r\n\
                  RateLimit-Policy: \"x\";q=1\r\nX-RateLimit-Limit: 1000\r\nX-RateLimit-Reset: 1";
    let upstream = crate::support::Upstream::replying(crate::support::response(theirs, "ok"));
    let gateway = Gateway::start(&(store(&redis.url()) + &by_address(&upstream, "\"3/1m\"")));
    let reply = Client::get(gateway.public, "/").send();
    assert_eq!(reply.headers_named("x-ratelimit-remaining"), ["2"]);
    assert_eq!(reply.headers_named("x-ratelimit-limit"), ["3"]);
    assert_eq!(reply.headers_named("ratelimit-policy"), ["\"api\";q=3;w=60"]);
    assert_eq!(reply.headers_named("ratelimit").len(), 1);
    assert_eq!(reply.headers_named("x-ratelimit-reset").len(), 1);
}

/// Nobody else uses this gateway: the first request after a refusal that passes must not be early
/// for the window, and none that is sent after `Retry-After` may be refused.
#[test]
fn who_waits_as_long_as_told_passes_and_nobody_passes_before_the_window_ends() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = Gateway::start(&(store(&redis.url()) + &by_address(&upstream, "\"2/1500ms\"")));
    let get = || Client::get(gateway.public, "/").send();
    let first_sent = Instant::now();
    assert_eq!(get().status, 200);
    assert_eq!(get().status, 200);
    let refused = get();
    if refused.status == 200 {
        // The machine was so slow that the window has moved on; then there is nothing to see.
        assert!(first_sent.elapsed() >= Duration::from_millis(1500), "over the limit");
        return;
    }
    let may_pass = Instant::now() + Duration::from_secs(number(&refused, "retry-after"));
    eventually("a request passes", || {
        let sent = Instant::now();
        let reply = get();
        if reply.status == 200 {
            assert!(first_sent.elapsed() >= Duration::from_millis(1500), "within one window");
            return true;
        }
        assert!(sent < may_pass, "refused after the time that it was told");
        let told = Duration::from_secs(number(&reply, "retry-after"));
        assert!(told <= Duration::from_secs(2), "{told:?}");
        false
    });
}

#[test]
fn several_windows_are_named_and_all_must_pass() {
    let (redis, upstream) = (Redis::start(), upstream());
    let allow = "\"3/1h\", \"1/400ms\"";
    let gateway = Gateway::start(&(store(&redis.url()) + &by_address(&upstream, allow)));
    let get = || Client::get(gateway.public, "/").send();
    let first = get();
    assert_eq!(first.status, 200);
    let policy = "\"api-1h\";q=3;w=3600, \"api-400ms\";q=1;w=1";
    assert_eq!(first.header("ratelimit-policy"), Some(policy));
    let names: Vec<_> = items(&first).into_iter().map(|(name, left, _)| (name, left)).collect();
    assert_eq!(names, [("api-1h".to_owned(), 2), ("api-400ms".to_owned(), 0)]);
    // The tightest window, by the share that is left.
    assert_eq!(first.header("x-ratelimit-limit"), Some("1"));
    assert_eq!(first.header("x-ratelimit-remaining"), Some("0"));
    // Refusals of the short window must cost nothing in the long one: three pass in the end.
    let (mut admitted, mut refused) = (1, 0);
    eventually("the long window is used up", || {
        let reply = get();
        match reply.status {
            200 => admitted += 1,
            _ if number(&reply, "retry-after") > 1 => return true,
            _ => refused += 1,
        }
        false
    });
    assert_eq!(admitted, 3, "{refused} refusals of the short window between them");
    assert!(refused > 0, "the short window refused nobody");
    let last = get();
    assert_eq!((last.status, last.header("x-ratelimit-limit")), (429, Some("3")));
    assert!(last.text().contains("api-1h"), "{}", last.text());
}
