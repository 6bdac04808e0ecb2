//! Servers: where they listen, their names and certificates, and which one is for every name.

use super::super::pattern::Mapping;
use super::super::sheet::{FILL_IN, Left, Sheet, Table};
use super::super::write::{list, quoted};
use super::location::{Writer, all, close_guarded};
use super::parse::Directive;
use super::scope::{Scope, leave};
use super::site::Site;
use super::to_https::{self, Target, ToHttps};
use super::words::{Fate, fate};

/// Most names of one server.
const NAMES_MAX: usize = 100;

/// One server.
pub(super) struct Server<'d> {
    directive: &'d Directive,
    scope: Scope<'d>,
    names: Vec<String>,
    clear: Vec<String>,
    tls: Vec<String>,
    is_default: bool,
    is_behind_balancer: bool,
    /// What it does with requests in clear, where it sends all of them to https.
    leads: Option<ToHttps<'d>>,
    /// Whether it has names that cannot be written.
    loses_names: bool,
}

/// Reads one.
pub(super) fn read<'d>(
    directive: &'d Directive,
    around: &Scope<'d>,
    sheet: &mut Sheet,
) -> Server<'d> {
    let leads = to_https::of_server(directive.inner());
    let by_condition = leads.as_ref().is_some_and(|it| it.by_condition);
    let is_carried = |it: &Directive| by_condition && it.name == "if" && to_https::leads(it);
    let scope = around.enter_but(directive.inner(), &is_carried, sheet);
    let mut server = Server {
        directive,
        scope,
        names: Vec::new(),
        clear: Vec::new(),
        tls: Vec::new(),
        is_default: false,
        is_behind_balancer: false,
        leads,
        loses_names: false,
    };
    let mut any = false;
    for directive in directive.inner() {
        if matches!(directive.name.as_str(), "listen" | "server_name") {
            directive.seen.see();
        }
        match directive.name.as_str() {
            "listen" => {
                any = true;
                server.listen(directive, sheet);
            }
            "server_name" => server.name(directive, sheet),
            _ => {}
        }
    }
    if !any {
        server.clear.push("0.0.0.0:80".to_owned());
    }
    if server.is_redirect() {
        // Nobody else may ask what its locations say.
        for location in directive.inner().iter().filter(|it| it.name == "location") {
            server.scope.enter(location.inner(), sheet);
        }
    }
    server
}

impl<'d> Server<'d> {
    fn listen(&mut self, directive: &Directive, sheet: &mut Sheet) {
        let Some(address) = address(directive.arg(0)) else {
            let instead = "write an address with its port in server.listen";
            return leave(directive, "it is no address and port", instead, sheet);
        };
        self.is_default |= directive.has("default_server") || directive.has("default");
        self.is_behind_balancer |= directive.has("proxy_protocol");
        if directive.has("quic") {
            let instead = "put something that speaks HTTP/3 before the gateway, if it must be";
            leave(directive, "HTTP/1.1 and HTTP/2 are spoken", instead, sheet);
        }
        if directive.has("ssl") || directive.has("quic") {
            self.tls.push(address);
        } else {
            self.clear.push(address);
        }
    }

    fn name(&mut self, directive: &Directive, sheet: &mut Sheet) {
        for name in &directive.args {
            let inner = name.strip_prefix("*.").unwrap_or(name);
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
            match name.strip_prefix('.') {
                _ if name == "_" || name.is_empty() => {}
                Some(rest) if rest.bytes().all(is_plain) && self.names.len() < NAMES_MAX => {
                    self.names.extend([rest.to_owned(), format!("*.{rest}")]);
                }
                None if inner.bytes().all(is_plain) && self.names.len() < NAMES_MAX => {
                    self.names.push(name.clone());
                }
                _ if self.names.len() >= NAMES_MAX => {
                    self.loses_names = true;
                    let why = format!("a server has at most {NAMES_MAX} names here");
                    leave(directive, &why, "write routes without a host", sheet);
                }
                _ => {
                    self.loses_names = true;
                    let why = format!("{name} is neither one host nor all below one");
                    leave(directive, &why, "write routes for the hosts that it means", sheet);
                }
            }
        }
    }

