//! A 202 that stands for replicas, or for the disk: also on servers newer than Redis 7.0, for which
//! WAIT and WAITAOF are about what their own connection wrote, and about nothing where it wrote
//! nothing.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use super::{ROUTES, code, config, start, upstream};
use crate::support::{
    AUTH, Client, Folder, Gateway, PATIENCE, Redis, Reply, Upstream, eventually, run,
};

const REPLICA: &str = "durability = \"replicas:1\"\n";
const DISK: &str = "durability = \"fsync\"\n";
/// Appends what is written, and waits for the disk each time.
const APPENDS: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// A request that is repeated under its key.
fn send(gateway: &Gateway, key: &str) -> Reply {
    let request = Client::request(gateway.public, "POST", "/open");
    request.header("Idempotency-Key", key).body("a").send()
}

fn in_doubt() -> (u16, String) {
    (503, "delivery_in_doubt".to_owned())
}

#[test]
fn a_replica_that_stands_still_leaves_each_request_in_doubt_on_any_server() {
    type Start = fn() -> Redis;
    for begin in [Redis::start as Start, || Redis::start_newer(&[])] {
        let (redis, replica, upstream) = (begin(), begin(), upstream());
        replica.follow(&redis);
        let gateway = start(&redis, &upstream, REPLICA);
        eventually("the replica acknowledges", || send(&gateway, "first").status == 202);
        replica.stop_signal();
        // On a connection that has waited before, and on one that is new to all this.
        let other = start(&redis, &upstream, REPLICA);
        for (gateway, key) in [(&gateway, "second"), (&other, "third"), (&other, "fourth")] {
            assert_eq!(code(&send(gateway, key)), in_doubt(), "{key}");
        }
        replica.cont_signal();
        for key in ["second", "third", "fourth"] {
            eventually("its own key finds it", || send(&gateway, key).status == 202);
        }
        eventually("each is delivered once", || upstream.seen() == 4);
    }
}

/// The same for servers that are not here: what they count for is sent, in front of the wait, on
/// its connection, and in the slot of the queue.
#[test]
fn a_wait_has_a_write_of_its_own_before_it() {
    let (redis, replica, upstream) = (Redis::start(), Redis::start(), upstream());
    replica.follow(&redis);
    let gateway = start(&redis, &upstream, REPLICA);
    let mut monitor = TcpStream::connect(redis.address()).expect("a connection");
    monitor.set_read_timeout(Some(PATIENCE)).expect("a socket");
    monitor.write_all(b"MONITOR\r\n").expect("a socket");
    let mut lines = BufReader::new(monitor).lines().map(|line| line.expect("a line of MONITOR"));
    assert_eq!(lines.next().as_deref(), Some("+OK"));
    eventually("the replica acknowledges", || send(&gateway, "first").status == 202);
    let mut seen: Vec<String> = Vec::new();
    let wait = lines
        .inspect(|line| seen.push(line.clone()))
        .find(|line| line.contains("\"WAIT\" \"1\""))
        .expect("a wait");
    // `+TIME [DATABASE ADDRESS] "COMMAND" …`
    let from = |line: &str| line.split([' ', ']']).nth(2).map(str::to_owned);
    let of_wait: Vec<&String> =
        seen.iter().filter(|line| from(line).is_some() && from(line) == from(&wait)).collect();
    let [.., write, _] = of_wait[..] else { panic!("the wait alone: {of_wait:?}") };
    assert!(write.contains("\"SET\" \"app:queue:{mail.0}:waited\" \"1\" \"PX\""), "{write}");
}

/// A configuration with queues that wait for the disk.
fn on_disk(redis: &Redis, upstream: &Upstream, store: &str) -> String {
    format!(
        "[store]\nurl = \"{}\"\n{store}{AUTH}[upstreams.mailer]\nservers = [\"{}\"]\n\
         [queues.mail]\n{DISK}{ROUTES}",
        redis.url(),
        upstream.url()
    )
}

