//! Sessions that the gateway makes: their cookie, their ids, and the word by which a page of the
//! site shows that it is one. Pure: who writes and ends them in the store is elsewhere.
//!
//! The cookie is 32 random bytes. The store knows a session by SHA-256 of that, so whoever reads
//! the store can use none of its sessions.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

use crate::base::http::cookie;
use crate::config::{Make, SealKey};

/// Random bytes of a cookie.
const SECRET_BYTES: usize = 32;
/// The same in base64url.
const VALUE_BYTES: usize = 43;
/// Most different cookies of a request that are looked at: a browser has one, and two where another
/// host of the domain has set one, too.
const SHOWN_MAX: usize = 4;
/// What sets the CSRF token apart from all else that is ever made of a cookie.
const CSRF_LABEL: &[u8] = b"portcullis csrf token";

/// How the gateway's sessions and their cookie are.
#[derive(Debug, Clone)]
pub struct Made {
    /// The name of the cookie.
    pub cookie: String,
    /// What follows the value in `Set-Cookie`.
    attributes: String,
    /// Whether browsers keep it when they are closed.
    is_persistent: bool,
    /// With what sessions are sealed, the key of now first.
    pub seal: Vec<SealKey>,
}

/// The value of a cookie. Whoever has it has the session, so nobody prints it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Value([u8; VALUE_BYTES]);

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Value(***)")
    }
}

/// The cookies of sessions that a request showed. They are taken out of it: nobody else reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    values: Vec<Value>,
    /// Whether there was one that cannot be a cookie of the gateway's, or too many.
    is_odd: bool,
}

impl Made {
    /// What is configured.
    pub fn of(make: &Make) -> Self {
        let secure = if make.allow_http { "" } else { "; Secure" };
        let same_site = make.same_site.word();
        Self {
            cookie: make.cookie.clone(),
            attributes: format!("; Path=/{secure}; HttpOnly; SameSite={same_site}"),
            is_persistent: make.persistent,
            seal: make.seal.clone(),
        }
    }

    /// Takes the cookies of sessions out of the fields of a request.
    pub fn take(&self, headers: &mut HeaderMap) -> Option<Shown> {
        if !headers.contains_key(COOKIE) {
            return None;
        }
        let (mut values, mut is_odd, mut is_any) = (Vec::new(), false, false);
        for bytes in cookie::values(headers, &self.cookie) {
            is_any = true;
            // An empty cookie is what a log-out leaves behind.
            if bytes.is_empty() {
                continue;
            }
            match Value::parse(bytes) {
                Some(value) if values.contains(&value) => {}
                Some(value) if values.len() < SHOWN_MAX => values.push(value),
                _ => is_odd = true,
            }
        }
        if !is_any {
            return None;
        }
        let lines: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
        headers.remove(COOKIE);
        for line in lines.iter().filter_map(|line| cookie::without(line, &self.cookie)) {
            headers.append(COOKIE, line);
        }
        (is_odd || !values.is_empty()).then_some(Shown { values, is_odd })
    }

    /// The field that sets the cookie; `left_s` seconds are left of the session.
    pub fn set_cookie(&self, value: &Value, left_s: u64) -> HeaderValue {
        let max_age =
            if self.is_persistent { format!("; Max-Age={left_s}") } else { String::new() };
        let Self { cookie, attributes, .. } = self;
        let text = format!("{cookie}={}{attributes}{max_age}", value.text());
        // Its name is a token, and the rest is of this file.
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
    }

    /// The field that has a browser forget the cookie.
    pub fn clear_cookie(&self) -> HeaderValue {
        let Self { cookie, attributes, .. } = self;
        let text = format!("{cookie}={attributes}; Max-Age=0");
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
    }

    /// Takes what would set the cookie out of the fields of a response that the gateway did not
    /// make.
    pub fn strip_set_cookie(&self, headers: &mut HeaderMap) {
        if !headers.get_all(SET_COOKIE).iter().any(|line| self.is_set_by(line)) {
            return;
        }
        let lines: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
        headers.remove(SET_COOKIE);
        for line in lines.into_iter().filter(|line| !self.is_set_by(line)) {
            headers.append(SET_COOKIE, line);
        }
    }

    /// Whether a browser would read this line as one of the cookie (RFC 6265 §5.2).
    fn is_set_by(&self, line: &HeaderValue) -> bool {
        let pair = line.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        name.trim_ascii() == self.cookie.as_bytes()
    }
}

