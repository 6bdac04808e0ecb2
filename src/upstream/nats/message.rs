//! A request as the fields and the bytes of a message.

use std::sync::Arc;

use async_nats::HeaderMap;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use http_body::Body as _;

use crate::base::addressed::Stored;
use crate::base::body::Upload;
use crate::base::trace::TRACEPARENT;

/// The field with the request's method.
const METHOD: &str = "X-Http-Method";
/// The field with its path and its query.
const TARGET: &str = "X-Http-Target";
/// By which a stream knows what it has stored already.
const MESSAGE_ID: &str = "Nats-Msg-Id";
/// The stream that is to store it, and no other one.
const EXPECTED_STREAM: &str = "Nats-Expected-Stream";

/// Why a body is no payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPayload {
    /// It is longer than a message may be.
    TooLong,
    /// Its client has not sent all of it.
    Withdrawn,
}

/// Reads a body of at most `bytes_max` bytes. What was read is put back, so that it can be read
/// again.
pub(super) async fn payload(upload: &mut Upload, bytes_max: usize) -> Result<Bytes, NoPayload> {
    if upload.size_hint().lower() > bytes_max as u64 {
        return Err(NoPayload::TooLong);
    }
    let mut read = BytesMut::new();
    loop {
        let mut upload = std::pin::Pin::new(&mut *upload);
        let frame = std::future::poll_fn(|cx| upload.as_mut().poll_frame(cx)).await;
        let Some(frame) = frame else { break };
        let data = frame.map_err(|_| NoPayload::Withdrawn)?.into_data();
        let Ok(data) = data else { continue };
        if read.len() + data.len() > bytes_max {
            return Err(NoPayload::TooLong);
        }
        read.extend_from_slice(&data);
    }
    let read = read.freeze();
    upload.put_back(read.clone());
    Ok(read)
}

/// The fields of a message. Their names have capitals, as services on NATS compare them to the
/// letter; `traceparent` has none anywhere (W3C Trace Context §3.2).
pub(super) fn fields(head: &Parts) -> HeaderMap {
    const OF_THE_HOP: [HeaderName; 4] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT];
    let mut fields = HeaderMap::new();
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) =
            (name.parse::<async_nats::HeaderName>(), value.parse::<async_nats::HeaderValue>())
        {
            fields.append(name, value);
        }
    };
    for (name, value) in head.headers.iter().filter(|(name, _)| !OF_THE_HOP.contains(name)) {
        if let Some(value) = text(value) {
            add(&capitals(name), value);
        }
    }
    add(METHOD, head.method.as_str());
    add(TARGET, head.uri.path_and_query().map_or("/", |target| target.as_str()));
    if let Some(stored) = head.extensions.get::<Arc<Stored>>() {
        for (name, value) in [(MESSAGE_ID, &stored.message_id), (EXPECTED_STREAM, &stored.stream)] {
            // They are the gateway's to say: none of another one stays beside them.
            if let Ok(value) = value.parse::<async_nats::HeaderValue>() {
                fields.insert(name, value);
            }
        }
    }
    fields
}

/// A value that can be read as text.
fn text(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

/// `x-request-id` as `X-Request-Id`.
fn capitals(name: &HeaderName) -> String {
    if *name == TRACEPARENT {
        return name.as_str().to_owned();
    }
    let mut is_begin = true;
    let letters = name.as_str().chars().map(|letter| {
        let shown = if is_begin { letter.to_ascii_uppercase() } else { letter };
        is_begin = letter == '-';
        shown
    });
    letters.collect()
}

#[cfg(test)]
mod tests {
    use crate::base::body::{Inbound, UploadLimits};

    use super::*;

    #[test]
    fn fields_are_written_as_services_read_them() {
        let mut request = http::Request::post("/orders/7?a=1")
            .header("host", "shop")
            .header("content-length", "2")
            .header("content-type", "application/json")
            .header("x-user-id", "ann")
            .header("traceparent", "00-1-2-01")
            .body(())
            .unwrap();
        let binary = HeaderValue::from_bytes(b"\xff").unwrap();
        request.headers_mut().insert("x-binary", binary);
        let fields = fields(&request.into_parts().0);
        let mut lines: Vec<String> = fields
            .iter()
            .flat_map(|(name, values)| values.iter().map(move |value| format!("{name}: {value}")))
            .collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "Content-Type: application/json",
                "X-Http-Method: POST",
                "X-Http-Target: /orders/7?a=1",
                "X-User-Id: ann",
                "traceparent: 00-1-2-01",
            ]
        );
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_bound_and_can_be_read_again() {
        let limits = UploadLimits {
            bytes_max: 100,
            progress_timeout: std::time::Duration::from_secs(60),
            progress_bytes: 1,
        };
        let upload = || Upload::new(Inbound::Bytes("four".into()), limits, false).0;
        assert_eq!(payload(&mut upload(), 3).await, Err(NoPayload::TooLong));
        let mut upload = upload();
        for _ in 0..2 {
            assert_eq!(payload(&mut upload, 4).await.unwrap(), "four");
        }
        assert_eq!(payload(&mut Upload::none(), 0).await.unwrap(), "");
    }
}
