//! Who is logged in to the dashboard: random sessions, of which only digests are kept, and codes
//! that are good for one log-in. All of it is in memory, so it ends with the process. Pure: it is
//! told what time it is.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::time::Instant;

use super::throttle::Throttle;
use crate::base::http::hex;

/// Random bytes of a session, and of a code.
const SECRET_BYTES: usize = 32;
/// Most sessions; beyond them the one that was used least lately ends.
const SESSIONS_MAX: usize = 64;
/// Longest time without a request.
pub(super) const IDLE: Duration = Duration::from_secs(30 * 60);
/// Longest life.
const LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// Most codes; beyond them the oldest ends.
const CODES_MAX: usize = 64;
/// Life of a code.
pub(super) const CODE_LIFE: Duration = Duration::from_secs(60);
/// Bytes of a session's digest that name it in the audit.
const NAME_BYTES: usize = 8;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Look.
    Read,
    /// Also change.
    Operate,
}

impl Role {
    /// Its word in answers.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

/// The SHA-256 of a credential. Digests have one length, so that comparing them tells none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    pub(super) fn of(credential: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, credential).as_ref());
        Self(bytes)
    }

    /// Whether both are of the same credential, in a time that does not tell where they differ.
    pub(super) fn is(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

#[derive(Debug)]
struct Session {
    digest: Digest,
    role: Role,
    ends: Instant,
    /// The same for people.
    ends_at: jiff::Timestamp,
    used: Instant,
}

impl Session {
    fn is_alive(&self, now: Instant) -> bool {
        now < self.ends && now.saturating_duration_since(self.used) < IDLE
    }

    fn found(&self) -> Found {
        let name = hex::encode(self.digest.0.get(..NAME_BYTES).unwrap_or_default());
        Found { name, role: self.role, ends_at: self.ends_at }
    }
}

#[derive(Debug)]
struct Code {
    digest: Digest,
    role: Role,
    ends: Instant,
}

/// A session that is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// What the audit calls it; it opens nothing.
    pub(super) name: String,
    /// The role of whoever logged in.
    pub(super) role: Role,
    /// When it ends however much it is used.
    pub(super) ends_at: jiff::Timestamp,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Logins {
    sessions: Mutex<Vec<Session>>,
    codes: Mutex<Vec<Code>>,
    /// Who fails.
    pub(super) throttle: Mutex<Throttle>,
}

/// Whether a bearer has the form of a session or a code.
pub(super) fn has_form_of_session(bearer: &[u8]) -> bool {
    URL_SAFE_NO_PAD.decode(bearer).is_ok_and(|bytes| bytes.len() == SECRET_BYTES)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Logins {
    /// A new session, and what is known of it; nothing when the system has no random bytes, or when
    /// all places are those of people who may do more.
    pub(super) fn open(&self, role: Role, now: Instant) -> Option<(String, Found)> {
        let secret = random()?;
        let life = jiff::SignedDuration::try_from(LIFE).ok()?;
        let ends_at = jiff::Timestamp::now().checked_add(life).ok()?;
        let digest = Digest::of(secret.as_bytes());
        let session = Session { digest, role, ends: now + LIFE, ends_at, used: now };
        let found = session.found();
        let mut sessions = lock(&self.sessions);
        sessions.retain(|session| session.is_alive(now));
        if sessions.len() >= SESSIONS_MAX {
            // Nobody who only looks throws out somebody who operates.
            let all = sessions.iter().enumerate().filter(|(_, it)| it.role <= role);
            let (at, _) = all.min_by_key(|(_, session)| session.used)?;
            sessions.remove(at);
        }
        sessions.push(session);
        Some((secret, found))
    }

    /// The session of this digest, which is used now.
    pub(super) fn find(&self, digest: &Digest, now: Instant) -> Option<Found> {
        let mut sessions = lock(&self.sessions);
        let session = sessions.iter_mut().find(|session| session.digest.is(digest))?;
        session.is_alive(now).then(|| {
            session.used = now;
            session.found()
        })
    }

    /// Ends the session of this digest.
    pub(super) fn end(&self, digest: &Digest) {
        lock(&self.sessions).retain(|session| !session.digest.is(digest));
    }

    /// A code that logs in once; nothing when the system has no random bytes, or as for sessions.
    pub(super) fn code(&self, role: Role, now: Instant) -> Option<String> {
        let secret = random()?;
        let mut codes = lock(&self.codes);
        codes.retain(|code| now < code.ends);
        if codes.len() >= CODES_MAX {
            let oldest = codes.iter().position(|code| code.role <= role)?;
            codes.remove(oldest);
        }
        let digest = Digest::of(secret.as_bytes());
        codes.push(Code { digest, role, ends: now + CODE_LIFE });
        Some(secret)
    }

    /// Uses a code up; the role of whoever made it.
    pub(super) fn redeem(&self, code: &str, now: Instant) -> Option<Role> {
        let digest = Digest::of(code.as_bytes());
        let mut codes = lock(&self.codes);
        let at = codes.iter().position(|code| code.digest.is(&digest))?;
        let code = codes.remove(at);
        (now < code.ends).then_some(code.role)
    }
}

/// 256 random bits as base64url.
fn random() -> Option<String> {
    let mut secret = [0; SECRET_BYTES];
    aws_lc_rs::rand::fill(&mut secret).ok()?;
    Some(URL_SAFE_NO_PAD.encode(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_session_ends_unused_or_old_or_when_it_is_ended() {
        let (logins, start) = (Logins::default(), Instant::now());
        let (session, opened) = logins.open(Role::Operate, start).unwrap();
        assert_eq!(session.len(), 43);
        let digest = Digest::of(session.as_bytes());
        let role = |at: Duration| logins.find(&digest, start + at).map(|found| found.role);
        assert_eq!(role(Duration::ZERO), Some(Role::Operate));
        assert_eq!(logins.find(&Digest::of(b"other"), start), None);
        // It is used in time, again and again, and ends all the same.
        let mut at = Duration::ZERO;
        while at + IDLE < LIFE + SECOND {
            at += IDLE.checked_sub(SECOND).unwrap();
            assert_eq!(role(at).is_some(), at < LIFE, "{at:?}");
        }
        assert_eq!(role(LIFE), None);
        let (idle, _) = logins.open(Role::Read, start).unwrap();
        let idle = Digest::of(idle.as_bytes());
        assert!(logins.find(&idle, start + IDLE.checked_sub(SECOND).unwrap()).is_some());
        assert_eq!(logins.find(&idle, start + IDLE * 2), None);
        let (ended, found) = logins.open(Role::Read, start).unwrap();
        let ended = Digest::of(ended.as_bytes());
        assert_eq!(logins.find(&ended, start), Some(found));
        logins.end(&ended);
        assert_eq!(logins.find(&ended, start), None);
        assert!(opened.name.len() == 16 && !session.contains(&opened.name));
    }

    #[test]
    fn a_code_is_good_once_and_for_a_minute() {
        let (logins, start) = (Logins::default(), Instant::now());
        let code = logins.code(Role::Read, start).unwrap();
        assert_eq!(logins.redeem(&code, start + SECOND), Some(Role::Read));
        assert_eq!(logins.redeem(&code, start + SECOND), None);
        let late = logins.code(Role::Operate, start).unwrap();
        assert_eq!(logins.redeem(&late, start + CODE_LIFE), None);
        assert_eq!(logins.redeem("", start), None);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (logins, start) = (Logins::default(), Instant::now());
        let open = |at: Duration| {
            let (session, _) = logins.open(Role::Read, start + at).unwrap();
            Digest::of(session.as_bytes())
        };
        let (first, second) = (open(Duration::ZERO), open(Duration::ZERO));
        for number in 2..64 {
            open(SECOND * number);
        }
        assert!(logins.find(&first, start + SECOND * 70).is_some());
        open(SECOND * 70);
        assert!(logins.find(&first, start + SECOND * 71).is_some(), "it was used last");
        assert_eq!(logins.find(&second, start + SECOND * 71), None);
        let code = logins.code(Role::Read, start).unwrap();
        for _ in 0..CODES_MAX {
            logins.code(Role::Read, start).unwrap();
        }
        assert_eq!(logins.redeem(&code, start), None);
    }

    #[test]
    fn who_only_looks_throws_out_nobody_who_operates() {
        let (logins, start) = (Logins::default(), Instant::now());
        let open = |role| logins.open(role, start).map(|(it, _)| Digest::of(it.as_bytes()));
        let operator = open(Role::Operate).unwrap();
        let code = logins.code(Role::Operate, start).unwrap();
        for _ in 0..SESSIONS_MAX.max(CODES_MAX) {
            open(Role::Read).unwrap();
            logins.code(Role::Read, start).unwrap();
        }
        assert!(logins.find(&operator, start).is_some());
        assert_eq!(logins.redeem(&code, start), Some(Role::Operate));
        for _ in 0..SESSIONS_MAX {
            open(Role::Operate).unwrap();
        }
        assert!(open(Role::Read).is_none(), "all places are taken by those who may do more");
        assert!(open(Role::Operate).is_some());
    }
}
