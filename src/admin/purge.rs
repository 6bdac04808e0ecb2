//! `/v1/cache/purge`: withdraws stored responses, at every gateway on the same store. One write per
//! scope, however much was stored under it.

use std::borrow::Cow;

use http::uri::PathAndQuery;
use http::{StatusCode, Uri};
use serde::Deserialize;
use serde_json::json;

use super::audit::Did;
use super::operations::{Fault, parse};
use super::{Reply, json as reply_json};
use crate::base::authority::Authority;
use crate::base::path::canonical;
use crate::cache::{Scope, covering};
use crate::gateway::Gateway;
use crate::plan::Plan;
use crate::store::{Epoch, Purge};

const EXAMPLE: &str = concat!(
    r#"{"url": "http://host/a"}, {"path": "/a/*"}, {"tag": "a"}, {"host": "host"}, "#,
    r#"{"route": "name"}, {"group": "a", "origin": "http://host"} or {"all": true}, "#,
    r#"each also with "soft": true"#
);

/// What is to go: exactly one of `url`, `path`, `prefix`, `tag`, `host`, `route`, `group`, `all`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
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

/// The epochs to change, and what that withdraws, in words.
struct Withdrawn {
    epochs: Vec<String>,
    what: String,
}

/// Carries a purge out, and says what is gone once the store shows it.
pub(super) async fn carry_out(gateway: &Gateway, body: &[u8]) -> Result<Reply, Fault> {
    let asked: Asked = parse(body, EXAMPLE)?;
    let running = gateway.running();
    let Withdrawn { epochs, what } = withdrawn(&asked, &running.plan)?;
    if asked.soft {
        // Without the base nothing stored is valid, and a soft change of it would be no founding.
        gateway.store.found(gateway.base_epoch()).await?;
    }
    let before = gateway.store.epochs(&epochs).await?;
    let purge = |key: &String| Purge { key: key.clone(), soft: asked.soft };
    gateway.store.purge(&epochs.iter().map(purge).collect::<Vec<_>>()).await?;
    gateway.flights.withdraw();
    let after = gateway.store.epochs(&epochs).await?;
    if !has_changed(&before, &after, asked.soft) {
        return Err(Fault::Told {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "purge_not_kept",
            detail: "The store does not show the change that it accepted. Repeat the request."
                .to_owned(),
        });
    }
    let answer = json!({ "purged": what, "soft": asked.soft, "epochs": epochs });
    let mut reply = reply_json(StatusCode::OK, &answer);
    reply.extensions_mut().insert(Did("purged", what));
    Ok(reply)
}

/// Whether every epoch is another one than before.
fn has_changed(before: &[Epoch], after: &[Epoch], soft: bool) -> bool {
    before.len() == after.len()
        && before
            .iter()
            .zip(after)
            .all(|(before, after)| before.soft != after.soft && (soft || before.hard != after.hard))
}

fn withdrawn(asked: &Asked, plan: &Plan) -> Result<Withdrawn, Fault> {
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
        let epochs = sites(&authority).map(|site| Scope::Host(&site).epoch(&plan.keys));
        let what = format!("everything on {}", authority.site());
        return Ok(Withdrawn { epochs: distinct(epochs), what });
    }
    if let Some(route) = &asked.route {
        known("route", route, plan.route_names.iter())?;
        let epochs = Scope::Route(route).epochs(&plan.keys);
        return Ok(Withdrawn { epochs, what: format!("everything of the route {route}") });
    }
    if let (Some(group), Some(origin)) = (&asked.group, &asked.origin) {
        return of_group(group, origin, plan);
    }
    Ok(Withdrawn { epochs: Scope::All.epochs(&plan.keys), what: "everything".to_owned() })
}

fn of_url(url: &str, plan: &Plan) -> Result<Withdrawn, Fault> {
    let (uri, authority) = split(url, "url")?;
    let path = uri.path_and_query().ok_or_else(|| wrong(&format!("{url:?} has no path.")))?;
    let path = canonical_path(path, plan)?;
    let of = |site: &str| Scope::Path { site, path: &path }.epoch(&plan.keys);
    let epochs = distinct(sites(&authority).map(|site| of(&site)));
    Ok(Withdrawn { epochs, what: url.to_owned() })
}

/// A path without a host is purged like what lies below it.
fn of_prefix(prefix: &str, plan: &Plan) -> Result<Withdrawn, Fault> {
    let literal = match prefix.strip_suffix("/*") {
        Some("") => "/",
        Some(literal) => literal,
        None => prefix,
    };
    let wrong = || wrong(&format!("{prefix:?} is no path."));
    if !literal.starts_with('/') {
        return Err(wrong());
    }
    let path = canonical_path(&literal.parse().map_err(|_| wrong())?, plan)?;
    let what = format!("{} and everything below it", covering(&path));
    Ok(Withdrawn { epochs: Scope::Below(&path).epochs(&plan.keys), what })
}

fn of_tag(tag: &str, upstream: Option<&str>, plan: &Plan) -> Result<Withdrawn, Fault> {
    if tag.is_empty() || tag.trim() != tag {
        return Err(wrong(&format!("{tag:?} is no tag: none is empty, or begins with a space.")));
    }
    let upstreams = || plan.upstreams.iter().map(|(name, _)| name);
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
    if group.is_empty() || uri.path() != "/" || uri.query().is_some() {
        return Err(wrong("A group has a name, and its origin no path."));
    }
    let scheme = uri.scheme_str().unwrap_or("http");
    let of = |site: &str| Scope::Group { scheme, site, group: group.as_bytes() }.epochs(&plan.keys);
    let epochs = sites(&authority).into_iter().flat_map(|site| of(&site));
    let what = format!("the group {group} of {scheme}://{}", authority.site());
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

/// With its port, and as the site whose port is a listener's own, on whichever node.
fn sites(authority: &Authority) -> [Cow<'_, str>; 2] {
    [authority.site(), authority.host().into()]
}

fn distinct(epochs: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut distinct = Vec::new();
    for epoch in epochs {
        if !distinct.contains(&epoch) {
            distinct.push(epoch);
        }
    }
    distinct
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
    Fault::Asked(format!("{what} Example: {EXAMPLE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_shows_in_the_half_that_was_meant() {
        let epoch = |hard: u8, soft: u8| Epoch { hard: [hard; 8], soft: [soft; 8] };
        for (before, after, as_soft, as_hard) in [
            (epoch(1, 1), epoch(2, 2), true, true),
            (epoch(1, 1), epoch(1, 2), true, false),
            (epoch(1, 1), epoch(1, 1), false, false),
            (epoch(1, 1), epoch(2, 1), false, false),
        ] {
            assert_eq!(has_changed(&[before], &[after], true), as_soft, "{before:?} {after:?}");
            assert_eq!(has_changed(&[before], &[after], false), as_hard, "{before:?} {after:?}");
        }
        assert!(!has_changed(&[epoch(1, 1)], &[], false));
    }
}
