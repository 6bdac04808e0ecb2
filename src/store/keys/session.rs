//! Keys of sessions: the session, what is kept beside it, and the index of its user's sessions.

use super::{Keys, listed, part};

/// The keys of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionKeys {
    /// Of the session.
    pub session: String,
    /// Of what is kept beside it; only read where sessions are prolonged.
    pub end: String,
}

impl Keys {
    /// The keys of one session.
    pub fn session_keys(&self, id: &str) -> SessionKeys {
        SessionKeys { session: self.session(id), end: self.session_end(id) }
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

    /// An id as it stands in keys and indexes, where an operator names it, also as it was listed.
    pub fn session_part(id: &str) -> String {
        listed(id).into_owned()
    }

    /// The keys of a session whose id an operator names, also as it was listed.
    pub fn listed_session(&self, id: &str) -> SessionKeys {
        let [session, end] = self.session_families().map(|family| family + &listed(id));
        SessionKeys { session, end }
    }

    /// What stands before the id in the keys of sessions, and of what is kept beside them: for
    /// scripts that find ids in an index.
    pub fn session_families(&self) -> [String; 2] {
        [format!("{}:session:", self.prefix), format!("{}:session-end:", self.prefix)]
    }
}
