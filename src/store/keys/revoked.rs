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
        let (auth, rest) = self.unqualified(rest);
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

    /// Whether a part of a revocation's key is a digest of what it revokes.
    pub fn is_digest(part: &str) -> bool {
        part.starts_with(DIGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_a_revocation_says_what_it_revokes() {
        let keys = Keys::new("app").beside(["users"].into_iter());
        let users = keys.qualified("users");
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
}
