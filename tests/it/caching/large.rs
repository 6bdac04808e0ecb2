//! Bodies that lie in Redis in pieces: all of it, or a miss, or a cut that the client sees.

use std::io::Write as _;

use super::{Gate, House, asking, is_hit, store, text};
use crate::support::{Client, Gateway, Redis, Reply, Upstream, eventually, response};

/// Three pieces of 256 KiB, the last one not full.
const LENGTH: usize = 600 * 1024;
const ROUTES: &str = r#"
[routes.all]
path = "/*"
upstream = "shop"
cache = { ttl = "1h", max_bytes = "2MiB" }
"#;

/// Nothing is kept in the gateways themselves.
fn house(length: usize) -> House {
    let redis = Redis::start();
    let upstream = Upstream::replying(response("200 OK\r\nETag: \"v\"", &text(length)));
    let own_memory = "near_cache_bytes = \"0B\"\n";
    let config = store(&redis) + own_memory + &upstream.table("shop") + ROUTES;
    let gateways = [Gateway::start(&config), Gateway::start(&config)];
    House { redis, upstream, gateways }
}

impl House {
    /// The keys of the pieces, in order.
    fn pieces(&self) -> Vec<String> {
        let keys = self.redis.cli(&["KEYS", "app:cache:*:body:*"]);
        let mut keys: Vec<String> = keys.lines().map(str::to_owned).collect();
        keys.sort();
        keys
    }

    fn at(&self, gateway: usize) -> Result<Reply, String> {
        Client::get(self.gateways[gateway].public, "/p").try_send()
    }

    /// Fetches it anew, and hands over the keys of its pieces. The entry is looked for in Redis,
    /// where it is written last: asking for the body until it is a hit would hold up what it waits
    /// for.
    fn fill(&self) -> Vec<String> {
        if !self.entries().is_empty() {
            eventually("what was fetched last is kept", || {
                self.at(0).is_ok_and(|reply| is_hit(&reply))
            });
            let old = [self.pieces(), self.entries()].concat();
            let command: Vec<&str> =
                ["DEL"].into_iter().chain(old.iter().map(String::as_str)).collect();
            self.redis.cli(&command);
        }
        self.at(0).expect("an answer");
        self.wait_for_entries(1);
        for gateway in [0, 1] {
            assert!(is_hit(&self.at(gateway).expect("an answer")), "gateway {gateway}");
        }
        self.pieces()
    }
}

#[test]
fn a_body_in_pieces_is_the_same_at_the_other_gateway() {
    for (length, pieces) in [(64 * 1024, 0), (64 * 1024 + 1, 1), (256 * 1024, 1), (LENGTH, 3)] {
        let house = house(length);
        assert_eq!(house.fill().len(), pieces, "{length}");
        let reply = house.at(1).expect("an answer");
        assert!(is_hit(&reply));
        assert!(reply.text() == text(length), "{length}");
        assert_eq!(house.upstream.seen(), 1, "{length}");
    }
}

#[test]
fn a_body_with_a_piece_missing_is_fetched_anew() {
    let (house, whole) = (house(LENGTH), text(LENGTH));
    for index in 0..3 {
        let pieces = house.fill();
        assert_eq!(pieces.len(), 3);
        house.upstream.forget();
        house.redis.cli(&["DEL", &pieces[index]]);
        for gateway in [1, 0] {
            let reply = house.at(gateway).expect("a whole answer");
            assert!(reply.text() == whole, "piece {index}");
        }
        assert!(house.upstream.seen() >= 1, "piece {index}");
        eventually("it is kept again", || is_hit(&house.at(1).expect("a whole answer")));
    }
}

#[test]
fn wrong_bytes_in_a_piece_never_reach_anybody_as_a_whole() {
    let (house, whole) = (house(LENGTH), text(LENGTH));
    for index in 0..3 {
        for damage in ["middle", "start", "short", "another", "type"] {
            let pieces = house.fill();
            let (piece, other) = (&pieces[index], &pieces[(index + 1) % 3]);
            let done = match damage {
                "middle" => house.redis.cli(&["SETRANGE", piece, "5000", "????"]),
                "start" => house.redis.cli(&["SETRANGE", piece, "3", "????"]),
                "short" => house.redis.cli(&["SET", piece, "short"]),
                "another" => house.redis.cli(&["COPY", other, piece, "REPLACE"]),
                _ => {
                    house.redis.cli(&["DEL", piece]);
                    house.redis.cli(&["LPUSH", piece, "x"])
                }
            };
            assert!(!done.contains("error"), "{done}");
            let wrong = |reply: &Result<Reply, String>| {
                reply.as_ref().is_ok_and(|reply| reply.status != 200 || reply.text() != whole)
            };
            for gateway in [1, 0] {
                assert!(!wrong(&house.at(gateway)), "{damage} {index}");
            }
            eventually("it is whole again", || {
                let reply = house.at(1);
                assert!(!wrong(&reply), "{damage} {index}");
                reply.is_ok()
            });
        }
    }
}

