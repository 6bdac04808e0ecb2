//! Purging through the admin API of one gateway, in force at all.

use std::io::Write as _;

use super::{House, is_hit, plain};
use crate::support::{Client, Folder, Reply, Upstream, eventually, response, run};

fn purge(house: &House, body: &str) -> Reply {
    let admin = house.gateways[0].admin;
    Client::request(admin, "POST", "/v1/cache/purge")
        .header("Host", admin.to_string())
        .header("Content-Type", "application/json")
        .body(body)
        .send()
}

/// Host and path of everything that is cached before each purge.
const CACHED: [(&str, &str); 6] = [
    ("a.test", "/"),
    ("a.test", "/p"),
    ("a.test", "/p?q=1"),
    ("a.test", "/p/1"),
    ("b.test", "/p"),
    ("b.test", "/other"),
];

/// After this purge exactly these are gone, at both gateways.
fn check(body: &str, gone: &[(&str, &str)]) {
    let house = House::start(plain());
    let get = |gateway: usize, host: &str, path: &str| {
        let address = house.gateways[gateway].public;
        is_hit(&Client::get(address, path).header("Host", host).send())
    };
    for (host, path) in CACHED {
        assert!(!get(0, host, path), "{host}{path}");
    }
    house.wait_for_entries(CACHED.len());
    for (host, path) in CACHED {
        assert!(get(1, host, path), "{host}{path}");
    }
    let reply = purge(&house, body);
    assert_eq!(reply.status, 200, "{body}: {}", reply.text());
    // What is gone is fetched and stored again by the first that asks, so each asks for half.
    for (number, (host, path)) in CACHED.into_iter().enumerate() {
        let hit = get(number % 2, host, path);
        assert_eq!(!hit, gone.contains(&(host, path)), "{host}{path} after {body}");
    }
}

