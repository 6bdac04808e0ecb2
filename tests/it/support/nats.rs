//! A nats-server of one test's own, and services on it that speak just enough of its protocol.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::gateway::kill;
use super::tls::TlsClient;
use super::wire::Fields;
use super::{Folder, PATIENCE, eventually};

/// See the module; it is killed when the test ends.
pub(crate) struct Nats {
    /// The server's program.
    program: PathBuf,
    port: u16,
    folder: Folder,
    child: Child,
}

impl Nats {
    /// Starts one on a free port.
    pub(crate) fn start() -> Self {
        Self::start_in(Folder::new(), "")
    }

    /// The same with settings of its own, which may name files in this folder.
    pub(crate) fn start_in(folder: Folder, settings: &str) -> Self {
        let of_debian = Path::new(OF_DEBIAN);
        let found = if of_debian.exists() { of_debian } else { Path::new("nats-server") };
        Self::start_as(found, folder, settings)
    }

    /// One of a newer version: the one that `scripts/setup` has fetched, or the one that this
    /// shell finds.
    pub(crate) fn newer() -> Self {
        Self::newer_in(Folder::new(), "")
    }

    /// The same with settings of its own.
    pub(crate) fn newer_in(folder: Folder, settings: &str) -> Self {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/nats/nats-server");
        let found = if own.exists() { own } else { PathBuf::from("nats-server") };
        Self::start_as(&found, folder, settings)
    }

    fn start_as(program: &Path, folder: Folder, settings: &str) -> Self {
        folder.write("nats.conf", settings);
        // Between our look and its bind another process may take the port.
        for _ in 0..5 {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = listener.local_addr().expect("its address").port();
            drop(listener);
            if let Some(child) = launch(program, port, &folder) {
                return Self { program: program.to_owned(), port, folder, child };
            }
        }
        panic!("nats-server does not stay up");
    }

    /// For `nats`.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// One with JetStream, whose streams are on the disk.
    pub(crate) fn with_streams() -> Self {
        Self::start_in(Folder::new(), STREAMS)
    }

