//! A server that dies over and over, or says nothing for a while, under many callers. No request
//! reaches a service that was refused, and none in another life of the server than that in which
//! its caller was answered.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{code, route, upstream};
use crate::support::{Client, Gateway, Nats, Reply, Service, eventually_within, said};

/// How many ask at a time.
const CALLERS: usize = 16;
/// How often the server dies.
const KILLS: usize = 24;
/// Longest wait: a silent server is known as lost after three pings, 2 s apart.
const LONG: Duration = Duration::from_secs(60);
/// What is asked last, by the test itself.
const LAST: &str = "last";

/// How a request ended.
struct End {
    status: u16,
    code: String,
    /// In which life of the server its caller knew that, or in a later one.
    life: usize,
}

/// What callers were told, and when to go on.
#[derive(Default)]
struct Told {
    ends: Mutex<HashMap<String, End>>,
    life: AtomicUsize,
    arrived: AtomicUsize,
    answered: AtomicUsize,
    refused: AtomicUsize,
    /// Those that may have had an effect, and have no answer.
    in_doubt: AtomicUsize,
    is_over: AtomicBool,
    /// Whether the service keeps what reaches it to itself.
    is_silent: AtomicBool,
}

impl Told {
    fn note(&self, id: String, reply: &Reply) {
        let life = self.life.load(Ordering::SeqCst);
        let status = reply.status;
        let code = if status == 200 { String::new() } else { code(reply) };
        self.ends.lock().unwrap().insert(id, End { status, code, life });
        let count = match status {
            200 => &self.answered,
            503 => &self.refused,
            _ => &self.in_doubt,
        };
        count.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until so many more are counted.
    fn more(&self, what: &str, count: &AtomicUsize, more: usize) {
        let wanted = count.load(Ordering::SeqCst) + more;
        eventually_within(LONG, what, || count.load(Ordering::SeqCst) >= wanted);
    }
}

/// Asks with an id of its own each time, until it is told to stop.
fn call(public: SocketAddr, caller: usize, path: &'static str, told: &Arc<Told>) -> JoinHandle<()> {
    let told = Arc::clone(told);
    std::thread::spawn(move || {
        for number in 0.. {
            if told.is_over.load(Ordering::SeqCst) {
                break;
            }
            let id = format!("{caller}-{number}");
            let request = Client::request(public, "POST", path).patience(LONG);
            let reply = request.body(&id).send();
            told.note(id, &reply);
        }
    })
}

fn service(nats: &Nats, told: &Arc<Told>) -> Service {
    let told = Arc::clone(told);
    Service::answering(nats, "orders.put", move |_| {
        told.arrived.fetch_add(1, Ordering::SeqCst);
        if told.is_silent.load(Ordering::SeqCst) { Vec::new() } else { vec![said("done")] }
    })
}

/// Stops the callers, and judges what has reached the service in each life of the server: how often
/// what ended.
fn judge(
    (nats, told): (&Nats, &Told),
    callers: Vec<JoinHandle<()>>,
    lives: &[Service],
) -> HashMap<(u16, String), usize> {
    told.is_over.store(true, Ordering::SeqCst);
    callers.into_iter().for_each(|caller| caller.join().expect("a caller"));
    // What a server has had before this comes before it.
    nats.publish("orders.put", LAST);
    let last = lives.last().expect("a life");
    eventually_within(LONG, "all has come", || last.asked().iter().any(|it| it.text() == LAST));
    let ends = told.ends.lock().unwrap();
    let mut arrivals = HashMap::<String, usize>::new();
    let mut wrong = Vec::new();
    for (life, service) in lives.iter().enumerate() {
        for id in service.asked().iter().map(|asked| asked.text()).filter(|id| id != LAST) {
            let end = &ends[&id];
            if end.status == 503 || end.life < life {
                let End { status, code, life: told } = end;
                wrong.push(format!("{id} in life {life}: {status} {code} was told in {told}"));
            }
            *arrivals.entry(id).or_default() += 1;
        }
    }
    assert!(wrong.is_empty(), "{} came late: {:?}", wrong.len(), &wrong[..wrong.len().min(9)]);
    assert!(arrivals.values().all(|count| *count == 1), "something came twice");
    let mut counts = HashMap::<_, usize>::new();
    for (id, End { status, code, .. }) in ends.iter() {
        assert!(*status != 200 || arrivals.contains_key(id), "{id} was answered by nobody");
        *counts.entry((*status, code.clone())).or_default() += 1;
    }
    counts
}

/// A server dies so often, at a random moment: while all is well, or while many wait for an answer.
pub(super) fn dies(mut nats: Nats, kills: usize, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let config = upstream(&nats, "response_timeout = \"60s\"") + &route("/*", "orders.put");
    let gateway = Gateway::start(&config);
    let told = Arc::<Told>::default();
    let mut lives = vec![service(&nats, &told)];
    let callers: Vec<_> =
        (0..CALLERS).map(|caller| call(gateway.public, caller, "/", &told)).collect();
    for life in 1..=kills {
        told.more("they are answered", &told.answered, random.usize(20..200));
        if life.is_multiple_of(2) {
            let arrived = told.arrived.load(Ordering::SeqCst);
            told.is_silent.store(true, Ordering::SeqCst);
            let waiting = arrived + random.usize(1..CALLERS);
            eventually_within(LONG, "some wait for an answer", || {
                told.arrived.load(Ordering::SeqCst) >= waiting
            });
        }
        nats.kill();
        told.more("they are refused", &told.refused, random.usize(1..100));
        told.is_silent.store(false, Ordering::SeqCst);
        // Whoever knows his answer by now had it before this life began.
        told.life.store(life, Ordering::SeqCst);
        nats.restart();
        lives.push(service(&nats, &told));
    }
    told.more("they are answered again", &told.answered, 100);
    let counts = judge((&nats, &told), callers, &lives);
    let statuses = counts.keys().map(|(status, _)| *status);
    assert!(statuses.into_iter().all(|status| [200, 502, 503].contains(&status)), "{counts:?}");
    // Whose request the service had when the server died was told that it may have been done.
    let broken = counts.get(&(502, "upstream_broken".to_owned()));
    assert!(broken.is_some_and(|count| *count >= kills / 2), "{counts:?}");
}

#[test]
fn nothing_comes_late_however_often_the_server_dies() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    dies(Nats::start(), KILLS, seed);
}

