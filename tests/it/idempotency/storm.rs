//! Many at once, over several gateways of which some die.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};

use super::{Redis, Session, code, config};
use crate::support::{Gateway, PATIENCE, Reply, Upstream, eventually, response};

/// How often a gateway dies, at least; and at most, until one died with a request under way.
const ROUNDS: usize = 40;
const ROUNDS_MAX: usize = 4 * ROUNDS;
/// How many send the same request, in each of them.
const CLIENTS: usize = 24;
pub(super) const GATEWAYS: usize = 3;

/// What a slow upstream knows.
#[derive(Default)]
pub(super) struct Slow {
    arrived: AtomicUsize,
    /// The rounds whose orders are answered.
    answered: Mutex<usize>,
    changed: Condvar,
}

impl Slow {
    /// It answers the orders of this round, and of those before.
    pub(super) fn answer(&self, round: usize) {
        *self.answered.lock().unwrap() = round + 1;
        self.changed.notify_all();
    }

    pub(super) fn arrived(&self) -> usize {
        self.arrived.load(Ordering::SeqCst)
    }
}

/// An upstream that numbers the orders, which are numbers of rounds, and answers them once it is
/// told to.
pub(super) fn slow() -> (Upstream, Arc<Slow>) {
    let slow = Arc::new(Slow::default());
    let known = Arc::clone(&slow);
    let upstream = Upstream::with(move |request, connection| {
        let order = known.arrived.fetch_add(1, Ordering::SeqCst) + 1;
        let round: usize = request.text().parse().expect("a round");
        let answered = known.answered.lock().unwrap();
        drop(known.changed.wait_timeout_while(answered, PATIENCE, |answered| *answered <= round));
        let text = format!("order {order} of round {round}");
        let _ = connection.write_all(response("201 Created", &text).as_bytes());
    });
    (upstream, slow)
}

/// Some clients send one request at once over three gateways, and one of these is killed: at any
/// moment of it in half of the rounds, and while the upstream has the request in the others. Then
/// another one takes its place. Round after round: the upstream gets each request once at most, and
/// all who are answered are answered alike.
#[test]
fn equal_requests_over_gateways_that_die_one_after_the_other_take_effect_once() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let redis = Redis::start();
    let (upstream, slow) = slow();
    let text = config(&upstream, &redis.url(), "", "")
        .replace("response_timeout = \"1s\"", "response_timeout = \"1m\"");
    let mut gateways: Vec<Gateway> = (0..GATEWAYS).map(|_| Gateway::start(&text)).collect();
    let (mut round, mut answered, mut hits) = (0, 0, 0);
    while round < ROUNDS || (hits == 0 && round < ROUNDS_MAX) {
        let before = slow.arrived();
        let victim = random.usize(..GATEWAYS);
        let waits = random.bool();
        let replies = all_send(&gateways, &round.to_string(), || {
            if waits {
                eventually("the upstream has it", || slow.arrived() > before);
            }
            gateways[victim].signal("KILL");
            slow.answer(round);
        });
        for reply in &replies {
            match reply.status {
                201 => assert_eq!(reply.text(), replies_alike(&replies)),
                409 => assert_eq!(code(reply), "idempotency_in_progress"),
                other => panic!("{other}: {reply:?}"),
            }
        }
        let is_answered = replies.iter().any(|reply| reply.status == 201);
        answered += usize::from(is_answered);
        // It had the request under way, and nobody learnt what became of it.
        hits += usize::from(slow.arrived() > before && !is_answered);
        gateways[victim].wait();
        gateways[victim] = Gateway::start(&text);
        round += 1;
    }
    let mut executions: BTreeMap<String, usize> = BTreeMap::new();
    for order in upstream.recorded() {
        *executions.entry(order.text()).or_default() += 1;
    }
    println!("{round} kills, {hits} hit one in flight; {answered} rounds answered");
    assert!(executions.values().all(|count| *count == 1), "{executions:?}");
    assert!(hits > 0 && answered > 0, "{hits} {answered}");
}

/// What the first one who was answered was told.
pub(super) fn replies_alike(replies: &[Reply]) -> String {
    let first = replies.iter().find(|reply| reply.status == 201);
    first.map(Reply::text).unwrap_or_default()
}

/// All clients send one request under this key, spread over the gateways; `meanwhile` happens when
/// all are connected, and some on their way. The answers of those who have one.
fn all_send(gateways: &[Gateway], key: &str, meanwhile: impl FnOnce()) -> Vec<Reply> {
    // Nobody comes to a gateway that is gone.
    let (connected, begun) = (Barrier::new(CLIENTS + 1), AtomicUsize::new(0));
    let client = |number: usize| {
        let mut session = Session::open(gateways[number % gateways.len()].public);
        connected.wait();
        begun.fetch_add(1, Ordering::SeqCst);
        let request = session.request("POST", "/orders").body(key);
        request.header("Idempotency-Key", key).try_send().ok()
    };
    let client = &client;
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        connected.wait();
        // Some are on their way by now, whatever they have come to.
        while begun.load(Ordering::SeqCst) < CLIENTS / 2 {
            std::thread::yield_now();
        }
        meanwhile();
        clients.into_iter().filter_map(|it| it.join().unwrap()).collect()
    })
}
