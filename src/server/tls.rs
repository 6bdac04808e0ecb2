//! The handshake with a client: its certificate is chosen by the name that it asks for, and what
//! is spoken above TLS is agreed on.

use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use rustls::server::Acceptor;
use rustls::{Error, HandshakeKind, ProtocolVersion, ServerConnection};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::protocol::{Protocol, speaks_clear};
use super::socket;
use crate::acme::Acme;
use crate::base::facts::{ClientAddr, Encryption};
use crate::base::socket::{Encrypted, Socket};
use crate::config;
use crate::observe::Observer;
use crate::runtime::Running;
use crate::tls::{self, Entry};

/// A fatal alert `unrecognized_name` (RFC 6066 §3, RFC 8446 §6).
const UNRECOGNIZED_NAME: &[u8] = &[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 112];
/// Bytes that one record of TLS holds at most (RFC 8446 §5.1).
const RECORD_BYTES: usize = 16 * 1024;
/// Most bytes that wait in TLS for a client, however slow it may be.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Handshakes that are computed at a time: each takes up to a millisecond of a core.
#[derive(Debug)]
pub(super) struct Handshakes(Semaphore);

/// A connection whose handshake is over.
pub(super) struct Shaken {
    pub(super) socket: Socket,
    pub(super) protocol: Protocol,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("all of server.tls.handshakes were busy for the whole handshake_timeout")]
    Busy,
    #[error("it took longer than handshake_timeout")]
    TimedOut,
    #[error("the client speaks HTTP in clear, and was told so")]
    Clear,
    #[error("no certificate is for {0:?}")]
    UnknownName(String),
    #[error("the certificate for {0:?} is ordered, and has not come yet")]
    NoCertificateYet(String),
    #[error("the certificate of a resumed session is good no more")]
    NoLongerTrusted,
    #[error("{0}")]
    Broken(std::io::Error),
}

impl Failure {
    /// The name in the metrics.
    fn result(&self) -> &'static str {
        match self {
            Self::Busy => "tls_busy",
            Self::TimedOut => "timeout",
            Self::Clear => "clear",
            Self::UnknownName(_) => "unknown_name",
            Self::NoCertificateYet(_) => "no_certificate_yet",
            Self::NoLongerTrusted => "client_certificate",
            Self::Broken(error) => match tls_error(error) {
                Some(Error::NoCertificatesPresented | Error::InvalidCertificate(_)) => {
                    "client_certificate"
                }
                Some(Error::AlertReceived(_)) => "refused_by_client",
                Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => "incompatible",
                Some(_) => "malformed",
                None => "closed",
            },
        }
    }
}

