//! Kong's document, and a service in it as its routes need it.

use super::super::leftover::Known;
use super::super::sheet::FILL_IN;
use super::super::tree::Node;

/// What is left out of a document without a word, and what is said of the rest.
pub(super) const LEFTOVER: Known = Known {
    needless: &[
        ("id", ""),
        ("tags", ""),
        ("created_at", ""),
        ("updated_at", ""),
        ("_comment", ""),
        ("instance_name", ""),
        ("enabled", "true"),
        // Of routes.
        ("https_redirect_status_code", "426"),
        ("path_handling", "v0"),
        ("regex_priority", "0"),
        ("request_buffering", ""),
        ("response_buffering", ""),
        // Of upstreams. 0 switches off.
        ("slots", ""),
        ("use_srv_name", "false"),
        ("hash_on_cookie_path", "/"),
        ("hash_fallback", "none"),
        ("healthchecks.threshold", "0"),
        ("active.concurrency", ""),
        ("active.type", "http"),
        ("passive.type", "http"),
        ("passive.type", "tcp"),
        ("active.https_verify_certificate", "true"),
        ("unhealthy.timeouts", "0"),
        ("unhealthy.tcp_failures", "0"),
        ("passive.healthy.successes", "0"),
        // Of plugins.
        ("plugins.protocols", "grpc,grpcs,http,https"),
        ("plugins.protocols", "http,https"),
        ("config.realm", ""),
        ("config.run_on_preflight", "true"),
        // What is said of policy is said of these, too.
        ("config.redis", ""),
        ("config.redis_host", ""),
        ("config.redis_port", ""),
        ("config.redis_username", ""),
        ("config.redis_password", ""),
        ("config.redis_timeout", ""),
        ("config.redis_database", ""),
        ("config.redis_ssl", ""),
        ("config.redis_ssl_verify", ""),
        ("config.redis_server_name", ""),
        ("config.fault_tolerant", "true"),
        ("config.hide_client_headers", "false"),
        ("config.error_code", "429"),
        ("config.error_message", "API rate limit exceeded"),
        ("config.sync_rate", "-1"),
        ("config.namespace", ""),
        ("config.dictionary_name", ""),
        ("config.lock_dictionary_name", ""),
        ("config.window_type", "sliding"),
        ("config.key_in_header", "true"),
        ("config.key_in_body", "false"),
        ("config.key_claim_name", "iss"),
        ("config.secret_is_base64", "false"),
        ("config.preflight_continue", "false"),
        ("config.private_network", "false"),
        ("config.allow_origin_absent", "true"),
        ("config.strategy", "memory"),
        ("memory.dictionary_name", ""),
        ("config.cache_control", ""),
        ("config.ignore_uri_case", "false"),
        ("config.status", "403"),
        ("config.require_content_length", "false"),
        ("config.generator", ""),
        ("config.echo_downstream", ""),
        ("config.echo", "false"),
    ],
    hints: &[
        (
            "config.methods",
            "pages of other origins may use the methods of the route",
            "write methods on the route",
        ),
        (
            "config.content_type",
            "what responses say of caching holds, whatever their type",
            "let the application say Cache-Control",
        ),
        ("config.request_method", "GET and HEAD are cached, and nothing else is", "leave it out"),
        (
            "config.anonymous",
            "whoever shows no key or token is refused",
            "write optional = true in auth of the route",
        ),
        (
            "config.trigger",
            "an answer without an upstream is given to all requests of the route",
            "write respond on a route of its own, by path or host",
        ),
        (
            "config.secret_is_base64",
            "a secret is its own bytes",
            "write the secret that it stands for",
        ),
        (
            "config.claims_to_verify",
            "exp and nbf are looked at wherever a token has them",
            "for claims that must be there write require on the route",
        ),
        (
            "tls_verify",
            "servers that speak TLS prove who they are",
            "write ca_file in [upstreams.NAME.tls]",
        ),
    ],
};

/// What is known of the whole document.
pub(super) struct Kong<'d> {
    pub(super) name: &'d str,
    pub(super) root: &'d Node,
}

/// Whether `of`, a name, an id or a table with one of them, means this service, route or consumer.
pub(super) fn means(of: &Node, node: &Node) -> bool {
    let told = [of, of.get("id"), of.get("name"), of.get("username")];
    let mut told = told.into_iter().filter_map(Node::text);
    let known = ["id", "name", "username"].map(|key| node.get(key).text());
    told.any(|told| known.contains(&Some(told)))
}

/// Whether it is switched off.
pub(super) fn is_off(node: &Node) -> bool {
    node.get("enabled").text().is_some_and(|text| text.eq_ignore_ascii_case("false"))
}

/// A service as routes need it.
pub(super) struct Service<'d> {
    pub(super) node: &'d Node,
    /// What its paths are put behind; empty, or without a slash at the end.
    pub(super) base: String,
    /// The Host that it sees.
    pub(super) host: String,
    pub(super) scheme: String,
    pub(super) port: String,
}

impl<'d> Kong<'d> {
    /// A service; nothing where it has no host.
    pub(super) fn service(&self, node: &'d Node) -> Option<Service<'d>> {
        let url = node.get("url").text().unwrap_or_default();
        let (mut scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let (mut authority, mut path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if url.is_empty() {
            scheme = node.get("protocol").text().unwrap_or("http");
            authority = node.get("host").text()?;
            path = node.get("path").text().unwrap_or_default();
        }
        let usual = if scheme == "https" { "443" } else { "80" };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.to_owned()),
            _ => (authority, node.get("port").text().unwrap_or(usual).to_owned()),
        };
        let is_usual = port == usual;
        Some(Service {
            node,
            base: path.trim_end_matches('/').to_owned(),
            host: if is_usual { host.to_owned() } else { format!("{host}:{port}") },
            scheme: scheme.to_owned(),
            port,
        })
    }
}

/// What a person must still say of an upstream.
pub(super) fn fill_in(what: &str) -> String {
    format!("{FILL_IN}: {what}")
}
