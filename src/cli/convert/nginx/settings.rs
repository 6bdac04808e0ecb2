//! What a location says beside where its requests go: fields, limits, networks, tokens, cache,
//! compression, sizes; as keys of a route.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;

use super::super::networks::{is_everything, refused};
use super::super::sheet::{FILL_IN, Sheet, Table};
use super::super::write::{bucket, bytes, duration, list, quoted, size, table, time};
use super::parse::Directive;
use super::scope::{Scope, leave};
use super::site::Site;
use crate::forwarding::rules;

/// Largest body that can be allowed, in bytes: what stands for any size.
const BODY_MAX: u64 = 1 << 40;
/// How long stale responses are sent that nginx sends as long as it has them.
const STALE: Duration = Duration::from_secs(600);
/// The longest that a status from 400 on is kept unless it is written.
const ERROR_TTL: Duration = Duration::from_secs(10);

/// What a location says, and what of it is known.
pub(super) struct Settings<'s, 'd> {
    /// What holds in it.
    pub(super) scope: &'s Scope<'d>,
    /// What stands around.
    pub(super) site: &'s Site<'d>,
    /// `client_max_body_size` of all.
    pub(super) body: u64,
}

/// `client_max_body_size` in bytes; 1 MiB where nothing is written.
pub(super) fn body_bytes(scope: &Scope<'_>, sheet: &mut Sheet) -> u64 {
    let Some(directive) = scope.last("client_max_body_size") else { return 1 << 20 };
    match bytes(directive.arg(0)) {
        Some(0) => BODY_MAX,
        Some(bytes) => bytes.min(BODY_MAX),
        None => {
            leave(directive, "it is no size", "write body_bytes on the route", sheet);
            1 << 20
        }
    }
}

