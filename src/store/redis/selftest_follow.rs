//! Looks at Redis while the gateway runs: at all of it when it is reached first, and in short at
//! each server that was not met before. Nobody waits for it. What is found is said once, and kept
//! for operators.

use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::InfoDict;

use super::finding::Finding;
use super::link::Link;
use super::published::Published;
use super::selftest::{self, Depth};
use super::server::Server;
use super::topology::Topology;

/// How often it is seen whether there is a server that was not met before.
const TICK: Duration = Duration::from_secs(1);

/// One server that was looked at.
struct Met {
    server: Weak<Server>,
    published: Weak<Published>,
    run_id: Option<String>,
}

/// Looks at servers as they are met. Ends when the store is dropped.
pub(super) async fn follow(topology: Weak<Topology>) {
    let mut met: Vec<Met> = Vec::new();
    let mut depth = Depth::Whole;
    loop {
        tokio::time::sleep(TICK).await;
        let Some(topology) = topology.upgrade() else { return };
        met.retain(|met| met.server.strong_count() > 0);
        for server in topology.servers() {
            let Some(published) = server.home().get() else { continue };
            let known = met.iter().position(|it| std::ptr::eq(it.server.as_ptr(), &*server));
            let is_same = |met: &Met| std::ptr::eq(met.published.as_ptr(), &*published);
            if known.and_then(|at| met.get(at)).is_some_and(is_same) {
                continue;
            }
            let run_id = run_id(server.home(), &topology.settings.connect_timeout).await;
            let is_new = known.and_then(|at| met.get(at)).is_none_or(|it| it.run_id != run_id);
            // One that does not answer is met again.
            if is_new && !look(&topology, &server, depth).await {
                continue;
            }
            depth = Depth::Short;
            if let Some(at) = known {
                met.swap_remove(at);
            }
            let (server, published) = (Arc::downgrade(&server), Arc::downgrade(&published));
            met.push(Met { server, published, run_id });
        }
    }
}

/// False when the server did not answer.
async fn look(topology: &Topology, server: &Server, depth: Depth) -> bool {
    let address = server.node.address();
    let depth = if topology.is_spread() { Depth::Short } else { depth };
    let report = selftest::of_server(&topology.settings, address, depth).await;
    let Ok(report) = report else { return false };
    let name = server.node.state(true).name;
    let new = topology.credentials.common.found().take(&name, report);
    for Finding { is_fatal, check, seen, suffers, remedy } in new {
        let kind = if is_fatal { "cannot serve" } else { "is not as it should be" };
        let server = topology.is_spread().then_some(&name);
        tracing::warn!(check, suffers, remedy, server, "Redis {kind}: {seen}");
    }
    true
}

/// Which process it is. Nothing where this user may not know.
async fn run_id(link: &Link, patience: &Duration) -> Option<String> {
    let published = link.get()?;
    let mut command = redis::cmd("INFO");
    command.arg("server");
    let info = tokio::time::timeout(*patience, published.connection.run(&command)).await;
    redis::from_redis_value::<InfoDict>(info.ok()?.ok()?).ok()?.get("run_id")
}
