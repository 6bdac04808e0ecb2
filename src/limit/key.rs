//! What a limit counts: the principal of a request.

use http::{HeaderMap, HeaderName};

use super::Facts;
use crate::config::LimitKey;
use crate::store::keys::push_principal_part;

/// The principal that a key counts: its parts in order, each part that the request lacks replaced
/// by the address.
pub(super) fn principal(key: &[LimitKey], facts: &Facts<'_>) -> String {
    let mut out = String::with_capacity(48);
    for part in key {
        let value = match part {
            LimitKey::Address => None,
            LimitKey::Claim(name) => facts
                .caller
                .as_ref()
                .and_then(|caller| Some(("claim", Some(name.as_str()), caller.claim(name)?))),
            LimitKey::Header(name) => {
                header(facts.headers, name).map(|v| ("header", Some(name.as_str()), v))
            }
            LimitKey::Session => facts.session.map(|id| ("session", None, id.into())),
            LimitKey::Route => Some(("route", None, facts.route.into())),
        };
        match value {
            Some((kind, None, value)) => push_principal_part(&mut out, kind, &value),
            Some((kind, Some(name), value)) => {
                push_principal_part(&mut out, &format!("{kind}:{name}"), &value);
            }
            None => {
                push_principal_part(&mut out, "address", &facts.address.principal().to_string())
            }
        }
    }
    out
}

/// A header as a key: its first line; what is no text is counted by its bytes.
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<std::borrow::Cow<'a, str>> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
}