impl<'d> Settings<'_, 'd> {
    /// Keys of a route whose requests go to an upstream.
    pub(super) fn of_proxied(&self, made: &mut Table, sheet: &mut Sheet) {
        let body = body_bytes(self.scope, sheet);
        if body != self.body {
            made.set("body_bytes", size(body));
        }
        let upgrades = self.request_headers(made, sheet);
        self.limits(made, sheet);
        self.tokens(made, sheet);
        if upgrades {
            made.note("WebSockets, which the fields Upgrade and Connection let through.");
            made.set("upgrade", "[\"websocket\"]");
            if let Some(idle) = self.scope.value("proxy_read_timeout").and_then(time) {
                made.set("tunnel", table(&[("idle_timeout", duration(idle))]));
            }
        }
        self.cache(made, upgrades, sheet);
        self.compress(made);
    }

    /// Keys of every route.
    pub(super) fn of_all(&self, made: &mut Table, sheet: &mut Sheet) {
        self.response_headers(made, sheet);
    }

    /// Whether all clients are refused; else those that are become a limit's `block`.
    pub(super) fn networks(&self, made: &mut Table, sheet: &mut Sheet) -> bool {
        let rules = self.scope.all("allow");
        let Some(first) = rules.first() else { return false };
        let read: Vec<(bool, &str)> =
            rules.iter().map(|rule| (rule.name == "deny", rule.arg(0))).collect();
        let networks = match refused(&read) {
            Ok(networks) if networks.is_empty() => return false,
            Ok(networks) if is_everything(&networks) => return true,
            Ok(networks) => networks,
            Err(why) => {
                leave(first, &why, "the route answers 403; write block in [limits.NAME]", sheet);
                return true;
            }
        };
        if self.site.loses_clients {
            // The address of a proxy may be among those that pass.
            let why = "clients have the address of a proxy here: the route answers 403";
            let instead = "have the proxy send X-Forwarded-For, and name it in trusted_proxies";
            leave(first, why, instead, sheet);
            return true;
        }
        let name = sheet.block(&format!("allow and deny of {}", first.at()), &networks);
        add_limit(made, &name);
        false
    }

    /// proxy_set_header; whether a client may change the protocol.
    fn request_headers(&self, made: &mut Table, sheet: &mut Sheet) -> bool {
        let (mut set, mut remove) = (BTreeMap::new(), Vec::new());
        let mut upgrades = [false, false];
        for directive in self.scope.all("proxy_set_header") {
            let (name, value) = (directive.arg(0).to_ascii_lowercase(), directive.arg(1));
            match name.as_str() {
                "host" => {}
                "upgrade" => upgrades[0] |= value == "$http_upgrade",
                "connection" => upgrades[1] |= self.site.is_upgrade(value),
                _ if is_told_anyway(&name, value) => {}
                _ => match request_header(&name, value) {
                    Ok(Change::Nothing) => {}
                    Ok(Change::Remove) => remove.push(name),
                    Ok(Change::Set) => {
                        set.insert(name, quoted(value));
                    }
                    Err((why, instead)) if may_be_removed(&name) => {
                        // A client's own must not come in its place.
                        let why = format!("{why}: the field is taken away");
                        leave(directive, &why, instead, sheet);
                        remove.push(name);
                    }
                    Err((why, instead)) => leave(directive, why, instead, sheet),
                },
            }
        }
        write_headers(made, "request_headers", "set", (set, remove));
        upgrades == [true, true]
    }

    /// add_header and proxy_hide_header.
    fn response_headers(&self, made: &mut Table, sheet: &mut Sheet) {
        let (mut add, mut remove) = (BTreeMap::new(), Vec::new());
        let mut partly = false;
        for directive in self.scope.all("add_header") {
            let (name, value) = (directive.arg(0).to_ascii_lowercase(), directive.arg(1));
            if name == "content-type" {
                continue;
            }
            match response_header(&name, value) {
                Ok(false) => {}
                Ok(true) => {
                    partly |= !directive.has("always");
                    if add.insert(name, quoted(value)).is_some() {
                        let why = "the same field was there before, and one line of it is written";
                        leave(directive, why, "write both values in one line", sheet);
                    }
                }
                Err((why, instead)) => leave(directive, why, instead, sheet),
            }
        }
        for directive in self.scope.all("proxy_hide_header") {
            let name = directive.arg(0).to_ascii_lowercase();
            match name.parse::<HeaderName>() {
                Ok(name) if rules::forbidden_in_responses(&name).is_none() => {
                    remove.push(name.as_str().to_owned());
                }
                _ => leave(directive, "this field is not for rules", "leave it out", sheet),
            }
        }
        if partly {
            made.note(
                "Here on every answer, also on refusals; nginx does that with `always` alone.",
            );
        }
        write_headers(made, "response_headers", "add", (add, remove));
    }

    fn limits(&self, made: &mut Table, sheet: &mut Sheet) {
        for directive in self.scope.all("limit_req") {
            let zone = directive.option("zone").unwrap_or_default();
            let Some((key, count, per)) = self.site.rate(zone) else {
                leave(
                    directive,
                    "its zone is not carried over",
                    "write [limits.NAME] by hand",
                    sheet,
                );
                continue;
            };
            let burst = directive.option("burst").and_then(|it| it.parse().ok()).unwrap_or(0);
            let Some(allow) = bucket(*count, *per, burst) else {
                leave(directive, "the rate cannot be written", "write allow by hand", sheet);
                continue;
            };
            let mut limit = Table::new(format!(
                "limit_req of zone {zone}: {count} in {} on average, and {burst} more at once. One \
                 more than that is a 429{}.",
                duration(*per).trim_matches('"'),
                if self.scope.value("limit_req_status") == Some("429") {
                    ""
                } else {
                    ", not a 503"
                }
            ));
            let delays = burst > 0 && !directive.has("nodelay");
            if delays {
                limit.head("Requests of the burst pass at once: none is held back.");
            }
            limit.set("key", list(key));
            limit.set("allow", list(&[allow]));
            let name = sheet.named("limits", zone, limit);
            add_limit(made, &name);
        }
        for directive in self.scope.all("limit_conn") {
            let count = directive.arg(1).parse::<u32>().ok().filter(|count| *count > 0);
            let (Some(key), Some(count)) = (self.site.places(directive.arg(0)), count) else {
                leave(
                    directive,
                    "its zone is not carried over",
                    "write [limits.NAME] by hand",
                    sheet,
                );
                continue;
            };
            let mut limit = Table::new(format!(
                "limit_conn of zone {}: so many requests in progress at a time.",
                directive.arg(0)
            ));
            limit.set("key", list(key));
            limit.set("concurrent", count.to_string());
            let name = sheet.named("limits", directive.arg(0), limit);
            add_limit(made, &name);
        }
    }

    /// auth_jwt.
    fn tokens(&self, made: &mut Table, sheet: &mut Sheet) {
        let Some(directive) = self.scope.last("auth_jwt").filter(|it| it.arg(0) != "off") else {
            return;
        };
        let Some(file) = self.scope.value("auth_jwt_key_file") else {
            made.note(format!("{FILL_IN}: closed until [auth.jwt] says which keys tokens have."));
            made.set("respond", "{ status = 403 }");
            let why = "no file has its keys: the route answers 403";
            return leave(directive, why, "write [auth.jwt]", sheet);
        };
        let mut verifier = Table::new(format!("auth_jwt of {}.", directive.at()));
        verifier
            .note(format!("{FILL_IN}: the issuer and audience of the tokens, if they have some."));
        verifier.set("jwks_file", quoted(&self.site.file(file)));
        verifier.note(format!("{FILL_IN}: how the tokens are signed."));
        verifier.set("algorithms", "[\"RS256\"]");
        if let Some(from) = directive.option("token") {
            let place = [("$cookie_", "cookie:"), ("$arg_", "query:"), ("$http_", "header:")];
            let place = place.iter().find_map(|(variable, place)| {
                let name = from.strip_prefix(variable)?.replace('_', "-");
                let name = if *place == "header:" { name } else { name.replace('-', "_") };
                Some(format!("{place}{name}"))
            });
            match place {
                Some(place) => verifier.set("from", list(&[place])),
                None => leave(directive, "the token's place is not known", "write from", sheet),
            }
        }
        let name = sheet.named("auth", "jwt", verifier);
        made.set("auth", quoted(&name));
    }

    fn cache(&self, made: &mut Table, upgrades: bool, sheet: &mut Sheet) {
        let Some(directive) = self.scope.last("proxy_cache").filter(|it| it.arg(0) != "off") else {
            return;
        };
        if upgrades {
            let why = "a route that changes protocols is not cached";
            return leave(directive, why, "make a route of its own for what is cached", sheet);
        }
        for name in ["proxy_cache_bypass", "proxy_no_cache"] {
            for directive in self.scope.all(name) {
                let why = "variables do not choose what is cached";
                let instead = "have the upstream say Cache-Control: no-store or private";
                leave(directive, why, instead, sheet);
            }
        }
        if let Some(key) = self.scope.last("proxy_cache_key") {
            let whole = key.args.join("");
            let is_usual = |text: &str| {
                let names = ["$scheme", "$request_method", "$proxy_host", "$host", "$http_host"];
                let rest = names.iter().fold(text.to_owned(), |text, name| text.replace(name, ""));
                matches!(rest.as_str(), "$request_uri" | "$uri$is_args$args")
            };
            if !is_usual(&whole) {
                let why = "responses are kept by scheme, host, path, query and Vary";
                leave(key, why, "see partition and query of cache", sheet);
            }
        }
        let entries = self.lifetimes(sheet);
        made.note("proxy_cache. Responses are not kept for requests with an Authorization field.");
        made.set("cache", table(&entries));
    }

    fn lifetimes(&self, sheet: &mut Sheet) -> Vec<(&'static str, String)> {
        let (mut ttl, mut negative) = (None, BTreeMap::new());
        for valid in self.scope.all("proxy_cache_valid") {
            let Some((last, codes)) = valid.args.split_last() else { continue };
            let Some(lifetime) = time(last) else {
                leave(valid, "it is no time", "write ttl in cache", sheet);
                continue;
            };
            if codes.is_empty() {
                ttl = Some(lifetime);
            }
            for code in codes {
                match code.parse::<u16>() {
                    Ok(200) => ttl = Some(lifetime),
                    Ok(201..=399) => ttl = ttl.or(Some(lifetime)),
                    Ok(code @ 400..=599) => {
                        negative.insert(code.to_string(), lifetime);
                    }
                    _ => leave(valid, "statuses are named here", "write negative in cache", sheet),
                }
            }
        }
        let mut entries = Vec::new();
        entries.extend(ttl.map(|ttl| ("ttl", duration(ttl))));
        if let Some(longest) = negative.values().max().filter(|longest| **longest > ERROR_TTL) {
            entries.push(("error_ttl", duration(*longest)));
        }
        if !negative.is_empty() {
            let negative: Vec<(String, String)> =
                negative.into_iter().map(|(code, ttl)| (code, duration(ttl))).collect();
            entries.push(("negative", table(&negative)));
        }
        if let Some(stale) = self.scope.last("proxy_cache_use_stale") {
            if stale.has("updating") {
                entries.push(("stale_while_revalidate", duration(STALE)));
            }
            let is_error = |word: &String| word.starts_with("http_5") || word == "error";
            if stale.args.iter().any(is_error) {
                entries.push(("stale_if_error", duration(STALE)));
            }
        }
        entries
    }

    fn compress(&self, made: &mut Table) {
        if self.scope.value("gzip") != Some("on") {
            return;
        }
        let mut entries = vec![("private", "true".to_owned())];
        let types = self.scope.last("gzip_types").map(|it| it.args.clone()).unwrap_or_default();
        if !types.iter().any(|it| it == "*") {
            let mut all = vec!["text/html".to_owned()];
            all.extend(types.into_iter().filter(|it| it != "text/html" && it.contains('/')));
            entries.push(("types", list(&all)));
        }
        let least = self.scope.value("gzip_min_length").and_then(bytes).unwrap_or(20);
        entries.push(("min_bytes", size(least)));
        made.note("gzip, as nginx did it: for callers who say who they are, too.");
        made.set("compress", table(&entries));
    }
}

