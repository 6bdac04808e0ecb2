//! The only place that formats a store key. Every format is pinned by a test, because applications
//! write some of them.
//!
//! A part that a user controls stands verbatim when it is 1 to 128 bytes of 0x21 to 0x7E, otherwise
//! as `sha256:` and the hex digest of its bytes. Limiter and cache keys carry a hash tag, so that
//! each script touches one slot of a cluster.

mod cache;

use aws_lc_rs::digest::{SHA256, digest};

/// Longest part that stands verbatim, in bytes.
const VERBATIM_BYTES_MAX: usize = 128;

/// Field of an entry of [`Keys::revocations`]: the whole key of the revocation.
pub const REVOKED_KEY: &str = "key";
/// Field of such an entry: Unix seconds when it ends; 0 takes the revocation back.
pub const REVOKED_UNTIL: &str = "until";
/// Field of such an entry about a not-before key: what the key holds.
pub const REVOKED_NOT_BEFORE: &str = "not_before";

/// Formats keys under one prefix (`store.prefix`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
    /// `NAME:` of the verifier whose identities the keys of revocation speak of, or nothing.
    qualifier: String,
}

impl Keys {
    /// Keys under `prefix`.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), qualifier: String::new() }
    }

    /// The same keys, with those of revocation qualified by a verifier's name: two issuers may give
    /// the same `jti`, `sid` or `sub` to different callers.
    pub fn qualified(&self, verifier: &str) -> Self {
        Self { prefix: self.prefix.clone(), qualifier: format!("{verifier}:") }
    }

    /// Revokes the token with this `jti`.
    pub fn blacklist(&self, jti: &str) -> String {
        format!("{}:auth:blacklist:{}{}", self.prefix, self.qualifier, part(jti))
    }

    /// Revokes the token without a `jti` whose signing input has this digest. Never qualified: no
    /// two tokens have the same.
    pub fn blacklist_digest(&self, signing_input: &[u8]) -> String {
        format!("{}:auth:blacklist:{}", self.prefix, hashed(signing_input))
    }

    /// Revokes every token of one session.
    pub fn blacklist_session(&self, sid: &str) -> String {
        format!("{}:auth:blacklist:{}sid:{}", self.prefix, self.qualifier, part(sid))
    }

    /// Revokes the API key with this id. Never qualified: a key's record is found by the key alone.
    pub fn blacklist_key(&self, id: &str) -> String {
        format!("{}:auth:blacklist:key:{}", self.prefix, part(id))
    }

    /// The record of an API key, by the SHA-256 of the key in hex.
    pub fn api_key(&self, digest: &str) -> String {
        format!("{}:auth:key:{digest}", self.prefix)
    }

    /// The digest of the API key with this id.
    pub fn api_key_id(&self, id: &str) -> String {
        format!("{}:auth:key-id:{}", self.prefix, part(id))
    }

    /// The API keys of one owner, a sorted set: ids scored by the Unix seconds of their creation.
    pub fn api_keys_of(&self, owner: &str) -> String {
        format!("{}:auth:keys-of:{}", self.prefix, part(owner))
    }

    /// Unix seconds before which a subject's tokens are revoked.
    pub fn not_before(&self, sub: &str) -> String {
        format!("{}:auth:not-before:{}{}", self.prefix, self.qualifier, part(sub))
    }

    /// The stream that tells every gateway of revocations.
    pub fn revocations(&self) -> String {
        format!("{}:auth:revocations", self.prefix)
    }

    /// Whether a key's existence revokes tokens.
    pub fn is_blacklist(&self, key: &str) -> bool {
        self.is_below(key, ":auth:blacklist:")
    }

    /// Whether a key holds a subject's not-before time.
    pub fn is_not_before(&self, key: &str) -> bool {
        self.is_below(key, ":auth:not-before:")
    }

    fn is_below(&self, key: &str, kind: &str) -> bool {
        let rest = key.strip_prefix(self.prefix.as_str()).and_then(|rest| rest.strip_prefix(kind));
        rest.is_some_and(|rest| !rest.is_empty())
    }

    /// The application's session.
    pub fn session(&self, id: &str) -> String {
        // In every request of a route with sessions: joining costs a quarter of formatting.
        [&*self.prefix, ":session:", &part(id)].concat()
    }

    /// What is kept beside a session, a hash: `ends` (why, and Unix ms), `seen` (Unix ms), `index`
    /// (whose it is).
    pub fn session_end(&self, id: &str) -> String {
        [&*self.prefix, ":session-end:", &part(id)].concat()
    }

    /// The sessions of one user, a sorted set: ids as they stand in keys ([`Self::session_part`]),
    /// scored by the Unix seconds of their creation.
    pub fn sessions_of(&self, sub: &str) -> String {
        format!("{}:sessions-of:{}", self.prefix, part(sub))
    }

    /// A session's id as it stands in keys.
    pub fn session_part(id: &str) -> String {
        part(id).into_owned()
    }

    /// What stands before the id in the keys of sessions, and of what is kept beside them: for
    /// scripts that find ids in an index.
    pub fn session_families(&self) -> [String; 2] {
        [format!("{}:session:", self.prefix), format!("{}:session-end:", self.prefix)]
    }

    /// Writes the key of one window of one limit: the principal is the hash tag, so that all
    /// windows of one principal share a slot. `principal` must come from [`push_principal_part`],
    /// which admits no brace.
    pub fn limit_into(&self, out: &mut String, policy: &str, window: &str, principal: &str) {
        out.push_str(&self.prefix);
        out.push_str(":ratelimit:{");
        out.push_str(principal);
        out.push_str("}:");
        out.push_str(policy);
        out.push(':');
        out.push_str(window);
    }

    /// Who is in flight under one limit; `principal` as for [`Self::limit_into`].
    pub fn in_flight(&self, policy: &str, principal: &str) -> String {
        format!("{}:ratelimit:{{{principal}}}:{policy}:in-flight", self.prefix)
    }
}

