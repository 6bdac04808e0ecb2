//! A large body in pieces: how it is cut, and how a piece proves that it is the one that was cut.
//!
//! Pieces are named by a random object id, not by their URL, so a newer response never tears the
//! body that somebody reads. A store may lose a piece, or hand over another one: each carries a
//! checksum over the object, its number and its bytes.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use super::entry::Chunked;

/// Bytes of a piece: small enough that reading one holds up nobody else who asks the same Redis.
const CHUNK_BYTES: u32 = 256 * 1024;
/// Longest body that stands in its entry, in bytes.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;

const SUM_BYTES: usize = 16;

/// How a body is cut.
#[must_use]
pub fn chunked(object: [u8; 16], body: &Bytes) -> Chunked {
    Chunked { object, len: body.len() as u64, chunk_bytes: CHUNK_BYTES }
}

/// The sealed pieces of a body.
pub fn cut(chunked: &Chunked, body: &Bytes) -> impl Iterator<Item = Bytes> {
    let pieces = body.chunks(chunked.chunk_bytes.max(1) as usize).enumerate();
    pieces.map(|(index, piece)| seal(&chunked.object, index as u64, piece))
}

fn seal(object: &[u8; 16], index: u64, piece: &[u8]) -> Bytes {
    let mut sealed = Vec::with_capacity(SUM_BYTES + piece.len());
    sealed.extend_from_slice(&sum(object, index, piece));
    sealed.extend_from_slice(piece);
    sealed.into()
}

/// The bytes of one piece; none unless it is exactly the one that was cut.
#[must_use]
pub fn unseal(chunked: &Chunked, index: u64, sealed: &Bytes) -> Option<Bytes> {
    let piece = (sealed.len() >= SUM_BYTES).then(|| sealed.slice(SUM_BYTES..))?;
    let size = u64::from(chunked.chunk_bytes);
    let expected = chunked.len.checked_sub(index.checked_mul(size)?)?.min(size);
    let is_whole = piece.len() as u64 == expected;
    (is_whole && sum(&chunked.object, index, &piece) == sealed[..SUM_BYTES]).then_some(piece)
}

fn sum(object: &[u8; 16], index: u64, piece: &[u8]) -> [u8; SUM_BYTES] {
    let name = xxh3_128(&[&object[..], &index.to_le_bytes()].concat());
    (xxh3_128(piece) ^ name).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_its_pieces_in_order() {
        let length = CHUNK_BYTES * 2 + 5;
        let body: Bytes = (0..length).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
        let chunked = chunked([7; 16], &body);
        let pieces: Vec<_> = cut(&chunked, &body).collect();
        assert_eq!((pieces.len() as u64, chunked.count()), (3, 3));
        let whole: Vec<u8> = pieces
            .iter()
            .enumerate()
            .flat_map(|(index, piece)| unseal(&chunked, index as u64, piece).unwrap())
            .collect();
        assert_eq!(whole, body);
    }

    #[test]
    fn a_piece_that_is_not_the_one_is_none() {
        let body = Bytes::from(vec![1; CHUNK_BYTES as usize + 10]);
        let chunked = chunked([7; 16], &body);
        let pieces: Vec<_> = cut(&chunked, &body).collect();
        let other = Chunked { object: [8; 16], ..chunked };
        assert!(unseal(&chunked, 1, &pieces[1]).is_some());
        assert!(unseal(&chunked, 0, &pieces[1]).is_none(), "another piece");
        assert!(unseal(&other, 1, &pieces[1]).is_none(), "of another body");
        assert!(unseal(&chunked, 1, &pieces[1].slice(..20)).is_none(), "short");
        assert!(unseal(&chunked, 1, &Bytes::new()).is_none());
        assert!(unseal(&chunked, u64::MAX, &pieces[1]).is_none());
        let mut damaged = pieces[1].to_vec();
        damaged[20] ^= 1;
        assert!(unseal(&chunked, 1, &damaged.into()).is_none());
    }
}
