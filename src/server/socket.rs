//! The socket under hyper: replays bytes that were read before hyper was there, and tells the clock
//! what moves.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::clock::{Clock, is_line_end};
use super::protocol::Protocol;
use crate::base::interim::Interim;
use crate::base::socket::Socket;

const REFUSED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-length: 0\r\n\r\n";
const SPEAKS_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\
    content-type: text/plain\r\ncontent-length: 46\r\n\r\n\
    This port speaks TLS: ask with https:// here.\n";
const TIMED_OUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What ends a TLS connection: a fatal alert `handshake_failure` (RFC 8446 §6).
const TLS_ALERT: &[u8] = &[0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x28];

/// A client's socket.
#[derive(Debug)]
pub(super) struct ClientIo {
    stream: Socket,
    /// Read, and not yet given to hyper.
    prefix: Bytes,
    clock: Arc<Clock>,
    /// Bytes written since the client began to block.
    written: u64,
    interim: Arc<Interim>,
    /// Interim heads that are being written: nothing of hyper's comes before their end.
    heads: Bytes,
}

impl ClientIo {
    pub(super) fn new(stream: Socket, clock: &Arc<Clock>, interim: &Arc<Interim>) -> Self {
        Self {
            stream,
            prefix: Bytes::new(),
            clock: Arc::clone(clock),
            written: 0,
            interim: Arc::clone(interim),
            heads: Bytes::new(),
        }
    }

    /// Reads until the first bytes tell the protocol. `None` when the client went away before.
    pub(super) async fn detect(&mut self) -> std::io::Result<Option<Protocol>> {
        let mut seen = BytesMut::with_capacity(256);
        let protocol = loop {
            let before = seen.len();
            if self.stream.read_buf(&mut seen).await? == 0 {
                return Ok(None);
            }
            self.clock.received(&seen[before..]);
            if let Some(protocol) = Protocol::of(&seen) {
                break protocol;
            }
        };
        self.prefix = seen.freeze();
        Ok(Some(protocol))
    }

    /// Tells a client that speaks TLS that nobody does here, in its own words.
    pub(super) async fn refuse_tls(&mut self) -> std::io::Result<()> {
        say_and_close(&mut self.stream, TLS_ALERT).await
    }

    /// Takes back what hyper has read and not served. It is the beginning of a head, but for the
    /// empty lines before it, which are nothing (RFC 9112 §2.2).
    pub(super) fn take_back(&mut self, mut bytes: Bytes) {
        let lines = bytes.iter().take_while(|byte| is_line_end(**byte)).count();
        bytes.advance(lines);
        if !bytes.is_empty() {
            self.clock.received(&bytes);
            self.unread(bytes);
        }
    }

    /// Puts bytes that were read from the socket before those that are still to be read.
    pub(super) fn unread(&mut self, bytes: Bytes) {
        if self.prefix.is_empty() {
            self.prefix = bytes;
        } else {
            self.prefix = [bytes, std::mem::take(&mut self.prefix)].concat().into();
        }
    }

    /// Whether there is nothing of the connection beside the bare socket.
    pub(super) fn is_bare(&self) -> bool {
        self.prefix.is_empty() && self.heads.is_empty()
    }

    /// The socket; see [`Self::is_bare`].
    pub(super) fn into_socket(self) -> Socket {
        self.stream
    }

    /// The socket, and what was read from it and not served.
    pub(super) fn into_parts(self) -> (Socket, Bytes) {
        (self.stream, self.prefix)
    }

    /// Ends the connection as its clock says: with a 408, with a reset, or just so.
    pub(super) fn close(mut self) {
        if self.clock.owes_reset() {
            let _ = self.stream.tcp().set_zero_linger();
        }
        if self.clock.owes_408() {
            // As much as fits: a client that does not read gets no answer. Unconstrained: a write
            // that is put off because the task has done enough for now would never be made.
            let said = tokio::task::unconstrained(std::future::poll_fn(|cx| {
                ready!(Pin::new(&mut self.stream).poll_write(cx, TIMED_OUT))?;
                Pin::new(&mut self.stream).poll_flush(cx)
            }));
            let _ = std::pin::pin!(said).poll(&mut Context::from_waker(std::task::Waker::noop()));
        }
        if self.stream.is_secure() && !self.clock.owes_reset() {
            // hyper does so, but not on a connection that an upgrade was asked for on.
            let cx = &mut Context::from_waker(std::task::Waker::noop());
            let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
        }
    }

