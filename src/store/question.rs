//! What one request asks of the store, and what the store says to it.

use std::time::Duration;

use bytes::Bytes;

use super::lineage::{Known, Lineage, Lineages};
use super::{
    Epoch, LeaseReply, Leases, MarkKeys, MarksReply, SessionEnd, StoreError, WantedLock, WindowSet,
    WindowState,
};

/// Most bytes of a not-before time: twenty digits, and room for the spaces of whoever wrote it. A
/// key that holds nothing is as good as none.
pub(super) const NOT_BEFORE_BYTES_MAX: usize = 32;

/// Everything one request asks. Unasked questions cost nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Questions<'a> {
    /// Is the token revoked?
    pub revocation: Option<RevocationKeys<'a>>,
    /// May these limits be charged? All or none.
    pub charges: Option<Charges<'a>>,
    /// Is there a free slot among the requests in flight? Of all limits, or of none.
    pub leases: Option<Leases<'a>>,
    /// What is the caller's session?
    pub session: Option<SessionKey<'a>>,
    /// The stored response and the epochs under which it would be valid.
    pub cached: Option<Cached<'a>>,
    /// Who of these has written lately?
    pub marks: Option<MarkKeys<'a>>,
    /// Who has this idempotency key?
    pub claim: Option<ClaimKey<'a>>,
    /// Epochs that an earlier request could not change; they are changed before anything is read.
    pub pending_purges: &'a [String],
}

/// The revocation keys of one token or API key.
#[derive(Debug, Default, Clone, Copy)]
pub struct RevocationKeys<'a> {
    /// Keys whose existence revokes it.
    pub blacklist: &'a [String],
    /// Key of the subject's not-before time.
    pub not_before: Option<&'a str>,
    /// Key that must exist: the record of an API key.
    pub record: Option<&'a str>,
    /// The proof that comes with a token, and must not have come before.
    pub proof: Option<&'a ProofKey>,
}

/// Where it is noted that a proof has come, and who notes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofKey {
    /// Its key.
    pub key: String,
    /// What no other request writes there: who finds this was the first, also when it asks again
    /// because an answer was lost.
    pub mark: [u8; 16],
    /// How long it is known.
    pub ttl: Duration,
}

impl ProofKey {
    /// The same as a claim to the key.
    pub(super) fn claim(&self) -> ClaimKey<'_> {
        ClaimKey { key: &self.key, value: &self.mark, ttl: self.ttl }
    }
}

/// Where a session lies.
#[derive(Debug, Clone, Copy)]
pub struct SessionKey<'a> {
    /// Its key.
    pub key: &'a str,
    /// Whether what is left of its life is asked for too.
    pub ttl: bool,
    /// Longest value that is of use, in bytes: of a longer one, one byte more is sent.
    pub bytes_max: u64,
    /// The key of what is kept beside it, when its end is asked for too.
    pub end: Option<&'a str>,
}

/// An idempotency key that a request wants to have.
#[derive(Debug, Clone, Copy)]
pub struct ClaimKey<'a> {
    /// Its key.
    pub key: &'a str,
    /// What it holds once it is the request's; nothing is written where it holds something.
    pub value: &'a [u8],
    /// How long it holds that.
    pub ttl: Duration,
}

/// What is asked of each window of a set; `keys[i]` belongs to `set.windows[i]`.
#[derive(Debug, Clone, Copy)]
pub struct Charges<'a> {
    /// The windows.
    pub set: &'a WindowSet,
    /// Their keys, distinct.
    pub keys: &'a [String],
}

/// What the cache needs to read.
#[derive(Debug, Clone, Copy)]
pub struct Cached<'a> {
    /// The keys of the epochs, in order; the first is the base, the last the path's own.
    pub epochs: &'a [String],
    /// The entry, unless this node holds a copy of it already.
    pub entry: Option<CachedEntry<'a>>,
}

/// Which variants of an entry are wanted.
#[derive(Debug, Clone, Copy)]
pub struct CachedEntry<'a> {
    /// The entry's key.
    pub key: &'a str,
    /// Names of variants; there may be none, to learn by what names they are chosen.
    pub variants: &'a [String],
    /// The lock to take in the same step.
    pub lock: Option<WantedLock<'a>>,
}

