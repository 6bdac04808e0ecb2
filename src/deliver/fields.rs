//! Which fields of a request wait in a store until it is delivered: those of a list, so that no
//! credential is among them that nobody has thought of.

use http::header::{ACCEPT, HOST, USER_AGENT, VIA};
use http::{HeaderMap, HeaderName};

use super::head::{X_DELIVERY_ATTEMPT, X_DELIVERY_ID};
use super::prefer::PREFER;
use crate::base::http::fields::{
    is_credential, is_framing, is_of_connection, is_request_modifier, is_told_by_gateway,
};
use crate::base::trace::TRACEPARENT;

const PROXY_AUTHORIZATION: &str = "proxy-authorization";
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Why no queue may keep a field of a client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeverKept {
    /// It opens something for whoever reads it.
    Credential,
    /// It is of the exchange alone, or the gateway writes it anew at each attempt.
    MadeAnew,
}

/// A name as upstreams read it that know no difference between dashes, dots and underscores.
pub fn dashed(name: &str) -> String {
    name.replace(['_', '.'], "-")
}

/// Why a field of this name is never kept, whoever wants it; nothing where it may be.
pub fn never_kept(name: &HeaderName) -> Option<NeverKept> {
    let plain = dashed(name.as_str());
    if is_credential(&plain) || plain == PROXY_AUTHORIZATION {
        return Some(NeverKept::Credential);
    }
    let is_of_deliveries = [X_DELIVERY_ID, X_DELIVERY_ATTEMPT, PREFER, TRACEPARENT]
        .iter()
        .any(|it| it.as_str() == plain)
        || plain.starts_with("x-delivery-")
        || plain == IDEMPOTENCY_KEY;
    let is_made_anew = is_of_connection(&plain) || is_framing(&plain) || is_of_deliveries;
    is_made_anew.then_some(NeverKept::MadeAnew)
}

/// Whether a field of this name is kept of every request: what describes its content and the answer
/// that it wants, on what it depends, and what the gateway says of it.
fn is_always_kept(name: &HeaderName) -> bool {
    let text = name.as_str();
    [HOST, USER_AGENT, VIA, ACCEPT].contains(name)
        || text.starts_with("accept-")
        || text.starts_with("content-")
        || is_request_modifier(text)
        || is_told_by_gateway(text)
}

/// Leaves of the fields that an upstream would get now what waits in a store: what is kept of every
/// request, what `named` has, and what the gateway says of callers and sessions (`is_owned`). Never
/// `delay_from`, which says when it is due.
pub fn kept_fields(
    mut fields: HeaderMap,
    (named, delay_from): (&[HeaderName], Option<&HeaderName>),
    is_owned: impl Fn(&HeaderName) -> bool,
) -> HeaderMap {
    let stays = |name: &HeaderName| {
        let may_stay = *name == HOST || never_kept(name).is_none();
        let is_wanted = is_always_kept(name) || named.contains(name) || is_owned(name);
        may_stay && is_wanted && Some(name) != delay_from
    };
    let gone: Vec<HeaderName> = fields.keys().filter(|name| !stays(name)).cloned().collect();
    for name in gone {
        fields.remove(name);
    }
    fields
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// What stays of fields with these names.
    fn names(all: &[&'static str], named: &[&'static str]) -> Vec<String> {
        let name = |it: &&'static str| HeaderName::from_static(it);
        let fields = all.iter().map(|it| (name(it), HeaderValue::from_static("v"))).collect();
        let named: Vec<HeaderName> = named.iter().map(name).collect();
        let due = HeaderName::from_static("x-deliver-after");
        let kept = kept_fields(fields, (&named, Some(&due)), |name| *name == "x-user-id");
        let mut names: Vec<String> = kept.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort_unstable();
        names
    }

    /// Nobody needs to know what a field of an unknown name opens.
    #[test]
    fn a_field_is_kept_for_a_reason_alone() {
        let sent = [
            "accept",
            "accept-language",
            "content-range",
            "content-type",
            "forwarded",
            "host",
            "if-match",
            "user-agent",
            "x-csrf",
            "x-forwarded-for",
            "x-magic",
            "x-order-id",
            "x-request-id",
            "x-user-id",
        ];
        let usual = |name: &&&str| !["x-csrf", "x-magic", "x-order-id"].contains(*name);
        let usual: Vec<&str> = sent.iter().filter(usual).copied().collect();
        assert_eq!(names(&sent, &[]), usual);
        let more: Vec<&str> =
            sent.iter().filter(|it| usual.contains(it) || **it == "x-order-id").copied().collect();
        assert_eq!(names(&sent, &["x-order-id"]), more);
    }

    #[test]
    fn what_opens_something_or_is_made_anew_is_kept_for_nobody() {
        let never = [
            "authorization",
            "connection",
            "content-length",
            "cookie",
            "expect",
            "idempotency-key",
            "idempotency.key",
            "idempotency_key",
            "prefer",
            "proxy-authorization",
            "te",
            "traceparent",
            "x-deliver-after",
            "x-delivery-attempt",
            "x-delivery-id",
            "x-delivery_attempt",
            "x.delivery.attempt",
            "x_delivery_id",
        ];
        assert_eq!(names(&never, &never), Vec::<String>::new());
    }
}
