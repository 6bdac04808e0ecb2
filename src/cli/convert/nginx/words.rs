//! What becomes of each directive: carried over elsewhere, without a use here, or left out with
//! a reason.

use super::super::leftover::INSTEAD;
use super::parse::Directive;

/// What becomes of a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is read where it matters.
    Carried,
    /// Nothing has to be done for it.
    Needless,
    /// It is left out: why, and what to do in its place.
    Left(&'static str, &'static str),
    /// The same, and it guards what it stands in, which is closed therefore.
    Guard(&'static str, &'static str),
}

/// Directives that are carried over, or listed where they are read.
const CARRIED: &[&str] = &[
    "add_header",
    "allow",
    "auth_jwt",
    "auth_jwt_key_file",
    "client_max_body_size",
    "default_type",
    "deny",
    "gzip",
    "gzip_min_length",
    "gzip_types",
    "grpc_pass",
    "include",
    "keepalive_timeout",
    "limit_conn",
    "limit_conn_zone",
    "limit_req",
    "limit_req_zone",
    "listen",
    "location",
    "map",
    "proxy_cache",
    "proxy_cache_bypass",
    "proxy_cache_key",
    "proxy_cache_path",
    "proxy_cache_use_stale",
    "proxy_cache_valid",
    "proxy_connect_timeout",
    "proxy_hide_header",
    "proxy_next_upstream",
    "proxy_next_upstream_tries",
    "proxy_no_cache",
    "proxy_pass",
    "proxy_read_timeout",
    "proxy_send_timeout",
    "proxy_set_header",
    "proxy_ssl_certificate",
    "proxy_ssl_certificate_key",
    "proxy_ssl_name",
    "proxy_ssl_trusted_certificate",
    "real_ip_header",
    "return",
    "rewrite",
    "root",
    "alias",
    "try_files",
    "server",
    "server_name",
    "set_real_ip_from",
    "ssl_certificate",
    "ssl_certificate_key",
    "upstream",
];

/// Those that are carried over with something that is not there: without it nothing asks for them.
const DEPENDENT: &[&str] = &[
    "alias",
    "auth_jwt_key_file",
    "default_type",
    "gzip_min_length",
    "gzip_types",
    "grpc_pass",
    "include",
    "location",
    "proxy_cache_bypass",
    "proxy_cache_key",
    "proxy_cache_use_stale",
    "proxy_cache_valid",
    "proxy_next_upstream",
    "proxy_next_upstream_tries",
    "proxy_no_cache",
    "proxy_pass",
    "proxy_ssl_certificate",
    "proxy_ssl_certificate_key",
    "proxy_ssl_name",
    "proxy_ssl_trusted_certificate",
    "return",
    "rewrite",
    "root",
    "server",
    "try_files",
];

/// Directives that say how nginx works, or what Portcullis does by itself.
const NEEDLESS: &[&str] = &[
    "absolute_redirect",
    "access_log",
    "client_body_buffer_size",
    "daemon",
    "error_log",
    "events",
    "gzip_buffers",
    "gzip_comp_level",
    "gzip_disable",
    "gzip_http_version",
    "gzip_proxied",
    "gzip_vary",
    "http2",
    "index",
    "limit_conn_log_level",
    "limit_req_log_level",
    "load_module",
    "log_format",
    "log_not_found",
    "pid",
    "port_in_redirect",
    "proxy_buffer_size",
    "proxy_buffering",
    "proxy_buffers",
    "proxy_busy_buffers_size",
    "proxy_cache_background_update",
    "proxy_cache_lock",
    "proxy_cache_lock_timeout",
    "proxy_cache_revalidate",
    "proxy_http_version",
    "proxy_pass_header",
    "proxy_request_buffering",
    "proxy_socket_keepalive",
    "proxy_ssl_server_name",
    "proxy_temp_path",
    "real_ip_recursive",
    "reset_timedout_connection",
    "resolver_timeout",
    "sendfile",
    "server_names_hash_bucket_size",
    "server_tokens",
    "ssl_prefer_server_ciphers",
    "tcp_nodelay",
    "tcp_nopush",
    "types",
    "types_hash_max_size",
    "user",
    "worker_processes",
    "worker_rlimit_nofile",
];