impl Value {
    /// A new one; nothing where the system has no randomness.
    pub fn random() -> Option<Self> {
        let mut secret = [0; SECRET_BYTES];
        SystemRandom::new().fill(&mut secret).ok()?;
        Self::parse(URL_SAFE_NO_PAD.encode(secret).as_bytes())
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let value = bytes.first_chunk::<VALUE_BYTES>().filter(|_| bytes.len() == VALUE_BYTES)?;
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        value.iter().all(is_plain).then_some(Self(*value))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// SHA-256 of it.
    pub fn digest(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, &self.0).as_ref());
        bytes
    }

    /// What its session is called in the store.
    pub fn id(&self) -> String {
        id_of(&self.digest())
    }

    /// What a page of the site shows in `x-csrf-token`. It tells nothing of the cookie.
    pub fn csrf_token(&self) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        URL_SAFE_NO_PAD.encode(hmac::sign(&key, CSRF_LABEL))
    }

    /// Whether this is the token of the cookie.
    pub fn confirms(&self, token: &[u8]) -> bool {
        verify_slices_are_equal(self.csrf_token().as_bytes(), token).is_ok()
    }
}

/// What a session is called in the store whose cookie has this SHA-256.
pub fn id_of(digest: &[u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(digest)
}

impl Shown {
    /// The one cookie. Of two that differ one was tossed in by another host (RFC 6265 §8.6), and
    /// nobody can say which.
    pub fn one(&self) -> Option<&Value> {
        match self.values.as_slice() {
            [value] if !self.is_odd => Some(value),
            _ => None,
        }
    }

    /// All of them: what a log-in or a log-out ends.
    pub fn all(&self) -> &[Value] {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SameSite;

    fn made() -> Made {
        let cookie = "__Host-session".to_owned();
        let (same_site, seal, csrf_origins) = (SameSite::Lax, Vec::new(), Vec::new());
        Made::of(&Make {
            cookie,
            allow_http: false,
            same_site,
            persistent: false,
            seal,
            csrf_origins,
        })
    }

    fn headers(lines: &[&str]) -> HeaderMap {
        let lines = lines.iter().map(|line| (COOKIE, HeaderValue::try_from(*line).unwrap()));
        lines.collect()
    }

    #[test]
    fn the_cookie_is_taken_out_and_the_rest_stays() {
        let (one, other) = ("a".repeat(43), "b".repeat(43));
        let set = |value: &str| format!("__Host-session={value}");
        for (lines, is_one, count, left) in [
            (vec![set(&one)], true, 1, vec![]),
            (vec![format!("x=1; {}; y=2", set(&one))], true, 1, vec!["x=1; y=2"]),
            (vec![set(&one), set(&one)], true, 1, vec![]),
            (vec![set(&one), set(&other)], false, 2, vec![]),
            (vec![format!("{}; {}", set(&one), set("short"))], false, 1, vec![]),
            (vec![set(""), set(&one), "x=1".to_owned()], true, 1, vec!["x=1"]),
        ] {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let mut headers = headers(&lines);
            let shown = made().take(&mut headers).expect("shown");
            assert_eq!((shown.one().is_some(), shown.all().len()), (is_one, count), "{lines:?}");
            let rest: Vec<&HeaderValue> = headers.get_all(COOKIE).iter().collect();
            assert_eq!(rest, left, "{lines:?}");
        }
        for line in ["__Host-session=", "session=x", "a"] {
            assert_eq!(made().take(&mut headers(&[line])), None, "{line}");
        }
        let mut odd = headers(&[&set("'")]);
        assert_eq!(made().take(&mut odd).and_then(|it| it.one().copied()), None);
        assert!(odd.is_empty());
    }

    #[test]
    fn an_upstream_cannot_set_the_cookie() {
        let mut headers = HeaderMap::new();
        for line in [
            "a=1",
            "__Host-session=x",
            " __Host-session =x; Path=/",
            "__Host-session",
            "b=__Host-session",
        ] {
            headers.append(SET_COOKIE, HeaderValue::from_static(line));
        }
        made().strip_set_cookie(&mut headers);
        let left: Vec<&HeaderValue> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(left, ["a=1", "b=__Host-session"]);
    }

    #[test]
    fn what_is_made_of_a_cookie_tells_nothing_of_it() {
        let value = Value::random().expect("random");
        let other = Value::random().expect("random");
        assert_ne!(value, other);
        assert_eq!((value.text().len(), value.id().len(), value.csrf_token().len()), (43, 43, 43));
        assert!(value.confirms(value.csrf_token().as_bytes()));
        for wrong in [other.csrf_token(), value.id(), String::new(), value.text().to_owned()] {
            assert!(!value.confirms(wrong.as_bytes()));
        }
        assert_eq!(format!("{value:?}"), "Value(***)");
        let line = made().set_cookie(&value, 60);
        let attributes = "; Path=/; Secure; HttpOnly; SameSite=Lax";
        assert_eq!(line, format!("__Host-session={}{attributes}", value.text()));
        assert_eq!(made().clear_cookie(), format!("__Host-session={attributes}; Max-Age=0"));
        let persistent = Made { is_persistent: true, ..made() };
        assert!(persistent.set_cookie(&value, 60).to_str().unwrap().ends_with("; Max-Age=60"));
    }
}
