//! What a limit counts: the principal of a request.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::facts::Facts;
use crate::config::LimitKey;
use crate::store::keys::{push_claim_part, push_principal_part};

/// The principal that a key counts: its parts in order, each part that the request lacks replaced
/// by the address.
pub(super) fn principal(key: &[LimitKey], facts: &Facts<'_>) -> String {
    let mut out = String::with_capacity(48);
    for part in key {
        let (kind, value): ([&str; 2], Option<Cow<'_, [u8]>>) = match part {
            LimitKey::Address => (["", ""], None),
            LimitKey::Claim(name) => {
                if let Some(caller) = facts.caller
                    && let Some(claim) = caller.find(name)
                {
                    push_claim_part(&mut out, caller.qualifier.as_deref(), name, &claim.spelling());
                    continue;
                }
                (["", ""], None)
            }
            LimitKey::Header(name) => (["header:", name.as_str()], header(facts.headers, name)),
            LimitKey::Session => (["session", ""], facts.session.map(|id| id.as_bytes().into())),
            LimitKey::Route => (["route", ""], Some(facts.route.as_bytes().into())),
        };
        match value {
            Some(value) => push_principal_part(&mut out, &kind, &value),
            None => {
                let address = facts.address.principal().to_string();
                push_principal_part(&mut out, &["address"], address.as_bytes());
            }
        }
    }
    out
}

/// A header as a key, by its bytes; several lines are one list (RFC 9110 §5.3).
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let first = lines.next()?;
    let Some(second) = lines.next() else { return Some(first.into()) };
    let all: Vec<&[u8]> = [first, second].into_iter().chain(lines).collect();
    Some(all.join(&b", "[..]).into())
}
