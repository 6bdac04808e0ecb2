//! What is seen from outside: Prometheus metrics and one access line per request. Knows nothing of
//! requests themselves.

/// The target of diagnostics that tell what an operator did: they stand whatever `log.level` says.
pub const AUDIT: &str = "audit";

pub mod access;
pub mod cached;
mod exposition;
pub mod histogram;
mod live;
pub mod metrics;
mod process;
mod route;
pub mod told;

pub use access::AccessLog;
pub use cached::{CacheGauges, CacheReport, CacheState};
pub use exposition::Format;
pub use histogram::Histogram;
pub use live::{IssuerMeter, LimitMeter, Now, Occupancy};
pub use metrics::Metrics;
pub use route::RouteMeter;
pub use told::Told;
