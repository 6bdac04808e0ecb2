//! How the servers of a Redis Cluster are reached: by the names that certificates are for, by
//! addresses of IPv6, and by others than the cluster says; and whose answers are believed.

use std::net::SocketAddr;

use crate::support::{
    Authority, Certificate, Client, Folder, Gateway, Redis, RedisCluster, RedisSentinels, TcpProxy,
    Upstream, eventually, response,
};

/// Limits by a field, so that a test chooses where a caller's counter lies.
const ROUTES: &str = r#"
[store.on_outage]
limits = "refuse"
[limits.user]
key = ["header:x-user"]
allow = ["100/1h"]
[routes.all]
path = "/*"
upstream = "shop"
limits = ["user"]
"#;

/// A gateway whose one route needs the store.
struct House {
    gateway: Gateway,
    _upstream: Upstream,
}

impl House {
    /// `store` is what `[store]` says beside `timeout`.
    fn start(folder: Folder, store: &str) -> Self {
        let upstream = Upstream::replying(response("200 OK", "hello"));
        let config = format!("[store]\ntimeout = \"5s\"\n{store}\n{}", upstream.table("shop"));
        Self { gateway: Gateway::start_in(folder, &(config + ROUTES)), _upstream: upstream }
    }

    fn ask(&self, user: usize) -> u16 {
        let request = Client::get(self.gateway.public, "/");
        request.header("X-User", format!("user-{user}")).send().status
    }

    /// Callers whose counters lie on all servers are counted.
    fn serves(&self) {
        (0..20).for_each(|user| assert_eq!(self.ask(user), 200, "user {user}"));
    }

    fn says(&self, what: &str) {
        eventually(&format!("it says {what:?}"), || self.gateway.stderr().contains(what));
    }
}

fn files(authority: &Authority) -> Folder {
    let folder = Folder::new();
    folder.write("ca.pem", authority.pem());
    folder
}

fn tls_cluster(names: &[&str]) -> (Authority, RedisCluster) {
    let authority = Authority::new();
    let cluster = RedisCluster::start_with_tls(&authority.certificate(names), &authority);
    (authority, cluster)
}

fn with_tls(cluster: &RedisCluster, more: &str) -> String {
    format!("url = \"{}\"\ntls = {{ ca_file = \"ca.pem\"{more} }}", cluster.url())
}

/// The ids of the gateway's connections for requests at one server.
fn connections(redis: &Redis) -> Vec<String> {
    let list = redis.cli(&["CLIENT", "LIST"]);
    let ours = list.lines().filter(|line| line.contains(":requests "));
    ours.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn certificates_are_for_the_names_that_servers_announce() {
    // Redirects and the map itself name an address, for which no certificate is.
    let (authority, cluster) = tls_cluster(&["localhost"]);
    let house = House::start(files(&authority), &with_tls(&cluster, ""));
    house.serves();
    move_slots(&cluster);
    house.serves();
    for server in &cluster.servers {
        let list = server.cli(&["CLIENT", "LIST"]);
        let ours = list.lines().filter(|line| line.contains("portcullis:"));
        let port = format!(":{} ", server.tls_port());
        assert!(ours.clone().count() > 0 && ours.clone().all(|it| it.contains(&port)), "{list}");
    }
}

/// Gives the callers' slots of the first server to the second one.
fn move_slots(cluster: &RedisCluster) {
    let id = cluster.servers[1].cli(&["CLUSTER", "MYID"]);
    cluster.servers[0].cli(&["FLUSHALL"]);
    // With the highest epoch, it loses no slot to what the first one has said of itself before.
    let epoch = cluster.servers[1].cli(&["CLUSTER", "BUMPEPOCH"]);
    assert!(epoch.starts_with("BUMPED") || epoch.starts_with("STILL"), "{epoch}");
    for user in 0..20 {
        let key = format!("app:ratelimit:{{header:x-user=user-{user}}}:user:1h");
        let slot = cluster.servers[0].cli(&["CLUSTER", "KEYSLOT", &key]);
        if cluster.owner(&key) == 0 {
            for server in [1, 0, 2].map(|at| &cluster.servers[at]) {
                assert_eq!(server.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]), "OK");
            }
        }
    }
}

#[test]
fn one_name_can_be_that_of_all_servers() {
    let (authority, cluster) = tls_cluster(&["redis.internal"]);
    let named = with_tls(&cluster, ", server_name = \"redis.internal\"");
    House::start(files(&authority), &named).serves();
    let house = House::start(files(&authority), &with_tls(&cluster, ""));
    house.says("for another name");
    house.says("store.tls.server_name");
    assert_eq!(house.ask(1), 503);
}

