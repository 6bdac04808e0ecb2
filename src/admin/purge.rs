//! `/v1/cache/purge`: withdraws stored responses, at every gateway on the same store. One write per
//! scope, however much was stored under it.

use http::uri::PathAndQuery;
use http::{StatusCode, Uri};
use serde::Deserialize;
use serde_json::json;

use super::reply::{Effect, Fault, Reply, json as reply_json, parse, with_confirmed};
use crate::base::http::authority::Authority;
use crate::base::http::credentials::without_credentials;
use crate::base::http::path::canonical;
use crate::cache::{Scope, covering, is_group, is_tag};
use crate::caching::PurgeSeen;
use crate::plan::{Plan, distinct, sites};
use crate::runtime::{Gateway, Wrote};

const EXAMPLE: &str = concat!(
    r#"{"url": "http://host/a"}, {"path": "/a/*"}, {"tag": "a"}, {"host": "host"}, "#,
    r#"{"route": "name"}, {"group": "a", "origin": "http://host"} or {"all": true}, "#,
    r#"each also with "soft": true"#
);

/// What is gone where the store has no memory to note less.
const EVERYTHING: &str = "everything, as the store has no memory for a smaller purge";

/// What is to go: exactly one of `url`, `path`, `prefix`, `tag`, `host`, `route`, `group`, `all`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PurgeRequest {
    url: Option<String>,
    path: Option<String>,
    prefix: Option<String>,
    tag: Option<String>,
    /// The upstream whose tag it is; without it, those of all.
    upstream: Option<String>,
    host: Option<String>,
    route: Option<String>,
    group: Option<String>,
    /// Whose group it is (RFC 9875 §2).
    origin: Option<String>,
    #[serde(default)]
    all: bool,
    /// Whether what is stored is only to be confirmed by its upstream before it is used again.
    #[serde(default)]
    soft: bool,
}

impl PurgeRequest {
    /// What is named, in one word.
    fn scope(&self) -> &'static str {
        match self {
            Self { url: Some(_), .. } => "url",
            Self { path: Some(_), .. } | Self { prefix: Some(_), .. } => "path",
            Self { tag: Some(_), .. } => "tag",
            Self { host: Some(_), .. } => "host",
            Self { route: Some(_), .. } => "route",
            Self { group: Some(_), .. } => "group",
            _ => "all",
        }
    }
}

/// The epochs to change, and what that withdraws, in words.
struct Withdrawn {
    epochs: Vec<String>,
    what: String,
}

/// Carries a purge out, and says what is gone once the store shows it.
pub(super) async fn carry_out(gateway: &Gateway, body: &[u8]) -> Result<Reply, Fault> {
    let asked: PurgeRequest = parse(body, EXAMPLE)?;
    let running = gateway.running();
    let Withdrawn { epochs, what } = withdrawn(&asked, &running.plan)?;
    // Readers may be behind what has changed, and are not to say anew what is withdrawn.
    let is_marked = match Wrote::by_anybody(&running.plan) {
        Some(wrote) => gateway.pools.mark(&wrote).await.is_ok(),
        None => true,
    };
    let PurgeSeen { is_done, soft, everything } =
        gateway.cache.purge_and_look(&epochs, asked.soft).await?;
    // What failed, or made stale only, must not be withdrawn a moment later.
    if is_done && !soft && !is_marked {
        gateway.pools.invalidate_again(&epochs);
    }
    let (epochs, what) = if everything {
        (vec![gateway.cache.base_epoch().to_owned()], EVERYTHING)
    } else {
        (epochs, what.as_str())
    };
    if !is_done {
        return Err(Fault::Problem {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "purge_not_kept",
            detail: "The store does not show the change that it accepted. Repeat the request."
                .to_owned(),
        });
    }
    gateway.observer.metrics.operations().purged(asked.scope());
    let answer = json!({ "purged": what, "soft": soft, "epochs": &epochs });
    let answer = with_confirmed(answer, gateway.store.confirm(&epochs).await);
    let mut reply = reply_json(StatusCode::OK, &answer);
    reply.extensions_mut().insert(Effect("purged", without_credentials(what).into_owned()));
    Ok(reply)
}

