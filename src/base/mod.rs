//! Words that everybody uses: units, facts about a request, bodies. Knows nothing of the project's
//! other modules.

pub mod algorithm;
pub mod authorities;
pub mod body;
pub mod boxed;
pub mod build;
pub mod claim;
pub mod client_tls;
pub mod copied;
pub mod expect;
pub mod facts;
pub mod file;
pub mod forwarded;
pub mod grpc;
pub mod grpc_web;
pub mod http;
pub mod instance;
pub mod interim;
pub mod pace;
pub mod packed;
pub mod pem;
pub mod room;
pub mod shard;
pub mod socket;
pub mod trace;
pub mod units;
