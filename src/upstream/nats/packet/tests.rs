//! Packets as services write and read them; those of NestJS are of version 12.1 of its package.

use async_nats::Subject;

use super::*;

fn head(method: Method, uri: &str) -> Parts {
    http::Request::builder().method(method).uri(uri).body(()).unwrap().into_parts().0
}

fn addressed(subject: &str) -> Addressed {
    let parameters = vec![("id".to_owned(), "7".to_owned())];
    Addressed { subject: subject.to_owned(), parameters }
}

fn sent(method: Method, uri: &str, body: &'static str) -> Option<String> {
    let body = Bytes::from_static(body.as_bytes());
    let made = encode(Packet::Nest, &head(method, uri), &addressed("orders.get"), (&body, 9))?;
    Some(String::from_utf8(made.to_vec()).unwrap())
}

fn message(fields: &[(&str, &str)], payload: &str) -> Message {
    let mut headers = HeaderMap::new();
    fields.iter().for_each(|(name, value)| headers.insert(*name, *value));
    Message {
        subject: Subject::from("_INBOX.x.0"),
        reply: None,
        payload: payload.to_owned().into(),
        headers: Some(headers),
        status: None,
        description: None,
        length: 0,
    }
}

/// What messages of NestJS come to: the status and the body.
fn nested(payloads: &[&str]) -> Result<(u16, String), Bad> {
    let mut decoder = Decoder::new(Packet::Nest);
    let (last, before) = payloads.split_last().unwrap();
    for payload in before {
        assert_eq!(decoder.read(&message(&[], payload)), Ok(None), "{payload}");
    }
    let answer = decoder.read(&message(&[], last))?.expect("an answer");
    let is_json = answer.content_type.is_some_and(|it| it == "application/json");
    assert_eq!(is_json, answer.status != StatusCode::NO_CONTENT);
    Ok((answer.status.as_u16(), String::from_utf8(answer.body.to_vec()).unwrap()))
}

#[test]
fn a_body_goes_to_nest_as_data_and_a_request_without_one_as_what_it_asks_for() {
    let body = " {\"a\": [1.0, \"é\"]} ";
    let is = |method, uri, body, expected: &str| {
        assert_eq!(sent(method, uri, body).as_deref(), Some(expected));
    };
    is(
        Method::POST,
        "/orders/7?x=1",
        body,
        "{\"pattern\":\"orders.get\",\"data\":{\"a\": [1.0, \"é\"]},\"id\":\"9\"}",
    );
    for method in [Method::GET, Method::DELETE, Method::HEAD, Method::POST] {
        is(
            method,
            "/orders/7?x=1&y=a+b%26&x=2&x=&flag&",
            "",
            "{\"pattern\":\"orders.get\",\"data\":{\"params\":{\"id\":\"7\"},\"query\":{\
             \"flag\":\"\",\"x\":[\"1\",\"2\",\"\"],\"y\":\"a b&\"}},\"id\":\"9\"}",
        );
    }
    for body in ["{", "a", "{} {}", "\u{0}"] {
        assert_eq!(sent(Method::POST, "/", body), None, "{body}");
    }
    let body = Bytes::from_static(b"\xff");
    let plain = encode(Packet::Plain, &head(Method::POST, "/"), &addressed("a"), (&body, 1));
    assert_eq!(plain, Some(body));
}

#[test]
fn an_object_is_a_pattern_as_its_text() {
    let subject = "{\"cmd\":\"sum\",\"v\":1}";
    let body = Bytes::from_static(b"[1,2]");
    let head = head(Method::POST, "/sum");
    let made = encode(Packet::Nest, &head, &addressed(subject), (&body, 9)).unwrap();
    let read: Value = serde_json::from_slice(&made).unwrap();
    assert_eq!(read["pattern"], subject);
}

