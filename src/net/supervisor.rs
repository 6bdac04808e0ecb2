//! What systemd is told of the process, by `sd_notify(3)`: one datagram of lines to the socket that
//! `NOTIFY_SOCKET` names. Nothing is told where there is no such socket, and nothing depends on it.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// Another process is the service's main one, so that this one has nothing to tell any more.
static IS_REPLACED: AtomicBool = AtomicBool::new(false);
/// All is bound: before that, the end of a reload would be taken for the end of the start.
static IS_READY: AtomicBool = AtomicBool::new(false);

/// The hearts of the threads that serve.
static HEARTS: Mutex<Vec<Weak<AtomicU64>>> = Mutex::new(Vec::new());
/// From when on their beats are counted.
static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The gateway serves.
pub fn ready() {
    tell("READY=1");
    is_told_ready();
}

/// One thread's sign of life, as long as it serves.
#[derive(Debug)]
pub struct Heart(Arc<AtomicU64>);

impl Heart {
    /// That of a thread that begins to serve.
    pub fn begin() -> Self {
        let heart = Arc::new(AtomicU64::new(now()));
        let mut hearts = HEARTS.lock().unwrap_or_else(PoisonError::into_inner);
        hearts.retain(|known| known.strong_count() > 0);
        hearts.push(Arc::downgrade(&heart));
        Self(heart)
    }

    /// The thread does what it is to do.
    pub fn beat(&self) {
        self.0.store(now(), Ordering::Relaxed);
    }
}

/// Microseconds since the first of them began.
fn now() -> u64 {
    u64::try_from(BEGUN.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Microseconds of the monotonic clock, as systemd counts them.
fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanoseconds) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds.saturating_mul(1_000_000).saturating_add(nanoseconds / 1000)
}

/// Whether each of the threads that have not ended did something within `age`.
fn all_beat(hearts: &[Weak<AtomicU64>], now: u64, age: u64) -> bool {
    let beats = hearts.iter().filter_map(Weak::upgrade);
    beats.map(|heart| heart.load(Ordering::Relaxed)).all(|last| now.saturating_sub(last) <= age)
}

/// Tells three times in each `WATCHDOG_USEC` that the gateway lives, while all that serve do: one
/// may be lost while a process hands over to the next. The process that `WATCHDOG_PID` names is not
/// asked for: after a hand-over it is the one before this one.
fn watch() {
    let interval = std::env::var("WATCHDOG_USEC").ok().and_then(|it| it.parse::<u64>().ok());
    let Some(part) = interval.map(|it| it / 3).filter(|part| *part > 0) else { return };
    let watch = move || loop {
        let is_well = {
            let hearts = HEARTS.lock().unwrap_or_else(PoisonError::into_inner);
            all_beat(&hearts, now(), part)
        };
        if is_well {
            tell("WATCHDOG=1");
        } else {
            tracing::error!("a serving thread is stuck: systemd is not told that it lives");
        }
        std::thread::sleep(Duration::from_micros(part));
    };
    if let Err(error) = std::thread::Builder::new().name("watchdog".to_owned()).spawn(watch) {
        tracing::error!(%error, "systemd will not be told that the gateway lives");
    }
}

/// The gateway serves, and the process before this one tells so: systemd listens to the main
/// process alone, and this one becomes it by that.
pub fn is_told_ready() {
    if !IS_READY.swap(true, Ordering::Relaxed) {
        watch();
    }
}

/// The gateway ends.
pub fn stopping() {
    tell("STOPPING=1");
}

/// Another process has become the main one, and serves. This one says nothing more.
pub fn replaced_by(pid: u32) {
    tell(&format!("MAINPID={pid}\nREADY=1"));
    IS_REPLACED.store(true, Ordering::Relaxed);
}

/// A reload, as long as it lasts.
#[derive(Debug)]
pub struct Reloading(());

impl Reloading {
    /// Tells that one begins (`Type=notify-reload` wants the time by the monotonic clock).
    pub fn begin() -> Self {
        if IS_READY.load(Ordering::Relaxed) {
            tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_us()));
        }
        Self(())
    }
}

/// However it ends: the service is ready as before.
impl Drop for Reloading {
    fn drop(&mut self) {
        if IS_READY.load(Ordering::Relaxed) {
            tell("READY=1");
        }
    }
}

fn tell(state: &str) {
    if IS_REPLACED.load(Ordering::Relaxed) {
        return;
    }
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(place.as_bytes(), state) {
        tracing::debug!(%error, "systemd cannot be told {state:?}");
    }
}

fn send(place: &[u8], state: &str) -> std::io::Result<()> {
    let address = match place.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(place))?,
    };
    let socket = UnixDatagram::unbound()?;
    // A supervisor that does not read must not hold up the gateway.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_that_is_stuck_is_enough_and_one_that_ended_is_none() {
        let hearts = [100, 200].map(|last| Arc::new(AtomicU64::new(last)));
        let known: Vec<Weak<AtomicU64>> = hearts.iter().map(Arc::downgrade).collect();
        assert!(all_beat(&known, 250, 150) && all_beat(&known, 50, 0));
        assert!(!all_beat(&known, 251, 150));
        hearts[0].store(251, Ordering::Relaxed);
        assert!(all_beat(&known, 251, 150) && !all_beat(&known, 402, 150));
        drop(hearts);
        assert!(all_beat(&known, 402, 150));
    }

    #[test]
    fn a_path_and_an_abstract_name_are_reached() {
        let name = format!("portcullis-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let _ = std::fs::remove_file(&path);
        let by_path = UnixDatagram::bind(&path).unwrap();
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        send(path.as_os_str().as_bytes(), "READY=1").unwrap();
        send(format!("@{name}").as_bytes(), "STOPPING=1").unwrap();
        for (socket, expected) in [(by_path, "READY=1"), (by_name, "STOPPING=1")] {
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected.as_bytes());
        }
        std::fs::remove_file(&path).unwrap();
        assert!(send(path.as_os_str().as_bytes(), "READY=1").is_err());
    }
}
