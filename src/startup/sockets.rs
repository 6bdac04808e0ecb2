//! Listening sockets: the gateway's own, or such as were open when it began, because systemd
//! (`LISTEN_FDS`, `sd_listen_fds(3)`) or the process before this one has left them. Whoever has
//! waited in one of these is served, and nobody is refused in between.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Arc, Weak};

use listenfd::ListenFd;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use tokio::net::{TcpListener, TcpSocket};

/// Connections that the kernel keeps while we are busy.
const BACKLOG: u32 = 4096;
/// Most sockets that are taken over.
const INHERITED_MAX: usize = 1024;
/// The first number that is nobody's by custom.
const FIRST_FD: i32 = 3;
/// How often numbers in a row are looked for: others open files meanwhile.
const ROWS_MAX: usize = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Sockets {
    inherited: Vec<Inherited>,
    /// Those that nobody can take, and why.
    unusable: Vec<String>,
    /// Those that are listened on, by what they are for.
    held: Vec<(&'static str, Weak<TcpListener>)>,
}

#[derive(Debug)]
struct Inherited {
    /// `public`, `tls` or `admin`, or whatever a `.socket` unit calls it.
    name: String,
    address: SocketAddr,
    listener: std::net::TcpListener,
}

/// Open sockets with numbers in a row, as `LISTEN_FDS` wants them.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) sockets: Vec<OwnedFd>,
    /// Their names, divided by colons.
    pub(super) names: String,
}

impl Row {
    /// The number of the first.
    pub(super) fn first(&self) -> i32 {
        self.sockets.first().map_or(FIRST_FD, |socket| socket.as_raw_fd())
    }
}

impl Sockets {
    /// Those that the environment names. To be called before the process opens anything itself:
    /// numbers are all that the environment has.
    pub fn from_env() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut given = ListenFd::from_env();
        let mut sockets = Self::default();
        for index in 0..given.len().min(INHERITED_MAX) {
            let name = names.next().unwrap_or_default();
            match given.take_tcp_listener(index) {
                Ok(Some(listener)) => sockets.inherit(name, listener),
                Ok(None) => {}
                Err(error) => sockets.unusable.push(format!("{name:?}: {error}")),
            }
        }
        sockets
    }

    fn inherit(&mut self, name: &str, listener: std::net::TcpListener) {
        let is_listening = socket2::SockRef::from(&listener).is_listener().unwrap_or(false);
        match listener.local_addr() {
            Ok(address) if is_listening => {
                self.inherited.push(Inherited { name: name.to_owned(), address, listener });
            }
            _ => self.unusable.push(format!("{name:?}: it is not listened on (Accept=yes?)")),
        }
    }

    /// A socket that listens on this address: one that was open, or a new one.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn listen(
        &mut self,
        name: &'static str,
        address: SocketAddr,
    ) -> std::io::Result<Arc<TcpListener>> {
        let listener = Arc::new(match self.take(name, address) {
            Some(inherited) => {
                inherited.set_nonblocking(true)?;
                TcpListener::from_std(inherited)?
            }
            None => bind(address)?,
        });
        self.held.push((name, Arc::downgrade(&listener)));
        Ok(listener)
    }

    /// The socket that was open for this address. Port 0 is whichever port the process before this
    /// one has got, for the same purpose.
    fn take(&mut self, name: &str, address: SocketAddr) -> Option<std::net::TcpListener> {
        let is_it = |it: &Inherited| it.address == address;
        let is_any = |it: &Inherited| {
            address.port() == 0 && it.name == name && it.address.ip() == address.ip()
        };
        let mut places = self.inherited.iter();
        let index = places.position(is_it).or_else(|| self.inherited.iter().position(is_any))?;
        Some(self.inherited.remove(index).listener)
    }

    /// Says which sockets nobody wants, and closes them.
    pub(super) fn close_others(&mut self) {
        for Inherited { name, address, .. } in self.inherited.drain(..) {
            tracing::warn!(
                "the open socket {name:?} on {address} is closed: nothing in the configuration \
                 listens there\n    help: write its address into server.listen, \
                 server.tls.listen or admin.listen, or take it out of the .socket unit"
            );
        }
        for why in self.unusable.drain(..) {
            tracing::warn!("an open socket cannot be used: {why}");
        }
    }

    /// All that are listened on, open over an exec; nothing when the gateway listens no more.
    pub(super) fn row(&self) -> std::io::Result<Option<Row>> {
        let held = self.held.iter().map(|(_, listener)| listener.upgrade());
        let Some(listeners) = held.collect::<Option<Vec<_>>>() else { return Ok(None) };
        let sockets = in_a_row(&listeners)?;
        for socket in &sockets {
            fcntl_setfd(socket, FdFlags::empty())?;
        }
        let names: Vec<&str> = self.held.iter().map(|(name, _)| *name).collect();
        Ok(Some(Row { sockets, names: names.join(":") }))
    }
}

