//! Keys of log-ins at OpenID providers: what was begun, what is kept beside sessions, and by what
//! a provider names those that it ends.

use super::{Keys, part};

impl Keys {
    /// A log-in that was begun, by the SHA-256 of its state in hex.
    pub fn login(&self, digest: &str) -> String {
        format!("{}:auth:login:{digest}", self.prefix)
    }

    /// A `logout_token` that was used, by the SHA-256 of its issuer and its `jti` in hex.
    pub fn logout_token(&self, digest: &str) -> String {
        format!("{}:auth:logout-token:{digest}", self.prefix)
    }

    /// The sessions that come from one session at a provider, a sorted set of ids scored by the
    /// Unix seconds of their creation.
    pub fn provider_sid(&self, provider: &str, sid: &str) -> String {
        format!("{}:auth:provider-sid:{provider}:{}", self.prefix, part(sid))
    }

    /// The same of all sessions of one user of a provider.
    pub fn provider_sub(&self, provider: &str, sub: &str) -> String {
        format!("{}:auth:provider-sub:{provider}:{}", self.prefix, part(sub))
    }

    /// When a provider said last that a session there, or all of a user, ended: for log-ins that
    /// were on their way. `named` is the key of the sessions that this is about.
    pub fn provider_ended(named: &str) -> String {
        format!("{named}:ended")
    }

    /// A provider's tokens, sealed, by the id of the session that has them.
    pub fn provider_tokens(&self, session: &str) -> String {
        format!("{}:auth:provider-tokens:{}", self.prefix, part(session))
    }

    /// Held by who asks for new ones.
    pub fn provider_renewal(&self, session: &str) -> String {
        format!("{}:auth:provider-renewal:{}", self.prefix, part(session))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::keys::Kind;

    #[test]
    fn what_a_provider_chooses_stays_within_its_part() {
        let keys = Keys::new("app");
        assert_eq!(keys.login("ab"), "app:auth:login:ab");
        assert_eq!(keys.provider_sid("id", "s-1"), "app:auth:provider-sid:id:s-1");
        let odd = keys.provider_sub("id", "a b");
        assert!(odd.starts_with("app:auth:provider-sub:id:sha256:"), "{odd}");
        for key in [
            keys.login("ab"),
            keys.logout_token("ab"),
            keys.provider_sid("id", "s"),
            keys.provider_tokens("s"),
            keys.provider_renewal("s"),
        ] {
            assert_eq!(Kind::of(&key), Kind::Session, "{key}");
        }
    }
}
