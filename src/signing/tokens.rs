//! Access and refresh tokens. An access token is a JWT (RFC 9068) that says of which family it is:
//! all that descends from one log-in. A refresh token opens one family once, and its text is the
//! only place where its secret stands: the store has digests.
//!
//! A refresh token is its family, its number there, a secret, and a tag by a key of the family. The
//! tag shows, without a list of all that ever was, that a token was one of the family. So nobody
//! who only knows the family can end it by a token that he has made up.
//!
//! What a used token was exchanged for is kept sealed with that token's own secret. Only who shows
//! it once more can be given the same again; what the store has is of no use to anybody.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

use super::signer::Signer;
use crate::base::http::credentials::REFRESH_TOKEN as PREFIX;
use crate::base::http::hex;
use crate::config;

const FAMILY_BYTES: usize = 16;
const NUMBER_BYTES: usize = 4;
const SECRET_BYTES: usize = SHA256_OUTPUT_LEN;
const TAG_BYTES: usize = 16;
const TOKEN_BYTES: usize = FAMILY_BYTES + NUMBER_BYTES + SECRET_BYTES + TAG_BYTES;
/// Bytes of a `jti`.
const ID_BYTES: usize = 16;
/// Most bytes of the claims that an application adds, as JSON.
const CLAIMS_BYTES_MAX: usize = 4 * 1024;
/// What an access token says by itself.
pub const OWN_CLAIMS: [&str; 9] = ["iss", "sub", "aud", "iat", "exp", "nbf", "jti", "sid", "cnf"];

/// 32 random bytes, or what is derived from such.
pub type Secret = [u8; SECRET_BYTES];

/// A refresh token, read.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken {
    family: [u8; FAMILY_BYTES],
    number: u32,
    secret: Secret,
    tag: [u8; TAG_BYTES],
}

/// Nothing of it is shown.
impl std::fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RefreshToken(***)")
    }
}

impl RefreshToken {
    /// The first one of a new family, whose key this is. Nothing where the random source fails.
    pub fn first(key: &Secret) -> Option<Self> {
        let mut family = [0; FAMILY_BYTES];
        aws_lc_rs::rand::fill(&mut family).ok()?;
        // In base64 it begins with no hyphen, which commands would take for an option.
        family[0] &= 0x7f;
        Self::tagged(family, 1, random()?, key)
    }

    /// One that could follow this one. Nothing where the random source fails, or after more of them
    /// than there are numbers.
    pub fn next(&self, key: &Secret) -> Option<Self> {
        Self::tagged(self.family, self.number.checked_add(1)?, random()?, key)
    }

    /// What this one was exchanged for, of what is kept of that.
    pub fn successor(&self, sealed: &Secret, key: &Secret) -> Option<Self> {
        Self::tagged(self.family, self.number.checked_add(1)?, self.xor(sealed), key)
    }

    /// The secret of its successor, as only this one opens it. A secret is random and seals one
    /// other one, so that nothing is to be learnt of either.
    pub fn seal(&self, successor: &Self) -> Secret {
        self.xor(&successor.secret)
    }

    fn xor(&self, other: &Secret) -> Secret {
        let pad = digest(&SHA256, &[b"refresh successor ".as_slice(), &self.secret].concat());
        let mut out = *other;
        for (byte, mask) in out.iter_mut().zip(pad.as_ref()) {
            *byte ^= mask;
        }
        out
    }

    fn tagged(
        family: [u8; FAMILY_BYTES],
        number: u32,
        secret: Secret,
        key: &Secret,
    ) -> Option<Self> {
        let mut token = Self { family, number, secret, tag: [0; TAG_BYTES] };
        token.tag = token.tag_by(key)?;
        Some(token)
    }

