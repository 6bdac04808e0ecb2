//! What stands around the servers of a configuration: its upstreams, the zones of its limits, and
//! the variables of its maps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::super::leftover::INSTEAD;
use super::super::sheet::{FILL_IN, Sheet, Table};
use super::super::write::{duration, list, quoted, table, time};
use super::parse::Directive;
use super::scope::{Scope, leave};

/// Most attempts that one request may have.
const ATTEMPTS_MAX: usize = 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Site<'d> {
    upstreams: BTreeMap<&'d str, &'d Directive>,
    /// What each zone counts by, and how much it allows in which time.
    rates: BTreeMap<String, (Vec<String>, u64, Duration)>,
    /// What each zone of limit_conn counts by.
    places: BTreeMap<String, Vec<String>>,
    /// Variables that say `upgrade` where a client wants to change the protocol.
    upgrades: BTreeSet<&'d str>,
    /// Where relative paths of files begin.
    pub(super) folder: PathBuf,
    /// Whether clients of proxies have other addresses here.
    pub(super) loses_clients: bool,
}

/// What proxy_pass says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pass {
    scheme: String,
    /// A host with its port, or the name of an upstream.
    pub(super) target: String,
    /// The path that follows, where there is one.
    pub(super) uri: Option<String>,
    /// Whether it is a server of gRPC.
    is_grpc: bool,
}

impl Pass {
    /// Reads grpc_pass; nothing where it cannot be one.
    pub(super) fn of_grpc(text: &str) -> Option<Self> {
        let (scheme, target) = text.split_once("://").unwrap_or(("grpc", text));
        let scheme = match scheme {
            "grpc" => "http",
            "grpcs" => "https",
            _ => return None,
        };
        let pass = Self::parse(&format!("{scheme}://{target}")).ok()?;
        pass.uri.is_none().then_some(Self { is_grpc: true, ..pass })
    }

    /// Reads it; the error says why it cannot be one.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("it has no http:// or https://")?;
        if !matches!(scheme, "http" | "https") {
            return Err("it is neither http:// nor https://");
        }
        if rest.starts_with("unix:") {
            return Err("upstreams are reached over TCP here");
        }
        let (target, uri) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if target.contains('$') || uri.contains('$') || target.is_empty() {
            return Err("it is made of variables, and upstreams are named here");
        }
        let uri = (!uri.is_empty()).then(|| uri.to_owned());
        let (scheme, target) = (scheme.to_owned(), target.to_owned());
        Ok(Self { scheme, target, uri, is_grpc: false })
    }
}

impl<'d> Site<'d> {
    /// Reads what is in the block of http.
    pub(super) fn read(block: &'d [Directive], sheet: &mut Sheet) -> Self {
        let mut site = Self::default();
        for directive in block {
            match directive.name.as_str() {
                "upstream" => {
                    directive.seen.see();
                    site.upstreams.insert(directive.arg(0), directive);
                }
                "limit_req_zone" => site.read_rate(directive, sheet),
                "limit_conn_zone" => {
                    directive.seen.see();
                    if let Some(key) = limit_key(directive.arg(0), directive, sheet) {
                        site.places.insert(zone(directive), key);
                    }
                }
                "map" => site.read_map(directive, sheet),
                "proxy_cache_path" if !directive.args.iter().any(|it| is_bound(it)) => {
                    directive.seen.see();
                }
                "proxy_cache_path" => {
                    directive.seen.see();
                    let why = "how much is kept is bounded for the store";
                    let instead = "write memory_cache_bytes in [store], or maxmemory in Redis";
                    leave(directive, why, instead, sheet);
                }
                _ => {}
            }
        }
        site
    }

    fn read_rate(&mut self, directive: &Directive, sheet: &mut Sheet) {
        directive.seen.see();
        let rate = directive.option("rate").unwrap_or_default();
        let (count, unit) = rate.split_once("r/").unwrap_or_default();
        let per = match unit {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            _ => Duration::ZERO,
        };
        match count.parse() {
            Ok(count) if count > 0 && !per.is_zero() => {
                if let Some(key) = limit_key(directive.arg(0), directive, sheet) {
                    self.rates.insert(zone(directive), (key, count, per));
                }
            }
            _ => leave(directive, "its rate is not known here", "write rate=10r/s", sheet),
        }
    }

    fn read_map(&mut self, map: &'d Directive, sheet: &mut Sheet) {
        map.seen.see();
        if map.arg(0) == "$http_upgrade" {
            self.upgrades.insert(map.arg(1));
        } else {
            let instead = "write routes of their own for the cases";
            leave(map, "there are no variables here", instead, sheet);
        }
    }

    /// A file that the source names, as the new one may name it from wherever it lies.
    pub(super) fn file(&self, path: &str) -> String {
        let whole = std::path::absolute(self.folder.join(path));
        whole.map_or_else(|_| path.to_owned(), |whole| whole.display().to_string())
    }

