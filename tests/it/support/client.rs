//! Clients: raw bytes for what no HTTP library would send, and a plain one for everything else.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::PATIENCE;
use super::wire::{Chunks, Fields, Framing, framing, head, values};

/// A connection whose reads end, with an error, after [`PATIENCE`].
pub(super) fn connect(address: SocketAddr) -> TcpStream {
    try_connect(address).expect("a connection")
}

/// The same where nobody may listen.
fn try_connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a write timeout");
    stream.set_nodelay(true).expect("no delay");
    Ok(stream)
}

/// Sends these bytes and returns the answer as it came: one whole response with those of 1xx before
/// it, or what there was when the connection ended (nothing at all included).
pub(crate) fn raw(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref();
    let mut stream = connect(address);
    // Who refuses a request may stop reading it.
    let _ = stream.write_all(bytes);
    let mut chunks = Chunks::of(stream);
    while !is_whole(chunks.left_over(), bytes.starts_with(b"HEAD ")) {
        match chunks.more() {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => panic!("{}: {error}", String::from_utf8_lossy(bytes)),
        }
    }
    String::from_utf8_lossy(chunks.left_over()).into_owned()
}

/// Sends these bytes and returns everything that came until the gateway closed the connection.
pub(crate) fn raw_until_close(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref();
    let mut stream = connect(address);
    let _ = stream.write_all(bytes);
    match Chunks::of(stream).rest() {
        Ok(all) => String::from_utf8_lossy(&all).into_owned(),
        Err(error) => panic!("not closed after {:?}: {error}", String::from_utf8_lossy(bytes)),
    }
}

/// Whether these bytes hold a whole final response.
fn is_whole(bytes: &[u8], to_head: bool) -> bool {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let (first, rest) = bytes.split_at(end + 4);
    let Ok((line, fields)) = head(first) else { return true };
    if line.starts_with("HTTP/1.1 1") {
        return is_whole(rest, to_head);
    }
    if to_head || line.starts_with("HTTP/1.1 204") || line.starts_with("HTTP/1.1 304") {
        return true;
    }
    match framing(&fields) {
        Ok(Framing::Length(length)) => rest.len() >= length,
        Ok(Framing::Chunked) => {
            rest.ends_with(b"\r\n\r\n") && rest.windows(3).any(|w| w == b"0\r\n")
        }
        Ok(Framing::Unsaid) | Err(_) => false,
    }
}

/// A response.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// Its status.
    pub(crate) status: u16,
    /// Its fields, names in lower case.
    pub(crate) headers: Fields,
    /// Its whole body.
    pub(crate) body: Vec<u8>,
    /// The trailers of a chunked body.
    pub(crate) trailers: Fields,
}

impl Reply {
    /// The first field of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers_named(name).first().copied()
    }

    /// All fields of this name.
    pub(crate) fn headers_named(&self, name: &str) -> Vec<&str> {
        values(&self.headers, name)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }
}

/// Makes requests that have a connection of their own.
pub(crate) struct Client;

impl Client {
    /// A GET.
    pub(crate) fn get(address: SocketAddr, path: &str) -> Request<'static> {
        Request::new(To::Fresh(address), path)
    }

    /// Another method.
    pub(crate) fn request(address: SocketAddr, method: &str, path: &str) -> Request<'static> {
        Request::new(To::Fresh(address), path).method(method)
    }
}

/// One connection that is used again and again.
pub(crate) struct Session(Chunks);

impl Session {
    /// Connects.
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self(Chunks::of(connect(address)))
    }

    /// A GET.
    pub(crate) fn get(&mut self, path: &str) -> Request<'_> {
        Request::new(To::Open(&mut self.0), path)
    }

    /// Another method.
    pub(crate) fn request(&mut self, method: &str, path: &str) -> Request<'_> {
        Request::new(To::Open(&mut self.0), path).method(method)
    }

    /// Writes bytes as they are.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.stream().write_all(bytes.as_ref()).expect("bytes for the gateway");
    }

    /// Reads one response.
    pub(crate) fn read(&mut self) -> Reply {
        receive(&mut self.0, false).expect("a whole response")
    }

    /// Reads up to and including `end`.
    pub(crate) fn read_until(&mut self, end: &str) -> String {
        let bytes = self.0.until(end.as_bytes()).expect("more").expect("not the end");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads this many bytes.
    pub(crate) fn read_exactly(&mut self, count: usize) -> String {
        String::from_utf8_lossy(&self.0.exactly(count).expect("more")).into_owned()
    }

    /// The same, as they are.
    pub(crate) fn read_bytes(&mut self, count: usize) -> Vec<u8> {
        self.0.exactly(count).expect("more")
    }

    /// Reads until the gateway closes, which it must do.
    pub(crate) fn rest(&mut self) -> String {
        String::from_utf8_lossy(&self.0.rest().expect("the end")).into_owned()
    }

    /// The socket.
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        self.0.stream()
    }
}

