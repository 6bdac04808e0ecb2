//! The configuration contract: defaults, one problem per mistake, a reference file that is true.

mod files;
mod idempotency;
mod mistakes;
mod nats;
mod queues;
mod reference;
mod shown;
mod store;
mod tls;
mod traffic;
mod words;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jsonwebtoken::Algorithm;
use proptest::prelude::*;

use super::{
    AccessFormat, Balance, KeySource, Level, LimitKey, LimitOutage, Loaded, Outage, Scope,
    SessionUse, Store, StoreUrl, StoreUse, TokenSource, known_keys, load, parse,
};

const REFERENCE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/gateway.toml"));

/// Parses `text` as `gateway.toml` in a folder of its own, with two variables in the environment.
fn read(text: &str) -> Loaded {
    let env = |name: &str| match name {
        "SET" => Some("correct horse".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    parse("gateway.toml", Path::new("/nonexistent"), text, &env).unwrap()
}

/// What a user sees for `text`.
fn report(text: &str) -> String {
    let loaded = read(text);
    loaded.source.render(&loaded.problems)
}

/// Files in a folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn with(files: &[(&str, &[u8])]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("portcullis-config-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (name, content) in files {
            std::fs::write(folder.join(name), content).unwrap();
        }
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn an_empty_file_has_the_defaults_of_the_design() {
    let Loaded { config, problems, .. } = read("");
    assert!(problems.is_empty());

    let server = config.server;
    assert_eq!(server.listen, ["0.0.0.0:8080".parse().unwrap()]);
    assert!(server.trusted_proxies.is_empty());
    assert_eq!(server.drain, Duration::from_secs(30));
    assert_eq!(server.drain_delay, Duration::ZERO);
    assert_eq!(server.park_after, Duration::from_secs(1));
    let limits = server.limits;
    assert_eq!((limits.header_bytes, limits.headers), (32_768, 100));
    assert_eq!(limits.body_bytes, 10_485_760);
    assert_eq!(limits.header_timeout, Duration::from_secs(10));
    assert_eq!(limits.idle_timeout, Duration::from_secs(75));
    assert_eq!(limits.progress_timeout, Duration::from_secs(30));
    assert_eq!(limits.progress_bytes, 32_768);
    assert_eq!((limits.connections, limits.connections_per_address), (10_000, 512));
    assert_eq!((limits.streams, limits.encoded_slash), (128, false));

    assert_eq!((config.log.access, config.log.level), (AccessFormat::Json, Level::Info));
    assert_eq!(config.admin.listen, "127.0.0.1:9901".parse().unwrap());
    assert_eq!(config.admin.token, None);
    assert_eq!(config.admin.revocation_ttl, Duration::from_secs(2_592_000));

    let store = config.store;
    assert_eq!((store.url, store.prefix.as_str()), (StoreUrl::Memory, "app"));
    assert_eq!((store.username, store.password), (None, None));
    assert_eq!(store.timeout, Duration::from_millis(50));
    assert_eq!(store.connect_timeout, Duration::from_millis(500));
    assert_eq!(store.reconnect_backoff, Duration::from_millis(250));
    assert_eq!(store.cache_wait, Duration::from_secs(2));
    assert_eq!((store.memory_limit_keys, store.near_cache_bytes), (1_000_000, 33_554_432));
    assert_eq!((store.cache_epochs, store.known_epochs), (super::CacheEpochs::Ask, 100_000));
    assert_eq!(store.cache_compression, super::CacheCompression::Off);
    let outage = store.on_outage;
    assert_eq!((outage.revocation, outage.session), (Outage::Refuse, Outage::Refuse));
    assert_eq!((outage.limits, outage.nodes), (LimitOutage::Local, 1));

    assert!(config.session.is_none());
    assert!(config.auth.is_empty() && config.limits.is_empty());
    assert!(config.upstreams.is_empty() && config.routes.is_empty());
}

#[test]
fn a_separate_store_is_as_the_main_one_but_for_who_it_is() {
    let loaded = read(
        r#"
        [store]
        url = "rediss://main:6380/1"
        prefix = "shop"
        username = "gateway"
        password = "secret"
        timeout = "70ms"
        reply_bytes = "4MiB"
        [store.cache]
        url = "redis-sentinel://s1,s2/cache"
        timeout = "20ms"
        [store.limits]
        url = "rediss://limits:6380"
        username = "limiter"
        password = "env:SET"
        [store.limits.tls]
        server_name = "limits.internal"
        "#,
    );
    assert!(loaded.problems.is_empty(), "{}", loaded.source.render(&loaded.problems));
    let main = loaded.config.store;
    let (cache, limits) = (main.used_for(StoreUse::Cache), main.used_for(StoreUse::Limits));
    assert_eq!(main.used_for(StoreUse::Main), &main);
    assert!(matches!(cache.url, StoreUrl::Sentinel { .. }) && cache.sentinel.is_some());
    assert_eq!((&cache.username, &cache.password, &cache.tls), (&None, &None, &None));
    assert_eq!((cache.timeout, cache.reply_bytes), (Duration::from_millis(20), 4 << 20));
    assert_eq!((limits.timeout, &*limits.prefix), (Duration::from_millis(70), "shop"));
    assert_eq!(limits.username.as_deref(), Some("limiter"));
    assert!(limits.password != main.password && limits.tls != main.tls && limits.tls.is_some());
    let uses = |store: &Store| store.uses().collect::<Vec<_>>();
    assert_eq!(uses(&main), [StoreUse::Main, StoreUse::Queue]);
    assert_eq!(uses(cache), [StoreUse::Cache]);
    assert_eq!(main.all().count(), 3);
    let alone = Store { cache: None, ..main.clone() };
    assert_eq!(uses(&alone), [StoreUse::Main, StoreUse::Cache, StoreUse::Queue]);
    assert!(main.is_served_by(&main) && !main.is_served_by(&alone));
    let moved = Store { timeout: Duration::from_millis(1), ..cache.clone() };
    assert!(!main.is_served_by(&Store { cache: Some(Box::new(moved)), ..main.clone() }));
    let queue = |text: &str| {
        let loaded = read(&format!("[store]\nurl = 'redis://main'\npassword = 'env:SET'\n{text}"));
        assert!(loaded.problems.is_empty(), "{}", loaded.source.render(&loaded.problems));
        loaded.config.store
    };
    let short = queue("queue_url = 'rediss://queue:6380'");
    assert_eq!(short, queue("[store.queue]\nurl = 'rediss://queue:6380'"));
    let own = short.used_for(StoreUse::Queue);
    assert_eq!((uses(own), own.password.as_ref()), (vec![StoreUse::Queue], None));
    assert!(own.tls.is_some() && short.is_one_of_several() && own.has(StoreUse::Queue));
    assert!(!queue("").is_one_of_several() && !queue("").has(StoreUse::Queue));
    let both = report("[store]\nqueue_url = 'redis://a'\n[store.queue]\nurl = 'redis://b'");
    assert!(both.contains("store.queue_url: is of no use beside [store.queue]"), "{both}");
    let report = report("[store]\n[store.cache]\ntimeout = '1s'\nprefix = 'x'");
    assert!(report.contains("store.cache.url: is missing"), "{report}");
    assert!(report.contains("store.cache.prefix: unknown key"), "{report}");
}

#[test]
fn named_tables_have_the_defaults_of_the_design() {
    let loaded = read(
        r#"
        auth.users = { algorithms = ["HS256", "EdDSA", "Ed25519"], secret = "env:SET" }
        session = { id_from = ["cookie:sid"] }
        limits.api = { key = ["claim:sub", "header:X-Shop", "route"], allow = ["100/15m"] }
        upstreams.shop = { servers = ["http://[::1]:3000/", { url = "http://shop", weight = 2 }] }
        routes.all = { path = "/*", upstream = "shop", cache = { ttl = "5m" } }
        "#,
    );
    assert!(loaded.problems.is_empty(), "{}", loaded.source.render(&loaded.problems));

    let users = &loaded.config.auth["users"];
    assert_eq!(users.algorithms, [Algorithm::HS256, Algorithm::EdDSA]);
    assert!(matches!(&users.keys, Some(KeySource::Secret(s)) if s.expose() == b"correct horse"));
    assert_eq!(users.from, [TokenSource::Header(http::header::AUTHORIZATION)]);
    assert_eq!((users.leeway, users.max_age), (Duration::from_secs(30), None));
    assert_eq!(users.token_bytes, 8192);
    assert!(users.revocation && !users.forward_token);

    let session = loaded.config.session.unwrap();
    assert_eq!((session.header, session.idle_timeout, session.max_bytes), (None, None, 8192));
    assert_eq!((session.absolute_timeout, session.rolling_timeout), (None, None));
    assert_eq!((session.suspended_field, session.max_per_user), (None, None));
    assert_eq!(session.ended_for, Duration::from_secs(3600));
    let fields = (&*session.created_field, &*session.renewed_field);
    assert_eq!(fields, ("created_at", "renewed_at"));

    let api = &loaded.config.limits["api"];
    assert_eq!(api.scope, Scope::Shared);
    let header = http::HeaderName::from_static("x-shop");
    let key = [LimitKey::Claim("sub".to_owned()), LimitKey::Header(header), LimitKey::Route];
    assert_eq!(api.key, key);

    let shop = &loaded.config.upstreams["shop"];
    let servers: Vec<_> =
        shop.servers.iter().map(|s| (s.host.as_str(), s.port, s.weight)).collect();
    assert_eq!(servers, [("::1", 3000, 1), ("shop", 80, 2)]);
    assert_eq!((&shop.balance, shop.max_connections), (&Balance::P2c, 256));
    assert_eq!(shop.connect_timeout, Duration::from_secs(1));
    assert_eq!(shop.response_timeout, Duration::from_secs(30));
    assert_eq!(shop.read_timeout, Duration::from_secs(300));
    assert_eq!(shop.idle_timeout, Duration::from_secs(60));
    assert_eq!((shop.header_bytes, shop.headers), (65_536, 100));
    assert_eq!(shop.fail_timeout, Duration::from_secs(5));
    assert_eq!(
        [1, 3, 4, 256, 1_000_000].map(|max| shop.client_share.of(max)),
        [0, 0, 1, 64, 250_000]
    );

    let all = &loaded.config.routes["all"];
    assert_eq!((all.session, all.auth.is_none()), (SessionUse::Off, true));
    let cache = all.cache.as_ref().unwrap();
    assert_eq!((cache.shared, cache.max_bytes), (false, 1_048_576));
}

#[test]
fn a_problem_is_three_lines_with_its_place_and_its_remedy() {
    let text = "[log]\nlevel = \"info\"\n[server]\n  lisetn = [\"0.0.0.0:80\"]\ndrain = \"30x\"\n";
    assert_eq!(
        report(text),
        r#"gateway.toml:4:3: server.lisetn: unknown key
    lisetn = ["0.0.0.0:80"]
    help: did you mean `listen`?
gateway.toml:5:1: server.drain: "30x" is not a valid duration
    drain = "30x"
    help: write a whole number and one unit: 250ms, 30s, 15m, 1h or 2d
2 problems in gateway.toml
"#
    );
}

#[test]
fn problems_of_others_stand_at_the_nearest_table_and_only_once() {
    let Loaded { source, mut problems, .. } = read("# shop\n[routes.a]\npath='/'\nupstream='x'\n");
    for (path, what) in [
        ("routes.a.cache.ttl", "first"),
        ("routes.b.path", "second"),
        ("nothing", "third"),
        ("routes.a.cache.ttl", "first"),
    ] {
        problems.push(path, what, "do it");
    }
    let report = source.render(&problems);
    for line in [
        "gateway.toml:2:9: routes.a.cache.ttl: first\n    [routes.a]\n",
        "gateway.toml:2:2: routes.b.path: second\n",
        "gateway.toml:1:1: nothing: third\n    # shop\n    help: do it\n",
        "\n3 problems in gateway.toml\n",
    ] {
        assert!(report.contains(line), "{line}: {report}");
    }
    let empty = read("").source.render(&problems);
    assert!(
        empty.starts_with("gateway.toml:1:1: nothing: third\n    (an empty line)\n"),
        "{empty}"
    );
}

#[test]
fn store_urls() {
    let redis = |host: &str, port, db| StoreUrl::Redis { host: host.to_owned(), port, db };
    let cluster = |seeds: &[(&str, u16)]| {
        let seeds = seeds.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect();
        StoreUrl::Cluster { seeds }
    };
    let sentinel = |sentinels: &[(&str, u16)], primary: &str| {
        let sentinels = sentinels.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect();
        StoreUrl::Sentinel { sentinels, primary: primary.to_owned() }
    };
    for (url, expected) in [
        ("memory:", StoreUrl::Memory),
        ("redis://cache", redis("cache", 6379, 0)),
        ("redis://10.0.0.1:6380/", redis("10.0.0.1", 6380, 0)),
        ("redis://[::1]:6380/3", redis("::1", 6380, 3)),
        ("redis+unix:///run/r.sock", StoreUrl::Unix { path: "/run/r.sock".into() }),
        ("redis+unix:/run/r.sock", StoreUrl::Unix { path: "/run/r.sock".into() }),
        ("redis-cluster://a,b:7", cluster(&[("a", 6379), ("b", 7)])),
        ("redis-cluster://[::1]:7/0", cluster(&[("::1", 7)])),
        ("redis-sentinel://a,b:7/main", sentinel(&[("a", 26_379), ("b", 7)], "main")),
        ("redis-sentinel://[::1]:7/a-b.c_1", sentinel(&[("::1", 7)], "a-b.c_1")),
    ] {
        let loaded = read(&format!("[store]\nurl = '{url}'"));
        assert!(loaded.problems.is_empty(), "{url}");
        assert_eq!(loaded.config.store.url, expected);
    }
}

#[test]
fn files_are_read_beside_the_configuration() {
    let large = vec![b'x'; (1 << 20) + 1];
    let folder = Folder::with(&[
        ("secret", b"s3cret\r\n"),
        ("key.pem", b"PEM\n"),
        ("empty", b"\n"),
        ("binary", b"\xff"),
        ("large", &large),
        (
            "gateway.toml",
            br#"
            admin.token = "file:secret"
            store.password = "file:empty"
            auth.a = { algorithms = ["ES256"], public_key_file = "key.pem" }
            auth.b = { algorithms = ["ES256"], jwks_file = "binary" }
            auth.c = { algorithms = ["ES256"], jwks_file = "large" }
            auth.d = { algorithms = ["ES256"], jwks_file = "key.pem", public_key_file = "key.pem" }
            "#,
        ),
        ("latin1.toml", b"# one\n# \xe9\n"),
    ]);
    let loaded = load(&folder.0.join("gateway.toml")).unwrap();
    assert_eq!(loaded.config.admin.token.unwrap().expose(), b"s3cret");
    assert!(
        matches!(&loaded.config.auth["a"].keys, Some(KeySource::PublicKey(pem)) if pem == "PEM\n")
    );
    let report = loaded.source.render(&loaded.problems);
    for line in [
        "store.password: the file \"empty\" is empty",
        "auth.b.jwks_file: \"binary\" is not text",
        "is larger than 1MiB",
        "auth.d.jwks_file: is one of several sources of keys: public_key_file, jwks_file",
        "4 problems in ",
    ] {
        assert!(report.contains(line), "{line}: {report}");
    }

    let missing = load(&folder.0.join("no.toml")).unwrap_err();
    assert!(missing.contains("cannot read the configuration") && missing.contains("--config"));
    let latin1 = load(&folder.0.join("latin1.toml")).unwrap_err();
    assert!(latin1.contains("latin1.toml:2: this line is not UTF-8"), "{latin1}");
}

#[test]
fn a_syntax_error_shows_its_line() {
    let env = |_: &str| None;
    let error = parse("gateway.toml", Path::new(""), "[server]\ndrain = 30s\n", &env).unwrap_err();
    assert!(error.starts_with("gateway.toml:2:9: "), "{error}");
    assert!(error.contains("\n    drain = 30s\n    help: "), "{error}");
}

#[test]
fn secrets_are_never_printed() {
    let env = |name: &str| (name == "SET").then(|| "hunter2".to_owned());
    for text in [
        "[admin]\ntoken = 'hunter2'\nlisten = 1",
        "[admin]\ntoken = ['hunter2']",
        "[admin]\ntokn = 'hunter2'",
        "[admin]\ntoken = { value = 'hunter2' }",
        "[admin]\ntoken.value = 'hunter2'",
        "admin = { token = 'hunter2', listen = 1 }",
        "[store]\nurl = 'redis://user:hunter2@host'",
        "[store]\nurl = ['redis://user:hunter2@host']",
        "[store]\npassword = \"\"\"\nhunter2\"\"\"\nusername = 1",
        "store = { password = '''\nhunter2''', prefix = 7 }",
        "[store]\npassword = 'env:SET'\nprefix = 7",
        "[auth.v]\nsecret = 'hunter2'\npublic_key_file = 'x'",
        "auth.v.secret = 'hunter2'",
        "[upstreams.u]\nservers = ['http://u:hunter2@h']",
        "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t.secret = 'hunter2'",
        // Not TOML.
        "[admin]\ntoken = 'hunter2",
        "[admin]\ntoken = hunter2",
        "[store]\nurl = 'redis://u:hunter2@h",
        "[store]\npassword = \"\"\"\nhunter2 \\q\"\"\"",
        "[auth.v]\nsecret 'hunter2'",
    ] {
        let printed = match parse("gateway.toml", Path::new(""), text, &env) {
            Ok(mut loaded) => {
                let lines = text.lines().count();
                assert!(lines > 0 && !loaded.problems.is_empty(), "{text}");
                // Every key's line is printed once more by a problem of somebody else.
                for path in known_keys() {
                    loaded.problems.push(path.replace("NAME", "v"), "again", "again");
                }
                format!("{loaded:?}{}", loaded.source.render(&loaded.problems))
            }
            Err(error) => error,
        };
        assert!(!printed.contains("hunter2"), "{text}: {printed}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in "(?s).{0,200}") {
        let env = |_: &str| None;
        if let Ok(loaded) = parse("gateway.toml", Path::new("/nonexistent"), &text, &env) {
            loaded.source.render(&loaded.problems);
        }
    }

    #[test]
    fn no_mutation_of_the_reference_makes_the_loader_panic(
        cuts in prop::collection::vec(
            (0.0..1.0f64, 0usize..40, "[\\[\\]{}=.,\"'#a-z0-9\n]{0,6}"),
            1..6,
        )
    ) {
        let mut text: Vec<char> = REFERENCE.chars().collect();
        for (place, length, new) in cuts {
            let start = (place * text.len() as f64) as usize;
            let end = (start + length).min(text.len());
            text.splice(start..end, new.chars());
        }
        let text: String = text.into_iter().collect();
        let env = |_: &str| None;
        match parse("gateway.toml", Path::new("/nonexistent"), &text, &env) {
            Ok(loaded) => prop_assert!(
                loaded.source.render(&loaded.problems).ends_with(" in gateway.toml\n")
            ),
            Err(error) => prop_assert!(error.starts_with("gateway.toml:"), "{}", error),
        }
    }
}
