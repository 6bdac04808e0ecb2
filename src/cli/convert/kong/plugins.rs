//! Plugins of Kong, where each one holds, and what it does.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::effects::{At, Effects, Verb, Way};
use super::super::leftover::INSTEAD;
use super::super::sheet::{Sheet, Table};
use super::super::tree::Node;
use super::super::write::{duration, list, quoted, rate, table};
use super::document::{Kong, fill_in, is_off, means};

/// Longest time that browsers remember a preflight.
const MAX_AGE_MAX: u64 = 2 * 60 * 60;

/// What is said of plugins that keep requests out.
const GUARDS: &str = "it guards, and is not carried over: the routes that it is on answer 403";
/// Plugins that keep nobody out: what they do may be left out, and the route stays open.
const HARMLESS: [&str; 30] = [
    "ai-proxy",
    "correlation-id",
    "cors",
    "datadog",
    "exit-transformer",
    "file-log",
    "forward-proxy",
    "graphql-proxy-cache-advanced",
    "grpc-gateway",
    "grpc-web",
    "http-log",
    "kafka-log",
    "loggly",
    "opentelemetry",
    "post-log",
    "prometheus",
    "proxy-cache",
    "proxy-cache-advanced",
    "rate-limiting",
    "rate-limiting-advanced",
    "request-size-limiting",
    "request-transformer",
    "request-transformer-advanced",
    "response-ratelimiting",
    "response-transformer",
    "response-transformer-advanced",
    "statsd",
    "syslog",
    "tcp-log",
    "zipkin",
];
/// Those that ask who it is. Without `anonymous` each of them must agree.
const AUTH: [&str; 2] = ["jwt", "key-auth"];

/// Plugins that hold for more than one route, and what consumers have.
pub(super) struct Plugins<'d> {
    name: &'d str,
    /// Those that name no route.
    around: Vec<&'d Node>,
    /// Those that stand with a consumer.
    of_consumers: Vec<&'d Node>,
    jwt: Vec<&'d Node>,
}

impl<'d> Plugins<'d> {
    /// Reads what stands beside the services.
    pub(super) fn read(kong: &Kong<'d>, sheet: &mut Sheet) -> Self {
        let (mut jwt, mut of_consumers) = (Vec::new(), Vec::new());
        for consumer in kong.root.get("consumers").items() {
            let who = consumer.looked_at().get("username").text().unwrap_or("a consumer");
            let at = At { name: kong.name, what: who };
            jwt.extend(consumer.get("jwt_secrets").items());
            of_consumers.extend(consumer.get("plugins").items());
            let keys = consumer.get("keyauth_credentials").items();
            for key in keys {
                let why = "API keys lie in the store, as digests, and in no file";
                let instead = format!("portcullis keys create makes a new one for {who:?}");
                at.leave_all(key, why, &instead, sheet);
            }
            for (name, node) in consumer.each() {
                let is_known =
                    ["username", "custom_id", "id", "tags", "jwt_secrets", "keyauth_credentials"]
                        .contains(&name.as_str());
                if !is_known && !node.items().is_empty() {
                    let what = format!("{name} of {who}");
                    let at = At { name: kong.name, what: &what };
                    let why = "consumers have no such thing here";
                    let instead = "docs/identity.md tells how callers are known";
                    at.leave_all(node, why, instead, sheet);
                }
            }
        }
        let around: Vec<&Node> = kong.root.get("plugins").items().iter().collect();
        attached(kong, &around, sheet);
        Self { name: kong.name, around, of_consumers, jwt }
    }