/// What needs nothing with these arguments, one of them a list, and is left out with others.
type Unless = (&'static str, &'static [&'static str], &'static str, &'static str);

const UNLESS: &[Unless] = &[
    ("autoindex", &["off"], FILES, FILE_SERVER),
    ("charset", &["off"], "content types pass as they are", "let the application say charset"),
    (
        "client_body_timeout",
        &[],
        "how slow a body may come is set for all",
        "write progress_timeout in server.limits",
    ),
    (
        "client_header_buffer_size",
        &[],
        "how long fields may be is set for all",
        "write header_bytes in server.limits",
    ),
    (
        "client_header_timeout",
        &[],
        "how slow fields may come is set for all",
        "write header_timeout in server.limits",
    ),
    (
        "expires",
        &["off"],
        "what responses say of how long they hold passes as it is",
        "write Cache-Control in response_headers of the route",
    ),
    ("keepalive_requests", &[], "a connection has any number of requests", "leave it out"),
    (
        "large_client_header_buffers",
        &[],
        "how long fields may be is set for all",
        "write header_bytes in server.limits",
    ),
    ("limit_conn_status", &["429"], "who is over a limit gets a 429", "have clients expect it"),
    ("limit_req_status", &["429"], "who is over a limit gets a 429", "have clients expect it"),
    ("merge_slashes", &["on"], "a path has one spelling: /a//b is /a/b", "leave it out"),
    ("ssl_ciphers", &[], "TLS has the ciphers that are safe today, and no others", "leave it out"),
    ("ssl_protocols", &["TLSv1.2 TLSv1.3"], "TLS 1.2 and 1.3 are spoken", "leave it out"),
];

const FILES: &str = "Portcullis serves no files";
const FILE_SERVER: &str = "put a file server behind it, and name it as an upstream";
const CREDENTIALS: &str = "no passwords are checked here";

/// Directives that are left out, and guards.
const LEFT: &[(&str, Fate)] = &[
    ("auth_basic", Fate::Guard(CREDENTIALS, "give the callers API keys, or an issuer of tokens")),
    ("auth_basic_user_file", Fate::Left(CREDENTIALS, "give the callers API keys")),
    (
        "auth_request",
        Fate::Guard(
            "Portcullis asks no other service who may pass",
            "verify its tokens with [auth.NAME], or look up sessions with [session]",
        ),
    ),
    (
        "auth_request_set",
        Fate::Left("it belongs to auth_request", "write claims_to_headers in [auth.NAME]"),
    ),
    (
        "auth_jwt_claim_set",
        Fate::Left("claims are not variables here", "write claims_to_headers in [auth.jwt]"),
    ),
    (
        "auth_jwt_key_request",
        Fate::Guard("keys come from a file or a URL", "write jwks_url in [auth.jwt]"),
    ),
    (
        "auth_jwt_require",
        Fate::Guard("conditions are not variables here", "write require on the route"),
    ),
    ("autoindex_format", Fate::Left(FILES, FILE_SERVER)),
    (
        "error_page",
        Fate::Left(
            "errors have one form here, JSON of RFC 9457",
            "let the application answer its own errors; for maintenance write respond on the route",
        ),
    ),
    (
        "proxy_intercept_errors",
        Fate::Left(
            "answers of upstreams pass as they are",
            "let the application answer its own errors",
        ),
    ),
    ("fastcgi_pass", Fate::Left("upstreams speak HTTP here", "put an HTTP server before FastCGI")),
    ("uwsgi_pass", Fate::Left("upstreams speak HTTP here", "let uWSGI speak HTTP: --http-socket")),
    (
        "if",
        Fate::Left(
            "conditions are not evaluated here",
            "write routes of their own, by host, path or methods",
        ),
    ),
    ("limit_except", Fate::Guard("it is not converted", "write methods on the route")),
    (
        "internal",
        Fate::Guard("requests are not sent on inside", "name the upstream where it is meant"),
    ),
    ("limit_rate", Fate::Left("transfers are not slowed here", "leave it out")),
    ("mirror", Fate::Left("it is not converted", "write mirror on the route")),
    ("proxy_cache_methods", Fate::Left("only GET and HEAD are cached here", "leave it out")),
    ("proxy_cache_min_uses", Fate::Left("all that may be kept is kept", "leave it out")),
    ("proxy_cookie_domain", Fate::Left("cookies pass as they are", "let the application say it")),
    ("proxy_cookie_path", Fate::Left("cookies pass as they are", "let the application say it")),
    (
        "proxy_ignore_headers",
        Fate::Left("what responses say of caching holds", "let the application say it"),
    ),
    (
        "proxy_ssl_verify",
        Fate::Left(
            "servers that speak TLS prove who they are, always",
            "write ca_file in [upstreams.NAME.tls]",
        ),
    ),
    (
        "proxy_redirect",
        Fate::Left("Location fields pass as they are", "let the application say its own URL"),
    ),
    ("ssl_dhparam", Fate::Left("TLS has no such groups here", "leave it out")),
    ("proxy_method", Fate::Left("methods pass as they are", "leave it out")),
    ("proxy_set_body", Fate::Left("bodies pass as they are", "leave it out")),
    ("satisfy", Fate::Guard("all conditions must hold here", "write routes of their own")),
    ("secure_link", Fate::Guard("links are not signed here", "use tokens in the query")),
    ("set", Fate::Left("there are no variables here", "write what it stands for")),
    ("stream", Fate::Left("Portcullis speaks HTTP alone", "keep nginx for it")),
    ("sub_filter", Fate::Left("bodies pass as they are", "let the application say it")),
    (
        "ssl_verify_client",
        Fate::Guard(
            "it is not converted",
            "write client_auth and client_ca in [server.tls], and auth on the routes",
        ),
    ),
];

/// Whether something is carried over wherever it holds.
pub(super) fn is_carried(name: &str) -> bool {
    CARRIED.contains(&name) && !DEPENDENT.contains(&name)
}

/// What becomes of a directive.
pub(super) fn fate(directive: &Directive) -> Fate {
    let name = directive.name.as_str();
    if let Some((_, needless, why, instead)) = UNLESS.iter().find(|it| it.0 == name) {
        let is_needless = needless.contains(&directive.args.join(" ").as_str());
        return if is_needless { Fate::Needless } else { Fate::Left(why, instead) };
    }
    if CARRIED.contains(&name) {
        return Fate::Carried;
    }
    let is_group = |groups: &[&str]| groups.iter().any(|group| name.starts_with(group));
    if NEEDLESS.contains(&name)
        || is_group(&["worker_", "ssl_session_", "ssl_stapling", "open_file_cache", "resolver"])
    {
        return Fate::Needless;
    }
    if let Some((_, fate)) = LEFT.iter().find(|(known, _)| *known == name) {
        return *fate;
    }
    if name.starts_with("grpc_") {
        return Fate::Left("it is not converted", "see docs/grpc.md for bounds of calls");
    }
    if is_group(&["fastcgi_", "uwsgi_", "scgi_"]) {
        return Fate::Left("upstreams speak HTTP here", "leave it out");
    }
    if name.contains("_by_lua") || name.starts_with("js_") || name.starts_with("perl") {
        return Fate::Guard("programs do not run here", "let the application do it");
    }
    if is_group(&["ssl_client", "ssl_verify", "access_"]) || may_guard(name) {
        let instead = "guard it by auth, limits or require, then open it";
        return Fate::Guard("it is not known here, and may guard", instead);
    }
    Fate::Left("it is not known here", INSTEAD)
}

/// Whether a name that is not known here sounds like something that keeps requests out.
fn may_guard(name: &str) -> bool {
    const PARTS: &[&str] = &[
        "auth", "block", "captcha", "crowdsec", "deny", "denied", "jwt", "ldap", "naxsi", "oidc",
        "protect", "referer", "saml", "secure", "security", "waf",
    ];
    let lower = name.to_ascii_lowercase();
    PARTS.iter().any(|part| lower.contains(part))
        || name.starts_with("Sec")
        || matches!(name, "CheckRule" | "BasicRule" | "MainRule" | "LearningMode")
}
