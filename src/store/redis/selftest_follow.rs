//! Looks at Redis while the gateway runs: at all of it when it is reached first, at each server of
//! a Redis Cluster, and in short at each process that was not met before. Nobody waits for it. What
//! is found is said once, and kept for operators.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::published::Published;
use super::selftest::{self, Depth, Sight};
use super::selftest_cluster;
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
    // Of those that were not met before.
    let mut new = Depth::Whole;
    loop {
        tokio::time::sleep(TICK).await;
        let Some(topology) = topology.upgrade() else { return };
        met.retain(|met| met.server.strong_count() > 0);
        let readers = topology.readers().into_iter().map(|server| (server, Depth::Reader));
        let servers = topology.servers().into_iter().map(|server| (server, new));
        for (server, mut depth) in servers.chain(readers).collect::<Vec<_>>() {
            let Some(published) = server.home().get() else { continue };
            let known = met.iter().position(|it| std::ptr::eq(it.server.as_ptr(), &*server));
            let is_same = |met: &Met| std::ptr::eq(met.published.as_ptr(), &*published);
            if known.and_then(|at| met.get(at)).is_some_and(is_same) {
                continue;
            }
            if known.is_some() && depth == Depth::Whole {
                depth = Depth::Short;
            }
            let former = known.map(|at| met.swap_remove(at)).and_then(|met| met.run_id);
            // One that does not answer is met again.
            let Some(run_id) = look(&topology, &server, depth, former).await else { continue };
            if !topology.is_spread() {
                new = Depth::Short;
            }
            let (server, published) = (Arc::downgrade(&server), Arc::downgrade(&published));
            met.push(Met { server, published, run_id });
        }
    }
}

/// Looks at a server unless it is the process that it was before. Which one it is now, where this
/// user may know; nothing when the server did not answer.
async fn look(
    topology: &Topology,
    server: &Server,
    depth: Depth,
    former: Option<String>,
) -> Option<Option<String>> {
    let address = server.node.address();
    let is_in_cluster = topology.is_spread();
    let tag = (is_in_cluster && depth == Depth::Whole)
        .then(|| selftest_cluster::tag(|slot| topology.has(server, slot)))
        .flatten();
    let sight = Sight { depth, is_in_cluster, tag };
    let look = selftest::of_server(&topology.settings, address, sight, former.as_deref());
    let (run_id, report) = look.await.ok()?;
    let Some(report) = report else { return Some(run_id) };
    let name = server.node.state(true).name;
    topology.common.tell(&name, report);
    Some(run_id)
}