#[test]
fn changed_certificates_are_used_by_the_connections_to_all_servers() {
    let (former, cluster) = tls_cluster(&["localhost"]);
    let next = Authority::new();
    let house = House::start(files(&former), &with_tls(&cluster, ""));
    house.serves();
    let before: Vec<Vec<String>> = cluster.servers.iter().map(connections).collect();
    std::fs::write(house.gateway.folder().join("ca.pem"), former.pem() + &next.pem()).unwrap();
    house.gateway.signal("HUP");
    house.says("the changed files of [store] are used");
    for (server, before) in cluster.servers.iter().zip(&before) {
        eventually("all are replaced", || {
            house.serves();
            let now = connections(server);
            now.len() == before.len() && now.iter().all(|id| !before.contains(id))
        });
    }
    let certificate: Certificate = next.certificate(&["localhost"]);
    for server in &cluster.servers {
        server.show(&certificate);
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
    eventually("requests are counted", || (0..20).all(|user| house.ask(user) == 200));
}

/// Maps servers to proxies in front of them.
fn mapped(servers: &[Redis], proxies: &[TcpProxy]) -> String {
    let pair = |(server, proxy): (&Redis, &TcpProxy)| {
        format!("\"{}\" = \"{}\"", server.address(), proxy.address())
    };
    let pairs: Vec<String> = servers.iter().zip(proxies).map(pair).collect();
    format!("address_map = {{ {} }}", pairs.join(", "))
}

fn proxies(servers: &[Redis]) -> Vec<TcpProxy> {
    servers.iter().map(|server| TcpProxy::start(server.address())).collect()
}

#[test]
fn servers_of_a_cluster_are_called_at_mapped_addresses() {
    let cluster = RedisCluster::start(3);
    let proxies = proxies(&cluster.servers);
    let map = mapped(&cluster.servers, &proxies);
    let seeds: Vec<String> = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
    let url = format!("url = \"redis-cluster://{}\"", seeds.join(","));
    let house = House::start(Folder::new(), &format!("{url}\n{map}"));
    house.serves();
    move_slots(&cluster);
    house.serves();
    proxies.iter().for_each(|proxy| assert!(proxy.batches() > 0));
    proxies.iter().for_each(TcpProxy::refuse);
    eventually("there is no other way", || (0..20).all(|user| house.ask(user) == 503));
    proxies.iter().for_each(TcpProxy::pass);
    eventually("requests are counted", || (0..20).all(|user| house.ask(user) == 200));
}

#[test]
fn the_primary_of_sentinels_is_called_at_its_mapped_address() {
    let sentinels = RedisSentinels::start_small();
    let proxies = proxies(&sentinels.servers);
    let map = mapped(&sentinels.servers, &proxies);
    let house = House::start(Folder::new(), &format!("url = \"{}\"\n{map}", sentinels.url()));
    house.serves();
    proxies[0].refuse();
    eventually("there is no other way", || house.ask(1) == 503);
    proxies[0].pass();
    eventually("requests are counted", || house.ask(1) == 200);
}

#[test]
fn servers_may_have_addresses_of_ipv6() {
    let six = ["--bind", "127.0.0.1", "::1", "--cluster-announce-ip", "::1"];
    let cluster = RedisCluster::start_so(3, &six);
    let seed = cluster.servers[0].address().port();
    let house = House::start(Folder::new(), &format!("url = \"redis-cluster://[::1]:{seed}\""));
    house.serves();
    move_slots(&cluster);
    house.serves();
    for server in &cluster.servers {
        let list = server.cli(&["CLIENT", "LIST"]);
        let ours: Vec<&str> = list.lines().filter(|it| it.contains(":requests ")).collect();
        assert!(!ours.is_empty() && ours.iter().all(|it| it.contains(" addr=[::1]:")), "{list}");
    }
}

#[test]
fn an_address_that_another_cluster_has_got_is_not_believed() {
    let mut cluster = RedisCluster::start(3);
    // Long enough that nobody finds the server failed before the gateway has called it again. It is
    // set late, since servers with such a timeout take as long to get to know each other.
    for server in &cluster.servers {
        assert_eq!(server.cli(&["CONFIG", "SET", "cluster-node-timeout", "60000"]), "OK");
    }
    let house = House::start(Folder::new(), &format!("url = \"{}\"", cluster.url()));
    house.serves();
    let user = |server: usize| {
        let key = |user: usize| format!("app:ratelimit:{{header:x-user=user-{user}}}:user:1h");
        (0..20).find(|user| cluster.owner(&key(*user)) == server).expect("a user")
    };
    let (there, here) = (user(2), user(0));
    let address: SocketAddr = cluster.servers[2].address();
    let other = &mut cluster.servers[2];
    other.kill();
    other.forget_cluster();
    other.restart();
    assert_eq!(other.address(), address);
    assert_eq!(other.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]), "OK");
    house.says("another server answers there");
    for _ in 0..20 {
        assert_eq!((house.ask(there), house.ask(here)), (503, 200));
    }
    assert_eq!(other.cli(&["DBSIZE"]), "0", "nothing was counted there");
}
