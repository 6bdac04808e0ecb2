//! Tickets that all gateways of a fleet open, and who opens none.

use rustls::version::{TLS12, TLS13};

use super::{House, certificates, write};
use crate::support::tls::{self, get, is_resumed};
use crate::support::{
    CertificateAuthority, Folder, Pair, Redis, TcpProxy, TlsClient, eventually, run,
};

/// What the keys of tickets are wrapped with.
const SECRET: &str = "secret = \"an example of 32 bytes and then some\"";

/// What the gateways of a fleet have in common.
struct Fleet {
    /// Who vouches for `site`.
    authority: CertificateAuthority,
    site: Pair,
    /// Who vouches for clients.
    clients: CertificateAuthority,
    redis: Redis,
}

impl Fleet {
    fn new() -> Self {
        let (authority, clients) = (CertificateAuthority::new(), CertificateAuthority::new());
        let site = authority.issue(&["shop.test"]);
        Self { authority, site, clients, redis: Redis::start() }
    }

    /// Starts one of its gateways; `more` is more of its `[server.tls]`.
    fn gateway(&self, more: &str) -> House {
        self.gateway_at(&self.redis.url(), &format!("{SECRET}\n{more}"))
    }

    fn gateway_at(&self, store: &str, more: &str) -> House {
        let tls = certificates(&["site"], &format!("tickets = 'fleet'\n{more}"));
        let fill = |folder: &Folder, _: &CertificateAuthority| {
            write(folder, "site", &self.site);
            folder.write("clients.pem", &self.clients.pem);
        };
        House::with(fill, &format!("{tls}[store]\nurl = '{store}'\n"))
    }

    fn client(&self) -> TlsClient {
        TlsClient::new(&self.authority)
    }
}

/// Whether a visit resumes a session.
fn visit(client: &TlsClient, house: &House) -> bool {
    let mut stream = client.connect(house.tls, "shop.test").expect("a connection");
    let request = get("shop.test", "/", "Connection: close\r\n");
    let answer = tls::exchange(&mut stream, &request).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    is_resumed(&stream)
}

#[test]
fn a_ticket_of_one_gateway_resumes_at_another() {
    let fleet = Fleet::new();
    let [a, b] = [(); 2].map(|()| fleet.gateway(""));
    for version in [&TLS12, &TLS13] {
        let client = TlsClient::speaking(version, &fleet.authority, None);
        let resumed = [&a, &b, &a, &b].map(|house| visit(&client, house));
        assert_eq!(resumed, [false, true, true, true], "{version:?}");
    }
    let keys = fleet.redis.cli(&["KEYS", "app:{tls}:tickets:*"]);
    assert_eq!(keys.lines().count(), 1, "{keys}");
    let life: i64 = fleet.redis.cli(&["PTTL", &keys]).parse().unwrap();
    assert!((1..=24 * 3_600_000).contains(&life), "until the next epoch ends: {life}");
    assert!(fleet.redis.cli(&["GET", &keys]).starts_with("aes-256-gcm:"), "it lies wrapped");
    // What one forgets and gets back, all go on with.
    fleet.redis.cli(&["FLUSHALL"]);
    let client = fleet.client();
    assert_eq!([&a, &b].map(|house| visit(&client, house)), [false, true]);
    eventually("the key is back", || fleet.redis.cli(&["EXISTS", &keys]) == "1");
    assert!(visit(&client, &fleet.gateway("")), "a gateway that comes later joins");
}

#[test]
fn a_ticket_opens_no_door_where_more_is_asked_of_clients() {
    let fleet = Fleet::new();
    let [open, guarded] = ["", "client_ca = 'clients.pem'"].map(|more| fleet.gateway(more));
    let ann = fleet.clients.client("ann");
    for version in [&TLS12, &TLS13] {
        let own = TlsClient::speaking(version, &fleet.authority, Some(&ann));
        let resumed = [&open, &guarded, &guarded, &open].map(|house| visit(&own, house));
        assert_eq!(resumed, [false, false, true, false], "{version:?}");
        guarded.upstream.recorded().iter().for_each(|seen| {
            assert!(seen.header("client-cert").is_some(), "{}", seen.text());
        });
    }
}

