//! The socket under hyper: replays the bytes that told the protocol, and tells the clock what
//! moves.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::clock::Clock;

/// What begins an HTTP/2 connection with prior knowledge (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const REFUSED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-length: 0\r\n\r\n";
const TIMED_OUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Which protocol a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// A client's socket.
#[derive(Debug)]
pub(super) struct ClientIo {
    stream: TcpStream,
    /// Read, and not yet given to hyper.
    prefix: Bytes,
    clock: Arc<Clock>,
    /// Bytes written since the client began to block.
    written: u64,
}

impl ClientIo {
    pub(super) fn new(stream: TcpStream, clock: &Arc<Clock>) -> Self {
        Self { stream, prefix: Bytes::new(), clock: Arc::clone(clock), written: 0 }
    }

    /// Reads until the first bytes tell the protocol. `None` when the client went away before.
    pub(super) async fn detect(&mut self) -> std::io::Result<Option<Protocol>> {
        let mut seen = BytesMut::with_capacity(256);
        let protocol = loop {
            if self.stream.read_buf(&mut seen).await? == 0 {
                return Ok(None);
            }
            self.clock.received();
            let length = seen.len().min(PREFACE.len());
            if seen[..length] != PREFACE[..length] {
                break Protocol::Http1;
            }
            if length == PREFACE.len() {
                break Protocol::Http2;
            }
        };
        self.prefix = seen.freeze();
        Ok(Some(protocol))
    }

    fn wrote(&mut self, result: &Poll<std::io::Result<usize>>) {
        match result {
            Poll::Pending => self.clock.blocked(),
            Poll::Ready(Ok(bytes)) => {
                self.written += *bytes as u64;
                if self.written >= self.clock.progress_bytes() {
                    self.written = 0;
                    self.clock.unblocked();
                }
            }
            Poll::Ready(Err(_)) => {}
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !self.prefix.is_empty() {
            let length = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..length]);
            self.prefix.advance(length);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.clock.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        // hyper flushes when its own buffer is empty: the client has taken everything there was.
        self.written = 0;
        self.clock.unblocked();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for ClientIo {
    fn drop(&mut self) {
        if self.clock.owes_reset() {
            let _ = self.stream.set_zero_linger();
        }
        if self.clock.owes_408() {
            // As much as fits: a client that does not read gets no answer.
            let _ = self.stream.try_write(TIMED_OUT);
        }
    }
}

/// Tells a client that there is no place for it, and lets it read that: closing a socket with
/// unread bytes would throw the answer away.
pub(super) async fn refuse(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(REFUSED).await?;
    stream.shutdown().await?;
    let mut sink = [0u8; 1024];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}
