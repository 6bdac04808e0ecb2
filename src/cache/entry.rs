//! A stored answer: what it holds, how it becomes bytes and how it becomes a response again.
//!
//! It must not know where the bytes are kept. Bytes that come back are not trusted: they pass a
//! length, a version and a checksum before anything is built of them, and whatever does not
//! pass is no entry, which to the caller is a miss.
//!
//! Layout, integers little-endian: magic and version `PCE\x01`, total length `u64`, checksum
//! (16 bytes of SHA-256 over everything else), born_ms `u64`, lifetime_s `u32`, status `u16`, key,
//! epochs, vary `u32` times (name, 0 or 1 and a value), headers `u32` times (name, value), and the
//! body up to the end. Every part without a fixed size is a `u32` length and its bytes.

use super::policy::Freshness;
use aws_lc_rs::digest;
use bytes::Bytes;
use http::header::{
    AGE, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_LOCATION, DATE, ETAG, EXPIRES, HeaderName,
    HeaderValue, VARY,
};
use http::{HeaderMap, Response, StatusCode};
use std::time::{Duration, UNIX_EPOCH};

const MAGIC: [u8; 4] = *b"PCE\x01";
const CHECKSUM_AT: usize = 12;
const CHECKSUM_LEN: usize = 16;
const PAYLOAD_AT: usize = CHECKSUM_AT + CHECKSUM_LEN;

/// The fields of a 304, RFC 9110 §15.4.5. Age joins them.
const NOT_MODIFIED: [HeaderName; 6] = [CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, VARY];

/// One complete answer to a GET, with what is needed to judge it later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub status: StatusCode,
    /// As [`stored_headers`](super::stored_headers) left them.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The instant at which its age was zero, in Unix milliseconds.
    pub born_ms: u64,
    /// Seconds of freshness, counted from `born_ms`.
    pub lifetime_s: u32,
    /// The request fields it depends on, with the values they had.
    pub vary: Vec<(HeaderName, Option<Bytes>)>,
    /// The full key. Stores look entries up by a digest of it, so a reader compares it.
    pub key: String,
    /// The epochs in force when the request was sent, opaque here. A reader compares them.
    pub epochs: Bytes,
}

/// Which parts of a stored answer a response carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Head and body.
    Full,
    /// The head of a full response, for HEAD.
    Head,
    /// A 304.
    NotModified,
}

impl Stored {
    /// Puts an entry together. `headers` come from [`stored_headers`](super::stored_headers).
    ///
    /// A response without Date gets the time of its arrival, once, so that every later reader
    /// counts from the same moment (RFC 9110 §6.6.1).
    #[must_use]
    pub fn new(
        key: String,
        epochs: Bytes,
        status: StatusCode,
        mut headers: HeaderMap,
        freshness: Freshness,
        body: Bytes,
    ) -> Self {
        if !headers.contains_key(DATE)
            && let Some(date) = http_date(freshness.answered_ms)
        {
            headers.insert(DATE, date);
        }
        let Freshness { born_ms, lifetime_s, vary, .. } = freshness;
        Self { status, headers, body, born_ms, lifetime_s, vary, key, epochs }
    }

    /// The entity tag as the origin wrote it.
    #[must_use]
    pub fn etag(&self) -> Option<&[u8]> {
        self.headers.get(ETAG).map(HeaderValue::as_bytes)
    }

