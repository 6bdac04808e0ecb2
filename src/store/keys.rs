//! The only place that formats a store key. Every format is pinned by a test, because applications
//! write some of them.
//!
//! A part that a user controls stands verbatim when it is 1 to 128 bytes of 0x21 to 0x7E, otherwise
//! as `sha256:` and the hex digest of its bytes. So does one that could be read as something else:
//! one that begins with `sha256:`, a `jti` that begins with `sid:`, `key:` or `cert:`, and a `jti`
//! or `sub` that begins with the name of a verifier whose keys are qualified. Limiter and cache
//! keys carry a hash tag, so that each script touches one slot of a cluster.

mod cache;
mod events;
mod family;
mod kind;
mod login;
mod queue;
mod revoked;
mod session;
mod slot;
mod tls;
mod traffic;

pub use self::family::FamilyKeys;
pub use self::kind::{Kind, is_cache_base, usage};
pub use self::queue::{QueueKeys, shard_of};
pub use self::revoked::{RevokedKind, RevokedParts};
pub use self::session::SessionKeys;
pub(super) use self::slot::{SLOTS, key_in, slot};

use std::borrow::Cow;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use crate::base::claim::Spelling;
use crate::base::http::hex;

/// Longest part that stands verbatim, in bytes.
const VERBATIM_BYTES_MAX: usize = 128;
/// What a part begins with that stands as a digest.
const DIGEST: &str = "sha256:";
/// What else a key of the blacklist may go on with in place of a `jti`.
const BLACKLISTS: [&str; 4] = ["sid", "key", "cert", "sha256"];

/// Field of an entry of [`Keys::revocations`]: the whole key of the revocation.
pub const REVOKED_KEY: &str = "key";
/// Field of such an entry: Unix seconds when it ends; 0 takes the revocation back.
pub const REVOKED_UNTIL: &str = "until";
/// Field of such an entry about a not-before key: what the key holds.
pub const REVOKED_NOT_BEFORE: &str = "not_before";
/// A field of an entry that is told late: a newer one of its key may stand before it.
pub const REVOKED_LATE: &str = "late";

/// Formats keys under one prefix (`store.prefix`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
    /// `NAME:` of the verifier whose identities the keys of revocation speak of, or nothing.
    qualifier: String,
    /// The qualifiers of other verifiers, which no part may imitate where there is none.
    others: Arc<[String]>,
}