fn tls_error(error: &std::io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

impl Handshakes {
    /// At most so many at a time.
    pub(super) fn new(written: Option<&config::Tls>) -> Self {
        Self(Semaphore::new(written.map_or(1, |tls| tls.handshakes)))
    }

    /// Shakes hands on a connection that began just now. Nothing where that failed; metrics and
    /// diagnostics know why.
    pub(super) async fn shake(
        &self,
        stream: TcpStream,
        client: ClientAddr,
        running: &Running,
        observer: &Observer,
    ) -> Option<Shaken> {
        let began = Instant::now();
        let written = running.plan.config.server.tls.as_ref()?;
        let shaking = self.try_shake(stream, running);
        let shaken = match tokio::time::timeout_at(began + written.handshake_timeout, shaking).await
        {
            Ok(shaken) => shaken,
            Err(_) if self.0.available_permits() == 0 => Err(Failure::Busy),
            Err(_) => Err(Failure::TimedOut),
        };
        match shaken {
            Ok(None) => {
                observer.metrics.tls.failed("acme_challenge");
                None
            }
            Ok(Some((shaken, is_resumed))) => {
                let version = shaken.socket.encryption().map_or("-", |it| it.version);
                observer.metrics.tls.shaken(began.elapsed(), version, is_resumed);
                Some(shaken)
            }
            Err(failure) => {
                observer.metrics.tls.failed(failure.result());
                tracing::debug!(%client, %failure, "a TLS handshake failed");
                match failure {
                    Failure::Clear => note_clear(observer),
                    Failure::NoCertificateYet(name) => note_no_certificate(observer, &name),
                    _ => {}
                }
                None
            }
        }
    }

    /// A connection, and whether it resumes a session; nothing where an authority asked for the
    /// proof of a name, and has it.
    async fn try_shake(
        &self,
        mut stream: TcpStream,
        running: &Running,
    ) -> Result<Option<(Shaken, bool)>, Failure> {
        if speaks_clear(&stream).await.map_err(Failure::Broken)? {
            let _ = socket::say_https(&mut stream).await;
            return Err(Failure::Clear);
        }
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream);
        let hello = hello.await.map_err(Failure::Broken)?;
        let hello = match &running.acme {
            // Rare: boxed, it takes no room in the other handshakes.
            Some(acme) if asks_for_proof(&hello) => {
                return Box::pin(self.prove(hello, acme)).await.map(|()| None);
            }
            _ => hello,
        };
        let table = running.tls.as_ref().map(|live| live.table());
        let name = hello.client_hello().server_name().map(str::to_owned);
        let found = table.as_ref().and_then(|table| table.find(name.as_deref()));
        let Some(entry) = found.map(Arc::clone) else {
            drop(table);
            return Err(unknown_name(hello, running).await);
        };
        drop(table);
        // A pace of progress is asked of slow readers: what waits here must not hide it.
        let progress_bytes = running.plan.config.server.limits.progress_bytes;
        let buffer = usize::try_from(progress_bytes).unwrap_or(BUFFER_BYTES_MAX);
        let buffer = buffer.clamp(RECORD_BYTES, BUFFER_BYTES_MAX);
        let limited = |connection: &mut ServerConnection| connection.set_buffer_limit(Some(buffer));
        let config = Arc::clone(entry.config());
        // What is read until here costs nothing much; from here on it costs a signature.
        let turn = self.turn().await?;
        let stream = signed(turn, hello.into_stream_with(config, limited)).await?;
        agreed(stream, &entry).map(Some)
    }

    /// Waits until it may be computed.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.0.acquire().await.map_err(|_| Failure::Busy)
    }

    /// Shows an authority that a name is ours, and ends the connection: nothing is said on it (RFC
    /// 8737 §3).
    async fn prove(&self, hello: StartHandshake<TcpStream>, acme: &Acme) -> Result<(), Failure> {
        let name = hello.client_hello().server_name().unwrap_or_default().to_owned();
        let Some(key_authorization) = acme.key_authorization(&name).await else {
            return Err(refuse_name(hello).await);
        };
        // Anybody can ask for it, and the first one has a certificate made.
        let turn = self.turn().await?;
        let Some(config) = acme.proof(&name, &key_authorization) else {
            drop(turn);
            return Err(refuse_name(hello).await);
        };
        let mut stream = signed(turn, hello.into_stream(config)).await?;
        let _ = stream.shutdown().await;
        Ok(())
    }
}

/// Ends a handshake that has its turn.
async fn signed<S>(
    turn: SemaphorePermit<'_>,
    shaking: impl Future<Output = std::io::Result<S>>,
) -> Result<S, Failure> {
    let mut shaking = pin!(shaking);
    let begun = std::future::poll_fn(|cx| Poll::Ready(shaking.as_mut().poll(cx))).await;
    // It is signed. Clients that say no more would keep all others from their turn.
    drop(turn);
    let stream = match begun {
        Poll::Ready(stream) => stream,
        Poll::Pending => shaking.await,
    };
    stream.map_err(Failure::Broken)
}

/// Whether this is an authority that asks for the proof of a name: it offers that protocol alone
/// (RFC 8737 §3).
fn asks_for_proof(hello: &StartHandshake<TcpStream>) -> bool {
    let hello = hello.client_hello();
    let Some(mut offered) = hello.alpn() else { return false };
    offered.next() == Some(tls::ACME_TLS) && offered.next().is_none()
}

/// Ends a handshake for a name that no certificate has, or not yet.
async fn unknown_name(hello: StartHandshake<TcpStream>, running: &Running) -> Failure {
    match (refuse_name(hello).await, &running.acme) {
        (Failure::UnknownName(name), Some(acme)) if acme.has_name(&name) => {
            Failure::NoCertificateYet(name)
        }
        (failure, _) => failure,
    }
}

/// Ends a handshake for a name.
async fn refuse_name(hello: StartHandshake<TcpStream>) -> Failure {
    let name = hello.client_hello().server_name().unwrap_or("-").to_owned();
    let mut stream = hello.io;
    let _ = stream.write_all(UNRECOGNIZED_NAME).await;
    let _ = stream.shutdown().await;
    Failure::UnknownName(name)
}

