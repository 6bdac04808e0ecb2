//! A stored answer as bytes, and back.
//!
//! What does not come back whole (`base::packed`) is no entry, which to the caller is a miss.
//!
//! Layout behind the magic `PCE\x03`, integers little-endian: born_ms and answered_ms `u64`,
//! lifetime_s, swr_s and sie_s `u32`, flags `u8`, status `u16`, key, hard and soft epochs, then
//! lists: tags, groups, vary (name, 0 or 1 and a value), headers (name, value). Then 0 and the body
//! up to the end, or 1 and object (16 bytes), length `u64` and length of a chunk `u32` of a body in
//! chunks, or 2, the body's length `u32` and the compressed body up to the end.

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderName;

use super::chunk::INLINE_BYTES_MAX;
use super::compress::expand;
use super::entry::{Chunked, Epochs, Stored, StoredBody};
use super::freshness::Flags;
use crate::base::packed::{Magic, Packer, Unpacker};

const MAGIC: Magic = *b"PCE\x03";

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
        let mut out = Packer::begin(MAGIC, self.weight());
        out.put(&self.born_ms.to_le_bytes());
        out.put(&self.answered_ms.to_le_bytes());
        for seconds in [self.lifetime_s, self.swr_s, self.sie_s] {
            out.put(&seconds.to_le_bytes());
        }
        out.put(&[bits(self.flags)]);
        out.put(&self.status.as_u16().to_le_bytes());
        out.part(self.key.as_bytes());
        out.part(&self.epochs.hard);
        out.part(&self.epochs.soft);
        for names in [&self.tags, &self.groups] {
            out.count(names.len());
            names.iter().for_each(|name| out.part(name.as_bytes()));
        }
        out.count(self.vary.len());
        for (name, value) in &self.vary {
            out.part(name.as_str().as_bytes());
            match value {
                Some(value) => {
                    out.put(&[1]);
                    out.part(value);
                }
                None => out.put(&[0]),
            }
        }
        out.headers(&self.headers);
        match (&self.body, compressed) {
            (StoredBody::Inline(bytes), None) => {
                out.put(&[INLINE]);
                out.put(bytes);
            }
            (StoredBody::Inline(bytes), Some(compressed)) => {
                out.put(&[COMPRESSED]);
                out.count(bytes.len());
                out.put(compressed);
            }
            (StoredBody::Chunked(chunked), _) => {
                out.put(&[CHUNKED]);
                out.put(&chunked.object);
                out.put(&chunked.len.to_le_bytes());
                out.put(&chunked.chunk_bytes.to_le_bytes());
            }
        }
        out.seal()
    }

    /// Reads an entry back; none if anything about the bytes is not as this version wrote it.
    ///
    /// Field values are views into `input`, and so is a body that is not compressed: nothing is
    /// copied that can be shared.
    #[must_use]
    pub fn decode(input: &Bytes) -> Option<Self> {
        let mut reader = Unpacker::open(MAGIC, input)?;
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
            tags: reader.list(Unpacker::text)?,
            groups: reader.list(Unpacker::text)?,
            vary: reader.list(selecting)?,
            headers: reader.headers()?,
            body: body(reader)?,
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

fn selecting(reader: &mut Unpacker) -> Option<(HeaderName, Option<Bytes>)> {
    let name = HeaderName::from_bytes(&reader.part()?).ok()?;
    let value = match reader.array()? {
        [0] => None,
        [1] => Some(reader.part()?),
        _ => return None,
    };
    Some((name, value))
}

fn body(mut reader: Unpacker) -> Option<StoredBody> {
    match reader.array()? {
        [INLINE] => Some(StoredBody::Inline(reader.rest())),
        [COMPRESSED] => {
            let length = reader.count().filter(|length| *length <= INLINE_BYTES_MAX)?;
            expand(&reader.rest(), length).map(StoredBody::Inline)
        }
        [CHUNKED] => {
            let chunked = Chunked {
                object: reader.array()?,
                len: u64::from_le_bytes(reader.array()?),
                chunk_bytes: u32::from_le_bytes(reader.array()?),
            };
            let is_whole = reader.rest().is_empty() && chunked.chunk_bytes != 0;
            is_whole.then_some(StoredBody::Chunked(chunked))
        }
        _ => None,
    }
}
