//! A Redis Cluster of one test's own.

use std::net::TcpListener;

use super::{Authority, Certificate, Redis, eventually};

/// How many slots a cluster has.
const SLOTS: usize = 16_384;

/// See the module; it is killed when the test ends.
pub(crate) struct RedisCluster {
    /// Primaries first, each with an equal share of the slots, then a replica of each, if there are
    /// any.
    pub(crate) servers: Vec<Redis>,
    primaries: usize,
    /// Whether clients are to speak TLS.
    is_tls: bool,
}

impl RedisCluster {
    /// Starts primaries alone.
    pub(crate) fn start(primaries: usize) -> Self {
        Self::start_with(primaries, false, &[])
    }

    /// The same with more of their settings.
    pub(crate) fn start_so(primaries: usize, more: &[&str]) -> Self {
        Self::start_with(primaries, false, more)
    }

    /// Starts primaries that speak TLS with clients and among themselves, and say that they are
    /// `localhost` where that is asked.
    pub(crate) fn start_with_tls(certificate: &Certificate, authority: &Authority) -> Self {
        let words = ["--tls-cluster", "yes", "--cluster-announce-hostname", "localhost"];
        let start = || Redis::with_tls_and(certificate, authority, &settings(&words));
        Self::joined((0..3).map(|_| start()).collect(), 3, true)
    }

    /// Starts primaries, and a replica of each.
    pub(crate) fn start_with_replicas(primaries: usize) -> Self {
        Self::start_with(primaries, true, &[])
    }

    fn start_with(primaries: usize, with_replicas: bool, more: &[&str]) -> Self {
        let count = if with_replicas { 2 * primaries } else { primaries };
        let start = || Redis::start_with(&settings(more));
        Self::joined((0..count).map(|_| start()).collect(), primaries, false)
    }

    fn joined(servers: Vec<Redis>, primaries: usize, is_tls: bool) -> Self {
        let count = servers.len();
        let port = |server: &Redis| {
            if is_tls { server.tls_port() } else { server.address().port() }.to_string()
        };
        for (at, server) in servers.iter().take(primaries).enumerate() {
            let slot = |share: usize| (SLOTS * share / primaries).to_string();
            let last = (SLOTS * (at + 1) / primaries - 1).to_string();
            let given = server.cli(&["CLUSTER", "ADDSLOTSRANGE", &slot(at), &last]);
            assert_eq!(given, "OK");
        }
        let bus = |server: &Redis| server.cli(&["CONFIG", "GET", "cluster-port"]);
        for server in &servers[1..] {
            let (port, bus) = (port(&servers[0]), bus(&servers[0]));
            let bus = bus.lines().last().expect("a port");
            let met = server.cli(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]);
            assert_eq!(met, "OK");
        }
        let cluster = Self { servers, primaries, is_tls };
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
        let seed = |server: &Redis| {
            if self.is_tls {
                format!("localhost:{}", server.tls_port())
            } else {
                server.address().to_string()
            }
        };
        let seeds: Vec<String> = self.servers.iter().map(seed).collect();
        format!("redis-cluster://{}", seeds.join(","))
    }
}

fn settings(more: &[&str]) -> Vec<String> {
    // The usual port of the bus, 10,000 above, may be none, or another's.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let bus = free.expect("a free port").port().to_string();
    let words = ["--cluster-enabled", "yes", "--cluster-port", &bus];
    let patient = ["--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no"];
    let found = ["--cluster-announce-ip", "127.0.0.1"];
    let all = words.iter().chain(&patient).chain(&found).chain(more);
    all.map(|word| (*word).to_owned()).collect()
}
