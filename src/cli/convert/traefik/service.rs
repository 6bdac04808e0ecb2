//! Services of Traefik: balancers, weighted ones, mirrors and fail-overs, as upstreams and what
//! routes say of them.

use super::super::effects::{At, Effects};
use super::super::sheet::{FILL_IN, Sheet, Table};
use super::super::tree::Node;
use super::super::write::{duration, quoted, table, time};

/// The services of a document.
pub(super) struct Services<'d> {
    pub(super) name: &'d str,
    pub(super) all: &'d Node,
}

/// Where a route's requests go.
#[derive(Debug, Clone, Default)]
pub(super) struct Target {
    keys: Vec<(&'static str, String)>,
    notes: Vec<String>,
    /// The Host that servers see, where it is not the client's.
    pub(super) host: Option<String>,
}

impl Target {
    /// Writes it into a route.
    pub(super) fn write(&self, made: &mut Table) {
        for note in &self.notes {
            made.note(note.clone());
        }
        for (key, value) in &self.keys {
            made.set(key, value.clone());
        }
    }

    /// One that answers nothing, because what it leads to is not there.
    fn nowhere(what: &str) -> Self {
        let notes = vec![format!("{FILL_IN}: {what}")];
        Self { keys: vec![("respond", "{ status = 503 }".to_owned())], notes, host: None }
    }
}

/// A name without the provider that it comes from.
pub(super) fn plain(name: &str) -> &str {
    name.split('@').next().unwrap_or(name)
}

impl Services<'_> {
    /// Where requests for a service go.
    pub(super) fn target(
        &self,
        of: &str,
        effects: &Effects,
        router: &Node,
        sheet: &mut Sheet,
    ) -> Target {
        let service = self.all.find(plain(of));
        let at = At { name: self.name, what: of };
        if let Some(made) = self.upstream(of, effects, sheet) {
            return Target {
                keys: vec![("upstream", quoted(&made.0))],
                host: made.1,
                ..Target::default()
            };
        }
        let weighted = service.find("weighted");
        if weighted.is_some() {
            return self.weighted(weighted, effects, at, sheet);
        }
        let mirroring = service.find("mirroring");
        if mirroring.is_some() {
            return self.mirroring(mirroring, effects, at, sheet);
        }
        let node = if service.is_some() { service } else { router };
        let instead = "write its servers as an upstream, and name it in the route";
        let why = "its servers do not stand in this file: the route answers 503";
        at.leave(node, why, instead, sheet);
        Target::nowhere(&format!("where service {of} is."))
    }

    /// The upstream of a balancer, or of two of which the second stands in; and the Host.
    fn upstream(
        &self,
        of: &str,
        effects: &Effects,
        sheet: &mut Sheet,
    ) -> Option<(String, Option<String>)> {
        let service = self.all.find(plain(of));
        let failover = service.find("failover");
        let (main, spare) = if failover.is_some() {
            let named = |key: &str| {
                let name = failover.find(key).text().unwrap_or_default();
                self.all.find(plain(name)).find("loadBalancer")
            };
            (named("service"), named("fallback"))
        } else {
            (service.find("loadBalancer"), service.find("nothing"))
        };
        if !main.is_some() {
            return None;
        }
        let mut made = Table::new(format!("Service {of}, {}:{}.", self.name, service.line));
        let mut servers = self.servers(main, false, of, sheet);
        servers.extend(self.servers(spare, true, of, sheet));
        if servers.is_empty() {
            made.head(format!("{FILL_IN}: no server of it can be used; name one."));
            servers.push(quoted("http://127.0.0.1:3000"));
        }
        made.set("servers", format!("[{}]", servers.join(", ")));
        made.set("balance", "\"round-robin\"");
        self.care(main, of, &mut made, sheet);
        for (key, value) in &effects.upstream {
            made.set(key, value.clone());
        }
        let passes = main.find("passHostHeader").text() != Some("false");
        let first = main.find("servers").items().first();
        let url = first.and_then(|server| server.find("url").text()).unwrap_or_default();
        let host = url.split("://").nth(1).and_then(|rest| rest.split('/').next());
        let host = host.filter(|_| !passes).map(str::to_owned);
        Some((sheet.named("upstreams", plain(of), made), host))
    }