    fn own(&self, name: &str) -> Option<&'d Directive> {
        self.directive.inner().iter().find(|directive| directive.name == name)
    }

    /// Whether all it does is to send clients to https.
    fn is_redirect(&self) -> bool {
        self.tls.is_empty() && self.leads.is_some()
    }

    /// Whether no request in clear gets anything but a redirect to https, or a refusal.
    fn serves_nothing_in_clear(&self) -> bool {
        self.leads.is_some() || to_https::only_refuses(self.directive.inner())
    }

    /// Where it listens, and its certificate.
    fn edge(&self, (site, is_default): (&Site<'_>, bool), sheet: &mut Sheet) {
        for address in &self.clear {
            sheet.listen(address.clone());
        }
        if self.tls.is_empty() {
            return;
        }
        let mut listen = sheet.tls().list_of("listen");
        listen
            .extend(self.tls.iter().filter(|it| !listen.contains(it)).cloned().collect::<Vec<_>>());
        // One listener takes both kinds of addresses.
        let all = listen.clone();
        listen.retain(|it| {
            let port = it.strip_prefix("0.0.0.0");
            port.is_none_or(|port| {
                !all.iter().any(|other| other.strip_prefix("[::]") == Some(port))
            })
        });
        sheet.tls().set("listen", list(&listen));
        let files = ["ssl_certificate", "ssl_certificate_key"].map(|name| self.scope.value(name));
        let [Some(cert), Some(key)] = files.map(|path| path.map(|path| site.file(path))) else {
            return;
        };
        let mut made = Table::new(format!("Of {}.", self.directive.at()));
        if [&cert, &key].iter().any(|path| !std::path::Path::new(path).is_file()) {
            made.head(format!("{FILL_IN}: put the files there."));
        }
        made.set("cert", quoted(&cert));
        made.set("key", quoted(&key));
        if is_default {
            made.note("Names that no certificate has get this one.");
            made.set("default", "true");
        }
        sheet.certificate(made);
    }
}

/// Where requests come in.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Listener<'s> {
    address: &'s str,
    is_tls: bool,
}

impl Listener<'_> {
    fn is_loopback(self) -> bool {
        let address = self.address.parse::<std::net::SocketAddr>();
        address.is_ok_and(|it| it.ip().is_loopback())
    }

    /// Whether whoever reaches the other one reaches this one.
    fn covers(self, other: Self) -> bool {
        let port = |it: &str| it.rsplit_once(':').map(|(_, port)| port.to_owned());
        let is_any = ["0.0.0.0:", "[::]:"].iter().any(|it| self.address.starts_with(it));
        self == other
            || (is_any && self.is_tls == other.is_tls && port(self.address) == port(other.address))
    }
}

impl Server<'_> {
    fn listeners(&self) -> impl Iterator<Item = Listener<'_>> {
        let clear = self.clear.iter().map(|address| Listener { address, is_tls: false });
        clear.chain(self.tls.iter().map(|address| Listener { address, is_tls: true }))
    }

    /// Whether only this machine reaches it.
    fn is_local(&self) -> bool {
        self.listeners().all(Listener::is_loopback)
    }

    /// Whether clients of these listeners would reach it here who did not reach it before. What
    /// is on port 80 of all addresses is for everybody.
    fn is_exposed(&self, all: &[Listener<'_>]) -> bool {
        let public = Listener { address: "0.0.0.0:80", is_tls: false };
        let reached = |other: &Listener<'_>| self.listeners().any(|own| own.covers(*other));
        let is_none = self.listeners().next().is_none();
        let others = || all.iter().filter(|it| !it.is_loopback());
        is_none || (!reached(&public) && !others().all(reached))
    }
}

/// `80`, `*:80`, `127.0.0.1:80` or `[::]:80` as an address with its port.
fn address(text: &str) -> Option<String> {
    let text = text.replace("localhost", "127.0.0.1");
    let whole = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("0.0.0.0:{text}")
    } else if let Some(port) = text.strip_prefix("*:") {
        format!("0.0.0.0:{port}")
    } else if text.contains(':') && !text.ends_with(']') {
        text
    } else {
        format!("{text}:80")
    };
    whole.parse::<std::net::SocketAddr>().ok().map(|address| address.to_string())
}

/// Writes the routes of all servers.
pub(super) fn write<'d>(servers: &[Server<'d>], site: &Site<'d>, body: u64, sheet: &mut Sheet) {
    let of_unknown = of_unknown_names(servers);
    for server in servers {
        let is_default = of_unknown.is_some_and(|default| std::ptr::eq(default, server));
        server.edge((site, is_default), sheet);
    }
    let has_tls = servers.iter().any(|server| !server.tls.is_empty());
    let is_clear = |server: &&Server<'_>| !server.clear.is_empty();
    let redirects = has_tls
        && servers.iter().filter(is_clear).all(Server::serves_nothing_in_clear)
        && servers.iter().filter(is_clear).any(|server| server.leads.is_some());
    if redirects {
        sheet.tls().note("Whoever asks in clear is sent to https, with a 308.");
        sheet.tls().set("redirect", "true");
    }
    balancers(servers, sheet);
    let serving = serving(servers, (has_tls, redirects), sheet);
    // Those of redirects are no way to what is served.
    let of_serving = serving.iter().flat_map(|it| it.listeners());
    let of_serving = of_serving.filter(|it| it.is_tls || !redirects);
    let of_others = servers.iter().filter(|_| !redirects).flat_map(Server::listeners);
    let listeners: Vec<Listener<'_>> = of_serving.chain(of_others).collect();
    let default = default(&serving, &listeners, redirects);
    routes(&serving, (default, &listeners), (site, body), sheet);
    if redirects {
        elsewhere(servers, (site, body), sheet);
    }
}

