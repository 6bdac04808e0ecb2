//! Which fields of their requests queues keep, and those that none may.

use http::HeaderName;

use crate::config::{self, Config, OrderBy, Problems, Queue, SessionId, TokenSource, Verifier};
use crate::deliver::{NeverKept, dashed, never_kept};

/// The fields that are kept of the requests of a route beside those that are kept of all: those
/// that its queue names or orders by, and those that the rules of the route write.
pub(super) fn kept(config: &Config, route: &config::Route, queue: &Queue) -> Vec<HeaderName> {
    let rules = [&config.server.request_headers, &route.request_headers];
    let written = rules.into_iter().flat_map(|rules| rules.set.iter().chain(&rules.add));
    let order = queue.order_by.iter().filter_map(|by| match by {
        OrderBy::Header(name) => Some(name),
        OrderBy::Claim(_) => None,
    });
    let named = queue.keep_headers.iter().chain(order);
    let mut all: Vec<HeaderName> = named.chain(written.map(|(name, _)| name)).cloned().collect();
    all.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    all.dedup();
    all
}

/// Fields that a queue names, and that must not wait in a store.
pub(super) fn check(config: &Config, (name, queue): (&str, &Queue), problems: &mut Problems) {
    for field in &queue.keep_headers {
        let Some(why) = refusal(config, field) else { continue };
        let what = format!("{:?} {why}", field.as_str());
        let remedy = "remove it; claims_to_headers tells upstreams who called".to_owned();
        problems.push(format!("queues.{name}.keep_headers"), what, remedy);
    }
}

fn refusal(config: &Config, field: &HeaderName) -> Option<String> {
    match never_kept(field) {
        Some(NeverKept::Credential) => {
            return Some("opens something for whoever reads it, and would lie in the store".into());
        }
        Some(NeverKept::MadeAnew) => {
            return Some("is made anew for each attempt, or belongs to one connection".into());
        }
        None => {}
    }
    let plain = dashed(field.as_str());
    let is_it = |name: &HeaderName| dashed(name.as_str()) == plain;
    let stands = |verifier: &Verifier| {
        let is_here = |from: &TokenSource| matches!(from, TokenSource::Header(it) if is_it(it));
        verifier.from.iter().any(is_here)
    };
    if let Some((name, _)) = config.auth.iter().find(|(_, verifier)| stands(verifier)) {
        return Some(format!("is where auth.{name} finds credentials: none lies in the store"));
    }
    let ids = config.session.iter().flat_map(|session| &session.id_from);
    let mut of_sessions = ids.filter(|id| matches!(id, SessionId::Header(it) if is_it(it)));
    of_sessions
        .next()
        .map(|_| "names a session, and whoever reads the store could go on in it".into())
}
