//! The laws of idempotency keys over a model of the store, by random interleavings of requests that
//! repeat each other, crash, and are heard of late.

use bytes::Bytes;
use fastrand::Rng;
use http::{HeaderMap, Method, StatusCode};

use super::*;
use crate::config::{Idempotency, UnknownOutcome};

/// How long a claim is waited for, in the model's milliseconds.
const PATIENCE_MS: u64 = 10;

/// What all requests share.
#[derive(Default)]
struct World {
    now_ms: u64,
    held: Option<Bytes>,
    /// Which requests the upstream has acted on.
    executed: Vec<usize>,
}

impl World {
    fn begins(&self, with: &str) -> bool {
        self.held.as_ref().is_some_and(|held| held.starts_with(with.as_bytes()))
    }

    /// As `scripts/swap.lua` has it.
    fn swap(&mut self, begins: &str, value: Option<Bytes>) {
        if self.begins(begins) {
            self.held = value;
        }
    }
}

/// How far one of the requests has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Begin,
    Claimed,
    Sent,
    Over,
}

struct Attempt {
    number: usize,
    owner: String,
    at: At,
    /// Whether the upstream has acted on it.
    acted: bool,
    /// What its client was given again.
    replayed: Option<Bytes>,
}

impl Attempt {
    fn pending(&self, until_ms: u64) -> Bytes {
        Pending { owner: &self.owner, until_ms }.value().into()
    }

    fn ask(&mut self, world: &mut World, policy: &Idempotency) {
        let own = self.pending(world.now_ms + PATIENCE_MS);
        let found = world.held.clone();
        world.held.get_or_insert_with(|| own.clone());
        self.at = match standing(found, &own, world.now_ms) {
            Standing::Own => At::Claimed,
            Standing::Unknown(found) if may_repeat(policy, &Method::POST) => {
                let taken = world.held.as_ref() == Some(&found);
                world.held = if taken { Some(own) } else { world.held.take() };
                if taken { At::Claimed } else { At::Over }
            }
            Standing::Running | Standing::Unknown(_) => At::Over,
            Standing::Ended(ended) => {
                self.replayed = ended.kept.map(|(_, body)| body);
                At::Over
            }
        };
    }

    /// The upstream acts, or does not, and its answer comes, or does not.
    fn end(&mut self, world: &mut World, random: &mut Rng) {
        let begins = Pending::begins(&self.owner);
        let (is_answered, is_in_doubt) = (random.bool(), random.bool());
        let statuses: &[u16] = match self.acted && !is_in_doubt {
            // What says that nothing was done says the truth, unless another server has acted.
            true => &[200, 404, 500, 502, 504],
            false => &[200, 404, 500, 502, 504, 408, 425, 429, 503],
        };
        let status = StatusCode::from_u16(statuses[random.usize(0..statuses.len())]).unwrap();
        let fate = match is_answered {
            true => after_answer(status, is_in_doubt),
            false => after_failure(self.acted || random.bool()),
        };
        let value = match fate {
            Fate::Free => None,
            Fate::Unknown => Some(Pending::unknown(&self.owner).into()),
            Fate::Answered => {
                let seen = Seen::Whole(Fingerprint::from_bytes([7; 32]));
                let body = Bytes::from(format!("answer {}", self.number));
                let kept = Some((HeaderMap::new(), body));
                Some(Ended { seen, status, kept }.value().into())
            }
        };
        world.swap(&begins, value);
        self.at = At::Over;
    }

    fn step(&mut self, world: &mut World, policy: &Idempotency, random: &mut Rng) {
        if random.u8(0..10) == 0 {
            // It crashes; once sent, the upstream may act all the same.
            self.at = At::Over;
            return;
        }
        match self.at {
            At::Begin => self.ask(world, policy),
            At::Claimed => {
                self.at = At::Sent;
                self.acted = random.u8(0..4) != 0;
                if self.acted {
                    world.executed.push(self.number);
                }
            }
            At::Sent => self.end(world, random),
            At::Over => {}
        }
        let renews = matches!(self.at, At::Claimed | At::Sent) && random.u8(0..4) != 0;
        if renews {
            let value = self.pending(world.now_ms + PATIENCE_MS);
            world.swap(&Pending::begins(&self.owner), Some(value));
        }
    }
}

/// A history of so many requests: what became of the world, and of each.
fn history(seed: u64, policy: &Idempotency) -> (World, Vec<Attempt>) {
    let mut random = Rng::with_seed(seed);
    let mut world = World { now_ms: 1, ..World::default() };
    let count = random.usize(2..8);
    let attempt = |number| Attempt {
        number,
        owner: format!("o{number}"),
        at: At::Begin,
        acted: false,
        replayed: None,
    };
    let mut attempts: Vec<_> = (0..count).map(attempt).collect();
    while attempts.iter().any(|it| it.at != At::Over) {
        world.now_ms += random.u64(0..4);
        let at = random.usize(0..count);
        attempts[at].step(&mut world, policy, &mut random);
    }
    (world, attempts)
}

