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

/// Whether this one is a hit afterwards, and what the answer says is gone.
fn gone_after(house: &House, body: &str) -> (Vec<&'static str>, String) {
    const PATHS: [&str; 7] = ["/x", "/x/pp", "/x/pp/1", "/x/pp2", "/x/*", "/x/%2A", "/x/{id}"];
    let get = |path: &str| {
        let request = Client::get(house.gateways[0].public, path).header("Host", "a.test");
        is_hit(&request.send())
    };
    for path in PATHS {
        eventually("it is cached", || get(path));
    }
    let reply = purge(house, body);
    assert_eq!(reply.status, 200, "{body}: {}", reply.text());
    let gone = PATHS.into_iter().filter(|path| !get(path)).collect();
    (gone, reply.json()["purged"].as_str().expect("what is gone").to_owned())
}

#[test]
fn the_answer_names_all_that_is_gone_in_whatever_spelling_it_was_asked_for() {
    let house = House::start(plain());
    let both_stars = ["/x/*", "/x/%2A"].as_slice();
    for (body, gone, said) in [
        (
            r#"{"url": "http://a.test/x/pp?a=1"}"#,
            ["/x/pp"].as_slice(),
            "http://a.test/x/pp?a=1, that is a.test/x/pp with every query, over http and https",
        ),
        (
            r#"{"url": "https://A.test.:8443//x/./%70p#top"}"#,
            &["/x/pp"],
            "https://A.test.:8443//x/./%70p#top, that is a.test:8443/x/pp and a.test/x/pp \
             with every query, over http and https",
        ),
        (r#"{"path": "/x/pp/"}"#, &["/x/pp", "/x/pp/1"], "/x/pp and everything below it"),
        (
            r#"{"path": "//x/y/../pp?a=1"}"#,
            &["/x/pp", "/x/pp/1"],
            "/x/pp and everything below it, with every query",
        ),
        (r#"{"prefix": "/x/pp/*"}"#, &["/x/pp", "/x/pp/1"], "/x/pp and everything below it"),
        (r#"{"path": "/x/%2a"}"#, both_stars, "/x/%2A and everything below it"),
        (
            r#"{"url": "http://a.test/x/%2A"}"#,
            both_stars,
            "http://a.test/x/%2A, that is a.test/x/%2A with every query, over http and https",
        ),
        (r#"{"path": "/x/%7bid%7D"}"#, &["/x/{id}"], "/x/%7Bid%7D and everything below it"),
    ] {
        let expected = (gone.to_vec(), said.to_owned());
        assert_eq!(gone_after(&house, body), expected, "{body}");
    }
    for (body, said) in [
        (r#"{"host": "B.test:81"}"#, "everything on b.test:81 and b.test"),
        (
            r#"{"group": "g", "origin": "https://b.test:81"}"#,
            "the group g of https://b.test:81 and https://b.test",
        ),
        (r#"{"tag": "two words"}"#, "everything tagged two words"),
        (r#"{"tag": "a,b"}"#, "everything tagged a,b"),
    ] {
        assert_eq!(gone_after(&house, body), (vec![], said.to_owned()), "{body}");
    }
}

#[test]
fn what_can_name_nothing_is_refused_and_says_how_to_write_it() {
    let house = House::start(plain());
    let admin = format!("http://{}", house.gateways[0].admin);
    house.get(0, "/x/pp");
    for (kind, given, told) in [
        ("path", "/x/pp*", "%2A"),
        ("prefix", "/x/pp*", "%2A"),
        ("path", "/x*", "%2A"),
        ("path", "/x/**", "%2A"),
        ("path", "/*/pp", "%2A"),
        ("path", "/x/*/", "%2A"),
        ("path", "/x/*/*", "%2A"),
        ("path", "*", "begins with a slash"),
        ("path", "", "begins with a slash"),
        ("path", "x/pp", "begins with a slash"),
        ("path", "http://a.test/x", "begins with a slash"),
        ("path", "/x/{id}", "placeholders"),
        ("path", "/x/{id}/*", "placeholders"),
        ("path", "/x#pp", "%23"),
        ("path", "/x/%2Fpp", "%2F"),
        ("path", "/x y", "no path"),
        ("url", "http://a.test/x/*", "%2A"),
        ("url", "http://a.test/x/pp*?a=1", "%2A"),
        ("url", "http://a.test/{id}", "placeholders"),
        ("url", "http://user@a.test/x", "no http URL"),
        ("url", "", "no http URL"),
        ("host", "*.a.test", "no host"),
        ("host", "a.test/x", "no host"),
        ("host", "", "no host"),
        ("tag", "a, b", "one by one"),
        ("tag", " a", "space"),
        ("tag", "a\nb", "no tag"),
        ("tag", &"t".repeat(257), "256"),
        ("route", "", "No route"),
    ] {
        let body = serde_json::json!({ kind: given }).to_string();
        let reply = purge(&house, &body);
        let detail = reply.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert_eq!(reply.status, 400, "{body}: {}", reply.text());
        assert!(detail.contains(told), "{body}: {detail}");
        // The command refuses the same, in the same words.
        let ran = run(&Folder::new(), &["purge", &format!("--{kind}"), given, "--admin", &admin]);
        assert_eq!(ran.code, Some(1), "{body}: {}", ran.stderr);
        assert!(ran.stderr.contains(told), "{body}: {}", ran.stderr);
    }
    for group in ["é", &"g".repeat(257)] {
        let body = serde_json::json!({ "group": group, "origin": "http://a.test" }).to_string();
        assert_eq!(purge(&house, &body).status, 400, "{body}");
    }
    assert!(is_hit(&house.get(0, "/x/pp")));
}

#[test]
fn a_route_names_a_literal_star_like_a_purge() {
    let routes = r#"
        [routes.read]
        path = "/*"
        methods = ["GET"]
        upstream = "shop"
        cache = { ttl = "1h" }
        [routes.write]
        path = "/write"
        methods = ["POST"]
        upstream = "shop"
        invalidates = ["/a%2Ab"]
    "#;
    let house = House::with_routes(plain(), routes);
    for path in ["/a*b", "/a%2Ab", "/ab"] {
        house.get(0, path);
        eventually("it is cached", || is_hit(&house.get(0, path)));
    }
    assert_eq!(house.request(0, "POST", "/write").status, 200);
    assert!(!is_hit(&house.get(0, "/a*b")) && !is_hit(&house.get(0, "/a%2ab")));
    assert!(is_hit(&house.get(0, "/ab")));
}