#[test]
fn redis_that_is_emptied_in_mid_body_gives_no_clean_end_of_a_short_one() {
    let (house, whole) = (house(2 * 1024 * 1024), text(2 * 1024 * 1024));
    for _ in 0..3 {
        house.fill();
        let mut session = asking(&house.gateways[1], "/p", "Connection: close\r\n");
        let head = session.read_until("\r\n\r\n");
        assert!(head.contains("hit"), "{head}");
        house.redis.cli(&["FLUSHALL"]);
        let got = session.rest();
        assert!(whole.starts_with(&got), "wrong bytes");
        assert!(house.at(1).expect("an answer").text() == whole);
    }
}

#[test]
fn a_body_that_goes_while_its_origin_confirms_it_is_an_error_once() {
    let (redis, gate, whole) = (Redis::start(), Gate::shut(), text(LENGTH));
    let (shut, body) = (gate.clone(), whole.clone());
    let upstream = Upstream::with(move |request, connection| {
        let fields = "Cache-Control: no-cache\r\nETag: \"v\"";
        let answer = if request.header("if-none-match").is_some() {
            shut.pass();
            format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n\r\n")
        } else {
            response(&format!("200 OK\r\n{fields}"), &body)
        };
        let _ = connection.write_all(answer.as_bytes());
    });
    let config = store(&redis) + "near_cache_bytes = \"0B\"\n" + &upstream.table("shop") + ROUTES;
    let gateways = [Gateway::start(&config), Gateway::start(&config)];
    let house = House { redis, upstream, gateways };
    assert!(house.at(0).expect("an answer").text() == whole);
    house.wait_for_entries(1);
    let mut session = asking(&house.gateways[1], "/p", "");
    eventually("the origin is asked", || house.upstream.seen() == 2);
    let pieces = house.pieces();
    assert_eq!(pieces.len(), 3);
    for piece in &pieces {
        house.redis.cli(&["DEL", piece]);
    }
    gate.open();
    let reply = session.read();
    let lost = "urn:portcullis:problem:cache_chunk_lost";
    assert_eq!((reply.status, reply.json()["type"].as_str()), (502, Some(lost)));
    assert!(house.at(1).expect("an answer").text() == whole, "and it is fetched anew");
}

#[test]
fn a_body_that_is_too_large_passes_and_is_kept_nowhere() {
    let whole = text(3 * 1024 * 1024);
    let body = whole.clone();
    let upstream = Upstream::with(move |request, connection| {
        let text = if request.target() == "/known" {
            response("200 OK", &body)
        } else {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
        };
        let _ = connection.write_all(text.as_bytes());
    });
    let house = House::with_routes(upstream, ROUTES);
    for path in ["/known", "/unknown"] {
        house.upstream.forget();
        for gateway in [0, 0, 1] {
            let reply = Client::get(house.gateways[gateway].public, path).send();
            assert!(reply.text() == whole && !is_hit(&reply), "{path}");
        }
        assert_eq!(house.upstream.seen(), 3, "{path}");
    }
    assert_eq!((house.entries().len(), house.pieces().len()), (0, 0));
}

/// Nobody follows what is known to be too large: when it is no longer kept, only one can read it.
#[test]
fn a_body_that_is_too_large_is_whole_for_all_who_ask_at_once() {
    let whole = text(3 * 1024 * 1024);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let unknown = format!("{chunked}{:x}\r\n{whole}\r\n0\r\n\r\n", whole.len());
    for (name, text) in [("known", response("200 OK", &whole)), ("unknown", unknown)] {
        let gate = Gate::shut();
        let shut = gate.clone();
        let half = text.len() / 2;
        let upstream = Upstream::with(move |_, connection| {
            let _ = connection.write_all(&text.as_bytes()[..half]);
            shut.pass();
            let _ = connection.write_all(&text.as_bytes()[half..]);
        });
        let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
        let mut first = asking(&gateway, "/p", "");
        first.read_until("\r\n\r\n");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let reply = Client::get(gateway.public, "/p").send();
                    assert!(reply.text() == whole && !is_hit(&reply), "{name}");
                });
            }
            eventually("each asks by itself", || upstream.seen() == 5);
            gate.open();
        });
    }
}

#[test]
fn the_next_request_finds_what_was_just_sent_however_large() {
    for length in [1, 100 * 1024, LENGTH] {
        let upstream = Upstream::replying(response("200 OK", &text(length)));
        let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
        for number in 0..10 {
            let path = format!("/{number}");
            assert!(!is_hit(&Client::get(gateway.public, &path).send()));
            let again = Client::get(gateway.public, &path).send();
            assert!(is_hit(&again), "{length}: {:?}", again.header("cache-status"));
            assert!(again.text() == text(length), "{length}");
        }
    }
}
