//! Keys of sessions: the session, what is kept beside it, and the index of its user's sessions.

use super::slot::{tag, tag_beside};
use super::{Keys, listed, part};

/// The keys of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionKeys {
    /// Of the session.
    pub session: String,
    /// Of what is kept beside it; only read where sessions are prolonged.
    pub end: String,
}

impl SessionKeys {
    /// Of an id as it stands in an index; `families` are [`Keys::session_families`].
    pub fn of_part(families: &[String; 2], part: &str) -> Self {
        let session = [&*families[0], part].concat();
        let end = beside(&families[1], &session);
        Self { session, end }
    }

    /// Where what is beside it was kept before it shared a slot. Whose it is stands there until the
    /// session has been prolonged or written since.
    pub fn former_end(&self) -> String {
        // They differ behind the prefix and `:session`.
        let bytes = self.session.bytes().zip(self.end.bytes());
        let (family, id) =
            self.session.split_at(bytes.take_while(|(one, other)| one == other).count());
        [family, "-end", id].concat()
    }
}

/// The key of what is kept beside `key`, in its slot: `family` and the whole key as the hash tag.
/// A key that has a tag of its own keeps that, behind a colon, so that no two keys have one beside
/// them in common.
fn beside(family: &str, key: &str) -> String {
    if tag(key.as_bytes()).is_some() {
        return [family, ":", key].concat();
    }
    [family, &tag_beside(key)].concat()
}

impl Keys {
    /// The keys of one session.
    pub fn session_keys(&self, id: &str) -> SessionKeys {
        SessionKeys { session: self.session(id), end: self.session_end(id) }
    }

    /// What is kept beside a session, a hash: `ends` (why, and Unix ms), `seen` (Unix ms), `index`
    /// (whose it is), and while it is being written `writing` (until when that counts, Unix ms).
    ///
    /// It lies in the slot of the session.
    pub fn session_end(&self, id: &str) -> String {
        beside(&[&*self.prefix, ":session-end:"].concat(), &self.session(id))
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
        SessionKeys::of_part(&self.session_families(), &listed(id))
    }

    /// What stands before the id in the keys of sessions, and of what is kept beside them: for
    /// whoever finds ids in an index ([`SessionKeys::of_part`]).
    pub fn session_families(&self) -> [String; 2] {
        [format!("{}:session:", self.prefix), format!("{}:session-end:", self.prefix)]
    }
}