    /// What the plugins of a route do: its own, those of its service, those of all. Of one name the
    /// nearest counts.
    pub(super) fn of_route(
        &self,
        route: &'d Node,
        service: &'d Node,
        sheet: &mut Sheet,
    ) -> Effects {
        let is = |plugin: &Node, key: &str, node: &Node| {
            !plugin.get(key).is_some() || means(plugin.get(key), node)
        };
        let here = |plugin: &&Node| is(plugin, "route", route) && is(plugin, "service", service);
        let around = |of_route: bool, of_service: bool| {
            self.around.iter().copied().filter(here).filter(move |plugin| {
                plugin.get("route").is_some() == of_route
                    && plugin.get("service").is_some() == of_service
            })
        };
        let mut all: Vec<&Node> = around(true, true).collect();
        all.extend(route.get("plugins").items());
        all.extend(around(true, false));
        all.extend(service.get("plugins").items());
        all.extend(around(false, true));
        all.extend(around(false, false));
        // One that is switched off hides none that holds for more.
        all.retain(|plugin| {
            let is_off = is_off(plugin);
            if is_off {
                plugin.settle();
            }
            !is_off
        });
        // Limits count by callers only where these are known.
        let is_auth =
            |plugin: &Node| plugin.get("name").text().is_some_and(|it| AUTH.contains(&it));
        all.sort_by_key(|plugin| !is_auth(plugin));
        let mut effects = Effects::default();
        let mut done: Vec<&str> = Vec::new();
        let mut must: Vec<&Node> = Vec::new();
        for plugin in all {
            let Some(name) = plugin.get("name").text() else { continue };
            let at = At { name: self.name, what: name };
            if plugin.get("consumer").is_some() || plugin.get("consumer_group").is_some() {
                self.of_one(at, plugin, &mut effects, sheet);
                continue;
            }
            if done.contains(&name) {
                continue;
            }
            done.push(name);
            if is_auth(plugin) {
                must.push(plugin);
                told(at, plugin, &mut effects, sheet);
            }
            self.apply(at, plugin, &mut effects, sheet);
        }
        self.all_must(&must, &mut effects, sheet);
        for plugin in self.of_consumers.iter().filter(|plugin| !is_off(plugin)) {
            let at = At { name: self.name, what: plugin.get("name").text().unwrap_or("plugin") };
            self.of_one(at, plugin, &mut effects, sheet);
        }
        effects
    }

    /// Verifiers that must all agree in Kong, where one is enough here.
    fn all_must(&self, plugins: &[&Node], effects: &mut Effects, sheet: &mut Sheet) {
        let has_other = |plugin: &&Node| plugin.get("config").get("anonymous").is_some();
        let [first, _, ..] = plugins else { return };
        if plugins.iter().all(has_other) {
            return;
        }
        let at = At { name: self.name, what: "jwt and key-auth" };
        let why = "both must agree in Kong, and one is enough here";
        let instead = "the route answers 403; write the verifier that it needs in auth";
        at.leave(first, why, instead, sheet);
        effects.guard("a second verifier");
    }

    /// A plugin of one consumer: who that is, is known where callers are.
    fn of_one(&self, at: At<'_>, plugin: &Node, effects: &mut Effects, sheet: &mut Sheet) {
        let instead = "write tiers in [limits.NAME]";
        if HARMLESS.contains(&at.what) {
            return at.leave_all(plugin, "it is for one consumer alone", instead, sheet);
        }
        if effects.auth.is_empty() {
            // Nobody is known there, or it is closed already.
            return;
        }
        let instead = "the routes on which callers are known answer 403; write require on them";
        at.leave_all(plugin, "it guards against one consumer alone", instead, sheet);
        effects.guard(at.what);
    }

