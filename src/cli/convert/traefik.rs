//! Traefik's dynamic configuration: routers, services and middlewares, with the entry points of the
//! static one where they stand in the same file, as a gateway.toml.

mod leftovers;
mod middleware;
mod point;
mod rule;
mod service;

use std::collections::BTreeSet;

use self::middleware::{Middlewares, Path};
use self::point::{Points, is_there};
use self::rule::Match;
use self::service::{Services, Target};
use super::effects::{At, Effects};
use super::leftover;
use super::precedence::{Ranked, put};
use super::sheet::{FILL_IN, Route, Sheet, Table};
use super::tree::Node;
use super::write::{list, quoted, table};

/// Where Let's Encrypt's authority is, which Traefik asks unless it is told another one.
const AUTHORITY: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// What is known of the whole document.
struct Traefik<'d> {
    name: &'d str,
    root: &'d Node,
    http: &'d Node,
    /// Entry points that speak TLS.
    secure: BTreeSet<&'d str>,
}

/// Converts a document that is called `name`. The error is `file:line: what`.
pub(super) fn convert(name: &str, root: &Node, sheet: &mut Sheet) -> Result<(), String> {
    let http = root.find("http");
    let routers = http.find("routers").entries();
    if routers.is_empty() {
        return Err(format!("{name}:{}: no http.routers are in it", root.line.max(1)));
    }
    let traefik = Traefik { name, root, http, secure: secure(root, routers) };
    for kind in ["tcp", "udp"] {
        let node = root.find(kind);
        if node.is_some() {
            let at = At { name, what: kind };
            at.leave_all(node, "Portcullis speaks HTTP alone", "keep Traefik for it", sheet);
        }
    }
    traefik.entry_points(sheet);
    traefik.certificates(sheet);
    let mut hosts = BTreeSet::new();
    let mut routes = Vec::new();
    for (label, router) in routers {
        traefik.router((label, router), &mut hosts, &mut routes, sheet);
    }
    put(&routes, sheet);
    traefik.authority(&hosts, sheet);
    leftover::list(name, root, &leftovers::LEFTOVER, sheet);
    Ok(())
}

/// Entry points that speak TLS: they say so, or a router on them does.
fn secure<'d>(root: &'d Node, routers: &'d [(String, Node)]) -> BTreeSet<&'d str> {
    let points = root.find("entryPoints").entries().iter();
    let mut secure: BTreeSet<&str> = points
        .filter(|(_, point)| is_there(point.find("http"), "tls"))
        .map(|(name, _)| name.as_str())
        .collect();
    for (_, router) in routers.iter().filter(|(_, router)| is_there(router, "tls")) {
        secure.extend(router.find("entryPoints").texts());
    }
    secure
}

impl<'d> Traefik<'d> {
    fn has_tls(&self) -> bool {
        let routers = self.http.find("routers").entries();
        !self.secure.is_empty()
            || self.root.find("tls").find("certificates").is_some()
            || routers.iter().any(|(_, router)| is_there(router, "tls"))
    }

    fn entry_points(&self, sheet: &mut Sheet) {
        let points = self.root.find("entryPoints").entries();
        if points.is_empty() {
            sheet.listen("0.0.0.0:80".to_owned());
            if self.has_tls() {
                sheet.tls().set("listen", "[\"0.0.0.0:443\"]");
            }
            let at = At { name: self.name, what: "entryPoints" };
            let why = "where Traefik listens stands in another file";
            at.leave(self.root, why, "say it in listen of [server] and [server.tls]", sheet);
        }
        let (mut secure, mut trusted, mut balancers) = (Vec::new(), Vec::new(), Vec::new());
        for (name, point) in points {
            point.looked_at();
            let text = if point.text().is_some() { "" } else { ":80" };
            let text = point.find("address").text().unwrap_or(text);
            let text = text.split('/').next().unwrap_or_default();
            let whole =
                if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
            let Ok(address) = whole.parse::<std::net::SocketAddr>() else {
                let at = At { name: self.name, what: name };
                at.leave(point, "it is no address and port", "write it in listen", sheet);
                continue;
            };
            if self.secure.contains(name.as_str()) {
                secure.push(address.to_string());
            } else {
                sheet.listen(address.to_string());
            }
            trusted.extend(point.find("forwardedHeaders").find("trustedIPs").texts());
            balancers.extend(point.find("proxyProtocol").find("trustedIPs").texts());
            self.redirected((name.as_str(), point), sheet);
        }
        if !secure.is_empty() {
            sheet.tls().set("listen", list(&secure));
        }
        let keys = [("trusted_proxies", trusted), ("proxy_protocol_from", balancers)];
        for (key, mut networks) in keys {
            networks.dedup();
            if !networks.is_empty() {
                sheet.server().set(key, list(&networks));
            }
        }
    }