#[test]
fn each_reply_of_nest_has_its_status() {
    let ok = |status, body: &str| Ok((status, body.to_owned()));
    for (payloads, expected) in [
        (
            &["{\"response\":{\"id\":1},\"isDisposed\":true,\"id\":\"9\"}"][..],
            ok(200, "{\"id\":1}"),
        ),
        (&["{\"response\":null,\"isDisposed\":true,\"id\":\"9\"}"], ok(200, "null")),
        (&["{\"isDisposed\":true,\"id\":\"9\"}"], ok(204, "")),
        (
            &["{\"response\":1,\"id\":\"9\"}", "{\"response\":2,\"isDisposed\":true}"],
            ok(200, "[1,2]"),
        ),
        (&["{\"response\":1}", "{\"response\":2}", "{\"isDisposed\":true}"], ok(200, "[1,2]")),
        (
            &["{\"err\":{\"status\":404,\"message\":\"no order 7\"},\"isDisposed\":true}"],
            ok(404, "{\"message\":\"no order 7\"}"),
        ),
        (
            &["{\"err\":{\"statusCode\":409,\"message\":[\"a\",1]},\"isDisposed\":true}"],
            ok(409, "{\"message\":[\"a\",1]}"),
        ),
        (
            &["{\"err\":{\"status\":503},\"isDisposed\":true}"],
            ok(503, "{\"message\":\"Service Unavailable\"}"),
        ),
        (
            &["{\"response\":1}", "{\"err\":{\"status\":400,\"message\":\"x\"}}"],
            ok(400, "{\"message\":\"x\"}"),
        ),
    ] {
        assert_eq!(nested(payloads), expected, "{payloads:?}");
    }
}

#[test]
fn an_answer_has_so_many_values_and_no_more() {
    let value = "{\"response\":1}";
    let mut payloads = vec![value; VALUES_MAX];
    payloads.push("{\"isDisposed\":true}");
    assert_eq!(nested(&payloads).map(|(status, _)| status), Ok(200));
    payloads.insert(0, value);
    let last = payloads.pop().unwrap();
    let mut decoder = Decoder::new(Packet::Nest);
    let (beyond, within) = payloads.split_last().unwrap();
    assert!(within.iter().all(|payload| decoder.read(&message(&[], payload)) == Ok(None)));
    assert!(matches!(decoder.read(&message(&[], beyond)), Err(Bad::Malformed(_))), "{last}");
}

#[test]
fn an_error_without_a_status_is_a_failure_and_what_is_no_packet_malformed() {
    let error = "{\"err\":{\"status\":\"error\",\"message\":\"Internal server error\"},\
                 \"isDisposed\":true}";
    assert_eq!(nested(&[error]), Err(Bad::Failed("Internal server error".to_owned())));
    for (err, told) in [
        ("\"boom\\n\"", "boom "),
        ("{\"status\":200,\"message\":\"x\"}", "x"),
        ("{\"status\":600}", "{\"status\":600}"),
    ] {
        let failed = nested(&[&format!("{{\"err\":{err},\"isDisposed\":true}}")]);
        assert_eq!(failed, Err(Bad::Failed(told.to_owned())), "{err}");
    }
    for payload in ["", "{", "1", "{}", "{\"id\":\"9\"}", "{\"isDisposed\":1}"] {
        assert!(matches!(nested(&[payload]), Err(Bad::Malformed(_))), "{payload}");
    }
}

#[test]
fn each_reply_of_a_plain_service_has_its_status() {
    let read = |fields: &[_]| Decoder::new(Packet::Plain).read(&message(fields, "body"));
    let status = |fields: &[_]| read(fields).unwrap().unwrap().status.as_u16();
    assert_eq!(status(&[]), 200);
    assert_eq!(status(&[("status", "201")]), 201);
    assert_eq!(status(&[("Nats-Service-Error-Code", "404")]), 404);
    assert_eq!(status(&[("Status", "200"), ("Nats-Service-Error-Code", "422")]), 422);
    let answer = read(&[("content-type", "text/plain")]).unwrap().unwrap();
    assert_eq!(answer.content_type.unwrap(), "text/plain");
    assert_eq!(answer.body, "body");
    let failed = |fields: &[_], told: &str| {
        assert_eq!(read(fields), Err(Bad::Failed(told.to_owned())), "{fields:?}");
    };
    failed(&[("Nats-Service-Error-Code", "7"), ("Nats-Service-Error", "no room")], "no room");
    failed(&[("Nats-Service-Error-Code", "x")], "x");
    for status in ["", "99", "100", "600", "2e2"] {
        assert!(matches!(read(&[("status", status)]), Err(Bad::Malformed(_))), "{status}");
    }
}
