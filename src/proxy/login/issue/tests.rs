//! What an answer must be that logs somebody in.

use super::*;

fn issue(sub: &str) -> Issue {
    Issue {
        given: Given::Session,
        sub: sub.to_owned(),
        claims: vec![
            ("role".to_owned(), "/user/role".to_owned()),
            ("all".to_owned(), "/user/all".to_owned()),
        ],
        bytes_max: 100,
    }
}

#[test]
fn who_it_is_is_text_or_a_whole_number() {
    let sub = |answer: &str| {
        let told = Told::of(&issue("/user/id"), answer.as_bytes());
        told.map(|it| it.subject).map_err(|_| ())
    };
    let long = "9".repeat(30);
    for (id, expected) in [
        ("\"42\"", Some("42")),
        ("42", Some("42")),
        ("-1", Some("-1")),
        ("18446744073709551615", Some("18446744073709551615")),
        ("18446744073709551616", None),
        (&*long, None),
        ("1.5", None),
        ("1e3", None),
        ("\"\"", None),
        ("null", None),
        ("true", None),
        ("{}", None),
        ("{\"a\":1}", None),
        ("[\"42\"]", None),
        ("\"a\\u0000b\"", None),
        ("\"a\\nb\"", None),
        ("\"\\u0085\"", None),
        ("\"é\"", Some("é")),
    ] {
        let answer = format!("{{\"user\":{{\"id\":{id}}}}}");
        assert_eq!(sub(&answer).ok().as_deref(), expected, "{answer}");
    }
    for answer in [
        "",
        "42",
        "[]",
        "{",
        "{\"user\":{}}",
        "{\"user\":[{\"id\":\"42\"}]}",
        // Which of two members others would believe is unknown.
        "{\"user\":{\"id\":\"1\",\"id\":\"2\"}}",
        "{\"user\":{\"id\":\"1\"},\"user\":{\"id\":\"2\"}}",
        "{\"user\":{\"id\":\"1\"},\"x\":[{\"y\":1,\"y\":1}]}",
        "{\"user\":{\"id\":\"1\"}} {}",
        "\u{feff}{\"user\":{\"id\":\"1\"}}",
    ] {
        assert_eq!(sub(answer), Err(()), "{answer}");
    }
}

#[test]
fn a_pointer_walks_as_rfc_6901_says() {
    let answer = br#"{"a/b":{"m~n":["x",{"":"y"}]}}"#;
    for (at, expected) in
        [("/a~1b/m~0n/0", Some("x")), ("/a~1b/m~0n/1/", Some("y")), ("/a~1b/m~0n/01", None)]
    {
        let told = Told::of(&issue(at), answer).ok();
        assert_eq!(told.map(|it| it.subject).as_deref(), expected, "{at}");
    }
}

#[test]
fn claims_that_are_not_there_are_left_out() {
    let answer = br#"{"user":{"id":"1","role":null,"all":{"deep":[1,2]}}}"#;
    let told = Told::of(&issue("/user/id"), answer).unwrap_or_else(|_| panic!("not told"));
    let claims = serde_json::to_string(&told.claims).expect("JSON");
    assert_eq!(claims, r#"{"all":{"deep":[1,2]}}"#);
}

#[test]
fn a_number_of_a_claim_stands_as_it_was_written() {
    let answer = br#"{"user":{"id":"1","role":12345678901234567890123,"all":[1.50,{"n":-0}]}}"#;
    let told = Told::of(&issue("/user/id"), answer).unwrap_or_else(|_| panic!("not told"));
    let text = serde_json::to_string(&told.claims).expect("JSON");
    assert_eq!(text, r#"{"all":[1.50,{"n":-0}],"role":12345678901234567890123}"#);
    let within =
        Issue { claims: vec![("n".to_owned(), "/user/a~1b/1".to_owned())], ..issue("/user/id") };
    let answer = br#"{"user":{"id":"1","a/b":[0,9007199254740993.0]}}"#;
    let told = Told::of(&within, answer).unwrap_or_else(|_| panic!("not told"));
    assert_eq!(
        serde_json::to_string(&told.claims).ok().as_deref(),
        Some(r#"{"n":9007199254740993.0}"#)
    );
}

#[test]
fn an_answer_is_json_without_a_coding() {
    for (kind, coding, expected) in [
        ("application/json", None, true),
        ("Application/JSON; charset=utf-8", None, true),
        ("application/vnd.shop+json", None, true),
        ("application/json", Some("gzip"), false),
        ("text/json", None, false),
        ("text/html", None, false),
        ("application/jsonp", None, false),
        ("", None, false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(coding) = coding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        assert_eq!(is_json(&headers).is_ok(), expected, "{kind}");
    }
    assert!(is_json(&HeaderMap::new()).is_err());
}
