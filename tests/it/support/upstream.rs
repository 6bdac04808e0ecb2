//! An upstream that records every byte of every request, and reads each as strictly as it can be
//! read: a request that a more lenient server might read differently fails the test.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::wire::{Chunks, Fields, Framing, framing, head, values};

/// One request, as it reached the upstream.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    /// The head as it came, without the empty line.
    pub(crate) head: String,
    /// The body, unframed.
    pub(crate) body: Vec<u8>,
    /// The trailers of a chunked body.
    pub(crate) trailers: Fields,
    fields: Fields,
}

impl Recorded {
    /// The first field of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers_named(name).first().copied()
    }

    /// All fields of this name.
    pub(crate) fn headers_named(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name)
    }

    /// The names of all fields, in lower case.
    pub(crate) fn names(&self) -> Vec<String> {
        self.fields.iter().map(|(name, _)| name.to_ascii_lowercase()).collect()
    }

    /// Such as `GET /x HTTP/1.1`.
    pub(crate) fn request_line(&self) -> &str {
        self.head.split("\r\n").next().unwrap_or_default()
    }

    /// The request target.
    pub(crate) fn target(&self) -> &str {
        self.request_line().split(' ').nth(1).unwrap_or_default()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A free port of the loopback address.
const ANYWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

#[derive(Default)]
struct Log {
    whole: Mutex<Vec<Recorded>>,
    /// Heads whose body never came to its end.
    broken: Mutex<Vec<String>>,
    violations: Mutex<Vec<String>>,
    streams: Mutex<Vec<TcpStream>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    ended: AtomicBool,
}

/// See the module.
pub(crate) struct Upstream {
    address: SocketAddr,
    log: Arc<Log>,
}

impl Upstream {
    /// Answers every request with these bytes; a HEAD with their head.
    pub(crate) fn replying(response: impl Into<String>) -> Self {
        Self::replying_at(ANYWHERE, response).expect("a free port")
    }

    /// The same at this address.
    pub(crate) fn replying_at(
        address: SocketAddr,
        response: impl Into<String>,
    ) -> std::io::Result<Self> {
        let response = response.into();
        let head = response.find("\r\n\r\n").map_or(response.len(), |end| end + 4);
        let answer = move |request: &Recorded, connection: &mut TcpStream| {
            let to_head = request.request_line().starts_with("HEAD ");
            let length = if to_head { head } else { response.len() };
            let _ = connection.write_all(&response.as_bytes()[..length]);
        };
        Self::start(address, move |stream, log| serve(stream, log, (strict, &answer)))
    }

    /// Answers as `answer` does. It may close the connection; otherwise the next request is read.
    pub(crate) fn with(answer: impl Fn(&Recorded, &mut TcpStream) + Send + Sync + 'static) -> Self {
        Self::start(ANYWHERE, move |stream, log| serve(stream, log, (strict, &answer)))
            .expect("a free port")
    }

    /// The same behind another proxy, which may say more than the gateway does, in HTTP/1.0 too.
    pub(crate) fn lenient(
        answer: impl Fn(&Recorded, &mut TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let connected = move |stream, log: &Log| serve(stream, log, (Ok, &answer));
        Self::start(ANYWHERE, connected).expect("a free port")
    }

    /// The same at this address.
    pub(crate) fn with_at(
        address: SocketAddr,
        answer: impl Fn(&Recorded, &mut TcpStream) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        Self::start(address, move |stream, log| serve(stream, log, (strict, &answer)))
    }

    /// Hands each connection to `connected`, which reads and writes by itself. Nothing is recorded.
    pub(crate) fn raw(connected: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::start(ANYWHERE, move |stream, _| connected(stream)).expect("a free port")
    }

    fn start(
        address: SocketAddr,
        connected: impl Fn(TcpStream, &Log) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let log = Arc::new(Log::default());
        let (shared, connected) = (Arc::clone(&log), Arc::new(connected));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.ended.load(Ordering::SeqCst) {
                    return;
                }
                // What a test makes the upstream say next must not wait for an acknowledgement.
                let _ = stream.set_nodelay(true);
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                shared.open.fetch_add(1, Ordering::SeqCst);
                shared.streams.lock().unwrap().extend(stream.try_clone());
                let (log, connected) = (Arc::clone(&shared), Arc::clone(&connected));
                std::thread::spawn(move || {
                    let ends = stream.try_clone();
                    connected(stream, &log);
                    // The clone that is kept for hanging up must not keep the connection open.
                    let _ = ends.map(|stream| stream.shutdown(Shutdown::Both));
                    log.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Self { address, log })
    }

    /// Its URL, for `servers`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The table `[upstreams.NAME]` that names it.
    pub(crate) fn table(&self, name: &str) -> String {
        format!("\n[upstreams.{name}]\nservers = [\"{}\"]\n", self.url())
    }

    /// Every whole request, in order of its end.
    pub(crate) fn recorded(&self) -> Vec<Recorded> {
        let violations = self.log.violations.lock().unwrap();
        assert!(violations.is_empty(), "the upstream could misread: {violations:?}");
        self.log.whole.lock().unwrap().clone()
    }

    /// The only request that came.
    pub(crate) fn only(&self) -> Recorded {
        let mut all = self.recorded();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// How many whole requests came.
    pub(crate) fn seen(&self) -> usize {
        self.recorded().len()
    }

    /// The heads of requests whose body was cut off.
    pub(crate) fn broken(&self) -> Vec<String> {
        self.log.broken.lock().unwrap().clone()
    }

    /// Forgets what was recorded.
    pub(crate) fn forget(&self) {
        self.recorded();
        self.log.whole.lock().unwrap().clear();
        self.log.broken.lock().unwrap().clear();
    }

    /// How many connections were ever made to it.
    pub(crate) fn connections(&self) -> usize {
        self.log.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are open now.
    pub(crate) fn open(&self) -> usize {
        self.log.open.load(Ordering::SeqCst)
    }

    /// Closes all connections; new ones are welcome.
    pub(crate) fn hang_up(&self) {
        for stream in self.log.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.log.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        self.hang_up();
        if !std::thread::panicking() {
            self.recorded();
        }
    }
}

/// Writes an answer to a request.
type Answer = dyn Fn(&Recorded, &mut TcpStream);

/// Whether a head may come here.
type Judge = fn((String, Fields)) -> Result<(String, Fields), String>;

/// Reads and answers the requests of one connection.
fn serve(stream: TcpStream, log: &Log, (judge, answer): (Judge, &Answer)) {
    let violation = |what: String| log.violations.lock().unwrap().push(what);
    let mut chunks = Chunks::of(stream);
    loop {
        let bytes = match chunks.until(b"\r\n\r\n") {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return,
            Err(error) => return violation(format!("half a head: {error}")),
        };
        let (first, fields) = match head(&bytes).and_then(judge) {
            Ok(head) => head,
            Err(error) => return violation(error),
        };
        if !values(&fields, "expect").is_empty() {
            let _ = chunks.stream().write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let body = match framing(&fields) {
            Ok(Framing::Unsaid) => Ok((Vec::new(), Vec::new())),
            Ok(Framing::Length(length)) => chunks.exactly(length).map(|body| (body, Vec::new())),
            Ok(Framing::Chunked) => chunks.chunked(),
            Err(error) => return violation(error),
        };
        let head = String::from_utf8_lossy(&bytes[..bytes.len() - 4]).into_owned();
        let (body, trailers) = match body {
            Ok(body) => body,
            Err(error) if error.starts_with("cut off") => {
                return log.broken.lock().unwrap().push(head);
            }
            Err(error) => return violation(format!("{first}: {error}")),
        };
        if !chunks.left_over().is_empty() {
            return violation(format!("{first}: more bytes: {:?}", chunks.left_over()));
        }
        let recorded = Recorded { head, body, trailers, fields };
        log.whole.lock().unwrap().push(recorded.clone());
        answer(&recorded, chunks.stream());
    }
}

/// What no request may have on its way to an upstream: another form of target or version, not
/// exactly one `Host`, or a field that is about a connection.
fn strict((first, fields): (String, Fields)) -> Result<(String, Fields), String> {
    let words: Vec<&str> = first.split(' ').collect();
    let fine = matches!(words.as_slice(), [method, target, "HTTP/1.1"]
        if !method.is_empty() && target.starts_with('/') && !target.contains('#'));
    if !fine {
        return Err(format!("odd request line {first:?}"));
    }
    if values(&fields, "host").len() != 1 {
        return Err(format!("not exactly one Host: {fields:?}"));
    }
    let connection = |name: &str| {
        let name = name.to_ascii_lowercase();
        let listed = ["connection", "keep-alive", "upgrade", "http2-settings", "trailer"];
        listed.contains(&name.as_str()) || name.starts_with("proxy-")
    };
    let te =
        |(name, value): &(String, String)| name.eq_ignore_ascii_case("te") && value != "trailers";
    if values(&fields, "expect").iter().any(|value| *value != "100-continue") {
        return Err(format!("odd Expect: {fields:?}"));
    }
    match fields.iter().find(|field| connection(&field.0) || te(field)) {
        Some(field) => Err(format!("{first}: hop-by-hop {field:?}")),
        None => Ok((first, fields)),
    }
}
