//! The rules of shared caching, RFC 9111: a room of pure decisions, which `caching` carries out.
//!
//! Every decision is a function of a request, a stored answer and the time. It opens no socket and
//! must not know Redis, hyper or the order of the stages. The order in which a caller uses it:
//!
//! 1. [`lookup`] says whether the cache may be asked and whether the answer may be kept.
//! 2. [`variant_name`] finds the variant, [`judge`] says what it is worth to this request, and
//!    [`reply`] makes the answer of it.
//! 3. [`storable`] looks at the head of an upstream's answer, and [`Stored::encode`] makes the
//!    bytes that a store keeps. [`for_fill`] makes the request whole before it goes, so that its
//!    answer can be kept.
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
mod freshness;
mod invalidate;
mod judge;
mod kept;
mod key;
mod named;
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

pub use chunk::{INLINE_BYTES_MAX, chunked, cut, unseal};
pub use compress::{compress, expand, is_compressible};
pub use entry::{Chunked, Epochs, Stored, StoredBody, may_replace};
pub use freshness::{Flags, Freshness};
pub use invalidate::{
    Own, Targets, invalidates, may_write_through, needs_lifetime, represents, targets,
};
pub use judge::{Failure, Verdict, judge, selects, usable_after};
pub use key::{CacheKey, Naming, Scope, Source, Withdrawn, covering, scope, spellings};
pub use named::{Named, named};
pub use query::{forwarded, without_values};
pub use reply::{Piece, Reply, reply};
pub use request::{Intent, for_fill, for_whole, is_conditional, is_partial, lookup};
pub use revalidate::{Freshened, HeadUpdate, conditions, confirms, freshened, head_update};
pub use status::{CacheStatus, Forward, append_status};
pub use storing::{RequestContext, Storable, WhyNot, outdates, states_lifetime, storable};
pub use tags::{is_group, is_tag, strip_tags};
pub use validator::client_has;
pub use variant::{variant_name, vary_line, vary_lines, vary_set};
