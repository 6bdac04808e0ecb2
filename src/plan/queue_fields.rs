//! Which fields of their requests queues keep, and those that none may.

use http::HeaderName;

use crate::config::{self, Config, OrderBy, Problems, Queue, SessionId, TokenSource, Verifier};
use crate::deliver::{NeverKept, dashed, never_kept};

/// The fields that are kept of the requests of a route beside those that are kept of all: those
/// that its queue names or orders by, and those that the rules of the route write. None in which a
/// client's credential may stand: what rules add to one stays behind with it.
pub(super) fn kept(config: &Config, route: &config::Route, queue: &Queue) -> Vec<HeaderName> {
    let rules = [&config.server.request_headers, &route.request_headers];
    let set = rules.iter().flat_map(|rules| &rules.set).map(|(name, _)| name);
    let added = rules.iter().flat_map(|rules| &rules.add).map(|(name, _)| name);
    let order = queue.order_by.iter().filter_map(|by| match by {
        OrderBy::Header(name) => Some(name),
        OrderBy::Claim(_) => None,
    });
    let of_clients = queue.keep_headers.iter().chain(order).chain(added);
    let harmless = of_clients.filter(|name| credential(config, name).is_none());
    let mut all: Vec<HeaderName> = harmless.chain(set).cloned().collect();
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
    let mut refuse = |at: String, field: &HeaderName, remedy: &str| {
        let Some(why) = credential(config, field) else { return };
        problems.push(at, format!("{:?} {why}", field.as_str()), remedy);
    };
    if let Some(OrderBy::Header(field)) = &queue.order_by {
        let remedy = "name another field, or order by a claim, such as \"claim:sub\"";
        refuse(format!("queues.{name}.order_by"), field, remedy);
    }
    let delivers =
        |route: &config::Route| route.deliver.as_ref().is_some_and(|it| it.queue == name);
    let routes: Vec<_> = config.routes.iter().filter(|(_, route)| delivers(route)).collect();
    let remedy = "what is added lies beside what a client sent; write it into set";
    for (route, written) in &routes {
        for (field, _) in &written.request_headers.add {
            refuse(format!("routes.{route}.request_headers.add"), field, remedy);
        }
    }
    for (field, _) in config.server.request_headers.add.iter().filter(|_| !routes.is_empty()) {
        refuse("server.request_headers.add".to_owned(), field, remedy);
    }
}

fn refusal(config: &Config, field: &HeaderName) -> Option<String> {
    if never_kept(field) == Some(NeverKept::MadeAnew) {
        return Some("is made anew for each attempt, or belongs to one connection".into());
    }
    credential(config, field)
}

/// Why a client's field of this name may open something.
fn credential(config: &Config, field: &HeaderName) -> Option<String> {
    if never_kept(field) == Some(NeverKept::Credential) {
        return Some("opens something for whoever reads it, and would lie in the store".into());
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
