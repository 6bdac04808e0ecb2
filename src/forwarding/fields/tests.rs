//! What reaches the upstream, and what does not.

use std::path::Path;

use http::uri::PathAndQuery;
use proptest::prelude::*;

use super::*;
use crate::base::facts::Via;
use crate::base::grpc::is_grpc;
use crate::base::http::authority::Authority;
use crate::config::{self, TrustParent};

fn forwarded(given: &[(&str, &str)], via_trusted: bool) -> HeaderMap {
    forwarded_for(given, via_trusted.then(Box::default))
}

fn forwarded_for(given: &[(&str, &str)], via: Option<Box<Via>>) -> HeaderMap {
    let mut builder = http::Request::builder().uri("/");
    for (name, value) in given {
        builder = builder.header(*name, *value);
    }
    let head = builder.body(()).unwrap().into_parts().0;
    let target = Target {
        authority: Authority::parse(b"shop.example:81").unwrap(),
        path_and_query: PathAndQuery::from_static("/x"),
    };
    let address = ClientAddr::new("192.0.2.1".parse().unwrap());
    let peer = Peer::new(address, "127.0.0.1:80".parse().unwrap(), None);
    let is_named = via.as_ref().is_some_and(|via| !via.proxies.is_empty());
    let named = ClientAddr::new("2001:db8::7".parse().unwrap());
    let client = match is_named {
        true => Client { address: named, scheme: "https", via },
        false => Client { address: peer.address, scheme: "http", via },
    };
    let ids = Ids::of(&head.headers, None, || false);
    let policy = Policy { owned: vec!["x-user-id".into()] };
    let identity = [(HeaderName::from_static("x-user-id"), HeaderValue::from_static("42"))];
    let (method, fields) = (&head.method, &head.headers);
    let incoming = Incoming { method, target: &target, fields, is_grpc: is_grpc(fields) };
    let identity = identity.into_iter();
    let request = outgoing(&policy, incoming, (&peer, &client), &ids, identity);
    let mut headers = request.into_parts().0.headers;
    // As each attempt does.
    assert_eq!(headers.insert(TRACEPARENT, ids.trace.to_header()), None);
    headers
}

