//! Keys of NATS (nkeys): Ed25519 seeds as its tools write them, and what lies in their credential
//! files. The signature that a server wants is made here, with the library for all cryptography.

use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::units::Secret;

/// The letters of base 32 (RFC 4648 §6).
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// First bits of a seed, and of what belongs to a user. They make the letters `S` and `U`.
const SEED: u8 = 18 << 3;
const USER: u8 = 20 << 3;
/// Bytes of a seed of Ed25519.
const SEED_BYTES: usize = 32;
/// Longest JWT that is read, in bytes: servers take no longer line of a client by default.
const JWT_BYTES_MAX: usize = 64 << 10;

/// The key of a user of NATS.
#[derive(Clone, PartialEq, Eq)]
pub struct Nkey {
    seed: Secret,
    public: String,
}

/// The public key alone is shown.
impl fmt::Debug for Nkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Nkey").field(&self.public).finish()
    }
}

/// What lies in a credential file: who a user is, and the key with which he proves that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The JWT that his account has signed.
    pub jwt: Secret,
    /// His key.
    pub key: Nkey,
}

/// Why something is no key, or no credential file. It repeats nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotNkey {
    /// It does not begin with `SU`, has another length, or a letter is wrong.
    Form,
    /// It is the public key, which everybody may have.
    Public,
    /// It is a seed of an account, an operator or a server.
    NotOfUser,
    /// A part of a credential file is missing.
    Parts,
    /// The JWT is of another key.
    OtherKey,
}

impl Nkey {
    /// The seed of a user, as `nk -gen user` and `nsc` write it.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &[u8]) -> Result<Self, NotNkey> {
        let text = text.trim_ascii();
        if text.first() == Some(&b'U') {
            return Err(NotNkey::Public);
        }
        let bytes = decode(text).ok_or(NotNkey::Form)?;
        let (body, sum) = bytes.split_last_chunk::<2>().ok_or(NotNkey::Form)?;
        if crc16(body) != u16::from_le_bytes(*sum) {
            return Err(NotNkey::Form);
        }
        let ([first, second], seed) = body.split_first_chunk::<2>().ok_or(NotNkey::Form)?;
        if first & 0xF8 != SEED || seed.len() != SEED_BYTES {
            return Err(NotNkey::Form);
        }
        if (first << 5) | (second >> 3) != USER {
            return Err(NotNkey::NotOfUser);
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| NotNkey::Form)?;
        let mut public = vec![USER];
        public.extend_from_slice(pair.public_key().as_ref());
        public.extend_from_slice(&crc16(&public).to_le_bytes());
        Ok(Self { seed: Secret::new(seed), public: encode(&public) })
    }

    /// The public key, as servers have it.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// The signature of what a server has chosen; nothing where that cannot be made.
    pub fn sign(&self, nonce: &[u8]) -> Option<Vec<u8>> {
        let pair = Ed25519KeyPair::from_seed_unchecked(self.seed.expose()).ok()?;
        Some(pair.sign(nonce).as_ref().to_vec())
    }
}

impl Credentials {
    /// A credential file, as `nsc generate creds` writes it.
    ///
    /// # Errors
    /// It is none, or its parts do not belong together.
    pub fn parse(text: &[u8]) -> Result<Self, NotNkey> {
        let text = std::str::from_utf8(text).map_err(|_| NotNkey::Parts)?;
        let mut parts = parts(text);
        let (jwt, seed) = (parts.next(), parts.next());
        let (Some(jwt), Some(seed)) = (jwt, seed) else { return Err(NotNkey::Parts) };
        let key = Nkey::parse(seed.as_bytes())?;
        let subject = subject(jwt).ok_or(NotNkey::Parts)?;
        if subject != key.public {
            return Err(NotNkey::OtherKey);
        }
        Ok(Self { jwt: Secret::new(jwt), key })
    }
}

/// What stands between lines of dashes, one line each.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let is_dashes = |line: &str| line.starts_with("---") && line.ends_with("---");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let pairs = lines.clone().zip(lines.skip(1));
    let is_begin = move |line: &str| is_dashes(line) && line.contains("BEGIN");
    pairs.filter(move |(before, _)| is_begin(before)).map(|(_, line)| line)
}

/// Whose a JWT is, as it says itself: its signature is for the server to look at.
fn subject(jwt: &str) -> Option<String> {
    let payload = (jwt.len() <= JWT_BYTES_MAX).then(|| jwt.split('.').nth(1))??;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    claims.get("sub")?.as_str().map(str::to_owned)
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, byte| {
        (0..8).fold(sum ^ (u16::from(*byte) << 8), |sum: u16, _| {
            (sum << 1) ^ if sum & 0x8000 == 0 { 0 } else { 0x1021 }
        })
    })
}

