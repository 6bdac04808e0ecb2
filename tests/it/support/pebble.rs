//! A certificate authority of a test's own: `pebble`, names that all lead to this machine, and a
//! front that sees and holds up what gateways ask of it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::{CertificateAuthority, Folder, PATIENCE, TlsClient, eventually};

/// A request that a gateway sent to the authority, and the status that it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The first part of the path, such as `order-plz`.
    pub(crate) what: String,
    pub(crate) status: u16,
}

#[derive(Default)]
struct Front {
    asked: Mutex<Vec<Asked>>,
    /// Answers to such requests are held back.
    held: Mutex<Option<&'static str>>,
    /// Those that are, now or before.
    holding: Mutex<Vec<&'static str>>,
    released: Condvar,
    /// Unix seconds between which certificates are to be renewed.
    window: Mutex<Option<(i64, i64)>>,
    /// What `Retry-After` says of the next look at renewals; nothing: an hour.
    retry_after: Mutex<Option<&'static str>>,
    /// What new orders say that they replace.
    replaced: Mutex<Vec<String>>,
    is_away: AtomicBool,
}

/// See the module; it ends with the test.
pub(crate) struct Pebble {
    /// Whom gateways must believe.
    pub(crate) authority: CertificateAuthority,
    /// Where clear HTTP is asked for proofs, and where TLS.
    pub(crate) http: Balancer,
    pub(crate) tls: Balancer,
    port: u16,
    management: u16,
    address: SocketAddr,
    front: Arc<Front>,
    child: Child,
    _folder: Folder,
}

impl Pebble {
    /// Starts one whose certificates are good for so many seconds.
    pub(crate) fn start(validity: u32) -> Self {
        let (authority, folder) = (CertificateAuthority::new(), Folder::new());
        let own = authority.issue(&["localhost"]);
        folder.write("cert.pem", &own.cert);
        folder.write("key.pem", &own.key);
        let (http, tls, dns) = (Balancer::start(), Balancer::start(), answer_names());
        for _ in 0..5 {
            let [port, management] = [free_port(), free_port()];
            folder.write(
                "pebble.json",
                json!({ "pebble": {
                    "listenAddress": format!("127.0.0.1:{port}"),
                    "managementListenAddress": format!("127.0.0.1:{management}"),
                    "certificate": "cert.pem",
                    "privateKey": "key.pem",
                    "httpPort": http.address.port(),
                    "tlsPort": tls.address.port(),
                    "certificateValidityPeriod": validity,
                } })
                .to_string(),
            );
            if let Some(child) = launch(&folder, dns, [port, management]) {
                let front = Arc::<Front>::default();
                let client = TlsClient::new(&authority);
                let address = stand_in_front(server(&own), client, port, &front);
                let _folder = folder;
                return Self {
                    authority,
                    http,
                    tls,
                    port,
                    management,
                    address,
                    front,
                    child,
                    _folder,
                };
            }
        }
        panic!("pebble does not stay up");
    }

    /// For `server.tls.acme.directory`.
    pub(crate) fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.address.port())
    }

    /// A client that believes what was issued, and nothing else.
    pub(crate) fn client(&self) -> TlsClient {
        self.client_offering(&[])
    }

    /// The same; it shows this certificate.
    pub(crate) fn client_showing(&self, own: &super::Pair) -> TlsClient {
        TlsClient::made(&self.root(), Some(own), &[])
    }

    /// The same; it offers these protocols.
    pub(crate) fn client_offering(&self, protocols: &[&str]) -> TlsClient {
        TlsClient::made(&self.root(), None, protocols)
    }

    /// Who vouches for what is issued, in PEM.
    fn root(&self) -> String {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.management));
        let client = TlsClient::new(&self.authority);
        let answer = client.get(address, "localhost", "/roots/0", "").expect("the root");
        answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
    }

    /// What was asked and answered so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.front.asked.lock().unwrap().clone()
    }

    /// How many such requests came.
    pub(crate) fn count(&self, what: &str) -> usize {
        self.asked().iter().filter(|asked| asked.what == what).count()
    }

    /// How many orders it has taken.
    pub(crate) fn orders(&self) -> usize {
        self.answered("order-plz", 201)
    }

    /// How many accounts it has made.
    pub(crate) fn accounts(&self) -> usize {
        self.answered("sign-me-up", 201)
    }

    fn answered(&self, what: &str, status: u16) -> usize {
        let is_it = |asked: &&Asked| asked.what == what && asked.status == status;
        self.asked().iter().filter(is_it).count()
    }

    /// Holds back the answers to such requests, and no others any more. It has seen them, and done
    /// what they say.
    pub(crate) fn hold(&self, what: &'static str) {
        *self.front.held.lock().unwrap() = Some(what);
        self.front.released.notify_all();
    }

    /// Waits until such an answer is held back.
    pub(crate) fn is_holding(&self, what: &'static str) {
        eventually(&format!("{what} is held back"), || {
            self.front.holding.lock().unwrap().contains(&what)
        });
    }

    /// Holds nothing back any more.
    pub(crate) fn release(&self) {
        *self.front.held.lock().unwrap() = None;
        self.front.released.notify_all();
    }

    /// Speaks with nobody, or with everybody again.
    pub(crate) fn be_away(&self, is_away: bool) {
        self.front.is_away.store(is_away, Ordering::SeqCst);
    }

    /// Wants certificates renewed between these Unix seconds (RFC 9773). To be said before a
    /// gateway has read the directory.
    pub(crate) fn want_renewal(&self, window: (i64, i64)) {
        *self.front.window.lock().unwrap() = Some(window);
    }

    /// Says with each answer about renewals when to ask again, in seconds.
    pub(crate) fn want_retry_after(&self, seconds: &'static str) {
        *self.front.retry_after.lock().unwrap() = Some(seconds);
    }

    /// What new orders said that they replace.
    pub(crate) fn replaced(&self) -> Vec<String> {
        self.front.replaced.lock().unwrap().clone()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.release();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- pebble on {} was asked: {:?}", self.port, self.asked());
        }
    }
}

fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.expect("a free port").port()
}

/// Starts it and waits until it listens; nothing when it ended at once.
fn launch(folder: &Folder, dns: SocketAddr, ports: [u16; 2]) -> Option<Child> {
    let mut child = Command::new("pebble")
        .args(["-config", "pebble.json", "-dnsserver", &dns.to_string()])
        .current_dir(folder.path())
        .env("PEBBLE_VA_NOSLEEP", "1")
        .env("PEBBLE_WFE_NONCEREJECT", "0")
        .env("PEBBLE_AUTHZREUSE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("pebble: {error}; install it: sudo apt-get install -y pebble")
        });
    let mut alive = true;
    eventually("pebble listens", || {
        alive = matches!(child.try_wait(), Ok(None));
        !alive || ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok())
    });
    alive.then_some(child)
}

/// A DNS server for which every name is this machine, by IPv4 alone.
fn answer_names() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("its address");
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&answer_to(&bytes[..count]), from);
        }
    });
    address
}

/// RFC 1035 §4.1, for one question.
fn answer_to(question: &[u8]) -> Vec<u8> {
    let labels = question.get(12..).unwrap_or_default();
    let end = labels.iter().position(|byte| *byte == 0).unwrap_or(labels.len());
    let asked = labels.get(..end + 5).unwrap_or_default();
    let is_a = asked.ends_with(&[0, 1, 0, 1]);
    let mut answer = question.get(..2).unwrap_or_default().to_vec();
    answer.extend_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend_from_slice(asked);
    if is_a {
        answer.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
    }
    answer
}

fn server(own: &super::Pair) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = CertificateDer::pem_slice_iter(own.cert.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("a key");
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain.collect::<Result<_, _>>().expect("a chain"), key)
        .expect("a server")
}

/// Takes the requests for the server on `port`, each on a connection of its own.
fn stand_in_front(
    config: ServerConfig,
    client: TlsClient,
    port: u16,
    front: &Arc<Front>,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let (config, front) = (Arc::new(config), Arc::clone(front));
    std::thread::spawn(move || {
        for tcp in listener.incoming().map_while(Result::ok) {
            if front.is_away.load(Ordering::SeqCst) {
                continue;
            }
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
            let stream = StreamOwned::new(connection, tcp);
            let (client, front) = (client.clone(), Arc::clone(&front));
            std::thread::spawn(move || front.exchange(stream, &client, (port, address.port())));
        }
    });
    address
}

impl Front {
    /// Passes one request on. What goes wrong is the gateway's to see.
    fn exchange(
        &self,
        mut stream: StreamOwned<ServerConnection, TcpStream>,
        client: &TlsClient,
        (port, own_port): (u16, u16),
    ) -> Option<()> {
        let request = read_request(&mut stream)?;
        let text = String::from_utf8_lossy(&request).into_owned();
        let what = text.split([' ', '/']).find(|it| !it.is_empty() && *it != "GET")?;
        let what = text.split_once(" /")?.1.split(['/', ' ']).next().unwrap_or(what).to_owned();
        let mut answer = if what == "renewal" {
            let (start, end) = (*self.window.lock().unwrap())?;
            let time = |seconds| jiff::Timestamp::from_second(seconds).unwrap().to_string();
            let window = json!({ "start": time(start), "end": time(end) });
            let after = self.retry_after.lock().unwrap().unwrap_or("3600");
            let line = format!("Retry-After: {after}\r\n");
            http(200, &json!({ "suggestedWindow": window }).to_string(), &line)
        } else {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let mut behind = client.connect(address, "localhost").ok()?;
            behind.write_all(&request).ok()?;
            let mut answer = Vec::new();
            match behind.read_to_end(&mut answer) {
                Err(error) if error.kind() != ErrorKind::UnexpectedEof => return None,
                _ => answer,
            }
        };
        self.say_more(&what, &text, &mut answer, own_port);
        let status = String::from_utf8_lossy(answer.get(9..12)?).parse().ok()?;
        self.asked.lock().unwrap().push(Asked { what: what.clone(), status });
        self.wait(&what);
        stream.write_all(&answer).ok()?;
        stream.conn.send_close_notify();
        stream.flush().ok()
    }