/// As the user that `portcullis acl` prints for this configuration, who has every right to it.
#[test]
fn the_disk_is_waited_for_by_the_documented_user() {
    let (redis, upstream) = (Redis::start_newer(&APPENDS), upstream());
    let user = "username = \"gateway\"\npassword = \"correct-horse\"\n";
    let text = on_disk(&redis, &upstream, user);
    let folder = Folder::new();
    folder.write("gateway.toml", &text);
    let printed = run(&folder, &["acl"]);
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    let command = printed.stdout.replace("PASSWORD", "correct-horse");
    let words: Vec<&str> = command.split_whitespace().collect();
    assert_eq!(redis.cli(&words), "OK", "{command}");
    let checked = run(&folder, &["check", "--store"]);
    assert_eq!((checked.code, checked.stdout.contains("store: ok")), (Some(0), true));
    assert!(!checked.stdout.contains("warning"), "{}", checked.stdout);
    let gateway = Gateway::start(&text);
    eventually("the disk has it", || send(&gateway, "first").status == 202);
    // Nothing reaches the disk any more, as far as the server would know.
    assert_eq!(redis.cli(&["CONFIG", "SET", "appendfsync", "no"]), "OK");
    for key in ["second", "third"] {
        assert_eq!(code(&send(&gateway, key)), in_doubt(), "{key}");
    }
    assert_eq!(redis.cli(&["CONFIG", "SET", "appendfsync", "always"]), "OK");
    for key in ["second", "third"] {
        eventually("its own key finds it", || send(&gateway, key).status == 202);
    }
    eventually("each is delivered once", || upstream.seen() == 3);
    assert!(!redis.cli(&["ACL", "LOG"]).contains("command"), "{}", redis.cli(&["ACL", "LOG"]));
}

/// A store of its own for queues has a user of its own.
#[test]
fn who_waits_for_the_disk_has_the_right_to_it_and_nobody_else() {
    let redis = Redis::start();
    let folder = Folder::new();
    let acl = |text: &str, more: &[&str]| {
        folder.write("gateway.toml", text);
        let printed = run(&folder, &[&["acl"], more].concat());
        assert_eq!(printed.code, Some(0), "{}", printed.stderr);
        printed.stdout.contains(" +waitaof")
    };
    let waits = config(&redis, "http://127.0.0.1:1", DISK);
    assert!(acl(&waits, &[]));
    assert!(!acl(&config(&redis, "http://127.0.0.1:1", REPLICA), &[]));
    let own = "[store]\nqueue_url = \"redis://127.0.0.1:2\"\n";
    let apart = waits.replacen("[store]\n", own, 1);
    assert!(acl(&apart, &["--for", "queue"]) && !acl(&apart, &[]));
}

/// What could never be known to be on the disk is not queued at all, and everybody is told why.
#[test]
fn a_server_that_cannot_say_what_is_on_its_disk_gets_nothing() {
    let settings = APPENDS.map(str::to_owned);
    let (old, without) = (Redis::start_with(&settings), Redis::start_newer(&[]));
    for (redis, said) in [(&old, "`waitaof`"), (&without, "appendonly is no")] {
        let upstream = upstream();
        let text = on_disk(redis, &upstream, "");
        let gateway = Gateway::start(&text);
        let refused = (503, "queue_store_unsafe".to_owned());
        eventually("it was looked at", || code(&send(&gateway, "k")) == refused);
        assert_eq!(redis.cli(&["EXISTS", "app:queue:{mail.0}:open"]), "0");
        let ready = Client::get(gateway.admin, "/readyz").send().text();
        assert!(ready.contains("queue_store_unsafe: fsync needs appendonly yes"), "{ready}");
        eventually("the log says it", || gateway.stderr().contains(said));
        let folder = Folder::new();
        folder.write("gateway.toml", &text);
        let checked = run(&folder, &["check", "--store"]).stdout;
        let help =
            if redis.address() == old.address() { "use Redis 7.2" } else { "appendonly yes" };
        assert!(checked.contains(said) && checked.contains(help), "{checked}");
        assert!(checked.contains("durability = \"fsync\""), "{checked}");
        // Other queues of the same store are as good as ever.
        let memory = start(redis, &upstream, "");
        assert_eq!(send(&memory, "k").status, 202);
        eventually("it is delivered", || upstream.seen() == 1);
    }
    let folder = Folder::new();
    let text = config(&old, "http://127.0.0.1:1", &format!("durable = false\n{DISK}"));
    folder.write("gateway.toml", text.replace(&old.url(), "memory:"));
    let refused = run(&folder, &["check"]);
    assert!(refused.stderr.contains("queues.mail.durability"), "{}", refused.stderr);
}