/// What the store said to each question; `None` was not asked.
#[derive(Debug, Default)]
pub struct Answers {
    /// See [`Questions::revocation`].
    pub revocation: Option<Reply<RevocationStatus>>,
    /// Why it could not be noted that the proof has come: what is said of revocation holds all the
    /// same.
    pub unproven: Option<StoreError>,
    /// See [`Questions::charges`].
    pub charges: Option<Reply<ChargeReply>>,
    /// See [`Questions::leases`].
    pub leases: Option<Reply<LeaseReply>>,
    /// See [`Questions::session`].
    pub session: Option<Reply<Option<SessionReply>>>,
    /// When it ended and why, if that was asked, is known, and the session is not there.
    pub session_end: Option<SessionEnd>,
    /// Whether that is kept beside the session, where it was asked.
    pub keeps_end: bool,
    /// See [`Questions::cached`].
    pub cached: Option<Reply<CachedReply>>,
    /// See [`Questions::marks`].
    pub marks: Option<Reply<MarksReply>>,
    /// See [`Questions::claim`]: what the key held; nothing where it is the request's now.
    pub claim: Option<Reply<Option<Bytes>>>,
    /// Whether `pending_purges` were carried out.
    pub settled: bool,
}

impl RevocationStatus {
    /// Whether it revokes what was issued then (Unix seconds). What does not say when is taken for
    /// old.
    pub fn revokes(self, issued_at: Option<i64>) -> bool {
        let Self { listed, not_before, gone, .. } = self;
        let is_old = not_before.is_some_and(|limit| issued_at.is_none_or(|iat| iat < limit));
        listed || is_old || gone
    }
}

impl Answers {
    /// The same failure to every question that was asked.
    pub fn failed(questions: &Questions<'_>, error: &StoreError) -> Self {
        Self {
            revocation: questions.revocation.map(|_| Err(error.clone())),
            unproven: None,
            charges: questions.charges.map(|_| Err(error.clone())),
            leases: questions.leases.map(|_| Err(error.clone())),
            session: questions.session.map(|_| Err(error.clone())),
            session_end: None,
            keeps_end: false,
            cached: questions.cached.map(|_| Err(error.clone())),
            marks: questions.marks.map(|_| Err(error.clone())),
            claim: questions.claim.map(|_| Err(error.clone())),
            settled: false,
        }
    }
}

impl Questions<'_> {
    /// Whether there is nothing to ask.
    pub fn is_empty(&self) -> bool {
        let Self { revocation, charges, leases, session, cached, marks, claim, .. } = self;
        revocation.is_none()
            && charges.is_none()
            && leases.is_none()
            && session.is_none()
            && cached.is_none()
            && marks.is_none()
            && claim.is_none()
    }
}

/// One answer, or why there is none.
pub type Reply<T> = Result<T, StoreError>;

/// The revocation status of a token or an API key.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct RevocationStatus {
    /// A blacklist key exists.
    pub listed: bool,
    /// The subject's not-before time, Unix seconds.
    pub not_before: Option<i64>,
    /// The record does not exist any more.
    pub gone: bool,
    /// The proof has come before.
    pub replayed: bool,
}

/// When windows were charged, on the clock of the server that did it. Whoever gives a charge back
/// hands it on as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChargedAt {
    micros: u64,
    /// Where the windows lay in several places of a Redis Cluster, the time of each place.
    by_place: Vec<(u16, u64)>,
}

impl ChargedAt {
    /// So many microseconds, modulo 2^48.
    pub fn of(micros: u64) -> Self {
        Self { micros, by_place: Vec::new() }
    }

    /// In microseconds, modulo 2^48.
    pub fn micros(&self) -> u64 {
        self.micros
    }

    /// The same of windows that lay in this place.
    pub(crate) fn micros_in(&self, place: u16) -> u64 {
        let found = self.by_place.iter().find(|(known, _)| *known == place);
        found.map_or(self.micros, |(_, micros)| *micros)
    }

    /// Says for which place this time stands.
    pub(crate) fn in_place(self, place: u16) -> Self {
        Self { by_place: vec![(place, self.micros)], ..self }
    }

