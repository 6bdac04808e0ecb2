//! A protected route beside a public one for everything: no spelling of a path gets an anonymous
//! request to the upstream under a name that means the protected one.

use crate::support::{Edge, claims, raw, status, token};

/// What RFC 3986 §6.2.2 makes of a path: unreserved characters decoded, dot segments removed. With
/// `merge`, empty segments go first, as file systems and many servers do.
fn meaning(path: &str, merge: bool) -> String {
    let mut decoded = String::new();
    let mut rest = path.split('?').next().unwrap_or_default();
    while let Some(first) = rest.chars().next() {
        let hex = rest.get(1..3).and_then(|two| u8::from_str_radix(two, 16).ok());
        match hex.map(char::from) {
            Some(c) if first == '%' && (c.is_ascii_alphanumeric() || "-._~".contains(c)) => {
                decoded.push(c);
                rest = &rest[3..];
            }
            _ => {
                decoded.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/').skip(1) {
        match segment {
            "." => {}
            "" if merge => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

fn is_protected(path: &str) -> bool {
    [true, false].into_iter().any(|merge| {
        let meant = meaning(path, merge);
        meant == "/admin" || meant.starts_with("/admin/")
    })
}

/// Sends an anonymous request and looks at what the upstream would make of it.
fn attempt(edge: &Edge, method: &str, target: &[u8], more: &str) {
    let tail = format!(" HTTP/1.1\r\nHost: shop.test\r\n{more}Connection: close\r\n\r\n");
    let case = [method.as_bytes(), b" ", target, tail.as_bytes()].concat();
    let what = String::from_utf8_lossy(&case).into_owned();
    let answer = raw(edge.gateway.public, &case);
    for passed in edge.upstream.recorded() {
        let path = passed.target();
        assert!(!is_protected(path), "{what:?} came through as {path}");
        let plain = path.split('?').next().unwrap_or_default();
        let bare = plain.strip_suffix('/').unwrap_or(plain);
        let meant = meaning(path, true);
        assert!(meant.strip_suffix('/').unwrap_or(&meant) == bare, "{what:?} became {path}");
        for name in ["x-original-url", "x-rewrite-url", "x-http-method-override"] {
            assert_eq!(passed.header(name), None, "{what:?}");
        }
    }
    let code = status(&answer);
    assert!(code == 200 || (400..=505).contains(&code) || answer.is_empty(), "{what:?}: {answer}");
    edge.upstream.forget();
}

/// Other spellings of `/admin`, and what some server somewhere takes for it.
const SPELLINGS: [&str; 62] = [
    "/admin",
    "/admin/",
    "/admin/x",
    "/admin?x=1",
    "/admin/?x",
    "//admin",
    "///admin",
    "//admin//",
    "/./admin",
    "/././admin",
    "/.//admin",
    "//./admin",
    "/x/../admin",
    "/x//../admin",
    "/x/y/../../admin",
    "/../admin",
    "/../../../admin",
    "/x/%2e%2e/admin",
    "/x/%2E%2E/admin",
    "/x/.%2e/admin",
    "/x/%2e./admin",
    "/%2e/admin",
    "/%2e%2e/admin",
    "/%61dmin",
    "/%61%64%6d%69%6e",
    "/%61%64%6D%69%6E/x",
    "/a%64min",
    "/admi%6e",
    "/adm%69n/..%2fx",
    "/x/..%2fadmin",
    "/x/..%2Fadmin",
    "/x%2f../admin",
    "/%2fadmin",
    "/%2Fadmin",
    "/%2f%2fadmin",
    "/x/..;/admin",
    "/x/..;a=b/admin",
    "/;/admin",
    "/;x/admin",
    "/admin;x",
    "/admin;x=1/y",
    "/.;/admin",
    "/ADMIN",
    "/Admin/x",
    "/x/..\\admin",
    "\\admin",
    "/\\admin",
    "/x/..%5cadmin",
    "/%5cadmin",
    "/x/..%255cadmin",
    "/admin%00",
    "/admin%00.css",
    "/admin%20",
    "/admin%09",
    "/admin%0a",
    "/admin.",
    "/admin..",
    "/admin%2e",
    "/%2561dmin",
    "/x/..%252fadmin",
    "/x/%252e%252e/admin",
    "/%25%36%31dmin",
];

/// Forms that are no plain path, and bytes beyond ASCII.
const FORMS: [&[u8]; 14] = [
    b"http://shop.test/admin",
    b"http://shop.test/x/../admin",
    b"http://shop.test//admin",
    b"http://shop.test/%61dmin",
    b"//shop.test/admin",
    b"//shop.test/../admin",
    b"/x/..%c0%afadmin",
    b"/..%c0%af../admin",
    b"/x/..\xc0\xafadmin",
    b"/x/%c0%ae%c0%ae/admin",
    b"/\xef\xbc\x8fadmin",
    b"/admin#x",
    b"/#/../admin",
    b"/x?/../admin",
];

#[test]
fn no_spelling_of_a_protected_path_is_public() {
    let edge = Edge::open();
    for method in ["GET", "HEAD", "OPTIONS", "POST", "get", "FOO", "TRACE"] {
        for target in SPELLINGS {
            attempt(&edge, method, target.as_bytes(), "");
        }
        for target in FORMS {
            attempt(&edge, method, target, "");
        }
    }
    edge.still_serves();
}

/// Dots and slashes in every mixture of spellings in front of `admin`.
#[test]
fn no_mixture_of_dots_and_slashes_is_public() {
    let edge = Edge::open();
    let dots = [".", "..", "%2e", "%2E%2e", ".%2E", "...", ".;", "..;x", "x"];
    let slashes = ["/", "//", "/./", "/%2e/", "%2f", "\\", "%5c", "/x/../"];
    for first in dots {
        for second in slashes {
            attempt(&edge, "GET", format!("/x/{first}{second}admin").as_bytes(), "");
            attempt(&edge, "GET", format!("/{first}{second}admin/y").as_bytes(), "");
            attempt(&edge, "GET", format!("{second}{first}{second}%61dmin").as_bytes(), "");
            attempt(&edge, "GET", format!("/admin{second}{first}").as_bytes(), "");
        }
    }
    edge.still_serves();
}

#[test]
fn no_header_moves_a_public_request_to_a_protected_path() {
    let edge = Edge::open();
    for name in [
        "X-Original-URL",
        "X-Rewrite-URL",
        "X_Original_URL",
        "X-Forwarded-Uri",
        "X-Forwarded-Prefix",
        "X-Forwarded-Path",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
    ] {
        for target in ["/", "/public"] {
            attempt(&edge, "GET", target.as_bytes(), &format!("{name}: /admin\r\n"));
            let passed = edge.passes(format!(
                "GET {target} HTTP/1.1\r\nHost: shop.test\r\n{name}: /admin\r\n\r\n"
            ));
            assert!(!passed.head.contains("/admin"), "{}", passed.head);
        }
    }
}

#[test]
fn what_is_authorised_is_what_is_forwarded() {
    let edge = Edge::open();
    let token = token(claims("42"));
    for (target, forwarded) in [
        ("/admin", "/admin"),
        ("/x/../admin", "/admin"),
        ("//admin//users", "/admin/users"),
        ("/%61dmin/%7Euser", "/admin/~user"),
        ("/x/%2e%2E/admin/%c3%a9?q=%2f../x", "/admin/%C3%A9?q=%2f../x"),
        ("http://shop.test/./admin/", "/admin/"),
    ] {
        let passed = edge.passes(format!(
            "GET {target} HTTP/1.1\r\nHost: shop.test\r\nAuthorization: Bearer {token}\r\n\r\n"
        ));
        assert_eq!(passed.target(), forwarded, "{target}");
        assert_eq!(passed.headers_named("x-user-id"), ["42"]);
        let anonymous = format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        assert_eq!(edge.keeps(anonymous), 401, "{target}");
    }
}

#[test]
fn an_encoded_slash_can_be_allowed_and_stays_encoded() {
    let edge = Edge::with("[server.limits]\nencoded_slash = true\n");
    for (target, forwarded) in [
        ("/@scope%2fname", "/@scope%2Fname"),
        ("/@scope%2f.name/...%2f", "/@scope%2F.name/...%2F"),
        ("/%2fadmin", "/%2Fadmin"),
    ] {
        let passed = edge.passes(format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n"));
        assert_eq!(passed.target(), forwarded);
    }
    // An upstream that decodes them would climb.
    for target in ["/x%5cadmin", "/x/..%2fadmin", "/x%2F..", "/.%2fadmin", "/%2e%2e%2Fadmin"] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        assert_eq!(edge.refuses(head), 400, "{target}");
    }
}
