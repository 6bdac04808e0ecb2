//! SIGUSR2: another process takes the listeners over, and no client notices. Sockets that are open
//! when the gateway begins, and what systemd is told, belong to it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{
    BINARY, Client, Folder, Gateway, PATIENCE, Redis, Session, Upstream, eventually, kill, operate,
    response,
};

const ROUTE: &str = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n";

/// Waits until this many processes have taken over; the last of them.
fn heir(gateway: &Gateway, count: usize) -> u32 {
    eventually("the listeners are handed over", || gateway.heirs().len() == count);
    gateway.heirs()[count - 1]
}

/// Whether a process is there, and not only what it leaves until somebody asks how it ended.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// One request on a connection of its own; what went wrong, if anything did.
fn ask(address: SocketAddr, connection: &str) -> Result<(), String> {
    let told = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let mut stream = TcpStream::connect(address).map_err(told("connect"))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(told("timeout"))?;
    let request = format!("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(told("write"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(told("read"))?;
    let is_whole = answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("fine");
    is_whole.then_some(()).ok_or_else(|| format!("answer: {answer:?}"))
}

/// Clients that ask without a pause, each time on a new connection, until they are dropped.
struct Crowd {
    threads: Vec<std::thread::JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
}

impl Crowd {
    fn begin(address: SocketAddr, clients: usize) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let answered = Arc::<AtomicUsize>::default();
        let failures = Arc::<Mutex<Vec<String>>>::default();
        let threads = (0..clients).map(|_| {
            let (is_over, answered) = (Arc::clone(&is_over), Arc::clone(&answered));
            let failures = Arc::clone(&failures);
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    match ask(address, "close") {
                        Ok(()) => {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(failure) => failures.lock().unwrap().push(failure),
                    }
                }
            })
        });
        Self { threads: threads.collect(), is_over, answered, failures }
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// What went wrong for any of them.
    fn end(self) -> Vec<String> {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.failures.lock().unwrap().clone()
    }
}

/// How many files a process has open.
fn files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

#[test]
fn twenty_upgrades_refuse_and_cut_no_connection() {
    const UPGRADES: usize = 20;
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let config = format!("[server]\ndrain = \"5s\"\n{}{ROUTE}", upstream.table("shop"));
    let mut gateway = Gateway::start(&config);
    let mut pid = gateway.pid();
    let at_rest = files(pid);
    let crowd = Crowd::begin(gateway.public, 3);
    for count in 1..=UPGRADES {
        let before = crowd.answered();
        eventually("clients are served", || crowd.answered() > before + 20);
        // One that is open and has said nothing, when the listener passes to somebody else.
        let mut silent = TcpStream::connect(gateway.public).unwrap();
        let mut kept = Session::open(gateway.public);
        assert_eq!(kept.get("/").send().status, 200);
        kill("USR2", pid);
        let next = heir(&gateway, count);
        // Both are served by the process that has accepted them, and told to come back.
        silent.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
        let mut answer = String::new();
        silent.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("fine"), "{answer}");
        let reply = kept.get("/").send();
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
        let served = crowd.answered();
        eventually("clients are served by the next one", || crowd.answered() > served + 20);
        eventually("the former process ends", || !lives(pid));
        pid = next;
    }
    assert_eq!(crowd.end(), Vec::<String>::new());
    assert_eq!(gateway.wait().code(), Some(0));
    // Connections to the upstream that rest, and nothing for each upgrade.
    eventually("the last process has few files", || files(pid) < at_rest + UPGRADES / 2);
    let metrics = Client::get(gateway.admin, "/metrics").send().text();
    assert!(metrics.contains("portcullis_handovers_total{result=\"done\"} 1"), "{metrics}");
    assert_eq!(operate(&gateway, "GET", "/v1/status", "").json()["draining"], false);
    kill("TERM", pid);
    eventually("the last process ends", || !lives(pid));
    assert!(TcpStream::connect(gateway.public).is_err(), "nobody has left the socket open");
}

/// The gateway under a name of its own, so that the test can put another program there.
fn start_named(config: &str) -> (Gateway, std::path::PathBuf) {
    let folder = Folder::new();
    let program = folder.path().join("gateway");
    symlink(BINARY, &program).unwrap();
    let gateway = Gateway::start_by(Command::new(&program).stdin(Stdio::null()), folder, config);
    (gateway, program)
}

