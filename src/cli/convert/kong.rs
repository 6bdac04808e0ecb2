//! Kong's declarative configuration: services with their routes, upstreams with their targets,
//! plugins and consumers, as a gateway.toml.

mod document;
mod plugins;
mod upstream;

use self::document::{Kong, Service, is_off, means};
use self::plugins::Plugins;
use super::effects::{At, Effects};
use super::leftover;
use super::pattern::{Mapping, Simple, is_plain_path, of_prefix};
use super::precedence::{Ranked, put};
use super::sheet::{Route, Sheet, Table};
use super::tree::Node;
use super::write::{quoted, table};

/// Most hosts, times paths, of one route.
const PATTERNS_MAX: usize = 200;
/// Keys of the document that are read, or say nothing to a gateway.
const KNOWN: [&str; 10] = [
    "_format_version",
    "_transform",
    "_comment",
    "services",
    "routes",
    "upstreams",
    "plugins",
    "consumers",
    "certificates",
    "targets",
];

/// Converts a document that is called `name`. The error is `file:line: what`.
pub(super) fn convert(name: &str, root: &Node, sheet: &mut Sheet) -> Result<(), String> {
    let services = root.get("services").items();
    if services.is_empty() && !root.get("routes").is_some() {
        return Err(format!("{name}:{}: neither services nor routes are in it", root.line.max(1)));
    }
    let kong = Kong { name, root };
    sheet.server().head(
        "Where clients reach the gateway. 8000 is where Kong listens unless its own configuration \
         says otherwise.",
    );
    sheet.listen("0.0.0.0:8000".to_owned());
    for (key, node) in root.each() {
        if !KNOWN.contains(&key.as_str()) && node.items().iter().any(Node::is_some) {
            let at = At { name, what: key };
            at.leave_all(node, "it is not known here", leftover::INSTEAD, sheet);
        }
    }
    certificates(&kong, sheet);
    let plugins = Plugins::read(&kong, sheet);
    let mut routes = Vec::new();
    for service in services {
        for route in service.get("routes").items() {
            kong.route(route, Some(service), (&plugins, &mut routes), sheet);
        }
    }
    for route in root.get("routes").items() {
        let of = route.get("service");
        let service = services.iter().find(|service| means(of, service));
        kong.route(route, service, (&plugins, &mut routes), sheet);
    }
    put(&routes, sheet);
    leftover::list(name, root, &document::LEFTOVER, sheet);
    Ok(())
}

/// What orders routes in Kong: how much they look at, whether a host is one, whether a path is an
/// expression, and then its own rank or its length.
type Rank = (usize, bool, bool, u64);

fn rank(node: &Node, path: &str) -> Rank {
    const CRITERIA: [&str; 5] = ["methods", "hosts", "paths", "headers", "snis"];
    if node.get("expression").is_some() {
        // Its priority says it, and nobody knows what it looks at.
        return (usize::MAX, true, true, u64::MAX);
    }
    let looks = CRITERIA.iter().filter(|key| !node.get(key).items().is_empty()).count();
    let is_wild = node.get("hosts").texts().iter().any(|host| host.contains('*'));
    let is_regex = path.starts_with('~');
    let length = u64::try_from(path.len()).unwrap_or(u64::MAX);
    let last = if is_regex { node.get("regex_priority").number().unwrap_or(0) } else { length };
    (looks, !is_wild, is_regex, last)
}

/// The beginning of a path that surely covers it.
fn around(path: &str) -> String {
    if is_plain_path(path) {
        return format!("{}/*", path.trim_end_matches('/'));
    }
    let path = path.strip_prefix('~').unwrap_or(path);
    let path = path.strip_prefix('^').unwrap_or(path);
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_');
    let literal: String = path.chars().take_while(plain).collect();
    // The last segment may go on, or be there or not.
    let whole = literal.rsplit_once('/').map_or("", |(whole, _)| whole);
    let base = if is_plain_path(whole) && !path.contains('|') { whole } else { "" };
    format!("{base}/*")
}

fn certificates(kong: &Kong<'_>, sheet: &mut Sheet) {
    for certificate in kong.root.get("certificates").items() {
        let at = At { name: kong.name, what: "certificates" };
        let why = "certificates are files here";
        let instead = "write them into files, and name these in [[server.tls.certificates]]";
        at.leave_all(certificate, why, instead, sheet);
    }
}