    /// An entry point that sends everybody to another one.
    fn redirected(&self, (name, point): (&str, &Node), sheet: &mut Sheet) {
        let to = point.find("http").find("redirections").find("entryPoint");
        if !to.is_some() {
            return;
        }
        let scheme = to.find("scheme").text().unwrap_or("https");
        if self.has_tls() && scheme == "https" {
            to.settle();
            return redirect(sheet);
        }
        let at = At { name: self.name, what: name };
        let instead = "write respond with a location on a route of every path";
        at.leave_all(to, "clients are sent from clear to TLS, and nowhere else", instead, sheet);
    }

    fn certificates(&self, sheet: &mut Sheet) {
        let stores =
            self.root.find("tls").find("stores").find("default").find("defaultCertificate");
        let all = self.root.find("tls").find("certificates").items().iter();
        let default = stores.is_some().then_some(stores);
        for (certificate, is_default) in
            all.map(|it| (it, false)).chain(default.map(|it| (it, true)))
        {
            let files = ["certFile", "keyFile"].map(|key| certificate.find(key).text());
            let [Some(cert), Some(key)] = files else { continue };
            let mut made = Table::new(format!("From {}:{}.", self.name, certificate.line));
            if [cert, key].iter().any(|path| !std::path::Path::new(path).is_file()) {
                made.head(format!(
                    "{FILL_IN}: put the files there; a path is relative to this file."
                ));
            }
            made.set("cert", quoted(cert));
            made.set("key", quoted(key));
            if is_default {
                made.set("default", "true");
            }
            sheet.tls();
            sheet.certificate(made);
        }
        let options = self.root.find("tls").find("options");
        if options.is_some() {
            let at = At { name: self.name, what: "tls.options" };
            let why = "TLS 1.2 and 1.3 are spoken, with the ciphers of today";
            at.leave_all(options, why, "for certificates of clients write client_auth", sheet);
        }
    }

