//! The shared HTTP cache at work: what it asks of the store, what the answer is worth, who fetches
//! when that is not enough, and what is stored of it. `cache` has the rules, and is pure.
//!
//! The room knows neither the order of a request's steps nor the way to an upstream. Its caller
//! asks and judges by a [`Lookup`], and sends a miss on by a [`Transport`] of its own:
//!
//! ```text
//! let mut lookup = Lookup::of(&cache, route_cache, &request);
//! let questions = Questions { cached: lookup.question(), .. };
//! let mut answers = cache.ask(&questions).await;              // pending purges go first
//! lookup.on_reply(&cache, reply);                             // who holds the lease?
//! match lookup.judge(&cache, answers.cached.take(), view).await {
//!     Found::Hit(served, refresh) => …,                       // spawn(caching::refresh(…))
//!     Found::Miss(miss) => fetch(miss, request, fields, transport).await,   // Served, too
//!     Found::Pass(notes) => …,                                // forward it as it is
//!     Found::OnlyIfCached => …,                               // 504
//! }
//! record.cache = served.notes.verdict;                        // for the log and the metrics
//! served.notes.append_to(served.response.headers_mut());      // Cache-Status
//! ```
//!
//! A miss goes downwards through these files, each of which knows only those below it:
//! `lookup → miss`, then `fetch → receive → fill → admission → write_job`. Beside them stand
//! `coalesce` (this node fetches once), `lease` and `leases` (the fleet does), `candidates` (what
//! is stored and valid), `answer` and `body` (what the client gets), `near` (the copies of this
//! node), `pending_purges` and `aftermath` (what an outage leaves behind), `inspect` (what is
//! stored, for operators), and `http_cache`: the state that all requests share. How a body is read
//! for its client and for the cache at once is the affair of `capture`.

mod admission;
mod aftermath;
mod answer;
mod body;
mod candidates;
mod coalesce;
mod entry_key;
mod fetch;
mod fill;
mod http_cache;
mod inspect;
mod lease;
mod leases;
mod lookup;
mod miss;
mod near;
mod pending_purges;
mod receive;
mod route;
mod write_job;
mod write_through;

pub use self::answer::{CacheDebug, CacheNotes, RequestView, Served};
pub use self::body::{BodyFault, CacheBody, Parts};
pub use self::fetch::{NotFetched, Transport, fetch, refresh};
pub use self::http_cache::{HttpCache, PurgeSeen};
pub use self::inspect::{Allowance, Inspected, Inspection, Invalid, inspect};
pub use self::lookup::{Found, Lookup, LookupRequest};
pub use self::miss::{Miss, Refresh};
pub use self::route::RouteCache;
pub use self::write_through::Write;