#[test]
fn a_ticket_ends_when_the_authorities_of_clients_change() {
    let fleet = Fleet::new();
    let [a, b] = [(); 2].map(|()| fleet.gateway("client_ca = 'clients.pem'"));
    let ann = fleet.clients.client("ann");
    let own = TlsClient::with(&fleet.authority, Some(&ann), &[]);
    assert_eq!([&a, &b].map(|house| visit(&own, house)), [false, true]);
    // Ann is still welcome: by a whole handshake.
    let more = [&*fleet.clients.pem, &CertificateAuthority::new().pem].concat();
    for house in [&a, &b] {
        std::fs::write(house.gateway.folder().join("clients.pem"), &more).unwrap();
    }
    for house in [&a, &b] {
        house.counts("portcullis_tls_reloads_total", ("result", "applied"), 1.0);
    }
    assert_eq!([&b, &a].map(|house| visit(&own, house)), [false, true]);
}

#[test]
fn without_the_store_tickets_are_each_gateways_own_until_it_is_back() {
    let fleet = Fleet::new();
    let proxy = TcpProxy::start(fleet.redis.address());
    proxy.refuse();
    let [a, b] = [(); 2].map(|()| fleet.gateway_at(&proxy.url(), SECRET));
    let (client, early) = (fleet.client(), fleet.client());
    assert_eq!([&a, &a, &b, &b].map(|house| visit(&client, house)), [false, true, false, true]);
    assert!(!visit(&early, &a));
    proxy.pass();
    eventually("the fleet has a key", || !fleet.redis.cli(&["KEYS", "app:{tls}:*"]).is_empty());
    eventually("it is the same for both", || {
        let client = fleet.client();
        [&a, &b].map(|house| visit(&client, house)) == [false, true]
    });
    assert!(visit(&early, &a), "its own tickets stay good");
}

#[test]
fn another_secret_is_named_and_shares_nothing() {
    let fleet = Fleet::new();
    let a = fleet.gateway("");
    let other = SECRET.replace("an example", "another one");
    let b = fleet.gateway_at(&fleet.redis.url(), &other);
    let client = fleet.client();
    assert_eq!([&a, &a, &b, &b].map(|house| visit(&client, house)), [false, true, false, true]);
    let key = fleet.redis.cli(&["KEYS", "app:{tls}:tickets:*"]);
    let said = b.gateway.stderr();
    assert!(said.contains("tickets are this gateway's own, and not the fleet's"), "{said}");
    assert!(said.contains(&format!("{key} cannot be read with server.tls.secret")), "{said}");
    assert!(!a.gateway.stderr().contains("this gateway's own"), "{}", a.gateway.stderr());
}

#[test]
fn with_the_embedded_store_a_gateway_opens_its_own() {
    let fleet = Fleet::new();
    let [a, b] = [(); 2].map(|()| fleet.gateway_at("memory:", ""));
    let client = fleet.client();
    assert_eq!([&a, &a, &b, &b].map(|house| visit(&client, house)), [false, true, false, true]);
}

#[test]
fn a_reload_takes_no_tickets_away() {
    let fleet = Fleet::new();
    let [a, b] = [(); 2].map(|()| fleet.gateway(""));
    let client = fleet.client();
    assert!(!visit(&client, &a));
    // Both would make a new key, and the store has none of before.
    fleet.redis.cli(&["FLUSHALL"]);
    let file = a.gateway.folder().join("gateway.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    let changed = config.replace("tickets = 'fleet'", "tickets = 'fleet'\nhsts = '1d'");
    std::fs::write(&file, changed).unwrap();
    a.gateway.signal("HUP");
    a.counts("portcullis_reloads_total", ("result", "applied"), 1.0);
    assert_eq!([&a, &b].map(|house| visit(&client, house)), [true, true]);
}

#[test]
fn check_demands_a_secret_where_keys_lie_in_redis() {
    let fleet = Fleet::new();
    let checked = |store: &str, secret: &str| {
        let folder = Folder::new();
        write(&folder, "site", &fleet.site);
        let tls = certificates(&["site"], &format!("tickets = 'fleet'\n{secret}"));
        folder.write(
            "gateway.toml",
            format!(
                "[server]\nlisten = ['127.0.0.1:0']\n{tls}[store]\nurl = '{store}'\n\
                 [upstreams.u]\nservers = ['http://127.0.0.1:1']\n\
                 [routes.r]\nhost = 'shop.test'\npath = '/*'\nupstream = 'u'\n"
            ),
        );
        run(&folder, &["check", "--config", "gateway.toml"])
    };
    let refused = checked("redis://127.0.0.1:1", "");
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("server.tls.secret: the keys of tickets would lie bare"));
    for (store, secret) in [("redis://127.0.0.1:1", SECRET), ("memory:", "")] {
        let good = checked(store, secret);
        assert_eq!(good.code, Some(0), "{}", good.stderr);
    }
}