    /// Asks, and waits for an answer: nothing where nobody listens.
    pub(crate) fn ask(&self, subject: &str, payload: impl AsRef<[u8]>) -> Option<String> {
        let payload = payload.as_ref();
        let mut socket = TcpStream::connect(self.address()).expect("nats-server");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let head = format!(
            "CONNECT {{\"verbose\":false,\"headers\":true,\"no_responders\":true}}\r\n\
             SUB _INBOX.test 1\r\nPUB {subject} _INBOX.test {}\r\n",
            payload.len()
        );
        socket.write_all(&[head.as_bytes(), payload, b"\r\n"].concat()).expect("a question");
        let mut lines = BufReader::new(socket);
        loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).expect("an answer") > 0, "the server has gone");
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["HMSG", ..] => return None,
                ["MSG", .., length] => {
                    let mut payload = vec![0; length.parse().expect("a length")];
                    lines.read_exact(&mut payload).expect("a payload");
                    return Some(String::from_utf8(payload).expect("text"));
                }
                ["-ERR", ..] => panic!("{line}"),
                _ => {}
            }
        }
    }

    /// Publishes, and waits until the server has read it.
    pub(crate) fn publish(&self, subject: &str, payload: &str) {
        let length = payload.len();
        let greeting = "CONNECT {\"verbose\":false}\r\n";
        self.write(&format!("{greeting}PUB {subject} {length}\r\n{payload}\r\nPING\r\n"));
    }

    /// Sends lines of the protocol, and waits until the server has read them: they end with PING.
    pub(crate) fn write(&self, lines: &str) {
        let mut socket = TcpStream::connect(self.address()).expect("nats-server");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.write_all(lines.as_bytes()).expect("the lines");
        let mut read = BufReader::new(socket).lines();
        assert!(read.any(|line| line.is_ok_and(|line| line == "PONG")), "the server has gone");
    }

    /// Asks JetStream for something that it is bound to do.
    pub(crate) fn api(&self, what: &str, payload: &serde_json::Value) -> serde_json::Value {
        let payload = if payload.is_null() { String::new() } else { payload.to_string() };
        let answer = self.ask(&format!("$JS.API.{what}"), payload);
        let answer = answer.expect("JetStream");
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        assert!(answer["error"].is_null(), "{what}: {answer}");
        answer
    }

    /// Makes a stream of these subjects.
    pub(crate) fn stream(&self, name: &str, subject: &str, more: &serde_json::Value) {
        let mut config = serde_json::json!({ "name": name, "subjects": [subject] });
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        self.api(&format!("STREAM.CREATE.{name}"), &config);
    }

    /// Makes a consumer that is pulled from and asks for acknowledgements.
    pub(crate) fn consumer(&self, stream: &str, name: &str, more: &serde_json::Value) {
        let mut config = serde_json::json!({ "durable_name": name, "ack_policy": "explicit" });
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let asked = serde_json::json!({ "stream_name": stream, "config": config });
        self.api(&format!("CONSUMER.DURABLE.CREATE.{stream}.{name}"), &asked);
    }

    /// Publishes to a subject of a stream, which says that it has stored it.
    pub(crate) fn store(&self, subject: &str, payload: impl AsRef<[u8]>) {
        let said = self.ask(subject, payload).expect("a stream");
        assert!(said.contains("\"seq\":") && !said.contains("error"), "{said}");
    }

    /// Its version, by its own word.
    pub(crate) fn version(&self) -> Vec<u64> {
        let socket = TcpStream::connect(self.address()).expect("nats-server");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line).expect("INFO");
        let info = line.strip_prefix("INFO ").expect("INFO");
        let info: serde_json::Value = serde_json::from_str(info).expect("JSON");
        let version = info["version"].as_str().expect("a version");
        version.split(['.', '-']).map_while(|part| part.parse().ok()).collect()
    }

    /// How many connections it has.
    pub(crate) fn clients(&self) -> usize {
        const ESTABLISHED: &str = "01";
        let sockets = std::fs::read_to_string("/proc/net/tcp").expect("the sockets of all");
        let own = format!("0100007F:{:04X}", self.port);
        let is_own = |line: &&str| {
            let words: Vec<_> = line.split_whitespace().collect();
            words.get(1) == Some(&&*own) && words.get(3) == Some(&ESTABLISHED)
        };
        sockets.lines().filter(is_own).count()
    }

    /// Kills it, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, on its port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let mut started = None;
        eventually("nats-server is back", || {
            started = launch(&self.program, self.port, &self.folder);
            started.is_some()
        });
        self.child = started.expect("a process");
    }

    /// Makes it silent: connections stay, and nothing moves.
    pub(crate) fn stop_signal(&self) {
        kill("STOP", self.child.id());
    }

    /// Lets it go on.
    pub(crate) fn cont_signal(&self) {
        kill("CONT", self.child.id());
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The setting for streams.
pub(crate) const STREAMS: &str = "jetstream { store_dir: \"streams\" }\n";
/// Where Debian puts it, which is not where users' shells look.
const OF_DEBIAN: &str = "/usr/sbin/nats-server";

/// Starts it and waits until it answers; nothing when it ended at once.
fn launch(program: &Path, port: u16, folder: &Folder) -> Option<Child> {
    let mut child = Command::new(program)
        .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-c", "nats.conf"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{}: {error}; install it: scripts/setup", program.display())
        });
    let mut alive = true;
    eventually("nats-server answers", || {
        alive = matches!(child.try_wait(), Ok(None));
        // Another server on this port would answer too, but then ours has ended.
        !alive || greets(port)
    });
    alive.then_some(child)
}

fn greets(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut begin = [0; 5];
    let _ = stream.set_read_timeout(Some(PATIENCE));
    stream.read_exact(&mut begin).is_ok() && begin == *b"INFO "
}

/// A message that reached a service.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Its subject.
    pub(crate) subject: String,
    /// Its fields, as they were written.
    pub(crate) fields: Fields,
    /// Its payload.
    pub(crate) payload: Vec<u8>,
    /// When it came.
    pub(crate) at: Instant,
}

impl Asked {
    /// The payload as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// The payload as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.payload).expect("JSON")
    }

    /// The first field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// One message of an answer: its fields and its payload.
pub(crate) type Said = (Vec<(&'static str, String)>, Vec<u8>);

/// A message without fields.
pub(crate) fn said(payload: impl AsRef<[u8]>) -> Said {
    (Vec::new(), payload.as_ref().to_vec())
}

/// A service that listens to a subject and answers.
pub(crate) struct Service {
    asked: Arc<Mutex<Vec<Asked>>>,
    socket: TcpStream,
}

/// What a service does to send messages of its own, also later.
pub(crate) struct Publish<'p> {
    to: &'p mut dyn Write,
    reply: &'p str,
}

impl Publish<'_> {
    /// Sends one message of the answer.
    pub(crate) fn send(&mut self, (fields, payload): &Said) {
        let mut head = "NATS/1.0\r\n".to_owned();
        fields.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        head += "\r\n";
        let (lines, all) = (head.len(), head.len() + payload.len());
        let begin = format!("HPUB {} {lines} {all}\r\n{head}", self.reply);
        let bytes = [begin.as_bytes(), payload, b"\r\n"].concat();
        // The server may be gone.
        let _ = self.to.write_all(&bytes);
    }
}