impl<'d> Kong<'d> {
    /// The routes that one of Kong's is.
    fn route(
        &self,
        node: &'d Node,
        service: Option<&'d Node>,
        (plugins, routes): (&Plugins<'d>, &mut Vec<Ranked<Rank>>),
        sheet: &mut Sheet,
    ) {
        let label = node.looked_at().get("name").text().unwrap_or("route");
        let at = At { name: self.name, what: label };
        if let Some(service) = service {
            service.looked_at();
        }
        if is_off(node) || service.is_some_and(is_off) {
            let why = "it is switched off in Kong";
            return at.leave_all(node, why, "switch it on, and convert again", sheet);
        }
        let nothing = Node::new(node.line, super::tree::Value::Null);
        let effects = plugins.of_route(node, service.unwrap_or(&nothing), sheet);
        let (why, instead) = match (matchable(node), service.and_then(|it| self.service(it))) {
            (Err(why), _) => why,
            (_, None) => ("its service has no host and no url", "write a route with an upstream"),
            (_, Some(service)) if !matches!(service.scheme.as_str(), "http" | "https") => {
                ("only services of http and https are converted", "see docs/grpc.md")
            }
            (Ok(()), Some(service)) => {
                return self.converted(node, &service, (&effects, routes), sheet);
            }
        };
        at.leave_all(node, why, instead, sheet);
        let paths = node.get("paths").texts();
        for path in if paths.is_empty() { vec!["/"] } else { paths } {
            self.lose(node, path, (&effects, routes));
        }
    }

    /// A path of a route that is left out, so that its guards are not forgotten.
    fn lose(&self, node: &Node, path: &str, (effects, routes): (&Effects, &mut Vec<Ranked<Rank>>)) {
        let hosts = node.get("hosts").texts();
        let is_known = |host: &&str| !host.trim_start_matches("*.").contains('*');
        let hosts: Vec<Option<&str>> = if hosts.is_empty() || !hosts.iter().all(is_known) {
            vec![None]
        } else {
            hosts.into_iter().map(Some).collect()
        };
        for host in hosts {
            let mut made = Table::new(String::new());
            effects.clone().write(&mut made);
            let route = Route { path: around(path), ..self.named(node, host, made) };
            let rank = rank(node, path);
            routes.push(Ranked { rank, route, is_lost: true, goes_on: false });
        }
    }

    /// A route without a path.
    fn named(&self, node: &Node, host: Option<&str>, table: Table) -> Route {
        Route {
            name: node.get("name").text().unwrap_or("route").to_owned(),
            host: host.map(str::to_owned),
            path: String::new(),
            methods: node.get("methods").texts().into_iter().map(str::to_owned).collect(),
            table,
            at: format!("{}:{}", self.name, node.line),
        }
    }

    fn converted(
        &self,
        node: &'d Node,
        service: &Service<'d>,
        (effects, routes): (&Effects, &mut Vec<Ranked<Rank>>),
        sheet: &mut Sheet,
    ) {
        let label = node.get("name").text().unwrap_or("route");
        let at = At { name: self.name, what: label };
        self.protocols(node, at, sheet);
        let upstream = upstream::of_service(self.name, self.root, service, effects, sheet);
        let hosts = node.get("hosts").texts();
        let hosts: Vec<Option<&str>> =
            if hosts.is_empty() { vec![None] } else { hosts.into_iter().map(Some).collect() };
        let mut written = 0_usize;
        let (mappings, lost) = self.mappings(node, service, sheet);
        for path in lost {
            self.lose(node, path, (effects, routes));
        }
        for (from, mapping) in mappings {
            for host in &hosts {
                written += 1;
                if written > PATTERNS_MAX {
                    let why = format!("one route has at most {PATTERNS_MAX} paths and hosts here");
                    self.lose(node, "/", (effects, routes));
                    return at.leave(node, &why, "split it", sheet);
                }
                let mut made = Table::new(format!("Route {label}, {}:{}.", self.name, node.line));
                if let Some(note) = mapping.note {
                    made.head(format!("Not quite the same: {note}."));
                }
                made.set("upstream", quoted(&upstream));
                let mut rewrite = Vec::new();
                let replace = mapping.replace.as_ref();
                rewrite.extend(replace.map(|replace| ("replace", quoted(replace))));
                if !node.get("preserve_host").is_true() {
                    let told = upstream::told_host(self.root, &service.host);
                    rewrite.push(("host", quoted(&told)));
                }
                if !rewrite.is_empty() {
                    made.set("rewrite", table(&rewrite));
                }
                effects.clone().write(&mut made);
                let route = Route { path: mapping.path.clone(), ..self.named(node, *host, made) };
                let goes_on = mapping.note.is_some() && !from.ends_with('/');
                routes.push(Ranked { rank: rank(node, &from), route, is_lost: false, goes_on });
            }
        }
    }

    /// Lists what a route asks of protocols: every route is there in clear and over TLS.
    fn protocols(&self, node: &Node, at: At<'_>, sheet: &mut Sheet) {
        const WHY: &str = "routes are the same in clear and over TLS";
        let protocols = node.get("protocols");
        let texts = protocols.texts();
        if texts == ["https"] {
            at.leave(protocols, WHY, "write redirect = true in [server.tls]", sheet);
        } else if texts == ["http"] {
            at.leave(protocols, WHY, "leave it out, or run a second gateway for it", sheet);
        } else if texts.iter().any(|it| !matches!(*it, "http" | "https")) {
            let instead = "for gRPC write grpc on the route; see docs/grpc.md";
            at.leave(protocols, "requests of other protocols are not converted", instead, sheet);
        }
    }

    /// Its paths as patterns, each with the one it is of, and what becomes of them; and the paths
    /// that are left out.
    fn mappings<'n>(
        &self,
        node: &'n Node,
        service: &Service<'_>,
        sheet: &mut Sheet,
    ) -> (Vec<(String, Mapping)>, Vec<&'n str>) {
        let at = At { name: self.name, what: node.get("name").text().unwrap_or("route") };
        let strips = !node.get("strip_path").is_some() || node.get("strip_path").is_true();
        let paths = node.get("paths");
        let all = [Node::new(node.line, super::tree::Value::Text("/".to_owned()))];
        let items = if paths.items().is_empty() { &all[..] } else { paths.items() };
        let (mut mappings, mut lost) = (Vec::new(), Vec::new());
        for item in items {
            let Some(path) = item.text() else { continue };
            let made = match path.strip_prefix('~') {
                Some(regex) => of_regex(regex, strips, &service.base),
                None => of_path(path, strips, &service.base),
            };
            match made {
                Ok(made) => mappings.extend(made.into_iter().map(|it| (path.to_owned(), it))),
                Err(why) => {
                    let at = At { what: path, ..at };
                    at.leave(item, why, "write its route by hand", sheet);
                    // The one that stands for no paths at all is always carried over.
                    lost.extend(paths.texts().into_iter().filter(|it| *it == path));
                }
            }
        }
        (mappings, lost)
    }
}

