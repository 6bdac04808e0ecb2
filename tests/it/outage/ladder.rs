//! Every setting of `[store.on_outage]`, against every way in which a store can be away.

use super::{ROUTES, ask, cache_status, upstream};
use crate::auth::code;
use crate::support::{AUTH, Gateway, Redis, Reply, TcpProxy, Upstream, claims, eventually, token};

/// Three gateways on one store, each with another answer to its absence.
struct House {
    redis: Redis,
    proxy: TcpProxy,
    upstream: Upstream,
    bearer: String,
    /// The default: refuses, and counts by itself.
    careful: Gateway,
    /// Refuses everything.
    strict: Gateway,
    /// Lets everything pass.
    lenient: Gateway,
}

impl House {
    fn start() -> Self {
        let (redis, upstream) = (Redis::start(), upstream());
        let proxy = TcpProxy::start(redis.address());
        let start = |on_outage: &str| {
            let url = proxy.url();
            let store = format!("[store]\nurl = \"{url}\"\n[store.on_outage]\n{on_outage}\n");
            Gateway::start(&(store + AUTH + &upstream.table("shop") + ROUTES))
        };
        let strict = "revocation = \"refuse\"\nlimits = \"refuse\"\nsession = \"refuse\"";
        let lenient = "revocation = \"allow\"\nlimits = \"allow\"\nsession = \"without\"";
        let (careful, strict, lenient) = (start("nodes = 4"), start(strict), start(lenient));
        let bearer = format!("Bearer {}", token(claims("42")));
        let house = Self { redis, proxy, upstream, bearer, careful, strict, lenient };
        house.assert_normal();
        house
    }

    fn gateways(&self) -> [&Gateway; 3] {
        [&self.careful, &self.strict, &self.lenient]
    }

    fn get(&self, gateway: &Gateway, path: &str) -> Reply {
        if path == "/cached" {
            // What is answered to a credential on a public route is nobody else's.
            return ask(gateway, path, &[]);
        }
        let headers = [("Authorization", &*self.bearer), ("Cookie", "sid=s1")];
        ask(gateway, path, &headers)
    }

    /// Everything works at every gateway, sooner or later.
    fn assert_normal(&self) {
        self.redis.cli(&["SET", "app:session:s1", "{}"]);
        for gateway in self.gateways() {
            eventually("everything works", || {
                self.upstream.forget();
                let works = |path| self.get(gateway, path).status == 200;
                works("/auth")
                    && works("/plain")
                    && works("/session")
                    && self.upstream.recorded().iter().any(|r| r.header("x-session").is_some())
                    && self.get(gateway, "/limited").header("x-ratelimit-limit") == Some("1000")
                    && cache_status(&self.get(gateway, "/cached")).contains("hit")
            });
        }
    }

    /// What each gateway does without the store.
    fn assert_degraded(&self) {
        for gateway in self.gateways() {
            assert_eq!(self.get(gateway, "/plain").status, 200);
            let cached = self.get(gateway, "/cached");
            assert_eq!((cached.status, cached.text().as_str()), (200, "hello"));
            assert!(cache_status(&cached).contains("fwd=bypass"), "{cached:?}");
            let without_session = ask(gateway, "/session", &[]);
            assert_eq!(without_session.status, 200, "there is nothing to ask");
            let bad = ask(gateway, "/auth", &[("Authorization", "Bearer bad")]);
            assert_eq!((bad.status, &*code(&bad)), (401, "token_invalid"), "that needs no store");
        }
        for (gateway, path, expected) in [
            (&self.careful, "/auth", "revocation_unknown"),
            (&self.strict, "/auth", "revocation_unknown"),
            (&self.careful, "/session", "session_unknown"),
            (&self.strict, "/session", "session_unknown"),
            (&self.strict, "/limited", "limit_unknown"),
        ] {
            let reply = self.get(gateway, path);
            assert_eq!((reply.status, &*code(&reply)), (503, expected), "{path}");
            assert!(reply.header("retry-after").is_some(), "{reply:?}");
        }
        self.assert_own_share();
        self.assert_lenient();
    }

