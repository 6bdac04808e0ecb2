//! HTTP/1.1 messages as strictly as they can be read: what two parsers could read differently is an
//! error, never a guess.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;

/// Header or trailer fields, in order, names as they came.
pub(crate) type Fields = Vec<(String, String)>;

/// A response with a `Content-Length`. `head` is the status and the other fields, such as
/// `"200 OK\r\nETag: \"1\""`.
pub(crate) fn response(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Bytes of one connection, with those that were read too early.
pub(crate) struct Chunks {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Chunks {
    /// Reads from `stream`.
    pub(crate) fn of(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// What arrived and nobody asked for yet.
    pub(crate) fn left_over(&self) -> &[u8] {
        &self.buffer
    }

    /// The connection itself, for writing.
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Reads once; false at the end. A reset is an end too.
    ///
    /// # Errors
    /// When nothing came before the stream's read timeout.
    pub(crate) fn more(&mut self) -> Result<bool, String> {
        let mut some = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut some) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.buffer.extend_from_slice(&some[..count]);
                    return Ok(true);
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                        return Err(format!("nothing more came after {}", self.show()));
                    }
                    _ => return Ok(false),
                },
            }
        }
    }

    /// Everything up to and including `end`; nothing when the connection ended before its first
    /// byte.
    pub(crate) fn until(&mut self, end: &[u8]) -> Result<Option<Vec<u8>>, String> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|bytes| bytes == end) {
                return Ok(Some(self.buffer.drain(..at + end.len()).collect()));
            }
            if !self.more()? {
                let empty = self.buffer.is_empty();
                return if empty { Ok(None) } else { Err(format!("cut off: {}", self.show())) };
            }
        }
    }

    /// Exactly `count` bytes.
    pub(crate) fn exactly(&mut self, count: usize) -> Result<Vec<u8>, String> {
        while self.buffer.len() < count {
            if !self.more()? {
                return Err(format!("cut off at {} of {count} bytes", self.buffer.len()));
            }
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// Everything until the end of the connection.
    pub(crate) fn rest(&mut self) -> Result<Vec<u8>, String> {
        while self.more()? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// One line, without its CRLF.
    fn line(&mut self) -> Result<String, String> {
        let bytes = self.until(b"\r\n")?.ok_or("cut off before a line")?;
        text(&bytes[..bytes.len() - 2])
    }

    /// A chunked body and its trailers. No extensions, no leading zeros, no other line ends.
    pub(crate) fn chunked(&mut self) -> Result<(Vec<u8>, Fields), String> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let hex = !line.is_empty() && line.bytes().all(|b| b.is_ascii_hexdigit());
            if !hex || (line.len() > 1 && line.starts_with('0')) {
                return Err(format!("odd chunk size {line:?}"));
            }
            let size = usize::from_str_radix(&line, 16).map_err(|_| format!("size {line}"))?;
            if size == 0 {
                break;
            }
            body.extend(self.exactly(size)?);
            if self.exactly(2)? != b"\r\n" {
                return Err("a chunk without CRLF".to_owned());
            }
        }
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok((body, fields(&lines)?));
            }
            lines.push(line);
        }
    }

    fn show(&self) -> String {
        format!("{:?}", String::from_utf8_lossy(&self.buffer))
    }
}

/// A head without its empty line: the first line, and the fields.
pub(crate) fn head(bytes: &[u8]) -> Result<(String, Fields), String> {
    let head = bytes.strip_suffix(b"\r\n\r\n").ok_or("a head without its end")?;
    let head = text(head)?;
    let mut lines = head.split("\r\n").map(str::to_owned);
    let first = lines.next().unwrap_or_default();
    Ok((first, fields(&lines.collect::<Vec<_>>())?))
}

/// Text in which no line end is left but CRLF; bytes beyond ASCII become `?`.
fn text(bytes: &[u8]) -> Result<String, String> {
    let plain: String =
        bytes.iter().map(|b| if b.is_ascii() { char::from(*b) } else { '?' }).collect();
    let alone = plain.replace("\r\n", "");
    if alone.contains(|c: char| c.is_ascii_control() && c != '\t') {
        return Err(format!("a bare control character in {plain:?}"));
    }
    Ok(plain)
}

fn fields(lines: &[String]) -> Result<Fields, String> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let field = |line: &String| {
        let (name, value) = line.split_once(':').ok_or(format!("no field: {line:?}"))?;
        if name.is_empty() || !name.chars().all(is_token) {
            return Err(format!("odd field name in {line:?}"));
        }
        Ok((name.to_owned(), value.trim().to_owned()))
    };
    lines.iter().map(field).collect()
}

/// The values of a field, whatever the case of its name.
pub(crate) fn values<'a>(fields: &'a Fields, name: &str) -> Vec<&'a str> {
    let same = fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
    same.map(|(_, value)| value.as_str()).collect()
}

/// How the body after a head is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Neither field is there.
    Unsaid,
    /// `Content-Length`
    Length(usize),
    /// `Transfer-Encoding: chunked`
    Chunked,
}

/// Reads the framing fields.
///
/// # Errors
/// When there is more than one way to read them.
pub(crate) fn framing(fields: &Fields) -> Result<Framing, String> {
    let lengths = values(fields, "content-length");
    let codings = values(fields, "transfer-encoding");
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Ok(Framing::Unsaid),
        ([], [coding]) if *coding == "chunked" => Ok(Framing::Chunked),
        ([length], []) => {
            let plain = length.bytes().all(|b| b.is_ascii_digit());
            let canonical = plain && (*length == "0" || !length.starts_with('0'));
            let parsed = length.parse().ok().filter(|_| canonical);
            parsed.map(Framing::Length).ok_or(format!("odd Content-Length {length:?}"))
        }
        _ => Err(format!("ambiguous framing: {lengths:?} {codings:?}")),
    }
}
