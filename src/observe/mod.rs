//! What is seen from outside: Prometheus metrics and one access line per request. Knows nothing of
//! requests themselves.

/// The target of diagnostics that tell what an operator did: they stand whatever `log.level` says.
pub const AUDIT: &str = "audit";

pub mod access;
mod cached;
mod care;
mod compressed;
mod counter;
mod events;
mod exposition;
mod family;
mod histogram;
mod history;
mod idempotency;
mod identity;
mod level;
mod limit;
mod live;
mod logged_once;
mod metrics;
mod observer;
mod operated;
mod process;
mod queues;
mod rates;
mod recent;
mod redis;
mod reload;
mod route;
mod series;
mod span;
mod stages;
mod store;
mod store_totals;
mod tls;
mod top_urls;
mod tracer;
mod traffic;
mod tunnels;
mod upstream;
mod windows;

pub use access::AccessLog;
pub use cached::{CacheGauges, CacheReport, CacheState};
pub use care::{CareNow, NameNow, RetriesNow, ServerNow};
pub use counter::Tally;
pub use events::EventMeter;
pub use exposition::Format;
pub use histogram::Histogram;
pub use history::{COARSE_S, History, Last, Series, Step};
pub use idempotency::KeyOutcome;
pub use identity::{
    ApiKeyResult, IdentityMeter, LoginOutcome, RefreshOutcome, SessionOutcome, TokenMeter,
    TokenResult,
};
pub use level::{LevelNow, configure_level, end_level, level, set_level};
pub use limit::{LimitMeter, LimitOutcome};
pub use live::{IssuerMeter, IssuerNow, Now};
pub use logged_once::LoggedOnce;
pub use metrics::{Metrics, RevocationState, Snapshot};
pub use observer::Observer;
pub use operated::{Operated, OperationMeter};
pub use queues::{QueueMeter, QueueNow};
pub use rates::{Distribution, Rates, RouteTotals};
pub use recent::{Kept, REQUESTS_MAX, Recent};
pub use redis::RedisNow;
pub use route::{AnsweredBy, RouteMeter};
pub use span::{Span, SpanKind, Value};
pub use stages::{Mark, Marks, Stage, Took};
pub use store::StoreNow;
pub use store_totals::StoreTotals;
pub use tls::TlsMeter;
pub use top_urls::{AskedUrl, StandsFor, TopNow, TopUrls, URLS_MAX, UrlCounts};
pub use tracer::{SpanMeter, Tracer};
pub use traffic::{ArmNow, CanaryNow, MirrorNow};
pub use tunnels::TunnelMeter;
pub use upstream::{AttemptCounts, Attempted, Occupancy, UpstreamMeter};
pub use windows::{CacheCounts, CacheWindow};
