//! Portcullis, an edge gateway. The map of the house, top floor first; imports go only downwards.
//!
//! | rank | modules | what they are |
//! |---|---|---|
//! | 13 | `main` | the binary |
//! | 12 | `cli` | commands |
//! | 11 | `demo` | `portcullis demo` |
//! | 10 | `startup` | what every command that serves does first |
//! | 9 | `server`, `admin` | sockets and connections; health, metrics, operations |
//! | 8 | `warm` | fetches ahead of need |
//! | 7 | `proxy` | the only place that knows the order of things |
//! | 6 | `runtime` | the running state |
//! | 5 | `caching` | the cache at work |
//! | 4 | `plan` | configuration as meant |
//! | 4 | `issuer` | fetches the keys that issuers publish |
//! | 4 | `acme` | certificates that an authority issues by itself |
//! | 3 | `forwarding` `guard` | who calls and what crosses, is it well formed |
//! | 3 | `route` `auth` `session` `limit` `cache` `upstream` | the rooms |
//! | 3 | `tunnel` | connections that changed to WebSocket |
//! | 2 | `store`, `net` | the outside world: one question, one answer; this node as a client |
//! | 2 | `tls` | certificates for clients, by name |
//! | 2 | `background` | work that no request waits for |
//! | 2 | `capture` | bodies that stream while a copy is kept |
//! | 1 | `config` | configuration as written |
//! | 1 | `observe` | metrics and logs |
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

pub mod proxy;
pub mod warm;

pub mod runtime;

pub mod caching;

pub mod acme;
pub mod issuer;
pub mod plan;

pub mod auth;
pub mod cache;
pub mod forwarding;
pub mod guard;
pub mod limit;
pub mod route;
pub mod session;
pub mod tunnel;
pub mod upstream;

pub mod background;
pub mod capture;
pub mod net;
pub mod store;
pub mod tls;

pub mod config;
pub mod observe;

pub mod base;