/// Whose certificate is for names that no certificate has. As nginx has it, the first server of TLS
/// is the default one, unless another one says that it is; one that rejects such handshakes shows
/// none.
fn of_unknown_names<'s, 'd>(servers: &'s [Server<'d>]) -> Option<&'s Server<'d>> {
    let mut of_tls = servers.iter().filter(|server| !server.tls.is_empty());
    let said = of_tls.clone().find(|server| server.is_default);
    let default = said.or_else(|| of_tls.next())?;
    let rejects = default.own("ssl_reject_handshake").is_some_and(|it| it.arg(0) == "on");
    (!rejects).then_some(default)
}

/// Redirects to https on another host, and what else stands beside redirects: one for all sends
/// each client to its own host.
fn elsewhere<'d>(servers: &[Server<'d>], (site, body): (&Site<'d>, u64), sheet: &mut Sheet) {
    let is_named = |name: &str| {
        let mut names = servers.iter().filter(|it| !it.tls.is_empty()).flat_map(|it| &it.names);
        names.any(|known| {
            known == name || known.strip_prefix('*').is_some_and(|end| name.ends_with(end))
        })
    };
    for server in servers {
        let Some(leads) = server.leads.as_ref().filter(|_| !server.clear.is_empty()) else {
            continue;
        };
        for location in &leads.challenges {
            let why = "everybody who asks in clear is sent to https";
            let instead = "order certificates by [server.tls.acme], or by another challenge";
            leave(location, why, instead, sheet);
        }
        let Target::Host(target) = leads.target else { continue };
        let others = server.names.iter().filter(|name| *name != target);
        let others: Vec<&str> = others.map(String::as_str).collect();
        let whose = match server.names.is_empty() {
            true => Some("every host".to_owned()),
            false => (!others.is_empty()).then(|| others.join(", ")),
        };
        if let Some(whose) = whose {
            sheet.left(Left {
                at: server.directive.at(),
                what: format!("a redirect of {whose} to https://{target}"),
                why: "who asks in clear is sent to the same host under https first".to_owned(),
                instead: "see that a certificate has the name, or leave it out of DNS".to_owned(),
            });
        }
        for name in others.into_iter().filter(|name| server.is_redirect() && !is_named(name)) {
            of_host(server, Some(name), (site, body, None), sheet);
        }
    }
}

/// Those that do more than to send clients to https.
fn serving<'s, 'd>(
    servers: &'s [Server<'d>],
    (has_tls, redirects): (bool, bool),
    sheet: &mut Sheet,
) -> Vec<&'s Server<'d>> {
    servers
        .iter()
        .filter(|server| {
            let leaves = server.is_redirect() && has_tls;
            let is_lost = match &server.leads {
                Some(leads) if has_tls => !redirects && (leaves || leads.is_of_clear),
                Some(leads) => leads.by_condition,
                None => false,
            };
            if is_lost {
                sheet.left(Left {
                    at: server.directive.at(),
                    what: "a redirect to https for some hosts".to_owned(),
                    why: "routes are the same in clear and over TLS, and some are served in clear"
                        .to_owned(),
                    instead: "write redirect = true in [server.tls], for all hosts".to_owned(),
                });
            }
            !leaves
        })
        .collect()
}