    fn tag_by(&self, key: &Secret) -> Option<[u8; TAG_BYTES]> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let whole = hmac::sign(&key, &self.body());
        whole.as_ref().first_chunk().copied()
    }

    /// Whether it was ever one of its family, whose key this is.
    pub fn is_of(&self, key: &Secret) -> bool {
        self.tag_by(key).is_some_and(|tag| verify_slices_are_equal(&tag, &self.tag).is_ok())
    }

    fn body(&self) -> Vec<u8> {
        [&self.family[..], &self.number.to_be_bytes(), &self.secret].concat()
    }

    /// Its text. It opens something.
    pub fn text(&self) -> String {
        let bytes = [self.body(), self.tag.to_vec()].concat();
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads a text; nothing of what cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let bytes: [u8; TOKEN_BYTES] = bytes.try_into().ok()?;
        let (family, rest) = bytes.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (secret, rest) = rest.split_first_chunk()?;
        let tag = rest.first_chunk()?;
        Some(Self {
            family: *family,
            number: u32::from_be_bytes(*number),
            secret: *secret,
            tag: *tag,
        })
    }

    /// What the store knows it by.
    pub fn digest(&self) -> String {
        hex::encode(digest(&SHA256, self.text().as_bytes()).as_ref())
    }

    /// The name of its family, which is the `sid` of all its access tokens.
    pub fn family(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.family)
    }

    /// Its place in the order of its family.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The `jti` of the access token that comes with it.
    fn id(&self) -> String {
        let whole = digest(&SHA256, &[b"refresh jti ".as_slice(), &self.body()].concat());
        URL_SAFE_NO_PAD.encode(whole.as_ref().get(..ID_BYTES).unwrap_or_default())
    }
}

/// Random bytes. Nothing where the system's source fails.
pub fn random() -> Option<Secret> {
    let mut secret = [0; SECRET_BYTES];
    aws_lc_rs::rand::fill(&mut secret).ok()?;
    Some(secret)
}

/// What an access token says.
#[derive(Debug)]
pub struct Access<'a> {
    /// `sub`
    pub subject: &'a str,
    /// More claims, as [`claims_text`] has them.
    pub claims: &'a str,
    /// Unix seconds.
    pub issued_s: u64,
    /// Unix seconds: when its family ends.
    pub until_s: u64,
}

impl Access<'_> {
    /// The access token that comes with a refresh token, and when it ends, in Unix seconds. Made
    /// once more, it has another signature and says the same. Nothing where the random source
    /// fails.
    pub fn token(
        &self,
        (signer, terms): (&Signer, &config::Tokens),
        beside: &RefreshToken,
    ) -> Option<(String, u64)> {
        let ends_s = self.issued_s.saturating_add(terms.access.as_secs()).min(self.until_s);
        let quoted = |text: &str| Value::from(text).to_string();
        let audience = match terms.audience.as_slice() {
            [one] => quoted(one),
            several => Value::from(several.to_vec()).to_string(),
        };
        let inner = self.claims.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let inner = inner.unwrap_or_default();
        let comma = if inner.is_empty() { "" } else { "," };
        let claims = format!(
            r#"{{"iss":{},"sub":{},"aud":{audience},"iat":{},"exp":{ends_s},"#,
            quoted(&signer.issuer),
            quoted(self.subject),
            self.issued_s,
        );
        let ids = format!(
            r#""jti":{},"sid":{}{comma}{inner}}}"#,
            quoted(&beside.id()),
            quoted(&beside.family()),
        );
        let claims = claims + &ids;
        Some((signer.sign("at+jwt", &claims)?, ends_s))
    }
}

