//! What becomes of keys while Redis is away.

use super::{Redis, Upstream, config, expect, keys, post, shop, with_code};
use crate::support::{Gateway, TcpProxy, eventually, response};

fn before(upstream: &Upstream, proxy: &TcpProxy, outage: &str) -> Gateway {
    let config = config(upstream, &proxy.url(), "", "");
    let config = config.replace("timeout = \"5s\"", "timeout = \"100ms\"");
    Gateway::start(&format!("[store.on_outage]\n{outage}\n{config}"))
}

#[test]
fn nobody_is_sent_whose_key_is_unknown_unless_that_is_wanted() {
    let redis = Redis::start();
    let proxy = TcpProxy::start(redis.address());
    let upstream = shop();
    let refusing = before(&upstream, &proxy, "");
    let forwarding = before(&upstream, &proxy, "idempotency = \"forward\"");
    proxy.refuse();
    eventually("Redis is away", || {
        with_code(&post(&refusing, "k", "a")) == expect(503, "idempotency_unknown")
    });
    assert_eq!(upstream.seen(), 0);
    eventually("Redis is away here, too", || {
        post(&forwarding, "k", "a");
        let lines = forwarding.access_lines();
        lines.iter().any(|line| line["degraded"] == serde_json::json!(["idempotency"]))
    });
    assert!(upstream.seen() > 0);
    proxy.pass();
    eventually("Redis is back", || post(&refusing, "l", "a").status == 201);
}

/// A question that is not answered may have taken the key: it is freed when Redis is back.
#[test]
fn a_key_that_may_have_been_taken_is_freed() {
    let redis = Redis::start();
    let proxy = TcpProxy::start(redis.address());
    let upstream = Upstream::replying(response("200 OK", "done"));
    let gateway = before(&upstream, &proxy, "");
    assert_eq!(post(&gateway, "warm", "a").status, 200);
    redis.stop_signal();
    let reply = post(&gateway, "k", "a");
    assert_eq!(with_code(&reply), expect(503, "idempotency_unknown"));
    redis.cont_signal();
    eventually("its key is free", || keys(&redis) == 1 && post(&gateway, "k", "a").status == 200);
    assert_eq!(upstream.seen(), 2);
}

/// An answer that Redis did not take is told it when it is back.
#[test]
fn an_answer_waits_for_redis() {
    let (upstream, held) = super::holding();
    let redis = Redis::start();
    let proxy = TcpProxy::start(redis.address());
    let gateway = before(&upstream, &proxy, "");
    let mut first = super::begin(&gateway, "k", "a");
    held.wait();
    proxy.refuse();
    held.let_go();
    assert_eq!(first.read().text(), "done");
    proxy.pass();
    eventually("it is kept", || post(&gateway, "k", "a").status == 200);
    assert_eq!(upstream.seen(), 1);
}
