//! Where a token may stand in a request, and that it leaves no copy behind.

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;
use crate::auth::Denied;
use crate::auth::carrier::{Form, Places, remove, without_parameters};

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(HeaderName::from_static(name), value);
    }
    headers
}

/// The token that would be verified.
fn find(sources: &[TokenSource], headers: &HeaderMap) -> Result<Option<String>, Denied> {
    let places = Places { headers, query: None, certificate: None };
    let found = crate::auth::carrier::find(sources, Form::Token, places)?;
    found.map(|raw| raw.text().map(str::to_owned)).transpose()
}

fn everywhere() -> [TokenSource; 3] {
    [
        TokenSource::Header(AUTHORIZATION),
        TokenSource::Header(HeaderName::from_static("x-token")),
        TokenSource::Cookie("token".to_owned()),
    ]
}

#[test]
fn one_token_is_found_wherever_it_stands() {
    for (lines, expected) in [
        (&[][..], None),
        (&[("authorization", "Bearer a.b.c")], Some("a.b.c")),
        (&[("authorization", "bEaReR   a.b.c ")], Some("a.b.c")),
        (&[("authorization", "Basic dTpw")], None),
        (&[("authorization", "Bearerx a.b.c")], None),
        (&[("authorization", "Bearer-x a.b.c")], None),
        (&[("authorization", "DPoP a.b.c")], Some("a.b.c")),
        (&[("authorization", "DPoPx a.b.c")], None),
        (&[("authorization", "Digest a.b.c")], None),
        (&[("authorization", "a.b.c")], None),
        (&[("authorization", "")], None),
        (&[("x-token", "a.b.c")], Some("a.b.c")),
        (&[("x-token", "Bearer a.b.c")], Some("a.b.c")),
        (&[("x-token", "")], None),
        (&[("cookie", "x=1; token=a.b.c; y=2")], Some("a.b.c")),
        (&[("cookie", "x=1"), ("cookie", "token=a.b.c")], Some("a.b.c")),
        (&[("cookie", "token=a.b.c;token=a.b.c")], Some("a.b.c")),
        (&[("cookie", "token=")], None),
        (&[("cookie", "Token=a.b.c; xtoken=a; token")], None),
        (&[("cookie", "=token=a.b.c")], None),
        (&[("cookie", "é=ü; token=a.b.c")], Some("a.b.c")),
        (&[("authorization", "Bearer a.b.c"), ("cookie", "token=a.b.c")], Some("a.b.c")),
        (&[("authorization", "Basic dTpw"), ("x-token", "a.b.c")], Some("a.b.c")),
    ] {
        assert_eq!(
            find(&everywhere(), &headers(lines)),
            Ok(expected.map(str::to_owned)),
            "{lines:?}"
        );
    }
}

#[test]
fn two_tokens_or_a_bad_form_are_malformed() {
    for lines in [
        &[("authorization", "Bearer a"), ("authorization", "Bearer a")][..],
        &[("authorization", "Bearer a"), ("authorization", "Basic b")],
        &[("authorization", "Basic b"), ("authorization", "Bearer a")],
        &[("authorization", "Bearer")],
        &[("authorization", "Bearer ")],
        &[("authorization", "Bearer a b")],
        &[("authorization", "Bearer a, Bearer b")],
        &[("authorization", "Bearer a,b")],
        &[("authorization", "Bearer\ta")],
        &[("authorization", "Bearer: a")],
        &[("authorization", "Bearer \"a\"")],
        &[("authorization", "Bearer é")],
        &[("x-token", "a b")],
        &[("x-token", "a"), ("x-token", "a")],
        &[("cookie", "token=a; token=b")],
        &[("cookie", "token=a"), ("cookie", "token=b")],
        &[("cookie", "token=\"a\"")],
        &[("cookie", "token=a b")],
        &[("authorization", "Bearer a"), ("cookie", "token=b")],
        &[("x-token", "a"), ("cookie", "token=b")],
    ] {
        let refused = find(&everywhere(), &headers(lines)).unwrap_err();
        assert_eq!(refused.code(), "token_malformed", "{lines:?}");
    }
}

#[test]
fn only_the_places_that_are_configured_are_read() {
    let sources = [TokenSource::Cookie("token".to_owned())];
    let lines = headers(&[("authorization", "Bearer a"), ("x-token", "b"), ("cookie", "token=c")]);
    assert_eq!(find(&sources, &lines), Ok(Some("c".to_owned())));
}

