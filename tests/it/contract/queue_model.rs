//! Queues under workers that die, stall and give back at random, beside a book of what they did:
//! nothing is lost, no order is broken, and nothing is sent twice but for the reasons in the book.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use portcullis::store::queue::{Claim, DeliveryId, Outcome, Settled, Take, Taken};

use super::queue_hands::{BLINK, Of, Queue};
use super::{Subject, over_all_stores, over_redis};
use crate::support::Redis;

over_all_stores![nothing_is_lost_and_all_repeats_have_a_reason];

const ITEMS: usize = 120;
const WORKERS: usize = 5;
/// Steps after which something would have to be stuck.
const STEPS_MAX: usize = 200_000;

/// What happened.
#[derive(Debug, Default)]
struct Book {
    /// In the order of their acceptance, by order key.
    lines: HashMap<usize, Vec<DeliveryId>>,
    line_of: HashMap<DeliveryId, usize>,
    sent: HashMap<DeliveryId, usize>,
    failed: HashMap<DeliveryId, u32>,
    /// Done, or dead for the first time: whoever is behind may go.
    left: HashSet<DeliveryId>,
    done: HashMap<DeliveryId, usize>,
    /// Sends that were not the last one, each with its reason.
    retried: usize,
    given_back: usize,
    died: usize,
    died_after_sending: usize,
    refused: usize,
}

/// What a worker has in its hands.
#[derive(Debug, Clone)]
struct Held {
    claim: Claim,
    is_sent: bool,
}

struct Play<'a> {
    /// For whoever wants to see it again.
    seed: u64,
    queue: Queue<'a>,
    random: fastrand::Rng,
    book: Book,
    workers: Vec<Vec<Held>>,
    accepted: usize,
}

impl<'a> Play<'a> {
    fn new(it: &'a Subject) -> Self {
        let seed = fastrand::u64(..);
        Self {
            seed,
            queue: Queue::of(it),
            random: fastrand::Rng::with_seed(seed),
            book: Book::default(),
            workers: vec![Vec::new(); WORKERS],
            accepted: 0,
        }
    }

    async fn accept(&mut self) {
        let line = self.random.usize(..4);
        let name = format!("{line:02x}");
        let order = (line > 0).then_some(&*name);
        let delay = Duration::from_millis(self.random.u64(..3));
        let id = self.queue.put(Of { order, delay, body: "x", ..Of::default() }).await;
        self.accepted += 1;
        self.book.lines.entry(line).or_default().push(id);
        self.book.line_of.insert(id, line);
    }

    async fn take(&mut self, worker: usize) {
        let sweep = self.random.u8(..4) == 0;
        let take =
            Take { node: "n", most: self.random.usize(1..4), in_flight: 12, lease: BLINK, sweep };
        match self.queue.try_take(take).await {
            Taken::Items { claims, .. } => {
                let held = claims.into_iter().map(|claim| Held { claim, is_sent: false });
                self.workers[worker].extend(held);
            }
            Taken::Reset { .. } => {}
            Taken::Paused(pause) => panic!("{pause:?}"),
        }
    }

    /// A send, which is the first one of its item only when all before it in its line have left.
    fn send(&mut self, id: DeliveryId) {
        let sent = self.book.sent.entry(id).or_default();
        *sent += 1;
        let line = self.book.line_of[&id];
        if *sent == 1 && line > 0 {
            let before = self.book.lines[&line].iter().take_while(|it| **it != id);
            for other in before {
                let has_left = self.book.left.contains(other);
                assert!(has_left, "{id} was sent before {other} had left: seed {}", self.seed);
            }
        }
    }

    /// A worker does something with the first of what it holds, or with the last.
    async fn work(&mut self, worker: usize) {
        if self.workers[worker].is_empty() {
            return self.take(worker).await;
        }
        let at = if self.random.bool() { 0 } else { self.workers[worker].len() - 1 };
        match self.random.u8(..20) {
            // It dies, and with it all that it holds.
            0 => {
                for held in self.workers[worker].drain(..) {
                    self.book.died += 1;
                    self.book.died_after_sending += usize::from(held.is_sent);
                }
            }
            1..6 => self.take(worker).await,
            6..8 => {
                let hold = &self.workers[worker][at].claim.hold;
                let store = &self.queue.it.store;
                store.queue_renew(&self.queue.keys, &[hold]).await.expect("an answer");
            }
            8..14 => {
                let held = &mut self.workers[worker][at];
                if !held.is_sent {
                    held.is_sent = true;
                    let id = held.claim.hold.id;
                    self.send(id);
                }
            }
            _ => {
                let held = self.workers[worker].remove(at);
                self.settle(held).await;
            }
        }
    }