/// What a handshake has agreed on, and whether it resumed a session.
fn agreed(stream: TlsStream<TcpStream>, entry: &Entry) -> Result<(Shaken, bool), Failure> {
    let connection = stream.get_ref().1;
    let is_resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
    let certificates = connection.peer_certificates().unwrap_or_default();
    // A ticket restores them without a look at their dates or at who vouches for them now.
    if is_resumed && !entry.still_trusts(certificates) {
        return Err(Failure::NoLongerTrusted);
    }
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    };
    let protocol = match connection.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let client = certificates.first().and_then(|certificate| tls::facts(certificate)).map(Arc::new);
    if client.is_none() && !certificates.is_empty() {
        let unreadable = Error::General("the client's certificate cannot be read".to_owned());
        return Err(Failure::Broken(std::io::Error::new(ErrorKind::InvalidData, unreadable)));
    }
    let says = Encryption { version, name_policy: entry.name_policy(), client };
    let encrypted = Encrypted { stream: stream.into(), says: Some(Arc::new(says)) };
    Ok((Shaken { socket: Socket::Tls(Box::new(encrypted)), protocol }, is_resumed))
}

/// Says once for each name that its clients come too early. The configuration bounds the names.
fn note_no_certificate(observer: &Observer, name: &str) {
    const REASON: &str = "no_certificate_yet";
    if observer.logged.first(REASON, &name.to_ascii_lowercase()) {
        tracing::warn!(
            name,
            "clients ask for a certificate that is ordered and has not come yet: their handshakes \
             fail; this is said once, {REASON} counts them"
        );
    }
}

/// Says once what to do about clients that speak clear HTTP to a listener with TLS.
fn note_clear(observer: &Observer) {
    const REASON: &str = "clear_on_tls_port";
    observer.metrics.connection_failed(REASON);
    if observer.logged.first(REASON, "") {
        tracing::warn!(
            "a client speaks HTTP in clear to a listener with TLS, and was told 400; this is said \
             once, {REASON} counts them\n    help: let clients use https://, or add an address in \
             clear: server.listen beside server.tls.listen, with server.tls.redirect = true"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::Metrics;
    use crate::store::keys::Keys;
    use crate::store::{MemoryStore, Store};

    const FILE: &str = "[server]\nlisten = ['127.0.0.1:0']\n[server.tls.acme]\n\
                        directory = 'https://ca.test/dir'\nnames = ['a.test']\n";

    /// A greeting by which an authority asks for the proof of a name.
    async fn asked_for(name: &'static str) -> StartHandshake<TcpStream> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = vec![tls::ACME_TLS.to_vec()];
        tokio::spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            connector.connect(name.try_into().unwrap(), stream).await
        });
        let (stream, _) = listener.accept().await.unwrap();
        LazyConfigAcceptor::new(Acceptor::default(), stream).await.unwrap()
    }

    #[tokio::test]
    async fn a_proof_waits_for_its_turn_and_a_name_without_one_does_not() {
        let loaded = config::parse("t.toml", std::path::Path::new("."), FILE, &|_| None);
        let config = loaded.unwrap().config;
        let (store, keys) = (MemoryStore::new(100), Keys::new("app"));
        let store = Arc::new(Store::Memory(Box::new(store)));
        let acme = Acme::new(&config.server, &store, &keys, &Arc::new(Metrics::default()));
        let acme = acme.unwrap();
        let nobodys_turn = Handshakes(Semaphore::new(0));
        nobodys_turn.0.close();
        let refused = nobodys_turn.prove(asked_for("a.test").await, &acme).await;
        assert!(matches!(refused, Err(Failure::UnknownName(_))), "there is nothing to sign");
        let (place, life) = (keys.tls_answer("a.test"), Duration::from_secs(60));
        store.put(&place, b"t0.print", life).await.unwrap();
        let busy = nobodys_turn.prove(asked_for("a.test").await, &acme).await;
        assert!(matches!(busy, Err(Failure::Busy)), "{busy:?}");
        let shown = Handshakes(Semaphore::new(1)).prove(asked_for("a.test").await, &acme).await;
        // It is shown; the client believes nobody.
        assert!(matches!(shown, Err(Failure::Broken(_))), "{shown:?}");
    }
}
