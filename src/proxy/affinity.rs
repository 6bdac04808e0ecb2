//! What requests are told apart by: where an upstream has the same server answer equal ones
//! (`balance = "hash:…"`), and where a split route keeps its callers (`sticky`). Equal on all
//! gateways, so that they choose the same.

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_64;

use super::request::Request;
use crate::config::{Balance, HashKey};

/// The key of a request that has been admitted, for the upstream of this index; nothing where it
/// has none, or nobody wants one.
pub(super) fn key(request: &Request<'_>, upstream: usize) -> Option<u64> {
    let (_, upstream) = request.plan().upstreams.get(upstream)?;
    let Balance::Hash(by) = &upstream.balance else { return None };
    match by {
        // Read while there was a head.
        HashKey::Header(_) | HashKey::Cookie(_) => {
            let at = request.route.edge.as_ref()?.hash_by.iter().position(|read| read == by)?;
            request.resolved.edged.as_ref()?.keys.get(at).copied().flatten()
        }
        HashKey::Address => Some(xxh3_64(address(request).as_bytes())),
        HashKey::Claim(_) | HashKey::Path => beside_the_head(by, request).map(|it| xxh3_64(&it)),
    }
}

/// The client's address, of IPv6 its /64.
pub(super) fn address(request: &Request<'_>) -> String {
    request.client().address.principal().to_string()
}

/// What is known of a request by something else than a field or its address.
pub(super) fn beside_the_head<'r>(by: &HashKey, request: &'r Request<'_>) -> Option<Cow<'r, [u8]>> {
    match by {
        HashKey::Claim(name) => {
            let claim = request.caller.as_deref()?.find(name)?.text();
            Some(Cow::Owned(claim.into_owned().into_bytes()))
        }
        HashKey::Path => Some(Cow::Borrowed(request.target.path().as_bytes())),
        HashKey::Address | HashKey::Header(_) | HashKey::Cookie(_) => None,
    }
}