/// The routes of all servers, of which one is for every name.
fn routes<'d>(
    serving: &[&Server<'d>],
    (default, listeners): (usize, &[Listener<'_>]),
    (site, body): (&Site<'d>, u64),
    sheet: &mut Sheet,
) {
    let wildcards = serving.iter().any(|it| it.names.iter().any(|name| name.starts_with("*.")));
    for (at, server) in serving.iter().enumerate() {
        let mut hosts: Vec<Option<&str>> =
            server.names.iter().map(|it| Some(it.as_str())).collect();
        if at == default {
            // Its own names need routes only where a wildcard of another server covers them.
            if !(wildcards && serving.len() > 1) {
                hosts.clear();
            }
            hosts.push(None);
        }
        if hosts.is_empty() {
            let instead = "give it a host of its own";
            leave(server.directive, "no host is its own, and another one is first", instead, sheet);
        }
        if server.loses_names && at != default && guards(server.directive.inner()) {
            sheet.opened(Left {
                at: server.directive.at(),
                what: "hosts that cannot be written, of a server that guards".to_owned(),
                why: "the server for every name has them now".to_owned(),
                instead: "write routes with these guards for the hosts that it means".to_owned(),
            });
        }
        let shut = server.is_exposed(listeners).then_some(EXPOSED);
        if shut.is_some() {
            sheet.left(Left {
                at: server.directive.at(),
                what: "a server with listeners of its own".to_owned(),
                why: "routes are the same on all listeners: its routes answer 403".to_owned(),
                instead: "run a second gateway for it, or open the routes if all may reach them"
                    .to_owned(),
            });
        }
        for host in hosts {
            of_host(server, host, (site, body, shut), sheet);
        }
    }
}

/// Whether something in a block keeps requests out.
fn guards(block: &[Directive]) -> bool {
    block.iter().any(|it| {
        matches!(it.name.as_str(), "deny" | "auth_jwt")
            || matches!(fate(it), Fate::Guard(..))
            || (it.name == "return" && to_https::is_refusal(it))
            || guards(it.inner())
    })
}

const EXPOSED: &str = "it was not reached on all listeners, and routes are the same on all of them";

/// The server for every name: never one that only this machine reached, if there is another.
/// Where all others send clients to https, it is one that they are sent to.
fn default(serving: &[&Server<'_>], listeners: &[Listener<'_>], redirects: bool) -> usize {
    let first = |fits: &dyn Fn(&Server<'_>) -> bool| serving.iter().position(|it| fits(it));
    let of_tls = |it: &Server<'_>| redirects && !it.tls.is_empty() && !it.is_local();
    first(&|it| of_tls(it) && it.is_default)
        .or_else(|| first(&|it| of_tls(it) && !it.is_exposed(listeners)))
        .or_else(|| first(&|it| it.is_default && !it.is_local()))
        .or_else(|| first(&|it| !it.is_local() && !it.is_exposed(listeners)))
        .or_else(|| first(&|it| !it.is_local()))
        .or_else(|| first(&|it| it.is_default))
        .unwrap_or(0)
}

/// Networks of balancers that begin connections with the PROXY protocol.
fn balancers(servers: &[Server<'_>], sheet: &mut Sheet) {
    let Some(server) = servers.iter().find(|server| server.is_behind_balancer) else { return };
    let from: Vec<&str> = server.scope.all("set_real_ip_from").iter().map(|it| it.arg(0)).collect();
    let networks: Vec<String> = from
        .iter()
        .filter_map(|it| super::super::networks::network(it))
        .map(|it| it.to_string())
        .collect();
    if networks.is_empty() {
        sheet.left(Left {
            at: server.directive.at(),
            what: "listen … proxy_protocol".to_owned(),
            why: "nothing says which balancers send it".to_owned(),
            instead: "write their networks in server.proxy_protocol_from".to_owned(),
        });
    } else {
        sheet.server().note("Balancers that begin connections with the PROXY protocol.");
        sheet.server().set("proxy_protocol_from", list(&networks));
    }
}

/// The routes of a server for one of its hosts.
fn of_host<'d>(
    server: &Server<'d>,
    host: Option<&str>,
    (site, body, shut): (&Site<'d>, u64, Option<&'static str>),
    sheet: &mut Sheet,
) {
    let scheme = if sheet.has_tls() { "https" } else { "http" };
    let name = server.names.first().map(String::as_str);
    let writer = Writer { site, host, name, scheme, body, shut };
    let at = server.directive.at();
    if let Some(directive) = server.own("return") {
        let mut made = Table::default();
        writer.respond(&mut made, (directive, &directive.args), &server.scope, sheet);
        close_guarded(&mut made, &server.scope);
        return writer.put(Mapping::new("/*", None), made, &directive.at(), sheet);
    }
    let locations = all(server.directive.inner(), &server.scope, None, sheet);
    for rewrite in server.directive.inner().iter().filter(|it| it.name == "rewrite") {
        let simple = super::super::pattern::Simple::parse(rewrite.arg(0));
        if let Some((mapping, made)) = writer.rewrite(rewrite, None, &locations, sheet) {
            writer.put(mapping, made, &rewrite.at(), sheet);
        }
        if let Some(bare) = simple.and_then(|simple| simple.bare) {
            writer.as_others(&bare, &rewrite.at(), &locations, sheet);
        }
    }
    writer.write(&locations, sheet);
    let has_whole = locations.iter().any(|it| it.prefix() == Some("/"));
    if !has_whole && ["root", "try_files"].iter().any(|it| server.own(it).is_some()) {
        sheet.left(Left {
            at: at.clone(),
            what: "a server of files".to_owned(),
            why: "Portcullis serves no files: paths without a location answer 404".to_owned(),
            instead: "put a file server behind it, and name it as an upstream".to_owned(),
        });
    }
    // What this host does not have must not be looked for among the routes for every host.
    if host.is_some() && !sheet.has_route(host, "/*") {
        let mut made = Table::new("Nothing else is on this host.");
        made.set("respond", "{ status = 404 }");
        writer.put(Mapping::new("/*", None), made, &at, sheet);
    }
}
