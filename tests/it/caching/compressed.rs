//! Bodies that are compressed in Redis: less of it is used, and nobody sees a difference.

use std::io::Write as _;

use super::{House, is_hit, store};
use crate::support::{Client, Gateway, Redis, Reply, Upstream, eventually, response};

/// Longest body of the tests: three pieces of 256 KiB, the last one not full.
const LENGTH: usize = 600 * 1024;
const ROUTES: &str = r#"
[routes.all]
path = "/*"
upstream = "shop"
cache = { ttl = "1h", max_bytes = "2MiB" }
"#;

/// Words of this length in all, as text has them: some come again, in no order.
fn words(length: usize) -> String {
    let mut random = fastrand::Rng::with_seed(length as u64);
    let mut word = || {
        let length = random.usize(3..9);
        std::iter::repeat_with(|| random.lowercase()).take(length).collect::<String>()
    };
    let known: Vec<String> = (0..200).map(|_| word()).collect();
    let mut text = String::new();
    while text.len() < length {
        text.push_str(&known[random.usize(..known.len())]);
        text.push(' ');
    }
    text.truncate(length);
    text
}

/// Answers `/LENGTH/TYPE/CODING` with so many bytes of words.
fn upstream() -> Upstream {
    Upstream::with(|request, connection| {
        let parts: Vec<&str> = request.target().split('/').skip(1).collect();
        let coding = if parts[2] == "none" { "X-Coding" } else { "Content-Encoding" };
        let kind = parts[1].replace('.', "/");
        let head =
            format!("200 OK\r\nETag: \"v\"\r\nContent-Type: {kind}\r\n{coding}: {}", parts[2]);
        let body = words(parts[0].parse().expect("a length"));
        let _ = connection.write_all(response(&head, &body).as_bytes());
    })
}

/// The first gateway compresses, the second one does not; neither keeps anything in itself.
fn house() -> House {
    let (redis, upstream) = (Redis::start(), upstream());
    let config = |compression: &str| {
        let more = format!("near_cache_bytes = \"0B\"\ncache_compression = \"{compression}\"\n");
        store(&redis) + &more + &upstream.table("shop") + ROUTES
    };
    let gateways = [Gateway::start(&config("zstd")), Gateway::start(&config("off"))];
    House { redis, upstream, gateways }
}

impl House {
    fn ask(&self, gateway: usize, path: &str) -> Reply {
        let address = self.gateways[gateway].public;
        Client::get(address, path).header("Host", "shop.test").send()
    }

    /// Has a gateway fetch it, and tells how many bytes Redis keeps of it, and in how many pieces.
    fn kept(&self, gateway: usize, path: &str) -> (usize, usize) {
        self.redis.cli(&["FLUSHALL"]);
        eventually("it is kept", || is_hit(&self.ask(gateway, path)));
        let number = |text: String| text.parse::<usize>().expect("a number");
        let entry = self.entries().pop().expect("an entry");
        let inline = number(self.redis.cli(&["HSTRLEN", &entry, "-"]));
        let pieces = self.redis.cli(&["KEYS", "app:cache:*:body:*"]);
        let pieces: Vec<_> = pieces.lines().map(|key| self.redis.cli(&["STRLEN", key])).collect();
        (inline + pieces.iter().cloned().map(number).sum::<usize>(), pieces.len())
    }
}

#[test]
fn text_takes_less_of_redis_and_is_read_by_every_gateway() {
    let house = house();
    for (length, pieces) in [(1024, 0), (64 * 1024, 0), (64 * 1024 + 1, 1), (LENGTH, 3)] {
        let path = format!("/{length}/text.plain/none");
        let (plain, in_pieces) = house.kept(1, &path);
        assert!(plain > length && in_pieces == pieces, "{path}: {plain}, {in_pieces}");
        let (compressed, in_pieces) = house.kept(0, &path);
        let most = if length > 1024 { length / 2 } else { plain - length / 8 };
        assert!(compressed < most && in_pieces == pieces, "{path}: {compressed}, {in_pieces}");
        house.upstream.forget();
        for gateway in [1, 0] {
            let reply = house.ask(gateway, &path);
            assert!(is_hit(&reply) && reply.text() == words(length), "{path}");
            assert_eq!(reply.header("content-length"), Some(&*length.to_string()));
            assert_eq!(reply.header("etag"), Some("\"v\""));
            assert_eq!((reply.header("content-encoding"), reply.header("vary")), (None, None));
        }
        assert_eq!(house.upstream.seen(), 0, "{path}");
    }
    let address = house.gateways[0].admin;
    let metrics =
        Client::get(address, "/metrics").header("Host", address.to_string()).send().text();
    let saved = metrics.lines().find_map(|line| {
        line.strip_prefix("portcullis_cache_compression_saved_bytes_total ")?.parse::<usize>().ok()
    });
    assert!(saved.is_some_and(|saved| saved > LENGTH / 2), "{saved:?}");
}

#[test]
fn what_is_short_no_text_or_in_a_coding_already_is_kept_as_it_is() {
    let house = house();
    for (length, kind) in [
        (1023, "text.plain/none"),
        (65_536, "image.png/none"),
        (65_536, "text.plain/gzip"),
        (100_000, "application.json/br"),
        (100_000, "video.mp4/none"),
    ] {
        let path = format!("/{length}/{kind}");
        let kept = house.kept(0, &path).0;
        assert!(kept > length && kept == house.kept(1, &path).0, "{path}: {kept}");
    }
}

#[test]
fn parts_are_cut_from_what_was_compressed() {
    let house = house();
    for length in [64 * 1024, LENGTH] {
        let path = format!("/{length}/application.json/none");
        house.kept(0, &path);
        let whole = words(length);
        let border = (256 * 1024).min(length - 10);
        for (begin, end) in [(0, 9), (border - 5, border + 4), (length - 7, length - 1)] {
            for gateway in [0, 1] {
                let request = Client::get(house.gateways[gateway].public, &path);
                let field = format!("bytes={begin}-{end}");
                let reply = request.header("Host", "shop.test").header("Range", &field).send();
                assert!(is_hit(&reply) && reply.status == 206, "{path} {field}: {reply:?}");
                assert_eq!(reply.text(), whole[begin..=end], "{path} {field}");
            }
        }
    }
}

#[test]
fn what_was_damaged_is_fetched_anew() {
    let house = house();
    for (length, keys) in [(64 * 1024, "app:cache:*:entry:*"), (LENGTH, "app:cache:*:body:*")] {
        let path = format!("/{length}/text.css/none");
        house.kept(0, &path);
        let found = house.redis.cli(&["KEYS", keys]);
        let key = found.lines().max().expect("a key");
        let damage = |script: &str| house.redis.cli(&["EVAL", script, "1", key]);
        let done = if length == LENGTH {
            damage("return redis.call('SETRANGE', KEYS[1], 5000, '????')")
        } else {
            damage(
                "local v = redis.call('HGET', KEYS[1], '-') \
                 return redis.call('HSET', KEYS[1], '-', v:sub(1, 5000) .. '????' .. v:sub(5005))",
            )
        };
        assert!(!done.contains("error"), "{done}");
        house.upstream.forget();
        let whole = |gateway: usize| {
            let request = Client::get(house.gateways[gateway].public, &path);
            // What is found out after the head was sent is cut off, and never whole.
            let reply = request.header("Host", "shop.test").try_send();
            reply.is_ok_and(|reply| {
                assert!(reply.text() == words(length), "{path}");
                true
            })
        };
        whole(1);
        eventually("it is whole again", || whole(1) && whole(0));
        assert!(house.upstream.seen() >= 1, "{path}");
    }
}
