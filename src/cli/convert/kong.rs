//! Kong's declarative configuration: services with their routes, upstreams with their targets,
//! plugins and consumers, as a gateway.toml.

mod document;
mod plugins;
mod upstream;

use self::document::{Kong, Service};
use self::plugins::Plugins;
use super::effects::At;
use super::pattern::{Mapping, Simple, is_plain_path, of_prefix};
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
    let named = |node: &'_ Node| -> Option<String> { node.get("name").text().map(str::to_owned) };
    let by_name = services.iter().filter(|node| named(node).is_some());
    let services_by_name =
        by_name.filter_map(|node| Some((node.get("name").text()?, node))).collect();
    let kong = Kong { name, root, services: services_by_name };
    sheet.server().head(
        "Where clients reach the gateway. 8000 is where Kong listens unless its own configuration \
         says otherwise.",
    );
    sheet.listen("0.0.0.0:8000".to_owned());
    for (key, node) in root.entries() {
        if !KNOWN.contains(&key.as_str()) && node.items().iter().any(Node::is_some) {
            let at = At { name, what: key };
            at.leave(node, "it is not known here", "see docs/converting.md", sheet);
        }
    }
    certificates(&kong, sheet);
    let plugins = Plugins::read(&kong, sheet);
    for service in services {
        for route in service.get("routes").items() {
            kong.route(route, Some(service), &plugins, sheet);
        }
    }
    for route in root.get("routes").items() {
        let of = route.get("service");
        let of = of.text().or_else(|| of.get("name").text());
        let service = of.and_then(|of| kong.services.get(of).copied());
        kong.route(route, service, &plugins, sheet);
    }
    Ok(())
}

fn certificates(kong: &Kong<'_>, sheet: &mut Sheet) {
    for certificate in kong.root.get("certificates").items() {
        let at = At { name: kong.name, what: "certificates" };
        let why = "certificates are files here";
        let instead = "write them into files, and name these in [[server.tls.certificates]]";
        at.leave(certificate, why, instead, sheet);
    }
}

impl<'d> Kong<'d> {
    /// The routes that one of Kong's is.
    fn route(
        &self,
        node: &'d Node,
        service: Option<&'d Node>,
        plugins: &Plugins<'d>,
        sheet: &mut Sheet,
    ) {
        let label = node.get("name").text().unwrap_or("route");
        let at = At { name: self.name, what: label };
        if let Err((why, instead)) = matchable(node) {
            return at.leave(node, why, instead, sheet);
        }
        let service = service.and_then(|service| self.service(service));
        let Some(service) = service else {
            let why = "its service has no host and no url";
            return at.leave(node, why, "write a route with an upstream", sheet);
        };
        if !matches!(service.scheme.as_str(), "http" | "https") {
            let why = "only services of http and https are converted";
            return at.leave(node, why, "see docs/grpc.md", sheet);
        }
        if node.get("protocols").texts() == ["https"] {
            let instead = "write redirect = true in [server.tls]";
            at.leave(node, "routes are the same in clear and over TLS", instead, sheet);
        }
        let effects = plugins.of_route(node, service.node, sheet);
        let upstream = upstream::of_service(self.name, self.root, &service, &effects, sheet);
        let hosts = node.get("hosts").texts();
        let hosts: Vec<Option<&str>> =
            if hosts.is_empty() { vec![None] } else { hosts.into_iter().map(Some).collect() };
        let mut written = 0_usize;
        for mapping in self.mappings(node, &service, sheet) {
            for host in &hosts {
                written += 1;
                if written > PATTERNS_MAX {
                    let why = format!("one route has at most {PATTERNS_MAX} paths and hosts here");
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
                sheet.route(Route {
                    name: label.to_owned(),
                    host: host.map(str::to_owned),
                    path: mapping.path.clone(),
                    methods: node.get("methods").texts().into_iter().map(str::to_owned).collect(),
                    table: made,
                    at: format!("{}:{}", self.name, node.line),
                });
            }
        }
    }

    /// Its paths as patterns, and what becomes of them.
    fn mappings(&self, node: &Node, service: &Service<'_>, sheet: &mut Sheet) -> Vec<Mapping> {
        let at = At { name: self.name, what: node.get("name").text().unwrap_or("route") };
        let strips = !node.get("strip_path").is_some() || node.get("strip_path").is_true();
        let paths = node.get("paths");
        let all = [Node { line: node.line, value: super::tree::Value::Text("/".to_owned()) }];
        let items = if paths.items().is_empty() { &all[..] } else { paths.items() };
        let mut mappings = Vec::new();
        for item in items {
            let Some(path) = item.text() else { continue };
            let made = match path.strip_prefix('~') {
                Some(regex) => of_regex(regex, strips, &service.base),
                None => of_path(path, strips, &service.base),
            };
            match made {
                Ok(made) => mappings.extend(made),
                Err(why) => {
                    let at = At { what: path, ..at };
                    at.leave(item, why, "write its route by hand", sheet);
                }
            }
        }
        mappings
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
