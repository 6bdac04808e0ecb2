//! A stored answer as bytes, and back.
//!
//! Bytes that come back are not trusted: they pass a length, a version and a checksum before
//! anything is built of them, and whatever does not pass is no entry, which to the caller is a
//! miss.
//!
//! Layout, integers little-endian: magic and version `PCE\x03`, total length `u64`, checksum
//! (XXH3-128 of all that follows), born_ms and answered_ms `u64`, lifetime_s, swr_s and
//! sie_s `u32`, flags `u8`, status `u16`, key, hard and soft epochs, then lists, each a count `u32`
//! and its members: tags, groups, vary (name, 0 or 1 and a value), headers (name, value). Then 0
//! and the body up to the end, or 1 and object (16 bytes), length `u64` and length of a chunk `u32`
//! of a body in chunks, or 2, the body's length `u32` and the compressed body up to the end. Every
//! part without a fixed size is a `u32` length and its bytes.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use xxhash_rust::xxh3::xxh3_128;

use super::chunk::INLINE_BYTES_MAX;
use super::compress::expand;
use super::entry::{Chunked, Epochs, Stored, StoredBody};
use super::freshness::Flags;

const MAGIC: [u8; 4] = *b"PCE\x03";
const CHECKSUM_AT: usize = 12;
const CHECKSUM_LEN: usize = 16;
const PAYLOAD_AT: usize = CHECKSUM_AT + CHECKSUM_LEN;

const NO_CACHE: u8 = 1;
const NEVER_STALE: u8 = 2;
const IMMUTABLE: u8 = 4;

const INLINE: u8 = 0;
const CHUNKED: u8 = 1;
const COMPRESSED: u8 = 2;

impl Stored {
    /// The entry as bytes. A part of 4 GiB or more cannot be described: such an entry reads back
    /// as none.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with(None)
    }

    /// The same with the body as [`compress`](super::compress()) made it.
    #[must_use]
    pub fn encode_with(&self, compressed: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.weight());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[0; PAYLOAD_AT - MAGIC.len()]);
        out.extend_from_slice(&self.born_ms.to_le_bytes());
        out.extend_from_slice(&self.answered_ms.to_le_bytes());
        for seconds in [self.lifetime_s, self.swr_s, self.sie_s] {
            out.extend_from_slice(&seconds.to_le_bytes());
        }
        out.push(bits(self.flags));
        out.extend_from_slice(&self.status.as_u16().to_le_bytes());
        put(&mut out, self.key.as_bytes());
        put(&mut out, &self.epochs.hard);
        put(&mut out, &self.epochs.soft);
        for names in [&self.tags, &self.groups] {
            put_count(&mut out, names.len());
            names.iter().for_each(|name| put(&mut out, name.as_bytes()));
        }
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
        match (&self.body, compressed) {
            (StoredBody::Inline(bytes), None) => {
                out.push(INLINE);
                out.extend_from_slice(bytes);
            }
            (StoredBody::Inline(bytes), Some(compressed)) => {
                out.push(COMPRESSED);
                put_count(&mut out, bytes.len());
                out.extend_from_slice(compressed);
            }
            (StoredBody::Chunked(chunked), _) => {
                out.push(CHUNKED);
                out.extend_from_slice(&chunked.object);
                out.extend_from_slice(&chunked.len.to_le_bytes());
                out.extend_from_slice(&chunked.chunk_bytes.to_le_bytes());
            }
        }
        let total = out.len() as u64;
        out[MAGIC.len()..CHECKSUM_AT].copy_from_slice(&total.to_le_bytes());
        let sum = xxh3_128(&out[PAYLOAD_AT..]).to_le_bytes();
        out[CHECKSUM_AT..PAYLOAD_AT].copy_from_slice(&sum);
        out
    }

    /// Reads an entry back; none if anything about the bytes is not as this version wrote it. The
    /// checksum finds damage; it is no defence against a person who may write to the store.
    ///
    /// Field values are views into `input`, and so is a body that is not compressed: nothing is
    /// copied that can be shared.
    #[must_use]
    pub fn decode(input: &Bytes) -> Option<Self> {
        if input.len() < PAYLOAD_AT || !input.starts_with(&MAGIC) {
            return None;
        }
        let total = u64::from_le_bytes(input[MAGIC.len()..CHECKSUM_AT].try_into().ok()?);
        let sum = xxh3_128(&input[PAYLOAD_AT..]).to_le_bytes();
        if total != input.len() as u64 || sum != input[CHECKSUM_AT..PAYLOAD_AT] {
            return None;
        }
        let mut reader = Reader(input.slice(PAYLOAD_AT..));
        let mut stored = Self {
            born_ms: u64::from_le_bytes(reader.array()?),
            answered_ms: u64::from_le_bytes(reader.array()?),
            lifetime_s: u32::from_le_bytes(reader.array()?),
            swr_s: u32::from_le_bytes(reader.array()?),
            sie_s: u32::from_le_bytes(reader.array()?),
            flags: flags(reader.array()?)?,
            status: StatusCode::from_u16(u16::from_le_bytes(reader.array()?)).ok()?,
            key: reader.text()?,
            epochs: Epochs { hard: reader.part()?, soft: reader.part()? },
            tags: reader.list(Reader::text)?,
            groups: reader.list(Reader::text)?,
            vary: reader.list(Reader::selecting)?,
            headers: reader.headers()?,
            body: reader.body()?,
        };
        // What is beside a body that was expanded must not hold on to the compressed one.
        if stored.body.inline().is_some_and(|body| !is_within(body, input)) {
            stored.compact();
        }
        Some(stored)
    }
}

