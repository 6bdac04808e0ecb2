//! Reads and writes whose requests arrive late, and whose answers come in any order, while gateways
//! die with some of them: no read that begins after a write was answered sees what was before it.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::{is_hit, store};
use crate::support::{
    Client, Gateway, PATIENCE, Redis, Reply, Upstream, eventually_within, response,
};

/// Who read and write at once.
const CLIENTS: usize = 8;
/// How often each of them is answered.
const EACH: usize = 250;
/// What they read and write.
const PATHS: usize = 3;
/// How often a gateway dies.
const KILLS: usize = 8;
/// How long more are waited for than have come: who waits for another one's fetch does not come.
const MOMENT: Duration = Duration::from_millis(3);
/// Longest wait for what clients do.
const LONG: Duration = Duration::from_secs(60);

/// Holds requests and answers back, and lets them go in any order.
#[derive(Default)]
struct Sluice {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    held: Vec<u64>,
    is_open: bool,
}

impl Sluice {
    /// Waits until it is let go.
    fn pass(&self) {
        let mut waiting = self.waiting.lock().unwrap();
        let ticket = waiting.next;
        waiting.next += 1;
        waiting.held.push(ticket);
        self.changed.notify_all();
        let is_held = |now: &mut Waiting| !now.is_open && now.held.contains(&ticket);
        drop(self.changed.wait_timeout_while(waiting, PATIENCE, is_held));
    }

    /// Lets one of those go that are there once there are some, again and again.
    fn run(&self, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        loop {
            let wanted = random.usize(1..=CLIENTS / 2);
            let waiting = self.waiting.lock().unwrap();
            let are_few = |now: &mut Waiting| !now.is_open && now.held.len() < wanted;
            let woken = self.changed.wait_timeout_while(waiting, MOMENT, are_few);
            let (mut waiting, _) = woken.unwrap();
            if waiting.is_open {
                return;
            }
            if !waiting.held.is_empty() {
                let at = random.usize(0..waiting.held.len());
                waiting.held.swap_remove(at);
                self.changed.notify_all();
            }
        }
    }

    fn open(&self) {
        self.waiting.lock().unwrap().is_open = true;
        self.changed.notify_all();
    }
}

type Versions = Arc<Mutex<HashMap<String, u64>>>;

/// An upstream whose paths hold a number each, to which PUT adds one. Its requests and its answers
/// are held.
fn held(sluice: &Arc<Sluice>, versions: &Versions) -> Upstream {
    let (sluice, versions) = (Arc::clone(sluice), Arc::clone(versions));
    Upstream::with(move |request, connection| {
        sluice.pass();
        let version = {
            let mut versions = versions.lock().unwrap();
            let version = versions.entry(request.target().to_owned()).or_default();
            *version += u64::from(request.request_line().starts_with("PUT"));
            *version
        };
        sluice.pass();
        let _ = connection.write_all(response("200 OK", &version.to_string()).as_bytes());
    })
}

fn version(reply: &Reply) -> u64 {
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.text().parse().expect("a version")
}

/// What clients have seen.
#[derive(Default)]
struct Counts {
    reads: AtomicUsize,
    hits: AtomicUsize,
    writes: AtomicUsize,
    stored: AtomicUsize,
    /// Whose gateway died.
    cut: AtomicUsize,
}

impl Counts {
    fn add(counter: &AtomicUsize, is: bool) {
        counter.fetch_add(usize::from(is), Ordering::SeqCst);
    }

    fn answered(&self) -> usize {
        self.reads.load(Ordering::SeqCst) + self.writes.load(Ordering::SeqCst)
    }
}

/// One client: reads and writes by either gateway.
fn go(
    (addresses, counts): (&Mutex<[std::net::SocketAddr; 2]>, &Counts),
    written: &[AtomicU64; PATHS],
    seed: u64,
) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut answered = 0;
    while answered < EACH {
        let address = addresses.lock().unwrap()[random.usize(0..2)];
        let (path, is_write) = (random.usize(0..PATHS), random.u8(0..4) == 0);
        let oldest = written[path].load(Ordering::SeqCst);
        let (method, target) = (if is_write { "PUT" } else { "GET" }, format!("/{path}"));
        let Ok(reply) = Client::request(address, method, &target).try_send() else {
            Counts::add(&counts.cut, true);
            continue;
        };
        answered += 1;
        let version = version(&reply);
        let status = reply.headers_named("cache-status").join(", ");
        if is_write {
            written[path].fetch_max(version, Ordering::SeqCst);
            Counts::add(&counts.writes, true);
            Counts::add(&counts.stored, status.contains("; stored"));
        } else {
            assert!(version >= oldest, "seed {seed}: {target}: {version} after {oldest}: {status}");
            Counts::add(&counts.reads, true);
            Counts::add(&counts.hits, is_hit(&reply));
        }
    }
}

/// Gateways die one after the other meanwhile. How many writes were stored.
fn storm(mode: &str, seed: u64) -> usize {
    let mut random = fastrand::Rng::with_seed(seed);
    let (sluice, versions) = (Arc::<Sluice>::default(), Versions::default());
    let (redis, upstream) = (Redis::start(), held(&sluice, &versions));
    let config = format!(
        "{}{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n\
         cache = {{ ttl = \"2s\", write_through = \"{mode}\" }}\n",
        store(&redis),
        upstream.table("shop")
    );
    let mut gateways = [Gateway::start(&config), Gateway::start(&config)];
    let addresses = Mutex::new([gateways[0].public, gateways[1].public]);
    let (counts, written) = (Counts::default(), <[AtomicU64; PATHS]>::default());
    let running = Arc::clone(&sluice);
    std::thread::spawn(move || running.run(seed));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS as u64 {
            let (addresses, counts, written) = (&addresses, &counts, &written);
            scope.spawn(move || go((addresses, counts), written, seed ^ client));
        }
        for kill in 1..=KILLS {
            let due = kill * CLIENTS * EACH / (KILLS + 1);
            eventually_within(LONG, "many are answered", || counts.answered() >= due);
            let victim = random.usize(0..2);
            gateways[victim].signal("KILL");
            gateways[victim].wait();
            gateways[victim] = Gateway::start(&config);
            addresses.lock().unwrap()[victim] = gateways[victim].public;
        }
    });
    sluice.open();
    // What a gateway took along that died with a write is stale for `ttl` at most.
    let newest = versions.lock().unwrap().clone();
    for (path, newest) in newest {
        for gateway in &gateways {
            let read = || version(&Client::get(gateway.public, &path).send());
            eventually_within(LONG, "the newest version is read", || read() == newest);
        }
    }
    let Counts { reads, hits, writes, stored, cut } = counts;
    let [reads, hits, writes, stored, cut] =
        [reads, hits, writes, stored, cut].map(AtomicUsize::into_inner);
    assert_eq!(reads + writes, CLIENTS * EACH);
    let seen =
        format!("{hits} hits of {reads} reads, {stored} of {writes} writes stored, {cut} cut off");
    assert!(hits > reads / 50, "{seen}");
    stored
}

#[test]
fn nothing_stale_is_read_behind_a_late_write_that_stores_its_answer() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    assert!(storm("always", seed) > 0);
}

#[test]
fn nothing_stale_is_read_behind_a_late_write_that_only_purges() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    assert_eq!(storm("off", seed), 0);
}
