//! Tables of request heads and what the guard makes of them.

use std::sync::Arc;

use proptest::prelude::*;

use http::uri::PathAndQuery;

use super::*;
use crate::base::facts::{ClientAddr, Encryption};

fn head(request_line: &str, headers: &[(&'static str, &str)]) -> Parts {
    let mut parts = request_line.split(' ');
    let method = parts.next().unwrap();
    let uri = parts.next().unwrap();
    let version = match parts.next() {
        Some("HTTP/1.0") => Version::HTTP_10,
        Some("HTTP/2") => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    let mut builder = http::Request::builder().method(method).uri(uri).version(version);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

fn inspected(request_line: &str, headers: &[(&'static str, &str)]) -> Result<String, Malformed> {
    inspected_at("127.0.0.1:8080", false, request_line, headers)
}

fn inspected_at(
    local: &str,
    secure: bool,
    request_line: &str,
    headers: &[(&'static str, &str)],
) -> Result<String, Malformed> {
    let policy = Policy { headers_max: 5, body_bytes_max: 100, encoded_slash: false };
    let local = local.parse().unwrap();
    let encryption =
        secure.then(|| Encryption { version: "TLSv1.3", name_policy: 0, client: None });
    let peer = Peer::new(ClientAddr::new([192, 0, 2, 1].into()), local, encryption.map(Arc::new));
    match inspect(&policy, &peer, &head(request_line, headers))? {
        Inspected::Route(target) => {
            Ok(format!("{} {}", target.authority.site(), target.path_and_query))
        }
        Inspected::ServerOptions => Ok("*".into()),
    }
}

#[test]
fn one_authority() {
    for (line, hosts, expected) in [
        ("GET /", vec!["a.example"], Ok("a.example /")),
        ("GET /", vec!["A.Example.:80"], Ok("a.example /")),
        ("GET /", vec!["a:8080"], Ok("a /")),
        ("GET /", vec!["a:8081"], Ok("a:8081 /")),
        ("GET /", vec!["[::1]:8080"], Ok("[::1] /")),
        ("GET /", vec![], Err(Malformed::Host)),
        ("GET / HTTP/1.0", vec![], Ok(" /")),
        ("GET /", vec!["a", "a"], Err(Malformed::Host)),
        ("GET /", vec!["a,b"], Err(Malformed::Host)),
        ("GET /", vec!["u@a"], Err(Malformed::Host)),
        ("GET /", vec!["a/b"], Err(Malformed::Host)),
        ("GET /", vec!["a b"], Err(Malformed::Host)),
        ("GET /", vec![""], Err(Malformed::Host)),
        ("GET /", vec!["a:"], Ok("a /")),
        ("GET /", vec!["a."], Ok("a /")),
        ("GET /", vec!["a.."], Err(Malformed::Host)),
        ("GET /", vec![".."], Err(Malformed::Host)),
        ("GET /", vec!["a:0"], Err(Malformed::Host)),
        ("GET /", vec!["a:65536"], Err(Malformed::Host)),
        ("GET /", vec!["a:+80"], Err(Malformed::Host)),
        ("GET /", vec!["[::1"], Err(Malformed::Host)),
        ("GET http://a/x", vec!["a"], Ok("a /x")),
        ("GET http://b/x", vec!["a"], Ok("b /x")),
        ("GET http://b:/x HTTP/1.0", vec!["a"], Ok("b /x")),
        ("GET http://b/x HTTP/1.0", vec![], Ok("b /x")),
        ("GET http://b../x", vec!["a"], Err(Malformed::Host)),
        ("GET http://b/x", vec!["a.."], Err(Malformed::Host)),
        ("GET http://b/x", vec!["b", "b"], Err(Malformed::Host)),
        ("GET http://a?x=1", vec!["a"], Ok("a /?x=1")),
        ("GET http://a?", vec!["a"], Ok("a /?")),
        ("GET http://a", vec!["a"], Ok("a /")),
        ("OPTIONS http://a", vec!["a"], Ok("*")),
        ("OPTIONS http://a:81", vec!["a"], Ok("*")),
        ("OPTIONS http://a/", vec!["a"], Ok("a /")),
        ("OPTIONS http://a?", vec!["a"], Ok("a /?")),
        ("OPTIONS http://a..", vec!["a"], Err(Malformed::Host)),
        ("OPTIONS http://a/ HTTP/2", vec![], Ok("a /")),
        ("GET http://a/x", vec![], Err(Malformed::Host)),
        ("GET https://a/x", vec!["a"], Err(Malformed::TargetForm)),
        ("GET ftp://a/x", vec!["a"], Err(Malformed::TargetForm)),
        ("GET http://u@a/x", vec!["a"], Err(Malformed::Host)),
        ("GET foo", vec!["a"], Err(Malformed::TargetForm)),
        ("GET *", vec!["a"], Err(Malformed::TargetForm)),
        ("OPTIONS *", vec!["a"], Ok("*")),
        ("GET https://a/x HTTP/2", vec![], Ok("a /x")),
        ("GET http://a/x HTTP/2", vec!["b"], Err(Malformed::Authority)),
    ] {
        let hosts: Vec<_> = hosts.into_iter().map(|host| ("host", host)).collect();
        assert_eq!(inspected(line, &hosts), expected.map(String::from), "{line} {hosts:?}");
    }
}

#[test]
fn over_tls_the_scheme_and_its_port_are_others() {
    for (line, host, expected) in [
        ("GET /", "a", Ok("a /")),
        ("GET /", "a:443", Ok("a /")),
        ("GET /", "a:8443", Ok("a /")),
        ("GET /", "a:80", Ok("a:80 /")),
        ("GET https://a/x", "b", Ok("a /x")),
        ("GET http://a/x", "a", Err(Malformed::TargetForm)),
        ("GET https://a/x HTTP/2", "a", Ok("a /x")),
        ("GET http://a/x HTTP/2", "a", Err(Malformed::TargetForm)),
    ] {
        let result = inspected_at("127.0.0.1:8443", true, line, &[("host", host)]);
        assert_eq!(result, expected.map(String::from), "{line} {host}");
    }
}

#[test]
fn framing_and_methods() {
    let check = |line: &str, header: (&'static str, &str), expected: Result<(), Malformed>| {
        let result = inspected(line, &[("host", "a"), header]).map(|_| ());
        assert_eq!(result, expected, "{line} {header:?}");
    };
    check("POST /", ("transfer-encoding", "chunked"), Ok(()));
    check("POST /", ("transfer-encoding", "Chunked"), Ok(()));
    for odd in ["gzip, chunked", "chunked, chunked", "identity", ", chunked", "\"chunked\""] {
        check("POST /", ("transfer-encoding", odd), Err(Malformed::TransferEncoding));
    }
    check("POST / HTTP/1.0", ("transfer-encoding", "chunked"), Err(Malformed::TransferEncoding));
    check("POST /", ("content-length", "100"), Ok(()));
    check("POST /", ("content-length", "101"), Err(Malformed::BodyTooLarge));
    for odd in ["+5", "5, 5", "", "0x5", "99999999999999999999"] {
        check("POST /", ("content-length", odd), Err(Malformed::ContentLength));
    }
    check("POST /", ("expect", "100-Continue"), Ok(()));
    check("POST /", ("expect", "200-ok"), Err(Malformed::Expectation));
    for method in ["TRACE", "CONNECT"] {
        check(&format!("{method} /"), ("a", "b"), Err(Malformed::MethodRefused));
    }
    let twice = [("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
    assert_eq!(inspected("POST /", &twice), Err(Malformed::TransferEncoding));
    let many = [("host", "a"), ("a", ""), ("b", ""), ("c", ""), ("d", ""), ("e", "")];
    assert_eq!(inspected("GET /", &many), Err(Malformed::TooManyHeaders));
}

const BESIDE: &str = "a dot segment beside an encoded slash (`..%2F`)";
const DOTS: &str = "a dot segment with a parameter (`..;`)";

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn canonical_paths() {
    for (given, expected) in [
        ("/", Ok("/")),
        ("/a/b.c/~d", Ok("/a/b.c/~d")),
        ("/.hidden/...", Ok("/.hidden/...")),
        ("//admin", Ok("/admin")),
        ("///a//b///", Ok("/a/b/")),
        ("/./admin", Ok("/admin")),
        ("/x/../admin", Ok("/admin")),
        ("/../../admin", Ok("/admin")),
        ("/x/%2e%2E/admin", Ok("/admin")),
        ("/x/.%2e/admin", Ok("/admin")),
        ("/a/.", Ok("/a/")),
        ("/a/b/..", Ok("/a/")),
        ("/%61dmin", Ok("/admin")),
        ("/%2561dmin", Ok("/%2561dmin")),
        ("/%c3%a9", Ok("/%C3%A9")),
        ("/é", Ok("/%C3%A9")),
        ("/a%20b;v=1", Ok("/a%20b;v=1")),
        ("/a{b}|", Ok("/a%7Bb%7D%7C")),
        ("/x//y?q=%2f../..//#", Ok("/x/y?q=%2f../..//")),
        ("/x/..%2fadmin", Err("%2F (server.limits.encoded_slash allows it)")),
        ("/x%5cadmin", Err("%5C")),
        ("/admin%00", Err("%00")),
        ("/a%0d%0ab", Err("%0D")),
        ("/a%0ab", Err("%0A")),
        ("/a%zz", Err("a percent sign without two hexadecimal digits")),
        ("/a%+1", Err("a percent sign without two hexadecimal digits")),
        ("/a%2", Err("a percent sign without two hexadecimal digits")),
        ("/a;v=1/b", Ok("/a;v=1/b")),
        ("/a/...;x", Ok("/a/...;x")),
        ("/a/.b;x", Ok("/a/.b;x")),
        ("/a/;x", Ok("/a/;x")),
        ("/a/..;/me", Err(DOTS)),
        ("/a/..;x=1/me", Err(DOTS)),
        ("/a/.;/me", Err(DOTS)),
        ("/..;", Err(DOTS)),
        ("/.;", Err(DOTS)),
        ("/a/%2e%2E;/me", Err(DOTS)),
        ("/a/.%2e%3b/me", Err(DOTS)),
        ("/a/..%3B/me", Err(DOTS)),
        ("/a/%2e;/me", Err(DOTS)),
    ] {
        let Ok(path) = PathAndQuery::try_from(given) else { panic!("{given} does not parse") };
        let result = canonical(&path, false);
        assert_eq!(
            result.as_ref().map(PathAndQuery::as_str),
            expected.as_ref().map(|e| *e),
            "{given}"
        );
    }
    for (given, expected) in [
        ("/@scope%2fname/b.c%2f", Ok("/@scope%2Fname/b.c%2F")),
        ("/a%2f.b%2f...%2fc", Ok("/a%2F.b%2F...%2Fc")),
        ("/a%2f..;/me", Err(DOTS)),
        ("/@scope%2fname/..%2f", Err(BESIDE)),
        ("/x/..%2fadmin", Err(BESIDE)),
        ("/x/%2e%2e%2Fadmin", Err(BESIDE)),
        ("/x%2f..", Err(BESIDE)),
        ("/x/.%2fadmin", Err(BESIDE)),
        ("/x%2f.%2fy", Err(BESIDE)),
        ("/x%2f%2fy/../z%2f", Ok("/z%2F")),
    ] {
        let result = canonical(&PathAndQuery::from_static(given), true);
        let result = result.as_ref().map(PathAndQuery::as_str);
        assert_eq!(result, expected.as_ref().map(|e| *e), "{given}");
    }
}

proptest! {
    #[test]
    fn canonical_is_idempotent_and_plain(
        path in "/[a-cA-C0-9./%;@{}é]{0,40}|(/|[.]|;|%2[eEfF5]|%3[bB]|%61|a){1,16}",
        query in "([?][a-z0-9./%;=é]{0,10})?",
        encoded_slash in any::<bool>(),
    ) {
        if let Ok(given) = PathAndQuery::try_from(format!("/{path}{query}"))
            && let Ok(once) = canonical(&given, encoded_slash) {
            prop_assert_eq!(&canonical(&once, encoded_slash).unwrap(), &once);
            prop_assert_eq!(once.query(), given.query());
            prop_assert!(once.path().starts_with('/') && !once.path().contains("//"));
            for segment in once.path().split('/') {
                prop_assert!(segment != "." && segment != "..");
                prop_assert!(!segment.starts_with(".;") && !segment.starts_with("..;"));
            }
            prop_assert!(encoded_slash || !once.path().to_ascii_lowercase().contains("%2f"));
        }
    }
}
