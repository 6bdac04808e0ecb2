//! Invalidation: which requests, and what they reach.

use super::super::{Own, Targets, invalidates, targets};
use super::fields;
use crate::base::facts::Target;
use crate::base::http::authority::Authority;
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use proptest::prelude::*;

fn target(host: &str, path: &str) -> Target {
    Target {
        authority: Authority::parse(host.as_bytes()).unwrap(),
        path_and_query: PathAndQuery::try_from(path).unwrap(),
    }
}

/// What a successful POST to `/a/b?q` makes stale.
fn after_post(host: &str, headers: &str) -> Targets {
    let target = target(host, "/a/b?q");
    let own = Own { scheme: "http", target: &target, encoded_slash: false };
    targets(&Method::POST, Some((StatusCode::CREATED, &fields(headers))), &own)
}

#[test]
fn unsafe_methods_withdraw_unless_they_are_known_to_have_failed() {
    let cases = [
        ("GET", Some(200), false),
        ("HEAD", None, false),
        ("OPTIONS", Some(200), false),
        ("TRACE", Some(200), false),
        ("POST", Some(200), true),
        ("PUT", Some(204), true),
        ("DELETE", Some(303), true),
        ("PATCH", Some(399), true),
        ("POST", Some(400), false),
        ("POST", Some(500), false),
        ("POST", None, true),
        ("BREW", Some(200), true),
        ("get", Some(200), true),
    ];
    let target = target("h", "/p");
    let own = Own { scheme: "http", target: &target, encoded_slash: false };
    for (method, status, expected) in cases {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        assert_eq!(invalidates(&method, status), expected, "{method} {status:?}");
        let headers = fields("location: /x\ncache-group-invalidation: \"g\"");
        let answer = status.map(|status| (StatusCode::from_u16(status).unwrap(), &headers));
        let found = targets(&method, answer, &own);
        let paths = match (expected, status) {
            (false, _) => vec![],
            (true, None) => vec!["/p"],
            (true, Some(_)) => vec!["/p", "/x"],
        };
        assert_eq!(found.paths, paths, "{method} {status:?}");
        let groups = if paths.len() == 2 { vec!["g"] } else { vec![] };
        assert_eq!(found.groups, groups, "{method} {status:?}");
    }
}

#[test]
fn references_are_resolved_and_stay_on_their_origin() {
    let cases = [
        ("/x", Some("/x")),
        ("/x?q#f", Some("/x")),
        ("x", Some("/a/x")),
        ("./x", Some("/a/x")),
        ("../x", Some("/x")),
        ("../../../x/./y/..", Some("/x/")),
        ("?q", None),
        ("#f", None),
        ("", None),
        ("//h:8080/x", Some("/x")),
        ("//H:8080/x", Some("/x")),
        ("http://h:8080/x", Some("/x")),
        ("HTTP://h:8080/%7ex//y", Some("/~x/y")),
        ("http://h:8080", Some("/")),
        ("http://h:8080?q", Some("/")),
        ("https://h:8080/x", None),
        ("http://h/x", None),
        ("http://h:80/x", None),
        ("http://g:8080/x", None),
        ("http://h:8080.g/x", None),
        ("http://u@h:8080/x", None),
        ("http://h:8080@g/x", None),
        ("http:/x", None),
        ("http:x", None),
        ("mailto:a@h", None),
        ("//g/x", None),
        ("/x%2Fy", None),
        ("/x\\y", None),
        ("http://[::1/x", None),
    ];
    for (reference, expected) in cases {
        for field in ["location", "content-location"] {
            let found = after_post("h:8080", &format!("{field}: {reference}")).paths;
            let expected: Vec<_> = std::iter::once("/a/b").chain(expected).collect();
            assert_eq!(found, expected, "{field}: {reference:?}");
        }
    }
    let both = after_post("h", "location: http://h:80/x\ncontent-location: /y");
    assert_eq!(both.paths, ["/a/b", "/x", "/y"]);
    let twice = after_post("h", "location: /x\nlocation: /y\ncontent-location: b");
    assert_eq!(twice.paths, ["/a/b"], "which of the two is not known; the other is its own");
}

#[test]
fn a_default_port_is_that_of_the_scheme() {
    let target = target("h", "/p");
    for (scheme, location, is_own) in [
        ("https", "https://h:443/x", true),
        ("https", "https://h/x", true),
        ("https", "https://h:80/x", false),
        ("http", "http://h:80/x", true),
        ("http", "http://h:443/x", false),
    ] {
        let own = Own { scheme, target: &target, encoded_slash: false };
        let headers = fields(&format!("location: {location}"));
        let found = targets(&Method::PUT, Some((StatusCode::OK, &headers)), &own);
        assert_eq!(found.paths.len() == 2, is_own, "{scheme} {location}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_reference_panics_and_every_path_is_canonical(
        reference in "(http:)?(//h(:8080)?)?[a-b/.%?#:@\\\\ -~]{0,20}",
    ) {
        for path in after_post("h:8080", &format!("location: {reference}")).paths {
            let path = PathAndQuery::try_from(path).unwrap();
            prop_assert!(crate::base::http::path::canonical(&path, false).unwrap() == path);
        }
    }
}
