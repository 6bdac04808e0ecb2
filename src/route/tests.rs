//! Which of several routes a request takes.

use super::*;

fn table(routes: &[&'static str]) -> Table<&'static str> {
    let parse = |text: &&'static str| {
        let mut words = text.split(' ');
        let host = match words.next().unwrap() {
            "-" => HostPattern::Any,
            host => HostPattern::parse(host).unwrap(),
        };
        let path = PathPattern::parse(words.next().unwrap()).unwrap();
        let methods = words.map(|word| word.parse().unwrap()).collect();
        (Matcher { host, path, methods }, *text)
    };
    Table::new(routes.iter().map(parse).collect())
}

#[test]
fn the_most_specific_route_wins_whatever_the_order() {
    let mut routes = vec![
        "- /*",
        "- /a/*",
        "- /a/b",
        "- /a/{x}",
        "- /a/{x}/c",
        "- /a/b/*",
        "- /a/b GET POST",
        "a.example /a/*",
        "*.example /a/*",
        "*.b.example /a/*",
    ];
    for _ in 0..routes.len() {
        routes.rotate_left(1);
        let table = table(&routes);
        for (host, path, method, expected) in [
            ("z", "/", "GET", "- /*"),
            ("z", "/a", "GET", "- /a/*"),
            ("z", "/a/", "GET", "- /a/*"),
            ("z", "/a/b", "GET", "- /a/b GET POST"),
            ("z", "/a/b", "HEAD", "- /a/b GET POST"),
            ("z", "/a/b", "PUT", "- /a/b"),
            ("z", "/a/z", "GET", "- /a/{x}"),
            ("z", "/a/b/c", "GET", "- /a/{x}/c"),
            ("z", "/a/b/d", "GET", "- /a/b/*"),
            ("z", "/ab", "GET", "- /*"),
            ("a.example", "/a/b", "GET", "a.example /a/*"),
            ("x.example", "/a/b", "GET", "*.example /a/*"),
            ("x.b.example", "/a/b", "GET", "*.b.example /a/*"),
            ("example", "/a", "GET", "- /a/*"),
            ("a.example", "/b", "GET", "- /*"),
        ] {
            let found = table.find(host, path, &method.parse().unwrap());
            assert_eq!(found, Ok(&expected), "{method} {host}{path}");
        }
    }
}

#[test]
fn a_method_nobody_takes_is_told_which_are_taken() {
    let table = table(&["- /a GET", "- /a POST", "- /b"]);
    let allow = |path: &str, method: &str| match table.find("h", path, &method.parse().unwrap()) {
        Err(NoRoute::MethodNotAllowed { allow }) => allow,
        other => format!("{other:?}"),
    };
    assert_eq!(allow("/a", "PUT"), "GET, HEAD, POST");
    for nobodys in ["get", "FOO", "PRI"] {
        assert_eq!(allow("/b", nobodys), "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT");
    }
    for method in REGISTERED {
        assert!(table.find("h", "/b", &method.parse().unwrap()).is_ok(), "{method}");
    }
    assert_eq!(table.find("h", "/c", &Method::GET), Err(NoRoute::NotFound));
}

#[test]
fn a_path_pattern_covers_what_it_says() {
    for (pattern, path, expected) in [
        ("/", "/", true),
        ("/", "/a", false),
        ("/*", "/", true),
        ("/*", "/a/b", true),
        ("/a", "/a", true),
        ("/a", "/a/", false),
        ("/a/*", "/a", true),
        ("/a/*", "/a/", true),
        ("/a/*", "/ab", false),
        ("/a/{id}", "/a/1", true),
        ("/a/{id}", "/a/", false),
        ("/a/{id}", "/a/1/2", false),
        ("/a/{id}/*", "/a/1/2/3", true),
    ] {
        assert_eq!(
            PathPattern::parse(pattern).unwrap().matches(path),
            expected,
            "{pattern} {path}"
        );
    }
    for bad in ["a", "/a*", "/*/a", "/{}", "/a{b}", "/a//b", "/a/../b", "/%2f", "/a?b"] {
        assert!(PathPattern::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_host_pattern_is_as_canonical_as_a_host() {
    for (pattern, host) in [
        ("API.test.", "api.test"),
        ("[0:0:0:0:0:0:0:1]", "[::1]"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("*.Shop.test.", "a.shop.test"),
    ] {
        assert!(HostPattern::parse(pattern).unwrap().matches(host), "{pattern}");
    }
    for bad in [
        "api.test..",
        "a..b",
        ".a",
        "*..a",
        "*.",
        "*",
        "",
        ".",
        "a:80",
        "[::1]:80",
        "*.[::1]",
        "[fe80::1%25eth0]",
        "a b",
        "a/b",
        "http://a",
        "\u{e4}.test",
    ] {
        assert!(HostPattern::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn routes_that_no_request_tells_apart_are_found() {
    let same = |a: &'static str, b: &'static str| {
        let routes = table(&[a, b]).routes;
        routes[0].0.is_ambiguous_with(&routes[1].0)
    };
    assert!(same("- /a/{x}", "- /a/{y}"));
    assert!(same("- /a GET POST", "- /a GET PUT"));
    assert!(same("h /a", "H. /a"));
    assert!(!same("- /a GET", "- /a GET POST"));
    assert!(!same("- /a GET", "- /a POST"));
    assert!(!same("- /a", "- /a GET"));
    assert!(!same("- /a", "- /a/*"));
    assert!(!same("h /a", "- /a"));
}