#[test]
fn a_request_takes_effect_once_however_it_is_repeated_and_whoever_crashes() {
    let policy = Idempotency::default();
    let (mut acted, mut replays, mut unknown) = (0, 0, 0);
    for seed in 0..20_000 {
        let (world, attempts) = history(seed, &policy);
        assert!(world.executed.len() <= 1, "{seed}: {:?}", world.executed);
        acted += world.executed.len();
        for replayed in attempts.iter().filter_map(|it| it.replayed.as_ref()) {
            let of = attempts.iter().find(|it| format!("answer {}", it.number) == *replayed);
            // Who has not acted may have been answered, and then nobody acts.
            let of = of.unwrap_or_else(|| panic!("{seed}: {replayed:?} is nobody's answer"));
            assert!(of.acted || world.executed.is_empty(), "{seed}");
            replays += 1;
        }
        // Nobody waits for ever.
        let end = world.now_ms + PATIENCE_MS;
        let last = standing(world.held, b"", end);
        assert_ne!(last, Standing::Running, "{seed}");
        unknown += usize::from(matches!(last, Standing::Unknown(_)));
    }
    assert!(acted > 5_000 && replays > 2_000 && unknown > 2_000, "{acted} {replays} {unknown}");
}

#[test]
fn who_forwards_what_is_unknown_repeats_it_only_after_that() {
    let policy = Idempotency { unknown: UnknownOutcome::Forward, ..Idempotency::default() };
    let repeated = (0..5_000).filter(|seed| history(*seed, &policy).0.executed.len() > 1).count();
    assert!(repeated > 100, "{repeated}: the upstream must look at the key itself");
}

#[test]
fn what_lies_under_a_key_comes_back_and_what_nobody_can_read_is_unknown() {
    let seen = Seen::Head(Fingerprint::from_bytes([9; 32]));
    let headers = HeaderMap::from_iter([(http::header::LOCATION, "/orders/1".parse().unwrap())]);
    for kept in [None, Some((headers, Bytes::from("body")))] {
        let ended = Ended { seen, status: StatusCode::CREATED, kept };
        let value = Bytes::from(ended.value());
        assert_eq!(standing(Some(value.clone()), b"p o 9", 0), Standing::Ended(Box::new(ended)));
        let torn = value.slice(..value.len() - 1);
        assert_eq!(standing(Some(torn.clone()), b"", 0), Standing::Unknown(torn));
    }
    let pending = Bytes::from(Pending { owner: "o", until_ms: 7 }.value());
    assert_eq!(standing(Some(pending.clone()), b"", 6), Standing::Running);
    assert_eq!(standing(Some(pending.clone()), b"", 7), Standing::Unknown(pending.clone()));
    assert_eq!(standing(Some(pending.clone()), &pending, 9), Standing::Own, "it came twice");
    assert_eq!(standing(None, b"", 9), Standing::Own);
    let unknown = Bytes::from(Pending::unknown("o"));
    assert_eq!(standing(Some(unknown.clone()), b"", 0), Standing::Unknown(unknown.clone()));
    assert!(!unknown.starts_with(Pending::begins("o").as_bytes()), "a late renewal finds nothing");
    for odd in ["", "p ", "p o", "p o x", "hello"] {
        let odd = Bytes::from(odd);
        assert_eq!(standing(Some(odd.clone()), b"x", 0), Standing::Unknown(odd));
    }
}

#[test]
fn an_answer_frees_its_key_only_where_it_says_that_nothing_was_done() {
    let fate = |status, in_doubt| after_answer(StatusCode::from_u16(status).unwrap(), in_doubt);
    for status in [200, 201, 204, 302, 400, 401, 409, 422, 500, 501] {
        assert_eq!(fate(status, false), Fate::Answered, "{status}");
    }
    for status in [408, 425, 429, 503] {
        assert_eq!(fate(status, false), Fate::Free, "{status}");
        assert_eq!(fate(status, true), Fate::Unknown, "{status}: somebody else may have acted");
    }
    // Whether whoever is behind the upstream has acted, it does not know itself.
    for (status, in_doubt) in [(502, false), (502, true), (504, false), (504, true)] {
        assert_eq!(fate(status, in_doubt), Fate::Unknown, "{status}");
    }
    assert_eq!((after_failure(false), after_failure(true)), (Fate::Free, Fate::Unknown));
}