impl Keys {
    /// Keys under `prefix`.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), qualifier: String::new(), others: Arc::default() }
    }

    /// The same keys, beside those that are qualified by these verifiers' names.
    #[must_use]
    pub fn beside<'a>(mut self, verifiers: impl Iterator<Item = &'a str>) -> Self {
        self.others = verifiers.map(qualifier).collect();
        self
    }

    /// The same keys, with those of revocation qualified by a verifier's name: two issuers may give
    /// the same `jti`, `sid` or `sub` to different callers.
    pub fn qualified(&self, verifier: &str) -> Self {
        let others = Arc::default();
        Self { prefix: self.prefix.clone(), qualifier: qualifier(verifier), others }
    }

    /// Revokes the token with this `jti`.
    pub fn blacklist(&self, jti: &str) -> String {
        let is_other = |jti: &str| {
            let kind = jti.split_once(':').map(|(kind, _)| kind);
            kind.is_some_and(|kind| BLACKLISTS.contains(&kind)) || self.is_qualified(jti)
        };
        let part = part_but(jti, is_other);
        format!("{}:auth:blacklist:{}{part}", self.prefix, self.qualifier)
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

    /// The same of an id that an operator names, also as it was listed.
    pub fn blacklist_listed_key(&self, id: &str) -> String {
        format!("{}:auth:blacklist:key:{}", self.prefix, listed(id))
    }

    /// Revokes the client certificate with this SHA-256, in lower-case hex, and the tokens that are
    /// bound to it. Never qualified: no two certificates have the same.
    pub fn blacklist_certificate(&self, sha256: &str) -> String {
        format!("{}:auth:blacklist:cert:{sha256}", self.prefix)
    }

    /// Says that a proof of possession was used, by its digest in lower-case hex. Never qualified:
    /// the digest covers the key that made it.
    pub fn proof(&self, digest: &str) -> String {
        format!("{}:auth:dpop:{digest}", self.prefix)
    }

    /// The record of an API key, by the SHA-256 of the key in hex.
    pub fn api_key(&self, digest: &str) -> String {
        format!("{}:auth:key:{digest}", self.prefix)
    }

    /// The digest of the API key with this id.
    pub fn api_key_id(&self, id: &str) -> String {
        format!("{}:auth:key-id:{}", self.prefix, listed(id))
    }

    /// The API keys of one owner, a sorted set: ids scored by the Unix seconds of their creation.
    pub fn api_keys_of(&self, owner: &str) -> String {
        format!("{}:auth:keys-of:{}", self.prefix, part(owner))
    }

    /// Unix seconds before which a subject's tokens are revoked.
    pub fn not_before(&self, sub: &str) -> String {
        let part = part_but(sub, |sub| self.is_qualified(sub));
        format!("{}:auth:not-before:{}{part}", self.prefix, self.qualifier)
    }

    /// Whether a part would be read as one of another verifier.
    fn is_qualified(&self, part: &str) -> bool {
        self.others.iter().any(|other| part.starts_with(other.as_str()))
    }

    /// What stands for the history of the store's data where its server does not tell that.
    pub fn lineage(&self) -> String {
        format!("{}:lineage:{{*}}", self.prefix)
    }

    /// The gateways that share the store, a sorted set: names scored by when they were heard of
    /// last, in Unix milliseconds of the store's clock.
    pub fn gateways(&self) -> String {
        format!("{}:gateways", self.prefix)
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

/// What stands before the JSON text of a claim that is no string.
pub const JSON_MARK: &str = "json=";

/// Appends one part of a limiter's principal, `kind=value`, the kind given in pieces. A value that
/// is not made of `A-Z a-z 0-9 - _ . @ :` alone stands as `#` and its digest, so that no value can
/// imitate a separator, a brace, a mark or another value's digest.
pub fn push_principal_part(out: &mut String, kind: &[&str], value: &[u8]) {
    push_kind(out, kind);
    push_value(out, value);
}

fn push_kind(out: &mut String, kind: &[&str]) {
    if !out.is_empty() {
        out.push('|');
    }
    out.extend(kind.iter().copied());
    out.push('=');
}

fn push_value(out: &mut String, value: &[u8]) {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@' | b':');
    let is_plain = value.len() <= VERBATIM_BYTES_MAX && !value.is_empty();
    match std::str::from_utf8(value) {
        Ok(text) if is_plain && value.iter().all(plain) => out.push_str(text),
        _ => {
            out.push('#');
            hex::push(out, digest(&SHA256, value).as_ref());
        }
    }
}

/// Appends a claim as a part of a limiter's principal: `claim:NAME=value`, or
/// `VERIFIER/claim:NAME=value` where several verifiers could give the same value to different
/// callers. No other kind of part holds a slash before its first colon. A value that is no string
/// stands by its JSON text behind a mark, `claim:NAME=json=42`, which no string can imitate.
pub fn push_claim_part(
    out: &mut String,
    verifier: Option<&str>,
    claim: &str,
    value: &Spelling<'_>,
) {
    match verifier {
        None => push_kind(out, &["claim:", claim]),
        Some(verifier) => push_kind(out, &[verifier, "/claim:", claim]),
    }
    match value {
        Spelling::Text(text) => push_value(out, text.as_bytes()),
        Spelling::Json(text) => {
            out.push_str(JSON_MARK);
            push_value(out, text.as_bytes());
        }
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
/// nothing when it has another form. What a key shows as a digest is taken as that. Names are those
/// of fields, cookies and claims: a bar in one (RFC 9110 §5.6.2) is told from the one between two
/// parts by the `=` that it lacks.
pub fn parse_principal(text: &str) -> Option<String> {
    let mut out = String::new();
    for (kind, value) in principal_parts(text)? {
        push_kind(&mut out, &[&kind]);
        let value = match value.strip_prefix(JSON_MARK) {
            Some(json) => {
                out.push_str(JSON_MARK);
                json
            }
            None => value,
        };
        if value.strip_prefix('#').is_some_and(is_hex_digest) {
            out.push_str(value);
        } else {
            push_value(&mut out, value.as_bytes());
        }
    }
    Some(out)
}

/// The parts of such a principal: the kind of each, `claim:sub`, and its value as it is written.
pub fn principal_parts(text: &str) -> Option<Vec<(String, &str)>> {
    let (mut parts, mut name) = (Vec::new(), String::new());
    for piece in text.split('|') {
        let Some((end, value)) = piece.split_once('=') else {
            name.push_str(piece);
            name.push('|');
            continue;
        };
        name.push_str(end);
        if name.is_empty() || !name.bytes().all(is_in_name) {
            return None;
        }
        parts.push((std::mem::take(&mut name), value));
    }
    name.is_empty().then_some(parts)
}

/// Whether a byte may stand in the name of a principal's part: those of tokens (RFC 9110 §5.6.2),
/// and what stands before and between names.
fn is_in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
}

/// A verifier's name before the parts of its keys. The plan admits none that is in [`BLACKLISTS`].
fn qualifier(verifier: &str) -> String {
    format!("{verifier}:")
}

/// A user-controlled part of a key that an application may write. One that looks like the digest of
/// another is digested itself.
fn part(value: &str) -> Cow<'_, str> {
    part_but(value, |_| false)
}

/// The same where more beginnings have a meaning of their own.
fn part_but(value: &str, is_other: impl Fn(&str) -> bool) -> Cow<'_, str> {
    let verbatim = (1..=VERBATIM_BYTES_MAX).contains(&value.len())
        && value.bytes().all(|b| (0x21..=0x7E).contains(&b))
        && !value.starts_with(DIGEST)
        && !is_other(value);
    if verbatim { value.into() } else { hashed(value.as_bytes()).into() }
}

/// The part of an id that an operator names, which may be the part itself, as it was listed.
fn listed(id: &str) -> Cow<'_, str> {
    let is_digest = id.strip_prefix(DIGEST).is_some_and(is_hex_digest);
    if is_digest { id.into() } else { part(id) }
}