    fn apply(&self, at: At<'_>, plugin: &Node, effects: &mut Effects, sheet: &mut Sheet) {
        let config = plugin.looked_at().get("config");
        match at.what {
            "rate-limiting" | "rate-limiting-advanced" => limit(at, plugin, effects, sheet),
            "key-auth" => key_auth(config, effects, sheet),
            "jwt" => self.jwt(at, plugin, effects, sheet),
            "cors" => cors(at, config, effects, sheet),
            "proxy-cache" => cache(config, effects),
            "request-transformer" => transform(at, plugin, Way::Up, (effects, sheet)),
            "response-transformer" => transform(at, plugin, Way::Down, (effects, sheet)),
            "ip-restriction" => restrict(at, plugin, effects, sheet),
            "request-size-limiting" => size(config, effects),
            "correlation-id" => {
                let header = config.get("header_name").text().unwrap_or("Kong-Request-ID");
                if !header.eq_ignore_ascii_case("x-request-id") {
                    let instead = "read X-Request-Id, which every request has";
                    at.leave(plugin, "the id of a request is in X-Request-Id", instead, sheet);
                }
            }
            "request-termination" => terminate(config, effects),
            // The admin listener has metrics.
            "prometheus" => plugin.settle(),
            "acl"
            | "basic-auth"
            | "hmac-auth"
            | "ldap-auth"
            | "ldap-auth-advanced"
            | "oauth2"
            | "oauth2-introspection"
            | "openid-connect"
            | "session"
            | "mtls-auth"
            | "bot-detection"
            | "opa"
            | "pre-function"
            | "post-function"
            | "serverless-functions" => {
                let instead = "write auth and require on the route; see docs/identity.md";
                at.leave_all(plugin, GUARDS, instead, sheet);
                effects.guard(at.what);
            }
            "file-log" | "http-log" | "tcp-log" | "udp-log" | "syslog" | "loggly" | "datadog"
            | "statsd" => {
                let instead = "collect the access log and the metrics; see docs/logs.md";
                let why = "access lines go to standard output or a file";
                at.leave_all(plugin, why, instead, sheet);
            }
            "opentelemetry" | "zipkin" => {
                at.leave_all(plugin, "it is not converted", "write [telemetry.traces]", sheet);
            }
            _ => unknown(at, plugin, effects, sheet),
        }
    }

    fn jwt(&self, at: At<'_>, plugin: &Node, effects: &mut Effects, sheet: &mut Sheet) {
        let config = plugin.get("config");
        let from = places(config);
        for credential in &self.jwt {
            let key = credential.get("key").text().unwrap_or_default();
            let algorithm = credential.get("algorithm").text().unwrap_or("HS256");
            let mut made = Table::new("Plugin jwt. Tokens of the issuer that `key` names in Kong.");
            made.set("issuer", quoted(key));
            made.set("algorithms", list(&[algorithm]));
            match credential.get("secret").text().filter(|_| algorithm.starts_with("HS")) {
                Some(secret) => {
                    made.note("Better in the environment (env:NAME) or in a file (file:PATH).");
                    made.set("secret", quoted(secret));
                }
                None => {
                    credential.get("rsa_public_key");
                    made.note(fill_in("put rsa_public_key into this file."));
                    made.set(
                        "public_key_file",
                        quoted(&format!("{}.pem", super::super::sheet::plain_name(key))),
                    );
                }
            }
            if let Some(longest) = config.get("maximum_expiration").number().filter(|it| *it > 0) {
                made.set("max_age", duration(Duration::from_secs(longest)));
            }
            if !from.is_empty() {
                made.set("from", list(&from));
            }
            made.set("forward_token", "true");
            let name = sheet.named("auth", "jwt", made);
            if !effects.auth.contains(&name) {
                effects.auth.push(name);
            }
        }
        if self.jwt.is_empty() {
            let instead = "write [auth.NAME] with the issuer and its keys, and auth on the route";
            let why = "no consumer has jwt_secrets: the routes that it is on answer 403";
            at.leave_all(plugin, why, instead, sheet);
            effects.guard("jwt");
        }
    }
}

/// Takes away what Kong tells servers of consumers: a client's own must not come in its place.
fn told(at: At<'_>, plugin: &Node, effects: &mut Effects, sheet: &mut Sheet) {
    const FIELDS: [&str; 6] = [
        "x-consumer-id",
        "x-consumer-username",
        "x-consumer-custom-id",
        "x-consumer-groups",
        "x-credential-identifier",
        "x-anonymous-consumer",
    ];
    for name in FIELDS {
        // All of them are fields that rules may touch.
        let _ = effects.field(Way::Up, Verb::Remove, (name, ""));
    }
    let why = "servers are not told X-Consumer-… fields: those of clients are taken away";
    at.leave(plugin, why, "write claims_to_headers in [auth.NAME]", sheet);
}