/// Half of the callers wait as long as it takes, and are told that the connection broke; the others
/// are told that there was no answer in time. What both have sent may lie in the server's own
/// buffer, and arrive when it goes on. What was refused does not.
#[test]
fn what_was_refused_while_a_server_was_silent_never_arrives() {
    const PAUSES: usize = 8;
    let nats = Nats::start();
    let hasty = upstream(&nats, "response_timeout = \"500ms\"").replace("orders]", "hasty]");
    let hasty_route = route("/hasty", "orders.put").replace("orders]", "hasty]");
    let config = upstream(&nats, "response_timeout = \"60s\"")
        + &hasty
        + &hasty_route.replace("\"orders\"", "\"hasty\"")
        + &route("/*", "orders.put");
    let gateway = Gateway::start(&config);
    let told = Arc::<Told>::default();
    let lives = [service(&nats, &told)];
    let path = |caller: usize| if caller.is_multiple_of(2) { "/" } else { "/hasty" };
    let callers: Vec<_> =
        (0..CALLERS).map(|caller| call(gateway.public, caller, path(caller), &told)).collect();
    // For a moment, of which nobody need learn.
    for _ in 0..PAUSES {
        told.more("they are answered", &told.answered, 30);
        nats.stop_signal();
        nats.cont_signal();
    }
    // Until it is given up.
    for _ in 0..2 {
        told.more("they are answered", &told.answered, 100);
        nats.stop_signal();
        told.more("some learn that it is lost", &told.in_doubt, CALLERS);
        told.more("they are refused", &told.refused, 200);
        nats.cont_signal();
    }
    told.more("they are answered again", &told.answered, 100);
    let counts = judge((&nats, &told), callers, &lives);
    for (status, code) in [(502, "upstream_broken"), (503, "upstream_unreachable")] {
        assert!(counts.contains_key(&(status, code.to_owned())), "{code}: {counts:?}");
    }
}
