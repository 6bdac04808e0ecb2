//! What systemd is told of the process, by `sd_notify(3)`: one datagram of lines to the socket that
//! `NOTIFY_SOCKET` names. Nothing is told where there is no such socket, and nothing depends on it.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// Another process is the service's main one, so that this one has nothing to tell any more.
static IS_REPLACED: AtomicBool = AtomicBool::new(false);
/// All is bound: before that, the end of a reload would be taken for the end of the start.
static IS_READY: AtomicBool = AtomicBool::new(false);

/// The gateway serves.
pub fn ready() {
    is_told_ready();
    tell("READY=1");
}

/// The gateway serves, and the process before this one tells so: systemd listens to the main
/// process alone, and this one becomes it by that.
pub fn is_told_ready() {
    IS_READY.store(true, Ordering::Relaxed);
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
            let now = clock_gettime(ClockId::Monotonic);
            let microseconds = now.tv_sec.saturating_mul(1_000_000) + now.tv_nsec / 1000;
            tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
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
