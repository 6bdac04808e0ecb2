//! Redis under TLS, and the files that connections to it are made with: what is wrong is named, and
//! what changes is used without a restart.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use portcullis::config::{self, StoreTls, StoreUrl};
use portcullis::store::RedisStore;

use crate::support::{
    Authority, Certificate, Client, Folder, Gateway, PATIENCE, Redis, TLS_NAMES, Upstream,
    eventually, response,
};

/// A gateway whose one route needs the store.
struct House {
    gateway: Gateway,
    _upstream: Upstream,
}

impl House {
    /// `store` is what `[store]` says.
    fn start(folder: Folder, store: &str) -> Self {
        let upstream = Upstream::replying(response("200 OK", "hello"));
        let config = format!(
            "[store]\n{store}\n[store.on_outage]\nlimits = \"refuse\"\n[limits.api]\n\
             key = [\"address\"]\nallow = [\"1000000/1h\"]\n{}[routes.all]\npath = \"/*\"\n\
             upstream = \"shop\"\nlimits = [\"api\"]\n",
            upstream.table("shop"),
        );
        Self { gateway: Gateway::start_in(folder, &config), _upstream: upstream }
    }

    fn status(&self) -> u16 {
        Client::get(self.gateway.public, "/").send().status
    }

    fn serves(&self) {
        eventually("requests are counted", || self.status() == 200);
    }

    fn says(&self, what: &str) {
        eventually(&format!("it says {what:?}"), || self.gateway.stderr().contains(what));
    }

    fn times_said(&self, what: &str) -> usize {
        self.gateway.stderr().matches(what).count()
    }
}

/// What `[store]` says for TLS with these files.
fn store(url: &str, tls: &str) -> String {
    format!("url = \"{url}\"\ntimeout = \"2s\"\ntls = {{ {tls} }}")
}

fn files(authority: &Authority, identity: Option<&Certificate>) -> Folder {
    let folder = Folder::new();
    folder.write("ca.pem", authority.pem());
    if let Some(identity) = identity {
        folder.write("client.pem", identity.pem());
        folder.write("client.key", identity.key_pem());
    }
    folder
}

const CA: &str = "ca_file = \"ca.pem\"";
const MUTUAL: &str =
    "ca_file = \"ca.pem\", client_cert = \"client.pem\", client_key = \"client.key\"";