fn withdrawn(asked: &PurgeRequest, plan: &Plan) -> Result<Withdrawn, Fault> {
    let named = [&asked.url, &asked.path, &asked.prefix, &asked.tag];
    let named = named.into_iter().chain([&asked.host, &asked.route, &asked.group]);
    if named.flatten().count() + usize::from(asked.all) != 1 {
        return Err(wrong("Name exactly one thing to purge."));
    }
    if asked.upstream.is_some() && asked.tag.is_none() {
        return Err(wrong("\"upstream\" says whose tag it is, and goes with \"tag\" alone."));
    }
    if asked.origin.is_some() != asked.group.is_some() {
        return Err(wrong("\"group\" and \"origin\" go together: a group is one origin's."));
    }
    if let Some(url) = &asked.url {
        return of_url(url, plan);
    }
    if let Some(prefix) = asked.path.as_ref().or(asked.prefix.as_ref()) {
        return of_prefix(prefix, plan);
    }
    if let Some(tag) = &asked.tag {
        return of_tag(tag, asked.upstream.as_deref(), plan);
    }
    if let Some(host) = &asked.host {
        let wrong = || wrong(&format!("{host:?} is no host."));
        let authority = Authority::parse(host.as_bytes()).ok_or_else(wrong)?;
        let sites = sites(&authority);
        let epochs = sites.iter().map(|site| Scope::Host(site).epoch(&plan.keys)).collect();
        return Ok(Withdrawn { epochs, what: format!("everything on {}", sites.join(" and ")) });
    }
    if let Some(route) = &asked.route {
        known("route", route, plan.route_names())?;
        let epochs = Scope::Route(route).epochs(&plan.keys);
        return Ok(Withdrawn { epochs, what: format!("everything of the route {route}") });
    }
    if let (Some(group), Some(origin)) = (&asked.group, &asked.origin) {
        return of_group(group, origin, plan);
    }
    Ok(Withdrawn { epochs: Scope::All.epochs(&plan.keys), what: "everything".to_owned() })
}

/// A path has one epoch for all its queries and both schemes, and all of that is what is gone.
fn of_url(url: &str, plan: &Plan) -> Result<Withdrawn, Fault> {
    let (uri, authority) = split(url, "url")?;
    let path = uri.path_and_query().ok_or_else(|| wrong(&format!("{url:?} has no path.")))?;
    literally(path.path())?;
    let path = canonical_path(path, plan)?;
    let sites = sites(&authority);
    let of = |site: &str, path: &str| Scope::Path { site, path }.epoch(&plan.keys);
    let epochs = sites
        .iter()
        .flat_map(|site| plan.names_to_purge(&path).into_iter().map(|name| of(site, &name)));
    let epochs = distinct(epochs);
    let named: Vec<String> = sites.iter().map(|site| format!("{site}{path}")).collect();
    let named = named.join(" and ");
    let what = format!("{url}, that is {named} with every query, over http and https");
    Ok(Withdrawn { epochs, what })
}

/// A path without a host is purged like what lies below it.
fn of_prefix(prefix: &str, plan: &Plan) -> Result<Withdrawn, Fault> {
    let literal = match prefix.strip_suffix("/*") {
        Some("") => "/",
        Some(literal) => literal,
        None => prefix,
    };
    if !literal.starts_with('/') {
        return Err(wrong(&format!("{prefix:?} is no path: one begins with a slash.")));
    }
    literally(literal.split('?').next().unwrap_or_default())?;
    let wrong = || wrong(&format!("{prefix:?} is no path."));
    let given: PathAndQuery = literal.parse().map_err(|_| wrong())?;
    let path = canonical_path(&given, plan)?;
    let queries = if given.query().is_some() { ", with every query" } else { "" };
    let what = format!("{} and everything below it{queries}", covering(&path));
    let epochs =
        plan.names_to_purge(&path).into_iter().map(|name| Scope::Below(&name).epoch(&plan.keys));
    Ok(Withdrawn { epochs: distinct(epochs), what })
}

