//! A Redis under Sentinel, of one test's own.

use std::time::Duration;

use super::{Folder, Redis, eventually, eventually_within};

/// How long sentinels may take for a fail-over. One that did not get the processor for two seconds
/// does nothing for the next thirty (TILT).
const FAIL_OVER: Duration = Duration::from_secs(150);

/// By what name the primary is watched.
pub(crate) const WATCHED: &str = "main";

/// See the module; it is killed when the test ends.
pub(crate) struct RedisSentinels {
    /// The primary at the start, and its replicas.
    pub(crate) servers: Vec<Redis>,
    pub(crate) sentinels: Vec<Redis>,
}

impl RedisSentinels {
    /// A primary, two replicas and three sentinels, which promote one of them when the primary does
    /// not answer for a second.
    pub(crate) fn start() -> Self {
        let servers: Vec<Redis> = (0..3).map(|_| Redis::start()).collect();
        let port = servers[0].address().port().to_string();
        for replica in &servers[1..] {
            assert_eq!(replica.cli(&["REPLICAOF", "127.0.0.1", &port]), "OK");
        }
        eventually("the replicas have all", || {
            servers[0].cli(&["INFO", "replication"]).matches("state=online").count() == 2
        });
        let sentinels = (0..3).map(|_| sentinel(&servers[0], 2, &[])).collect();
        let all = Self { servers, sentinels };
        let knows_all = |sentinel: &Redis| {
            let info = sentinel.cli(&["INFO", "sentinel"]);
            info.contains("slaves=2") && info.contains("sentinels=3")
        };
        eventually("the sentinels know all", || all.sentinels.iter().all(knows_all));
        all
    }

    /// A primary and one sentinel, for tests that no fail-over is part of.
    pub(crate) fn start_small() -> Self {
        let server = Redis::start();
        let sentinels = vec![sentinel(&server, 1, &[])];
        Self { servers: vec![server], sentinels }
    }

    /// For `store.url`.
    pub(crate) fn url(&self) -> String {
        let hosts = self.sentinels.iter().map(|sentinel| sentinel.address().to_string());
        format!("redis-sentinel://{}/{WATCHED}", hosts.collect::<Vec<_>>().join(","))
    }

    /// Which server the sentinels say is the primary, once all of them say so.
    pub(crate) fn primary(&self) -> Option<usize> {
        let ask = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", WATCHED];
        let said: Vec<String> = self.sentinels.iter().map(|sentinel| sentinel.cli(&ask)).collect();
        let at = |server: &Redis| server.address().to_string().replace(':', "\n");
        self.servers.iter().position(|server| said.iter().all(|said| *said == at(server)))
    }

    /// Waits until a replica is promoted, whoever knows of it.
    pub(crate) fn wait_for_promotion(&self) {
        eventually_within(FAIL_OVER, "a replica is promoted", || {
            self.servers[1..].iter().any(|server| server.look(&["ROLE"]).starts_with("master"))
        });
    }

    /// Waits until that is another one than `former`, and it says so too.
    pub(crate) fn successor(&self, former: usize) -> usize {
        let mut found = None;
        eventually_within(FAIL_OVER, "another one is the primary", || {
            found = self.primary().filter(|at| *at != former);
            found.is_some_and(|at| self.servers[at].look(&["ROLE"]).starts_with("master"))
        });
        found.expect("a server")
    }
}

/// A sentinel that watches `primary`, with more of its settings.
pub(crate) fn sentinel(primary: &Redis, quorum: usize, more: &[String]) -> Redis {
    let folder = Folder::new();
    watch(&folder, primary, quorum);
    Redis::start_sentinel(folder, more)
}

/// Writes what a sentinel in this folder begins with.
pub(crate) fn watch(folder: &Folder, primary: &Redis, quorum: usize) {
    let port = primary.address().port();
    folder.write(
        "sentinel.conf",
        format!(
            "sentinel monitor {WATCHED} 127.0.0.1 {port} {quorum}\n\
             sentinel down-after-milliseconds {WATCHED} 1000\n\
             sentinel failover-timeout {WATCHED} 5000\n"
        ),
    );
}