    /// Whether the value of a Connection field is there to change the protocol.
    pub(super) fn is_upgrade(&self, value: &str) -> bool {
        value.eq_ignore_ascii_case("upgrade")
            || value == "$http_connection"
            || self.upgrades.contains(value)
    }

    /// The rate of a zone.
    pub(super) fn rate(&self, zone: &str) -> Option<&(Vec<String>, u64, Duration)> {
        self.rates.get(zone)
    }

    /// What a zone of limit_conn counts by.
    pub(super) fn places(&self, zone: &str) -> Option<&Vec<String>> {
        self.places.get(zone)
    }

    /// The upstream that this leads to, as it is called in the file.
    pub(super) fn upstream(&self, pass: &Pass, scope: &Scope<'_>, sheet: &mut Sheet) -> String {
        let mut made = match self.upstreams.get(pass.target.as_str()) {
            Some(group) => group_table(group, &pass.scheme, sheet),
            None => {
                let name = if pass.is_grpc { "grpc_pass" } else { "proxy_pass" };
                let mut made = Table::new(format!("Where {name} {} leads.", pass.target));
                made.set("servers", list(&[url(&pass.scheme, &pass.target)]));
                made
            }
        };
        if pass.is_grpc {
            made.set("protocol", "\"h2\"");
        }
        times(&mut made, scope);
        retries(&mut made, scope, self.upstreams.contains_key(pass.target.as_str()), sheet);
        if pass.scheme == "https" {
            tls(&mut made, scope, self);
        }
        sheet.named("upstreams", &pass.target, made)
    }
}

/// Whether a word of proxy_cache_path says how much is kept, or how long.
fn is_bound(word: &str) -> bool {
    ["inactive=", "max_size=", "min_free="].iter().any(|begin| word.starts_with(begin))
}

fn zone(directive: &Directive) -> String {
    let zone = directive.option("zone").unwrap_or_default();
    zone.split(':').next().unwrap_or_default().to_owned()
}

/// What a zone counts by, in our words.
fn limit_key(key: &str, directive: &Directive, sheet: &mut Sheet) -> Option<Vec<String>> {
    let one = match key {
        "$binary_remote_addr" | "$remote_addr" => Some("address".to_owned()),
        "$jwt_claim_sub" => Some("claim:sub".to_owned()),
        _ => key.strip_prefix("$http_").map(|name| format!("header:{}", name.replace('_', "-"))),
    };
    let is_one = |text: &String| !text.contains('$');
    let one = one.filter(is_one);
    if one.is_none() {
        let why = "limits count by address, claim, header, session or route";
        leave(directive, why, "choose one of them for key in [limits.NAME]", sheet);
    }
    one.map(|one| vec![one])
}

/// `http://host:port`, with the port of the scheme where none is written.
fn url(scheme: &str, target: &str) -> String {
    let port_at = target.rfind(':').filter(|at| !target.get(*at..).unwrap_or("").contains(']'));
    let port = match (port_at, scheme) {
        (Some(_), _) => "",
        (None, "https") => ":443",
        (None, _) => ":80",
    };
    format!("{scheme}://{target}{port}")
}

fn group_table(group: &Directive, scheme: &str, sheet: &mut Sheet) -> Table {
    let mut made = Table::new(format!("The servers of upstream {}.", group.arg(0)));
    let mut servers = Vec::new();
    let mut balance = "\"round-robin\"".to_owned();
    let (mut fails, mut rest) = (None, None);
    for directive in group.inner() {
        match directive.name.as_str() {
            "server" => {
                servers.extend(server(directive, scheme, sheet));
                fails = directive.option("max_fails").or(fails);
                rest = directive.option("fail_timeout").or(rest);
            }
            "least_conn" | "random" => {
                made.note("The less busy of two servers, drawn at random.");
                balance = "\"p2c\"".to_owned();
            }
            "ip_hash" => balance = "\"hash:address\"".to_owned(),
            "hash" => match hash(directive.arg(0)) {
                Some(key) => balance = quoted(&format!("hash:{key}")),
                None => leave(
                    directive,
                    "servers are chosen by address, claim, header, cookie or path",
                    "write balance = \"hash:…\" with one of them",
                    sheet,
                ),
            },
            // Connections are kept anyway, and the state of servers is each gateway's.
            "keepalive" | "keepalive_timeout" | "keepalive_requests" | "keepalive_time"
            | "zone" => {}
            _ => leave(directive, "it is not known here", INSTEAD, sheet),
        }
    }
    if servers.is_empty() {
        made.head(format!("{FILL_IN}: no server of it can be used; name one."));
        servers.push(quoted("http://127.0.0.1:3000"));
    }
    let many = servers.len() > 1;
    made.set("servers", format!("[{}]", servers.join(", ")));
    made.set("balance", balance);
    eject(&mut made, many, fails, rest);
    made
}