fn write_program(path: &std::path::Path, script: &str) {
    // Written beside and moved: nobody runs half a program.
    let beside = path.with_extension("new");
    std::fs::write(&beside, script).unwrap();
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

#[test]
fn a_new_process_that_fails_leaves_all_as_it_was() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let config = |server: &str| format!("[server]\n{server}\n{}{ROUTE}", upstream.table("shop"));
    let (gateway, program) = start_named(&config(""));
    let mut kept = Session::open(gateway.public);
    for (count, (script, why)) in [
        ("#!/bin/sh\nexit 7\n", "ended before it was ready: exit status: 7"),
        ("#!/bin/sh\nkill -KILL $$\n", "ended before it was ready: signal: 9 (SIGKILL)"),
        ("#!/bin/sh\necho nonsense >&0\nexit 8\n", "ended before it was ready: exit status: 8"),
        ("no program", "cannot be started: "),
        ("#!/bin/sh\nexec sleep 600\n", "not ready within server.handover_timeout (100ms)"),
    ]
    .into_iter()
    .enumerate()
    {
        if script.contains("sleep") {
            gateway.rewrite(&config("handover_timeout = \"100ms\""));
            assert_eq!(operate(&gateway, "POST", "/v1/config/reload", "{}").status, 200);
        }
        write_program(&program, script);
        gateway.signal("USR2");
        eventually(why, || gateway.stderr().contains(why));
        let failed = format!("portcullis_handovers_total{{result=\"failed\"}} {}", count + 1);
        let metrics = Client::get(gateway.admin, "/metrics").send().text();
        assert!(metrics.contains(&failed), "{why}: {metrics}");
        assert_eq!(kept.get("/").send().header("connection"), None, "{why}");
        assert_eq!(ask(gateway.public, "close"), Ok(()), "{why}");
    }
    gateway.rewrite(&config(""));
    assert_eq!(operate(&gateway, "POST", "/v1/config/reload", "{}").status, 200);
    // A bad file is one more way to fail; the listeners are still there for a good one.
    std::fs::remove_file(&program).unwrap();
    symlink(BINARY, &program).unwrap();
    gateway.rewrite(&config("[routes.bad]\npath = 1"));
    gateway.signal("USR2");
    eventually("the bad file is refused", || gateway.stderr().contains("exit status: 2"));
    assert!(gateway.stderr().contains("routes.bad.path"), "{}", gateway.stderr());
    assert_eq!(ask(gateway.public, "close"), Ok(()));
    let new = "[routes.new]\npath = \"/new\"\nupstream = \"shop\"\n";
    gateway.rewrite(&format!("{}{new}", upstream.table("shop")));
    gateway.signal("USR2");
    heir(&gateway, 1);
    let status = |path: &str| Client::get(gateway.public, path).send().status;
    assert_eq!((status("/new"), status("/other")), (200, 404), "the file of now is in force");
    let audits = gateway.stderr().matches("audit by=SIGUSR2 operation=\"handover\"").count();
    assert_eq!(audits, 7);
}

/// Each of them would open what the other one listens on, and one of them would be nobody's.
#[test]
fn two_signals_at_once_begin_one_process_and_a_drain_begins_none() {
    let (upstream, is_over) = held();
    let table = upstream.table("shop");
    let gateway = Gateway::start(&format!("[server]\ndrain = \"1m\"\n{table}{ROUTE}"));
    let mut held = Session::open(gateway.public);
    held.write("GET /held HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    eventually("it is in progress", || upstream.seen() == 1);
    gateway.signal("USR2");
    gateway.signal("USR2");
    let next = heir(&gateway, 1);
    // Who drains has nothing to hand over.
    gateway.signal("USR2");
    assert_eq!(ask(gateway.public, "close"), Ok(()));
    assert_eq!(children(gateway.pid()), [next]);
    assert!(is_over.send(()).is_ok());
    assert_eq!(held.read().status, 200, "what it had begun is finished there");
    eventually("the former process ends", || !lives(gateway.pid()));
    assert_eq!(gateway.heirs(), [next]);
    assert_eq!(gateway.stderr().matches("a new process is started").count(), 1);
}

/// An upstream that answers `/held` when it is told to.
fn held() -> (Upstream, Sender<()>) {
    let (go_on, told) = channel::<()>();
    let told = Mutex::new(told);
    let upstream = Upstream::with(move |request, connection| {
        if request.target() == "/held" {
            let _ = told.lock().unwrap().recv();
        }
        let _ = connection.write_all(response("200 OK", "fine").as_bytes());
    });
    (upstream, go_on)
}

/// Both live for a while, and are one gateway: two votes of it would take a server out everywhere.
#[test]
fn a_process_that_has_handed_over_says_nothing_to_the_fleet() {
    let (redis, (upstream, go_on)) = (Redis::start(), held());
    let gateway = Gateway::start(&format!(
        "[store]\nurl = \"{}\"\n{}eject = {{}}\n{ROUTE}",
        redis.url(),
        upstream.table("shop")
    ));
    let speakers = || redis.cli(&["HKEYS", "app:fleet:shop"]).lines().count();
    eventually("it speaks", || speakers() == 1);
    let mut session = Session::open(gateway.public);
    session.write("GET /held HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    eventually("it has something to do", || upstream.seen() == 1);
    kill("USR2", gateway.pid());
    let next = heir(&gateway, 1);
    eventually("what both have said is there", || speakers() == 2);
    // What was said holds for five seconds.
    eventually("its heir alone speaks", || speakers() == 1);
    assert!(lives(gateway.pid()) && lives(next));
    go_on.send(()).unwrap();
    assert_eq!(session.read().status, 200);
    kill("TERM", next);
    eventually("its heir ends", || !lives(next));
}

/// The processes that this one has started and that live.
fn children(pid: u32) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().map_while(Result::ok);
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |number: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
        parent == Some(&*pid.to_string()) && lives(*number)
    };
    numbers.filter(is_child).collect()
}

