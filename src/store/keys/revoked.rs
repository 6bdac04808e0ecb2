//! What the key of a revocation says of whom it revokes.

use super::{BLACKLISTS, DIGEST, Keys};

/// What a revocation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokedKind {
    /// One token, by its `jti` or its digest.
    Token,
    /// The tokens of a session, by its `sid`.
    Session,
    /// The tokens of a subject that are older than a time, by its `sub`.
    Subject,
    /// An API key, by its id.
    Key,
    /// A client certificate, by its digest.
    Certificate,
}

impl RevokedKind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Token, Self::Session, Self::Subject, Self::Key, Self::Certificate];

    /// As operators write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Token => "jti",
            Self::Session => "sid",
            Self::Subject => "sub",
            Self::Key => "key",
            Self::Certificate => "cert",
        }
    }
}

/// The parts of a revocation's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevokedParts<'k> {
    /// What it is about.
    pub kind: RevokedKind,
    /// The verifier whose callers are meant, where keys are qualified.
    pub auth: Option<&'k str>,
    /// As it stands there: verbatim, or as a digest.
    pub part: &'k str,
}

impl Keys {
    /// The parts of a revocation's key; nothing where it is another one. Of verifiers whose keys
    /// are qualified, those are told apart that these keys stand beside.
    pub fn revoked_parts<'k>(&self, key: &'k str) -> Option<RevokedParts<'k>> {
        let rest = key.strip_prefix(self.prefix.as_str())?.strip_prefix(":auth:")?;
        if let Some(rest) = rest.strip_prefix("not-before:") {
            let (auth, part) = self.unqualified(rest);
            return Some(RevokedParts { kind: RevokedKind::Subject, auth, part });
        }
        let rest = rest.strip_prefix("blacklist:")?;
        let (auth, rest) = match self.unqualified(rest) {
            (None, rest) => once_qualified(rest).unwrap_or((None, rest)),
            known => known,
        };
        let [sid, id, cert, _] = BLACKLISTS;
        let below = |kind: &str| rest.strip_prefix(kind).and_then(|it| it.strip_prefix(':'));
        let (kind, part) = match (below(sid), below(id), below(cert)) {
            (Some(part), _, _) => (RevokedKind::Session, part),
            (_, Some(part), _) if auth.is_none() => (RevokedKind::Key, part),
            (_, _, Some(part)) if auth.is_none() => (RevokedKind::Certificate, part),
            _ => (RevokedKind::Token, rest),
        };
        (!part.is_empty()).then_some(RevokedParts { kind, auth, part })
    }

    fn unqualified<'k>(&self, rest: &'k str) -> (Option<&'k str>, &'k str) {
        let of = |qualifier: &String| {
            let part = rest.strip_prefix(qualifier.as_str())?;
            let name = rest.get(..qualifier.len().saturating_sub(1))?;
            Some((Some(name), part))
        };
        self.others.iter().find_map(of).unwrap_or((None, rest))
    }

    /// Whether a part of a revocation's key may say how a session is called, in whatever way that
    /// key was made: by an application, or under a configuration that is no longer in force.
    pub fn may_name_session(kind: RevokedKind, part: &str) -> bool {
        let [sid, ..] = BLACKLISTS;
        let is_named = match kind {
            RevokedKind::Session => true,
            RevokedKind::Subject | RevokedKind::Key | RevokedKind::Certificate => false,
            RevokedKind::Token => part.split(':').rev().skip(1).any(|it| it == sid),
        };
        is_named && !Self::is_digest(part)
    }

    /// Whether a part of a revocation's key is a digest of what it revokes.
    pub fn is_digest(part: &str) -> bool {
        part.starts_with(DIGEST)
    }
}

/// A session of a verifier that keys are not, or no longer, qualified by.
fn once_qualified(rest: &str) -> Option<(Option<&str>, &str)> {
    let [sid, id, cert, digest] = BLACKLISTS;
    let (name, below) = rest.split_once(':')?;
    let is_verifier = !name.is_empty() && ![sid, id, cert, digest].contains(&name);
    let is_session = below.strip_prefix(sid).is_some_and(|it| it.starts_with(':'));
    (is_verifier && is_session).then_some((Some(name), below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_a_revocation_says_what_it_revokes() {
        let keys = Keys::new("app").beside(["users"].into_iter());
        let (users, former) = (keys.qualified("users"), keys.qualified("former"));
        let digest = keys.blacklist_digest(b"a.b");
        let digest = digest.strip_prefix("app:auth:blacklist:").unwrap();
        for (key, expected) in [
            (keys.blacklist("t-1"), (RevokedKind::Token, None, "t-1")),
            (keys.blacklist("a:b"), (RevokedKind::Token, None, "a:b")),
            (keys.blacklist_digest(b"a.b"), (RevokedKind::Token, None, digest)),
            (keys.blacklist_session("s:1"), (RevokedKind::Session, None, "s:1")),
            (keys.blacklist_key("0f"), (RevokedKind::Key, None, "0f")),
            (keys.blacklist_certificate("0f"), (RevokedKind::Certificate, None, "0f")),
            (keys.not_before("sid:1"), (RevokedKind::Subject, None, "sid:1")),
            (users.blacklist("t-1"), (RevokedKind::Token, Some("users"), "t-1")),
            (users.blacklist_session("s"), (RevokedKind::Session, Some("users"), "s")),
            (users.not_before("42"), (RevokedKind::Subject, Some("users"), "42")),
            (former.blacklist_session("s"), (RevokedKind::Session, Some("former"), "s")),
            (former.blacklist("t-1"), (RevokedKind::Token, None, "former:t-1")),
        ] {
            let parts = keys.revoked_parts(&key).map(|it| (it.kind, it.auth, it.part));
            assert_eq!(parts, Some(expected), "{key}");
        }
        for key in ["app:auth:key:0f", "app:session:s", "other:auth:blacklist:a", "app:auth:"] {
            assert_eq!(keys.revoked_parts(key), None, "{key}");
        }
        for key in ["app:auth:blacklist:", "app:auth:blacklist:sid:", "app:auth:blacklist:users:"] {
            assert_eq!(keys.revoked_parts(key), None, "{key}");
        }
    }

    #[test]
    fn what_may_name_a_session_is_known_by_itself() {
        let digest = "sha256:2e7336dc";
        for (kind, part, expected) in [
            (RevokedKind::Session, "s", true),
            (RevokedKind::Session, digest, false),
            (RevokedKind::Token, "users:sid:s", true),
            (RevokedKind::Token, "a:b:sid:s", true),
            (RevokedKind::Token, "sid9", false),
            (RevokedKind::Token, "users:t-1", false),
            (RevokedKind::Token, digest, false),
            (RevokedKind::Subject, "urn:sid:9", false),
        ] {
            assert_eq!(Keys::may_name_session(kind, part), expected, "{part}");
        }
    }
}