#[test]
fn by_url() {
    check(r#"{"url": "http://a.test/p"}"#, &[("a.test", "/p"), ("a.test", "/p?q=1")]);
    check(r#"{"url": "http://A.test:80/x/../p?q=1"}"#, &[("a.test", "/p"), ("a.test", "/p?q=1")]);
    check(r#"{"url": "http://c.test/p"}"#, &[]);
}

#[test]
fn by_path() {
    let below_p = [("a.test", "/p"), ("a.test", "/p?q=1"), ("a.test", "/p/1"), ("b.test", "/p")];
    check(r#"{"path": "/p/*"}"#, &below_p);
    check(r#"{"path": "/other"}"#, &[("b.test", "/other")]);
    check(r#"{"path": "/*"}"#, &CACHED);
    check(r#"{"prefix": "/p"}"#, &below_p);
}

#[test]
fn by_host_and_by_route() {
    check(r#"{"host": "B.test:80"}"#, &[("b.test", "/p"), ("b.test", "/other")]);
    check(r#"{"host": "b.test:81"}"#, &[("b.test", "/p"), ("b.test", "/other")]);
    check(r#"{"host": "c.test"}"#, &[]);
    check(r#"{"route": "all"}"#, &CACHED);
}

/// Tags and groups by path, an entity tag, and a 304 for who knows it.
fn tagged(control: &'static str) -> Upstream {
    Upstream::with(move |request, connection| {
        let name = request.target().trim_start_matches('/').to_owned();
        let head = format!(
            "Surrogate-Key: every {name}\r\nCache-Groups: \"{name}\"\r\nETag: \"{name}\"\r\n\
             Cache-Control: {control}"
        );
        let answer = if request.header("if-none-match").is_some() {
            format!("HTTP/1.1 304 Not Modified\r\n{head}\r\n\r\n")
        } else {
            response(&format!("200 OK\r\n{head}"), &name)
        };
        let _ = connection.write_all(answer.as_bytes());
    })
}

#[test]
fn by_tag_and_by_group_wherever_they_are_stored() {
    let house = House::start(tagged("max-age=600"));
    let get = |gateway: usize, path: &str| {
        let request = Client::get(house.gateways[gateway].public, path).header("Host", "a.test");
        is_hit(&request.send())
    };
    let everywhere = || {
        for path in ["/x", "/y"] {
            for gateway in [0, 1] {
                eventually("it is stored", || get(gateway, path));
            }
        }
    };
    for (body, gone) in [
        (r#"{"tag": "x"}"#, [true, false]),
        (r#"{"tag": "every", "upstream": "shop"}"#, [true, true]),
        (r#"{"tag": "X"}"#, [false, false]),
        (r#"{"group": "y", "origin": "http://a.test"}"#, [false, true]),
        (r#"{"group": "y", "origin": "https://a.test"}"#, [false, false]),
        (r#"{"group": "y", "origin": "http://b.test"}"#, [false, false]),
    ] {
        everywhere();
        let reply = purge(&house, body);
        assert_eq!(reply.status, 200, "{body}: {}", reply.text());
        assert_eq!([!get(1, "/x"), !get(0, "/y")], gone, "{body}");
    }
}

/// A house where `/x` is stored, at both gateways.
fn with_x(control: &'static str) -> House {
    let house = House::start(tagged(control));
    for gateway in [0, 1] {
        eventually("it is stored", || is_hit(&get_x(&house, gateway)));
    }
    house.upstream.forget();
    house
}

fn get_x(house: &House, gateway: usize) -> Reply {
    let request = Client::get(house.gateways[gateway].public, "/x").header("Host", "a.test");
    let reply = request.send();
    assert_eq!((reply.status, reply.text().as_str()), (200, "x"));
    reply
}

const SOFT: [&str; 2] = [r#"{"tag": "x", "soft": true}"#, r#"{"all": true, "soft": true}"#];

#[test]
fn a_soft_purge_has_copies_confirmed_and_keeps_their_bodies() {
    for body in SOFT {
        let house = with_x("max-age=600");
        let said = purge(&house, body);
        assert!(said.text().contains("\"soft\":true"), "{}", said.text());
        let confirmed = get_x(&house, 1);
        let status = confirmed.header("cache-status").unwrap();
        assert!(status.contains("fwd=stale; fwd-status=304"), "{body}: {status}");
        assert_eq!(house.upstream.only().header("if-none-match"), Some("\"x\""));
        eventually("it is good again", || is_hit(&get_x(&house, 0)));
    }
}

#[test]
fn a_soft_purge_lets_copies_serve_where_a_stale_answer_may() {
    for body in SOFT {
        let house = with_x("max-age=600, stale-while-revalidate=600");
        purge(&house, body);
        assert!(is_hit(&get_x(&house, 1)), "{body}");
        eventually("it is confirmed behind the client's back", || house.upstream.seen() == 1);
        assert_eq!(house.upstream.only().header("if-none-match"), Some("\"x\""));
    }
}

#[test]
fn the_command_says_what_is_gone_and_the_log_who_did_it() {
    let house = House::start(tagged("max-age=600"));
    let gateway = &house.gateways[0];
    let admin = format!("http://{}", gateway.admin);
    for (arguments, said) in [
        (["--tag", "x"].as_slice(), "everything tagged x"),
        (&["--tag", "x", "--upstream", "shop"], "everything tagged x by shop"),
        (&["--prefix", "/a/*"], "/a and everything below it"),
        (&["--prefix", "/1/2/3/4/5/6/7/8/9"], "/1/2/3/4/5/6/7 and everything below it"),
        (&["--host", "a.test"], "everything on a.test"),
        (&["--route", "all"], "everything of the route all"),
        (&["--group", "y", "--origin", "http://a.test"], "the group y of http://a.test"),
        (&["--all", "--soft"], "everything, to be confirmed"),
    ] {
        let ran = run(&Folder::new(), &[&["purge"], arguments, &["--admin", &admin]].concat());
        let expected = (Some(0), format!("purged: {said}\n"));
        assert_eq!((ran.code, ran.stdout), expected, "{arguments:?}: {}", ran.stderr);
        let line = format!("purged=\"{}\"", said.trim_end_matches(", to be confirmed"));
        eventually("the log has it", || gateway.stderr().contains(&line));
    }
    assert!(gateway.stderr().contains("from=127.0.0.1"), "{}", gateway.stderr());
}

#[test]
fn everything() {
    check(r#"{"all": true}"#, &CACHED);
}

#[test]
fn what_names_nothing_or_too_much_is_refused_and_purges_nothing() {
    let house = House::start(plain());
    house.get(0, "/p");
    for body in [
        "",
        "{}",
        "[]",
        r#"{"all": false}"#,
        r#"{"all": "yes"}"#,
        r#"{"pth": "/p"}"#,
        r#"{"path": "p"}"#,
        r#"{"path": "/a%2fb"}"#,
        r#"{"url": "/p"}"#,
        r#"{"url": "ftp://a.test/p"}"#,
        r#"{"url": "http://a.test/p", "all": true}"#,
        r#"{"soft": true}"#,
        r#"{"tag": ""}"#,
        r#"{"tag": "t", "upstream": "none"}"#,
        r#"{"path": "/p", "upstream": "shop"}"#,
        r#"{"host": "http://a.test"}"#,
        r#"{"route": "none"}"#,
        r#"{"group": "g"}"#,
        r#"{"group": "g", "origin": "http://a.test/p"}"#,
        r#"{"origin": "http://a.test", "all": true}"#,
    ] {
        let reply = purge(&house, body);
        assert_eq!(reply.status, 400, "{body}: {}", reply.text());
    }
    assert!(is_hit(&house.get(0, "/p")));
}
