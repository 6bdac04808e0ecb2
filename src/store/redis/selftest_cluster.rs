//! Looks at a Redis Cluster: whether it serves, and whether each of its servers can do all that is
//! asked of it.

use futures_util::stream::{self, StreamExt};
use redis::Pipeline;

use super::connect_error::ConnectError;
use super::finding::{Finding, Located};
use super::selftest::{Depth, Look, Sight};
use super::slots::{Address, Calling, Member, View};
use crate::config::{self, CacheReads, StoreUrl, StoreUse};
use crate::store::keys::{SLOTS, slot};

/// How many servers are looked at together.
const AT_ONCE: usize = 8;
/// How often a name is drawn for a server's keys. One slot of all is found in 16,384, as a rule.
const TAGS_MAX: usize = 200_000;

/// A hash tag of keys that lie in one of these slots; nothing where there are none.
pub(super) fn tag(is_own: impl Fn(u16) -> bool) -> Option<String> {
    let own: Vec<bool> = (0..SLOTS).map(is_own).collect();
    let is_own = |tag: &String| own.get(usize::from(slot(tag.as_bytes()))) == Some(&true);
    let mut tags = (0..TAGS_MAX).map(|_| format!("{:016x}", fastrand::u64(..)));
    if own.contains(&true) { tags.find(is_own) } else { None }
}

/// The primaries of the cluster, as far as a seed tells of them: the name of each, its settings,
/// and a hash tag of keys that lie there. And whether a seed has answered, but not so.
pub(super) async fn primaries(
    settings: &config::Store,
    seeds: &[Address],
) -> (Vec<(String, config::Store, Option<String>)>, bool) {
    let (mut best, mut is_refused): (Option<View>, bool) = (None, false);
    for seed in seeds {
        match view_from(settings, seed).await {
            Ok(Some(view)) if best.as_ref().is_none_or(|best| view.beats(best)) => {
                best = Some(view);
            }
            Ok(Some(_)) => {}
            Ok(None) => is_refused = true,
            Err(error) => is_refused |= error.is_answer(),
        }
    }
    let Some(view) = best else { return (Vec::new(), is_refused) };
    let primaries = view.primaries.iter().enumerate().map(|(at, member)| {
        let own = config::Store { url: url(&member.address), ..settings.clone() };
        (name(&member.address), own, tag_of(&view, at))
    });
    (primaries.collect(), is_refused)
}

/// All that is not as it should be with the cluster and its servers, with where.
pub(super) async fn look(settings: &config::Store, seeds: &[Address]) -> Vec<Located> {
    let mut all = Vec::new();
    let mut best: Option<View> = None;
    for seed in seeds {
        match view_from(settings, seed).await {
            Ok(Some(view)) if best.as_ref().is_none_or(|best| view.beats(best)) => {
                best = Some(view);
            }
            Ok(Some(_)) => {}
            Ok(None) => add(&mut all, &name(seed), unread()),
            Err(error) => add(&mut all, &name(seed), silent(settings, seed, &error).await),
        }
    }
    let Some(view) = best else {
        all.iter_mut().for_each(|found| found.finding.is_fatal = true);
        return all;
    };
    all.extend(of_all(&view).into_iter().map(|finding| Located { servers: Vec::new(), finding }));
    let reads = settings.cache_reads == CacheReads::Replica
        && settings.uses().any(|usage| usage == StoreUse::Cache);
    let replicas = view.replicas.iter().filter(|_| reads);
    let primaries = view.primaries.iter().enumerate();
    let looks = primaries.map(|(at, member)| (member, Depth::Whole, tag_of(&view, at)));
    let looks = looks.chain(replicas.map(|member| (member, Depth::Reader, None)));
    let looks = looks.map(|(member, depth, tag)| look_at(settings, member, depth, tag));
    let mut looks = stream::iter(looks).buffered(AT_ONCE);
    while let Some((server, findings)) = looks.next().await {
        findings.into_iter().for_each(|finding| add(&mut all, &server, finding));
    }
    all
}

/// A server's findings, by its name.
async fn look_at(
    settings: &config::Store,
    member: &Member,
    depth: Depth,
    tag: Option<String>,
) -> (String, Vec<Finding>) {
    let server = name(&member.address);
    let own = config::Store { url: url(&member.address), ..settings.clone() };
    let mut look = Look::new(&own, Sight { depth, is_in_cluster: true, tag });
    if let Err(error) = look.take().await {
        let mut finding = silent(&own, &member.address, &error).await;
        if depth == Depth::Reader {
            "pieces of cached bodies, which its primary is asked for"
                .clone_into(&mut finding.suffers);
        } else {
            finding.is_fatal = true;
            "everything whose keys lie there".clone_into(&mut finding.suffers);
        }
        look.findings.push(finding);
    }
    (server, look.findings)
}