    /// Writes the rest of the interim heads that were begun.
    fn poll_heads(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while !self.heads.is_empty() {
            let result = Pin::new(&mut self.stream).poll_write(cx, &self.heads);
            self.wrote(&result);
            match ready!(result)? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                written => self.heads.advance(written),
            }
        }
        Poll::Ready(Ok(()))
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
        if let Some(read) = buf.filled().get(before..).filter(|read| !read.is_empty()) {
            self.clock.received(read);
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
        ready!(self.poll_heads(cx))?;
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        ready!(self.poll_heads(cx))?;
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        // hyper flushes when its own buffer is empty: the client has taken everything there was.
        // So this is the place for interim heads: nothing of an earlier response is left, and the
        // final one waits for them.
        ready!(self.poll_heads(cx))?;
        if let Some(heads) = self.interim.take() {
            self.heads = heads;
            ready!(self.poll_heads(cx))?;
        }
        self.written = 0;
        let flushed = Pin::new(&mut self.stream).poll_flush(cx)?;
        match flushed {
            Poll::Ready(()) => self.clock.flushed(),
            // TLS has taken bytes that the kernel has no room for.
            Poll::Pending => self.clock.blocked(),
        }
        flushed.map(Ok)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Tells a client that there is no place for it, and lets it read that: closing a socket with
/// unread bytes would throw the answer away.
pub(super) async fn refuse(mut stream: TcpStream) -> std::io::Result<()> {
    say_and_close(&mut stream, REFUSED).await
}

/// Tells a client that speaks HTTP in clear that TLS is spoken here.
pub(super) async fn say_https(stream: &mut TcpStream) -> std::io::Result<()> {
    say_and_close(stream, SPEAKS_TLS).await
}

async fn say_and_close(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    bytes: &[u8],
) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    let mut sink = [0u8; 1024];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::socket::Encrypted;
    use crate::server::clock::Expired;

    fn once<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        poll(&mut Context::from_waker(std::task::Waker::noop()))
    }

    /// Reads until the other end closes, in pieces, so that the other end writes in pieces.
    async fn drained(mut peer: TcpStream) -> Vec<u8> {
        let mut all = Vec::new();
        let mut piece = [0; 1000];
        loop {
            let length = peer.read(&mut piece).await.unwrap();
            if length == 0 {
                return all;
            }
            all.extend_from_slice(&piece[..length]);
        }
    }

