//! Kong's document, and a service in it as its routes need it.

use super::super::sheet::FILL_IN;
use super::super::tree::Node;

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
