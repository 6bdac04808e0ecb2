//! Looks at whatever `store.url` names, before anybody needs it: for `portcullis check --store`.

use futures_util::stream::{self, StreamExt as _};

use super::finding::{Finding, Located};
use super::says::Condition;
use super::selftest::{Depth, Look, Sight};
use super::slots::Address;
use super::{selftest_cluster, selftest_sentinels};
use crate::config::{self, StoreUrl};

/// Most replicas that are looked at.
const REPLICAS_MAX: usize = 16;
/// Most of them at a time.
const AT_ONCE: usize = 4;

/// All that is not as it should be with the Redis of these settings, each server of a Redis Cluster
/// included; what is fatal ends the look at a server. Its own keys live for 5 s. Must be called
/// within a tokio runtime.
pub async fn selftest(settings: &config::Store) -> Vec<Located> {
    let found = match &settings.url {
        StoreUrl::Cluster { seeds } => selftest_cluster::look(settings, seeds).await,
        StoreUrl::Sentinel { sentinels, primary } => {
            of_sentinels(settings, (sentinels, primary)).await
        }
        _ => of_one(settings, Vec::new()).await,
    };
    let table = settings.usage.table();
    let of = |Located { servers, finding }| Located { servers, finding: finding.of(table) };
    found.into_iter().map(of).collect()
}

/// The sentinels, the server that they say is the primary, and whether the user can log in at each
/// of its replicas: whoever is promoted is asked by it.
async fn of_sentinels(
    settings: &config::Store,
    (sentinels, watched): (&[Address], &str),
) -> Vec<Located> {
    let told = selftest_sentinels::find(settings, sentinels, watched).await;
    let about_all = |finding| Located { servers: Vec::new(), finding };
    let mut all: Vec<Located> = told.findings.into_iter().map(about_all).collect();
    let Some(primary) = told.primary else { return all };
    all.extend(of_one(&at(settings, &primary), vec![name(&primary)]).await);
    match selftest_sentinels::replicas(settings, sentinels, watched).await {
        Ok(replicas) => {
            let looks = replicas.iter().take(REPLICAS_MAX).map(|it| of_replica(settings, it));
            let found = stream::iter(looks).buffered(AT_ONCE).collect::<Vec<_>>().await;
            all.extend(found.into_iter().flatten());
        }
        Err(finding) => all.push(about_all(finding)),
    }
    all
}

/// What keeps the user from being served by a replica once it is promoted.
async fn of_replica(settings: &config::Store, address: &Address) -> Option<Located> {
    let settings = at(settings, address);
    let sight = Sight { depth: Depth::Short, is_in_cluster: false, tag: None };
    let look = Look::new(&settings, sight);
    let error = look.dial(|_| {}).await.err()?;
    let (seen, mut remedy) = look.explain(&error).await;
    if matches!(error.condition(), Some(Condition::WrongPassword | Condition::NotLoggedIn)) {
        "make the user on this server too, by what `portcullis acl` prints: Redis copies no users \
         to replicas"
            .clone_into(&mut remedy);
    }
    let seen = format!("a replica that may be promoted: {seen}");
    let suffers = "everything, once it is the primary";
    let finding = Finding::warning("connection", seen, suffers, remedy);
    Some(Located { servers: vec![name(address)], finding })
}

fn at(settings: &config::Store, (host, port): &Address) -> config::Store {
    let url = StoreUrl::Redis { host: host.clone(), port: *port, db: 0 };
    config::Store { url, ..settings.clone() }
}

fn name((host, port): &Address) -> String {
    format!("{host}:{port}")
}

/// One server; `servers` names it where there are others.
async fn of_one(settings: &config::Store, servers: Vec<String>) -> Vec<Located> {
    let sight = Sight { depth: Depth::Whole, is_in_cluster: false, tag: None };
    let mut look = Look::new(settings, sight);
    if let Err(error) = look.take().await {
        let (seen, remedy) = look.explain(&error).await;
        look.findings.push(Finding::fatal("connection", seen, remedy));
    }
    let located = |finding| Located { servers: servers.clone(), finding };
    look.findings.into_iter().map(located).collect()
}
