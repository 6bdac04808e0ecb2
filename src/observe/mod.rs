//! What is seen from outside: Prometheus metrics and one access line per request. Knows nothing of
//! requests themselves.

pub mod access;
pub mod cached;
pub mod histogram;
pub mod metrics;
pub mod told;

pub use access::AccessLog;
pub use cached::{CacheGauges, CacheReport, CacheState};
pub use histogram::Histogram;
pub use metrics::{IssuerMeter, Metrics, RouteMeter};
pub use told::Told;
