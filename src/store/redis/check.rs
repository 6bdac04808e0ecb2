//! Looks at whatever `store.url` names, before anybody needs it: for `portcullis check --store`.

use super::finding::{Finding, Located};
use super::selftest::{Depth, Look, Sight};
use super::{selftest_cluster, selftest_sentinels};
use crate::config::{self, StoreUrl};

/// All that is not as it should be with the Redis of these settings, each server of a Redis Cluster
/// included; what is fatal ends the look at a server. Its own keys live for 5 s. Must be called
/// within a tokio runtime.
pub async fn selftest(settings: &config::Store) -> Vec<Located> {
    let found = match &settings.url {
        StoreUrl::Cluster { seeds } => selftest_cluster::look(settings, seeds).await,
        _ => {
            let findings = of_one(settings).await.into_iter();
            findings.map(|finding| Located { servers: Vec::new(), finding }).collect()
        }
    };
    let table = settings.usage.table();
    let of = |Located { servers, finding }| Located { servers, finding: finding.of(table) };
    found.into_iter().map(of).collect()
}

async fn of_one(settings: &config::Store) -> Vec<Finding> {
    let (mut found, mut findings) = (None, Vec::new());
    if let StoreUrl::Sentinel { sentinels, primary } = &settings.url {
        let told = selftest_sentinels::find(settings, sentinels, primary).await;
        findings = told.findings;
        let Some((host, port)) = told.primary else { return findings };
        let url = StoreUrl::Redis { host, port, db: 0 };
        found = Some(config::Store { url, ..settings.clone() });
    }
    let settings = found.as_ref().unwrap_or(settings);
    let sight = Sight { depth: Depth::Whole, is_in_cluster: false, tag: None };
    let mut look = Look::new(settings, sight);
    look.findings = findings;
    if let Err(error) = look.take().await {
        let (seen, remedy) = look.explain(&error).await;
        look.findings.push(Finding::fatal("connection", seen, remedy));
    }
    look.findings
}
