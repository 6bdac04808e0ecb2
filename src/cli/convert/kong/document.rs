//! Kong's document, and a service in it as its routes need it.

use std::collections::BTreeMap;

use super::super::sheet::FILL_IN;
use super::super::tree::Node;

/// What is known of the whole document.
pub(super) struct Kong<'d> {
    pub(super) name: &'d str,
    pub(super) root: &'d Node,
    pub(super) services: BTreeMap<&'d str, &'d Node>,
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
