//! WebSocket (RFC 6455) as strictly as it can be read, for both ends: frames are written byte for
//! byte, and each that comes is unmasked and shown.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::client::connect;
use super::wire::{Chunks, Fields, head, values};
use super::{PATIENCE, Upstream};

/// The key of every handshake, which is the RFC's own example.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What it is answered with.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// First bytes of frames: what they are, whole or begun.
pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const TEXT_BEGUN: u8 = 0x01;
pub(crate) const MORE: u8 = 0x00;
pub(crate) const LAST: u8 = 0x80;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;

/// One frame, unmasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) first: u8,
    pub(crate) is_masked: bool,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The code and the reason of a Close.
    pub(crate) fn close(&self) -> (u16, String) {
        assert_eq!(self.first, CLOSE, "{self:?}");
        let (code, reason) = self.payload.split_at(2);
        let code = u16::from_be_bytes([code[0], code[1]]);
        (code, String::from_utf8(reason.to_owned()).expect("a reason in UTF-8"))
    }
}

/// The bytes of a frame, masked as a client's or not.
pub(crate) fn frame(first: u8, is_masked: bool, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mask = if is_masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..126 => bytes.push(mask | u8::try_from(short).unwrap()),
        middle @ 126..65_536 => {
            bytes.push(mask | 126);
            bytes.extend(u16::try_from(middle).unwrap().to_be_bytes());
        }
        long => {
            bytes.push(mask | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    if is_masked {
        bytes.extend(MASK);
        bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    } else {
        bytes.extend(payload);
    }
    bytes
}

/// The payload of a Close.
pub(crate) fn reason(code: u16, text: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], text.as_bytes()].concat()
}

/// One end of a WebSocket.
pub(crate) struct WebSocket {
    chunks: Chunks,
    is_client: bool,
    /// Those of the head that the other end opened it with.
    fields: Fields,
}

impl WebSocket {
    /// Opens one at this path; `fields` are more lines of the head.
    pub(crate) fn open(address: SocketAddr, path: &str, fields: &str) -> Self {
        Self::opened(connect(address), path, fields, b"")
    }

    /// The same, over a connection that there is; `early` is sent along with the head.
    pub(crate) fn opened(mut stream: TcpStream, path: &str, fields: &str, early: &[u8]) -> Self {
        let bytes = [handshake(path, fields).as_bytes(), early].concat();
        stream.write_all(&bytes).expect("a handshake");
        let mut chunks = Chunks::of(stream);
        let bytes = chunks.until(b"\r\n\r\n").expect("an answer").expect("not the end");
        let (first, fields) = head(&bytes).expect("a head");
        let is = |name, value| assert_eq!(values(&fields, name), [value], "{first} {fields:?}");
        assert_eq!(first, "HTTP/1.1 101 Switching Protocols", "{fields:?}");
        is("upgrade", "websocket");
        is("connection", "Upgrade");
        is("sec-websocket-accept", ACCEPT);
        assert!(values(&fields, "content-length").is_empty(), "{fields:?}");
        assert!(values(&fields, "transfer-encoding").is_empty(), "{fields:?}");
        Self { chunks, is_client: true, fields }
    }

    /// The first field of this name in the head of the other end.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        values(&self.fields, name).first().copied()
    }

    /// All fields of the head of the other end.
    pub(crate) fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Sends one frame.
    pub(crate) fn send(&mut self, first: u8, payload: impl AsRef<[u8]>) {
        let bytes = frame(first, self.is_client, payload);
        self.write(bytes);
    }

    /// Writes bytes as they are.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_write(bytes).expect("bytes for the other end");
    }

    /// Writes bytes to an end that may be gone.
    pub(crate) fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.chunks.stream().write_all(bytes.as_ref())
    }

    /// The next frame; nothing when the connection has ended instead.
    pub(crate) fn try_next(&mut self) -> Result<Option<Frame>, String> {
        if self.chunks.left_over().is_empty() && !self.chunks.more()? {
            return Ok(None);
        }
        let two = self.chunks.exactly(2)?;
        let (first, second) = (two[0], two[1]);
        let more = match second & 0x7f {
            126 => self.chunks.exactly(2)?,
            127 => self.chunks.exactly(8)?,
            short => vec![short],
        };
        let length = more.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        let is_masked = second & 0x80 != 0;
        let mask = if is_masked { self.chunks.exactly(4)? } else { vec![0; 4] };
        let mut payload = self.chunks.exactly(length)?;
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        Ok(Some(Frame { first, is_masked, payload }))
    }

    /// The next frame.
    pub(crate) fn next(&mut self) -> Frame {
        self.try_next().expect("a frame").expect("not the end")
    }

    /// The next frame, which is this one.
    pub(crate) fn expect(&mut self, first: u8, payload: impl AsRef<[u8]>) {
        let payload = payload.as_ref().to_owned();
        assert_eq!(self.next(), Frame { first, is_masked: !self.is_client, payload });
    }

    /// The Close of the other end, then the end: its code and reason.
    pub(crate) fn closed(&mut self) -> (u16, String) {
        let close = self.next().close();
        self.ended();
        close
    }

    /// There is nothing more.
    pub(crate) fn ended(&mut self) {
        assert_eq!(self.try_next(), Ok(None));
    }

    /// Everything until the end, as bytes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        self.chunks.rest().expect("the end")
    }

    /// Ends this direction of the connection.
    pub(crate) fn shut_down(&mut self) {
        self.chunks.stream().shutdown(Shutdown::Write).expect("the end of what is sent");
    }

    /// The socket.
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        self.chunks.stream()
    }
}

/// The head of a handshake.
pub(crate) fn handshake(path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: shop.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    )
}

/// What a key must be answered with.
pub(crate) fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let algorithm = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
    STANDARD.encode(aws_lc_rs::digest::digest(algorithm, text.as_bytes()))
}

/// The heads of handshakes that reached an upstream.
pub(crate) type Handshakes = Arc<Mutex<Vec<String>>>;

/// An upstream whose WebSockets are served by `serve`, and the handshakes that reached it.
pub(crate) fn upstream(
    serve: impl Fn(WebSocket) + Send + Sync + 'static,
) -> (Upstream, Handshakes) {
    let handshakes = Handshakes::default();
    let seen = Arc::clone(&handshakes);
    let upstream = Upstream::raw(move |stream| {
        stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
        let mut chunks = Chunks::of(stream);
        let Ok(Some(bytes)) = chunks.until(b"\r\n\r\n") else { return };
        let (first, fields) = head(&bytes).expect("a head");
        seen.lock().unwrap().push(String::from_utf8_lossy(&bytes).into_owned());
        let key = values(&fields, "sec-websocket-key");
        assert_eq!(key.len(), 1, "{first} {fields:?}");
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nX-Served-By: upstream\r\n\r\n",
            accept(key[0])
        );
        chunks.stream().write_all(answer.as_bytes()).expect("an answer");
        serve(WebSocket { chunks, is_client: false, fields });
    });
    (upstream, handshakes)
}

/// Says back what it is told, until a Close, which it answers.
pub(crate) fn echo(mut socket: WebSocket) {
    while let Ok(Some(frame)) = socket.try_next() {
        assert!(frame.is_masked, "a client's frames are masked: {frame:?}");
        let first = if frame.first == PING { PONG } else { frame.first };
        let bytes = self::frame(first, false, &frame.payload);
        if socket.try_write(bytes).is_err() || frame.first == CLOSE {
            return;
        }
    }
}
