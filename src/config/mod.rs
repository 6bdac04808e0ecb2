//! Configuration as written: what `gateway.toml` says, section by section, before anything is
//! cross-checked.
//!
//! Loading never stops at the first mistake: every unknown key, wrong type and wrong unit becomes a
//! [`Problem`]. What the sections mean together (names that must exist, combinations that are
//! unsafe) is the business of `plan`.

mod acme;
mod address_map;
mod admin;
mod auth;
mod balance;
mod cache;
mod callback;
mod care;
mod clause;
mod compress;
mod cors;
mod discovery;
mod document;
mod events;
mod field;
mod format;
pub(crate) mod glob;
mod grpc;
mod hash_key;
mod header_rules;
mod idempotency;
mod include;
mod introspect;
mod jwks;
mod limit;
mod load;
mod log;
mod login;
mod made;
mod mirror;
mod nats;
mod nats_key;
mod origin;
mod pem_file;
mod pools;
mod problem;
mod provider;
mod query;
mod queue;
mod queue_ends;
mod readable;
mod reader;
mod retry;
mod rewrite;
mod route;
mod schema;
mod seal;
mod sender;
mod sentinel;
mod server;
mod session;
mod shown;
mod signer;
mod source;
mod split;
mod store;
mod store_operator;
mod store_reach;
mod store_tls;
mod store_url;
mod store_use;
mod telemetry;
mod tls;
mod tunnel;
mod upstream;
mod upstream_tls;
mod value;
mod variables;
mod walk;
mod warm;
mod written;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use acme::{Acme, Challenge};
pub use address_map::AddressMap;
pub use admin::{Admin, Dashboard};
pub use auth::{AudienceMatch, KeySource, TokenSource, Verifier};
pub use balance::Balance;
pub use cache::{Cache, SetCookie, WriteThrough};
pub use callback::Callback;
pub use care::{Breaker, Care, Eject, Health, PANIC_DEFAULT, Question};
pub use clause::{
    CLAUSE_DEPTH_MAX, CLAUSES_MAX, ClaimClause, Clause, DAY_MINUTES, Hours, Plain, Test,
};
pub use compress::Compress;
pub use cors::{Cors, Origins};
pub use events::{EventSource, Events, OnGap};
pub use format::formatted;
pub use grpc::Grpc;
pub use hash_key::HashKey;
pub use header_rules::HeaderRules;
pub use idempotency::{Idempotency, UnknownOutcome};
pub use introspect::Introspect;
pub use jwks::{Discovery, KeysUrl, RemoteKeys, is_private};
pub use limit::{Cost, Exempt, Limit, LimitKey, Over, Refund, Scope, Statuses};
pub use load::{Loaded, Secrets, files_of, known_keys, load, load_with, parse, sha256_of};
pub use log::{
    AccessFormat, AccessTo, ClientShown, DiagnosticFormat, Level, Log, QueryShown, Rotate,
    SubjectShown,
};
pub use login::{Gives, Issues, IssuesBody, Login};
pub use made::{Make, SameSite};
pub use mirror::{Faults, Mirror};
pub use nats::{Nats, NatsServer, Packet};
pub use nats_key::NatsKey;
pub use origin::Origin;
pub use pem_file::{PemFile, reread_secret};
pub use pools::{Pools, Position};
pub use problem::{Problem, Problems, distance};
pub use provider::{ClientAuthentication, Provider, RedirectUri};
pub use query::{Parameters, Query};
pub use queue::{Answers, Deliver, OrderBy, QUEUE_SHARDS_MAX, Queue, QueueDurability, QueueWarn};
pub use queue_ends::{CALLBACKS, QueueEnds};
pub use retry::{Retry, RetryOn};
pub use rewrite::{Fallback, Respond, Rewrite};
pub use route::{Auth, Route, SessionUse};
pub use schema::schema;
pub use seal::{SealKey, SealKeyId};
pub use sender::{BoundTo, Sender};
pub use sentinel::{SENTINELS_MAX, StoreSentinel};
pub use server::{ClientLimits, RatelimitFields, Server};
pub use session::{Session, SessionId};
pub use shown::{Difference, FromEnvironment, Shown};
pub use signer::{Assertion, Signer, Tokens};
pub use source::Source;
pub use split::{Arm, OnBad, Rollback, Split, Step, WHOLE};
pub use store::{CacheCompression, CacheEpochs, LimitOutage, OnOutage, Outage, Store};
pub use store_operator::StoreOperator;
pub use store_reach::CacheReads;
pub use store_tls::{StoreTls, StoreTlsFlaw};
pub use store_url::StoreUrl;
pub use store_use::StoreUse;
pub use telemetry::{Traces, TrustParent};
pub use tls::{Certificate, ClientAuth, NamePolicy, Tickets, Tls};
pub use tunnel::{EndOn, Tunnel};
pub use upstream::{ClientShare, DNS_REFRESH, DNS_STALE, Endpoint, Lookup, Protocol, Upstream};
pub use upstream_tls::{Identity, UpstreamTls};
pub use warm::Warm;

/// The whole file. Named tables are sorted by name, so that nothing depends on the order in the
/// file.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[log]`
    pub log: Log,
    /// `[admin]`
    pub admin: Admin,
    /// `[store]`
    pub store: Store,
    /// `[telemetry.traces]`
    pub traces: Option<Traces>,
    /// `[auth.NAME]`
    pub auth: BTreeMap<String, Verifier>,
    /// `[providers.NAME]`
    pub providers: BTreeMap<String, Provider>,
    /// `[signers.NAME]`
    pub signers: BTreeMap<String, Signer>,
    /// `[session]`
    pub session: Option<Session>,
    /// `[limits.NAME]`
    pub limits: BTreeMap<String, Limit>,
    /// `[queues.NAME]`
    pub queues: BTreeMap<String, Queue>,
    /// `[events.NAME]`
    pub events: BTreeMap<String, Events>,
    /// `[upstreams.NAME]`
    pub upstreams: BTreeMap<String, Upstream>,
    /// `[routes.NAME]`
    pub routes: BTreeMap<String, Route>,
}