/// max_fails and fail_timeout, where there is another server to go to.
fn eject(made: &mut Table, many: bool, fails: Option<&str>, rest: Option<&str>) {
    let count = fails.and_then(|fails| fails.parse::<u32>().ok());
    let rest = rest.and_then(time).filter(|rest| !rest.is_zero());
    if !many || count == Some(0) || count.is_none() && rest.is_none() {
        return;
    }
    made.note(
        "max_fails and fail_timeout: so many failures in a row take a server out for so long.",
    );
    let failures = count.unwrap_or(1).clamp(1, 1_000).to_string();
    let rest = duration(rest.unwrap_or(Duration::from_secs(10)));
    made.set("eject", table(&[("failures", failures), ("time", rest)]));
}

fn hash(key: &str) -> Option<String> {
    match key {
        "$remote_addr" | "$binary_remote_addr" => Some("address".to_owned()),
        "$request_uri" | "$uri" => Some("path".to_owned()),
        _ => {
            let cookie = key.strip_prefix("$cookie_").map(|name| format!("cookie:{name}"));
            let header = || {
                let name = key.strip_prefix("$http_")?.replace('_', "-");
                Some(format!("header:{name}"))
            };
            cookie.or_else(header).filter(|key| !key.contains('$'))
        }
    }
}

/// One server of an upstream, as `servers` has it.
fn server(directive: &Directive, scheme: &str, sheet: &mut Sheet) -> Option<String> {
    let address = directive.arg(0);
    if address.starts_with("unix:") || address.is_empty() {
        let instead = "let it listen on a port";
        leave(directive, "upstreams are reached over TCP here", instead, sheet);
        return None;
    }
    if directive.has("down") {
        return None;
    }
    for option in &directive.args {
        let name = option.split('=').next().unwrap_or_default();
        let is_unknown = ["slow_start", "max_conns", "resolve", "service", "route"].contains(&name);
        if is_unknown {
            let instead = "see slow_start, max_connections and names in docs/upstreams.md";
            leave(directive, &format!("{name} is not converted"), instead, sheet);
        }
    }
    let weight = directive.option("weight").and_then(|weight| weight.parse::<u32>().ok());
    let is_backup = directive.has("backup");
    let address = quoted(&url(scheme, address));
    if weight.is_none() && !is_backup {
        return Some(address);
    }
    let mut entries = vec![("url", address)];
    entries.extend(weight.map(|weight| ("weight", weight.to_string())));
    entries.extend(is_backup.then(|| ("backup", "true".to_owned())));
    Some(table(&entries))
}

fn times(made: &mut Table, scope: &Scope<'_>) {
    let read = |name: &str| scope.value(name).and_then(time).filter(|time| !time.is_zero());
    if let Some(connect) = read("proxy_connect_timeout") {
        made.set("connect_timeout", duration(connect));
    }
    // Whichever is longer: one that waits for both.
    let both = read("proxy_read_timeout").max(read("proxy_send_timeout"));
    if let Some(wait) = both {
        made.set("response_timeout", duration(wait));
        made.set("read_timeout", duration(wait));
    }
}

/// proxy_next_upstream, which nginx has where nothing is written.
fn retries(made: &mut Table, scope: &Scope<'_>, is_group: bool, sheet: &mut Sheet) {
    let written = scope.last("proxy_next_upstream");
    if !is_group || written.is_some_and(|it| it.has("off")) {
        return;
    }
    let mut on = vec!["connect".to_owned(), "refused".to_owned()];
    let words: Vec<&str> = match written {
        Some(directive) => directive.args.iter().map(String::as_str).collect(),
        None => vec!["error", "timeout"],
    };
    for word in words {
        match word {
            "error" | "invalid_header" => on.push("reset".to_owned()),
            "timeout" => on.push("timeout".to_owned()),
            "non_idempotent" => {
                if let Some(directive) = written {
                    let why = "a request that may have taken effect is not sent twice";
                    leave(directive, why, "have clients send an Idempotency-Key", sheet);
                }
            }
            _ => on.extend(word.strip_prefix("http_").map(str::to_owned)),
        }
    }
    on.dedup();
    let attempts = scope.value("proxy_next_upstream_tries").and_then(|text| text.parse().ok());
    let attempts = attempts.unwrap_or(2_usize).clamp(2, ATTEMPTS_MAX);
    made.note("proxy_next_upstream: a request that failed goes to another server.");
    made.set("retry", table(&[("attempts", attempts.to_string()), ("on", list(&on))]));
}

fn tls(made: &mut Table, scope: &Scope<'_>, site: &Site<'_>) {
    made.note(
        "Servers prove who they are here, always; nginx asks for that with proxy_ssl_verify.",
    );
    let keys = [
        ("ca_file", "proxy_ssl_trusted_certificate"),
        ("client_cert", "proxy_ssl_certificate"),
        ("client_key", "proxy_ssl_certificate_key"),
        ("server_name", "proxy_ssl_name"),
    ];
    let entry = |(key, name): (&'static str, &str)| {
        let value = scope.value(name)?;
        let value = if key == "server_name" { value.to_owned() } else { site.file(value) };
        Some((key, quoted(&value)))
    };
    let entries: Vec<(&str, String)> = keys.into_iter().filter_map(entry).collect();
    if !entries.is_empty() {
        made.set("tls", table(&entries));
    }
}
