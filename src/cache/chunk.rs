//! A large body in pieces: how it is cut, and how a piece proves that it is the one that was cut.
//!
//! Pieces are named by a random object id, not by their URL, so a newer response never tears the
//! body that somebody reads. A store may lose a piece, or hand over another one: each carries a
//! checksum over the object, its number and its bytes. One that lies shorter than it is cut is
//! compressed, each for itself, so that a range still reads only the pieces that it is in.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use super::compress::{compress, expand};
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

/// The sealed pieces of a body, compressed or as they are.
pub fn cut(chunked: &Chunked, body: &Bytes, compressed: bool) -> impl Iterator<Item = Bytes> {
    let pieces = body.chunks(chunked.chunk_bytes.max(1) as usize).enumerate();
    pieces.map(move |(index, piece)| {
        let shorter = if compressed { compress(piece) } else { None };
        seal(&chunked.object, index as u64, shorter.as_deref().unwrap_or(piece))
    })
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
    let length = piece.len() as u64;
    if length > expected || sum(&chunked.object, index, &piece) != sealed[..SUM_BYTES] {
        return None;
    }
    if length == expected {
        return Some(piece);
    }
    expand(&piece, u32::try_from(expected).ok().filter(|whole| *whole <= CHUNK_BYTES)? as usize)
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
        let pieces: Vec<_> = cut(&chunked, &body, false).collect();
        assert_eq!((pieces.len() as u64, chunked.count()), (3, 3));
        let whole: Vec<u8> = pieces
            .iter()
            .enumerate()
            .flat_map(|(index, piece)| unseal(&chunked, index as u64, piece).unwrap())
            .collect();
        assert_eq!(whole, body);
    }

    #[test]
    fn pieces_that_shrink_are_compressed_each_for_itself() {
        let size = CHUNK_BYTES as usize;
        let text = b"some words that come again, ".repeat(size / 12);
        let mut random = fastrand::Rng::with_seed(1);
        // Text, noise, and the end of the text, too short to be worth it.
        let mut body = text[..size * 2 + 1000].to_vec();
        body[size..size * 2].fill_with(|| random.u8(..));
        let body = Bytes::from(body);
        let chunked = chunked([7; 16], &body);
        let pieces: Vec<_> = cut(&chunked, &body, true).collect();
        let lengths: Vec<_> = pieces.iter().map(|piece| piece.len() - SUM_BYTES).collect();
        assert!(lengths[0] < size / 10, "{lengths:?}");
        assert_eq!(lengths[1..], [size, 1000]);
        for (index, part) in body.chunks(size).enumerate() {
            let read = unseal(&chunked, index as u64, &pieces[index]);
            assert_eq!(read.as_deref(), Some(part), "{index}");
        }
        // What is damaged, cut off, of another place or of another length is none.
        for at in [0, SUM_BYTES, SUM_BYTES + 9, pieces[0].len() - 1] {
            let mut damaged = pieces[0].to_vec();
            damaged[at] ^= 1;
            assert_eq!(unseal(&chunked, 0, &damaged.into()), None, "{at}");
            assert_eq!(unseal(&chunked, 0, &pieces[0].slice(..at)), None, "{at}");
        }
        assert_eq!(unseal(&chunked, 1, &pieces[0]), None);
        let resealed = |index: u64| seal(&chunked.object, index, &pieces[0][SUM_BYTES..]);
        assert!(unseal(&chunked, 0, &resealed(0)).is_some());
        assert_eq!(unseal(&chunked, 2, &resealed(2)), None, "expands to more than the last one");
        let longer = Chunked { chunk_bytes: CHUNK_BYTES * 2, ..chunked };
        assert_eq!(unseal(&longer, 0, &resealed(0)), None, "expands to less");
    }

    #[test]
    fn a_piece_that_is_not_the_one_is_none() {
        let body = Bytes::from(vec![1; CHUNK_BYTES as usize + 10]);
        let chunked = chunked([7; 16], &body);
        let pieces: Vec<_> = cut(&chunked, &body, false).collect();
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