/// Whether one is a view into the other.
fn is_within(part: &Bytes, whole: &Bytes) -> bool {
    whole.as_ptr_range().contains(&part.as_ptr())
}

fn bits(flags: Flags) -> u8 {
    [(flags.no_cache, NO_CACHE), (flags.never_stale, NEVER_STALE), (flags.immutable, IMMUTABLE)]
        .iter()
        .fold(0, |bits, (is_set, bit)| if *is_set { bits | bit } else { bits })
}

fn flags([bits]: [u8; 1]) -> Option<Flags> {
    let has = |bit: u8| bits & bit != 0;
    let flags =
        Flags { no_cache: has(NO_CACHE), never_stale: has(NEVER_STALE), immutable: has(IMMUTABLE) };
    (bits & !(NO_CACHE | NEVER_STALE | IMMUTABLE) == 0).then_some(flags)
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

    fn text(&mut self) -> Option<String> {
        Some(std::str::from_utf8(&self.part()?).ok()?.to_owned())
    }

    /// No count of the input's is used to reserve memory before that many parts were seen.
    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut list = Vec::new();
        for _ in 0..self.length()? {
            list.push(read(self)?);
        }
        Some(list)
    }

    fn selecting(&mut self) -> Option<(HeaderName, Option<Bytes>)> {
        let name = HeaderName::from_bytes(&self.part()?).ok()?;
        let value = match self.array()? {
            [0] => None,
            [1] => Some(self.part()?),
            _ => return None,
        };
        Some((name, value))
    }

    fn headers(&mut self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        for _ in 0..self.length()? {
            let name = HeaderName::from_bytes(&self.part()?).ok()?;
            let value = HeaderValue::from_maybe_shared(self.part()?).ok()?;
            headers.try_append(name, value).ok()?;
        }
        Some(headers)
    }

    fn body(mut self) -> Option<StoredBody> {
        match self.array()? {
            [INLINE] => Some(StoredBody::Inline(self.0)),
            [COMPRESSED] => {
                let length = self.length().filter(|length| *length <= INLINE_BYTES_MAX)?;
                expand(&self.0, length).map(StoredBody::Inline)
            }
            [CHUNKED] => {
                let chunked = Chunked {
                    object: self.array()?,
                    len: u64::from_le_bytes(self.array()?),
                    chunk_bytes: u32::from_le_bytes(self.array()?),
                };
                let is_whole = self.0.is_empty() && chunked.chunk_bytes != 0;
                is_whole.then_some(StoredBody::Chunked(chunked))
            }
            _ => None,
        }
    }
}

fn put(out: &mut Vec<u8>, part: &[u8]) {
    put_count(out, part.len());
    out.extend_from_slice(part);
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}
