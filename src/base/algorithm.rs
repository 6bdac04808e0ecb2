//! The names of signature algorithms (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864 §2.2).

use std::str::FromStr;

use jsonwebtoken::Algorithm;

/// The algorithm of this name, wherever it is written: in the configuration, in a key, in the head
/// of a token. The comparison is exact. `Ed25519` is what RFC 9864 calls the one kind of `EdDSA`
/// that is verified here, so the two are one; its `Ed448` is none, and `ESP256` and its like are
/// names of COSE, which no JSON has.
pub fn by_name(name: &str) -> Option<Algorithm> {
    match name {
        "Ed25519" => Some(Algorithm::EdDSA),
        name => Algorithm::from_str(name).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_of_ed25519_are_one_and_no_other_name_is_another() {
        assert_eq!(by_name("EdDSA"), Some(Algorithm::EdDSA));
        assert_eq!(by_name("Ed25519"), Some(Algorithm::EdDSA));
        assert_eq!(by_name("ES256"), Some(Algorithm::ES256));
        for name in ["ed25519", "ED25519", "Ed448", "ESP256", "ESP384", "ES256K", "none", "", " "] {
            assert_eq!(by_name(name), None, "{name}");
        }
    }
}
