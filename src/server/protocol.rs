//! What the first bytes of a connection tell.

use tokio::net::TcpStream;

/// What begins an HTTP/2 connection with prior knowledge (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What begins a TLS connection: a handshake record of any version (RFC 8446 §5.1).
const TLS: &[u8] = &[0x16, 0x03];

/// Which protocol a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
    /// TLS, which this listener does not speak.
    Tls,
}

impl Protocol {
    /// The protocol of a connection that begins with `seen`; nothing while more must come.
    pub(super) fn of(seen: &[u8]) -> Option<Self> {
        if seen.starts_with(TLS) {
            return Some(Self::Tls);
        }
        if TLS.starts_with(seen) {
            return None;
        }
        let length = seen.len().min(PREFACE.len());
        if seen[..length] != PREFACE[..length] {
            return Some(Self::Http1);
        }
        (length == PREFACE.len()).then_some(Self::Http2)
    }
}

/// Whether a connection begins with the letters of an HTTP method, and not with a record of TLS.
/// Waits for the first byte, and leaves it where it is.
pub(super) async fn speaks_clear(stream: &TcpStream) -> std::io::Result<bool> {
    let mut first = [0];
    let length = stream.peek(&mut first).await?;
    Ok(length == 1 && first[0].is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_the_protocol() {
        for (seen, protocol) in [
            (&b""[..], None),
            (b"G", Some(Protocol::Http1)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", None),
            (PREFACE, Some(Protocol::Http2)),
            (b"PRI * HTTP/1.1\r\n", Some(Protocol::Http1)),
            (b"\x16", None),
            (b"\x16\x03\x01", Some(Protocol::Tls)),
            (b"\x16\x02", Some(Protocol::Http1)),
        ] {
            assert_eq!(Protocol::of(seen), protocol, "{seen:?}");
        }
    }
}