    async fn settle(&mut self, held: Held) {
        let id = held.claim.hold.id;
        let delay = Duration::from_millis(self.random.u64(..3));
        let outcome = match self.random.u8(..10) {
            _ if !held.is_sent => Outcome::Back { delay },
            0..3 => Outcome::Retry { delay },
            3 => Outcome::Dead,
            _ => Outcome::Done,
        };
        match (self.queue.settle(&held.claim.hold, outcome).await, outcome) {
            (Settled::Lost, _) => self.book.refused += usize::from(held.is_sent),
            (_, Outcome::Back { .. }) => self.book.given_back += 1,
            (_, Outcome::Retry { .. }) => {
                self.book.retried += 1;
                *self.book.failed.entry(id).or_default() += 1;
            }
            (_, Outcome::Done) => {
                *self.book.done.entry(id).or_default() += 1;
                self.book.left.insert(id);
            }
            (_, Outcome::Dead | Outcome::DeadInDoubt) => {
                // Somebody has it tried again at once.
                self.book.retried += 1;
                self.book.left.insert(id);
                self.book.failed.insert(id, 0);
                self.queue.requeue(&id).await;
            }
        }
    }

    /// Plays until all is done; `disturb` is called now and then.
    async fn play(&mut self, disturb: impl Fn(&mut fastrand::Rng)) {
        for _ in 0..STEPS_MAX {
            if self.accepted < ITEMS && self.random.u8(..6) == 0 {
                self.accept().await;
            }
            if self.random.u8(..100) == 0 {
                disturb(&mut self.random);
            }
            let worker = self.random.usize(..WORKERS);
            self.work(worker).await;
            if self.accepted == ITEMS && self.book.done.len() == ITEMS {
                return;
            }
        }
        let (done, counts) = (self.book.done.len(), self.queue.counts().await);
        panic!("{done} of {ITEMS} are done: {counts:?}, seed {}", self.seed);
    }

    async fn judge(&self) {
        let Book { sent, done, .. } = &self.book;
        assert_eq!((done.len(), sent.len()), (ITEMS, ITEMS));
        assert!(
            done.values().all(|times| *times == 1),
            "something was done twice: seed {}",
            self.seed
        );
        let held = self.workers.iter().flatten().filter(|held| held.is_sent).count();
        let repeats = sent.values().sum::<usize>() - ITEMS;
        let Book { retried, died_after_sending, refused, .. } = self.book;
        assert_eq!(repeats, retried + died_after_sending + refused + held, "{}", self.seed);
        assert!(self.book.died > 0 && self.book.given_back > 0 && retried > 0);
        assert_eq!(self.queue.counts().await, [0; 6]);
        for (id, times) in &self.book.failed {
            let item = self.queue.find(id).await.expect("a record");
            assert_eq!(item.failures, *times, "{item:?}");
        }
        let look = self.queue.it.store.queue_look(&self.queue.keys).await.expect("an answer");
        assert_eq!(look.bytes, 0);
    }
}

async fn nothing_is_lost_and_all_repeats_have_a_reason(it: Subject) {
    let mut play = Play::new(&it);
    play.play(|_| {}).await;
    play.judge().await;
}

/// The same while the group is destroyed, the whole stream is deleted, the scripts are forgotten,
/// and entries that are claimed are deleted.
#[test]
fn nothing_is_lost_with_the_stream() {
    over_redis(async |it: Subject| {
        let mut play = Play::new(&it);
        let redis: &Redis = it.redis.as_deref().expect("a Redis");
        let ready = play.queue.keys.ready.clone();
        play.play(|random| {
            let reply = match random.u8(..4) {
                0 => redis.cli(&["XGROUP", "DESTROY", &ready, "g"]),
                1 => redis.cli(&["DEL", &ready]),
                2 => redis.cli(&["XGROUP", "DELCONSUMER", &ready, "g", "gw"]),
                _ => redis.cli(&["SCRIPT", "FLUSH"]),
            };
            assert!(!reply.contains("syntax"), "{reply}");
        })
        .await;
        play.judge().await;
    });
}
