//! A TCP proxy in front of Redis: it counts round trips, and it can be a broken network.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    Swallow,
    /// What is asked arrives, and what is answered does not.
    Mute,
    Refuse,
}

struct Shared {
    mode: Mutex<Mode>,
    changed: Condvar,
    batches: AtomicUsize,
    /// What comes behind so many of them is not passed on.
    most: AtomicUsize,
    /// What becomes of it.
    then: Mutex<Mode>,
    /// Whether something is held back.
    holds: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

/// See the module.
pub(crate) struct TcpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl TcpProxy {
    /// Starts one that passes everything on to `target`.
    pub(crate) fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Pass),
            changed: Condvar::new(),
            batches: AtomicUsize::new(0),
            most: AtomicUsize::new(usize::MAX),
            then: Mutex::new(Mode::Swallow),
            holds: AtomicBool::new(false),
            streams: Mutex::new(Vec::new()),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let refuse = *accepting.mode.lock().unwrap() == Mode::Refuse;
                if !refuse && let Ok(server) = TcpStream::connect(target) {
                    join(&client, &server, &accepting);
                }
            }
        });
        Self { address, shared }
    }

    /// For `store.url`.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many batches of commands came: each ends with a PING of its own words. What the gateway
    /// looks at from time to time is not among them: when it comes depends on how long a test runs.
    pub(crate) fn batches(&self) -> usize {
        self.shared.batches.load(Ordering::SeqCst)
    }

    /// Counts from zero again.
    pub(crate) fn reset_count(&self) {
        self.shared.batches.store(0, Ordering::SeqCst);
    }

    /// Counts from zero again, and swallows everything from what comes behind so many batches on.
    pub(crate) fn swallow_after(&self, batches: usize) {
        self.after(batches, Mode::Swallow);
    }

    /// The same with answers alone, from that to what comes behind so many batches on.
    pub(crate) fn mute_after(&self, batches: usize) {
        self.after(batches, Mode::Mute);
    }

    fn after(&self, batches: usize, then: Mode) {
        *self.shared.then.lock().unwrap() = then;
        self.shared.holds.store(false, Ordering::SeqCst);
        self.reset_count();
        self.shared.most.store(batches, Ordering::SeqCst);
    }

    /// Whether something has been held back since that was asked for.
    pub(crate) fn holds(&self) -> bool {
        self.shared.holds.load(Ordering::SeqCst)
    }

    /// Everything flows, what was held back included.
    pub(crate) fn pass(&self) {
        self.shared.most.store(usize::MAX, Ordering::SeqCst);
        self.switch(Mode::Pass);
    }

    /// Connections are accepted and kept, and nothing flows, like a network that loses packets.
    pub(crate) fn swallow(&self) {
        self.switch(Mode::Swallow);
    }

    /// Open connections are closed, new ones at once.
    pub(crate) fn refuse(&self) {
        self.switch(Mode::Refuse);
        self.hang_up();
    }

    /// Closes all connections; new ones are welcome.
    pub(crate) fn hang_up(&self) {
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn switch(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
        self.shared.changed.notify_all();
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.refuse();
    }
}

/// Moves bytes between the two, in threads of their own.
fn join(client: &TcpStream, server: &TcpStream, shared: &Arc<Shared>) {
    for (from, to, mut batches) in
        [(client, server, Some(Batches::default())), (server, client, None)]
    {
        let _ = from.set_nodelay(true);
        let (Ok(from), Ok(to), Ok(kept)) = (from.try_clone(), to.try_clone(), from.try_clone())
        else {
            return;
        };
        shared.streams.lock().unwrap().push(kept);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            let counted = Arc::clone(&shared);
            let held: &[Mode] = match batches {
                Some(_) => &[Mode::Swallow],
                None => &[Mode::Swallow, Mode::Mute],
            };
            pump((&from, &to), &shared, held, |bytes| {
                if let Some(batches) = &mut batches {
                    let ended = batches.ended_by(bytes);
                    let before = counted.batches.fetch_add(ended, Ordering::SeqCst);
                    if before + ended > counted.most.load(Ordering::SeqCst) {
                        *counted.mode.lock().unwrap() = *counted.then.lock().unwrap();
                    }
                }
            });
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}

/// In the key under which each gateway tells of itself.
const NODES: &[u8] = b":nodes:{*}";

/// Finds the ends of batches in what a client sends, however it is cut into reads.
#[derive(Default)]
struct Batches {
    bytes: Vec<u8>,
    /// The batch that has begun looks at the server's clock, whether it evicts, or who else is
    /// there: by timers.
    is_look: bool,
    has_begun: bool,
}

impl Batches {
    fn ended_by(&mut self, bytes: &[u8]) -> usize {
        self.bytes.extend_from_slice(bytes);
        let (mut ended, mut used) = (0, 0);
        while let Some((name, words, length)) = command(&self.bytes[used..]) {
            used += length;
            if !std::mem::replace(&mut self.has_begun, true) {
                let by_timer: [&[u8]; 3] = [b"TIME", b"INFO", b"ZREMRANGEBYSCORE"];
                let whole = self.bytes.get(used - length..used).unwrap_or_default();
                let tells = whole.windows(NODES.len()).any(|part| part == NODES);
                self.is_look = tells || by_timer.contains(&&*name);
            }
            // A PING of the link's own, which asks whether somebody is there, has no words.
            if name == b"PING" && words == 2 {
                ended += usize::from(!self.is_look);
                self.has_begun = false;
            }
        }
        self.bytes.drain(..used);
        ended
    }
}

/// The name, the number of words and the length in bytes of the command that is whole at the start.
fn command(bytes: &[u8]) -> Option<(Vec<u8>, usize, usize)> {
    let (words, mut at) = number(bytes, 0, b'*')?;
    let mut name = Vec::new();
    for index in 0..words {
        let (length, start) = number(bytes, at, b'$')?;
        let word = bytes.get(start..start + length)?;
        if index == 0 {
            name = word.to_ascii_uppercase();
        }
        at = start + length + 2;
    }
    (at <= bytes.len()).then_some((name, words, at))
}

/// The number that stands at `at` after this mark, and where its line ends.
fn number(bytes: &[u8], at: usize, mark: u8) -> Option<(usize, usize)> {
    let rest = bytes.get(at..)?;
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    assert_eq!(rest[0], mark, "a command in another form: {:?}", String::from_utf8_lossy(rest));
    let number = std::str::from_utf8(&rest[1..end]).unwrap().parse().expect("a length");
    Some((number, at + end + 2))
}

/// Moves bytes one way, but for the time of the modes in which they are held.
fn pump(
    (mut from, mut to): (&TcpStream, &TcpStream),
    shared: &Shared,
    held: &[Mode],
    mut seen: impl FnMut(&[u8]),
) {
    let mut buffer = [0; 64 * 1024];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        seen(&buffer[..count]);
        let mode = shared.mode.lock().unwrap();
        if held.contains(&mode) {
            shared.holds.store(true, Ordering::SeqCst);
        }
        let mode = *shared.changed.wait_while(mode, |mode| held.contains(mode)).unwrap();
        if mode == Mode::Refuse || to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