/// Copies whose numbers are in a row.
fn in_a_row(listeners: &[Arc<TcpListener>]) -> std::io::Result<Vec<OwnedFd>> {
    let mut wanted = FIRST_FD;
    'rows: for _ in 0..ROWS_MAX {
        let mut row = Vec::with_capacity(listeners.len());
        for listener in listeners {
            let copy = fcntl_dupfd_cloexec(listener, wanted)?;
            let number = copy.as_raw_fd();
            let is_next = row.is_empty() || number == wanted;
            row.push(copy);
            if !is_next {
                wanted = number;
                continue 'rows;
            }
            wanted = number + 1;
        }
        return Ok(row);
    }
    Err(std::io::Error::other("no numbers of files are free in a row"))
}

/// Binds an address.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> std::net::TcpListener {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap()
    }

    #[test]
    fn an_open_socket_is_taken_by_its_address_or_for_port_0_by_its_name() {
        let (public, admin, other) = (open(), open(), open());
        let addresses = [&public, &admin, &other].map(|it| it.local_addr().unwrap());
        let mut sockets = Sockets::default();
        sockets.inherit("public", public);
        sockets.inherit("admin", admin);
        sockets.inherit("public", other);
        let mut take = |name: &str, address: &str| {
            let taken = sockets.take(name, address.parse().unwrap());
            taken.map(|listener| listener.local_addr().unwrap())
        };
        assert_eq!(take("public", &addresses[2].to_string()), Some(addresses[2]));
        assert_eq!(take("tls", "127.0.0.1:0"), None);
        assert_eq!(take("admin", "127.0.0.2:0"), None);
        assert_eq!(take("admin", "127.0.0.1:0"), Some(addresses[1]));
        assert_eq!(take("admin", "127.0.0.1:0"), None);
        assert_eq!(take("public", "127.0.0.1:0"), Some(addresses[0]));
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_not_taken() {
        let listener = open();
        let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut sockets = Sockets::default();
        sockets.inherit("public", OwnedFd::from(connected).into());
        assert!(sockets.inherited.is_empty());
        assert_eq!(sockets.unusable.len(), 1);
    }

    #[tokio::test]
    async fn copies_have_numbers_in_a_row_and_stay_open_over_an_exec() {
        let mut sockets = Sockets::default();
        let mut listeners = Vec::new();
        let mut holes = Vec::new();
        for name in ["public", "tls", "admin"] {
            listeners.push(sockets.listen(name, "127.0.0.1:0".parse().unwrap()).unwrap());
            holes.push((open(), open()));
        }
        // Numbers that are free one by one.
        let kept: Vec<_> = holes.into_iter().map(|(kept, _)| kept).collect();
        let row = sockets.row().unwrap().unwrap();
        assert_eq!(row.names, "public:tls:admin");
        let numbers: Vec<i32> = row.sockets.iter().map(|socket| socket.as_raw_fd()).collect();
        let first = row.first();
        assert_eq!(numbers, [first, first + 1, first + 2]);
        for socket in &row.sockets {
            assert_eq!(rustix::io::fcntl_getfd(socket).unwrap(), FdFlags::empty());
        }
        drop((listeners, kept));
        assert!(sockets.row().unwrap().is_none(), "nobody listens any more");
    }
}