/// Base 32 without padding; nothing of other letters, or with bits that are left over.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut held, mut bits) = (Vec::with_capacity(text.len()), 0u32, 0);
    for letter in text {
        let five = ALPHABET.iter().position(|it| it == letter)?;
        held = (held << 5) | u32::try_from(five).ok()?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits).ok()?);
            held &= (1 << bits) - 1;
        }
    }
    (held == 0 && bits < 5).then_some(bytes)
}

fn encode(bytes: &[u8]) -> String {
    let (mut text, mut held, mut bits) = (String::with_capacity(bytes.len() * 2), 0u32, 0);
    let letter = |five: u32| {
        let at = usize::try_from(five & 31).unwrap_or_default();
        ALPHABET.get(at).copied().map_or('A', char::from)
    };
    for byte in bytes {
        held = ((held << 8) | u32::from(*byte)) & 0xFFFF;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(letter(held >> bits));
        }
    }
    if bits > 0 {
        text.push(letter(held << (5 - bits)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pair that the documentation of NATS shows.
    const SEED_OF_DOCS: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    const PUBLIC_OF_DOCS: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

    /// A seed with these first bits, whose sum is right.
    fn seed_of(first: u8, kind: u8) -> String {
        let mut bytes = vec![first | (kind >> 5), kind << 3];
        bytes.extend([7; SEED_BYTES]);
        bytes.extend_from_slice(&crc16(&bytes).to_le_bytes());
        encode(&bytes)
    }

    fn file(jwt: &str, seed: &str) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }

    fn jwt_of(subject: &str) -> String {
        let payload = URL_SAFE_NO_PAD.encode(format!("{{\"sub\":\"{subject}\"}}"));
        format!("e30.{payload}.c2ln")
    }

    #[test]
    fn a_seed_has_the_public_key_that_the_tools_show_and_signs() {
        let key = Nkey::parse(format!("{SEED_OF_DOCS}\n").as_bytes()).expect("a seed");
        assert_eq!(key.public(), PUBLIC_OF_DOCS);
        let bytes = decode(PUBLIC_OF_DOCS.as_bytes()).expect("base 32");
        let public = aws_lc_rs::signature::UnparsedPublicKey::new(
            &aws_lc_rs::signature::ED25519,
            &bytes[1..33],
        );
        public.verify(b"nonce", &key.sign(b"nonce").expect("a signature")).expect("its own");
        assert!(public.verify(b"other", &key.sign(b"nonce").expect("a signature")).is_err());
        assert!(!format!("{key:?}").contains("SUACSSL3"), "{key:?}");
    }

    #[test]
    fn what_is_no_seed_of_a_user_says_why() {
        for (text, expected) in [
            (PUBLIC_OF_DOCS.to_owned(), NotNkey::Public),
            (String::new(), NotNkey::Form),
            ("S".to_owned(), NotNkey::Form),
            (SEED_OF_DOCS.to_lowercase(), NotNkey::Form),
            (SEED_OF_DOCS.replace("VY", "VA"), NotNkey::Form),
            (SEED_OF_DOCS.replace("SUACSS", "SUACST"), NotNkey::Form),
            (SEED_OF_DOCS[..40].to_owned(), NotNkey::Form),
            (seed_of(SEED, 0), NotNkey::NotOfUser),
            (seed_of(USER, USER), NotNkey::Public),
            (seed_of(15 << 3, USER), NotNkey::Form),
        ] {
            assert_eq!(Nkey::parse(text.as_bytes()), Err(expected), "{text}");
        }
        assert!(Nkey::parse(seed_of(SEED, USER).as_bytes()).is_ok());
    }

    #[test]
    fn a_credential_file_has_a_jwt_and_the_seed_of_the_same_key() {
        let jwt = jwt_of(PUBLIC_OF_DOCS);
        let read = Credentials::parse(file(&jwt, SEED_OF_DOCS).as_bytes()).expect("credentials");
        assert_eq!((read.jwt.expose(), read.key.public()), (jwt.as_bytes(), PUBLIC_OF_DOCS));
        let windows = file(&jwt, SEED_OF_DOCS).replace('\n', "\r\n");
        assert_eq!(Credentials::parse(windows.as_bytes()).as_ref(), Ok(&read));
        let long = format!("{}.{}", "e30", "a".repeat(JWT_BYTES_MAX));
        for (text, expected) in [
            (String::new(), NotNkey::Parts),
            (SEED_OF_DOCS.to_owned(), NotNkey::Parts),
            (file("no.jwt", SEED_OF_DOCS), NotNkey::Parts),
            (file(&long, SEED_OF_DOCS), NotNkey::Parts),
            (file(&jwt, "SUX"), NotNkey::Form),
            (file(&jwt, PUBLIC_OF_DOCS), NotNkey::Public),
            (file(&jwt_of("UOTHER"), SEED_OF_DOCS), NotNkey::OtherKey),
        ] {
            assert_eq!(Credentials::parse(text.as_bytes()), Err(expected), "{text}");
        }
        assert_eq!(Credentials::parse(&[0xFF]), Err(NotNkey::Parts));
    }
}
