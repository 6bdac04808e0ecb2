//! What becomes of each directive: carried over elsewhere, without a use here, or left out with
//! a reason.

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
    "limit_req_status",
];

/// Directives that say how nginx works, or what Portcullis does by itself.
const NEEDLESS: &[&str] = &[
    "absolute_redirect",
    "access_log",
    "autoindex",
    "charset",
    "client_body_buffer_size",
    "client_body_timeout",
    "client_header_buffer_size",
    "client_header_timeout",
    "daemon",
    "error_log",
    "events",
    "expires",
    "gzip_buffers",
    "gzip_comp_level",
    "gzip_disable",
    "gzip_http_version",
    "gzip_proxied",
    "gzip_vary",
    "http2",
    "index",
    "keepalive_requests",
    "large_client_header_buffers",
    "limit_conn_status",
    "limit_conn_log_level",
    "limit_req_log_level",
    "load_module",
    "log_format",
    "log_not_found",
    "merge_slashes",
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
    "ssl_ciphers",
    "ssl_prefer_server_ciphers",
    "ssl_protocols",
    "tcp_nodelay",
    "tcp_nopush",
    "types",
    "types_hash_max_size",
    "user",
    "worker_processes",
    "worker_rlimit_nofile",
];

const FILES: &str = "Portcullis serves no files";
const FILE_SERVER: &str = "put a file server behind it, and name it as an upstream";
const CREDENTIALS: &str = "only tokens, API keys and certificates are checked here";

/// Directives that are left out, and guards.
const LEFT: &[(&str, Fate)] = &[
    ("auth_basic", Fate::Guard(CREDENTIALS, "give the callers API keys, or an issuer of tokens")),
    ("auth_basic_user_file", Fate::Left(CREDENTIALS, "see auth_basic")),
    (
        "auth_request",
        Fate::Guard(
            "Portcullis asks no other service who may pass",
            "verify its tokens with [auth.NAME], or look up sessions with [session]",
        ),
    ),
    ("auth_request_set", Fate::Left("it belongs to auth_request", "see auth_request")),
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
        Fate::Left("answers of upstreams pass as they are", "see error_page"),
    ),
    ("fastcgi_pass", Fate::Left("upstreams speak HTTP here", "put an HTTP server before FastCGI")),
    (
        "grpc_pass",
        Fate::Left("it is not converted", "write grpc on the route, and protocol = \"h2\""),
    ),
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

/// What becomes of a directive.
pub(super) fn fate(name: &str) -> Fate {
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
    if is_group(&["fastcgi_", "uwsgi_", "scgi_", "grpc_"]) {
        return Fate::Left("upstreams speak HTTP here", "leave it out");
    }
    if name.contains("_by_lua") || name.starts_with("js_") || name.starts_with("perl") {
        return Fate::Guard("programs do not run here", "let the application do it");
    }
    if is_group(&["ssl_client", "ssl_verify", "access_"]) || may_guard(name) {
        return Fate::Guard("it is not known here, and may guard", "see docs/converting.md");
    }
    Fate::Left("it is not known here", "see docs/converting.md")
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