/// The ids of the gateway's connections for requests.
fn connections(redis: &Redis) -> Vec<String> {
    let list = redis.cli(&["CLIENT", "LIST"]);
    let ours = list.lines().filter(|line| line.contains(":requests "));
    ours.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn requests_are_counted_under_tls_with_a_certificate_of_the_gateway() {
    let authority = Authority::new();
    let redis = Redis::with_tls(&authority.certificate(&TLS_NAMES), &authority, true);
    let folder = files(&authority, Some(&authority.certificate(&["gateway"])));
    let house = House::start(folder, &store(&redis.tls_url(), MUTUAL));
    house.serves();
    let name = format!("-{}:requests ", house.gateway.pid());
    assert!(redis.cli(&["CLIENT", "LIST"]).contains(&name), "connections carry a name");
}

#[test]
fn the_name_that_redis_must_prove_can_be_given() {
    let authority = Authority::new();
    let redis = Redis::with_tls(&authority.certificate(&["redis.internal"]), &authority, false);
    let tls = format!("{CA}, server_name = \"redis.internal\"");
    House::start(files(&authority, None), &store(&redis.tls_url(), &tls)).serves();
}

#[test]
fn what_is_wrong_with_tls_is_told_with_what_to_do() {
    let (authority, other) = (Authority::new(), Authority::new());
    let good = authority.certificate(&TLS_NAMES);
    for (certificate, believed, wants, what, remedy) in [
        (&good, &other, false, "signed by nobody that is believed", "store.tls.ca_file"),
        (
            &authority.certificate(&["other.example"]),
            &authority,
            false,
            "for another name",
            "store.tls.server_name",
        ),
        (&authority.expired(&TLS_NAMES), &authority, false, "has expired", "renew it"),
        (&good, &authority, true, "it wants a certificate", "store.tls.client_cert"),
    ] {
        let redis = Redis::with_tls(certificate, &authority, wants);
        let house = House::start(files(believed, None), &store(&redis.tls_url(), CA));
        house.says(what);
        house.says(remedy);
        assert_eq!(house.status(), 503);
        assert_eq!(house.times_said(what), 1);
    }
}

#[test]
fn clear_text_and_tls_are_told_apart() {
    let authority = Authority::new();
    let redis = Redis::with_tls(&authority.certificate(&TLS_NAMES), &authority, false);
    let clear = format!("rediss://{}", redis.address());
    let house = House::start(files(&authority, None), &store(&clear, CA));
    house.says("does not speak TLS");
    let url = redis.tls_url().replace("rediss", "redis");
    let house = House::start(Folder::new(), &format!("url = \"{url}\""));
    house.says("write rediss:// in store.url");
}

#[test]
fn changed_certificates_are_proved_and_then_used_by_each_connection() {
    let (former, next) = (Authority::new(), Authority::new());
    let redis = Redis::with_tls(&former.certificate(&TLS_NAMES), &former, false);
    let house = House::start(files(&former, None), &store(&redis.tls_url(), CA));
    house.serves();
    let before = connections(&redis);
    // What does not believe Redis is not used, and nothing is lost.
    let write = |pem: String| std::fs::write(house.gateway.folder().join("ca.pem"), pem).unwrap();
    write(next.pem());
    house.gateway.signal("HUP");
    house.says("the changed files of [store] are not used");
    assert_eq!((house.status(), connections(&redis)), (200, before.clone()));
    write(former.pem() + &next.pem());
    house.gateway.signal("HUP");
    house.says("the changed files of [store] are used");
    eventually("all are replaced", || {
        assert_eq!(house.status(), 200, "no request fails meanwhile");
        let now = connections(&redis);
        now.len() == before.len() && now.iter().all(|id| !before.contains(id))
    });
    redis.show(&next.certificate(&TLS_NAMES));
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    house.serves();
}

#[test]
fn what_is_put_in_place_after_a_refusal_is_found_without_a_reload() {
    let (former, next) = (Authority::new(), Authority::new());
    let redis = Redis::with_tls(&next.certificate(&TLS_NAMES), &next, false);
    let house = House::start(files(&former, None), &store(&redis.tls_url(), CA));
    house.says("signed by nobody that is believed");
    std::fs::write(house.gateway.folder().join("ca.pem"), next.pem()).unwrap();
    house.serves();
}

#[test]
fn no_more_than_four_handshakes_are_under_way_at_a_time() {
    const STORES: usize = 8;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let authority = Authority::new();
    let folder = files(&authority, None);
    let path = folder.path().join("ca.pem");
    let content = portcullis::base::units::Secret::new(authority.pem());
    let settings = config::Store {
        url: StoreUrl::Redis { host: "localhost".to_owned(), port: address.port(), db: 0 },
        tls: Some(StoreTls {
            ca_file: Some(config::PemFile { path, content }),
            ..StoreTls::default()
        }),
        connect_timeout: PATIENCE,
        // One that failed does not come again.
        reconnect_backoff: PATIENCE,
        ..config::Store::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _stores: Vec<_> =
        runtime.block_on(async { (0..STORES).map(|_| RedisStore::open(&settings)).collect() });
    let mut waiting: Vec<TcpStream> =
        (0..STORES).map(|_| listener.accept().expect("a connection").0).collect();
    let mut begun: Vec<TcpStream> = Vec::new();
    for ended in 0..STORES {
        let expected = 4.min(STORES - ended);
        eventually("the next handshake begins", || {
            waiting.retain(|stream| {
                stream.set_nonblocking(true).unwrap();
                let has_begun = matches!((&*stream).read(&mut [0; 1]), Ok(1));
                if has_begun {
                    begun.push(stream.try_clone().unwrap());
                }
                !has_begun
            });
            begun.len() >= expected
        });
        assert_eq!(begun.len(), expected, "after {ended} have ended");
        begun.pop().expect("a handshake").shutdown(std::net::Shutdown::Both).unwrap();
    }
}

/// A Redis with a user whose password is the content of a file of the gateway.
fn with_user(password: &str) -> (Redis, House) {
    let redis = Redis::start();
    set_user(&redis, &["resetpass", "+@all", "~*", &format!(">{password}")]);
    let folder = Folder::new();
    folder.write("password", format!("{password}\n"));
    let settings = format!(
        "url = \"{}\"\ntimeout = \"2s\"\nusername = \"gateway\"\npassword = \"file:password\"",
        redis.url()
    );
    let house = House::start(folder, &settings);
    (redis, house)
}

fn set_user(redis: &Redis, words: &[&str]) {
    let command = [&["ACL", "SETUSER", "gateway", "on"], words].concat();
    assert_eq!(redis.cli(&command), "OK");
}

/// Ends the load, also where the test fails: whoever sends it is waited for.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_password_is_changed_under_load_without_a_failed_request() {
    let (redis, house) = with_user("former-horse");
    house.serves();
    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let _ended = Ended(&stop);
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(house.status(), 200);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let path = house.gateway.folder().join("password");
        // Redis does not know it yet: it is not used, and nothing is lost.
        std::fs::write(&path, "next-horse").unwrap();
        house.gateway.signal("HUP");
        house.says("are not used");
        set_user(&redis, &[">next-horse"]);
        house.gateway.signal("HUP");
        house.says("are used for Redis");
        let logins = || {
            let stats = redis.cli(&["INFO", "commandstats"]);
            let of_auth = stats.lines().find_map(|line| line.strip_prefix("cmdstat_auth:calls="));
            of_auth.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
        };
        let all = connections(&redis).len();
        eventually("each connection logs in again", || logins() >= all);
        set_user(&redis, &["<former-horse"]);
        let seen = sent.load(Ordering::Relaxed);
        eventually("requests go on", || sent.load(Ordering::Relaxed) > seen + 10);
    });
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    house.serves();
    assert!(!house.gateway.stderr().contains("horse"), "no password is told");
    assert!(!house.gateway.stderr().contains("WRONGPASS)"), "none was met with by a connection");
}

#[test]
fn a_password_that_was_changed_too_late_is_found_without_a_reload() {
    let (redis, house) = with_user("former-horse");
    house.serves();
    set_user(&redis, &["resetpass", ">next-horse"]);
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    house.says("does not know this user or password (WRONGPASS)");
    std::fs::write(house.gateway.folder().join("password"), "next-horse").unwrap();
    house.serves();
}