/// What the server at an address says of the cluster; nothing where that cannot be read.
async fn view_from(
    settings: &config::Store,
    address: &Address,
) -> Result<Option<View>, ConnectError> {
    let own = config::Store { url: url(address), ..settings.clone() };
    let look = Look::new(&own, Sight { depth: Depth::Short, is_in_cluster: true, tag: None });
    let connection = look.dial(|_| {}).await?;
    let mut pipeline = Pipeline::new();
    pipeline.cmd("CLUSTER").arg("INFO");
    pipeline.cmd("CLUSTER").arg("SLOTS");
    let replies = look.send(&connection, &pipeline).await?;
    let by_name = settings.tls.as_ref().is_some_and(|tls| tls.server_name.is_none());
    let calling = Calling { asked: address, by_name, map: &settings.address_map };
    Ok(match replies.as_slice() {
        [info, slots, ..] => View::read(info, slots, calling),
        _ => None,
    })
}

/// What is not as it should be with all of it.
fn of_all(view: &View) -> Vec<Finding> {
    let owned = |(first, last, _): &(u16, u16, u16)| usize::from(last.saturating_sub(*first)) + 1;
    let owned: usize = view.ranges.iter().map(owned).sum();
    let mut findings = Vec::new();
    if owned < usize::from(SLOTS) {
        let seen = format!("nobody has {} of its slots", usize::from(SLOTS).saturating_sub(owned));
        let remedy = "CLUSTER ADDSLOTS, or bring back the servers that had them";
        findings.push(Finding { is_fatal: owned == 0, ..Finding::fatal("slots", seen, remedy) });
    }
    if !view.is_ok {
        let seen = "the Redis Cluster says that it does not serve (cluster_state)";
        let remedy = "bring back the servers of the slots that nobody serves; CLUSTER NODES shows \
                      them";
        findings.push(Finding::fatal("slots", seen, remedy));
    }
    findings
}

fn tag_of(view: &View, at: usize) -> Option<String> {
    let own: Vec<_> = view.ranges.iter().filter(|(_, _, of)| usize::from(*of) == at).collect();
    tag(|slot| own.iter().any(|(first, last, _)| (*first..=*last).contains(&slot)))
}

/// A server does not answer.
async fn silent(settings: &config::Store, address: &Address, error: &ConnectError) -> Finding {
    let own = config::Store { url: url(address), ..settings.clone() };
    let look = Look::new(&own, Sight { depth: Depth::Short, is_in_cluster: true, tag: None });
    let (seen, remedy) = look.explain(error).await;
    Finding::warning("connection", seen, "finding the servers of a Redis Cluster", remedy)
}

fn unread() -> Finding {
    let seen = "it does not say how its Redis Cluster is (CLUSTER INFO, CLUSTER SLOTS)";
    let remedy = "name servers of a Redis Cluster in {store}.url, and give the user all rights \
                  that `portcullis acl --cluster` prints";
    Finding::warning("mode", seen, "finding the servers of a Redis Cluster", remedy)
}

/// Adds what was found at a server. What was found at another one too is said once.
fn add(all: &mut Vec<Located>, server: &str, finding: Finding) {
    match all.iter_mut().find(|known| known.finding == finding) {
        Some(known) => known.servers.push(server.to_owned()),
        None => all.push(Located { servers: vec![server.to_owned()], finding }),
    }
}

fn url((host, port): &Address) -> StoreUrl {
    StoreUrl::Redis { host: host.clone(), port: *port, db: 0 }
}

fn name((host, port): &Address) -> String {
    format!("{host}:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_for_whatever_slots_a_server_has() {
        for own in [0..=0, 5..=6, 16_383..=16_383, 0..=16_383] {
            let tag = tag(|slot| own.contains(&slot)).expect("a tag");
            assert!(own.contains(&slot(format!("app:selftest:{{{tag}}}:set").as_bytes())));
        }
        assert_eq!(tag(|_| false), None);
    }

    #[test]
    fn what_several_servers_show_is_said_once() {
        let finding = |seen: &str| Finding::warning("eviction", seen, "all", "help");
        let mut all = Vec::new();
        for (server, seen) in [("a", "one"), ("b", "other"), ("c", "one")] {
            add(&mut all, server, finding(seen));
        }
        let shown: Vec<_> =
            all.iter().map(|it| (it.servers.join(" "), it.finding.seen.as_str())).collect();
        assert_eq!(shown, [("a c".to_owned(), "one"), ("b".to_owned(), "other")]);
    }
}
