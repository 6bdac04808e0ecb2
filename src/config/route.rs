//! `[routes.NAME]`: what is matched and what is done with it.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;
use toml::de::DeValue;

use super::cache::{self, Cache};
use super::clause::{self, Clause};
use super::compress::{self, Compress};
use super::cors::{self, Cors};
use super::events;
use super::grpc::{self, Grpc};
use super::header_rules::{self, HeaderRules};
use super::idempotency::{self, Idempotency};
use super::login::{self, Login};
use super::mirror::{self, Faults, Mirror};
use super::queue::{self, Answers, Deliver};
use super::reader::Section;
use super::rewrite::{self, Respond, Rewrite};
use super::signer::{self, Assertion};
use super::split::{self, Split};
use super::tunnel::{self, Tunnel};
use super::value::{
    Flaw, GIB, Mistake, Read, claim_name, duration, echo, flag, header_name, method, size, string,
    text,
};

/// `[routes.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `shop.example.com`, `*.example.com`, or any.
    pub host: Option<String>,
    /// Path pattern.
    pub path: String,
    /// Accepted methods; empty: any of the usual ones.
    pub methods: Vec<http::Method>,
    /// Name of the upstream; the base of `split`.
    pub upstream: String,
    /// The subject of its messages, where its upstream is reached over NATS.
    pub subject: Option<String>,
    /// Among which upstreams its requests are split; `None`: `upstream` gets all.
    pub split: Option<Split>,
    /// Which requests another upstream gets too; `None`: none.
    pub mirror: Option<Mirror>,
    /// Which requests fail or wait on purpose; `None`: none.
    pub faults: Option<Faults>,
    /// Who may pass; `None`: everybody.
    pub auth: Option<Auth>,
    /// Claim name to accepted values, any of.
    pub require: BTreeMap<String, Vec<String>>,
    /// What must hold beside that: `require` as a list.
    pub clauses: Vec<Clause>,
    /// Names of limits.
    pub limits: Vec<String>,
    /// Whether the session is attached.
    pub session: SessionUse,
    /// Whether responses are cached.
    pub cache: Option<Cache>,
    /// Which pages of other origins may call it; `None`: its upstream says so.
    pub cors: Option<Cors>,
    /// What the upstream is asked for in place of what the client asked for.
    pub rewrite: Option<Rewrite>,
    /// What is answered without an upstream, before anybody has to be admitted.
    pub respond: Option<Respond>,
    /// Largest request body, in bytes; `None`: `server.limits.body_bytes`.
    pub body_bytes: Option<u64>,
    /// From the request's head to that of its response; `None`: the upstream's timeouts alone.
    pub deadline: Option<Duration>,
    /// The field that tells the upstream how many milliseconds are left of `deadline`.
    pub deadline_header: Option<HeaderName>,
    /// Fields that its requests are given or lose on their way to the upstream.
    pub request_headers: HeaderRules,
    /// Fields that its responses are given or lose, whoever made them.
    pub response_headers: HeaderRules,
    /// Which responses are compressed; `None`: none.
    pub compress: Option<Compress>,
    /// Which requests take effect once for each `Idempotency-Key`; `None`: none.
    pub idempotency: Option<Idempotency>,
    /// What bounds gRPC calls; `None`: what bounds every request.
    pub grpc: Option<Grpc>,
    /// Path patterns that a successful unsafe request makes stale, beside its own URI.
    pub invalidates: Vec<String>,
    /// Longest pause within a stream of events.
    pub stream_timeout: Duration,
    /// What bounds its tunnels; `None`: no upgrade is allowed.
    pub tunnel: Option<Tunnel>,
    /// How its requests are delivered later; `None`: their callers wait for the upstream.
    pub deliver: Option<Deliver>,
    /// What the gateway itself answers, in place of an upstream.
    pub answers: Option<Answers>,
    /// The events that its requests bring.
    pub events: Vec<String>,
    /// Whose keys are published, or whose tokens are issued; `None`: the keys of all, or the only
    /// one that issues some.
    pub signer: Option<String>,
    /// The provider at which it has browsers log in, or of which it hears.
    pub provider: Option<String>,
    /// Where browsers without a session are sent: the path of a route with `answers = "login"`.
    pub login_at: Option<String>,
    /// Whether a log-out goes on at the provider from which the session comes.
    pub provider_logout: bool,
    /// What its upstream is told of the caller by a token of the gateway's own.
    pub assertion: Option<Assertion>,
    /// What it says of sessions that the gateway makes.
    pub login: Login,
}

impl Route {
    /// Whether it tells what became of deliveries.
    pub fn answers_deliveries(&self) -> bool {
        self.answers == Some(Answers::Deliveries)
    }

    /// Whether its requests bring events.
    pub fn answers_events(&self) -> bool {
        self.answers == Some(Answers::Events)
    }