enum Change {
    Nothing,
    Set,
    Remove,
}

/// Fields in which the gateway tells the upstream the same by itself.
fn is_told_anyway(name: &str, value: &str) -> bool {
    match name {
        "x-forwarded-for" => matches!(value, "$proxy_add_x_forwarded_for" | "$remote_addr"),
        "x-forwarded-proto" => matches!(value, "$scheme" | "$http_x_forwarded_proto"),
        "x-forwarded-host" => matches!(value, "$host" | "$http_host"),
        "x-request-id" => matches!(value, "$request_id" | "$http_x_request_id"),
        _ => false,
    }
}

fn request_header(name: &str, value: &str) -> Result<Change, (&'static str, &'static str)> {
    if value == format!("$http_{}", name.replace('-', "_")) {
        return Ok(Change::Nothing);
    }
    let parsed: HeaderName = name.parse().map_err(|_| ("it is no field", "leave it out"))?;
    if name == "x-real-ip" || name == "x-forwarded-port" || name == "x-forwarded-server" {
        let instead = "let the application read X-Forwarded-For, -Proto and -Host";
        return Err(("the gateway tells who calls in X-Forwarded-For, -Proto and -Host", instead));
    }
    if rules::forbidden_in_requests(&[], &parsed).is_some() {
        return Err(("the gateway writes this field itself", "leave it out"));
    }
    if value.is_empty() {
        return Ok(Change::Remove);
    }
    if value.contains('$') {
        let instead = "for claims of tokens write claims_to_headers in [auth.NAME]";
        return Err(("there are no variables here", instead));
    }
    Ok(Change::Set)
}

