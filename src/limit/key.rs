//! What a limit counts: the principal of a request.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

use super::Facts;
use crate::config::LimitKey;
use crate::store::keys::{push_claim_part, push_principal_part};

/// The principal that a key counts: its parts in order, each part that the request lacks replaced
/// by the address.
pub(super) fn principal(key: &[LimitKey], facts: &Facts<'_>) -> String {
    let mut out = String::with_capacity(48);
    for part in key {
        let (kind, value): ([&str; 2], Option<Cow<'_, str>>) = match part {
            LimitKey::Address => (["", ""], None),
            LimitKey::Claim(name) => {
                if let Some(caller) = facts.caller
                    && let Some(value) = caller.claim(name)
                {
                    push_claim_part(&mut out, caller.qualifier.as_deref(), name, &value);
                    continue;
                }
                (["", ""], None)
            }
            LimitKey::Header(name) => (["header:", name.as_str()], header(facts.headers, name)),
            LimitKey::Session => (["session", ""], facts.session.map(Cow::Borrowed)),
            LimitKey::Route => (["route", ""], Some(Cow::Borrowed(facts.route))),
        };
        match value {
            Some(value) => push_principal_part(&mut out, &kind, &value),
            None => {
                let address = facts.address.principal().to_string();
                push_principal_part(&mut out, &["address"], &address);
            }
        }
    }
    out
}

/// A header as a key: its first line; what is no text is counted by its bytes.
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
}
