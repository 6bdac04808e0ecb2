//! A redis-server of one test's own, and just enough of its protocol to look into it.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use super::gateway::kill;
use super::{Authority, Certificate, Folder, PATIENCE, eventually};

/// See the module; it is killed when the test ends.
pub(crate) struct Redis {
    /// The server's program.
    program: PathBuf,
    port: u16,
    folder: Folder,
    child: Child,
    /// Arguments beyond those that all have.
    more: Vec<String>,
    /// Who has the keys that begin like this.
    apart: Vec<(&'static str, Arc<Redis>)>,
}

/// Its name under TLS.
pub(crate) const TLS_NAMES: [&str; 2] = ["localhost", "127.0.0.1"];
/// The server that almost all tests use.
const REDIS: &str = "redis-server";
/// What its Unix socket is called, in its folder.
const SOCKET: &str = "redis.sock";

impl Redis {
    /// Starts one on a free port, without persistence.
    pub(crate) fn start() -> Self {
        Self::start_in(Folder::new(), |_| Vec::new())
    }

    /// The same with more of its settings.
    pub(crate) fn start_with(settings: &[String]) -> Self {
        Self::start_in(Folder::new(), |_| settings.to_vec())
    }

    /// A server of a newer kind with these of its settings: the one that `scripts/setup` has
    /// fetched, or the one that is installed. It counts for WAIT only what its own connection
    /// wrote, as Redis does from 7.2 on, and has WAITAOF.
    pub(crate) fn start_newer(settings: &[&str]) -> Self {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/valkey/valkey-server");
        let program = if own.exists() { own } else { PathBuf::from("valkey-server") };
        let settings: Vec<String> = settings.iter().map(|it| (*it).to_owned()).collect();
        Self::start_as(program, Folder::new(), |_| settings.clone())
    }

    /// The same, with a Unix socket beside its port.
    pub(crate) fn with_socket() -> Self {
        let folder = Folder::new();
        let socket = folder.path().join(SOCKET).display().to_string();
        Self::start_in(folder, |_| vec!["--unixsocket".to_owned(), socket.clone()])
    }

    /// The same, with a port for TLS beside its own: it shows `certificate` there, and wants one
    /// from `authority` of its clients, or not.
    pub(crate) fn with_tls(certificate: &Certificate, authority: &Authority, wants: bool) -> Self {
        Self::start_with_tls(Folder::new(), certificate, authority, &auth_clients(wants))
    }

    /// The same with more of its settings, without a wish for certificates of clients.
    pub(crate) fn with_tls_and(
        certificate: &Certificate,
        authority: &Authority,
        settings: &[String],
    ) -> Self {
        let more = [auth_clients(false), settings.to_vec()].concat();
        Self::start_with_tls(Folder::new(), certificate, authority, &more)
    }

    fn start_with_tls(
        folder: Folder,
        certificate: &Certificate,
        authority: &Authority,
        more: &[String],
    ) -> Self {
        let more = more.to_vec();
        let path = |name: &str, pem: String| folder.write(name, pem).display().to_string();
        let (cert, key) =
            (path("tls.pem", certificate.pem()), path("tls.key", certificate.key_pem()));
        let ca = path("ca.pem", authority.pem());
        let options = move |port: u16| {
            let mut words = vec!["--tls-port".to_owned(), port.to_string()];
            for (option, value) in
                [("--tls-cert-file", &*cert), ("--tls-key-file", &key), ("--tls-ca-cert-file", &ca)]
            {
                words.extend([option.to_owned(), value.to_owned()]);
            }
            words.extend(more.iter().cloned());
            words
        };
        Self::start_in(folder, options)
    }

    /// A sentinel that begins with the `sentinel.conf` in this folder.
    pub(crate) fn start_sentinel(folder: Folder, settings: &[String]) -> Self {
        Self::start_in(folder, |_| settings.to_vec())
    }

    /// The same, with a port for TLS beside its own.
    pub(crate) fn start_sentinel_with_tls(
        folder: Folder,
        certificate: &Certificate,
        authority: &Authority,
    ) -> Self {
        Self::start_with_tls(folder, certificate, authority, &auth_clients(false))
    }

    /// `more` is told one more free port.
    fn start_in(folder: Folder, more: impl Fn(u16) -> Vec<String>) -> Self {
        Self::start_as(PathBuf::from(REDIS), folder, more)
    }

    fn start_as(program: PathBuf, folder: Folder, more: impl Fn(u16) -> Vec<String>) -> Self {
        // Between our look and its bind another process may take the port.
        for _ in 0..5 {
            let free = || {
                let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
                (listener.local_addr().expect("its address").port(), listener)
            };
            let ((port, one), (another, other)) = (free(), free());
            drop((one, other));
            let more = more(another);
            if let Some(child) = launch(&program, port, &folder, &more) {
                return Self { program, port, folder, child, more, apart: Vec::new() };
            }
        }
        panic!("redis-server does not stay up");
    }

    /// The same, where another one has the keys that begin like this: what [`Self::cli`] names is
    /// asked of who has it, and what names no keys of all.
    pub(crate) fn beside(mut self, other: &Arc<Self>, keys: &'static str) -> Self {
        self.apart.push((keys, Arc::clone(other)));
        self
    }

    /// For `store.url`, under TLS.
    pub(crate) fn tls_url(&self) -> String {
        format!("rediss://localhost:{}", self.tls_port())
    }

    /// Where it speaks TLS.
    pub(crate) fn tls_port(&self) -> u16 {
        self.more[1].parse().expect("a port")
    }

    /// Where its Unix socket is.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }

