//! `idempotency = { … }` of a route: requests that take effect once, however often they are sent
//! with one `Idempotency-Key`.

use std::time::Duration;

use http::Method;
use toml::de::DeValue;

use super::reader::Section;
use super::seal::{self, SealKey};
use super::value::{Flaw, KIB, Mistake, Read, choice, duration, flag, method, size};

/// Longest time that answers are kept.
const KEEP_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The methods that change something, and that a key may go with.
const METHODS: [Method; 4] = [Method::POST, Method::PATCH, Method::PUT, Method::DELETE];

/// `idempotency = { … }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Whether a request of these methods without a key is refused.
    pub required: bool,
    /// The methods whose keys are looked at.
    pub methods: Vec<Method>,
    /// How long an answer is kept, from when it was given.
    pub keep: Duration,
    /// Longest body that is kept, in bytes; of an answer with a longer one the status alone is.
    pub keep_bytes: u64,
    /// What a repeated request meets whose first one has no known outcome.
    pub unknown: UnknownOutcome,
    /// With what kept answers are sealed: the first one seals, each opens.
    pub seal: Vec<SealKey>,
}

/// What becomes of a repeated request where nobody knows what the first one did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownOutcome {
    /// 409.
    Refuse,
    /// It goes to the upstream, which looks at the key itself.
    Forward,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self {
            required: false,
            methods: vec![Method::POST, Method::PATCH],
            keep: Duration::from_secs(24 * 60 * 60),
            keep_bytes: 64 * KIB,
            unknown: UnknownOutcome::Refuse,
            seal: Vec::new(),
        }
    }
}

/// Reads `idempotency = { … }`.
pub(super) fn read(idempotency: &mut Section<'_>) -> Idempotency {
    let default = Idempotency::default();
    let unknown = [("refuse", UnknownOutcome::Refuse), ("forward", UnknownOutcome::Forward)];
    let read = Idempotency {
        required: idempotency.or("required", default.required, flag),
        methods: idempotency.list("methods", unsafe_method).unwrap_or(default.methods),
        keep: idempotency.or("keep", default.keep, duration),
        keep_bytes: idempotency.or("keep_bytes", default.keep_bytes, size(0..=512 * KIB)),
        unknown: idempotency.or("unknown", default.unknown, choice(&unknown)),
        seal: seal::read(idempotency),
    };
    if read.keep > KEEP_MAX {
        idempotency.problem("keep", "is too long", "write at most \"168h\"");
    }
    read
}

fn unsafe_method(value: &DeValue<'_>) -> Read<Method> {
    let named = method(value)?;
    if METHODS.contains(&named) {
        return Ok(named);
    }
    let what = format!("{named} takes no Idempotency-Key");
    let words = METHODS.iter().map(|it| it.as_str().to_owned()).collect();
    let remedy = "write \"POST\", \"PATCH\", \"PUT\" or \"DELETE\"";
    Err(Mistake::new(what, remedy).of(Flaw::Choice(words)))
}
