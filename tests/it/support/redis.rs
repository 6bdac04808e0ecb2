//! A redis-server of one test's own, and just enough of its protocol to look into it.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use super::gateway::kill;
use super::{Folder, PATIENCE, eventually};

/// See the module; it is killed when the test ends.
pub(crate) struct Redis {
    port: u16,
    folder: Folder,
    settings: Vec<String>,
    child: Child,
}

impl Redis {
    /// Starts one on a free port, without persistence.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more of its settings.
    pub(crate) fn start_with(settings: &[String]) -> Self {
        let settings = settings.to_vec();
        let folder = Folder::new();
        // Between our look and its bind another process may take the port.
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
            let port = free.expect("a free port").port();
            if let Some(child) = launch(port, &folder, &settings) {
                return Self { port, folder, settings, child };
            }
        }
        panic!("redis-server does not stay up");
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
        let mut port = self.port;
        loop {
            let answer = ask(port, command).expect("an answer of redis-server");
            match answer.strip_prefix("(error) MOVED ").and_then(|it| it.rsplit_once(':')) {
                Some((_, elsewhere)) => port = elsewhere.parse().expect("a port"),
                None => return answer,
            }
        }
    }

    /// Kills it, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, empty, on its port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let (port, folder, settings) = (self.port, &self.folder, &self.settings);
        let mut started = None;
        eventually("redis-server is back", || {
            started = launch(port, folder, settings);
            started.is_some()
        });
        self.child = started.expect("a process");
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

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts it and waits until it answers; nothing when it ended at once.
fn launch(port: u16, folder: &Folder, settings: &[String]) -> Option<Child> {
    let mut child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "no", "--dir"])
        .arg(folder.path())
        .args(settings)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("redis-server: {error}; install it: sudo apt-get install -y redis-server")
        });
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
