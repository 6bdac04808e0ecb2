//! Parts of bodies, compared with the same parts of the whole: from memory, and across the borders
//! of the pieces that lie in Redis.

use std::fmt::Write as _;

use super::{House, is_hit, store, text};
use crate::support::{Gateway, Redis, Reply, Session, Upstream, response};

const ROUTES: &str = r#"
[routes.all]
path = "/*"
upstream = "shop"
cache = { ttl = "1h", max_bytes = "2MiB" }
"#;
/// Bytes of a piece in Redis.
const PIECE: usize = 256 * 1024;

/// A set of ranges as a request says it, and the parts that it means: where each begins and ends.
fn ranges(random: &mut fastrand::Rng, length: usize) -> (String, Vec<(usize, usize)>) {
    let (mut field, mut parts) = ("bytes=".to_owned(), Vec::new());
    let count = if random.u8(0..4) == 0 { random.usize(2..5) } else { 1 };
    for number in 0..count {
        // Mostly about the border of two pieces, where there is one.
        let border = PIECE * random.usize(0..=length / PIECE);
        let near = border.saturating_sub(1000) + random.usize(0..2000);
        let begin = if random.bool() { near } else { random.usize(0..length + length / 8) };
        let size = random.usize(0..3000);
        let comma = if number == 0 { "" } else { [",", ", "][random.usize(0..2)] };
        field += comma;
        let part = match random.u8(0..8) {
            0 => {
                let _ = write!(field, "-{size}");
                (length - size.min(length), length)
            }
            1 if count == 1 => {
                let begin = begin.max(length.saturating_sub(5000));
                let _ = write!(field, "{begin}-");
                (begin, length)
            }
            _ => {
                let _ = write!(field, "{begin}-{}", begin + size);
                (begin, (begin + size + 1).min(length))
            }
        };
        if part.0 < part.1 {
            parts.push(part);
        }
    }
    (field, parts)
}

/// Compares an answer with what the ranges mean.
fn check(reply: &Reply, whole: &str, (field, parts): &(String, Vec<(usize, usize)>)) {
    let length = whole.len();
    assert!(is_hit(reply), "{field}");
    let said = |(begin, end): (usize, usize)| format!("bytes {begin}-{}/{length}", end - 1);
    match parts.as_slice() {
        [] => {
            assert_eq!((reply.status, reply.body.len()), (416, 0), "{field}");
            assert_eq!(reply.header("content-range"), Some(&*format!("bytes */{length}")));
        }
        [part] => {
            assert_eq!(reply.status, 206, "{field}");
            assert_eq!(reply.header("content-range"), Some(&*said(*part)), "{field}");
            assert!(reply.text() == whole[part.0..part.1], "{field}");
        }
        parts => {
            assert_eq!(reply.status, 206, "{field}");
            let kind = reply.header("content-type").expect("a type");
            let boundary = kind.strip_prefix("multipart/byteranges; boundary=").expect("one");
            let mut expected = String::new();
            for part in parts {
                let head = format!("Content-Type: text/plain\r\nContent-Range: {}", said(*part));
                expected +=
                    &format!("--{boundary}\r\n{head}\r\n\r\n{}\r\n", &whole[part.0..part.1]);
            }
            expected += &format!("--{boundary}--\r\n");
            assert!(reply.text() == expected, "{field}");
        }
    }
}

/// Asks for this many random sets of ranges over one connection.
fn compare(gateway: &Gateway, whole: &str, count: usize) {
    let mut random = fastrand::Rng::with_seed(whole.len() as u64);
    let mut session = Session::open(gateway.public);
    for _ in 0..count {
        let asked = ranges(&mut random, whole.len());
        let reply = session.get("/p").header("Range", &asked.0).send();
        check(&reply, whole, &asked);
    }
}

#[test]
fn ten_thousand_random_ranges_equal_the_same_parts_of_the_whole() {
    let head = "200 OK\r\nContent-Type: text/plain\r\nETag: \"v\"";
    for (length, count) in [(100 * 1024, 7000), (900 * 1024, 3000)] {
        let (redis, whole) = (Redis::start(), text(length));
        let upstream = Upstream::replying(response(head, &whole));
        let config = store(&redis) + &upstream.table("shop") + ROUTES;
        let gateways = [Gateway::start(&config), Gateway::start(&config)];
        let house = House { redis, upstream, gateways };
        Session::open(house.gateways[0].public).get("/p").send();
        house.wait_for_entries(1);
        compare(&house.gateways[1], &whole, count);
        assert_eq!(house.upstream.seen(), 1);
    }
}

#[test]
fn a_part_in_place_of_the_whole_is_passed_on_and_not_kept() {
    let part = "206 Partial Content\r\nContent-Range: bytes 0-1/5\r\nCache-Control: max-age=60";
    let upstream = Upstream::replying(response(part, "he"));
    let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
    for seen in 1..=2 {
        let reply = Session::open(gateway.public).get("/p").header("Range", "bytes=0-1").send();
        assert_eq!((reply.status, reply.text().as_str(), is_hit(&reply)), (206, "he", false));
        assert_eq!(upstream.seen(), seen, "it is not asked twice");
    }
}

#[test]
fn a_part_of_another_version_is_not_sent() {
    let head = "200 OK\r\nETag: \"v\"\r\nLast-Modified: Fri, 01 Jan 2021 00:00:00 GMT\r\n\
                Date: Sat, 02 Jan 2021 00:00:00 GMT\r\nCache-Control: max-age=999999999";
    let upstream = Upstream::replying(response(head, &text(300 * 1024)));
    let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
    let mut session = Session::open(gateway.public);
    session.get("/p").send();
    for (condition, status) in [
        ("\"v\"", 206),
        ("\"w\"", 200),
        ("W/\"v\"", 200),
        ("Fri, 01 Jan 2021 00:00:00 GMT", 206),
        ("Thu, 31 Dec 2020 00:00:00 GMT", 200),
        ("rubbish", 200),
    ] {
        let request = session.get("/p").header("Range", "bytes=262140-262150");
        let reply = request.header("If-Range", condition).send();
        assert_eq!((reply.status, is_hit(&reply)), (status, true), "{condition}");
        let whole = text(300 * 1024);
        let expected = if status == 206 { &whole[262_140..262_151] } else { &whole };
        assert!(reply.text() == expected, "{condition}");
    }
}