    /// Adds the times of other places. Of two that were charged in one place, one after the other,
    /// the first counts: what is given back is not taken from a later charge.
    pub(crate) fn also(&mut self, other: Self) {
        for (place, micros) in other.by_place {
            match self.by_place.iter_mut().find(|(known, _)| *known == place) {
                Some((_, known)) => *known = micros.min(*known),
                None => self.by_place.push((place, micros)),
            }
        }
    }
}

/// The verdict on a set of charges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeReply {
    /// Whether no window stood in the way; only then was anything charged.
    pub allowed: bool,
    /// Names the charge for a refund.
    pub at: ChargedAt,
    /// One state per window, as it was before the charge.
    pub windows: Vec<WindowState>,
}

/// A session as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionReply {
    /// The value.
    pub value: SessionValue,
    /// What is left of its life; `None` when it has no expiry, or when that was not asked.
    pub ttl: Option<Duration>,
}

/// The two shapes in which applications keep sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionValue {
    /// A string: JSON.
    Text(Bytes),
    /// A hash: field and value pairs.
    Fields(Vec<(Bytes, Bytes)>),
}

impl SessionValue {
    /// Whether it is a string that holds nothing, which is as good as no session.
    pub fn is_empty_text(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }
}

/// A stored response and the epochs of now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedReply {
    /// The epochs, in the order of the question, each mixed with the lineage of who said it.
    pub epochs: Vec<Epoch>,
    /// Those lineages.
    pub(crate) lineages: Lineages,
    /// The path's own epoch (the last one), byte for byte as the store has it.
    pub path_epoch: Bytes,
    /// Whether the base epoch exists; without it nothing stored is valid and nothing may be stored.
    pub based: bool,
    /// The sets of field names by which the entry's variants are chosen, one per line, the newest
    /// first; nothing when there is no entry or it was not asked for.
    pub vary: Option<Bytes>,
    /// The variants, in the order of the question.
    pub variants: Vec<Option<Bytes>>,
    /// The token of who has the lock now; nothing where it was not asked for, or none can be taken.
    pub holder: Option<Bytes>,
}

impl CachedReply {
    /// Of epochs that are known without asking, the base first.
    pub fn known(known: &[Known]) -> Self {
        let as_stored = |it: &Known| it.lineage.mix(it.epoch);
        let path = known.last().map(as_stored).filter(|path| *path != Epoch::default());
        let path_epoch = path.map(|path| Bytes::copy_from_slice(&path.to_bytes()));
        let based = known.first().is_some_and(|base| as_stored(base) != Epoch::default());
        Self {
            epochs: known.iter().map(|it| it.epoch).collect(),
            path_epoch: path_epoch.unwrap_or_default(),
            based,
            ..Self::of_epochs(&[])
        }
    }

    /// Of the values under the epochs' keys; no entry.
    pub(crate) fn of_epochs(values: &[Option<Bytes>]) -> Self {
        let value = |at: Option<&Option<Bytes>>| at.and_then(|value| value.clone());
        Self {
            epochs: values.iter().map(|value| Epoch::read(value.as_deref())).collect(),
            path_epoch: value(values.last()).unwrap_or_default(),
            based: value(values.first()).is_some_and(|base| Epoch::is_one(&base)),
            lineages: Lineages::default(),
            vary: None,
            variants: Vec::new(),
            holder: None,
        }
    }

    /// The same where they are of this lineage.
    pub(crate) fn mixed(mut self, lineage: Lineage) -> Self {
        self.epochs.iter_mut().for_each(|epoch| *epoch = lineage.mix(*epoch));
        self.lineages = Lineages::all(lineage);
        self
    }

    /// Each epoch with its lineage.
    pub(crate) fn each(&self) -> impl Iterator<Item = Known> {
        let known =
            |(at, epoch): (usize, &Epoch)| Known { epoch: *epoch, lineage: self.lineages.at(at) };
        self.epochs.iter().enumerate().map(known)
    }

    /// Adds the answer about more epochs: the last one is the path's.
    pub(crate) fn join(&mut self, more: Self) {
        self.lineages.join(self.epochs.len(), more.lineages);
        self.epochs.extend(more.epochs);
        self.path_epoch = more.path_epoch;
    }
}
