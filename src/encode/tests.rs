//! Which coding is wanted, which responses get it, and what comes out piece by piece.

use std::future::poll_fn;
use std::io::{self, Read};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use http::{Method, Request, Response, Version};
use http_body::Frame;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::accept::wanted;
use super::*;
use crate::config::Compress;

type Item = Result<Frame<Bytes>, io::Error>;

fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::try_from(*value).unwrap())
    };
    pairs.iter().map(pair).collect()
}

#[test]
fn the_coding_of_the_highest_weight_is_wanted() {
    use Coding::{Brotli, Gzip, Zstd};
    for (said, expected) in [
        ("", None),
        ("gzip", Some(Gzip)),
        ("X-GZIP", Some(Gzip)),
        ("gzip, deflate, br, zstd", Some(Brotli)),
        ("gzip;q=1.0, br;q=0.9", Some(Gzip)),
        ("gzip; q=0.5 , zstd;q=0.51", Some(Zstd)),
        ("br;q=0, gzip;q=0.001", Some(Gzip)),
        ("*", Some(Brotli)),
        ("*;q=0.5, br;q=0, zstd;q=0.4", Some(Gzip)),
        ("*;q=0", None),
        ("identity, gzip;q=0.9", None),
        ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
        ("identity;q=0, gzip;q=0.1", Some(Gzip)),
        ("br;q=1.1, gzip;q=0.2", Some(Gzip)),
        ("br;q=, gzip;Q=0.2", Some(Gzip)),
        ("br;q=0.1234", None),
        ("deflate, compress", None),
        ("brotli", None),
    ] {
        assert_eq!(wanted(&fields(&[("accept-encoding", said)])), expected, "{said}");
    }
    let mut lines = fields(&[("accept-encoding", "gzip;q=0.5")]);
    lines.append(ACCEPT_ENCODING, HeaderValue::from_static("zstd"));
    assert_eq!(wanted(&lines), Some(Zstd), "lines are one list");
    assert_eq!(wanted(&HeaderMap::new()), None);
}

