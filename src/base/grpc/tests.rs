//! What passes, and what texts become.

use super::*;

fn fields(written: &[(&'static str, &'static str)]) -> HeaderMap {
    let parse = |(name, value): &(&'static str, &'static str)| {
        (http::HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    written.iter().map(parse).collect()
}

#[test]
fn a_call_says_what_it_is_by_its_type() {
    for (value, expected) in [
        ("application/grpc", true),
        ("Application/gRPC+proto", true),
        ("application/grpc;charset=utf-8", true),
        ("application/grpc-web", false),
        ("application/grpc-web-text+proto", false),
        ("application/grp", false),
        ("text/html", false),
    ] {
        assert_eq!(is_grpc(&fields(&[("content-type", value)])), expected, "{value}");
    }
    assert!(!is_grpc(&HeaderMap::new()));
}

#[test]
fn metadata_passes_and_what_frames_does_not() {
    let mut trailers = fields(&[
        ("grpc-status", "0"),
        ("x-cost", "7"),
        ("details-bin", "AAE="),
        ("transfer-encoding", "chunked"),
        ("content-length", "5"),
        ("set-cookie", "a=b"),
        ("connection", "x-cost"),
        ("host", "evil"),
    ]);
    keep_metadata(&mut trailers);
    assert_eq!(trailers, fields(&[("grpc-status", "0"), ("x-cost", "7"), ("details-bin", "AAE=")]));
}

#[test]
fn messages_are_percent_encoded() {
    for (text, encoded) in [
        ("plain text", "plain text"),
        ("50%", "50%25"),
        ("a\nb\u{7f}", "a%0Ab%7F"),
        ("é", "%C3%A9"),
    ] {
        assert_eq!(encode_message(text), encoded);
    }
}