    /// What this authority does not know of renewal, though others do.
    fn say_more(&self, what: &str, request: &str, answer: &mut Vec<u8>, own_port: u16) {
        let speaks = self.window.lock().unwrap().is_some();
        if !speaks || !matches!(what, "dir" | "order-plz") {
            return;
        }
        let text = String::from_utf8_lossy(answer).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return };
        let Ok(mut body) = serde_json::from_str::<Value>(body) else { return };
        if what == "dir" {
            body["renewalInfo"] = format!("https://localhost:{own_port}/renewal").into();
        } else if let Some(replaces) = payload(request).get("replaces") {
            self.replaced.lock().unwrap().push(replaces.as_str().unwrap_or_default().to_owned());
            body["replaces"] = replaces.clone();
        }
        let is_kept = |line: &&str| !line.to_ascii_lowercase().starts_with("content-length");
        let kept: Vec<&str> = head.lines().filter(is_kept).collect();
        let body = body.to_string();
        let length = body.len();
        *answer = format!("{}\r\nContent-Length: {length}\r\n\r\n{body}", kept.join("\r\n")).into();
    }

    fn wait(&self, what: &str) {
        let held = self.held.lock().unwrap();
        let Some(own) = held.filter(|held| *held == what) else { return };
        self.holding.lock().unwrap().push(own);
        drop(self.released.wait_while(held, |held| *held == Some(own)).unwrap());
    }
}

/// What a signed request says (RFC 7515 §7.2.2).
fn payload(request: &str) -> Value {
    let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let payload = URL_SAFE_NO_PAD.decode(body["payload"].as_str().unwrap_or_default());
    serde_json::from_slice(&payload.unwrap_or_default()).unwrap_or_default()
}

fn http(status: u16, body: &str, lines: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\n");
    format!("{head}{lines}Content-Length: {length}\r\n\r\n{body}").into()
}

fn read_request(stream: &mut impl Read) -> Option<Vec<u8>> {
    let (mut bytes, mut some) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1);
            let length = length.and_then(|it| it.lines().next()?.trim().parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(bytes);
            }
        }
        let count = stream.read(&mut some).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&some[..count]);
    }
}

/// Passes connections on to some servers in turn.
pub(crate) struct Balancer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    targets: Arc<Targets>,
}

/// Nothing until somebody says where to: a gateway may order before its test goes on.
#[derive(Default)]
struct Targets {
    known: Mutex<Option<Vec<SocketAddr>>>,
    told: Condvar,
}

impl Targets {
    /// Whose turn it is, once it is told.
    fn of(&self, turn: usize) -> Option<SocketAddr> {
        let known = self.known.lock().unwrap();
        let known = self.told.wait_timeout_while(known, PATIENCE, |known| known.is_none());
        let known = known.unwrap().0;
        let targets = known.as_deref().unwrap_or_default();
        targets.get(turn % targets.len().max(1)).copied()
    }
}

impl Balancer {
    /// One that lets everybody wait until it is told where to.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let targets = Arc::<Targets>::default();
        let known = Arc::clone(&targets);
        std::thread::spawn(move || {
            for (turn, client) in listener.incoming().map_while(Result::ok).enumerate() {
                let known = Arc::clone(&known);
                std::thread::spawn(move || {
                    let server = known.of(turn).and_then(|to| TcpStream::connect(to).ok());
                    server.into_iter().for_each(|server| join(&client, &server));
                });
            }
        });
        Self { address, targets }
    }

    /// Passes connections on to these servers from now on; where there are none, to nobody.
    pub(crate) fn to(&self, targets: &[SocketAddr]) {
        *self.targets.known.lock().unwrap() = Some(targets.to_vec());
        self.targets.told.notify_all();
    }
}

fn join(client: &TcpStream, server: &TcpStream) {
    for (from, to) in [(client, server), (server, client)] {
        let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
        let _ = from.set_read_timeout(Some(PATIENCE));
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
