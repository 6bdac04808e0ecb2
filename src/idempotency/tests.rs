//! Which fields name a key, whose it is, and what makes two requests the same.

use std::net::{IpAddr, Ipv4Addr};

use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};

use super::*;
use crate::base::facts::Target;
use crate::base::http::authority::Authority;

fn key_of(values: &[&str]) -> Result<Option<String>, KeyError> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(IDEMPOTENCY_KEY, HeaderValue::from_str(value).unwrap());
    }
    Key::of(&headers).map(|key| key.map(|key| key.as_str().to_owned()))
}

#[test]
fn a_key_is_read_in_quotes_and_bare() {
    assert_eq!(key_of(&[]), Ok(None));
    let longest = "k".repeat(255);
    let quoted = format!("\"{longest}\"");
    for (value, key) in [
        ("8e03978e-40d5", "8e03978e-40d5"),
        ("\"8e03978e-40d5\"", "8e03978e-40d5"),
        ("\"a\\\"b\";v=1", "a\"b"),
        ("a,b;c=\"d\"", "a,b;c=\"d\""),
        (&longest, &longest),
        (&quoted, &longest),
    ] {
        assert_eq!(key_of(&[value]), Ok(Some(key.to_owned())), "{value}");
    }
    let too_long = "k".repeat(256);
    for value in ["", "\"\"", "a b", "\"a b\"", "\"a", "\"a\"b", "\"a\", \"b\"", "é", &too_long] {
        assert_eq!(key_of(&[value]), Err(KeyError::Malformed), "{value}");
    }
    assert_eq!(key_of(&["a", "a"]), Err(KeyError::Several));
}

#[test]
fn a_key_belongs_to_one_caller_and_one_route() {
    let key = |text| Key::of(&HeaderMap::from_iter([(IDEMPOTENCY_KEY, text)])).unwrap().unwrap();
    let (a, b) = (key(HeaderValue::from_static("a")), key(HeaderValue::from_static("b")));
    let subject = |verifier, subject| Owner::Subject { verifier, subject };
    let address = Owner::Address(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let all = [
        scoped(subject("v", "ada"), "r", &a),
        scoped(subject("v", "ada"), "r", &b),
        scoped(subject("v", "ada"), "s", &a),
        scoped(subject("v", "bob"), "r", &a),
        scoped(subject("w", "ada"), "r", &a),
        scoped(subject("va", "da"), "r", &a),
        scoped(subject("v", "127.0.0.1"), "r", &a),
        scoped(address, "r", &a),
    ];
    for (at, one) in all.iter().enumerate() {
        assert_eq!(one.len(), 64);
        assert!(!all[..at].contains(one), "{at}");
    }
    assert_eq!(all[0], scoped(subject("v", "ada"), "r", &a));
}

#[test]
fn requests_are_the_same_when_all_that_decides_is() {
    let of = |method: Method, host: &'static str, path: &'static str, kind: &'static str| {
        let authority = Authority::of_header(&HeaderValue::from_static(host)).unwrap();
        let target = Target { authority, path_and_query: PathAndQuery::from_static(path) };
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
        Fingerprinter::new(&method, &target, &headers)
    };
    let whole = |mut made: Fingerprinter, pieces: &[&str]| {
        pieces.iter().for_each(|piece| made.add(piece.as_bytes()));
        made.finish()
    };
    let one = || of(Method::POST, "a.example", "/p?q=1", "application/json");
    let known = whole(one(), &["{\"a\":", "1}"]);
    assert_eq!(known, whole(one(), &["{", "\"a\":1}"]), "pieces do not matter");
    assert_eq!(known, Fingerprint::from_bytes(*known.as_bytes()));
    for other in [
        whole(one(), &["{\"a\":2}"]),
        whole(one(), &[]),
        whole(of(Method::PUT, "a.example", "/p?q=1", "application/json"), &["{\"a\":1}"]),
        whole(of(Method::POST, "b.example", "/p?q=1", "application/json"), &["{\"a\":1}"]),
        whole(of(Method::POST, "a.example", "/p?q=2", "application/json"), &["{\"a\":1}"]),
        whole(of(Method::POST, "a.example", "/p?q=1", "text/plain"), &["{\"a\":1}"]),
    ] {
        assert_ne!(known, other);
    }
}