impl Service {
    /// One that answers with these messages.
    pub(crate) fn answering(
        nats: &Nats,
        subject: &str,
        answer: impl Fn(&Asked) -> Vec<Said> + Send + 'static,
    ) -> Self {
        Self::with(nats, subject, move |asked, publish| {
            answer(asked).iter().for_each(|said| publish.send(said));
        })
    }

    /// One that does as it likes.
    pub(crate) fn with(
        nats: &Nats,
        subject: &str,
        act: impl FnMut(&Asked, &mut Publish<'_>) + Send + 'static,
    ) -> Self {
        Self::over(nats, None, subject, act)
    }

    /// The same under TLS.
    pub(crate) fn over(
        nats: &Nats,
        tls: Option<&TlsClient>,
        subject: &str,
        act: impl FnMut(&Asked, &mut Publish<'_>) + Send + 'static,
    ) -> Self {
        let socket = TcpStream::connect(nats.address()).expect("nats-server");
        socket.set_nodelay(true).expect("no delay");
        let kept = socket.try_clone().expect("a socket");
        let asked = Arc::<Mutex<Vec<_>>>::default();
        let shared = Arc::clone(&asked);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (subject, tls) = (subject.to_owned(), tls.cloned());
        std::thread::spawn(move || {
            let mut line = Vec::new();
            let mut byte = [0];
            // Without a buffer: what follows INFO may be TLS.
            while !line.ends_with(b"\r\n") {
                (&socket).read_exact(&mut byte).expect("INFO");
                line.extend_from_slice(&byte);
            }
            let mut stream: Box<dyn Stream> = match tls {
                None => Box::new(socket),
                Some(tls) => Box::new(tls.over(socket, "localhost").expect("TLS")),
            };
            let greeting = format!(
                "CONNECT {{\"verbose\":false,\"headers\":true,\"no_responders\":true,\
                 \"user\":\"service\",\"pass\":\"secret\"}}\r\nSUB {subject} 1\r\nPING\r\n"
            );
            stream.write_all(greeting.as_bytes()).expect("a greeting");
            serve(BufReader::new(stream), &shared, &ready, act);
        });
        is_ready.recv_timeout(PATIENCE).expect("the service listens");
        Self { asked, socket: kept }
    }

    /// What reached it so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How many messages that were.
    pub(crate) fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// Reads until the connection ends.
fn serve(
    mut stream: BufReader<Box<dyn Stream>>,
    asked: &Mutex<Vec<Asked>>,
    ready: &std::sync::mpsc::Sender<()>,
    mut act: impl FnMut(&Asked, &mut Publish<'_>),
) {
    let mut line = String::new();
    loop {
        line.clear();
        if !matches!(stream.read_line(&mut line), Ok(1..)) {
            return;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let (reply, has_fields) = match words[..] {
            ["PING"] => {
                let _ = stream.get_mut().write_all(b"PONG\r\n");
                continue;
            }
            ["PONG"] => {
                let _ = ready.send(());
                continue;
            }
            ["MSG", _, _, reply, _] => (reply, false),
            ["HMSG", _, _, reply, _, _] => (reply, true),
            ["MSG", ..] => ("", false),
            ["HMSG", ..] => ("", true),
            _ => continue,
        };
        let number = |word: &str| word.parse::<usize>().expect("a length");
        let length = number(words[words.len() - 1]);
        let mut payload = vec![0; length + 2];
        if stream.read_exact(&mut payload).is_err() {
            return;
        }
        payload.truncate(length);
        let mut fields = Fields::new();
        if has_fields {
            let behind = payload.split_off(number(words[words.len() - 2]));
            let head = String::from_utf8(std::mem::replace(&mut payload, behind)).expect("text");
            let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
            fields = lines.map(|(name, it)| (name.to_owned(), it.trim().to_owned())).collect();
        }
        let subject = words[1].to_owned();
        // Who listens to everything hears its own answers.
        if subject.starts_with("_INBOX.") {
            continue;
        }
        let one = Asked { subject, fields, payload, at: Instant::now() };
        asked.lock().unwrap().push(one.clone());
        act(&one, &mut Publish { to: stream.get_mut(), reply });
    }
}
