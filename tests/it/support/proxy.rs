//! A TCP proxy in front of Redis: it counts round trips, and it can be a broken network.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    Swallow,
    Refuse,
}

struct Shared {
    mode: Mutex<Mode>,
    changed: Condvar,
    batches: AtomicUsize,
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

    /// How many batches of requests came: reads from the client that follow an answer, or the start
    /// of their connection. What the gateway looks at from time to time is not among them: when it
    /// comes depends on how long a test takes.
    pub(crate) fn batches(&self) -> usize {
        self.shared.batches.load(Ordering::SeqCst)
    }

    /// Counts from zero again.
    pub(crate) fn reset_count(&self) {
        self.shared.batches.store(0, Ordering::SeqCst);
    }

    /// Everything flows, what was held back included.
    pub(crate) fn pass(&self) {
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
    let answered = Arc::new(AtomicBool::new(true));
    for (from, to, from_client) in [(client, server, true), (server, client, false)] {
        let _ = from.set_nodelay(true);
        let (Ok(from), Ok(to), Ok(kept)) = (from.try_clone(), to.try_clone(), from.try_clone())
        else {
            return;
        };
        shared.streams.lock().unwrap().push(kept);
        let (shared, answered) = (Arc::clone(shared), Arc::clone(&answered));
        std::thread::spawn(move || {
            let seen = |bytes: &[u8]| {
                if from_client && is_a_look(bytes) {
                    return;
                }
                if answered.swap(!from_client, Ordering::SeqCst) && from_client {
                    shared.batches.fetch_add(1, Ordering::SeqCst);
                }
            };
            pump(&from, &to, &shared, &seen);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}

/// The server's clock, and whether it evicts: asked for by timers.
fn is_a_look(bytes: &[u8]) -> bool {
    [b"*1\r\n$4\r\nTIME\r\n".as_slice(), b"*2\r\n$4\r\nINFO\r\n"]
        .iter()
        .any(|look| bytes.starts_with(look))
}

fn pump(mut from: &TcpStream, mut to: &TcpStream, shared: &Shared, seen: &dyn Fn(&[u8])) {
    let mut buffer = [0; 64 * 1024];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        seen(&buffer[..count]);
        let mode = shared.mode.lock().unwrap();
        let mode = *shared.changed.wait_while(mode, |mode| *mode == Mode::Swallow).unwrap();
        if mode == Mode::Refuse || to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