    /// The age now, RFC 9111 §4.2.3; zero where the clock stepped back behind the birth.
    #[must_use]
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.born_ms)
    }

    /// How much longer it is fresh, RFC 9111 §4.2; zero once it is not. A store's TTL.
    #[must_use]
    pub fn remaining_ms(&self, now_ms: u64) -> u64 {
        (u64::from(self.lifetime_s) * 1000).saturating_sub(self.age_ms(now_ms))
    }

    /// Roughly the memory it takes, for a cache that is bounded by weight.
    #[must_use]
    pub fn weight(&self) -> usize {
        let fields =
            self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64);
        let vary = self.vary.iter().map(|(_, value)| 96 + value.as_ref().map_or(0, Bytes::len));
        let variable = self.body.len() + self.key.len() + self.epochs.len();
        size_of::<Self>() + variable + fields.sum::<usize>() + vary.sum::<usize>()
    }

    /// Makes a response of it, with the Age that the verdict carries (RFC 9111 §4, §5.1).
    #[must_use]
    pub fn respond(&self, age: u64, shape: Shape) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        if shape == Shape::NotModified {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            let kept = self.headers.iter().filter(|(name, _)| NOT_MODIFIED.contains(name));
            response.headers_mut().extend(kept.map(|(name, value)| (name.clone(), value.clone())));
        } else {
            *response.status_mut() = self.status;
            *response.headers_mut() = self.headers.clone();
            // A 204 must not announce a length, RFC 9110 §8.6.
            if self.status != StatusCode::NO_CONTENT {
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
            }
        }
        if shape == Shape::Full {
            *response.body_mut() = self.body.clone();
        }
        response.headers_mut().insert(AGE, HeaderValue::from(age));
        response
    }

    /// The entry as bytes. A part of 4 GiB or more cannot be described: such an entry reads back
    /// as none.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.weight());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[0; PAYLOAD_AT - MAGIC.len()]);
        out.extend_from_slice(&self.born_ms.to_le_bytes());
        out.extend_from_slice(&self.lifetime_s.to_le_bytes());
        out.extend_from_slice(&self.status.as_u16().to_le_bytes());
        put(&mut out, self.key.as_bytes());
        put(&mut out, &self.epochs);
        put_count(&mut out, self.vary.len());
        for (name, value) in &self.vary {
            put(&mut out, name.as_str().as_bytes());
            match value {
                Some(value) => {
                    out.push(1);
                    put(&mut out, value);
                }
                None => out.push(0),
            }
        }
        put_count(&mut out, self.headers.len());
        for (name, value) in &self.headers {
            put(&mut out, name.as_str().as_bytes());
            put(&mut out, value.as_bytes());
        }
        out.extend_from_slice(&self.body);
        let total = out.len() as u64;
        out[MAGIC.len()..CHECKSUM_AT].copy_from_slice(&total.to_le_bytes());
        let sum = checksum(&out);
        out[CHECKSUM_AT..PAYLOAD_AT].copy_from_slice(&sum);
        out
    }

    /// Reads an entry back; none if anything about the bytes is not as this version wrote it.
    ///
    /// Body and field values are views into `input`: nothing is copied that can be shared.
    #[must_use]
    pub fn decode(input: &Bytes) -> Option<Self> {
        if input.len() < PAYLOAD_AT || !input.starts_with(&MAGIC) {
            return None;
        }
        let total = u64::from_le_bytes(input[MAGIC.len()..CHECKSUM_AT].try_into().ok()?);
        if total != input.len() as u64 || checksum(input) != input[CHECKSUM_AT..PAYLOAD_AT] {
            return None;
        }
        let mut reader = Reader(input.slice(PAYLOAD_AT..));
        let born_ms = u64::from_le_bytes(reader.array()?);
        let lifetime_s = u32::from_le_bytes(reader.array()?);
        let status = StatusCode::from_u16(u16::from_le_bytes(reader.array()?)).ok()?;
        let key = std::str::from_utf8(&reader.part()?).ok()?.to_owned();
        let epochs = reader.part()?;
        let mut vary = Vec::new();
        for _ in 0..reader.length()? {
            let name = HeaderName::from_bytes(&reader.part()?).ok()?;
            let value = match reader.array()? {
                [0] => None,
                [1] => Some(reader.part()?),
                _ => return None,
            };
            vary.push((name, value));
        }
        // No count of the input's is used to reserve memory before that many parts were seen.
        let mut headers = HeaderMap::new();
        for _ in 0..reader.length()? {
            let name = HeaderName::from_bytes(&reader.part()?).ok()?;
            let value = HeaderValue::from_maybe_shared(reader.part()?).ok()?;
            headers.try_append(name, value).ok()?;
        }
        Some(Self { status, headers, body: reader.0, born_ms, lifetime_s, vary, key, epochs })
    }
}

/// What is left to read. Every step is checked against it, and none copies.
struct Reader(Bytes);

impl Reader {
    fn take(&mut self, length: usize) -> Option<Bytes> {
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.as_ref().try_into().ok()
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.array()?)).ok()
    }

    fn part(&mut self) -> Option<Bytes> {
        let length = self.length()?;
        self.take(length)
    }
}

fn put(out: &mut Vec<u8>, part: &[u8]) {
    put_count(out, part.len());
    out.extend_from_slice(part);
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

/// A checksum of all bytes but its own place. It finds damage; it is no defence against a person
/// who may write to the store, who could compute it too.
fn checksum(entry: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&entry[..CHECKSUM_AT]);
    context.update(&entry[PAYLOAD_AT..]);
    let mut sum = [0; CHECKSUM_LEN];
    sum.copy_from_slice(&context.finish().as_ref()[..CHECKSUM_LEN]);
    sum
}

/// A moment as an HTTP date; none beyond the year 9999, which the format cannot write.
fn http_date(unix_ms: u64) -> Option<HeaderValue> {
    const YEAR_10000: u64 = 253_402_300_800;
    let seconds = Some(unix_ms / 1000).filter(|seconds| *seconds < YEAR_10000)?;
    let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    HeaderValue::from_maybe_shared(text).ok()
}