/// Appends one part of a limiter's principal, `kind=value`, the kind given in pieces. A value that
/// is not made of `A-Z a-z 0-9 - _ . @ :` alone stands as `#` and its digest, so that no value can
/// imitate a separator, a brace or another value's digest.
pub fn push_principal_part(out: &mut String, kind: &[&str], value: &str) {
    if !out.is_empty() {
        out.push('|');
    }
    out.extend(kind.iter().copied());
    out.push('=');
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@' | b':');
    if value.len() <= VERBATIM_BYTES_MAX && !value.is_empty() && value.bytes().all(plain) {
        out.push_str(value);
    } else {
        out.push('#');
        push_hex(out, digest(&SHA256, value.as_bytes()).as_ref());
    }
}

/// Appends a claim as a part of a limiter's principal: `claim:NAME=value`, or
/// `VERIFIER/claim:NAME=value` where several verifiers could give the same value to different
/// callers. No other kind of part holds a slash before its first colon.
pub fn push_claim_part(out: &mut String, verifier: Option<&str>, claim: &str, value: &str) {
    match verifier {
        None => push_principal_part(out, &["claim:", claim], value),
        Some(verifier) => push_principal_part(out, &[verifier, "/claim:", claim], value),
    }
}

/// Principal, policy and window of a limiter's key.
pub fn limit_parts(key: &str) -> Option<(&str, &str, &str)> {
    let (_, rest) = key.split_once(":ratelimit:{")?;
    let (principal, rest) = rest.split_once("}:")?;
    let (policy, window) = rest.rsplit_once(':')?;
    Some((principal, policy, window))
}

/// A principal as an operator writes it, `claim:sub=ada|route=r`, in the spelling of the keys;
/// nothing when it has another form. What a key shows as a digest is taken as that.
pub fn parse_principal(text: &str) -> Option<String> {
    let mut out = String::new();
    for part in text.split('|') {
        let (kind, value) = part.split_once('=')?;
        let plain =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/');
        let is_digest = |digest: &str| {
            digest.len() == 64 && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        if kind.is_empty() || !kind.bytes().all(plain) {
            return None;
        }
        if value.strip_prefix('#').is_some_and(is_digest) {
            let separator = if out.is_empty() { "" } else { "|" };
            out.extend([separator, kind, "=", value]);
        } else {
            push_principal_part(&mut out, &[kind], value);
        }
    }
    Some(out)
}

/// A user-controlled part of a key that an application may write.
fn part(value: &str) -> std::borrow::Cow<'_, str> {
    let verbatim = (1..=VERBATIM_BYTES_MAX).contains(&value.len())
        && value.bytes().all(|b| (0x21..=0x7E).contains(&b));
    if verbatim { value.into() } else { hashed(value.as_bytes()).into() }
}

fn hashed(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(71);
    out.push_str("sha256:");
    push_hex(&mut out, digest(&SHA256, bytes).as_ref());
    out
}

