//! Middlewares of Traefik, in their order.

use std::time::Duration;

use super::super::effects::{At, Effects, Verb, Way};
use super::super::pattern::{Simple, is_plain_path};
use super::super::sheet::{Sheet, Table};
use super::super::tree::Node;
use super::super::write::{bucket, duration, list, quoted, size, table, time};
use super::service::plain;

/// How deep chains may lie in each other.
const DEPTH_MAX: usize = 16;
/// Most middlewares of one router.
const MIDDLEWARES_MAX: usize = 100;

/// The middlewares of a document.
pub(super) struct Middlewares<'d> {
    pub(super) name: &'d str,
    pub(super) all: &'d Node,
}

/// What becomes of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Path {
    strip: Vec<String>,
    add: String,
    whole: Option<String>,
    regex: Option<(String, String)>,
}

impl Path {
    /// The key of `rewrite` and its value, for a pattern; nothing where paths stay as they are.
    pub(super) fn rewrite(
        &self,
        pattern: &str,
    ) -> Result<Option<(&'static str, String)>, &'static str> {
        if let Some(whole) = &self.whole {
            return Ok(Some(("replace", whole.clone())));
        }
        if let Some((regex, to)) = &self.regex {
            const WHY: &str = "the path that it replaces is not the pattern of its route";
            let simple = Simple::parse(regex).ok_or(WHY)?;
            let to = to.replace("${", "$").replace('}', "");
            let made = simple.template(&to).filter(|_| simple.path == pattern).ok_or(WHY)?;
            return Ok(Some(("replace", made)));
        }
        let (base, open) = match pattern.strip_suffix("/*") {
            Some(base) => (base, true),
            None => (pattern, false),
        };
        let is_begin = |prefix: &&String| {
            base.strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let stripped = self.strip.iter().find(is_begin);
        if stripped.is_none() && !self.strip.is_empty() {
            return Err("the prefix that it takes away is not the one of its route");
        }
        Ok(match (stripped, self.add.as_str()) {
            (None, "") => None,
            (None, add) => Some(("replace", format!("{add}/{{path}}"))),
            (Some(prefix), "") => Some(("strip_prefix", prefix.clone())),
            (Some(prefix), add) => {
                let between = base.strip_prefix(prefix.as_str()).unwrap_or_default();
                let rest = if open { "/{rest}" } else { "" };
                Some(("replace", format!("{add}{between}{rest}")))
            }
        })
    }
}

impl Middlewares<'_> {
    /// Gathers what these do; whether all they do is to send clients to https.
    pub(super) fn apply(
        &self,
        names: &[&str],
        (effects, path): (&mut Effects, &mut Path),
        (router, https): (&Node, bool),
        sheet: &mut Sheet,
    ) -> bool {
        let mut flat = Vec::new();
        self.flatten(names, 0, &mut flat);
        if flat.len() >= MIDDLEWARES_MAX {
            let at = At { name: self.name, what: "middlewares" };
            let why = format!("one router has at most {MIDDLEWARES_MAX} here");
            at.leave(router, &why, "the route answers 403; split it", sheet);
            effects.guard("more middlewares than are read");
        }
        let mut leads = false;
        for name in flat {
            let named = self.all.find(plain(name));
            let Some((kind, node)) = named.entries().first() else {
                let at = At { name: self.name, what: name };
                let instead = "put it into this file, and convert again";
                let why = "this middleware does not stand in this file: the route answers 403";
                at.leave(router, why, instead, sheet);
                effects.guard(name);
                continue;
            };
            node.looked_at();
            let at = At { name: self.name, what: name };
            if kind.eq_ignore_ascii_case("redirectScheme") {
                let to = node.find("scheme").text().unwrap_or("https");
                leads |= https && to == "https";
                if !leads {
                    let status = if node.find("permanent").is_true() { "301" } else { "302" };
                    let place = quoted(&format!("{to}://{{host}}/{{path}}"));
                    let status = status.to_owned();
                    effects.respond = Some(table(&[("status", status), ("location", place)]));
                }
                continue;
            }
            if !of_path(at, kind, node, (path, sheet)) {
                one(at, (kind, node), effects, sheet);
            }
        }
        leads
    }

    fn flatten<'n>(&'n self, names: &[&'n str], depth: usize, flat: &mut Vec<&'n str>) {
        for name in names {
            let chain = self.all.find(plain(name)).find("chain").find("middlewares");
            if chain.is_some() && depth < DEPTH_MAX {
                self.flatten(&chain.texts(), depth + 1, flat);
            } else if flat.len() < MIDDLEWARES_MAX {
                flat.push(name);
            }
        }
    }
}

/// Middlewares that change paths; whether this is one.
fn of_path(at: At<'_>, kind: &str, node: &Node, (path, sheet): (&mut Path, &mut Sheet)) -> bool {
    match kind.to_ascii_lowercase().as_str() {
        "stripprefix" => {
            let prefixes = node.find("prefixes").texts().into_iter();
            path.strip.extend(prefixes.map(|it| it.trim_end_matches('/').to_owned()));
            path.strip.retain(|prefix| !prefix.is_empty());
        }
        "addprefix" => {
            let prefix = node.find("prefix").text().unwrap_or_default().trim_end_matches('/');
            if is_plain_path(prefix) {
                path.add = format!("{}{prefix}", path.add);
            } else {
                at.leave(node, "the prefix is no plain path", "write rewrite by hand", sheet);
            }
        }
        "replacepath" => {
            let whole = node.find("path").text().unwrap_or_default();
            if is_plain_path(whole) {
                path.whole = Some(whole.to_owned());
            } else {
                at.leave(node, "it is no plain path", "write rewrite by hand", sheet);
            }
        }
        "replacepathregex" => {
            let text = |key: &str| node.find(key).text().unwrap_or_default().to_owned();
            path.regex = Some((text("regex"), text("replacement")));
        }
        _ => return false,
    }
    true
}

fn one(at: At<'_>, (kind, node): (&str, &Node), effects: &mut Effects, sheet: &mut Sheet) {
    match kind.to_ascii_lowercase().as_str() {
        "ratelimit" => rate_limit(at, node, effects, sheet),
        "inflightreq" => {
            if let Some(amount) = node.find("amount").number().filter(|it| *it > 0) {
                let mut made = Table::new("inFlightReq: so many requests in progress at a time.");
                made.set("key", list(&[counted(at, node, sheet)]));
                made.set("concurrent", amount.min(1_000_000).to_string());
                effects.limit(sheet.named("limits", at.what, made));
            }
        }
        "headers" => headers(at, node, effects, sheet),
        "ipallowlist" | "ipwhitelist" => allow(at, node, effects, sheet),
        "compress" => compress(at, node, effects, sheet),
        "retry" => {
            let attempts = node.find("attempts").number().unwrap_or(2).clamp(2, 10).to_string();
            let mut entries =
                vec![("attempts", attempts), ("on", list(&["connect", "refused", "reset"]))];
            let pause = node.find("initialInterval").text().and_then(time);
            entries.extend(pause.filter(|it| !it.is_zero()).map(|it| ("backoff", duration(it))));
            effects.upstream.push(("retry".to_owned(), table(&entries)));
        }
        "circuitbreaker" => breaker(at, node, effects, sheet),
        "buffering" => {
            let bytes = node.find("maxRequestBodyBytes").number().filter(|it| *it > 0);
            if let Some(bytes) = bytes {
                effects.key("body_bytes", size(bytes.min(1 << 40)));
            }
            let is_size = |name: &str| name.eq_ignore_ascii_case("maxRequestBodyBytes");
            for (name, other) in node.entries().iter().filter(|it| !is_size(&it.0)) {
                let why = format!("{name}: bodies are streamed, and not held");
                at.leave_all(other, &why, "leave it out", sheet);
            }
        }
        _ => not_carried(at, (kind, node), effects, sheet),
    }
}

/// Lists one that is not carried over, and closes what it guards.
fn not_carried(at: At<'_>, (kind, node): (&str, &Node), effects: &mut Effects, sheet: &mut Sheet) {
    match kind.to_ascii_lowercase().as_str() {
        "contenttype" => {
            let instead = "let the application say Content-Type";
            at.leave_all(node, "content types pass as they are", instead, sheet);
        }
        "grpcweb" => {
            at.leave_all(node, "it is not converted", "docs/grpc.md tells what is there", sheet);
        }
        "forwardauth" | "basicauth" | "digestauth" | "plugin" => {
            let instead = "verify tokens or API keys with [auth.NAME]; see docs/identity.md";
            let why = format!("{kind} guards, and is not carried over: its routes answer 403");
            at.leave_all(node, &why, instead, sheet);
            effects.guard(at.what);
        }
        "errors" => {
            let instead = "let the application answer its own errors";
            at.leave_all(node, "errors have one form here, JSON of RFC 9457", instead, sheet);
        }
        "redirectregex" => {
            let instead = "write respond with a location on a route for what it means";
            at.leave_all(node, "a location is made of the pieces of a path", instead, sheet);
        }
        _ => unknown(at, (kind, node), effects, sheet),
    }
}

/// Networks that pass.
fn allow(at: At<'_>, node: &Node, effects: &mut Effects, sheet: &mut Sheet) {
    let mut rules: Vec<(bool, &str)> =
        node.find("sourceRange").texts().into_iter().map(|it| (false, it)).collect();
    rules.push((true, "all"));
    effects.networks(&rules, (at, node), sheet);
    let strategy = node.find("ipStrategy");
    if strategy.is_some() {
        // The address of a proxy may be among those that pass.
        let why = "the client is the address that is believed: the route answers 403";
        let instead = "name the proxies before the gateway in server.trusted_proxies";
        at.leave_all(strategy, why, instead, sheet);
        effects.guard(at.what);
    }
}

/// One that is not carried over: it may be what kept others out.
fn unknown(at: At<'_>, (kind, node): (&str, &Node), effects: &mut Effects, sheet: &mut Sheet) {
    if kind.eq_ignore_ascii_case("passTLSClientCert") {
        let instead = "write client_auth, and name what servers are told of it";
        return at.leave_all(node, "certificates of clients are not passed on", instead, sheet);
    }
    let why = format!("{kind} is not known here, and may guard: its routes answer 403");
    at.leave_all(node, &why, "guard them by auth, limits or require, then open them", sheet);
    effects.guard(at.what);
}

/// What a limit counts by.
fn counted(at: At<'_>, node: &Node, sheet: &mut Sheet) -> String {
    let criterion = node.find("sourceCriterion");
    if let Some(name) = criterion.find("requestHeaderName").text() {
        return format!("header:{}", name.to_ascii_lowercase());
    }
    if criterion.find("requestHost").is_true() || criterion.find("ipStrategy").is_some() {
        let instead = "name the proxies before the gateway in server.trusted_proxies";
        at.leave_all(criterion, "the client is the address that is believed", instead, sheet);
    }
    "address".to_owned()
}

fn rate_limit(at: At<'_>, node: &Node, effects: &mut Effects, sheet: &mut Sheet) {
    let average = node.find("average").number().unwrap_or(0);
    let period = node.find("period").text().and_then(time).unwrap_or(Duration::from_secs(1));
    let burst = node.find("burst").number().unwrap_or(1).max(1);
    // 0 is no limit.
    let allow = bucket(average, period, burst - 1).filter(|_| average > 0);
    let Some(allow) = allow else {
        if node.find("average").text().is_some_and(|it| it != "0") {
            let why = "it is no rate that can be written";
            at.leave_all(node, why, "write allow in [limits.NAME]", sheet);
        }
        return;
    };
    let mut made = Table::new(format!(
        "rateLimit: {average} in {} on average, {burst} at once.",
        duration(period).trim_matches('"')
    ));
    made.set("key", list(&[counted(at, node, sheet)]));
    made.set("allow", list(&[allow]));
    effects.limit(sheet.named("limits", at.what, made));
}

fn compress(at: At<'_>, node: &Node, effects: &mut Effects, sheet: &mut Sheet) {
    let mut entries = vec![("private", "true".to_owned())];
    let types = node.find("includedContentTypes").texts();
    if !types.is_empty() {
        entries.push(("types", list(&types)));
    }
    let least = node.find("minResponseBodyBytes").number();
    entries.extend(least.map(|least| ("min_bytes", size(least.min(1 << 30)))));
    let excluded = node.find("excludedContentTypes");
    if excluded.is_some() {
        at.leave_all(excluded, "types that are compressed are named", "write types", sheet);
    }
    effects.note("compress: for callers who say who they are, too.");
    effects.key("compress", table(&entries));
}

fn breaker(at: At<'_>, node: &Node, effects: &mut Effects, sheet: &mut Sheet) {
    let text = node.find("expression").text().unwrap_or_default();
    let one = ["NetworkErrorRatio()", "ResponseCodeRatio(500, 600, 0, 600)"];
    let rest = one.iter().find_map(|name| text.trim().strip_prefix(name));
    let share = rest.and_then(|rest| rest.trim().strip_prefix('>'));
    let share = share.and_then(|share| share.trim().parse::<f64>().ok());
    let Some(share) = share.filter(|share| (0.0..1.0).contains(share)) else {
        let instead = "write [upstreams.NAME.breaker]";
        return at.leave_all(node, "it opens by the share of failures alone", instead, sheet);
    };
    let percent = (share * 100.0).round().clamp(1.0, 100.0);
    let mut entries = vec![("failures", quoted(&format!("{percent}%")))];
    let open = node.find("fallbackDuration").text().and_then(time);
    entries.extend(open.filter(|it| !it.is_zero()).map(|it| ("open", duration(it))));
    effects.upstream.push(("breaker".to_owned(), table(&entries)));
}

/// Fields by their names, of which Traefik knows some by names of its own.
fn headers(at: At<'_>, node: &Node, effects: &mut Effects, sheet: &mut Sheet) {
    const FIXED: [(&str, &str, &str); 3] = [
        ("frameDeny", "x-frame-options", "DENY"),
        ("contentTypeNosniff", "x-content-type-options", "nosniff"),
        ("browserXssFilter", "x-xss-protection", "1; mode=block"),
    ];
    const GIVEN: [(&str, &str); 5] = [
        ("customFrameOptionsValue", "x-frame-options"),
        ("referrerPolicy", "referrer-policy"),
        ("permissionsPolicy", "permissions-policy"),
        ("contentSecurityPolicy", "content-security-policy"),
        ("customBrowserXSSValue", "x-xss-protection"),
    ];
    let mut fields: Vec<(&Node, Way, String, String)> = Vec::new();
    for (key, inner) in node.entries() {
        let is = |name: &str| key.eq_ignore_ascii_case(name);
        let way = if is("customRequestHeaders") { Way::Up } else { Way::Down };
        if is("customRequestHeaders") || is("customResponseHeaders") {
            inner.looked_at();
            for (name, value) in inner.each() {
                let value = value.text().unwrap_or_default().to_owned();
                fields.push((inner, way, name.clone(), value));
            }
        } else if let Some((_, name, value)) = FIXED.iter().find(|(known, _, _)| is(known)) {
            if inner.looked_at().is_true() {
                fields.push((inner, Way::Down, (*name).to_owned(), (*value).to_owned()));
            }
        } else if let Some((_, name)) = GIVEN.iter().find(|(known, _)| is(known)) {
            let value = inner.looked_at().text().unwrap_or_default().to_owned();
            fields.push((inner, Way::Down, (*name).to_owned(), value));
        } else if is("stsSeconds") {
            inner.looked_at();
            fields
                .extend(sts(node, inner).map(|value| {
                    (inner, Way::Down, "strict-transport-security".to_owned(), value)
                }));
        }
    }
    for (inner, way, name, value) in fields {
        let verb = if value.is_empty() { Verb::Remove } else { Verb::Set };
        if let Err(why) = effects.field(way, verb, (&name, &value)) {
            at.leave(inner, &format!("{name}: {why}"), "leave it out", sheet);
        }
    }
    cors(at, node, effects, sheet);
}

fn sts(node: &Node, seconds: &Node) -> Option<String> {
    let seconds = seconds.number().filter(|seconds| *seconds > 0)?;
    let below =
        if node.find("stsIncludeSubdomains").is_true() { "; includeSubDomains" } else { "" };
    let preload = if node.find("stsPreload").is_true() { "; preload" } else { "" };
    Some(format!("max-age={seconds}{below}{preload}"))
}

fn cors(at: At<'_>, node: &Node, effects: &mut Effects, sheet: &mut Sheet) {
    let origins = node.find("accessControlAllowOriginList").texts();
    let regex = node.find("accessControlAllowOriginListRegex");
    if regex.is_some() {
        let instead = "name the origins; https://*.example.com is all below one";
        at.leave(regex, "origins are no expressions here", instead, sheet);
    }
    if origins.is_empty() {
        return;
    }
    let is_any = origins.contains(&"*");
    let mut entries = vec![("origins", list(&if is_any { vec!["*"] } else { origins }))];
    let credentials = node.find("accessControlAllowCredentials");
    if credentials.is_true() && is_any {
        let instead = "name the origins, then write credentials = true";
        at.leave(credentials, "every page would act with cookies", instead, sheet);
    } else if credentials.is_true() {
        entries.push(("credentials", "true".to_owned()));
    }
    for (key, name) in
        [("headers", "accessControlAllowHeaders"), ("expose", "accessControlExposeHeaders")]
    {
        let names = node.find(name).texts();
        if names.contains(&"*") {
            at.leave(node.find(name), "fields of pages are named", "name them in cors", sheet);
        } else if !names.is_empty() {
            entries.push((key, list(&names)));
        }
    }
    if let Some(age) = node.find("accessControlMaxAge").number() {
        entries.push(("max_age", duration(Duration::from_secs(age.min(7_200)))));
    }
    effects.key("cors", table(&entries));
}