#[test]
fn forwarding_headers_are_the_gateways() {
    let spoofed = [
        ("host", "evil"),
        ("x-forwarded-for", "6.6.6.6"),
        ("X_Forwarded_For", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("x-forwarded-prefix", "/evil"),
        ("x-real-ip", "6.6.6.6"),
    ];
    let headers = forwarded(&spoofed, false);
    assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
    assert_eq!(headers["x-forwarded-host"], "shop.example:81");
    assert_eq!(headers["forwarded"], "for=192.0.2.1;host=\"shop.example:81\";proto=http");
    assert_eq!(headers["host"], "shop.example:81");
    assert!(!format!("{headers:?}").contains("6.6.6.6"), "{headers:?}");
    assert!(!headers.contains_key("x-forwarded-prefix"));

    let chained =
        forwarded(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2")], true);
    assert_eq!(chained["x-forwarded-for"], "1.1.1.1, 2.2.2.2, 192.0.2.1");
}

#[test]
fn both_families_tell_the_same() {
    let address = |text: &str| ClientAddr::new(text.parse().unwrap());
    let via = |fields| {
        let proxies = vec![address("192.0.2.1"), address("10.0.0.2")];
        let host = Authority::parse(b"public.example");
        Some(Box::new(Via { fields, host, proxies }))
    };
    let given = [("x-forwarded-for", ", 6.6.6.6, 2001:db8::7 ,10.0.0.2"), ("forwarded", "for=x")];
    for (fields, nodes) in [
        (ForwardingFields::XForwarded, "6.6.6.6, 2001:db8::7, 10.0.0.2, 192.0.2.1"),
        (ForwardingFields::Forwarded, "2001:db8::7, 10.0.0.2, 192.0.2.1"),
    ] {
        let headers = forwarded_for(&given, via(fields));
        assert_eq!(headers["x-forwarded-for"], nodes);
        assert_eq!(headers["x-forwarded-host"], "public.example");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["host"], "shop.example:81");
        let told = "for=\"[2001:db8::7]\";host=public.example;proto=https, for=10.0.0.2, \
                    for=192.0.2.1;host=public.example;proto=https";
        assert_eq!(headers["forwarded"], told);
    }
}

#[test]
fn hop_by_hop_fields_of_every_connection_line_stay_behind() {
    let headers = forwarded(
        &[
            ("connection", "close, X-One"),
            ("connection", "x-two , X-User-Id, host"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("keep-alive", "5"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("proxy-authorization", "x"),
            ("expect", "100-continue"),
            ("content-length", "5"),
            ("x-stays", "1"),
        ],
        false,
    );
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let expected = "forwarded host traceparent x-forwarded-for x-forwarded-host x-forwarded-proto \
                    x-request-id x-stays x-user-id";
    assert_eq!(names.join(" "), expected);
}

#[test]
fn ids_are_kept_when_well_formed() {
    let trace = TRACE;
    let headers = forwarded(&[("x-request-id", "abc-1"), ("traceparent", trace)], false);
    assert_eq!(headers["x-request-id"], "abc-1");
    assert_eq!(headers["traceparent"], trace);
    for bad in ["a b", "<script>", &"x".repeat(129), "eyJhbGciOiJub25lIn0.e30."] {
        let made = forwarded(&[("x-request-id", bad), ("traceparent", "00-0-0-0")], false);
        assert_eq!(made["x-request-id"].len(), 32);
        assert_eq!(&made["traceparent"].to_str().unwrap()[3..35], made["x-request-id"]);
        assert_eq!(&made["traceparent"].to_str().unwrap()[52..], "-00");
    }
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn a_state_follows_its_parent_and_baggage_a_trusted_peer() {
    for (given, via_trusted, state, baggage) in [
        (&[("traceparent", TRACE)][..], true, Some("a=1,b=2"), 1),
        (&[("traceparent", TRACE)], false, Some("a=1,b=2"), 0),
        (&[("traceparent", "00-0-0-0")], true, None, 1),
        (&[], false, None, 0),
        (&[("traceparent", TRACE), ("traceparent", TRACE)], false, None, 0),
        (&[("traceparent", TRACE), ("tracestate", "A=1")], true, None, 1),
        (&[("traceparent", TRACE), ("connection", "tracestate, baggage")], true, None, 0),
        (&[("traceparent", TRACE), ("baggage", &"x".repeat(8192))], true, Some("a=1,b=2"), 0),
    ] {
        let more = [("tracestate", "a=1"), ("tracestate", "b=2"), ("baggage", "u=1")];
        let headers = forwarded(&[&more, given].concat(), via_trusted);
        let states: Vec<_> = headers.get_all("tracestate").iter().collect();
        assert_eq!(states, state.as_slice(), "{given:?}");
        assert_eq!(headers.get_all("baggage").iter().count(), baggage, "{given:?} {via_trusted}");
        assert_eq!(headers.get_all("traceparent").iter().count(), 1);
    }
}

#[test]
fn cookie_crumbs_are_joined_and_grpc_keeps_te() {
    let headers = forwarded(&[("cookie", "a=1"), ("cookie", "b=2"), ("te", "gzip")], false);
    assert_eq!(headers["cookie"], "a=1; b=2");
    assert!(!headers.contains_key("te"));
    let grpc = forwarded(&[("content-type", "application/grpc+proto"), ("te", "gzip")], false);
    assert_eq!(grpc["te"], "trailers");
}

#[test]
fn responses_lose_what_belongs_to_the_connection() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("connection", "x-one"),
        ("connection", "keep-alive"),
        ("x-one", "1"),
        ("keep-alive", "5"),
        ("transfer-encoding", "chunked"),
        ("content-length", "3"),
        ("x-request-id", "theirs"),
        ("etag", "\"a\""),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    returning(&mut headers);
    assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["etag"]);
}

#[test]
fn no_client_numbers_the_attempts_of_a_delivery() {
    for name in ["x-delivery-id", "X-Delivery-Attempt", "x_delivery_id", "X.Delivery_Attempt"] {
        let headers = forwarded(&[(name, "7"), ("x-delivery", "8")], true);
        let of_delivery = headers.iter().filter(|(name, _)| name.as_str().contains("delivery"));
        assert_eq!(of_delivery.map(|(_, value)| value).collect::<Vec<_>>(), ["8"], "{name}");
    }
}

proptest! {
    #[test]
    fn no_spelling_of_an_owned_name_passes(
        separators in proptest::collection::vec("[-_.]", 2),
        upper in any::<u16>(),
        value in "[a-z]{1,5}",
    ) {
        let mut name = format!("x{}user{}id", separators[0], separators[1]);
        name = name.chars().enumerate()
            .map(|(i, c)| if upper >> (i % 16) & 1 == 1 { c.to_ascii_uppercase() } else { c })
            .collect();
        let headers = forwarded(&[(&name, &value)], false);
        let ours = |name: &HeaderName| dashed(name.as_str()) == "x-user-id";
        let values: Vec<_> = headers.iter().filter(|(name, _)| ours(name)).collect();
        prop_assert_eq!(values.len(), 1);
        prop_assert_eq!(values[0].1, "42");
    }
}

fn interim_head(status: u16, fields: &[(&'static str, &'static str)]) -> Option<String> {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    let fields = fields.iter().map(pair).collect();
    let head = interim(StatusCode::from_u16(status).unwrap(), &fields);
    head.map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn only_interim_responses_of_the_upstreams_own_pass() {
    assert_eq!(interim_head(102, &[]).unwrap(), "HTTP/1.1 102 Processing\r\n\r\n");
    assert_eq!(interim_head(103, &[]).unwrap(), "HTTP/1.1 103 Early Hints\r\n\r\n");
    assert_eq!(interim_head(199, &[]).unwrap(), "HTTP/1.1 199 \r\n\r\n");
    for status in [100, 101, 200, 204, 304, 502] {
        assert_eq!(interim_head(status, &[]), None, "{status}");
    }
}

#[test]
fn repeated_fields_pass_and_those_of_one_connection_do_not() {
    let fields = [
        ("link", "</a>; rel=preload"),
        ("link", "</b>; rel=preload"),
        ("connection", "x-hop, close"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("trailer", "x"),
        ("upgrade", "h2c"),
        ("x-request-id", "theirs"),
    ];
    let expected = "HTTP/1.1 103 Early Hints\r\n\
                    link: </a>; rel=preload\r\nlink: </b>; rel=preload\r\n\r\n";
    assert_eq!(interim_head(103, &fields).unwrap(), expected);
}

#[test]
fn what_an_upstream_says_to_a_proxy_alone_does_not_return() {
    let names = ["proxy-authentication-info", "http2-settings", "proxy-authenticate", "x-kept"];
    let mut headers: HeaderMap = names
        .iter()
        .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1")))
        .collect();
    returning(&mut headers);
    assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
}

/// What becomes of the trace that a request came with, or not, for these settings: the ids, and
/// what an attempt of it sends.
fn traced(came: Option<&str>, (sample, trust_parent): (u16, TrustParent), peer: bool) -> Ids {
    let mut headers = HeaderMap::new();
    if let Some(line) = came {
        headers.insert(TRACEPARENT, line.parse().unwrap());
    }
    let text = "[telemetry.traces]\n";
    let loaded = config::parse("t.toml", Path::new(""), text, &|_| None).unwrap();
    let written = config::Traces { sample, trust_parent, ..loaded.config.traces.unwrap() };
    Ids::of(&headers, Some(&Sampling::new(&written)), || peer)
}

#[test]
fn a_trusted_parent_decides_and_anybody_elses_is_linked() {
    let sampled = Trace::parse(TRACE.as_bytes()).unwrap();
    let unsampled = Trace { flags: 0, ..sampled };
    for (trust, peer, keeps) in [
        (TrustParent::TrustedProxies, true, true),
        (TrustParent::TrustedProxies, false, false),
        (TrustParent::Never, true, false),
        (TrustParent::Always, false, true),
    ] {
        for came in [sampled, unsampled] {
            for sample in [0, 10_000] {
                let line = came.to_header();
                let ids = traced(Some(line.to_str().unwrap()), (sample, trust), peer);
                let case = format!("{trust:?} {peer} {sample} {}", came.flags);
                assert_eq!(ids.parent(), keeps.then_some(came), "{case}");
                assert_eq!(ids.link(), (!keeps).then_some(came), "{case}");
                assert_eq!(ids.trace.id == came.id, keeps, "{case}");
                let is_recorded = if keeps { came.is_sampled() } else { sample > 0 };
                assert_eq!(ids.is_recorded, is_recorded, "{case}");
                assert_eq!(ids.trace.is_sampled(), is_recorded, "{case}");
                // What is not recorded is no piece that anybody could look up.
                assert_eq!(ids.trace.span == came.span, keeps && !is_recorded, "{case}");
            }
        }
    }
    for (sample, flags) in [(0, 0), (10_000, 1)] {
        let begun = traced(None, (sample, TrustParent::Always), true);
        assert_eq!((begun.trace.flags, begun.parent(), begun.link()), (flags, None, None));
        assert_eq!(begun.request.as_bytes(), begun.trace.id_digits());
    }
}