/// One that is not carried over: it may be what kept others out.
fn unknown(at: At<'_>, plugin: &Node, effects: &mut Effects, sheet: &mut Sheet) {
    if HARMLESS.contains(&at.what) {
        return at.leave_all(plugin, "it is not converted", INSTEAD, sheet);
    }
    let why = "it is not known here, and may guard: the routes that it is on answer 403";
    at.leave_all(plugin, why, "guard them by auth, limits or require, then open them", sheet);
    effects.guard(at.what);
}

fn restrict(at: At<'_>, plugin: &Node, effects: &mut Effects, sheet: &mut Sheet) {
    let config = plugin.get("config");
    let texts = |key: &str| config.get(key).texts();
    let (deny, allow) = (texts("deny"), texts("allow"));
    let mut rules: Vec<(bool, &str)> = deny.into_iter().map(|it| (true, it)).collect();
    let is_closed = !allow.is_empty();
    rules.extend(allow.into_iter().map(|it| (false, it)));
    rules.extend(is_closed.then_some((true, "all")));
    effects.networks(&rules, (at, plugin), sheet);
}

/// Lists plugins that name a service, a route or a consumer that is not there.
fn attached(kong: &Kong<'_>, plugins: &[&Node], sheet: &mut Sheet) {
    let root = kong.root;
    let services = root.get("services").items();
    let of_services = || services.iter().flat_map(|service| service.get("routes").items());
    for plugin in plugins.iter().filter(|plugin| !is_off(plugin)) {
        let is_there = |key: &str| {
            let of = plugin.get(key);
            !of.is_some()
                || match key {
                    "service" => services.iter().any(|it| means(of, it)),
                    "route" => root
                        .get("routes")
                        .items()
                        .iter()
                        .chain(of_services())
                        .any(|it| means(of, it)),
                    _ => root.get("consumers").items().iter().any(|it| means(of, it)),
                }
        };
        if !["service", "route", "consumer"].iter().all(|key| is_there(key)) {
            let at = At { name: kong.name, what: plugin.get("name").text().unwrap_or("plugin") };
            let why = "what it is attached to does not stand in this file";
            let left = super::super::sheet::Left {
                at: format!("{}:{}", at.name, plugin.line),
                what: at.what.to_owned(),
                why: why.to_owned(),
                instead: "name its service, route or consumer, and convert again".to_owned(),
            };
            plugin.settle();
            sheet.opened(left);
        }
    }
}

/// Where tokens stand.
fn places(config: &Node) -> Vec<String> {
    let place = |kind: &str, key: &str| -> Vec<String> {
        let names = config.get(key).texts().into_iter();
        names.map(|name| format!("{kind}:{name}")).collect()
    };
    let mut from = place("header", "header_names");
    if from.is_empty()
        && (config.get("cookie_names").is_some() || config.get("uri_param_names").is_some())
    {
        from.push("header:authorization".to_owned());
    }
    from.extend(place("cookie", "cookie_names"));
    from.extend(place("query", "uri_param_names"));
    from
}

