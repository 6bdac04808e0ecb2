//! Portcullis, an edge gateway. The map of the house, top floor first; imports go only downwards.
//!
//! | rank | modules | what they are |
//! |---|---|---|
//! | 14 | `main` | the binary |
//! | 13 | `cli` | commands |
//! | 12 | `demo` | `portcullis demo` |
//! | 11 | `startup` | what every command that serves does first |
//! | 10 | `server`, `admin` | sockets and connections; health, metrics, operations |
//! | 9 | `warm` | fetches ahead of need |
//! | 9 | `courier` | delivers what was accepted before |
//! | 9 | `feed` | reads what applications tell |
//! | 8 | `proxy` | the only place that knows the order of things |
//! | 7 | `runtime` | the running state |
//! | 6 | `caching` | the cache at work |
//! | 5 | `plan` | configuration as meant |
//! | 5 | `issuer` | fetches the keys that issuers publish |
//! | 5 | `acme` | certificates that an authority issues by itself |
//! | 5 | `telemetry` | sends spans to a collector |
//! | 4 | `forwarding` `guard` | who calls and what crosses, is it well formed |
//! | 4 | `route` `auth` `session` `limit` `cache` `cors` `upstream` | the rooms |
//! | 4 | `deliver` | requests that are delivered later |
//! | 4 | `events` | what applications tell, and what it means |
//! | 4 | `signing` | tokens that the gateway issues |
//! | 4 | `idempotency` | requests that take effect once |
//! | 4 | `oidc` | how browsers log in at an OpenID provider |
//! | 4 | `tunnel` | connections that changed to WebSocket |
//! | 4 | `traffic` | which of several upstreams takes a request |
//! | 3 | `store`, `net` | the outside world: one question, one answer; this node as a client |
//! | 3 | `tls` | certificates for clients, by name |
//! | 3 | `background` | work that no request waits for |
//! | 3 | `encode` | responses that are compressed |
//! | 3 | `capture` | bodies that stream while a copy is kept |
//! | 3 | `sealing` | what lies in the store so that nobody else reads it |
//! | 2 | `observe` | metrics and logs |
//! | 1 | `config` | configuration as written |
//! | 0 | `base` | words everybody uses |
//!
//! The rooms never import each other: `plan` and `proxy` wire them. `ARCHITECTURE.md` has the
//! invariants and a walkthrough; `tests/tidy.rs` takes the ranks from
//! this table, which is the only list of them.

pub mod cli;

pub mod demo;

pub mod startup;

pub mod admin;
pub mod server;

pub mod courier;
pub mod feed;
pub mod proxy;
pub mod warm;

pub mod runtime;

pub mod caching;

pub mod acme;
pub mod issuer;
pub mod plan;
pub mod telemetry;

pub mod auth;
pub mod cache;
pub mod cors;
pub mod deliver;
pub mod events;
pub mod forwarding;
pub mod guard;
pub mod idempotency;
pub mod limit;
pub mod oidc;
pub mod route;
pub mod session;
pub mod signing;
pub mod traffic;
pub mod tunnel;
pub mod upstream;

pub mod background;
pub mod capture;
pub mod encode;
pub mod net;
pub mod sealing;
pub mod store;
pub mod tls;

pub mod config;
pub mod observe;

pub mod base;
