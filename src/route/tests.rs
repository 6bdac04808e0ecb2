//! Which of several routes a request takes.

use proptest::prelude::*;

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
        (Matcher { host, path, methods, reading: Reading::default() }, *text)
    };
    Table::new(routes.iter().map(parse).collect())
}

/// The same, with upstreams that read paths so.
fn loose_table(reading: Reading, routes: &[&'static str]) -> Table<&'static str> {
    let mut routes = table(routes).routes;
    routes.iter_mut().for_each(|(matcher, _)| matcher.reading = reading);
    Table::new(routes)
}

const EXACT: Reading = Reading { any_case: false, trailing_slash: false, parameters: false };
const ANY_CASE: Reading = Reading { any_case: true, ..EXACT };
const TRAILING_SLASH: Reading = Reading { trailing_slash: true, ..EXACT };
const PARAMETERS: Reading = Reading { parameters: true, ..EXACT };
const ALL: Reading = Reading { any_case: true, trailing_slash: true, parameters: true };

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
fn a_placeholder_of_another_router_is_told_how_it_is_written_here() {
    for foreign in ["/api/:id", "/api/<id>", "/api/<int:id>", "/api/[id]", "/:a/b", "/api/*rest"] {
        let help = PathPattern::parse(foreign).unwrap_err();
        assert!(help.contains("{id}"), "{foreign}: {help}");
    }
    for regex in ["/api/{id:[0-9]+}", "/api/{}", "/api/{a b}"] {
        assert!(PathPattern::parse(regex).is_err(), "{regex}");
    }
    // A colon within a segment, and the dollars of OData and FHIR, mean themselves.
    for literal in ["/v1/items:batch", "/:", "/Patient/$validate", "/$batch"] {
        assert!(PathPattern::parse(literal).is_ok(), "{literal}");
    }
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
        routes[0].0.is_ambiguous_with(&routes[1].0, true)
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

#[test]
fn a_path_is_matched_as_its_upstream_reads_it() {
    for (reading, pattern, same, different) in [
        (EXACT, "/me", vec!["/me"], vec!["/ME", "/me/", "/me;x"]),
        (ANY_CASE, "/me", vec!["/me", "/ME", "/Me"], vec!["/me/", "/me;x", "/mee", "/"]),
        (ANY_CASE, "/Me/*", vec!["/me", "/ME/", "/me/x/Y"], vec!["/mex"]),
        (TRAILING_SLASH, "/me", vec!["/me", "/me/"], vec!["/ME", "/me;x", "/me/x", "/"]),
        (TRAILING_SLASH, "/me/", vec!["/me", "/me/"], vec!["/me/x", "/m"]),
        (TRAILING_SLASH, "/a/{id}", vec!["/a/1", "/a/1/"], vec!["/a/", "/a", "/a/1/2"]),
        (TRAILING_SLASH, "/", vec!["/"], vec!["/a"]),
        (
            PARAMETERS,
            "/a/b",
            vec!["/a/b", "/a;v=1/b", "/a/b;x", "/a;/b;", "/;x/a/b", "/a/;x/b", "/a%3Bx/b"],
            vec!["/a/b/", "/a/b/;x", "/A/b", "/ax/b"],
        ),
        (PARAMETERS, "/a/", vec!["/a/", "/a/;x", "/a;x/"], vec!["/a", "/a;x"]),
        (PARAMETERS, "/a;v=1", vec!["/a;v=1", "/a", "/a;w"], vec!["/a/"]),
        (PARAMETERS, "/", vec!["/", "/;x"], vec!["/a"]),
        (PARAMETERS, "/a/{id}", vec!["/a/1;x", "/a;y/1"], vec!["/a/;x", "/a"]),
        (ALL, "/me", vec!["/Me;a=b/", "/ME/;x", "/;x/mE;/"], vec!["/me/x", "/"]),
        (ALL, "/", vec!["/", "/;x"], vec!["/x"]),
        (ALL, "/me/*", vec!["/ME;x", "/Me/;x/y"], vec!["/mee"]),
    ] {
        let path = PathPattern::parse(pattern).unwrap();
        let covers = |given: &str| path.matches_as(reading, given);
        for given in same {
            assert!(covers(given), "{reading:?} {pattern} {given}");
        }
        for given in different {
            assert!(!covers(given), "{reading:?} {pattern} {given}");
        }
    }
}

#[test]
fn the_most_specific_route_wins_as_the_upstream_reads() {
    let mut routes = vec!["- /*", "- /me", "- /{x}/{y} PUT", "- /a/{id} POST", "- /A/x", "host /*"];
    for _ in 0..routes.len() {
        routes.rotate_left(1);
        let table = loose_table(ALL, &routes);
        for (host, path, method, expected) in [
            ("z", "/me", "GET", Ok(&"- /me")),
            ("z", "/ME/", "GET", Ok(&"- /me")),
            ("z", "/Me;x", "GET", Ok(&"- /me")),
            ("z", "/me/x", "GET", Ok(&"- /*")),
            ("z", "/;x/me", "PUT", Ok(&"- /me")),
            ("z", "/m/me", "PUT", Ok(&"- /{x}/{y} PUT")),
            ("host", "/ME", "GET", Ok(&"host /*")),
            ("z", "/A/1/", "POST", Ok(&"- /a/{id} POST")),
            ("z", "/A/1/", "GET", Ok(&"- /*")),
            ("z", "/a/X;y", "POST", Ok(&"- /A/x")),
        ] {
            let found = table.find(host, path, &method.parse().unwrap());
            assert_eq!(found, expected, "{method} {host}{path}");
        }
    }
    // A slash that the upstream takes for nothing makes no route more specific.
    let table = loose_table(TRAILING_SLASH, &["- /a/{x}/", "- /a/me", "- /*"]);
    for (path, expected) in [
        ("/a/me", "- /a/me"),
        ("/a/me/", "- /a/me"),
        ("/a/x", "- /a/{x}/"),
        ("/a/x/", "- /a/{x}/"),
        ("/a", "- /*"),
    ] {
        assert_eq!(table.find("h", path, &Method::GET), Ok(&expected), "{path}");
    }
    let table = loose_table(ALL, &["- /a GET", "- /b"]);
    let allow = "GET, HEAD".to_owned();
    assert_eq!(table.find("h", "/A/;x", &Method::POST), Err(NoRoute::MethodNotAllowed { allow }));
    assert_eq!(table.find("h", "/c", &Method::GET), Err(NoRoute::NotFound));
}

#[test]
fn a_route_that_is_written_so_comes_before_one_that_is_read_so() {
    let mut routes = table(&["- /a", "- /A", "- /*"]).routes;
    for (matcher, text) in &mut routes {
        if *text == "- /a" {
            matcher.reading = ANY_CASE;
        }
    }
    let lower = Table::new(routes);
    for (path, expected) in [("/a", "- /a"), ("/A", "- /A"), ("/a/", "- /*")] {
        assert_eq!(lower.find("h", path, &Method::GET), Ok(&expected), "{path}");
    }
}

#[test]
fn routes_of_one_upstream_differ_in_its_eyes() {
    let same = |reading: Reading, share: bool, a: &'static str, b: &'static str| {
        let routes = loose_table(reading, &[a, b]).routes;
        routes[0].0.is_ambiguous_with(&routes[1].0, share)
    };
    assert!(same(ANY_CASE, true, "- /a", "- /A"));
    assert!(same(TRAILING_SLASH, true, "- /a/", "- /a"));
    assert!(same(PARAMETERS, true, "- /a;x/{y}", "- /a/{z}"));
    assert!(same(ANY_CASE, true, "- /a/*", "- /A/*"));
    assert!(!same(ANY_CASE, false, "- /a", "- /A"));
    assert!(!same(EXACT, true, "- /a", "- /A"));
    assert!(!same(ANY_CASE, true, "- /a", "- /a/"));
    assert!(!same(ALL, true, "- /a", "- /a/*"));
    assert!(!same(ALL, true, "- /a GET", "- /A POST"));
    assert!(same(ALL, true, "- /a GET", "- /A"));
    assert!(same(ALL, true, "- /a GET POST", "- /a/ GET"));
    assert!(!same(EXACT, true, "- /a GET", "- /a"));
    assert!(!same(ALL, true, "- /a/{x}", "- /a/x"));
}

proptest! {
    /// What an upstream takes for one path has one route, whatever the routes are.
    #[test]
    fn one_route_for_what_is_read_as_one(
        patterns in prop::collection::vec(
            "(/([aA]|b;x|\\{x\\}|%C3%89|%C3%A9)){0,3}(/|/\\*)?",
            1..6,
        ),
        paths in prop::collection::vec("(/[aA;b]{0,3}|/%C3%[8A]9|/%3B){1,4}/?", 2..12),
        bits in any::<[bool; 3]>(),
    ) {
        let [any_case, trailing_slash, parameters] = bits;
        let reading = Reading { any_case, trailing_slash, parameters };
        let mut routes: Vec<(Matcher, usize)> = Vec::new();
        for (number, pattern) in patterns.iter().enumerate() {
            let Ok(path) = PathPattern::parse(pattern) else { continue };
            let matcher = Matcher { host: HostPattern::Any, path, methods: Vec::new(), reading };
            if !routes.iter().any(|(other, _)| matcher.is_ambiguous_with(other, true)) {
                routes.push((matcher, number));
            }
        }
        let table = Table::new(routes);
        let mut found: HashMap<String, (String, Option<usize>)> = HashMap::new();
        for path in paths {
            let Ok(given) = path.parse() else { continue };
            let Ok(given) = crate::base::http::path::canonical(&given, false) else { continue };
            let route = table.find("h", given.path(), &Method::GET).ok().copied();
            let name = reading.name(given.path()).into_owned();
            let (other, its) = found.entry(name).or_insert((given.path().to_owned(), route));
            prop_assert_eq!(&*its, &route, "{} and {} of {:?}", other, given, patterns);
        }
    }
}
