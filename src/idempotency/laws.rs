//! The laws of idempotency keys over a model of the store, by random interleavings of requests that
//! repeat each other, crash, and are heard of late. Of what the store is asked some is lost, before
//! or after it took effect, and some comes late.

use std::collections::HashMap;

use bytes::Bytes;
use fastrand::Rng;
use http::{HeaderMap, Method, StatusCode};

use super::*;
use crate::config::{Idempotency, SealKey, UnknownOutcome};

/// How long a claim is waited for, in the model's milliseconds.
const PATIENCE_MS: u64 = 10;
/// Who calls, with the same key.
const CALLERS: [&str; 2] = ["ann", "ben"];

/// Something that the store is asked to do.
#[derive(Debug, Clone)]
struct Change {
    key: String,
    /// What lies there must begin so; nothing: it must not be there, as with `SET … NX`.
    begins: Option<Bytes>,
    /// What lies there then; nothing: it goes.
    value: Option<Bytes>,
}

/// What all requests share.
#[derive(Default)]
struct World {
    now_ms: u64,
    held: HashMap<String, Bytes>,
    /// What is under way to the store, or waits to be told it once more.
    late: Vec<Change>,
    /// Which requests the upstream has acted on.
    executed: Vec<usize>,
    /// How many questions had no answer.
    unheard: usize,
}

impl World {
    /// What lay there before, and was not changed if it began otherwise. As `SET … NX GET` and
    /// `scripts/swap.lua` have it.
    fn apply(&mut self, change: Change) -> Option<Bytes> {
        let Change { key, begins, value } = change;
        let found = self.held.get(&key).cloned();
        let is_so = match (&found, &begins) {
            (None, None) => true,
            (Some(found), Some(begins)) => found.starts_with(begins),
            (Some(_), None) | (None, Some(_)) => false,
        };
        if is_so {
            match value {
                Some(value) => drop(self.held.insert(key, value)),
                None => drop(self.held.remove(&key)),
            }
        }
        found.filter(|_| is_so || begins.is_none())
    }

    /// The same by a network.
    ///
    /// # Errors
    /// There is no answer: it is lost, it took effect, or it comes late.
    fn ask(&mut self, change: Change, random: &mut Rng) -> Result<Option<Bytes>, ()> {
        match random.u8(0..12) {
            0 => {}
            1 => drop(self.apply(change)),
            2 => self.late.push(change),
            _ => return Ok(self.apply(change)),
        }
        self.unheard += 1;
        Err(())
    }

