//! What may open something, known by its form: the one recogniser for whatever shows text that
//! clients chose, such as logs, traces and what operators look at.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::percent;

/// What every API key begins with that the gateway made.
pub const API_KEY: &str = "pck_";
/// What every refresh token begins with.
pub const REFRESH_TOKEN: &str = "pcr_";
/// What a secret of webhooks and callbacks begins with that is written in base64.
pub const WEBHOOK_SECRET: &str = "whsec_";
/// What the base64url of a JSON object begins with, and so every JWT (RFC 7519).
const OBJECT: &str = "eyJ";
/// See above.
const BEGINNINGS: [&str; 4] = [OBJECT, API_KEY, REFRESH_TOKEN, WEBHOOK_SECRET];
/// Schemes of RFC 9110 §11.
const SCHEMES: [&str; 5] = ["basic ", "bearer ", "digest ", "dpop ", "negotiate "];
/// Fewest bytes of such a text with its beginning: the shortest header of a token has 19.
const BYTES_MIN: usize = 16;
/// Stands where something was that nobody is to read, so that it is told apart from nothing.
pub const REDACTED: &str = "[redacted]";

/// Whether a value looks like credentials, whatever carries it: a scheme of authentication, a
/// token, or a secret that the gateway made.
pub fn opens(value: &str) -> bool {
    let trimmed = value.trim_start();
    let is = |scheme: &&str| {
        trimmed.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
    };
    SCHEMES.iter().any(is) || BEGINNINGS.iter().any(|beginning| has(value, beginning))
}

/// Whether a text that begins so stands somewhere in a value.
fn has(value: &str, beginning: &str) -> bool {
    // Base64 in both of its alphabets.
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_+/=".contains(byte);
    value.match_indices(beginning).any(|(at, _)| {
        let text = value.as_bytes().get(at..).unwrap_or_default();
        let is_long =
            text.iter().take(BYTES_MIN).filter(|byte| is_digit(byte)).count() == BYTES_MIN;
        is_long && (beginning != OBJECT || is_json(text.get(..BYTES_MIN).unwrap_or_default()))
    })
}

/// Whether so much base64url may be that of a JSON object, which is text: the middle of a word is
/// none. What cannot be read is taken for one.
fn is_json(digits: &[u8]) -> bool {
    let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n' | b'\t');
    URL_SAFE_NO_PAD.decode(digits).map_or(true, |bytes| bytes.iter().all(is_text))
}

/// A path, or a URL with as much of its query as is shown, without the segments that look like
/// credentials.
pub fn without_credentials(path: &str) -> Cow<'_, str> {
    let may_open = path.contains('%') || BEGINNINGS.iter().any(|it| path.contains(it));
    if !may_open {
        return path.into();
    }
    let shown = |segment| {
        let decoded = percent::decode(str::as_bytes(segment));
        if opens(&String::from_utf8_lossy(&decoded)) { REDACTED } else { segment }
    };
    path.split('/').map(shown).collect::<Vec<_>>().join("/").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.c2lnbmF0dXJl";

    #[test]
    fn credentials_are_known_by_their_form() {
        for value in [
            TOKEN,
            &format!("x{TOKEN}"),
            &format!("pck_{}", "A".repeat(47)),
            &format!("key=pcr_{}", "a_-1".repeat(20)),
            &format!("whsec_{}", "a+/=".repeat(8)),
            " bAsic dTpw",
            "Bearer x",
            "DPoP x",
            "eyJ+YWxnIjoibm9uZSJ9",
        ] {
            assert!(opens(value), "{value}");
        }
        for value in ["moneyJournalEntries", "surveyJoinTableRows"] {
            assert!(!opens(value), "{value}");
        }
        for value in ["", "keyJson", "eyJ", "pck_size", "pcr_test.txt", "whsec_", "basics", "42"] {
            assert!(!opens(value), "{value}");
        }
    }

    #[test]
    fn a_path_is_told_without_what_opens_something() {
        let key = format!("pck_{}", "A".repeat(47));
        for (path, told) in [
            (format!("/pub/{TOKEN}"), "/pub/[redacted]"),
            (format!("/pub/{TOKEN}/x"), "/pub/[redacted]/x"),
            (format!("/a%20b/t;v={TOKEN}"), "/a%20b/[redacted]"),
            (format!("/%65yJ{}", &TOKEN[3..]), "/[redacted]"),
            (format!("/a/{key}/b/{key}"), "/a/[redacted]/b/[redacted]"),
            (format!("http://shop.test/{key}?page"), "http://shop.test/[redacted]"),
            ("/Bearer%20x".to_owned(), "/[redacted]"),
            ("/caf%C3%A9/%FF".to_owned(), "/caf%C3%A9/%FF"),
            ("/docs/keyJson.html".to_owned(), "/docs/keyJson.html"),
            ("/".to_owned(), "/"),
        ] {
            assert_eq!(without_credentials(&path), told, "{path}");
        }
    }
}
