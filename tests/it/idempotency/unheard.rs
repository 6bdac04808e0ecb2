//! Many at once, while the store does not answer: what it was asked may have taken effect, may do
//! so later, or never does; and gateways die with what they had to tell it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::storm::{GATEWAYS, Slow, replies_alike, slow};
use super::{Redis, Session, code, config, expect, post, with_code};
use crate::support::{Gateway, Reply, TcpProxy, eventually_within};

/// How often the store falls silent.
const ROUNDS: usize = 12;
/// How many send the same request meanwhile.
const CLIENTS: usize = 9;
/// Longest wait for what comes by itself.
const LONG: Duration = Duration::from_secs(60);

/// How a store does not answer.
#[derive(Debug, Clone, Copy)]
enum Silence {
    /// It hears, and does later what it was asked.
    Stopped,
    /// What is sent is held on its way, and comes later.
    Held,
    /// Connections break; what was asked is done, or not.
    Broken,
}

impl Silence {
    fn begin(self, redis: &Redis, proxy: &TcpProxy) {
        match self {
            Self::Stopped => redis.stop_signal(),
            Self::Held => proxy.swallow(),
            Self::Broken => proxy.refuse(),
        }
    }

    fn end(self, redis: &Redis, proxy: &TcpProxy) {
        match self {
            Self::Stopped => redis.cont_signal(),
            Self::Held | Self::Broken => proxy.pass(),
        }
    }
}

/// All clients send one request; `meanwhile` is told how many are on their way, and how many have
/// an answer. The answers of those who have one.
fn all_send(
    gateways: &[Gateway],
    key: &str,
    meanwhile: impl FnOnce(&AtomicUsize, &AtomicUsize),
) -> Vec<Reply> {
    let (begun, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let client = |number: usize| {
        let mut session = Session::open(gateways[number % gateways.len()].public);
        begun.fetch_add(1, Ordering::SeqCst);
        let request = session.request("POST", "/orders").body(key);
        let reply = request.header("Idempotency-Key", key).try_send().ok();
        done.fetch_add(1, Ordering::SeqCst);
        reply
    };
    let client = &client;
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        meanwhile(&begun, &done);
        clients.into_iter().filter_map(|it| it.join().unwrap()).collect()
    })
}

/// What came of all rounds.
#[derive(Debug, Default)]
struct Sums {
    answered: usize,
    unheard: usize,
    unknown: usize,
}

/// One request, while the store falls silent; a gateway is killed in the meantime if `victim` says
/// so. The answers.
fn silent_round(
    (redis, proxy, slow): (&Redis, &TcpProxy, &Slow),
    gateways: &[Gateway],
    round: usize,
    (random, victim): (&mut fastrand::Rng, Option<usize>),
) -> Vec<Reply> {
    let all = [Silence::Stopped, Silence::Held, Silence::Broken];
    let silence = all[round % all.len()];
    let (before, ahead, ends_early) = (slow.arrived(), random.usize(..CLIENTS), random.bool());
    all_send(gateways, &round.to_string(), |begun, done| {
        while begun.load(Ordering::SeqCst) < ahead {
            std::thread::yield_now();
        }
        silence.begin(redis, proxy);
        eventually_within(LONG, "somebody is sent or refused", || {
            slow.arrived() > before || done.load(Ordering::SeqCst) > 0
        });
        if let Some(victim) = victim {
            gateways[victim].signal("KILL");
        }
        if ends_early {
            silence.end(redis, proxy);
        }
        // Whoever is answered before that has a claim whose end the store does not hear.
        slow.answer(round);
        eventually_within(LONG, "all are answered", || done.load(Ordering::SeqCst) == CLIENTS);
        if !ends_early {
            silence.end(redis, proxy);
        }
    })
}

/// Whatever was lost, each request gets to the upstream once at most, and whoever is answered is
/// answered alike, also when the store is back. A key that nobody was sent with is free then.
#[test]
fn equal_requests_take_effect_once_while_the_store_does_not_answer() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let redis = Redis::start();
    let proxy = TcpProxy::start(redis.address());
    let (upstream, slow) = slow();
    let text = config(&upstream, &proxy.url(), "", "")
        .replace("response_timeout = \"1s\"", "response_timeout = \"1m\"")
        .replace("timeout = \"5s\"", "timeout = \"100ms\"");
    let mut gateways: Vec<Gateway> = (0..GATEWAYS).map(|_| Gateway::start(&text)).collect();
    let mut sums = Sums::default();
    for round in 0..ROUNDS {
        let victim = (round % 4 == 3).then(|| random.usize(..GATEWAYS));
        let with = (&redis, &proxy, &*slow);
        let mut replies = silent_round(with, &gateways, round, (&mut random, victim));
        match victim {
            // Its claims are waited for longer than a test takes.
            Some(victim) => {
                gateways[victim].wait();
                gateways[victim] = Gateway::start(&text);
            }
            None => {
                let gateway = &gateways[random.usize(..GATEWAYS)];
                eventually_within(LONG, "its outcome is known, or known to be unknown", || {
                    let reply = post(gateway, &round.to_string(), &round.to_string());
                    let is_known = reply.status == 201
                        || with_code(&reply) == expect(409, "idempotency_outcome_unknown");
                    replies.push(reply);
                    is_known
                });
            }
        }
        for reply in &replies {
            match reply.status {
                201 => assert_eq!(reply.text(), replies_alike(&replies)),
                409 | 503 => match &*code(reply) {
                    "idempotency_unknown" => sums.unheard += 1,
                    "idempotency_outcome_unknown" => sums.unknown += 1,
                    "idempotency_in_progress" => {}
                    other => panic!("{other}: {reply:?}"),
                },
                _ => panic!("{reply:?}"),
            }
        }
        sums.answered += usize::from(replies.iter().any(|reply| reply.status == 201));
    }
    let mut executions: BTreeMap<String, usize> = BTreeMap::new();
    for order in upstream.recorded() {
        *executions.entry(order.text()).or_default() += 1;
    }
    println!("{sums:?}");
    assert!(executions.values().all(|count| *count == 1), "{executions:?}");
    assert!(sums.answered > 0 && sums.unheard > 0, "{sums:?}");
}
