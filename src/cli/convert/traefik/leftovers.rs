//! What of Traefik needs nothing here, and what is said of the rest that is not carried over.

use super::super::leftover::Known;

pub(super) const LEFTOVER: Known = Known {
    needless: &[
        ("=global", ""),
        ("ruleSyntax", "v3"),
        ("observability", ""),
        ("loadBalancer.strategy", "wrr"),
        // Responses are streamed.
        ("responseForwarding", ""),
        ("acme.storage", ""),
        ("acme.tlsChallenge", ""),
        ("acme.httpChallenge", ""),
        ("httpChallenge.entryPoint", ""),
        ("stripPrefix.forceSlash", "false"),
        // Redirects to https are a 308.
        ("redirectScheme.permanent", ""),
        ("forceSTSHeader", "false"),
        ("addVaryHeader", "true"),
        ("isDevelopment", "false"),
    ],
    hints: &[
        (
            "=accessLog",
            "a line for each request goes to standard output or a file",
            "see docs/logs.md",
        ),
        ("=log", "what the gateway says of itself is set in [log]", "write level in [log]"),
        ("=metrics", "metrics are on the admin listener", "see docs/metrics.md"),
        ("=api", "the dashboard is on the admin listener", "see docs/dashboard.md"),
        ("=ping", "health is on the admin listener", "see docs/operations.md"),
        (
            "compress.encodings",
            "which encodings are sent is chosen by what clients take",
            "see docs/compression.md",
        ),
        (
            "accessControlAllowOriginListRegex",
            "origins are no expressions here",
            "name the origins; https://*.example.com is all below one",
        ),
        (
            "accessControlAllowMethods",
            "pages of other origins may use the methods of the route",
            "write methods on the route",
        ),
        (
            "forwardedHeaders.insecure",
            "fields of clients that nobody vouches for are not believed",
            "name the proxies before the gateway in server.trusted_proxies",
        ),
        (
            "http3",
            "HTTP/1.1 and HTTP/2 are spoken",
            "put something that speaks HTTP/3 before the gateway, if it must be",
        ),
        ("tls.domains", "certificates are ordered for the hosts of rules", "write names in acme"),
    ],
};
