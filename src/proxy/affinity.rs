//! What a request is told by where its upstream has the same server answer equal ones
//! (`balance = "hash:…"`). Equal on all gateways, so that they choose the same server.

use xxhash_rust::xxh3::xxh3_64;

use super::request::Request;
use crate::config::{Balance, HashKey};

/// The key of a request that has been admitted; nothing where it has none, or nobody wants one.
pub(super) fn key(request: &Request<'_>) -> Option<u64> {
    let (_, upstream) = request.plan().upstreams.get(request.upstream())?;
    let Balance::Hash(by) = &upstream.balance else { return None };
    match by {
        HashKey::Address => {
            let address = request.client().address.principal();
            Some(xxh3_64(address.to_string().as_bytes()))
        }
        HashKey::Claim(name) => {
            let claim = request.caller.as_ref()?.find(name)?;
            Some(xxh3_64(claim.text().as_bytes()))
        }
        HashKey::Path => Some(xxh3_64(request.target.path().as_bytes())),
        // Read while there was a head, of the route's own upstream.
        HashKey::Header(_) | HashKey::Cookie(_) => {
            let read = request.route.edge.as_ref()?.hash_by.as_ref();
            request.resolved.edged.as_ref()?.key.filter(|_| read == Some(by))
        }
    }
}
