//! A TCP connection, in clear or under TLS: one type for everything that is spoken over it, towards
//! clients and towards upstreams.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::facts::Encryption;

/// A connection. What TLS needs is boxed, so that one in clear stays small.
#[derive(Debug)]
pub enum Socket {
    /// In clear.
    Plain(TcpStream),
    /// Encrypted; the handshake is over.
    Tls(Box<Encrypted>),
}

/// A connection under TLS.
#[derive(Debug)]
pub struct Encrypted {
    /// TLS, and the connection below it.
    pub stream: TlsStream<TcpStream>,
    /// What it says of a client; nothing of a server.
    pub says: Option<Arc<Encryption>>,
}

impl Socket {
    /// Whether it is encrypted.
    pub fn is_secure(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// What its encryption says of a client; nothing in clear.
    pub fn encryption(&self) -> Option<&Arc<Encryption>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.says.as_ref(),
        }
    }

    /// The protocol that both sides agreed upon under TLS (ALPN, RFC 7301), where they did.
    pub fn protocol(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.stream.get_ref().1.alpn_protocol(),
        }
    }

    /// The connection below TLS.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.stream.get_ref().0,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_flush(cx),
        }
    }

    /// Under TLS, with the alert `close_notify` first (RFC 8446 §6.1).
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(cx),
        }
    }
}
