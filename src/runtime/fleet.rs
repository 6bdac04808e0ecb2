//! What gateways that share a store tell each other of upstreams and canaries, once a second, while
//! no request waits. It is advice: without the store each one decides alone.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::Gateway;
use crate::base::instance;
use crate::config::{Config, StoreUse};
use crate::plan::Plan;
use crate::store::{Heard, Store, StoreError, TELLING_BYTES_MAX, Telling};
use crate::traffic::Canary;
use crate::upstream::Upstream;

/// How often they tell each other.
const PERIOD: Duration = Duration::from_secs(1);
/// How many upstreams or canaries are asked about in one question: it must be answered within
/// `store.timeout`, and all gateways of a large fleet have something to say of each.
const AT_ONCE: usize = 32;
/// How long what was told holds.
const KEPT: Duration = Duration::from_secs(5);

impl Gateway {
    /// Has this gateway take part, until it is gone.
    pub(super) fn take_part_in_fleet(self: &Arc<Self>) {
        // A store of its own tells it nothing.
        if self.store.is_shared(StoreUse::Main) {
            tokio::spawn(take_part(Arc::downgrade(self)));
        }
    }
}

/// What is known of the exchange itself.
#[derive(Default)]
struct Exchange {
    /// When others were heard last, by upstream.
    heard: HashMap<String, Instant>,
    /// How many upstreams to leave for last: a round that had no time for all ended behind them.
    late: usize,
    /// Whether it was said that Redis does not let them.
    has_warned: bool,
    /// Whether it has not let them in this round.
    is_refused: bool,
}

/// An upstream, and what this gateway says of it.
struct Said<'a> {
    name: &'a str,
    upstream: &'a Upstream,
    key: String,
    value: Vec<u8>,
}

async fn take_part(gateway: Weak<Gateway>) {
    let mut exchange = Exchange::default();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(gateway) = gateway.upgrade() else { return };
        if gateway.is_handed_over() {
            // The process that has taken over is the one to have a say.
            return;
        }
        let running = gateway.running();
        let upstreams = running.plan.upstreams.iter().zip(&running.upstreams);
        let said = upstreams.filter_map(|((name, _), upstream)| {
            let key = running.plan.keys.fleet(name);
            Some(Said { name, upstream, key, value: upstream.say()? })
        });
        exchange.round(&gateway.store, said.collect()).await;
    }
}

/// Those that a round has not asked about yet.
struct Round<'a, T> {
    rest: &'a [T],
    ends: Instant,
    /// How many of how many were left for last.
    late: (usize, usize),
}

impl<'a, T> Round<'a, T> {
    /// Those that the last round had time for come last.
    fn begin(all: &'a mut [T], late: usize) -> Self {
        let count = all.len().max(1);
        let late = (late % count, count);
        all.rotate_left(late.0);
        Self { rest: all, ends: Instant::now() + PERIOD, late }
    }

    /// How many are to be left for last in the next one.
    fn late(&self) -> usize {
        let (late, count) = self.late;
        (late + count - self.rest.len()) % count
    }

    /// Those to ask about next. None when its time is up, or when nobody answers: each question
    /// that is not answered takes all of its time.
    fn next(&mut self, is_answered: bool) -> Option<&'a [T]> {
        if self.rest.is_empty() || !is_answered || Instant::now() >= self.ends {
            return None;
        }
        let (some, rest) = self.rest.split_at(AT_ONCE.min(self.rest.len()));
        self.rest = rest;
        Some(some)
    }
}

/// What this gateway says, and where.
fn own<'a>(key: &'a str, value: &'a [u8]) -> Telling<'a> {
    let bytes_max = TELLING_BYTES_MAX;
    Telling { key, from: instance::unique(), value, bytes_max, kept: KEPT }
}

/// Tells what the arms of these routes have answered here, and hears what they have elsewhere.
/// While nobody is heard, a canary is judged by what is known here.
pub(super) async fn exchange_answers<'c>(
    store: &Store,
    plan: &Plan,
    canaries: impl Iterator<Item = (&'c str, &'c Canary)>,
) {
    let (from, mut said) = (instance::unique(), Vec::new());
    for (route, canary) in canaries {
        match canary.say().filter(|_| is_of_fleet(&plan.config, route)) {
            Some(value) => said.push((route, canary, plan.keys.canary_answers(route), value)),
            None => canary.hear(from, &[]),
        }
    }
    for some in said.chunks(AT_ONCE) {
        let tellings: Vec<_> = some.iter().map(|(.., key, value)| own(key, value)).collect();
        for ((route, canary, ..), heard) in some.iter().zip(store.tell(&tellings).await) {
            if let Err(error) = &heard {
                tracing::debug!(route, %error, "the canary's answers elsewhere");
            }
            canary.hear(from, &heard.unwrap_or_default());
        }
    }
}

