//! The response cache: a room of pure decisions about shared caching, RFC 9111, and what this node
//! holds in memory for it: copies ([`NearCache`]) and answers on their way ([`Flights`]).
//!
//! Every decision is a function of a request, a stored answer and the time. It opens no socket and
//! must not know Redis, hyper or the order of the stages. The order in which a caller uses it:
//!
//! 1. [`lookup`] says whether the cache may be asked and whether the answer may be kept.
//! 2. [`variant_name`] finds the variant, [`judge`] says what it is worth to this request, and
//!    [`reply`] makes the answer of it.
//! 3. [`storable`] looks at the head of an upstream's answer, [`Passing`] collects the body for all
//!    who read it, and [`Stored::encode`] makes the bytes that a store keeps. [`for_fill`] makes
//!    the request whole before it goes, so that its answer can be kept.
//! 4. [`conditions`] asks whether an entry still holds, [`freshened`] takes the answer in, and
//!    [`usable_after`] says whether it may stand in for a failure.
//! 5. [`targets`] names what a request makes untrue.
//! 6. [`CacheStatus`] reports it all to the client.
//!
//! Request headers must be the same view in [`judge`] and in [`storable`]: the fields as the client
//! sent them. A Vary on a field that the gateway itself sets, or that carries credentials, would
//! match the wrong ones: the caller keeps such an answer out.

mod chunk;
mod codec;
mod compress;
mod control;
mod date;
mod entry;
mod flight;
mod freshness;
mod invalidate;
mod judge;
mod kept;
mod near;
mod place;
mod query;
mod range;
mod reply;
mod request;
mod revalidate;
mod status;
mod storing;
mod tags;
#[cfg(test)]
mod tests;
mod text;
mod validator;
mod variant;
mod weighted;

/// What a route says about caching.
pub use crate::config::Cache as Policy;

pub use chunk::{INLINE_BYTES_MAX, chunked, cut, unseal};
pub use compress::{compress, is_compressible};
pub use entry::{Chunked, Epochs, Stored, StoredBody, may_replace};
pub use flight::{Boarding, CutOff, Flight, Flights, Follow, Lead, Passing, Phase, Reader, Writer};
pub use freshness::{Flags, Freshness};
pub use invalidate::{Own, Targets, invalidates, targets};
pub use judge::{Failure, Verdict, judge, selects, usable_after};
pub use kept::stored_headers;
pub use near::{Held, NearCache};
pub use place::{Place, Scope, covering, scope, spellings};
pub use query::forwarded;
pub use reply::{Piece, Reply, reply};
pub use request::{Intent, for_fill, for_whole, is_conditional, is_partial, lookup};
pub use revalidate::{Freshened, HeadNews, conditions, confirms, freshened, head_news};
pub use status::{CacheStatus, Forward, append_status};
pub use storing::{Asked, WhyNot, outdates, storable};
pub use tags::{is_group, is_tag, strip_tags};
pub use variant::{variant_name, vary_line, vary_lines, vary_set};