/// Refuses what looks like a pattern or is never a part of a path: a purge of it would empty
/// nothing, or more than was meant.
fn literally(path: &str) -> Result<(), Fault> {
    let escape = |what: &str| wrong(&format!("{path:?} {what}"));
    if path.contains('*') {
        return Err(escape(
            "holds a * that is no whole last segment: {\"path\": \"/a/*\"} is /a and everything \
             below it, and a literal * is written %2A.",
        ));
    }
    if path.contains(['{', '}']) {
        return Err(escape(
            "holds a brace: a purge names paths literally, without {placeholders}, and a literal \
             brace is written %7B or %7D.",
        ));
    }
    if path.contains('#') {
        return Err(escape("holds a #: no server sees what follows it; a literal one is %23."));
    }
    Ok(())
}

fn of_tag(tag: &str, upstream: Option<&str>, plan: &Plan) -> Result<Withdrawn, Fault> {
    if !is_tag(tag) {
        return Err(wrong(&format!(
            "{tag:?} is no tag that a response can have: 1 to 256 bytes without a space around \
             them, and not both a comma and a space between; several are purged one by one."
        )));
    }
    let upstreams = || plan.config.upstreams.keys();
    if let Some(upstream) = upstream {
        known("upstream", upstream, upstreams())?;
    }
    let meant = upstreams().filter(|name| upstream.is_none_or(|upstream| upstream == *name));
    // The clock of tags is among the epochs of each, and is changed once.
    let epochs = meant.flat_map(|site| Scope::Tag { site, tag: tag.as_bytes() }.epochs(&plan.keys));
    let whose = upstream.map_or_else(String::new, |upstream| format!(" by {upstream}"));
    Ok(Withdrawn { epochs: distinct(epochs), what: format!("everything tagged {tag}{whose}") })
}

fn of_group(group: &str, origin: &str, plan: &Plan) -> Result<Withdrawn, Fault> {
    let (uri, authority) = split(origin, "origin")?;
    if !is_group(group) || uri.path() != "/" || uri.query().is_some() {
        return Err(wrong(
            "A group has a name of 1 to 256 printable ASCII characters, and its origin no path.",
        ));
    }
    let scheme = uri.scheme_str().unwrap_or("http");
    let of = |site: &str| Scope::Group { scheme, site, group: group.as_bytes() }.epochs(&plan.keys);
    let sites = sites(&authority);
    let epochs = sites.iter().flat_map(|site| of(site));
    let named: Vec<String> = sites.iter().map(|site| format!("{scheme}://{site}")).collect();
    let what = format!("the group {group} of {}", named.join(" and "));
    Ok(Withdrawn { epochs: distinct(epochs), what })
}

fn split(url: &str, key: &str) -> Result<(Uri, Authority), Fault> {
    let wrong = || wrong(&format!("{key}: {url:?} is no http URL."));
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong());
    }
    let authority = uri.authority().ok_or_else(wrong)?;
    let authority = Authority::parse(authority.as_str().as_bytes()).ok_or_else(wrong)?;
    Ok((uri, authority))
}

fn known<'a>(
    kind: &str,
    name: &str,
    names: impl Iterator<Item = &'a String> + Clone,
) -> Result<(), Fault> {
    if names.clone().any(|known| known == name) {
        return Ok(());
    }
    let all = names.collect::<Vec<_>>();
    Err(wrong(&format!("No {kind} is named {name:?}; there are {all:?}.")))
}

fn canonical_path(path: &PathAndQuery, plan: &Plan) -> Result<String, Fault> {
    canonical(path, plan.guard.encoded_slash)
        .map(|path| path.path().to_owned())
        .map_err(|what| wrong(&format!("The path holds {what}.")))
}

fn wrong(what: &str) -> Fault {
    Fault::Invalid(format!("{what} Example: {EXAMPLE}"))
}
