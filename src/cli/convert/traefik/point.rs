//! Entry points of Traefik, and what a router has of those that it is on.

use super::super::effects::{At, Effects};
use super::super::sheet::Sheet;
use super::super::tree::Node;
use super::service::plain;

/// Whether a name is there, be it with nothing in it.
pub(super) fn is_there(node: &Node, name: &str) -> bool {
    node.entries().iter().any(|(known, inner)| {
        known.eq_ignore_ascii_case(name) && inner.looked_at().text() != Some("false")
    })
}

/// What the entry points of everybody are called, where nothing else says so.
const PUBLIC: [&str; 4] = ["web", "websecure", "http", "https"];
/// What those are called that speak TLS.
const SECURE: [&str; 2] = ["websecure", "https"];
/// The entry point of Traefik's own pages, on which no router is that does not name it.
const OWN: &str = "traefik";

/// The entry points of a document.
pub(super) struct Points<'d> {
    pub(super) all: &'d [(String, Node)],
}

impl<'d> Points<'d> {
    /// The names of those that a router is on.
    fn of(&self, router: &'d Node) -> Vec<&'d str> {
        let named = router.find("entryPoints").texts();
        if !named.is_empty() {
            return named;
        }
        let is_default = |point: &Node| point.find("asDefault").is_true();
        let some = self.all.iter().any(|(_, point)| is_default(point));
        let all = self.all.iter().filter(|(name, point)| {
            if some { is_default(point) } else { !name.eq_ignore_ascii_case(OWN) }
        });
        all.map(|(name, _)| name.as_str()).collect()
    }

    fn point(&self, name: &str) -> Option<&'d Node> {
        self.all.iter().find(|(known, _)| known == name).map(|(_, point)| point)
    }

    fn points(&self, router: &'d Node) -> Vec<&'d Node> {
        self.of(router).into_iter().filter_map(|name| self.point(name)).collect()
    }

    /// Whether TLS ends at a router; `secure` are the entry points that speak it.
    pub(super) fn is_secure(&self, router: &'d Node, secure: &impl Fn(&str) -> bool) -> bool {
        // Where these stand in another file, their names must tell.
        let by_name = |name: &str| self.point(name).is_none() && SECURE.contains(&name);
        is_there(router, "tls")
            || self.points(router).iter().any(|point| is_there(point.find("http"), "tls"))
            || router.find("entryPoints").texts().iter().any(|it| secure(it) || by_name(it))
    }

    /// Middlewares of entry points come before a router's own.
    pub(super) fn middlewares(&self, router: &'d Node) -> Vec<&'d str> {
        let mut names: Vec<&str> = Vec::new();
        for point in self.points(router) {
            for name in point.find("http").find("middlewares").texts() {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names.extend(router.find("middlewares").texts());
        names
    }

    /// Whether a router is never asked, because its entry points send everybody elsewhere.
    pub(super) fn is_sent_away(&self, router: &'d Node) -> bool {
        let points = self.points(router);
        !points.is_empty()
            && points.len() == self.of(router).len()
            && points
                .iter()
                .all(|point| point.find("http").find("redirections").find("entryPoint").is_some())
    }

    /// Whose an entry point is: those of everybody in clear and over TLS are one.
    fn group(&self, name: &'d str) -> (&'d str, &'d str) {
        let address = self.point(name).map_or("", |it| it.find("address").text().unwrap_or(":80"));
        let address = address.split('/').next().unwrap_or_default();
        let (host, port) = address.rsplit_once(':').unwrap_or(("", ""));
        let host = if matches!(host, "0.0.0.0" | "[::]") { "" } else { host };
        let is_public = PUBLIC.contains(&name) || matches!(port, "80" | "443");
        (host, if is_public { "web" } else { name })
    }

    /// Closes a router that is on some entry points alone: here all of them lead to all routes.
    pub(super) fn confine(
        &self,
        at: At<'_>,
        router: &'d Node,
        effects: &mut Effects,
        sheet: &mut Sheet,
    ) {
        const EVERYBODY: (&str, &str) = ("", "web");
        let named = router.find("entryPoints");
        if named.texts().is_empty() && !self.all.iter().any(|it| it.1.find("asDefault").is_true()) {
            return;
        }
        let mine: Vec<_> = self.of(router).into_iter().map(|name| self.group(name)).collect();
        let mut whole: Vec<_> = self.all.iter().map(|(name, _)| self.group(name)).collect();
        if whole.is_empty() || whole.contains(&EVERYBODY) {
            whole = vec![EVERYBODY];
        }
        if whole.iter().all(|group| mine.contains(group)) {
            return;
        }
        let node = if named.is_some() { named } else { router };
        let instead = "the route answers 403; run a second gateway on that port, or guard it";
        at.leave(node, "every address leads to every route here", instead, sheet);
        effects.guard("its entry points");
    }

    /// Closes a router that only clients with a certificate reach.
    pub(super) fn demand(
        &self,
        at: At<'_>,
        (router, options): (&'d Node, &'d Node),
        effects: &mut Effects,
        sheet: &mut Sheet,
    ) {
        let mut names: Vec<&str> = Vec::new();
        let own = router.find("tls");
        names.extend(own.find("options").text());
        let of_points = self.points(router).into_iter().map(|point| point.find("http"));
        let secure: Vec<&Node> = of_points.filter(|http| is_there(http, "tls")).collect();
        if names.is_empty() {
            names.extend(secure.iter().filter_map(|http| http.find("tls").find("options").text()));
        }
        if names.is_empty() {
            names.push("default");
        }
        for name in names {
            let option = options.find(plain(name));
            let kind = option.find("clientAuth").find("clientAuthType").text().unwrap_or_default();
            let is_missing = !option.is_some() && plain(name) != "default";
            if kind.to_ascii_lowercase().starts_with("require") || is_missing {
                let why = format!("TLS options {name} may demand a certificate of clients");
                let instead = "the route answers 403; write client_auth in [server.tls]";
                at.leave(if own.is_some() { own } else { router }, &why, instead, sheet);
                effects.guard("a certificate of clients");
            }
        }
    }
}