#[test]
fn the_token_is_removed_and_nothing_else() {
    let cookies = |before: &str| {
        let mut map = headers(&[("cookie", before)]);
        remove(&everywhere(), Form::Token, &mut map);
        map.get(COOKIE).map(|value| value.to_str().unwrap().to_owned())
    };
    for (before, after) in [
        ("a=1; b=2", Some("a=1; b=2")),
        ("a=1;  b = 2 ;", Some("a=1;  b = 2 ;")),
        ("token=x", None),
        ("token=x; token=y", None),
        ("token=x; b=\"2\"", Some("b=\"2\"")),
        ("a=1; token=x;  b=2", Some("a=1;  b=2")),
        ("a=1; token = x", Some("a=1")),
        ("a=1; xtoken=x; b", Some("a=1; xtoken=x; b")),
    ] {
        assert_eq!(cookies(before).as_deref(), after, "{before}");
    }
    let mut map = headers(&[
        ("authorization", "Bearer a"),
        ("authorization", "Basic b"),
        ("authorization", "bearer\tc"),
        ("x-token", "a"),
        ("cookie", "token=a"),
        ("cookie", "b=2"),
        ("x-other", "o"),
        ("dpop", "proof"),
    ]);
    let mut of_keys = headers(&[("dpop", "proof")]);
    remove(&everywhere(), Form::Token, &mut map);
    assert_eq!(map, headers(&[("authorization", "Basic b"), ("cookie", "b=2"), ("x-other", "o")]));
    // Where no verifier takes tokens, the field is somebody else's.
    remove(&everywhere(), Form::ApiKey, &mut of_keys);
    remove(&[], Form::Token, &mut of_keys);
    assert_eq!(of_keys.len(), 1);
}

/// The token that would be verified of a query.
fn in_query(query: &str) -> Result<Option<String>, Denied> {
    let sources = [TokenSource::Query("access_token".to_owned())];
    let places = Places { headers: &HeaderMap::new(), query: Some(query), certificate: None };
    let found = crate::auth::carrier::find(&sources, Form::Token, places)?;
    found.map(|raw| raw.text().map(str::to_owned)).transpose()
}

#[test]
fn a_query_parameter_carries_a_token_in_every_spelling_of_its_name() {
    for (query, expected) in [
        ("", None),
        ("access_token=a.b.c", Some("a.b.c")),
        ("x=1&access_token=a.b.c&y=2", Some("a.b.c")),
        ("access%5Ftoken=a.b.c", Some("a.b.c")),
        ("%61ccess_token=a%2Eb.c", Some("a.b.c")),
        ("access_token=a.b.c&access_token=a%2eb.c", Some("a.b.c")),
        ("access_token=", None),
        ("access_token", None),
        ("Access_token=a&xaccess_token=b&access_tokenx=c&a=access_token=d", None),
    ] {
        assert_eq!(in_query(query), Ok(expected.map(str::to_owned)), "{query}");
    }
    for query in [
        "access_token=a&access_token=b",
        "access_token=a&access%5Ftoken=b",
        "access_token=a%20b",
        "access_token=a,b",
        "access_token=a%zz",
    ] {
        let refused = in_query(query).unwrap_err();
        assert_eq!(refused.code(), "token_malformed", "{query}");
    }
}

#[test]
fn only_the_parameter_leaves_the_query() {
    let sources = [TokenSource::Query("t".to_owned())];
    for (before, after) in [
        ("a=1&b=2", None),
        ("", None),
        ("t=x", Some("")),
        ("t", Some("")),
        ("a=1&t=x&b=%20+&&c", Some("a=1&b=%20+&&c")),
        ("t=x&a=1&%74=y&tt=z", Some("a=1&tt=z")),
    ] {
        assert_eq!(without_parameters(&sources.iter(), before).as_deref(), after, "{before}");
    }
}

#[test]
fn an_api_key_is_bare_but_in_authorization() {
    let custom = HeaderName::from_static("x-api-key");
    let sources = [TokenSource::Header(custom), TokenSource::Header(AUTHORIZATION)];
    for (lines, expected) in [
        (&[("x-api-key", " k 1 ")][..], Some("k 1")),
        (&[("x-api-key", "Bearer k")], Some("Bearer k")),
        (&[("x-api-key", "")], None),
        (&[("authorization", "Bearer k")], Some("k")),
        (&[("authorization", "apikey  k")], Some("k")),
        (&[("authorization", "ApiKeys k")], None),
        (&[("authorization", "Basic k")], None),
        (&[("authorization", "ApiKey k"), ("x-api-key", "k")], Some("k")),
    ] {
        let mut map = headers(lines);
        let places = Places { headers: &map, query: None, certificate: None };
        let found = crate::auth::carrier::find(&sources, Form::ApiKey, places).unwrap();
        let found = found.map(|key| String::from_utf8_lossy(&key.bytes).into_owned());
        assert_eq!(found.as_deref(), expected, "{lines:?}");
        remove(&sources, Form::ApiKey, &mut map);
        assert_eq!(map.is_empty(), expected.is_some() || lines[0].0 == "x-api-key", "{lines:?}");
    }
    let two = headers(&[("authorization", "ApiKey k"), ("x-api-key", "l")]);
    let places = Places { headers: &two, query: None, certificate: None };
    let found = crate::auth::carrier::find(&sources, Form::ApiKey, places);
    assert_eq!(found, Err(Denied::Several));
}
