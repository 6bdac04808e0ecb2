//! What the log tells of a refusal beyond its code: the cause, what was missing, the limit and
//! whose it is, the key of `gateway.toml` that bounds it. Nothing of it reaches the client, and
//! nothing of it is a client's own text but the principal of a limit, which is short and plain.

use std::borrow::Cow;

use super::rejection::{Bound, Rejection, whole_seconds};
use super::request::{Received, Resolved};
use crate::auth::{Denied, Reason};
use crate::config::Config;
use crate::limit::Exceeded;
use crate::observe::access::{Line, Shown};
use crate::plan::Plan;
use crate::store::keys::{hex_digest, limit_parts};

/// Most values of one requirement that a line lists.
const WANTED_MAX: usize = 16;
/// The claim with the id of a session (OpenID Connect).
const SESSION_ID: &str = "sid";

/// See the module. Absent members have nothing to say.
#[derive(Debug, Default)]
pub(super) struct Why {
    cause: Option<&'static str>,
    claim: Option<String>,
    wanted: Vec<String>,
    bound: Option<Cow<'static, str>>,
    over: Option<Over>,
}

/// The limit that was exhausted.
#[derive(Debug)]
struct Over {
    limit: String,
    window: String,
    key: String,
    retry_after_s: u64,
}

impl Why {
    /// Everything that is known of why a request was refused.
    pub(super) fn of(rejection: &Rejection, received: &Received, resolved: &Resolved) -> Self {
        let plan = received.plan();
        let bound = rejection.bound().map(|bound| key_of(bound, plan, resolved));
        let mut why = Self { bound, ..Self::default() };
        match rejection {
            Rejection::Denied(denied) => {
                why.cause = denied.cause();
                why.claim = denied.claim().map(str::to_owned);
                why.wanted = wanted(denied, plan, verifier(plan, resolved));
                why.wanted.truncate(WANTED_MAX);
            }
            Rejection::Exceeded(Exceeded::Limit { limit, retry_after, key, .. }) => {
                let (principal, name, window) = limit_parts(key).unwrap_or(("-", limit, "-"));
                why.over = Some(Over {
                    limit: name.to_owned(),
                    window: window.to_owned(),
                    key: without_credentials(principal),
                    retry_after_s: whole_seconds(*retry_after),
                });
            }
            _ => {}
        }
        why
    }

    /// Nothing but the key that bounds what ended early.
    pub(super) fn bounded_by(bound: String) -> Self {
        Self { bound: Some(bound.into()), ..Self::default() }
    }

    /// The limit that was exhausted.
    pub(super) fn limit(&self) -> Option<&str> {
        self.over.as_ref().map(|over| over.limit.as_str())
    }

    /// Adds the members to a line, which shows no more of callers than it is to.
    pub(super) fn tell<'a>(&'a self, line: &mut Line<'a>, shown: &Shown) {
        line.cause = self.cause;
        line.claim = self.claim.as_deref();
        line.wanted = &self.wanted;
        line.bound = self.bound.as_deref();
        if let Some(over) = &self.over {
            line.limit = Some(&over.limit);
            line.limit_window = Some(&over.window);
            line.limit_key = Some(shown.principal(&over.key));
            line.retry_after_s = Some(over.retry_after_s);
        }
    }
}

/// A bound with the names of the request's route in it.
pub(super) fn key_of(bound: Bound<'_>, plan: &Plan, resolved: &Resolved) -> Cow<'static, str> {
    match bound {
        Bound::Key(key) => key.into(),
        Bound::Auth(key) => {
            format!("auth.{}.{key}", verifier(plan, resolved).unwrap_or("*")).into()
        }
        Bound::Jwks(verifier) => {
            let is_found = plan.verifiers.get(verifier).and_then(|it| it.remote());
            let is_found = is_found.is_some_and(|keys| keys.discovery.is_some());
            let key = if is_found { "issuer" } else { "jwks_url" };
            format!("auth.{verifier}.{key}").into()
        }
        Bound::Introspect(verifier) => format!("auth.{verifier}.introspect.url").into(),
        Bound::Block => blocking(plan, resolved).into(),
        Bound::Body => {
            let route = resolved.route(plan).filter(|route| route.written.body_bytes.is_some());
            route.map_or("server.limits.body_bytes".into(), |route| {
                format!("routes.{}.body_bytes", route.name).into()
            })
        }
        Bound::Route(key) => format!("routes.{}.{key}", resolved.route_name(plan)).into(),
        Bound::Clause(key) => format!("routes.{}.{key}", resolved.route_name(plan)).into(),
        Bound::Upstream(key) => format!("upstreams.{}.{key}", resolved.upstream_name(plan)).into(),
        Bound::UpstreamRequests => {
            let key = bound_of_requests(plan, resolved);
            format!("upstreams.{}.{key}", resolved.upstream_name(plan)).into()
        }
    }
}

/// Over HTTP/1.1, which has one request on each connection, mostly nobody writes `max_requests`.
fn bound_of_requests(plan: &Plan, resolved: &Resolved) -> &'static str {
    let upstream = plan.config.upstreams.get(resolved.upstream_name(plan));
    let is_one_each = upstream.is_some_and(|it| it.max_requests == it.max_connections);
    if is_one_each { "max_connections" } else { "max_requests" }
}

