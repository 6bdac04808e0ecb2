//! Keys of NATS, and what operators and accounts say with theirs.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// First bits of the keys of operators, accounts and users.
const OPERATOR: u8 = 14 << 3;
const ACCOUNT: u8 = 0;
const USER: u8 = 20 << 3;
const SEED: u8 = 18 << 3;

/// A key, the same for the same number.
pub(crate) struct Key {
    pub(crate) seed: String,
    pub(crate) public: String,
    pair: Ed25519KeyPair,
}

impl Key {
    pub(crate) fn operator(number: u8) -> Self {
        Self::of(OPERATOR, number)
    }

    pub(crate) fn account(number: u8) -> Self {
        Self::of(ACCOUNT, number)
    }

    pub(crate) fn user(number: u8) -> Self {
        Self::of(USER, number)
    }

    fn of(kind: u8, number: u8) -> Self {
        let seed = [number; 32];
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed");
        let head = [SEED | (kind >> 5), kind << 3];
        let public = [&[kind][..], pair.public_key().as_ref()].concat();
        Self { seed: summed([&head[..], &seed].concat()), public: summed(public), pair }
    }

    /// What this key says of another one, or of itself.
    pub(crate) fn says(&self, of: &Self, nats: &Value) -> String {
        let claims = json!({
            "jti": "A", "iat": 1_700_000_000, "iss": self.public, "sub": of.public, "name": "it",
            "nats": nats,
        });
        let head = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
        let parts = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let text = parts.join(".");
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(text.as_bytes()).as_ref());
        format!("{text}.{signature}")
    }
}

/// A credential file.
pub(crate) fn creds(jwt: &str, seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         ************************* IMPORTANT *************************\n\
         NKEY Seed printed below can be used to sign and prove identity.\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

/// These bytes and their CRC-16, in base 32.
fn summed(mut bytes: Vec<u8>) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut sum = 0u16;
    for byte in &bytes {
        sum ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            sum = (sum << 1) ^ if sum & 0x8000 == 0 { 0 } else { 0x1021 };
        }
    }
    bytes.extend(sum.to_le_bytes());
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| usize::from(byte >> (7 - at % 8) & 1));
    let letter = |five: usize| (0..5).fold(0, |letter, at| letter * 2 + bit(five * 5 + at));
    (0..(bytes.len() * 8).div_ceil(5)).map(|five| char::from(LETTERS[letter(five)])).collect()
}