fn limit(at: At<'_>, plugin: &Node, effects: &mut Effects, sheet: &mut Sheet) {
    const WINDOWS: [(&str, u64); 6] = [
        ("second", 1),
        ("minute", 60),
        ("hour", 3_600),
        ("day", 86_400),
        ("month", 2_592_000),
        ("year", 31_536_000),
    ];
    let config = plugin.get("config");
    for (key, _) in WINDOWS {
        let count = config.get(key);
        if count.is_some() && count.number().is_none_or(|it| it == 0) {
            let why = format!("{key}: it is no number that can be counted to");
            at.leave(count, &why, "write allow in [limits.NAME]", sheet);
        }
    }
    let mut allow: Vec<String> = WINDOWS
        .iter()
        .filter_map(|(key, seconds)| rate(config.get(key).number()?, Duration::from_secs(*seconds)))
        .collect();
    let sizes = config.get("window_size").items().iter().filter_map(Node::number);
    let counts = config.get("limit").items().iter().filter_map(Node::number);
    allow.extend(
        counts.zip(sizes).filter_map(|(count, size)| rate(count, Duration::from_secs(size))),
    );
    let by = config.get("limit_by").text().or_else(|| config.get("identifier").text());
    let is_known = !matches!(by, Some("service" | "path" | "consumer-group"));
    if allow.is_empty() || !is_known {
        let instead = "write [limits.NAME] by hand; key may be route";
        let why = "it counts by what limits do not, or allows nothing";
        return at.leave_all(plugin, why, instead, sheet);
    }
    let has_auth = !effects.auth.is_empty();
    let key = match (by.unwrap_or("consumer"), config.get("header_name").text()) {
        ("header", Some(header)) => format!("header:{}", header.to_ascii_lowercase()),
        ("consumer" | "credential", _) if has_auth => "claim:sub".to_owned(),
        _ => "address".to_owned(),
    };
    let mut made = Table::new(
        "Plugin rate-limiting. Windows slide here: never more than this in any window of this \
         length.",
    );
    if matches!(by, None | Some("consumer" | "credential")) && !has_auth {
        made.note(
            "Kong counts consumers by their address where nobody is known; write claim:sub \
                   where callers are.",
        );
    }
    made.set("key", list(&[key]));
    made.set("allow", list(&allow));
    if config.get("policy").text() == Some("local") {
        made.note("policy: local. Each gateway counts for itself.");
        made.set("scope", "\"local\"");
    }
    if config.get("policy").text() == Some("redis") {
        let instead = "write its URL in [store]";
        at.leave(config.get("policy"), "Redis is named in one place", instead, sheet);
    }
    let name = sheet.named("limits", "rate", made);
    effects.limit(name);
}

fn key_auth(config: &Node, effects: &mut Effects, sheet: &mut Sheet) {
    let names = config.get("key_names").texts();
    let names = if names.is_empty() { vec!["apikey"] } else { names };
    let mut made = Table::new("Plugin key-auth. `portcullis keys create` makes keys.");
    made.set("api_keys", "true");
    let mut from: Vec<String> =
        names.iter().map(|name| format!("header:{}", name.to_ascii_lowercase())).collect();
    if config.get("key_in_query").is_true() {
        from.extend(names.iter().map(|name| format!("query:{name}")));
    }
    made.set("from", list(&from));
    if !config.get("hide_credentials").is_true() {
        made.set("forward_token", "true");
    }
    let name = sheet.named("auth", "keys", made);
    effects.auth.push(name);
}

fn cors(at: At<'_>, config: &Node, effects: &mut Effects, sheet: &mut Sheet) {
    let origins = config.get("origins");
    let is_origin = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:*[]".contains(&byte);
        text == "*" || text.split_once("://").is_some_and(|(_, host)| host.bytes().all(plain))
    };
    let (known, other): (Vec<&str>, Vec<&str>) =
        origins.texts().into_iter().partition(|text| is_origin(text));
    if !other.is_empty() {
        let instead = "name the origins; https://*.example.com is all below one";
        at.leave(origins, "origins are no expressions here", instead, sheet);
    }
    let known = if known.is_empty() && other.is_empty() { vec!["*"] } else { known };
    if known.is_empty() {
        return;
    }
    let is_any = known.contains(&"*");
    let mut entries = vec![("origins", list(&if is_any { vec!["*"] } else { known }))];
    if config.get("credentials").is_true() {
        if is_any {
            let instead = "name the origins, then write credentials = true";
            at.leave(
                config.get("credentials"),
                "every page would act with cookies",
                instead,
                sheet,
            );
        } else {
            entries.push(("credentials", "true".to_owned()));
        }
    }
    for (key, name) in [("headers", "headers"), ("expose", "exposed_headers")] {
        let names = config.get(name).texts();
        if !names.is_empty() {
            entries.push((key, list(&names)));
        }
    }
    if let Some(age) = config.get("max_age").number() {
        entries.push(("max_age", duration(Duration::from_secs(age.min(MAX_AGE_MAX)))));
    }
    effects.key("cors", table(&entries));
}