    /// This node's share of 1000 among 4, of which a little was used before.
    fn assert_own_share(&self) {
        let left = |reply: &Reply| reply.header("x-ratelimit-remaining").unwrap().parse::<u32>();
        let first = left(&self.get(&self.careful, "/limited")).unwrap();
        assert!((200..250).contains(&first), "{first} left");
        for left in (0..first).rev() {
            let reply = self.get(&self.careful, "/limited");
            assert_eq!(reply.status, 200, "{left} left");
            assert_eq!(reply.header("x-ratelimit-limit"), Some("250"));
            assert_eq!(reply.header("x-ratelimit-remaining"), Some(&*left.to_string()));
        }
        let reply = self.get(&self.careful, "/limited");
        assert_eq!((reply.status, &*code(&reply)), (429, "limit_exceeded"));
    }

    fn assert_lenient(&self) {
        self.upstream.forget();
        for path in ["/auth", "/session", "/limited", "/cached"] {
            assert_eq!(self.get(&self.lenient, path).status, 200, "{path}");
        }
        let seen = self.upstream.recorded();
        assert_eq!(seen.len(), 4);
        assert!(seen.iter().all(|request| request.header("x-session").is_none()));
        assert_eq!(
            seen[0].header("x-user-id"),
            Some("42"),
            "the signature was checked all the same"
        );
        // The log says which functions did without the store.
        for (route, function) in [
            ("auth", "revocation"),
            ("limited", "limits"),
            ("session", "session"),
            ("cached", "cache"),
        ] {
            eventually("the log says so", || {
                self.lenient.access_lines().iter().any(|line| {
                    let degraded = serde_json::json!([function]);
                    line["route"] == route && line["status"] == 200 && line["degraded"] == degraded
                })
            });
        }
    }
}

#[test]
fn a_store_that_refuses_connections() {
    let house = House::start();
    house.proxy.refuse();
    house.assert_degraded();
    house.proxy.pass();
    house.assert_normal();
}

#[test]
fn a_network_that_loses_everything() {
    let house = House::start();
    house.proxy.swallow();
    house.assert_degraded();
    house.proxy.pass();
    house.assert_normal();
}

#[test]
fn a_stopped_process() {
    let house = House::start();
    house.redis.stop_signal();
    house.assert_degraded();
    house.redis.cont_signal();
    house.assert_normal();
}

#[test]
fn a_killed_process() {
    let mut house = House::start();
    house.redis.kill();
    house.assert_degraded();
    house.redis.restart();
    house.assert_normal();
}

#[test]
fn a_connection_that_breaks_now_and_then() {
    let house = House::start();
    for _ in 0..3 {
        house.proxy.hang_up();
        house.assert_normal();
    }
}

#[test]
fn a_store_that_refuses_writes_is_away_for_limits_alone() {
    let house = House::start();
    house.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = house.get(&house.strict, "/limited");
    assert_eq!((refused.status, &*code(&refused)), (503, "limit_unknown"));
    assert_eq!(house.get(&house.lenient, "/limited").status, 200);
    assert_eq!(house.get(&house.strict, "/auth").status, 200);
    assert_eq!(house.get(&house.strict, "/session").status, 200);
    house.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    house.assert_normal();
}

#[test]
fn a_server_that_became_a_replica() {
    let house = House::start();
    // It answers reads, but not for itself any more.
    house.redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    for _ in 0..20 {
        let refused = house.get(&house.strict, "/limited");
        assert_eq!((refused.status, &*code(&refused)), (503, "limit_unknown"));
        assert_eq!(house.get(&house.lenient, "/limited").status, 200);
    }
    house.redis.cli(&["REPLICAOF", "NO", "ONE"]);
    house.assert_normal();
}