    fn servers(
        &self,
        balancer: &Node,
        is_backup: bool,
        of: &str,
        sheet: &mut Sheet,
    ) -> Vec<String> {
        let at = At { name: self.name, what: of };
        let mut servers = Vec::new();
        for server in balancer.find("servers").items() {
            let url = server.find("url").text().unwrap_or_default();
            let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let scheme = match scheme {
                "h2c" => "http",
                scheme => scheme,
            };
            if !matches!(scheme, "http" | "https") || authority.is_empty() {
                at.leave_all(server, "a server has an http:// or https:// URL", "write it", sheet);
                continue;
            }
            if !path.is_empty() {
                let instead = "write it in rewrite of the route";
                at.leave(server, "a server has no path of its own", instead, sheet);
            }
            let port = match (authority.rsplit_once(':'), scheme) {
                (Some((_, port)), _) if !port.contains(']') => "",
                (_, "https") => ":443",
                _ => ":80",
            };
            let url = quoted(&format!("{scheme}://{authority}{port}"));
            let weight = server.find("weight").number().filter(|weight| *weight > 1);
            if weight.is_none() && !is_backup {
                servers.push(url);
                continue;
            }
            let mut entries = vec![("url", url)];
            entries.extend(weight.map(|weight| ("weight", weight.to_string())));
            entries.extend(is_backup.then(|| ("backup", "true".to_owned())));
            servers.push(table(&entries));
        }
        servers
    }

    fn care(&self, balancer: &Node, of: &str, made: &mut Table, sheet: &mut Sheet) {
        let at = At { name: self.name, what: of };
        let health = balancer.find("healthCheck");
        if health.is_some() {
            let path = health.find("path").text().unwrap_or("/");
            let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
            let mut entries = vec![("path", quoted(&path))];
            let interval = health.find("interval").text().and_then(time);
            let timeout = health.find("timeout").text().and_then(time);
            entries.extend(interval.map(|it| ("interval", duration(it))));
            let longest = interval.unwrap_or(std::time::Duration::from_secs(5));
            entries.extend(timeout.map(|it| ("timeout", duration(it.min(longest)))));
            made.set("health", table(&entries));
        }
        if balancer.find("sticky").is_some() {
            let instead = "write balance = \"hash:cookie:NAME\" with a cookie of the application, \
                           or \"hash:address\"";
            let why = "no cookie is set by the gateway";
            at.leave_all(balancer.find("sticky"), why, instead, sheet);
        }
        let transport = balancer.find("serversTransport");
        if transport.is_some() {
            let instead = "write timeouts and tls in [upstreams.NAME]; servers always prove who \
                           they are";
            at.leave_all(transport, "it is not converted", instead, sheet);
        }
    }

    fn weighted(
        &self,
        weighted: &Node,
        effects: &Effects,
        at: At<'_>,
        sheet: &mut Sheet,
    ) -> Target {
        let (mut arms, mut host) = (Vec::new(), None);
        for one in weighted.find("services").items() {
            let name = one.find("name").text().unwrap_or_default();
            let weight = one.find("weight").number().unwrap_or(1);
            match self.upstream(name, effects, sheet) {
                Some((upstream, told)) => {
                    host = host.or(told);
                    let weight = weight.min(10_000).to_string();
                    arms.push(table(&[("upstream", quoted(&upstream)), ("weight", weight)]));
                }
                None => {
                    let instead = "write its servers as an upstream";
                    at.leave_all(one, "a part of it is no load balancer", instead, sheet);
                }
            }
        }
        if arms.len() < 2 {
            return Target::nowhere("among which upstreams its requests are split.");
        }
        if weighted.find("sticky").is_some() {
            let instead = "write sticky = \"cookie:NAME\" or \"address\" on the route";
            let why = "no cookie is set by the gateway";
            at.leave_all(weighted.find("sticky"), why, instead, sheet);
        }
        let keys = vec![("split", format!("[{}]", arms.join(", ")))];
        Target { keys, host, ..Target::default() }
    }

    fn mirroring(&self, node: &Node, effects: &Effects, at: At<'_>, sheet: &mut Sheet) -> Target {
        let main = node.find("service").text().unwrap_or_default();
        let Some((upstream, host)) = self.upstream(main, effects, sheet) else {
            at.leave(node, "what it mirrors is no load balancer", "write its upstream", sheet);
            return Target::nowhere("where its requests go.");
        };
        let mut keys = vec![("upstream", quoted(&upstream))];
        let mut notes = Vec::new();
        for (number, mirror) in node.find("mirrors").items().iter().enumerate() {
            let name = mirror.find("name").text().unwrap_or_default();
            let percent = mirror.find("percent").number().unwrap_or(0).min(100);
            if percent == 0 {
                continue;
            }
            let made =
                if number == 0 { self.upstream(name, &Effects::default(), sheet) } else { None };
            let Some((to, _)) = made else {
                let instead = "copy from there, or to one alone";
                at.leave_all(mirror, "requests are copied to one upstream", instead, sheet);
                continue;
            };
            let yes = || "true".to_owned();
            let share = quoted(&format!("{percent}%"));
            notes.push(
                "Copies say who calls, and change things, as those of Traefik did.".to_owned(),
            );
            keys.push((
                "mirror",
                table(&[
                    ("upstream", quoted(&to)),
                    ("share", share),
                    ("identity", yes()),
                    ("unsafe_methods", yes()),
                ]),
            ));
        }
        Target { keys, notes, host }
    }
}