fn is_hex_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn hashed(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(71);
    out.push_str(DIGEST);
    hex::push(&mut out, digest(&SHA256, bytes).as_ref());
    out
}

/// The digest of bytes as keys spell it.
pub fn hex_digest(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn formats_are_a_contract_with_applications() {
        let keys = Keys::new("app");
        assert_eq!(keys.blacklist("abc"), "app:auth:blacklist:abc");
        assert_eq!(keys.blacklist_session("s1"), "app:auth:blacklist:sid:s1");
        assert_eq!(keys.not_before("42"), "app:auth:not-before:42");
        assert_eq!(keys.session("s1"), "app:session:s1");
        assert_eq!(keys.session_end("s1"), "app:session-end:{app:session:s1}");
        assert_eq!(keys.sessions_of("42"), "app:sessions-of:42");
        assert_eq!(keys.revocations(), "app:auth:revocations");
        assert_eq!(keys.blacklist_key("0f"), "app:auth:blacklist:key:0f");
        assert_eq!(keys.blacklist_certificate("0f"), "app:auth:blacklist:cert:0f");
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
        push_claim_part(&mut out, Some("users"), "sub", &Spelling::Text("42"));
        push_claim_part(&mut out, None, "sub", &Spelling::Text("42"));
        assert_eq!(out, "users/claim:sub=42|claim:sub=42");
    }

    #[test]
    fn a_part_that_reads_as_another_form_is_hashed() {
        let keys = Keys::new("app").beside(["users"].into_iter());
        let users = keys.qualified("users");
        let digest = "sha256:2e7336dc8eba87ef472df568c35482abf2575dc3e5eac0c5c62b8ffaeac2c934";
        for jti in ["sid:S9", "key:k1", digest, "users:abc", "sid:", "users:sid:S9"] {
            let key = keys.blacklist(jti);
            assert!(key.starts_with("app:auth:blacklist:sha256:") && !key.ends_with(jti), "{jti}");
        }
        for (key, expected) in [
            (keys.blacklist("sid9"), "app:auth:blacklist:sid9"),
            (keys.blacklist("urn:sid:9"), "app:auth:blacklist:urn:sid:9"),
            (users.blacklist("users:abc"), "app:auth:blacklist:users:users:abc"),
            (keys.not_before("sid:S9"), "app:auth:not-before:sid:S9"),
            (keys.blacklist_session("users:1"), "app:auth:blacklist:sid:users:1"),
            (keys.session("key:1"), "app:session:key:1"),
        ] {
            assert_eq!(key, expected);
        }
        assert!(keys.not_before("users:42").starts_with("app:auth:not-before:sha256:"));
        assert!(keys.session(digest) != format!("app:session:{digest}"));
        assert_eq!(keys.blacklist_listed_key(digest), format!("app:auth:blacklist:key:{digest}"));
    }

    /// Every key that holds a user's text, by what it is about.
    fn families(keys: &Keys, users: &Keys, id: &str) -> Vec<(String, String)> {
        let of = |family: &str, key: String| (format!("{family} {id:?}"), key);
        vec![
            of("jti", keys.blacklist(id)),
            of("sid", keys.blacklist_session(id)),
            of("key", keys.blacklist_key(id)),
            of("sub", keys.not_before(id)),
            of("token", keys.blacklist_digest(format!("{id}.").as_bytes())),
            of("users' jti", users.blacklist(id)),
            of("users' sid", users.blacklist_session(id)),
            of("users' sub", users.not_before(id)),
            of("session", keys.session(id)),
            of("session's end", keys.session_end(id)),
            of("user's sessions", keys.sessions_of(id)),
            of("key's id", keys.api_key_id(id)),
            of("owner's keys", keys.api_keys_of(id)),
            of("record", keys.api_key(&hex::encode(id.as_bytes()))),
        ]
    }

    proptest! {
        #[test]
        fn what_is_kept_beside_a_session_lies_in_its_slot(id in "([{}a-c:1]{0,8}|.{0,140})") {
            let SessionKeys { session, end } = Keys::new("app").session_keys(&id);
            prop_assert_eq!(slot(end.as_bytes()), slot(session.as_bytes()), "{} {}", session, end);
        }

        #[test]
        fn what_differs_never_shares_a_key(
            one in "((sid|key|sha256|users|staff|end|-|[{}]|app|session):?){0,4}[a-z0-9:{}]{0,6}",
            other in "((sid|key|users|staff|end|[{}]|app|session):?){0,4}[a-z0-9:{}]{0,6}|.{0,140}",
        ) {
            let keys = Keys::new("app").beside(["users", "staff"].into_iter());
            let users = keys.qualified("users");
            let mut seen = std::collections::HashMap::new();
            let long = "x".repeat(200) + &one;
            let digest = hashed(long.as_bytes());
            for id in [&one, &other, &long, &digest] {
                // An operator may name a digest: what is listed so is found so.
                for (what, key) in families(&keys, &users, id) {
                    if what.starts_with("key's id \"sha256:") {
                        continue;
                    }
                    let known = seen.insert(key.clone(), what.clone());
                    let is_own = known.as_ref().is_none_or(|it| *it == what);
                    prop_assert!(is_own, "{known:?} {what} {key}");
                }
            }
        }

        #[test]
        fn principals_of_different_values_differ(
            text in "(json=|#|json:)?([0-9]{0,3}|true|null|\\[\"a\"\\])",
            json in "[0-9]{1,3}|true|null|\\[\"a\"\\]",
        ) {
            let write = |value: Spelling<'_>| {
                let mut out = String::new();
                push_claim_part(&mut out, None, "sub", &value);
                out
            };
            let string = write(Spelling::Text(&text));
            let other = write(Spelling::Json(json.into()));
            prop_assert_ne!(&string, &other);
            // What `explain` shows is what `limits --key` takes.
            prop_assert_eq!(parse_principal(&string), Some(string));
            prop_assert_eq!(parse_principal(&other), Some(other));
        }
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
        let families = keys.session_families();
        for id in ["s1", "two words", "", "{tag}x", "a}b", "a{}b", "a{b"] {
            let part = Keys::session_part(id);
            assert_eq!(SessionKeys::of_part(&families, &part), keys.session_keys(id));
            // An operator who names it as the index does names the same session; a client does not.
            assert_eq!(keys.listed_session(&part).session, keys.session(id));
            assert_eq!(keys.listed_session(id).end, keys.session_end(id));
            let former = format!("app:session-end:{part}");
            assert_eq!(keys.session_keys(id).former_end(), former);
            let is_hashed = matches!(id, "two words" | "");
            assert_eq!(keys.session(&part) == keys.session(id), !is_hashed);
        }
    }

    #[test]
    fn a_principal_cannot_imitate_a_separator_a_brace_or_a_digest() {
        let principal = |value: &str| {
            let mut out = String::new();
            push_principal_part(&mut out, &["claim:", "sub"], value.as_bytes());
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
            ("cookie:$sid!#%&'*+-.^_`|~=7", Some("cookie:$sid!#%&'*+-.^_`|~=7".to_owned())),
            ("route=r|header:a|b=7", Some("route=r|header:a|b=7".to_owned())),
            ("route=r|header:a", None),
            ("header:a b=7", None),
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