    /// Something that was late comes now, or never: whoever was to tell it is dead.
    fn deliver(&mut self, random: &mut Rng) {
        if self.late.is_empty() {
            return;
        }
        let change = self.late.swap_remove(random.usize(0..self.late.len()));
        if random.u8(0..8) != 0 {
            self.apply(change);
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

#[derive(Debug)]
struct Attempt {
    number: usize,
    caller: usize,
    method: Method,
    /// What it is known by.
    print: u8,
    key: String,
    owner: String,
    at: At,
    /// Whether it took its key over from a request of which nobody knew how it ended.
    is_second: bool,
    /// Whether the upstream has acted on it.
    acted: bool,
    /// Whether it had an answer that is kept.
    is_answered: bool,
    /// What its client was given again.
    replayed: Option<Bytes>,
}

/// What kinds of requests a history has.
#[derive(Clone, Copy)]
struct Kinds {
    /// Whether some of them are PUTs, which may be repeated.
    has_puts: bool,
    /// How many different requests have the key.
    requests: u8,
}

impl Attempt {
    fn new(number: usize, kinds: Kinds, random: &mut Rng) -> Self {
        let caller = random.usize(0..CALLERS.len());
        let is_put = kinds.has_puts && random.bool();
        let named = Owner::Subject { verifier: "users", subject: CALLERS[caller] };
        let fields = HeaderMap::from_iter([(IDEMPOTENCY_KEY, "k".parse().unwrap())]);
        let key = scoped(named, "orders", &Key::of(&fields).unwrap().unwrap());
        Self {
            number,
            caller,
            method: if is_put { Method::PUT } else { Method::POST },
            print: 2 * random.u8(0..kinds.requests) + u8::from(is_put),
            key,
            owner: format!("o{number}"),
            at: At::Begin,
            is_second: false,
            acted: false,
            is_answered: false,
            replayed: None,
        }
    }

    fn seen(&self) -> Seen {
        Seen::Whole(Fingerprint::from_bytes([self.print; 32]))
    }

    fn lock(&self, policy: &Idempotency) -> Lock {
        Lock::of(policy, "orders", &self.key)
    }

    fn pending(&self, until_ms: u64) -> Bytes {
        Pending { owner: &self.owner, until_ms }.value().into()
    }

    /// What becomes of its own key.
    fn swap(&self, value: Option<Bytes>) -> Change {
        let begins = Some(Pending::begins(&self.owner).into());
        Change { key: self.key.clone(), begins, value }
    }

    /// What its key holds when it had no effect.
    fn freed(&self) -> Option<Bytes> {
        self.is_second.then(|| Pending::unknown(&self.owner).into())
    }

    /// It does not know whether the key is its own, and gives it back; twice, since what it asked
    /// may come behind that.
    fn give_back(&mut self, world: &mut World) {
        let freed = self.swap(self.freed());
        world.late.extend([freed.clone(), freed]);
        self.at = At::Over;
    }

    fn ask(&mut self, world: &mut World, policy: &Idempotency, random: &mut Rng) {
        let own = self.pending(world.now_ms + PATIENCE_MS);
        let claim = Change { key: self.key.clone(), begins: None, value: Some(own.clone()) };
        let Ok(found) = world.ask(claim, random) else { return self.give_back(world) };
        self.at = match standing(found, &own, world.now_ms) {
            Standing::Own => At::Claimed,
            Standing::Unknown(found) if may_repeat(policy, &self.method) => {
                self.is_second = true;
                let key = self.key.clone();
                let over = Change { key, begins: Some(found), value: Some(own) };
                match world.ask(over, random) {
                    Ok(Some(_)) => At::Claimed,
                    Ok(None) => At::Over,
                    Err(()) => return self.give_back(world),
                }
            }
            Standing::Running | Standing::Unknown(_) => At::Over,
            Standing::Ended(ended) => {
                assert!(policy.seal.is_empty(), "it lies in clear");
                self.replay(*ended);
                At::Over
            }
            Standing::Sealed(sealed) => {
                self.replay(self.lock(policy).open(&sealed).expect("its own key opens it"));
                At::Over
            }
        };
    }

    fn replay(&mut self, ended: Ended) {
        let kept = ended.kept.filter(|_| ended.seen == self.seen());
        self.replayed = kept.map(|(_, body)| body);
    }

    /// The upstream acts, or does not, and its answer comes, or does not.
    fn end(&mut self, world: &mut World, policy: &Idempotency, random: &mut Rng) {
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
            Fate::Free => self.freed(),
            Fate::Unknown => Some(Pending::unknown(&self.owner).into()),
            Fate::Answered => {
                self.is_answered = true;
                let body = Bytes::from(format!("answer {}", self.number));
                let kept = Some((HeaderMap::new(), body));
                let ended = Ended { seen: self.seen(), status, kept };
                Some(self.lock(policy).shut(&ended).into())
            }
        };
        let end = self.swap(value);
        if world.ask(end.clone(), random).is_err() {
            // It is told once more, until the store says that it knows.
            world.late.push(end);
        }
        self.at = At::Over;
    }

    fn step(&mut self, world: &mut World, policy: &Idempotency, random: &mut Rng) {
        if random.u8(0..10) == 0 {
            // It crashes; once sent, the upstream may act all the same.
            self.at = At::Over;
            return;
        }
        match self.at {
            At::Begin => self.ask(world, policy, random),
            At::Claimed => {
                self.at = At::Sent;
                self.acted = random.u8(0..4) != 0;
                if self.acted {
                    world.executed.push(self.number);
                }
            }
            At::Sent => self.end(world, policy, random),
            At::Over => {}
        }
        let renews = matches!(self.at, At::Claimed | At::Sent) && random.u8(0..4) != 0;
        if renews {
            let value = self.pending(world.now_ms + PATIENCE_MS);
            let _ = world.ask(self.swap(Some(value)), random);
        }
    }
}

/// A history of so many requests: what became of the world, and of each.
fn history(seed: u64, policy: &Idempotency, kinds: Kinds) -> (World, Vec<Attempt>) {
    let mut random = Rng::with_seed(seed);
    let mut world = World { now_ms: 1, ..World::default() };
    let count = random.usize(3..12);
    let mut attempts: Vec<_> =
        (0..count).map(|number| Attempt::new(number, kinds, &mut random)).collect();
    while attempts.iter().any(|it| it.at != At::Over) {
        world.now_ms += random.u64(0..4);
        if random.bool() {
            world.deliver(&mut random);
        }
        attempts[random.usize(0..count)].step(&mut world, policy, &mut random);
    }
    while !world.late.is_empty() {
        world.deliver(&mut random);
    }
    (world, attempts)
}

/// What was given again was an answer to the same request of the same caller.
fn replays(seed: u64, attempts: &[Attempt]) -> usize {
    let again = attempts.iter().filter_map(|it| Some((it, it.replayed.as_ref()?)));
    again
        .map(|(attempt, replayed)| {
            let of = attempts.iter().find(|it| format!("answer {}", it.number) == *replayed);
            let of = of.unwrap_or_else(|| panic!("{seed}: {replayed:?} is nobody's answer"));
            let is_same = (of.caller, of.print) == (attempt.caller, attempt.print);
            assert!(of.is_answered && is_same, "{seed}: {attempt:?} was given that of {of:?}");
        })
        .count()
}

/// How often the upstream acted on requests of this caller that may not be repeated.
fn executions(world: &World, attempts: &[Attempt], caller: usize) -> usize {
    let of = world.executed.iter().map(|number| &attempts[*number]);
    of.filter(|it| it.caller == caller && it.method == Method::POST).count()
}

#[test]
fn a_request_takes_effect_once_however_it_is_repeated_and_whoever_crashes() {
    let open = Idempotency::default();
    let sealing = Idempotency { seal: vec![key(1)], ..Idempotency::default() };
    let (mut acted, mut again, mut unknown, mut unheard) = (0, 0, 0, 0);
    for seed in 0..40_000 {
        let kinds = Kinds { has_puts: seed % 2 == 0, requests: 1 + (seed / 2 % 2) as u8 };
        let policy = if seed % 8 < 2 { &sealing } else { &open };
        let (world, attempts) = history(seed, policy, kinds);
        for caller in 0..CALLERS.len() {
            let count = executions(&world, &attempts, caller);
            assert!(count <= 1, "{seed}: {:?} of {attempts:#?}", world.executed);
            acted += count;
        }
        again += replays(seed, &attempts);
        unheard += world.unheard;
        // Nobody waits for ever.
        let end = world.now_ms + PATIENCE_MS;
        for held in world.held.into_values() {
            let last = standing(Some(held), b"", end);
            assert_ne!(last, Standing::Running, "{seed}");
            unknown += usize::from(matches!(last, Standing::Unknown(_)));
        }
    }
    let counts = [acted, again, unknown, unheard];
    assert!(counts.iter().all(|count| *count > 2_000), "{counts:?}");
}

/// A key whose request was never sent is free again once all that was late has come, unless
/// somebody died with it.
#[test]
fn who_hears_nothing_of_the_store_leaves_the_key_free() {
    let mut random = Rng::with_seed(1);
    let kinds = Kinds { has_puts: false, requests: 1 };
    let mut unheard = 0;
    for number in 0..2_000 {
        let mut world = World { now_ms: 1, ..World::default() };
        let mut attempt = Attempt::new(number, kinds, &mut random);
        attempt.ask(&mut world, &Idempotency::default(), &mut random);
        if attempt.at == At::Claimed {
            continue;
        }
        unheard += 1;
        // In the order in which it was asked, as on one connection.
        for change in std::mem::take(&mut world.late) {
            world.apply(change);
        }
        assert!(world.held.is_empty(), "{number}: {:?}", world.held);
    }
    assert!(unheard > 200, "{unheard}");
}

fn key(byte: u8) -> SealKey {
    SealKey::parse(format!("{byte:02x}").repeat(32).as_bytes()).unwrap()
}

/// Nobody else's answer is given, and none is taken for a request that may be sent once more.
#[test]
fn what_is_sealed_opens_with_its_keys_under_its_key_of_its_route() {
    let of = |keys: &[SealKey], route: &str, at: &str| {
        Lock::of(&Idempotency { seal: keys.to_vec(), ..Idempotency::default() }, route, at)
    };
    let headers = HeaderMap::from_iter([(http::header::LOCATION, "/orders/1".parse().unwrap())]);
    let ended = Ended {
        seen: Seen::Whole(Fingerprint::from_bytes([9; 32])),
        status: StatusCode::CREATED,
        kept: Some((headers, Bytes::from("a body"))),
    };
    let sealed = Bytes::from(of(&[key(1)], "r", "k").shut(&ended));
    for open in [&b"a body"[..], b"/orders/1", &[9; 32]] {
        assert!(!sealed.windows(open.len()).any(|it| it == open), "{open:?}");
    }
    for keys in [&[key(1)][..], &[key(2), key(1)]] {
        assert_eq!(of(keys, "r", "k").open(&sealed), Some(ended.clone()));
    }
    for lock in [
        of(&[], "r", "k"),
        of(&[key(2)], "r", "k"),
        of(&[key(1)], "s", "k"),
        of(&[key(1)], "r", "l"),
        of(&[key(1)], "rk", ""),
    ] {
        assert_eq!(lock.open(&sealed), None, "{lock:?}");
    }
    // Whatever becomes of it, it never looks like one of which nobody knows how it ended.
    for torn in [sealed.clone(), sealed.slice(..4), sealed.slice(..sealed.len() - 1)] {
        assert_eq!(standing(Some(torn.clone()), b"p o 9", 0), Standing::Sealed(torn));
    }
    assert_eq!(of(&[], "r", "k").shut(&ended), ended.value());
}

#[test]
fn who_forwards_what_is_unknown_repeats_it_only_after_that() {
    let policy = Idempotency { unknown: UnknownOutcome::Forward, ..Idempotency::default() };
    let (mut repeated, mut again) = (0, 0);
    for seed in 0..20_000 {
        let kinds = Kinds { has_puts: seed % 2 == 0, requests: 2 };
        let (world, attempts) = history(seed, &policy, kinds);
        for caller in 0..CALLERS.len() {
            let of: Vec<_> = world.executed.iter().map(|number| &attempts[*number]).collect();
            let of: Vec<_> = of.into_iter().filter(|it| it.caller == caller).collect();
            // Who comes second has taken the key over.
            assert!(of.iter().filter(|it| !it.is_second).count() <= 1, "{seed}: {of:#?}");
            repeated += usize::from(of.len() > 1);
        }
        again += replays(seed, &attempts);
    }
    assert!(repeated > 400 && again > 500, "{repeated} {again}: the upstream must look at keys");
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