fn cache(config: &Node, effects: &mut Effects) {
    let ttl = Duration::from_secs(config.get("cache_ttl").number().unwrap_or(300));
    let mut entries = vec![("ttl", duration(ttl))];
    let codes = config.get("response_code").items().iter().filter_map(Node::number);
    let negative: BTreeMap<String, String> = codes
        .filter(|code| (400..=599).contains(code))
        .map(|code| (code.to_string(), duration(ttl)))
        .collect();
    if !negative.is_empty() {
        entries.push(("error_ttl", duration(ttl.max(Duration::from_secs(10)))));
        let negative: Vec<(String, String)> = negative.into_iter().collect();
        entries.push(("negative", table(&negative)));
    }
    effects.note(
        "Plugin proxy-cache. What responses say of caching holds, also where Kong would \
                  not have looked (cache_control).",
    );
    effects.key("cache", table(&entries));
}

fn transform(at: At<'_>, plugin: &Node, way: Way, (effects, sheet): (&mut Effects, &mut Sheet)) {
    for (step, node) in plugin.get("config").entries().iter().filter(|it| !it.1.each().is_empty()) {
        node.looked_at();
        let verb = match step.as_str() {
            "remove" => Some(Verb::Remove),
            "replace" | "add" => Some(Verb::Set),
            "append" => Some(Verb::Add),
            _ => None,
        };
        for (part, lines) in node.entries() {
            let lines = lines.items();
            let of_headers = verb.filter(|_| part == "headers");
            let Some(verb) = of_headers else {
                if !lines.is_empty() {
                    let instead = "write request_headers, response_headers or rewrite";
                    at.leave(node, &format!("{step} of {part} is not done here"), instead, sheet);
                }
                continue;
            };
            for line in lines {
                let text = line.text().unwrap_or_default();
                let (name, value) = text.split_once(':').unwrap_or((text, ""));
                if value.contains("$(") {
                    // A client's own must not come in its place.
                    let is_removed = effects.field(way, Verb::Remove, (name, "")).is_ok();
                    let why = match is_removed {
                        true => "there are no variables here: the field is taken away",
                        false => "there are no variables here",
                    };
                    let instead = "for claims of tokens write claims_to_headers in [auth.NAME]";
                    at.leave(line, why, instead, sheet);
                } else if let Err(why) = effects.field(way, verb, (name, value)) {
                    at.leave(line, why, "leave it out", sheet);
                }
            }
        }
    }
}

fn size(config: &Node, effects: &mut Effects) {
    let number = config.get("allowed_payload_size").number().unwrap_or(128).clamp(1, 1 << 20);
    let unit = match config.get("size_unit").text() {
        Some("bytes") => 1,
        Some("kilobytes") => 1 << 10,
        _ => 1 << 20,
    };
    effects.key("body_bytes", super::super::write::size((number * unit).min(1 << 40)));
}

fn terminate(config: &Node, effects: &mut Effects) {
    let status = config.get("status_code").number().unwrap_or(503);
    let status = if (200..=599).contains(&status) { status } else { 503 };
    let mut entries = vec![("status", status.to_string())];
    let message = config.get("message").text();
    let as_json = message.map(|text| format!("{{\"message\":{}}}", serde_json::Value::from(text)));
    let body = config.get("body").text().map(str::to_owned).or_else(|| as_json.clone());
    if let Some(body) = body {
        let kind = config.get("content_type").text().unwrap_or("application/json");
        entries.push(("body", quoted(&body)));
        entries.push(("content_type", quoted(kind)));
    }
    effects.respond = Some(table(&entries));
}
