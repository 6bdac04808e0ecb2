//! The response cache: a room of pure decisions about shared caching, RFC 9111.
//!
//! Every decision is a function of a request, a stored answer and the time. The room reads no
//! clock, opens no socket and owns no storage; it must not know Redis, the near cache, hyper or the
//! order of the stages. The order in which a caller uses it:
//!
//! 1. [`lookup`] says whether the cache may be asked and whether the answer may be kept.
//! 2. [`judge`] says what one stored answer is worth to this request; [`Stored::respond`] sends it.
//! 3. [`storable`] looks at the head of an upstream's answer, [`Fill`] collects the body, and
//!    [`Stored::encode`] makes the bytes that a store keeps.
//! 4. [`invalidates`] says whether a request makes stored answers untrue.
//! 5. [`CacheStatus`] reports it all to the client.
//!
//! Request headers must be the same view in [`judge`] and in [`storable`]: the fields as they are
//! forwarded upstream. Otherwise a Vary on a field that the gateway itself sets would match
//! everybody.

mod control;
mod entry;
mod fill;
mod judge;
mod near;
mod place;
mod policy;
mod status;
#[cfg(test)]
mod tests;

pub use entry::{Shape, Stored};
pub use fill::Fill;
pub use judge::{Verdict, judge};
pub use near::NearCache;
pub use place::{Place, Scope, scope};
pub use policy::{Asked, Freshness, Intent, Policy, WhyNot};
pub use policy::{invalidates, lookup, storable, stored_headers};
pub use status::{CacheStatus, Forward, append_status};

use bytes::Bytes;
use http::Response;

/// What the cache has for a request.
#[derive(Debug)]
pub enum Found {
    /// A response.
    Hit(Response<Bytes>),
    /// Nothing that may be used; with what is needed to keep the upstream's answer, where that is
    /// allowed.
    Miss(Option<Pending>),
}

/// A response that may be stored once it is here.
#[derive(Debug)]
pub struct Pending {
    /// Where.
    pub place: Place,
    /// What the request allows.
    pub intent: Intent,
    /// The epochs before the fetch.
    pub epochs: Bytes,
    /// The path's own epoch before the fetch, as the store has it.
    pub path_epoch: Bytes,
}

impl Pending {
    /// Notes the epochs that were in force before the request was sent on.
    pub fn new(place: Place, intent: Intent, epochs: Bytes, path_epoch: Bytes) -> Self {
        Self { place, intent, epochs, path_epoch }
    }
}
