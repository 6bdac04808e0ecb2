//! Values as bytes that a store keeps, and back: what a response consists of, beside what its owner
//! adds.
//!
//! Bytes that come back are not trusted: they pass a length, a version and a checksum before
//! anything is built of them. The checksum finds damage; it is no defence against a person who may
//! write to the store.
//!
//! Layout, integers little-endian: four bytes of magic and version, total length `u64`, checksum
//! (XXH3-128 of all that follows), and what the owner puts. Every part without a fixed size is a
//! `u32` length and its bytes, a list is a `u32` count and its members.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use xxhash_rust::xxh3::xxh3_128;

const MAGIC_LEN: usize = 4;
const CHECKSUM_AT: usize = 12;
const CHECKSUM_LEN: usize = 16;
const PAYLOAD_AT: usize = CHECKSUM_AT + CHECKSUM_LEN;

/// What begins the bytes of one kind of value: its name and version.
pub type Magic = [u8; MAGIC_LEN];

/// Writes a value.
#[derive(Debug)]
pub struct Packer(Vec<u8>);

impl Packer {
    /// Begins a value of this kind, of about so many bytes.
    pub fn begin(magic: Magic, bytes: usize) -> Self {
        let mut out = Vec::with_capacity(bytes);
        out.extend_from_slice(&magic);
        out.extend_from_slice(&[0; PAYLOAD_AT - MAGIC_LEN]);
        Self(out)
    }

    /// Bytes of a fixed number, or the last ones.
    pub fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Bytes of any number. One of 4 GiB or more cannot be described: such a value does not come
    /// back.
    pub fn part(&mut self, part: &[u8]) {
        self.count(part.len());
        self.put(part);
    }

    /// How many members or bytes follow.
    pub fn count(&mut self, count: usize) {
        self.put(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
    }

    /// Header fields.
    pub fn headers(&mut self, headers: &HeaderMap) {
        self.count(headers.len());
        for (name, value) in headers {
            self.part(name.as_str().as_bytes());
            self.part(value.as_bytes());
        }
    }

    /// The value as bytes.
    #[must_use]
    pub fn seal(self) -> Vec<u8> {
        let Self(mut out) = self;
        let total = out.len() as u64;
        out[MAGIC_LEN..CHECKSUM_AT].copy_from_slice(&total.to_le_bytes());
        let sum = xxh3_128(&out[PAYLOAD_AT..]).to_le_bytes();
        out[CHECKSUM_AT..PAYLOAD_AT].copy_from_slice(&sum);
        out
    }
}

/// Reads a value. Every step is checked against what is left, and none copies: parts are views into
/// the input.
#[derive(Debug)]
pub struct Unpacker(Bytes);

impl Unpacker {
    /// What stands behind the checksum; nothing if anything about the bytes is not as a value of
    /// this kind was sealed.
    pub fn open(magic: Magic, input: &Bytes) -> Option<Self> {
        if input.len() < PAYLOAD_AT || !input.starts_with(&magic) {
            return None;
        }
        let total = u64::from_le_bytes(input[MAGIC_LEN..CHECKSUM_AT].try_into().ok()?);
        let sum = xxh3_128(&input[PAYLOAD_AT..]).to_le_bytes();
        let is_whole = total == input.len() as u64 && sum == input[CHECKSUM_AT..PAYLOAD_AT];
        is_whole.then(|| Self(input.slice(PAYLOAD_AT..)))
    }

    fn take(&mut self, length: usize) -> Option<Bytes> {
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }

    /// So many bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.as_ref().try_into().ok()
    }

    /// What [`Packer::count`] put.
    pub fn count(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.array()?)).ok()
    }

    /// What [`Packer::part`] put.
    pub fn part(&mut self) -> Option<Bytes> {
        let length = self.count()?;
        self.take(length)
    }

    /// The same as text.
    pub fn text(&mut self) -> Option<String> {
        Some(std::str::from_utf8(&self.part()?).ok()?.to_owned())
    }

    /// A count and its members. No count of the input's is used to reserve memory before that many
    /// members were seen.
    pub fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut list = Vec::new();
        for _ in 0..self.count()? {
            list.push(read(self)?);
        }
        Some(list)
    }

    /// What [`Packer::headers`] put.
    pub fn headers(&mut self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        for _ in 0..self.count()? {
            let name = HeaderName::from_bytes(&self.part()?).ok()?;
            let value = HeaderValue::from_maybe_shared(self.part()?).ok()?;
            headers.try_append(name, value).ok()?;
        }
        Some(headers)
    }

    /// All that is left.
    pub fn rest(self) -> Bytes {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: Magic = *b"TST\x01";

    #[test]
    fn what_was_sealed_comes_back_and_nothing_else_does() {
        let mut headers = HeaderMap::new();
        headers.append("a", HeaderValue::from_static("1"));
        headers.append("a", HeaderValue::from_static("2"));
        let mut packer = Packer::begin(MAGIC, 0);
        packer.put(&7u16.to_le_bytes());
        packer.part("é".as_bytes());
        packer.headers(&headers);
        packer.put(b"body");
        let sealed = Bytes::from(packer.seal());

        let mut read = Unpacker::open(MAGIC, &sealed).unwrap();
        assert_eq!(read.array(), Some(7u16.to_le_bytes()));
        assert_eq!(read.text().as_deref(), Some("é"));
        assert_eq!(read.headers(), Some(headers));
        assert_eq!(read.rest(), "body");

        assert!(Unpacker::open(*b"TST\x02", &sealed).is_none());
        for at in 0..sealed.len() {
            let mut damaged = sealed.to_vec();
            damaged[at] ^= 1;
            assert!(Unpacker::open(MAGIC, &damaged.into()).is_none(), "{at}");
            assert!(Unpacker::open(MAGIC, &sealed.slice(..at)).is_none(), "{at}");
        }
    }

    #[test]
    fn a_count_is_not_believed() {
        let mut packer = Packer::begin(MAGIC, 0);
        packer.count(usize::MAX);
        let sealed = Bytes::from(packer.seal());
        let open = || Unpacker::open(MAGIC, &sealed).unwrap();
        assert!(open().part().is_none() && open().headers().is_none());
        assert!(open().list(Unpacker::text).is_none());
    }
}
