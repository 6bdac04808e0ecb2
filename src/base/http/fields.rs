//! What header fields are for, by their names in lower case: the one table from which every room
//! takes what may not cross, be stored, or be set. Each name is in one class.

use http::header::{CONNECTION, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields of one connection (RFC 9110 §7.6.1), with those of a proxy's own authentication (§11.7)
/// and those that predate the rule.
pub fn is_of_connection(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Fields by which a message is delimited and finds its receiver, which each hop makes anew.
pub fn is_framing(name: &str) -> bool {
    matches!(name, "content-length" | "expect" | "host")
}

/// Fields that carry a user's credentials.
pub fn is_credential(name: &str) -> bool {
    matches!(name, "authorization" | "cookie")
}

/// Whether what has this name (a field, a parameter of a query), in lower case, opens something for
/// whoever reads it. Names are all there is to go by, so some that open nothing are among them.
pub fn bears_credentials(name: &str) -> bool {
    const PARTS: [&str; 17] = [
        "access-key",
        "access_key",
        "api-key",
        "api_key",
        "apikey",
        "assertion",
        "authent",
        "authoriz",
        "cookie",
        "credential",
        "jwt",
        "passw",
        "pwd",
        "secret",
        "session",
        "signature",
        "token",
    ];
    const WHOLE: [&str; 10] =
        ["auth", "code", "key", "otp", "pass", "pin", "sid", "sig", "state", "ticket"];
    WHOLE.contains(&name) || PARTS.iter().any(|part| name.contains(part))
}

/// Whether a field of this name, in lower case, opens nothing whatever its value: what browsers are
/// told and what representations are chosen by. Who shows values shows these alone, because any
/// other name may be one by which an upstream knows the gateway.
pub fn opens_nothing(name: &str) -> bool {
    matches!(
        name,
        "accept"
            | "accept-encoding"
            | "accept-language"
            | "allow"
            | "cache-control"
            | "content-encoding"
            | "content-language"
            | "content-security-policy"
            | "content-security-policy-report-only"
            | "content-type"
            | "cross-origin-embedder-policy"
            | "cross-origin-opener-policy"
            | "cross-origin-resource-policy"
            | "expires"
            | "origin"
            | "origin-agent-cluster"
            | "permissions-policy"
            | "pragma"
            | "referrer-policy"
            | "server"
            | "strict-transport-security"
            | "timing-allow-origin"
            | "vary"
            | "via"
            | "x-content-type-options"
            | "x-frame-options"
            | "x-powered-by"
            | "x-robots-tag"
            | "x-xss-protection"
    )
}

/// Fields that describe the content.
pub fn is_of_content(name: &str) -> bool {
    matches!(name, "content-encoding" | "content-type")
}

/// Fields that make of a request one for a part, for a version, or for an answer of some age.
pub fn is_request_modifier(name: &str) -> bool {
    matches!(name, "cache-control" | "pragma" | "range") || name.starts_with("if-")
}

/// Fields in which the gateway itself tells an upstream who called, and as part of what.
pub fn is_told_by_gateway(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || matches!(
            name,
            "baggage" | "forwarded" | "traceparent" | "tracestate" | "x-real-ip" | "x-request-id"
        )
}

/// Fields in which the gateway numbers the attempts of a delivery: an upstream that goes by them
/// must not hear them from a client.
pub fn is_of_delivery(name: &str) -> bool {
    matches!(name, "x-delivery-attempt" | "x-delivery-id")
}

/// Other fields by which a client could claim to be somebody else, somewhere else or asking
/// something else: rewritten targets and methods, what a TLS terminator says, and `Proxy` (which
/// CGI turns into `HTTP_PROXY`).
pub fn is_misleading(name: &str) -> bool {
    name.starts_with("x-ssl-")
        || matches!(
            name,
            "forwarded-for"
                | "front-end-https"
                | "proxy"
                | "x-forward-for"
                | "x-forwarded"
                | "x-host"
                | "x-http-host-override"
                | "x-http-method"
                | "x-http-method-override"
                | "x-method-override"
                | "x-original-forwarded-for"
                | "x-original-host"
                | "x-original-method"
                | "x-original-proto"
                | "x-original-scheme"
                | "x-original-uri"
                | "x-original-url"
                | "x-rewrite-url"
                | "x-scheme"
                | "x-url-scheme"
        )
}

/// Fields in which other proxies and content networks name the client to the servers behind them.
/// Frameworks look for these, so here, where no such network stands in between or its word came in
/// the fields that are believed, they say nothing but what their sender likes.
pub fn is_of_another_edge(name: &str) -> bool {
    name.starts_with("cf-connecting-ip")
        || matches!(
            name,
            "ali-cdn-real-ip"
                | "cdn-src-ip"
                | "cf-pseudo-ipv4"
                | "cf-visitor"
                | "client-ip"
                | "cloudfront-forwarded-proto"
                | "cloudfront-viewer-address"
                | "do-connecting-ip"
                | "fastly-client-ip"
                | "fastly-ssl"
                | "fly-client-ip"
                | "fly-forwarded-proto"
                | "incap-client-ip"
                | "proxy-client-ip"
                | "remote-addr"
                | "true-client-ip"
                | "wl-proxy-client-ip"
                | "x-appengine-remote-addr"
                | "x-appengine-user-ip"
                | "x-azure-clientip"
                | "x-azure-socketip"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "x-envoy-external-address"
                | "x-envoy-internal"
                | "x-envoy-original-host"
                | "x-envoy-original-path"
                | "x-nf-client-connection-ip"
                | "x-originating-ip"
                | "x-proxyuser-ip"
                | "x-remote-addr"
                | "x-remote-ip"
                | "x-sucuri-clientip"
                | "x-vercel-forwarded-for"
                | "x-vercel-proxied-for"
        )
}

/// Whether a name means something to HTTP or to the gateway, so that no value of the
/// configuration's choice may be written to it.
pub fn is_reserved(name: &str) -> bool {
    is_of_connection(name)
        || is_framing(name)
        || is_credential(name)
        || is_of_content(name)
        || is_told_by_gateway(name)
        || name == "range"
}

/// The options that ALL `Connection` lines list, as they are written (RFC 9110 §7.6.1). A field of
/// such a name is of that connection alone.
pub fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(CONNECTION).iter();
    lines.flat_map(|line| line.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii)
}

/// Says in a response that it depends on this field of its request (RFC 9110 §12.5.5), unless it
/// does already.
pub fn vary_on(headers: &mut HeaderMap, name: &HeaderName) {
    let is_said = |member: &[u8]| {
        let member = member.trim_ascii();
        member == b"*" || member.eq_ignore_ascii_case(name.as_str().as_bytes())
    };
    let mut lines = headers.get_all(VARY).iter();
    if !lines.any(|line| line.as_bytes().split(|byte| *byte == b',').any(is_said)) {
        headers.append(VARY, HeaderValue::from(name.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_opens_something() {
        for name in ["authorization", "x-api-key", "access_token", "code", "x-auth-token", "sid"] {
            assert!(bears_credentials(name), "{name}");
        }
        for name in ["referer", "x-tenant", "idempotency-key", "page", "author", "encoding"] {
            assert!(!bears_credentials(name), "{name}");
        }
    }

    #[test]
    fn a_name_that_nobody_knows_may_open_something() {
        for name in ["x-frame-options", "cache-control", "accept-language"] {
            assert!(opens_nothing(name) && !bears_credentials(name), "{name}");
        }
        for name in ["x-functions-key", "ocp-apim-subscription-key", "x-origin-verify", "x-env"] {
            assert!(!opens_nothing(name), "{name}");
        }
    }

    #[test]
    fn each_name_is_in_one_class() {
        let classes: [fn(&str) -> bool; 9] = [
            is_of_connection,
            is_framing,
            is_credential,
            is_of_content,
            is_request_modifier,
            is_told_by_gateway,
            is_of_delivery,
            is_misleading,
            is_of_another_edge,
        ];
        for name in [
            "te",
            "host",
            "cookie",
            "content-type",
            "if-match",
            "x-delivery-id",
            "x-forwarded-host",
            "x-forwarded",
            "x-forward-for",
            "forwarded-for",
            "proxy",
            "proxy-client-ip",
            "x-real-ip",
            "cf-connecting-ipv6",
        ] {
            assert_eq!(classes.iter().filter(|is_in| is_in(name)).count(), 1, "{name}");
        }
        for name in ["", "x-user-id", "accept", "etag", "x-ratelimit-limit"] {
            assert_eq!(classes.iter().filter(|is_in| is_in(name)).count(), 0, "{name}");
        }
    }
}