/// Whether a rule may take a field away from requests.
fn may_be_removed(name: &str) -> bool {
    let parsed = name.parse::<HeaderName>();
    parsed.is_ok_and(|name| rules::forbidden_in_requests(&[], &name).is_none())
}

/// Whether the field is to be added.
fn response_header(name: &str, value: &str) -> Result<bool, (&'static str, &'static str)> {
    if matches!(value, "$upstream_cache_status" | "$request_id") {
        // Cache-Status and X-Request-Id are there anyway.
        let instead = "read Cache-Status and X-Request-Id, which are there anyway";
        return Err(("there are no variables here", instead));
    }
    let parsed: HeaderName = name.parse().map_err(|_| ("it is no field", "leave it out"))?;
    if rules::forbidden_in_responses(&parsed).is_some() {
        return Err(("the gateway or the upstream alone says this", "leave it out"));
    }
    if value.contains('$') {
        return Err(("there are no variables here", "let the application say it"));
    }
    Ok(!value.is_empty())
}

fn write_headers(
    made: &mut Table,
    key: &str,
    verb: &str,
    (lines, remove): (BTreeMap<String, String>, Vec<String>),
) {
    let mut entries = Vec::new();
    if !lines.is_empty() {
        let lines: Vec<(String, String)> = lines.into_iter().collect();
        entries.push((verb, table(&lines)));
    }
    if !remove.is_empty() {
        entries.push(("remove", list(&remove)));
    }
    if !entries.is_empty() {
        made.set(key, table(&entries));
    }
}

/// One more limit of a route.
pub(super) fn add_limit(made: &mut Table, name: &str) {
    let mut names = made.list_of("limits");
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
    made.set("limits", list(&names));
}

/// The type of what a location returns.
pub(super) fn content_type<'d>(scope: &Scope<'d>) -> &'d str {
    let own = |directive: &&&'d Directive| directive.arg(0).eq_ignore_ascii_case("content-type");
    let added = scope.all("add_header").iter().find(own).map(|directive| directive.arg(1));
    added.or_else(|| scope.value("default_type")).unwrap_or("text/plain")
}
