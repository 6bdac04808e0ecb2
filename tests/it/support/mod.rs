//! The language that the tests are written in. Everything blocks and runs on plain threads: what is
//! tested is the gateway, so nothing here shares its runtime, its parser or its HTTP library.

mod browser;
mod certificates;
mod client;
mod collector;
mod dns;
mod edge;
mod exposition;
mod folder;
mod gateway;
pub(crate) mod grpc_upstream;
mod http2_upstream;
mod issuer;
mod nats;
pub(crate) mod nkeys;
mod oidc_provider;
mod pebble;
mod proxy;
mod redis;
mod redis_cluster;
mod redis_sentinel;
pub(crate) mod tls;
mod tls_front;
mod token;
mod upstream;
pub(crate) mod websocket;
mod wire;

use std::time::Duration;

pub(crate) use browser::{Browser, ENTER, ESCAPE, TAB};
pub(crate) use certificates::{Authority, Certificate};
pub(crate) use client::{Client, Reply, Request, Session, raw, raw_until_close};
pub(crate) use collector::Collector;
pub(crate) use dns::{NameServer, Record};
pub(crate) use edge::{Edge, SMUGGLED, post, status};
pub(crate) use exposition::Exposition;
pub(crate) use folder::Folder;
pub(crate) use gateway::{BINARY, Gateway, Refused, kill, operate, run, run_with};
pub(crate) use http2_upstream::{Act, GoingAway, Http2Upstream};
pub(crate) use issuer::{Issuer, Signer, jwk_set};
pub(crate) use nats::{Nats, STREAMS, Said, Service, said};
pub(crate) use oidc_provider::{Jar, OidcProvider};
pub(crate) use pebble::Pebble;
pub(crate) use proxy::TcpProxy;
pub(crate) use redis::{Redis, TLS_NAMES};
pub(crate) use redis_cluster::RedisCluster;
pub(crate) use redis_sentinel::{RedisSentinels, WATCHED, sentinel, watch};
pub(crate) use tls::{CertificateAuthority, Pair, TlsClient};
pub(crate) use tls_front::{Handshake, TlsFront};
pub(crate) use token::{AUTH, SECRET, claims, token};
pub(crate) use upstream::{Recorded, Upstream};
pub(crate) use wire::{Chunks, response};

/// How long anything may take that is bound to happen: a safety net, not an expectation.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `holds`, for at most [`PATIENCE`]. The only place that sleeps.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    eventually_within(PATIENCE, what, &mut holds);
}

/// The same with another bound, for what others do in their own time.
pub(crate) fn eventually_within(longest: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    const STEP: Duration = Duration::from_millis(5);
    for _ in 0..longest.as_millis() / STEP.as_millis() {
        if holds() {
            return;
        }
        std::thread::sleep(STEP);
    }
    panic!("in vain waited until {what}");
}