enum To<'a> {
    Fresh(SocketAddr),
    Open(&'a mut Chunks),
}

/// A request, until it is sent.
pub(crate) struct Request<'a> {
    to: To<'a>,
    method: String,
    path: String,
    headers: Fields,
    body: Option<Vec<u8>>,
    patience: Duration,
}

impl<'a> Request<'a> {
    fn new(to: To<'a>, path: &str) -> Self {
        let (method, path) = ("GET".to_owned(), path.to_owned());
        Self { to, method, path, headers: Vec::new(), body: None, patience: PATIENCE }
    }

    /// Sets the method.
    pub(crate) fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// Adds a field. `Host` is `shop.test` unless one is added.
    pub(crate) fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Adds `Authorization: Bearer …`.
    pub(crate) fn bearer(self, token: impl AsRef<str>) -> Self {
        self.header("Authorization", format!("Bearer {}", token.as_ref()))
    }

    /// Sets the body, with a `Content-Length`.
    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = Some(body.as_ref().to_owned());
        self
    }

    /// Waits longer for the response than for a gateway's, on a connection of its own.
    pub(crate) fn patience(mut self, longest: Duration) -> Self {
        self.patience = longest;
        self
    }

    /// Sends it and reads the response, which must be whole.
    pub(crate) fn send(self) -> Reply {
        let what = format!("{} {}", self.method, self.path);
        self.try_send().unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// Sends it and reads the response.
    ///
    /// # Errors
    /// When nobody listens, or the response is cut off or can be read in two ways.
    pub(crate) fn try_send(self) -> Result<Reply, String> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if values(&self.headers, "host").is_empty() {
            bytes += "Host: shop.test\r\n";
        }
        for (name, value) in &self.headers {
            bytes += &format!("{name}: {value}\r\n");
        }
        if let Some(body) = &self.body {
            bytes += &format!("Content-Length: {}\r\n", body.len());
        }
        let mut bytes = (bytes + "\r\n").into_bytes();
        bytes.extend(self.body.unwrap_or_default());
        let to_head = self.method == "HEAD";
        let exchange = |chunks: &mut Chunks| {
            let _ = chunks.stream().write_all(&bytes);
            receive(chunks, to_head)
        };
        match self.to {
            To::Fresh(address) => {
                let stream = try_connect(address).map_err(|error| error.to_string())?;
                stream.set_read_timeout(Some(self.patience)).expect("a read timeout");
                exchange(&mut Chunks::of(stream))
            }
            To::Open(chunks) => exchange(chunks),
        }
    }
}

/// Reads one final response.
fn receive(chunks: &mut Chunks, to_head: bool) -> Result<Reply, String> {
    loop {
        let bytes = chunks.until(b"\r\n\r\n")?.ok_or("closed without an answer")?;
        let (line, fields) = head(&bytes)?;
        let code = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "));
        let code = code.and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        let status: u16 = code.ok_or(format!("odd status line {line:?}"))?;
        if (100..200).contains(&status) && status != 101 {
            continue;
        }
        let lower = |(name, value): (String, String)| (name.to_ascii_lowercase(), value);
        let headers: Fields = fields.into_iter().map(lower).collect();
        let (body, trailers) = match framing(&headers)? {
            _ if to_head || matches!(status, 101 | 204 | 304) => (Vec::new(), Vec::new()),
            Framing::Length(length) => (chunks.exactly(length)?, Vec::new()),
            Framing::Chunked => chunks.chunked()?,
            Framing::Unsaid => (chunks.rest()?, Vec::new()),
        };
        return Ok(Reply { status, headers, body, trailers });
    }
}
