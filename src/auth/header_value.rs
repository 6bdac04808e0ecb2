//! Claims as header values for the upstream. The spelling is injective for each type of claim: two
//! different claims never arrive as the same header, or one caller could pass for another. It must
//! not know which claims travel.

use http::{HeaderName, HeaderValue};

use super::challenge::Reason;
use crate::base::claim::Found;
use crate::base::facts::Identity;
use crate::base::http::percent::push_escape;

/// Largest header value, in bytes, after its escapes.
const VALUE_BYTES_MAX: usize = 4096;

/// A header and the claim that it carries; dots in the name walk into nested objects.
pub(super) type ClaimHeader = (HeaderName, String);

/// The headers that the claims make. A claim that is absent, null or an object makes none.
pub(super) fn all(
    wanted: &[ClaimHeader],
    identity: &Identity,
) -> Result<Vec<(HeaderName, HeaderValue)>, Reason> {
    let mut headers = Vec::with_capacity(wanted.len());
    for (name, claim) in wanted {
        let Some(text) = identity.find(claim).and_then(spell) else { continue };
        if text.len() > VALUE_BYTES_MAX {
            return Err(Reason::HeaderTooLarge);
        }
        headers.push((name.clone(), HeaderValue::try_from(text).map_err(|_| Reason::Claims)?));
    }
    Ok(headers)
}

/// A scalar as text; an array of scalars joined by commas, those inside an element escaped.
fn spell(claim: Found<'_>) -> Option<String> {
    let Some(items) = claim.items() else {
        return claim.scalar().map(|text| escape(&text, |_| false));
    };
    let items: Option<Vec<String>> =
        items.map(|item| Some(escape(&item.scalar()?, |byte| byte == b','))).collect();
    items.filter(|items| !items.is_empty()).map(|items| items.join(","))
}

/// Percent-encodes the UTF-8 bytes that a header cannot carry, the percent sign, what `also` names,
/// and a space at either end, which HTTP would trim (RFC 9110 §5.5).
fn escape(text: &str, also: fn(u8) -> bool) -> String {
    let last = text.len().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (index, byte) in text.bytes().enumerate() {
        let at_an_end = byte == b' ' && (index == 0 || index == last);
        if matches!(byte, 0x20..=0x7E) && byte != b'%' && !also(byte) && !at_an_end {
            out.push(char::from(byte));
        } else {
            push_escape(&mut out, byte);
        }
    }
    out
}