/// What routes are chosen by that ours are not.
fn matchable(node: &Node) -> Result<(), (&'static str, &'static str)> {
    for key in ["headers", "snis", "sources", "destinations", "expression"] {
        if node.get(key).is_some() {
            let instead = "the route is left out: write one with a host or path of its own";
            return Err(("routes are chosen by host, path and method", instead));
        }
    }
    let is_wild = |host: &&str| host.ends_with(".*") || host.trim_start_matches("*.").contains('*');
    if node.get("hosts").texts().iter().any(is_wild) {
        return Err(("a host is one, or all below one", "write routes for the hosts it means"));
    }
    Ok(())
}

fn of_path(path: &str, strips: bool, base: &str) -> Result<Vec<Mapping>, &'static str> {
    if !base.is_empty() && !is_plain_path(base) {
        return Err("the path of its service holds characters that are written another way here");
    }
    let trimmed = if path == "/" { "/" } else { path.trim_end_matches('/') };
    if !strips || trimmed == "/" {
        let mut made = of_prefix(trimmed, None)?;
        for mapping in &mut made {
            mapping.replace = (!base.is_empty()).then(|| format!("{base}/{{path}}"));
        }
        return Ok(made);
    }
    let made = of_prefix(trimmed, Some(if base.is_empty() { "/" } else { base }))?;
    // Kong joins both with one slash, as it is done here.
    let keep = |mapping: Mapping| match base.is_empty() {
        true if mapping.path == trimmed => None,
        true => Some(Mapping { note: Some("whole segments are meant here"), ..mapping }),
        false => Some(mapping),
    };
    Ok(made.into_iter().filter_map(keep).collect())
}

fn of_regex(regex: &str, strips: bool, base: &str) -> Result<Vec<Mapping>, &'static str> {
    const WHY: &str = "a path pattern is made of whole segments, and this expression is not";
    let anchored = if regex.starts_with('^') { regex.to_owned() } else { format!("^{regex}") };
    let simple = Simple::parse(&anchored).ok_or(WHY)?;
    if strips {
        return Err("what an expression matches is not taken away here");
    }
    let replace = (!base.is_empty()).then(|| format!("{base}/{{path}}"));
    Ok(vec![Mapping { note: simple.note, ..Mapping::new(simple.path, replace) }])
}