/// Whether gateways tell each other of all upstreams of a split route.
fn is_of_fleet(config: &Config, route: &str) -> bool {
    let split = config.routes.get(route).and_then(|route| route.split.as_ref());
    let mut upstreams = split.iter().flat_map(|split| &split.arms).map(|arm| &arm.upstream);
    upstreams.all(|name| config.upstreams.get(name).is_some_and(|upstream| upstream.fleet))
}

impl Exchange {
    /// Says all of it, and hears what others say. Where it takes longer than a round may, the next
    /// one begins with the rest.
    async fn round(&mut self, store: &Store, mut all: Vec<Said<'_>>) {
        let (mut round, mut is_answered) = (Round::begin(&mut all, self.late), true);
        self.is_refused = false;
        while let Some(some) = round.next(is_answered) {
            let tellings: Vec<_> = some.iter().map(|said| own(&said.key, &said.value)).collect();
            is_answered = self.note(some, store.tell(&tellings).await);
        }
        // One server of a cluster may refuse while all others take what they are told.
        if is_answered && round.rest.is_empty() {
            self.has_warned &= self.is_refused;
        }
        self.late = round.late();
        round.rest.iter().for_each(|said| self.has_not_heard(said));
    }

    /// What the store has answered. Returns whether it has, to any of it.
    fn note(&mut self, some: &[Said<'_>], answers: Vec<Result<Heard, StoreError>>) -> bool {
        let mut is_answered = false;
        for (said, heard) in some.iter().zip(answers) {
            is_answered |= !heard.as_ref().is_err_and(StoreError::is_outage);
            match heard {
                Ok(all) => self.has_heard(said, &all),
                Err(error) => {
                    self.has_not_heard(said);
                    self.warn(&error);
                }
            }
        }
        is_answered
    }

    fn has_heard(&mut self, said: &Said<'_>, all: &Heard) {
        said.upstream.hear(all);
        match self.heard.get_mut(said.name) {
            Some(at) => *at = Instant::now(),
            None => drop(self.heard.insert(said.name.to_owned(), Instant::now())),
        }
    }

    fn has_not_heard(&mut self, said: &Said<'_>) {
        if self.heard.get(said.name).is_some_and(|at| at.elapsed() >= KEPT) {
            self.heard.remove(said.name);
            said.upstream.hear(&[]);
        }
    }

    /// That the store is away is said elsewhere.
    fn warn(&mut self, error: &StoreError) {
        let StoreError::Refused(why) = error else { return };
        self.is_refused = true;
        if !std::mem::replace(&mut self.has_warned, true) {
            tracing::warn!(
                "Redis does not let gateways tell each other of upstreams, so each one decides \
                 alone: {why}\n    help: give its user the rights that `portcullis acl` prints"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;
    use crate::store::{MemoryStore, RedisStore};
    use crate::traffic::Place;
    use crate::upstream::Ahead;

    /// What a round asks about when each question takes so long, and how many times it asks.
    async fn asks(all: &mut [usize], late: usize, takes: Duration) -> (Vec<usize>, usize, usize) {
        let (mut round, mut asked, mut times) = (Round::begin(all, late), Vec::new(), 0);
        while let Some(some) = round.next(true) {
            asked.extend_from_slice(some);
            times += 1;
            tokio::time::advance(takes).await;
        }
        (asked, times, round.late())
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_asks_about_as_many_as_it_has_time_for() {
        let all: Vec<usize> = (0..300).collect();
        let (short, long) = (Duration::from_millis(50), Duration::from_millis(300));
        assert_eq!(asks(&mut [], 7, short).await, (vec![], 0, 0));
        assert_eq!(asks(&mut all.clone(), 0, short).await, (all.clone(), 10, 0));
        // Three rounds that have no time for all.
        let mut late = 0;
        let mut asked = Vec::new();
        for _ in 0..3 {
            let (some, times, next) = asks(&mut all.clone(), late, long).await;
            assert_eq!((some.len(), times), (128, 4));
            asked.extend(some);
            late = next;
        }
        let twice: Vec<usize> = all.iter().chain(&all).copied().collect();
        assert_eq!((&asked[..], late), (&twice[..384], 84));
    }

    #[tokio::test]
    async fn a_store_that_is_away_is_asked_once_in_a_round() {
        let text =
            "[store]\nurl = \"redis://127.0.0.1:1\"\n[upstreams.a]\nservers = [\"http://a\"]";
        let config = config::parse("t.toml", Path::new("."), text, &|_| None).unwrap().config;
        let upstream = Upstream::new("a", &config.upstreams["a"], None, &Ahead::default());
        let said = |at: usize| Said {
            name: "a",
            upstream: &upstream,
            key: format!("app:fleet:{at}"),
            value: b"{}".to_vec(),
        };
        let away = Store::Redis(Box::new(RedisStore::open(&config.store)));
        let mut exchange = Exchange::default();
        exchange.round(&away, (0..300).map(said).collect()).await;
        assert_eq!((exchange.late, exchange.heard.len()), (AT_ONCE, 0));
        let there = Store::Memory(Box::new(MemoryStore::new(1_000)));
        exchange.round(&there, (0..300).map(said).collect()).await;
        assert_eq!((exchange.late, exchange.heard.len()), (AT_ONCE, 1), "it has asked about all");
    }

    /// One server of a cluster may be full.
    #[tokio::test]
    async fn a_refusal_is_said_once_until_a_whole_round_has_none() {
        let text = "[upstreams.a]\nservers = [\"http://a\"]";
        let config = config::parse("t.toml", Path::new("."), text, &|_| None).unwrap().config;
        let upstream = Upstream::new("a", &config.upstreams["a"], None, &Ahead::default());
        let said = |key: &str| Said {
            name: "a",
            upstream: &upstream,
            key: key.to_owned(),
            value: b"{}".to_vec(),
        };
        let store = MemoryStore::new(1_000);
        store.put("refused", "a string".into(), None).unwrap();
        let store = Store::Memory(Box::new(store));
        let mut exchange = Exchange::default();
        for _ in 0..2 {
            exchange.round(&store, vec![said("refused"), said("heard")]).await;
            assert!(exchange.has_warned);
        }
        // Nobody has answered: that says nothing.
        let text = "[store]\nurl = \"redis://127.0.0.1:1\"";
        let config = config::parse("t.toml", Path::new("."), text, &|_| None).unwrap().config;
        let away = Store::Redis(Box::new(RedisStore::open(&config.store)));
        exchange.round(&away, vec![said("heard")]).await;
        assert!(exchange.has_warned);
        exchange.round(&store, vec![said("heard")]).await;
        assert!(!exchange.has_warned);
    }

    /// More than one question is about.
    #[tokio::test]
    async fn all_canaries_hear_of_their_own_answers_elsewhere() {
        let mut text = "[upstreams.a]\nservers = [\"http://a\"]\n".to_owned();
        text += "[upstreams.b]\nservers = [\"http://b\"]\n";
        for at in 0..AT_ONCE + 2 {
            text += &format!(
                "[routes.r{at}]\npath = \"/{at}\"\nrollback = {{}}\nsplit = [\
                 {{ upstream = \"a\", weight = 1 }}, {{ upstream = \"b\", weight = 1 }}]\n"
            );
        }
        let config = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap().config;
        let plan = Plan::compile(config).unwrap();
        let store = Store::Memory(Box::new(MemoryStore::new(1_000)));
        let mut canaries = Vec::new();
        for (route, at) in plan.route_names().zip(0..) {
            let split = plan.config.routes[route].split.as_ref().unwrap();
            let [own, other] = [(); 2].map(|()| Canary::new(route, split, None));
            let key = plan.keys.canary(route);
            let place = || Place { store: &store, key: &key, now_ms: 1_000 };
            own.look(place()).await;
            other.look(place()).await;
            // Each second one fails elsewhere.
            for answer in 0..400 {
                other.note(answer % 2, answer % 2 == 1 && at % 2 == 1, None);
            }
            let (key, value) = (plan.keys.canary_answers(route), other.say().unwrap());
            let telling = Telling { from: "other", ..super::own(&key, &value) };
            assert!(store.tell(&[telling]).await[0].is_ok());
            canaries.push((route.as_str(), own));
        }
        let named = canaries.iter().map(|(route, canary)| (*route, canary));
        exchange_answers(&store, &plan, named).await;
        for ((route, canary), at) in canaries.iter().zip(0..) {
            let key = plan.keys.canary(route);
            canary.look(Place { store: &store, key: &key, now_ms: 2_000 }).await;
            assert_eq!(canary.now(2_000).stopped.is_some(), at % 2 == 1, "{route}");
        }
    }
}