    /// A client that reads nothing yet: the socket, the way of interim responses, the other end,
    /// and how many bytes fill the socket.
    async fn blocked() -> (ClientIo, Arc<Interim>, TcpStream, usize) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let clock = Clock::start(&crate::config::Server::default());
        let interim = Arc::<Interim>::default();
        let mut io =
            ClientIo::new(Socket::Plain(listener.accept().await.unwrap().0), &clock, &interim);
        let earlier = vec![b'.'; 1 << 20];
        let mut length = 0;
        while let Poll::Ready(wrote) = once(|cx| Pin::new(&mut io).poll_write(cx, &earlier)) {
            length += wrote.unwrap();
        }
        interim.open(8);
        (io, interim, peer, length)
    }

    /// TLS takes what the kernel has no room for, so a write that went well says nothing.
    #[tokio::test]
    async fn bytes_that_wait_in_tls_are_a_client_that_blocks() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, client) = shaken(listener.accept().await.unwrap().0, peer).await;
        let clock = Clock::start(&crate::config::Server::default());
        let encrypted = Encrypted { stream: server.into(), says: None };
        let socket = Socket::Tls(Box::new(encrypted));
        let mut io = ClientIo::new(socket, &clock, &Arc::default());
        let has_room = |io: &ClientIo| match &io.stream {
            Socket::Tls(tls) => !tls.stream.get_ref().1.wants_write(),
            Socket::Plain(_) => unreachable!(),
        };
        while has_room(&io) {
            assert!(once(|cx| Pin::new(&mut io).poll_write(cx, &[b'.'; 1000])).is_ready());
        }
        assert!(!clock.is_blocked());
        assert!(once(|cx| Pin::new(&mut io).poll_flush(cx)).is_pending());
        assert!(clock.is_blocked());
        drop(client);
    }

    /// Both ends of a TLS connection.
    async fn shaken(
        server: TcpStream,
        client: TcpStream,
    ) -> (tokio_rustls::server::TlsStream<TcpStream>, tokio_rustls::client::TlsStream<TcpStream>)
    {
        let own = rcgen::generate_simple_self_signed(["shop.test".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(own.cert.der().clone()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key.into())
            .unwrap();
        let trusting = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let connector = tokio_rustls::TlsConnector::from(Arc::new(trusting));
        let name = "shop.test".try_into().unwrap();
        tokio::try_join!(acceptor.accept(server), connector.connect(name, client)).unwrap()
    }

    /// What came behind the first `length` bytes, as runs of the same byte.
    fn runs(bytes: &[u8], length: usize) -> Vec<(char, usize)> {
        let mut runs: Vec<(char, usize)> = Vec::new();
        for byte in bytes[length..].iter().map(|byte| char::from(*byte)) {
            match runs.last_mut() {
                Some((last, count)) if *last == byte => *count += 1,
                _ => runs.push((byte, 1)),
            }
        }
        runs
    }

    #[tokio::test]
    async fn a_408_is_said_by_a_task_that_has_done_enough_for_now() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut config = crate::config::Server::default();
        config.limits.header_timeout = std::time::Duration::from_millis(1);
        let clock = Clock::start(&config);
        let (stream, _) = listener.accept().await.unwrap();
        stream.writable().await.unwrap();
        let io = ClientIo::new(Socket::Plain(stream), &clock, &Arc::default());
        clock.received(b"G");
        assert_eq!(clock.expired(Protocol::Http1).await, Expired::SlowHead);
        let mut io = Some(io);
        std::future::poll_fn(|cx| {
            while tokio::task::coop::has_budget_remaining() {
                assert!(std::pin::pin!(tokio::task::coop::consume_budget()).poll(cx).is_ready());
            }
            io.take().unwrap().close();
            Poll::Ready(())
        })
        .await;
        assert_eq!(drained(peer).await, TIMED_OUT);
    }

    #[tokio::test]
    async fn an_interim_head_is_never_inside_an_earlier_response() {
        let (mut io, interim, peer, length) = blocked().await;
        interim.offer(&[b'1'; 10_000]);
        assert!(once(|cx| Pin::new(&mut io).poll_write(cx, b"eee")).is_pending());
        let client = tokio::spawn(drained(peer));
        io.write_all(b"eee").await.unwrap();
        io.flush().await.unwrap();
        io.write_all(b"f").await.unwrap();
        drop(io);
        let expected = [('e', 3), ('1', 10_000), ('f', 1)];
        assert_eq!(runs(&client.await.unwrap(), length), expected);
    }

    #[tokio::test]
    async fn nothing_is_inside_an_interim_head() {
        for vectored in [false, true] {
            let (mut io, interim, peer, length) = blocked().await;
            interim.offer(&[b'1'; 10_000]);
            assert!(once(|cx| Pin::new(&mut io).poll_flush(cx)).is_pending());
            interim.offer(&[b'2'; 5_000]);
            let client = tokio::spawn(drained(peer));
            // Such as a 100, which hyper sends when the body is asked for.
            let wrote = std::future::poll_fn(|cx| {
                let io = Pin::new(&mut io);
                let slices = [std::io::IoSlice::new(b"c"), std::io::IoSlice::new(b"cc")];
                if vectored {
                    io.poll_write_vectored(cx, &slices)
                } else {
                    io.poll_write(cx, b"ccc")
                }
            });
            assert_eq!(wrote.await.unwrap(), 3);
            io.flush().await.unwrap();
            io.write_all(b"f").await.unwrap();
            drop(io);
            let expected = [('1', 10_000), ('c', 3), ('2', 5_000), ('f', 1)];
            assert_eq!(runs(&client.await.unwrap(), length), expected, "vectored: {vectored}");
        }
    }
}