/// A listener of the test's own as file 3, as systemd passes one.
fn start_with_socket(listener: TcpListener, config: &str) -> Gateway {
    let script = format!(
        "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=public exec {BINARY} \"$@\" 3<&0 0</dev/null"
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).stdin(OwnedFd::from(listener));
    Gateway::start_by(&mut command, Folder::new(), config)
}

#[test]
fn a_socket_that_systemd_has_opened_is_served() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It waits for a gateway that has not begun.
    let mut early = TcpStream::connect(address).unwrap();
    let table = upstream.table("shop");
    let config = format!("[server]\nlisten = [\"{address}\"]\n{table}{ROUTE}");
    let gateway = start_with_socket(listener, &config);
    assert_eq!(gateway.public, address);
    early.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("fine"), "{answer}");
    // It is handed over like one of its own.
    gateway.signal("USR2");
    heir(&gateway, 1);
    assert_eq!(ask(address, "close"), Ok(()));
}

#[test]
fn a_socket_that_nobody_wants_is_named_and_closed() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let table = upstream.table("shop");
    let config = format!("[server]\nlisten = [\"{elsewhere}\"]\n{table}{ROUTE}");
    let gateway = start_with_socket(listener, &config);
    assert_eq!(gateway.public, elsewhere);
    let said = gateway.stderr();
    assert!(said.contains(&format!("the open socket \"public\" on {address} is closed")), "{said}");
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn systemd_is_told_that_the_gateway_lives_also_after_a_hand_over() {
    let folder = Folder::new();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).expect("systemd is told something");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let told_alive = || assert_eq!(told(), "WATCHDOG=1");
    let config = "[routes.all]\npath = \"/*\"\nrespond = { status = 204 }\n";
    let mut command = Command::new(BINARY);
    command.stdin(Stdio::null()).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "3000000");
    let gateway = Gateway::start_by(&mut command, folder, config);
    assert_eq!(told(), "READY=1");
    (0..2).for_each(|_| told_alive());
    gateway.signal("USR2");
    let next = heir(&gateway, 1);
    let replaced = format!("MAINPID={next}\nREADY=1");
    while told() != replaced {}
    // The one before says no more, so it is the next one that lives.
    (0..3).for_each(|_| told_alive());
    kill("TERM", next);
    while told() != "STOPPING=1" {}
}

#[test]
fn systemd_is_told_of_the_start_of_reloads_of_a_new_process_and_of_the_end() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let folder = Folder::new();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).expect("systemd is told something");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let good = format!("{}{ROUTE}", upstream.table("shop"));
    let mut command = Command::new(BINARY);
    command.stdin(Stdio::null()).env("NOTIFY_SOCKET", &path);
    let gateway = Gateway::start_by(&mut command, folder, &good);
    assert_eq!(told(), "READY=1");
    for config in [&good, "[routes.a]\n"] {
        gateway.rewrite(config);
        gateway.signal("HUP");
        let begun = told();
        let time = begun.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("a reload");
        assert!(time.parse::<u64>().is_ok_and(|time| time > 0), "{begun}");
        assert_eq!(told(), "READY=1", "also after a refused one");
    }
    gateway.rewrite(&good);
    gateway.signal("USR2");
    let next = heir(&gateway, 1);
    assert_eq!(told(), format!("MAINPID={next}\nREADY=1"));
    kill("TERM", next);
    assert_eq!(told(), "STOPPING=1", "the process that is the main one now");
    socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    assert!(socket.recv(&mut [0; 256]).is_err(), "the former one says no more");
}
