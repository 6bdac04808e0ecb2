//! `nkey` and `creds` of an upstream over NATS: a key that the gateway proves to know, in place of
//! a password.

use super::reader::Section;
use crate::base::nkey::{Credentials, Nkey, NotNkey};
use crate::base::units::Secret;

/// What else would say who the gateway is.
const OTHERS: [&str; 3] = ["username", "password", "token"];

/// Who the gateway is to servers of NATS, by a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsKey {
    /// The key.
    pub key: Nkey,
    /// What its account says of it; nothing where servers have the public key itself.
    pub jwt: Option<Secret>,
}

/// Reads both keys, of which one is meant to be written.
pub(super) fn read(upstream: &mut Section<'_>) -> Option<NatsKey> {
    let seed = upstream.secret("nkey").and_then(|text| {
        if upstream.goes_without("nkey") {
            return None;
        }
        let read = Nkey::parse(text.expose());
        let read = read.map_err(|why| told(upstream, "nkey", why)).ok()?;
        Some(NatsKey { key: read, jwt: None })
    });
    let creds = upstream.secret("creds").and_then(|text| {
        if upstream.goes_without("creds") {
            return None;
        }
        let read = Credentials::parse(text.expose());
        let Credentials { jwt, key } = read.map_err(|why| told(upstream, "creds", why)).ok()?;
        Some(NatsKey { key, jwt: Some(jwt) })
    });
    creds.or(seed)
}

/// Says that more than one thing says who the gateway is.
pub(super) fn beside(upstream: &Section<'_>) {
    for key in ["nkey", "creds"].into_iter().filter(|key| upstream.has(key)) {
        let others = OTHERS.into_iter().chain((key == "creds").then_some("nkey"));
        let others: Vec<_> = others.filter(|other| upstream.has(other)).collect();
        if !others.is_empty() {
            let what = format!("is beside {}", others.join(" and "));
            upstream.problem(key, what, "keep one of them: each says who the gateway is");
        }
    }
}

/// Says why something is no key, and nothing of it.
fn told(upstream: &Section<'_>, at: &'static str, why: NotNkey) {
    const SEED: &str = "write \"file:gateway.nk\", with the seed that `nk -gen user` prints: SU…";
    const CREDS: &str = "write \"file:gateway.creds\", with the file that `nsc generate creds` \
                         prints, as it is";
    let is_seed = at == "nkey";
    let what = match why {
        NotNkey::Form if is_seed => "is no seed of NATS",
        NotNkey::Form => "has a seed that is none",
        NotNkey::Public => "has a public key in place of the seed",
        NotNkey::NotOfUser => "has the seed of an account, an operator or a server",
        NotNkey::Parts => "is no credential file: a user's JWT and its seed",
        NotNkey::OtherKey => "has a JWT and a seed that do not belong together",
    };
    upstream.problem(at, what, if is_seed { SEED } else { CREDS });
}