/// The digest of bytes as keys spell it.
pub fn hex_digest(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Bytes in hexadecimal, as keys spell digests.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    push_hex(&mut out, bytes);
    out
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default();
    out.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_a_contract_with_applications() {
        let keys = Keys::new("app");
        assert_eq!(keys.blacklist("abc"), "app:auth:blacklist:abc");
        assert_eq!(keys.blacklist_session("s1"), "app:auth:blacklist:sid:s1");
        assert_eq!(keys.not_before("42"), "app:auth:not-before:42");
        assert_eq!(keys.session("s1"), "app:session:s1");
        assert_eq!(keys.session_end("s1"), "app:session-end:s1");
        assert_eq!(keys.sessions_of("42"), "app:sessions-of:42");
        assert_eq!(keys.revocations(), "app:auth:revocations");
        assert_eq!(keys.blacklist_key("0f"), "app:auth:blacklist:key:0f");
        assert_eq!(keys.api_key("ab"), "app:auth:key:ab");
        assert_eq!(keys.api_key_id("0f"), "app:auth:key-id:0f");
        assert_eq!(keys.api_keys_of("acme"), "app:auth:keys-of:acme");
        assert_eq!(
            (REVOKED_KEY, REVOKED_UNTIL, REVOKED_NOT_BEFORE),
            ("key", "until", "not_before")
        );
        assert_eq!(
            keys.blacklist_digest(b"a.b"),
            "app:auth:blacklist:sha256:\
             2e7336dc8eba87ef472df568c35482abf2575dc3e5eac0c5c62b8ffaeac2c934"
        );
    }

    #[test]
    fn a_verifier_qualifies_the_keys_of_its_identities() {
        let keys = Keys::new("app");
        let users = keys.qualified("users");
        assert_eq!(users.blacklist("abc"), "app:auth:blacklist:users:abc");
        assert_eq!(users.blacklist_session("s1"), "app:auth:blacklist:users:sid:s1");
        assert_eq!(users.not_before("42"), "app:auth:not-before:users:42");
        assert_eq!(users.blacklist_digest(b"a.b"), keys.blacklist_digest(b"a.b"));
        assert_eq!(users.session("s1"), keys.session("s1"));
        let mut out = String::new();
        push_claim_part(&mut out, Some("users"), "sub", "42");
        push_claim_part(&mut out, None, "sub", "42");
        assert_eq!(out, "users/claim:sub=42|claim:sub=42");
    }

    #[test]
    fn a_part_outside_the_contract_is_hashed() {
        let keys = Keys::new("app");
        let empty =
            "app:session:sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(keys.session(""), empty);
        for odd in ["a b", "a\r\nDEL x", "é", &"x".repeat(129)] {
            assert!(keys.session(odd).starts_with("app:session:sha256:"), "{odd:?}");
        }
        assert_eq!(keys.session(&"x".repeat(128)), format!("app:session:{}", "x".repeat(128)));
    }

    #[test]
    fn a_session_is_found_by_its_part_in_an_index() {
        let keys = Keys::new("app");
        let [session, end] = keys.session_families();
        for id in ["s1", "two words", ""] {
            let part = Keys::session_part(id);
            assert_eq!(format!("{session}{part}"), keys.session(id));
            assert_eq!(format!("{end}{part}"), keys.session_end(id));
            // Whoever names it as the index does names the same session.
            assert_eq!(keys.session(&part), keys.session(id));
        }
    }

    #[test]
    fn a_principal_cannot_imitate_a_separator_a_brace_or_a_digest() {
        let principal = |value: &str| {
            let mut out = String::new();
            push_principal_part(&mut out, &["claim:", "sub"], value);
            out
        };
        assert_eq!(principal("user-1@example.com"), "claim:sub=user-1@example.com");
        for value in ["a|claim:x=b", "}", "{x}", "", "#00", "a=b"] {
            let out = principal(value);
            assert!(out.starts_with("claim:sub=#"), "{value:?} became {out}");
            assert_eq!(out.len(), "claim:sub=#".len() + 64);
        }
    }

    #[test]
    fn an_operators_principal_is_spelt_as_in_the_keys() {
        let digest = format!("#{}", "0f".repeat(32));
        for (text, expected) in [
            ("claim:sub=42", Some("claim:sub=42".to_owned())),
            ("address=::1|route=r", Some("address=::1|route=r".to_owned())),
            (&format!("claim:sub={digest}"), Some(format!("claim:sub={digest}"))),
            (&format!("route=r|claim:sub={digest}"), Some(format!("route=r|claim:sub={digest}"))),
            ("42", None),
            ("=42", None),
            ("cl{im=42", None),
            ("", None),
        ] {
            assert_eq!(parse_principal(text), expected, "{text}");
        }
        let odd = parse_principal("claim:sub=a b").unwrap();
        assert!(odd.starts_with("claim:sub=#") && odd.len() == "claim:sub=#".len() + 64);
    }

    #[test]
    fn limiter_formats() {
        let keys = Keys::new("app");
        let mut out = String::new();
        keys.limit_into(&mut out, "api", "15m", "claim:sub=42");
        assert_eq!(out, "app:ratelimit:{claim:sub=42}:api:15m");
        assert_eq!(limit_parts(&out), Some(("claim:sub=42", "api", "15m")));
        assert_eq!(limit_parts("app:session:x"), None);
        let key = keys.in_flight("slow", "claim:sub=42");
        assert_eq!(key, "app:ratelimit:{claim:sub=42}:slow:in-flight");
    }
}