/// The limit of the route that blocks the client's address.
fn blocking(plan: &Plan, resolved: &Resolved) -> String {
    let config = &plan.config;
    let route = config.routes.get(resolved.route_name(plan));
    let blocks = |name: &&String| {
        let networks = config.limits.get(*name).map(|limit| &limit.block);
        networks
            .into_iter()
            .flatten()
            .any(|network| network.contains(&resolved.client.address.ip()))
    };
    let name = route.and_then(|route| route.limits.iter().find(blocks));
    format!("limits.{}.block", name.map_or("*", String::as_str))
}

/// The one verifier of the request's route; nothing where there are several.
fn verifier<'p>(plan: &'p Plan, resolved: &Resolved) -> Option<&'p str> {
    match plan.config.routes.get(resolved.route_name(plan))?.auth.as_ref()?.by.as_slice() {
        [only] => Some(only),
        _ => None,
    }
}

/// What would have been accepted in place of what the token says.
fn wanted(denied: &Denied, plan: &Plan, verifier: Option<&str>) -> Vec<String> {
    let written = |config: &Config| verifier.and_then(|name| config.auth.get(name).cloned());
    match denied {
        Denied::Insufficient { unmet, .. } => unmet.wanted.clone(),
        Denied::Invalid(Reason::Audience) => {
            written(&plan.config).map(|it| it.audience).unwrap_or_default()
        }
        Denied::Invalid(Reason::Issuer) => {
            written(&plan.config).and_then(|it| it.issuer).into_iter().collect()
        }
        Denied::Invalid(Reason::Algorithm) => {
            let accepted = written(&plan.config).map(|it| it.algorithms).unwrap_or_default();
            accepted.iter().map(|algorithm| format!("{algorithm:?}")).collect()
        }
        _ => Vec::new(),
    }
}

/// A principal whose parts open nothing: a session's id, also as the claim `sid`, and the value of
/// any header or cookie stand as their digests. Which of these open something is for the client and
/// the application to know; a name tells it of some alone.
pub fn without_credentials(principal: &str) -> String {
    let told = principal.split('|').map(|part| {
        let Some((kind, value)) = part.split_once('=') else { return Cow::Borrowed(part) };
        let opens = kind == "session"
            || kind.starts_with("header:")
            || kind.starts_with("cookie:")
            // A cookie may carry the same id, and opens the session without a token.
            || kind.rsplit_once("claim:").is_some_and(|(_, name)| {
                name == SESSION_ID || name.to_ascii_lowercase().contains("session")
            });
        if opens && !value.starts_with('#') {
            Cow::Owned(format!("{kind}=#{}", hex_digest(value.as_bytes())))
        } else {
            Cow::Borrowed(part)
        }
    });
    told.collect::<Vec<_>>().join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_in_the_log_opens_nothing() {
        for same in
            ["claim:sub=42", "users/claim:sub=42|address=192.0.2.1", "claim:side=a", "route=r"]
        {
            assert_eq!(without_credentials(same), same);
        }
        for (principal, kind) in [
            ("session=s3cret", "session=#"),
            ("header:x-api-key=s3cret", "header:x-api-key=#"),
            ("header:authorization=s3cret", "header:authorization=#"),
            ("header:x-tenant=s3cret", "header:x-tenant=#"),
            ("header:cookie=s3cret", "header:cookie=#"),
            ("cookie:visitor=s3cret", "cookie:visitor=#"),
            ("claim:sub=42|header:x-pass=s3cret", "claim:sub=42|header:x-pass=#"),
            ("claim:sid=s3cret", "claim:sid=#"),
            ("claim:session_id=s3cret", "claim:session_id=#"),
            ("users/claim:sid=s3cret|route=r", "users/claim:sid=#"),
            ("route=r|session=s3cret", "route=r|session=#"),
        ] {
            let told = without_credentials(principal);
            assert!(told.starts_with(kind) && !told.contains("s3cret"), "{told}");
            assert_eq!(without_credentials(&told), told, "a digest stays as it is");
        }
    }
}