/// The claims that an application adds, a JSON object, in the form in which they are kept: each
/// name once, numbers as they were written.
///
/// # Errors
/// Why they cannot be used.
pub fn claims_text(text: &str) -> Result<String, String> {
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_str(text).map_err(|error| format!("claims is no JSON object: {error}"))?;
    if let Some(own) = OWN_CLAIMS.into_iter().find(|name| members.contains_key(*name)) {
        return Err(format!("the claim {own:?} is said by the gateway itself"));
    }
    let text = serde_json::to_string(&members).map_err(|error| error.to_string())?;
    if text.len() > CLAIMS_BYTES_MAX {
        return Err(format!("claims have at most {CLAIMS_BYTES_MAX} bytes as JSON"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_made() {
        let key = random().unwrap();
        let first = RefreshToken::first(&key).unwrap();
        let text = first.text();
        assert_eq!(RefreshToken::parse(&text), Some(first.clone()));
        assert!(first.is_of(&key) && !first.is_of(&random().unwrap()));
        for wrong in ["", "pcr_", &text[1..], &text[..text.len() - 1], &format!("{text}A"), "pcr_é"]
        {
            assert_eq!(RefreshToken::parse(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{first:?}"), "RefreshToken(***)");
        let families = (0..500).map(|_| RefreshToken::first(&key).unwrap().family());
        assert!(families.into_iter().all(|it| !it.starts_with('-')), "no option of a command");
    }

    #[test]
    fn each_byte_that_is_changed_takes_a_token_out_of_its_family() {
        let key = random().unwrap();
        let bytes =
            URL_SAFE_NO_PAD.decode(&RefreshToken::first(&key).unwrap().text()[4..]).unwrap();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
            assert!(!RefreshToken::parse(&text).unwrap().is_of(&key), "{at}");
        }
    }

    #[test]
    fn only_the_token_itself_opens_its_successor() {
        let key = random().unwrap();
        let first = RefreshToken::first(&key).unwrap();
        let next = first.next(&key).unwrap();
        let sealed = first.seal(&next);
        assert_eq!(first.successor(&sealed, &key), Some(next.clone()));
        assert_eq!((next.family(), next.number()), (first.family(), 2));
        let other = RefreshToken::first(&key).unwrap();
        assert_ne!(other.successor(&sealed, &key).map(|it| it.secret), Some(next.secret));
        assert_ne!(sealed, next.secret);
    }

    #[test]
    fn an_access_token_says_what_the_application_added() {
        let keys = vec![crate::base::units::Secret::new(crate::signing::new_key().unwrap().0)];
        let terms = config::Tokens {
            audience: vec!["a".to_owned(), "b".to_owned()],
            access: std::time::Duration::from_secs(60),
            refresh: std::time::Duration::from_secs(60),
            family: std::time::Duration::from_secs(60),
            grace: std::time::Duration::ZERO,
        };
        let issuer = "https://gw.test".to_owned();
        let written = config::Signer { issuer, keys, tokens: Some(terms.clone()) };
        let signer = Signer::compile("main", &written).unwrap();
        let refresh = RefreshToken::first(&random().unwrap()).unwrap();
        for (claims, until_s, ends_s) in
            [("{}", 500, 160), (r#"{"deep":{"er":{}}}"#, 500, 160), (r#"{"x":"}"}"#, 110, 110)]
        {
            let access = Access { subject: "4\"2", claims, issued_s: 100, until_s };
            let (token, ends) = access.token((&signer, &terms), &refresh).unwrap();
            assert_eq!(ends, ends_s);
            let said = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
            let said: Value = serde_json::from_slice(&said).unwrap();
            let mut expected: Value = serde_json::from_str(claims).unwrap();
            for (name, value) in [
                ("iss", "https://gw.test".into()),
                ("sub", "4\"2".into()),
                ("aud", Value::from(vec!["a", "b"])),
                ("iat", 100.into()),
                ("exp", ends_s.into()),
                ("jti", refresh.id().into()),
                ("sid", refresh.family().into()),
            ] {
                expected[name] = value;
            }
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn claims_keep_their_numbers_and_may_not_speak_for_the_gateway() {
        let kept = claims_text(r#" {"n": 12345678901234567890123, "a": "1", "a": "2"} "#);
        assert_eq!(kept.as_deref(), Ok(r#"{"a":"2","n":12345678901234567890123}"#));
        for own in OWN_CLAIMS {
            assert!(claims_text(&format!("{{\"{own}\":1}}")).is_err(), "{own}");
        }
        for wrong in ["", "[]", "1", &format!("{{\"a\":\"{}\"}}", "x".repeat(CLAIMS_BYTES_MAX))] {
            assert!(claims_text(wrong).is_err());
        }
    }
}