    /// Has it show another certificate to new connections.
    pub(crate) fn show(&self, certificate: &Certificate) {
        let cert = self.folder.write("tls.pem", certificate.pem()).display().to_string();
        let key = self.folder.write("tls.key", certificate.key_pem()).display().to_string();
        let set = ["CONFIG", "SET", "tls-cert-file", &cert, "tls-key-file", &key];
        assert_eq!(self.cli(&set), "OK");
    }

    /// For `store.url`.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The answer to a command: text and numbers as they are, nil as "", lists line by line, an
    /// error as `(error) …`. Goes where a server of a cluster sends it.
    pub(crate) fn cli(&self, command: &[&str]) -> String {
        if let [name, ..] = command
            && matches!(*name, "FLUSHALL" | "SCRIPT")
        {
            self.apart.iter().for_each(|(_, other)| drop(other.cli(command)));
        }
        let is_of = |keys: &str| command.iter().any(|word| word.starts_with(keys));
        if let Some((_, other)) = self.apart.iter().find(|(keys, _)| is_of(keys)) {
            return other.cli(command);
        }
        let mut port = self.port;
        loop {
            let answer = ask(port, command).expect("an answer of redis-server");
            match answer.strip_prefix("(error) MOVED ").and_then(|it| it.rsplit_once(':')) {
                Some((_, elsewhere)) => port = elsewhere.parse().expect("a port"),
                None => return answer,
            }
        }
    }

    /// The same for what only looks, on a server that may be promoted or demoted meanwhile:
    /// sentinels then end the connections of all its clients.
    pub(crate) fn look(&self, command: &[&str]) -> String {
        let mut answer = None;
        eventually("redis-server answers", || {
            answer = ask(self.port, command).ok();
            answer.is_some()
        });
        answer.expect("an answer")
    }

    /// Has it follow another one, and waits until it has all.
    pub(crate) fn follow(&self, primary: &Self) {
        let port = primary.address().port().to_string();
        assert_eq!(self.cli(&["REPLICAOF", "127.0.0.1", &port]), "OK");
        eventually("the replica has all", || {
            primary.cli(&["INFO", "replication"]).contains("state=online")
                && self.cli(&["ROLE"]).contains("connected")
        });
    }

    /// No replica receives anything from it any more.
    pub(crate) fn stop_replication(&self) {
        assert_eq!(self.cli(&["ACL", "SETUSER", "default", "-psync", "-sync"]), "OK");
        self.cli(&["CLIENT", "KILL", "TYPE", "replica"]);
    }

    /// Kills it, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, empty, on its port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let (program, port, folder, more) = (&self.program, self.port, &self.folder, &self.more);
        let mut started = None;
        eventually("redis-server is back", || {
            started = launch(program, port, folder, more);
            started.is_some()
        });
        self.child = started.expect("a process");
    }

    /// Has it begin as another server of a cluster, or of none, when it starts again. Its former
    /// cluster does not find it on its bus: it would give up its address on meeting a stranger.
    pub(crate) fn forget_cluster(&mut self) {
        let _ = std::fs::remove_file(self.folder.path().join("nodes.conf"));
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let bus = free.expect("a free port").port().to_string();
        self.more.extend(["--cluster-port".to_owned(), bus]);
    }

    /// Makes it silent: connections stay, answers stop.
    pub(crate) fn stop_signal(&self) {
        kill("STOP", self.child.id());
    }

    /// Lets it go on.
    pub(crate) fn cont_signal(&self) {
        kill("CONT", self.child.id());
    }
}

fn auth_clients(wants: bool) -> Vec<String> {
    vec!["--tls-auth-clients".to_owned(), if wants { "yes" } else { "no" }.to_owned()]
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts it and waits until it answers; nothing when it ended at once.
fn launch(program: &Path, port: u16, folder: &Folder, more: &[String]) -> Option<Child> {
    let settings = folder.path().join("sentinel.conf");
    let first = if settings.exists() {
        vec![settings.display().to_string(), "--sentinel".to_owned()]
    } else {
        let words = ["--save", "", "--appendonly", "no"];
        words.iter().map(|word| (*word).to_owned()).collect()
    };
    let mut child = Command::new(program)
        .args(first)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"])
        .arg(folder.path())
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; scripts/setup gets it", program.display()));
    let mut alive = true;
    eventually("redis-server answers", || {
        alive = matches!(child.try_wait(), Ok(None));
        // Another server on this port would answer too, but then ours has ended.
        !alive || ask(port, &["PING"]).is_ok_and(|answer| answer == "PONG")
    });
    alive.then_some(child)
}

fn ask(port: u16, command: &[&str]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = format!("*{}\r\n", command.len());
    for word in command {
        bytes += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(bytes.as_bytes())?;
    answer(&mut BufReader::new(stream))
}

/// Reads one answer of RESP2.
fn answer(from: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let broken = || std::io::Error::other(format!("not RESP: {line:?}"));
    let (kind, rest) = line.trim_end().split_at_checked(1).ok_or_else(broken)?;
    match kind {
        "+" | ":" => Ok(rest.to_owned()),
        "-" => Ok(format!("(error) {rest}")),
        "$" | "*" if rest == "-1" => Ok(String::new()),
        "$" => {
            let length: usize = rest.parse().map_err(|_| broken())?;
            let mut bytes = vec![0; length + 2];
            from.read_exact(&mut bytes)?;
            bytes.truncate(length);
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        "*" => {
            let length: usize = rest.parse().map_err(|_| broken())?;
            let items: std::io::Result<Vec<_>> = (0..length).map(|_| answer(from)).collect();
            Ok(items?.join("\n"))
        }
        _ => Err(broken()),
    }
}
