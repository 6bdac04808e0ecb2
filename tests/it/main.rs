//! The gateway as its users meet it: the built binary, real sockets, a real redis-server. One
//! binary, so that it is linked once; one module for each thing that is promised.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on says so by panicking"
)]

/// The test language: a gateway, an upstream that records, clients, Redis, tokens. No test is here.
mod support;

/// What the access line says of a refusal, and the client is not told.
mod access_line;
/// Certificates that an authority issues by itself, for one gateway and for a fleet.
mod acme;
/// The admin listener and the log: health, metrics, operations, one line per request.
mod admin;
/// API keys: made, used, limited, ended; and while Redis is away.
mod api_keys;
/// What is left of everything that an operator does.
mod audit;
/// Who may pass: tokens, what they must say, and how they are revoked.
mod auth;
/// Which of several servers gets a request.
mod balance;
/// How often Redis is asked for one request.
mod batches;
/// The same for bodies: chunks, trailers, and bodies that nobody reads.
mod bodies;
/// Stored answers: when they serve, when they must not, and how writes empty them.
mod caching;
/// Routes that are split among upstreams, and canaries that are taken back.
mod canaries;
/// `portcullis check`, and what a gateway says that cannot start.
mod check;
/// Two files of which one is to follow the other: `portcullis diff OLD NEW`.
mod compare_files;
/// Responses that are compressed.
mod compression;
/// What every store promises, over the embedded one and over a real Redis.
mod contract;
/// Configurations of other gateways, converted, and one of these beside ours.
mod convert;
/// Copies of requests that are not made, and faults that nobody asks for by a field.
mod copies;
/// Pages of other origins.
mod cors;
/// Answers that break off, and what of them arrives.
mod cut_answers;
/// The dashboard in a real browser.
mod dashboard;
/// Bounds and clocks: slow, silent and greedy clients, full houses, and the drain.
mod deadlines;
/// Requests that are accepted now and delivered later.
mod delivery;
/// The image, compose and the manifests for Kubernetes.
mod deployment;
/// More than the embedded store has room for.
mod embedded_room;
/// What applications tell of changes.
mod events;
/// Who waits for a 100, and when it comes.
mod expect;
/// What one client may take of an upstream's connections.
mod fair_share;
/// Refresh tokens, and the families that they are of.
mod families;
/// The form of configuration files: `portcullis fmt`.
mod fmt;
/// What trusted proxies say of the client, and what upstreams are told of it.
mod forwarding;
/// Where a request begins and ends: everything that could smuggle one past the gateway.
mod framing;
/// gRPC: metadata, statuses, bounds and deadlines of calls.
mod grpc;
/// Rules for fields.
mod handover;
mod header_rules;
/// HTTP/2 with prior knowledge, and the way down to HTTP/1.1.
mod http2;
/// HTTP/2 to upstreams.
mod http2_upstream;
/// Which fields cross the gateway: hop-by-hop, identity, forwarding, cookies, request ids.
mod hygiene;
/// Requests that take effect once, by their key.
mod idempotency;
/// What runs and since when, and how busy it is.
mod in_force;
/// A configuration to begin with.
mod init;
/// Interim responses (1xx) of an upstream.
mod interim;
/// Keys that an issuer publishes, several issuers on one route, and tokens in a query.
mod issuer;
/// What is in progress, or was known, when what it goes by changes.
mod lasting;
/// Exact limits, their keys, and what their callers are told.
mod limits;
/// Where access lines go, how they are written, and what they show of callers.
mod log_files;
/// Upstreams that read paths more loosely than the gateway.
mod loose_paths;
/// Sessions that the gateway makes, from the log-in to the log-out.
mod made;
/// `/metrics` as a scraper reads it.
mod metrics;
/// Copies of requests for another upstream, and faults on purpose.
mod mirrors;
/// Servers that are found by their names.
mod names;
/// Upstreams over NATS: what becomes of requests, replies and lost connections.
mod nats;
/// Logging in at an OpenID provider, a real one, and hostile ones.
mod oidc;
/// Upstreams of HTTP/1.0, and heads of upstreams that say too much.
mod old_upstreams;
/// What operators are told once, by name.
mod once;
/// One value, one key: callers whose data differ in anything share no answer, counter or session.
mod one_value;
/// What still works while Redis does not.
mod outage;
/// What is published: archive, package, units, inventory.
mod packages;
/// Idle connections that have given their buffers back, and go on.
mod parking;
/// Spellings of a path against routes with different protection.
mod paths;
/// Upstreams with readers, and callers who read what they wrote.
mod pools;
/// Balancers that say whose a connection is, before its first byte.
mod prometheus;
mod proxy_protocol;
/// The documentation and the demo's tour, executed.
mod readme;
/// The recipes of the documentation, each with what it says.
mod recipes;
/// Replies that Redis never sends.
mod redis_cluster;
mod redis_cluster_moves;
mod redis_cluster_names;
mod redis_history;
mod redis_ladder;
/// The user who may only look at Redis.
mod redis_operator;
mod redis_replies;
/// What is the matter with Redis.
mod redis_says;
mod redis_selftest;
/// Redis under Sentinel: fail-overs, planned or not, and sentinels that are away, wrong or late.
mod redis_sentinel;
mod redis_tls;
/// What a client is told of refusals that no other file is about.
mod rejections;
/// SIGHUP.
mod reload;
mod reload_asked;
/// Upstreams that are broken or hostile, and what their clients see.
mod responses;
/// Revocations on their way to every node, and what a node does with them while Redis is away.
mod revocation_push;
/// What upstreams are asked for in place of what clients asked for.
mod rewrites;
/// What one route allows a request.
mod route_bounds;
/// What editors are told of the configuration.
mod schema;
/// What is counted of credentials, sessions and operators.
mod security_counters;
/// Cache and limits in a Redis of their own.
mod separate_stores;
/// The application's own sessions, attached to requests.
mod sessions;
/// A configuration of several files, with values from the environment.
mod several_files;
/// What shells complete, and the manual.
mod shell;
/// Keys that sign tokens, and what upstreams learn of callers by them.
mod signers;
/// How long one request waits for the store in all.
mod store_budget;
/// Bodies on their way, and peers that go away in the middle.
mod streaming;
/// Where a request goes: authority, form of target, version, method, upgrades.
mod target;
/// TLS to clients: certificates by name, what clients must show, handshakes.
mod tls;
/// Traces: parents, spans, and a collector that is away.
mod traces;
/// WebSockets and streams of events: opened, passed through, bounded and ended.
mod tunnels;
/// Upstreams of several servers, of which some are dead.
mod two_servers;
/// Servers that fail: ejection, active checks, and the breaker of the whole upstream.
mod upstream_care;
/// TLS towards upstreams: whom the gateway believes, and who it says it is.
mod upstream_tls;
/// `Via`, and requests that go round in a circle.
mod via;