    /// The names of all upstreams that may take its requests.
    pub fn upstreams(&self) -> impl Iterator<Item = &str> {
        let arms = self.split.iter().flat_map(|split| split.arms.iter().map(|arm| &*arm.upstream));
        let alone = self.split.is_none().then_some(&*self.upstream);
        alone.into_iter().chain(arms)
    }
}

/// `auth = "users"`, `auth = ["users", "partners"]` or `auth = { by = …, optional = true }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Names of the verifiers, at least one; a token's issuer chooses among several.
    pub by: Vec<String>,
    /// Whether a request without a token passes as anonymous.
    pub optional: bool,
}

/// `session = false | true | "required"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionUse {
    /// Not looked up.
    Off,
    /// Attached when there is one.
    Attach,
    /// 401 without one.
    Required,
}

/// Reads `[routes.NAME]`.
pub(super) fn read(route: &mut Section<'_>) -> Route {
    let by_name = |value: &DeValue<'_>| Ok(Auth { by: auth_names(value)?, optional: false });
    // With a split, the upstream is in there: one mistake is not reported twice. Who answers by
    // itself needs none.
    let upstream = if ["split", "respond", "answers"].iter().any(|key| route.has(key)) {
        route.get("upstream", text)
    } else {
        route.need("upstream", "\"NAME\", one of [upstreams]", text)
    };
    let split = split::read(route);
    let base = split.as_ref().and_then(|split| split.arms.first()).map(|arm| arm.upstream.clone());
    Route {
        host: route.get("host", text),
        path: route.need("path", "\"/products/*\"", text).unwrap_or_default(),
        methods: route.list("methods", method).unwrap_or_default(),
        upstream: base.or(upstream).unwrap_or_default(),
        subject: route.get("subject", text),
        split,
        mirror: route.optional("mirror", mirror::read_mirror).flatten(),
        faults: route.optional("faults", mirror::read_faults),
        auth: route.either("auth", by_name, read_auth),
        require: read_require(route),
        clauses: clause::read_all(route, "require"),
        limits: route.list_or_empty("limits", text),
        session: route.or("session", SessionUse::Off, session_use),
        cache: route.optional("cache", cache::read),
        cors: route.optional("cors", cors::read),
        rewrite: route.optional("rewrite", rewrite::read_rewrite),
        respond: route.optional("respond", rewrite::read_respond),
        body_bytes: route.get("body_bytes", size(1..=1024 * GIB)),
        deadline: route.get("deadline", duration),
        deadline_header: route.get("deadline_header", |value| {
            header_name(string(value, "the name of a header in quotes")?)
        }),
        request_headers: route.section("request_headers", header_rules::read),
        response_headers: route.section("response_headers", header_rules::read),
        compress: compress::read(route),
        idempotency: route.optional("idempotency", idempotency::read),
        grpc: route.optional("grpc", grpc::read),
        invalidates: route.list_or_empty("invalidates", text),
        stream_timeout: route.or("stream_timeout", Duration::from_secs(60 * 60), duration),
        tunnel: tunnel::read(route),
        deliver: queue::read_deliver(route),
        answers: queue::read_answers(route),
        events: events::read_names(route),
        signer: route.get("signer", text),
        provider: route.get("provider", text),
        login_at: route.get("login", text),
        provider_logout: route.or("provider_logout", false, flag),
        assertion: route.optional("assertion", signer::read_assertion).flatten(),
        login: login::read(route),
    }
}

/// `require` as a table; nothing where it is a list of clauses.
fn read_require(route: &mut Section<'_>) -> BTreeMap<String, Vec<String>> {
    if route.has_list("require") {
        return BTreeMap::new();
    }
    route.map("require", claim_name, |values| values.list_of(text))
}

/// `{ by = "users", optional = true }`
fn read_auth(auth: &mut Section<'_>) -> Option<Auth> {
    let by = auth.need("by", "\"NAME\", one of [auth]", auth_names);
    let optional = auth.or("optional", false, flag);
    by.map(|by| Auth { by, optional })
}

/// One name, or a list of them.
fn auth_names(value: &DeValue<'_>) -> Read<Vec<String>> {
    match value.as_array() {
        None => Ok(vec![text(value)?]),
        Some(names) if names.is_empty() => {
            Err(Mistake::new("is an empty list", "name at least one"))
        }
        Some(names) => names.iter().map(|name| text(name.get_ref())).collect(),
    }
}

fn session_use(value: &DeValue<'_>) -> Read<SessionUse> {
    const EXAMPLE: &str = "true, false or \"required\"";
    match value {
        DeValue::Boolean(true) => Ok(SessionUse::Attach),
        DeValue::Boolean(false) => Ok(SessionUse::Off),
        DeValue::String(text) if text == "required" => Ok(SessionUse::Required),
        DeValue::String(text) => {
            let what = format!("{} is not a choice here", echo(text));
            let flaw = Flaw::Choice(vec!["required".to_owned()]);
            Err(Mistake::new(what, format!("write {EXAMPLE}")).of(flaw))
        }
        other => Err(Mistake::wrong_type(other, EXAMPLE, EXAMPLE)),
    }
}
