//! A Redis Cluster of one test's own.

use std::net::TcpListener;

use super::{Redis, eventually};

/// How many slots a cluster has.
const SLOTS: usize = 16_384;

/// See the module; it is killed when the test ends.
pub(crate) struct RedisCluster {
    /// Primaries first, each with an equal share of the slots, then a replica of each, if there are
    /// any.
    pub(crate) servers: Vec<Redis>,
    primaries: usize,
}

impl RedisCluster {
    /// Starts primaries alone.
    pub(crate) fn start(primaries: usize) -> Self {
        Self::start_with(primaries, false)
    }

    /// Starts primaries, and a replica of each.
    pub(crate) fn start_with_replicas(primaries: usize) -> Self {
        Self::start_with(primaries, true)
    }

    fn start_with(primaries: usize, with_replicas: bool) -> Self {
        let count = if with_replicas { 2 * primaries } else { primaries };
        let servers: Vec<Redis> = (0..count).map(|_| Redis::start_with(&settings())).collect();
        for (at, server) in servers.iter().take(primaries).enumerate() {
            let slot = |share: usize| (SLOTS * share / primaries).to_string();
            let last = (SLOTS * (at + 1) / primaries - 1).to_string();
            let given = server.cli(&["CLUSTER", "ADDSLOTSRANGE", &slot(at), &last]);
            assert_eq!(given, "OK");
        }
        let bus = |server: &Redis| server.cli(&["CONFIG", "GET", "cluster-port"]);
        for server in &servers[1..] {
            let (port, bus) = (servers[0].address().port().to_string(), bus(&servers[0]));
            let bus = bus.lines().last().expect("a port");
            let met = server.cli(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]);
            assert_eq!(met, "OK");
        }
        let cluster = Self { servers, primaries };
        eventually("all servers of the cluster know each other", || {
            let knows_all = |server: &Redis| {
                let info = server.cli(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok")
                    && info.contains(&format!("cluster_known_nodes:{count}\r"))
            };
            cluster.servers.iter().all(knows_all)
        });
        cluster.begin_replication();
        cluster
    }

    fn begin_replication(&self) {
        for (at, replica) in self.servers.iter().skip(self.primaries).enumerate() {
            let id = self.servers[at].cli(&["CLUSTER", "MYID"]);
            assert_eq!(replica.cli(&["CLUSTER", "REPLICATE", &id]), "OK");
        }
        for primary in &self.servers[..self.servers.len() - self.primaries] {
            eventually("the replica has all", || {
                primary.cli(&["INFO", "replication"]).contains("state=online")
            });
        }
    }

    /// Which primary had the key at the start.
    pub(crate) fn owner(&self, key: &str) -> usize {
        let slot: usize = self.servers[0].cli(&["CLUSTER", "KEYSLOT", key]).parse().unwrap();
        (0..self.primaries).rfind(|at| SLOTS * at / self.primaries <= slot).expect("an owner")
    }

    /// For `store.url`.
    pub(crate) fn url(&self) -> String {
        let seeds: Vec<String> =
            self.servers.iter().map(|server| server.address().to_string()).collect();
        format!("redis-cluster://{}", seeds.join(","))
    }
}

fn settings() -> Vec<String> {
    // The usual port of the bus, 10,000 above, may be none, or another's.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let bus = free.expect("a free port").port().to_string();
    let words = ["--cluster-enabled", "yes", "--cluster-port", &bus];
    let patient = ["--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no"];
    let found = ["--cluster-announce-ip", "127.0.0.1"];
    let all = words.iter().chain(&patient).chain(&found);
    all.map(|word| (*word).to_owned()).collect()
}
