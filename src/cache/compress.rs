//! Bodies as a store has them: compressed where that is worth it (zstd, RFC 8878).
//!
//! It is between a node and its store alone. No field of a response tells of it, and whoever reads
//! the body gets the bytes that the upstream sent. What is compressed here has passed a checksum
//! before it is expanded, and is expanded to the length that was written beside it or not at all.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

/// Shorter bodies are not worth it, in bytes.
const BYTES_MIN: usize = 1024;
/// What does not become shorter by this part is not worth the time of its readers.
const SAVED_PART_MIN: usize = 8;
/// zstd's first level: the third makes text a twentieth shorter, and takes a third longer.
const LEVEL: i32 = 1;

/// Types that hold text, apart from `text/*`, `*+json` and `*+xml`.
const TEXTS: [&str; 5] = [
    "application/javascript",
    "application/json",
    "application/x-javascript",
    "application/x-ndjson",
    "application/xml",
];

/// Whether a response's body is likely to become shorter: it is text by its type, and in no coding.
#[must_use]
pub fn is_compressible(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else {
        return false;
    };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_text = kind.starts_with("text/")
        || ["+json", "+xml"].iter().any(|end| kind.ends_with(end))
        || TEXTS.contains(&kind.as_str());
    is_text && !headers.contains_key(CONTENT_ENCODING)
}

/// These bytes, compressed; none where they stay as they are, since that is not worth it.
#[must_use]
pub fn compress(bytes: &[u8]) -> Option<Vec<u8>> {
    let compressed =
        (bytes.len() >= BYTES_MIN).then(|| zstd::bulk::compress(bytes, LEVEL))?.ok()?;
    let longest = bytes.len() - bytes.len() / SAVED_PART_MIN;
    (compressed.len() <= longest).then_some(compressed)
}

/// What was compressed; none unless it has exactly `length` bytes, which the caller bounds. No
/// more than that are ever written, whatever the input claims.
#[must_use]
pub fn expand(compressed: &[u8], length: usize) -> Option<Bytes> {
    let bytes = zstd::bulk::decompress(compressed, length).ok()?;
    (bytes.len() == length).then(|| bytes.into())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_in_no_coding_is_compressed() {
        let headers = |lines: &[(&'static str, &'static str)]| -> HeaderMap {
            lines
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect()
        };
        for (kind, expected) in [
            ("text/html; charset=utf-8", true),
            ("Text/CSS", true),
            ("application/json", true),
            ("application/json ; charset=utf-8", true),
            ("application/problem+json", true),
            ("image/svg+xml", true),
            ("application/javascript", true),
            ("image/png", false),
            ("application/zip", false),
            ("application/octet-stream", false),
            ("multipart/form-data; text/html", false),
            ("", false),
        ] {
            let of_kind = headers(&[("content-type", kind)]);
            assert_eq!(is_compressible(&of_kind), expected, "{kind}");
            for coding in ["gzip", "br", "identity"] {
                let coded = headers(&[("content-type", kind), ("content-encoding", coding)]);
                assert!(!is_compressible(&coded), "{kind} in {coding}");
            }
        }
        assert!(!is_compressible(&HeaderMap::new()));
    }

    #[test]
    fn what_is_short_or_does_not_shrink_stays_as_it_is() {
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(64 * 1024).collect();
        assert_eq!(compress(&noise), None);
        assert_eq!(compress(&[b'a'; BYTES_MIN - 1]), None);
        assert!(compress(&[b'a'; BYTES_MIN]).is_some());
        // Hardly shorter: nine tenths of it are noise.
        let mut mixed = noise;
        mixed[..6 * 1024].fill(b'a');
        assert_eq!(compress(&mixed), None);
        mixed[..16 * 1024].fill(b'a');
        assert!(compress(&mixed).is_some());
    }

    #[test]
    fn nothing_is_expanded_beyond_its_length() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], LEVEL).unwrap();
        assert!(bomb.len() < 8 * 1024, "{}", bomb.len());
        for length in [0, 1, 1024, 256 * 1024] {
            assert_eq!(expand(&bomb, length), None);
        }
        let text = b"many words, ".repeat(1000);
        let compressed = compress(&text).unwrap();
        assert_eq!(expand(&compressed, text.len()).as_deref(), Some(&text[..]));
        for length in [0, text.len() - 1, text.len() + 1, 2 * text.len()] {
            assert_eq!(expand(&compressed, length), None, "{length}");
        }
        // Two frames in one are not what was written, and not more than was promised.
        assert_eq!(expand(&compressed.repeat(2), text.len()), None);
    }

    proptest! {
        #[test]
        fn what_was_compressed_is_the_same_again(bytes in vec(0_u8..200, 900..4000), mask: u8) {
            // From noise to one byte over and over.
            let bytes: Vec<u8> = bytes.iter().map(|byte| byte & mask).collect();
            if let Some(compressed) = compress(&bytes) {
                prop_assert!(bytes.len() >= BYTES_MIN && compressed.len() < bytes.len());
                prop_assert_eq!(expand(&compressed, bytes.len()).unwrap(), bytes);
            }
        }

        #[test]
        fn damage_is_an_error_or_has_the_right_length(
            text in vec(b'a'..=b'h', BYTES_MIN..2000),
            at in any::<prop::sample::Index>(),
            change in 1_u8..,
            noise in vec(any::<u8>(), 0..64),
        ) {
            let mut bent = compress(&text).unwrap();
            let at = at.index(bent.len());
            bent[at] ^= change;
            prop_assert!(expand(&bent, text.len()).is_none_or(|read| read.len() == text.len()));
            prop_assert_eq!(expand(&bent[..at], text.len()), None, "cut off");
            prop_assert!(expand(&noise, 100).is_none_or(|read| read.len() == 100));
        }
    }
}