fn asked(method: Method, version: Version, more: &[(&'static str, &str)]) -> Asked {
    let mut request = Request::builder().method(method).version(version).body(()).unwrap();
    *request.headers_mut() = fields(more);
    request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    Asked::of(&request.into_parts().0)
}

fn policy(private: bool) -> Compress {
    let types = ["text/*", "*+json", "application/json", "application/*"].map(str::to_owned);
    Compress { private, types: types.to_vec(), min_bytes: 1024 }
}

fn judged(
    asked: Asked,
    status: u16,
    length: Option<u64>,
    more: &[(&'static str, &str)],
) -> Encodable {
    let mut response = Response::builder().status(status).body(()).unwrap();
    *response.headers_mut() = fields(&[("content-type", "text/html; charset=utf-8")]);
    response.headers_mut().extend(fields(more));
    encodable(&policy(false), (asked, false), &response.into_parts().0, length)
}

#[test]
fn what_may_not_change_its_form_does_not() {
    let plain = asked(Method::GET, Version::HTTP_11, &[]);
    let compressed = Encodable::As(Coding::Gzip);
    assert_eq!(judged(plain, 200, Some(1024), &[]), compressed);
    assert_eq!(judged(plain, 404, None, &[]), compressed);
    assert_eq!(judged(plain, 200, None, &[("content-encoding", "identity")]), compressed);
    for kind in ["application/problem+json", "Application/JSON", "text/plain"] {
        assert_eq!(judged(plain, 200, None, &[("content-type", kind)]), compressed, "{kind}");
    }
    assert_eq!(judged(plain, 200, Some(1023), &[]), Encodable::Never, "too short");
    for status in [101, 204, 205, 206] {
        assert_eq!(judged(plain, status, None, &[]), Encodable::Never, "{status}");
    }
    for field in [
        ("content-type", "image/png"),
        ("content-type", "text/event-stream;x=y"),
        ("content-type", "application/grpc"),
        ("content-type", "application/grpc-web+proto"),
        ("content-encoding", "br"),
        ("content-range", "bytes 0-1/2"),
        ("cache-control", "max-age=1, No-Transform"),
        ("content-digest", "sha-256=:x:"),
        ("repr-digest", "sha-256=:x:"),
        ("digest", "sha-256=x"),
        ("content-md5", "x"),
    ] {
        assert_eq!(judged(plain, 200, None, &[field]), Encodable::Never, "{field:?}");
    }
    // What another request would get compressed says so (`Vary`).
    for asked in [
        asked(Method::HEAD, Version::HTTP_2, &[]),
        asked(Method::GET, Version::HTTP_10, &[]),
        asked(Method::GET, Version::HTTP_2, &[("range", "bytes=0-1")]),
        asked(Method::GET, Version::HTTP_2, &[("cache-control", "no-transform")]),
    ] {
        assert_eq!(judged(asked, 200, None, &[]), Encodable::Elsewhere, "{asked:?}");
    }
    assert_eq!(judged(plain, 304, Some(0), &[]), Encodable::Elsewhere);
    assert_eq!(judged(plain, 304, None, &[("content-type", "image/png")]), Encodable::Never);
}

#[test]
fn where_a_request_says_who_calls_only_private_compresses() {
    let response = Response::builder().header("content-type", "text/html").body(()).unwrap();
    let head = response.into_parts().0;
    let plain = asked(Method::GET, Version::HTTP_11, &[]);
    assert!(!plain.has_credentials);
    for field in ["cookie", "authorization"] {
        let told = asked(Method::GET, Version::HTTP_11, &[(field, "x")]);
        assert!(told.has_credentials, "{field}");
    }
    let coded = Encodable::As(Coding::Gzip);
    assert_eq!(encodable(&policy(false), (plain, true), &head, None), Encodable::Elsewhere);
    assert_eq!(encodable(&policy(true), (plain, true), &head, None), coded);
}

#[test]
fn a_strong_tag_becomes_a_weak_one() {
    for (tag, expected) in [
        ("\"a\"", Some("W/\"a\"")),
        ("W/\"a\"", Some("W/\"a\"")),
        // What is no tag could not be told from that of the other bytes.
        ("a", None),
    ] {
        let said = &[("etag", tag), ("content-length", "9"), ("accept-ranges", "bytes")];
        let mut headers = fields(said);
        describe(Coding::Brotli, &mut headers);
        let left = headers.get(ETAG).map(|tag| tag.to_str().unwrap());
        assert_eq!(left, expected, "{tag}");
        assert_eq!(headers["content-encoding"], "br");
        assert!(!headers.contains_key("content-length") && !headers.contains_key("accept-ranges"));
    }
    for (held, expected) in [
        ("W/\"a\"", "W/\"a\""),
        ("\"b\", W/\"a\"", "W/\"a\""),
        ("\"a\"", "\"a\""),
        ("W/\"a\", \"a\"", "\"a\""),
        ("W/\"b\"", "\"a\""),
        ("*", "\"a\""),
    ] {
        let mut headers = fields(&[("etag", "\"a\"")]);
        let mut conditions = HeaderMap::new();
        conditions.insert(IF_NONE_MATCH, HeaderValue::from_static(held));
        weaken_as_held(&conditions, &mut headers);
        assert_eq!(headers[ETAG], expected, "{held}");
    }
}

#[test]
fn places_are_bounded_and_given_back() {
    let places = Arc::<Places>::default();
    assert!(places.take(0).is_none());
    let first = places.take(1);
    assert!(first.is_some() && places.take(1).is_none());
    drop(first);
    assert!(places.take(1).is_some());
}

/// What a client makes of it.
fn expanded(coding: Coding, sent: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    // What is cut short is read as far as it goes.
    let _ = match coding {
        Coding::Brotli => brotli::Decompressor::new(sent, 4096).read_to_end(&mut content),
        Coding::Zstd => zstd::stream::read::Decoder::new(sent).unwrap().read_to_end(&mut content),
        Coding::Gzip => flate2::read::GzDecoder::new(sent).read_to_end(&mut content),
    };
    content
}

struct Body {
    encoding: Encoding,
    source: UnboundedReceiver<Item>,
}

fn body(coding: Coding) -> (UnboundedSender<Item>, Body) {
    let (sender, source) = mpsc::unbounded_channel();
    (sender, Body { encoding: Encoding::new(coding, None).unwrap(), source })
}

impl Body {
    async fn next(&mut self) -> Option<Item> {
        let Self { encoding, source } = self;
        poll_fn(|cx| encoding.poll_frame(cx, |cx| source.poll_recv(cx))).await
    }

    async fn data(&mut self) -> Option<Bytes> {
        self.next().await.map(|item| item.unwrap().into_data().unwrap())
    }
}

fn data(bytes: impl Into<Bytes>) -> Item {
    Ok(Frame::data(bytes.into()))
}

#[tokio::test(start_paused = true)]
async fn every_coding_gives_back_what_it_took() {
    let content: Vec<u8> = (0..100_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    for coding in Coding::ALL {
        let (sender, mut body) = body(coding);
        for piece in content.chunks(23_456) {
            sender.send(data(piece.to_vec())).unwrap();
        }
        let trailers = fields(&[("x-end", "1")]);
        sender.send(Ok(Frame::trailers(trailers.clone()))).unwrap();
        drop(sender);
        let mut sent = Vec::new();
        let last = loop {
            match body.next().await.unwrap().unwrap().into_data() {
                Ok(piece) => sent.extend_from_slice(&piece),
                Err(frame) => break frame.into_trailers().unwrap(),
            }
        };
        assert_eq!(last, trailers, "{coding:?}: trailers come last");
        assert!(body.encoding.is_over() && body.next().await.is_none());
        assert!(sent.len() < content.len() / 2, "{coding:?}: {} bytes", sent.len());
        assert!(expanded(coding, &sent) == content, "{coding:?}");
        assert_eq!(body.encoding.take_counts(), (content.len() as u64, sent.len() as u64));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_there_goes_out_when_the_source_pauses() {
    for coding in Coding::ALL {
        let (sender, mut body) = body(coding);
        sender.send(data("the first part, ")).unwrap();
        let began = tokio::time::Instant::now();
        let mut sent = Vec::new();
        // Some begin with their own head.
        while expanded(coding, &sent) != b"the first part, " {
            sent.extend_from_slice(&body.data().await.unwrap());
        }
        let waited = began.elapsed();
        assert!((5..=7).contains(&waited.as_millis()), "{coding:?}: {waited:?}");
        // What comes on in time is not flushed: each flush costs bytes.
        for _ in 0..5 {
            sender.send(data("more, ")).unwrap();
            let early = tokio::time::timeout(Duration::from_millis(3), body.next()).await;
            assert!(early.is_err(), "{coding:?}");
        }
        // Nor is anything said while there is nothing to say.
        sent.extend_from_slice(&body.data().await.unwrap());
        assert_eq!(expanded(coding, &sent), b"the first part, more, more, more, more, more, ");
        let idle = tokio::time::timeout(Duration::from_secs(60), body.next()).await;
        assert!(idle.is_err(), "{coding:?}");
        drop(sender);
        while let Some(piece) = body.data().await {
            sent.extend_from_slice(&piece);
        }
        assert_eq!(expanded(coding, &sent).len(), 46);
    }
}

#[tokio::test(start_paused = true)]
async fn others_have_a_turn_after_each_piece() {
    let (sender, mut body) = body(Coding::Gzip);
    sender.send(data(vec![b'x'; 160 * 1024])).unwrap();
    drop(sender);
    let mut turns = 0;
    poll_fn(|cx| {
        let Body { encoding, source } = &mut body;
        let before = encoding.take_counts().0;
        loop {
            match encoding.poll_frame(cx, |cx| source.poll_recv(cx)) {
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Ready(Some(_)) => {}
                Poll::Pending => {
                    let worked = before + encoding.take_counts().0;
                    assert!(worked <= 16 * 1024, "{worked} bytes in one turn");
                    turns += 1;
                    return Poll::Pending;
                }
            }
        }
    })
    .await;
    assert_eq!(turns, 10);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_breaks_off_is_no_end() {
    let (sender, mut body) = body(Coding::Gzip);
    sender.send(data(vec![b'x'; 100])).unwrap();
    sender.send(Err(io::ErrorKind::ConnectionReset.into())).unwrap();
    let failed = loop {
        match body.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("a clean end"),
        }
    };
    assert_eq!(failed.kind(), io::ErrorKind::ConnectionReset);
}
