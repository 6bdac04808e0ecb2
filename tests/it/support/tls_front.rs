//! TLS in front of an upstream that speaks in clear: it notes what each handshake was about, and
//! hands the bytes on in both directions.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What one handshake was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// The version that was agreed upon, such as `TLSv1_3`.
    pub(crate) version: String,
    /// The protocol that was agreed upon (ALPN).
    pub(crate) protocol: Option<String>,
    /// The name that the client asked for (SNI).
    pub(crate) name: Option<String>,
    /// Whether the client has shown a certificate.
    pub(crate) has_certificate: bool,
}

#[derive(Default)]
struct Shared {
    done: Mutex<Vec<Handshake>>,
    accepted: AtomicUsize,
}

/// See the module.
pub(crate) struct TlsFront {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Ends it when it is dropped.
    _ends: oneshot::Sender<()>,
}

impl TlsFront {
    /// In front of the server at `to`.
    pub(crate) fn new(config: ServerConfig, to: SocketAddr) -> Self {
        Self::by_protocol(config, to, to)
    }

    /// In front of two servers: one for HTTP/2, where it was agreed upon, and one for the rest.
    pub(crate) fn by_protocol(config: ServerConfig, http1: SocketAddr, http2: SocketAddr) -> Self {
        let to = [http1, http2];
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::<Shared>::default();
        let (ends, ended) = oneshot::channel();
        let front = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(listener, TlsAcceptor::from(Arc::new(config)), to, front) => {}
                    _ = ended => {}
                }
            });
        });
        Self { address, shared, _ends: ends }
    }

    /// Its url with this host, which must lead to this machine.
    pub(crate) fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.address.port())
    }

    /// The handshakes that came to a good end.
    pub(crate) fn handshakes(&self) -> Vec<Handshake> {
        self.shared.done.lock().unwrap().clone()
    }

    /// How many connections were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    acceptor: TlsAcceptor,
    to: [SocketAddr; 2],
    shared: Arc<Shared>,
) {
    while let Ok((tcp, _)) = listener.accept().await {
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(tcp).await else { return };
            shared.done.lock().unwrap().push(seen(&stream));
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let to = to[usize::from(is_http2)];
            let Ok(mut behind) = TcpStream::connect(to).await else { return };
            let _ = behind.set_nodelay(true);
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
        });
    }
}

fn seen(stream: &TlsStream<TcpStream>) -> Handshake {
    let (_, tls) = stream.get_ref();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Handshake {
        version: tls.protocol_version().map(|it| format!("{it:?}")).unwrap_or_default(),
        protocol: tls.alpn_protocol().map(text),
        name: tls.server_name().map(str::to_owned),
        has_certificate: tls.peer_certificates().is_some(),
    }
}