    fn router(
        &self,
        (label, router): (&str, &'d Node),
        hosts: &mut BTreeSet<String>,
        routes: &mut Vec<Ranked<usize>>,
        sheet: &mut Sheet,
    ) {
        let points = Points { all: self.root.find("entryPoints").entries() };
        router.looked_at();
        if points.is_sent_away(router) {
            return router.settle();
        }
        let at = At { name: self.name, what: label };
        let text = router.find("rule").text().unwrap_or_default();
        let parsed = rule::parse(text);
        if let Err(why) = &parsed {
            let instead = "the router is left out: write routes for what it means";
            at.leave(router.find("rule"), why, instead, sheet);
            router.settle();
        }
        if router.find("priority").is_some() {
            let instead = "see whether the more specific route is the one that is meant";
            at.leave(router.find("priority"), "the most specific route wins here", instead, sheet);
        }
        let middlewares = Middlewares { name: self.name, all: self.http.find("middlewares") };
        let mut path = Path::default();
        let mut effects = Effects::default();
        let names = points.middlewares(router);
        let https = self.has_tls();
        let leads = middlewares.apply(&names, (&mut effects, &mut path), (router, https), sheet);
        if leads {
            redirect(sheet);
        }
        let is_secure = points.is_secure(router, &|name| self.secure.contains(name));
        if leads && !is_secure {
            // In clear, everybody is sent to TLS, so no route is needed for it.
            return router.settle();
        }
        points.confine(at, router, &mut effects, sheet);
        if is_secure {
            let options = self.root.find("tls").find("options");
            points.demand(at, (router, options), &mut effects, sheet);
        }
        self.add(((label, router), parsed.ok()), (&path, &effects), (hosts, routes), sheet);
    }

    /// Adds the routes of a router; one of everything where its rule means nothing here.
    fn add(
        &self,
        ((label, router), matches): ((&str, &'d Node), Option<Vec<Match>>),
        what: (&Path, &Effects),
        (hosts, routes): (&mut BTreeSet<String>, &mut Vec<Ranked<usize>>),
        sheet: &mut Sheet,
    ) {
        let text = router.find("rule").text().unwrap_or_default();
        let said = router.find("priority").number().filter(|it| *it > 0);
        let rank = said.map_or(text.len(), |it| usize::try_from(it).unwrap_or(usize::MAX));
        let Some(matches) = matches else {
            // It is for some of all requests.
            let whole = Match { path: "/*".to_owned(), ..Match::default() };
            let route = self.made((label, router), (&whole, None), what, sheet);
            routes.push(Ranked { rank, route, is_lost: true, goes_on: false });
            return;
        };
        if router.find("tls").find("certResolver").is_some() {
            hosts.extend(matches.iter().filter_map(|it| it.host.clone()));
        }
        let services = Services { name: self.name, all: self.http.find("services") };
        let of = router.find("service").text().unwrap_or(label);
        let target = services.target(of, what.1, router, sheet);
        for matched in &matches {
            let route = self.made((label, router), (matched, Some(&target)), what, sheet);
            let goes_on = matched.note.is_some();
            routes.push(Ranked { rank, route, is_lost: false, goes_on });
        }
    }

    /// A route; without a target only what guards it matters.
    fn made(
        &self,
        (label, router): (&str, &Node),
        (matched, target): (&Match, Option<&Target>),
        (path, effects): (&Path, &Effects),
        sheet: &mut Sheet,
    ) -> Route {
        let at = At { name: self.name, what: label };
        let mut made = Table::new(format!("Router {label}, {}:{}.", self.name, router.line));
        if let Some(note) = matched.note {
            made.head(format!("Not quite the same: {note}."));
        }
        if let Some(target) = target {
            target.write(&mut made);
            let mut rewrite = Vec::new();
            match path.rewrite(&matched.path) {
                Ok(entry) => rewrite.extend(entry.map(|(key, value)| (key, quoted(&value)))),
                Err(why) => at.leave(router, why, "write rewrite by hand", sheet),
            }
            rewrite.extend(target.host.as_ref().map(|host| ("host", quoted(host))));
            if !rewrite.is_empty() {
                made.set("rewrite", table(&rewrite));
            }
        }
        effects.clone().write(&mut made);
        Route {
            name: label.to_owned(),
            host: matched.host.clone(),
            path: matched.path.clone(),
            methods: matched.methods.clone(),
            table: made,
            at: format!("{}:{}", self.name, router.line),
        }
    }

    /// Certificates that a resolver orders.
    fn authority(&self, hosts: &BTreeSet<String>, sheet: &mut Sheet) {
        let names: Vec<String> =
            hosts.iter().filter(|host| !host.starts_with('*')).map(|host| list(&[host])).collect();
        if names.is_empty() {
            return;
        }
        let resolvers = self.root.find("certificatesResolvers").entries();
        let acme = resolvers.first().map(|(_, node)| node.looked_at().find("acme"));
        let of = |key: &str| acme.and_then(|acme| acme.find(key).text());
        let mut entries = vec![("directory", quoted(of("caServer").unwrap_or(AUTHORITY)))];
        entries.push(("names", format!("[{}]", names.join(", "))));
        entries.extend(of("email").map(|email| ("contact", quoted(email))));
        entries.push(("folder", quoted("acme")));
        sheet.tls().note("certResolver: certificates of these names are ordered by the gateway.");
        sheet.tls().set("acme", table(&entries));
    }
}

fn redirect(sheet: &mut Sheet) {
    if !sheet.tls().has("redirect") {
        sheet.tls().note("Whoever asks in clear is sent to https, with a 308.");
        sheet.tls().set("redirect", "true");
    }
}
