//! Upstreams of HTTP/2: one on the server side of the h2 crate, in clear with prior knowledge or
//! over TLS; and one that writes its frames by itself, for what no library does.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response, StatusCode};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, oneshot};
use tokio_rustls::TlsAcceptor;

use super::grpc_upstream::{Step, play};

/// What the upstream does with one request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Answers with this body, once the whole request is here.
    Answer(Bytes),
    /// The same with trailers, as gRPC does.
    Grpc(Bytes),
    /// The same after an interim response.
    AfterHints(Bytes),
    /// Sends the request's body back, piece by piece as it comes.
    Echo,
    /// Answers with the head alone, and with `fine` once it is released.
    Hold,
    /// Resets the stream, unread.
    Reset(Reason),
    /// Answers a part, and resets the stream.
    CutOff,
    /// Does what gRPC servers do.
    Play(Vec<Step>),
}

/// One request, as it reached the upstream.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

#[derive(Default)]
struct Log {
    asked: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
    /// Streams that were begun.
    begun: AtomicUsize,
    /// Streams in progress.
    open: AtomicUsize,
    is_released: AtomicBool,
    released: Notify,
    /// Why streams were reset that rested.
    resets: Mutex<Vec<Reason>>,
}

/// See the module.
pub(crate) struct Http2Upstream {
    address: SocketAddr,
    is_secure: bool,
    log: Arc<Log>,
    /// Ends it when it is dropped.
    _ends: oneshot::Sender<()>,
}

impl Http2Upstream {
    /// In clear.
    pub(crate) fn new(act: impl Fn(&Request<()>) -> Act + Send + Sync + 'static) -> Self {
        Self::with(None, 100, act)
    }

    /// Takes `streams` at a time on one connection; over TLS where there is a `config`.
    pub(crate) fn with(
        config: Option<ServerConfig>,
        streams: u32,
        act: impl Fn(&Request<()>) -> Act + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let address = listener.local_addr().expect("its address");
        let log = Arc::<Log>::default();
        let (ends, ended) = oneshot::channel();
        let is_secure = config.is_some();
        let acceptor = config.map(|mut config| {
            config.alpn_protocols = vec![b"h2".to_vec()];
            TlsAcceptor::from(Arc::new(config))
        });
        let (shared, act) = (Arc::clone(&log), Arc::new(act));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let accept = async {
                    while let Ok((tcp, _)) = listener.accept().await {
                        let _ = tcp.set_nodelay(true);
                        shared.connections.fetch_add(1, Ordering::SeqCst);
                        let (log, act) = (Arc::clone(&shared), Arc::clone(&act));
                        let acceptor = acceptor.clone();
                        tokio::spawn(async move {
                            match acceptor {
                                None => serve(tcp, streams, log, act).await,
                                Some(acceptor) => {
                                    if let Ok(tls) = acceptor.accept(tcp).await {
                                        serve(tls, streams, log, act).await;
                                    }
                                }
                            }
                        });
                    }
                };
                tokio::select! { () = accept => {}, _ = ended => {} }
            });
        });
        Self { address, is_secure, log, _ends: ends }
    }

    /// Its URL, for `servers`.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.is_secure { "https://localhost" } else { "http://127.0.0.1" };
        format!("{scheme}:{}", self.address.port())
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every whole request, in order of its end.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.log.asked.lock().unwrap().clone()
    }

    /// How many connections were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.log.connections.load(Ordering::SeqCst)
    }

    /// Streams that were begun.
    pub(crate) fn begun(&self) -> usize {
        self.log.begun.load(Ordering::SeqCst)
    }

    /// Streams in progress.
    pub(crate) fn open(&self) -> usize {
        self.log.open.load(Ordering::SeqCst)
    }

    /// Why streams were reset that rested.
    pub(crate) fn resets(&self) -> Vec<Reason> {
        self.log.resets.lock().unwrap().clone()
    }

    /// Answers those that are held.
    pub(crate) fn release(&self) {
        self.log.is_released.store(true, Ordering::SeqCst);
        self.log.released.notify_waiters();
    }
}

async fn serve<T, F>(io: T, streams: u32, log: Arc<Log>, act: Arc<F>)
where
    T: AsyncRead + AsyncWrite + Unpin,
    F: Fn(&Request<()>) -> Act + Send + Sync + 'static,
{
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(streams);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(io).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (log, act) = (Arc::clone(&log), Arc::clone(&act));
        tokio::spawn(async move {
            log.begun.fetch_add(1, Ordering::SeqCst);
            log.open.fetch_add(1, Ordering::SeqCst);
            let (head, body) = request.into_parts();
            let head = Request::from_parts(head, ());
            let act = act(&head);
            let _ = answer(act, head, body, respond, &log).await;
            log.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn answer(
    act: Act,
    head: Request<()>,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    log: &Log,
) -> Result<(), h2::Error> {
    match act {
        Act::Reset(reason) => {
            respond.send_reset(reason);
            return Ok(());
        }
        Act::Echo => {
            let mut send = respond.send_response(Response::new(()), false)?;
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                send_all(&mut send, data).await?;
            }
            return send.send_data(Bytes::new(), true);
        }
        Act::Play(steps) => {
            let mut whole = Vec::new();
            let reset = play(steps, &mut body, respond, &mut whole).await;
            log.asked.lock().unwrap().push(asked(&head, whole));
            if let Some(reason) = reset? {
                log.resets.lock().unwrap().push(reason);
            }
            return Ok(());
        }
        _ => {}
    }
    let mut whole = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        whole.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    log.asked.lock().unwrap().push(asked(&head, whole));
    answer_whole(act, respond, log).await
}

fn asked(head: &Request<()>, body: Vec<u8>) -> Asked {
    Asked {
        method: head.method().to_string(),
        uri: head.uri().to_string(),
        headers: head.headers().clone(),
        body,
    }
}

async fn answer_whole(
    act: Act,
    mut respond: SendResponse<Bytes>,
    log: &Log,
) -> Result<(), h2::Error> {
    let mut head = Response::new(());
    match &act {
        Act::AfterHints(_) => {
            let mut hints = Response::new(());
            *hints.status_mut() = StatusCode::EARLY_HINTS;
            hints.headers_mut().insert("link", "</a.css>; rel=preload".parse().unwrap());
            respond.send_informational(hints)?;
        }
        Act::Grpc(_) => {
            head.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        }
        Act::Answer(bytes) if bytes.is_empty() => {
            return respond.send_response(head, true).map(drop);
        }
        _ => {}
    }
    let mut send = respond.send_response(head, false)?;
    match act {
        Act::Answer(bytes) | Act::AfterHints(bytes) => {
            send_all(&mut send, bytes).await?;
            send.send_data(Bytes::new(), true)
        }
        Act::Grpc(bytes) => {
            send_all(&mut send, bytes).await?;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            send.send_trailers(trailers)
        }
        Act::Hold => hold(send, log).await,
        Act::CutOff => {
            send_all(&mut send, Bytes::from_static(b"half")).await?;
            send.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
        Act::Echo | Act::Reset(_) | Act::Play(_) => Ok(()),
    }
}

/// Waits until those that are held are released, or the client has gone.
async fn hold(mut send: h2::SendStream<Bytes>, log: &Log) -> Result<(), h2::Error> {
    loop {
        let released = log.released.notified();
        if log.is_released.load(Ordering::SeqCst) {
            return send.send_data(Bytes::from_static(b"fine"), true);
        }
        tokio::select! {
            () = released => {}
            reset = std::future::poll_fn(|cx| send.poll_reset(cx)) => return reset.map(drop),
        }
    }
}

pub(super) async fn send_all(
    send: &mut h2::SendStream<Bytes>,
    mut data: Bytes,
) -> Result<(), h2::Error> {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        if send.capacity() == 0 {
            match std::future::poll_fn(|cx| send.poll_capacity(cx)).await {
                Some(capacity) => drop(capacity?),
                None => return Ok(()),
            }
            continue;
        }
        let piece = data.split_to(send.capacity().min(data.len()));
        send.send_data(piece, false)?;
    }
    Ok(())
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// One that takes so many requests on each connection, and then says GOAWAY with the last of them,
/// at once and without warning. What comes above that is not looked at.
pub(crate) struct GoingAway {
    address: SocketAddr,
    bodies: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl GoingAway {
    /// After `each` requests.
    pub(crate) fn after(each: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let bodies = Arc::<Mutex<Vec<String>>>::default();
        let connections = Arc::<AtomicUsize>::default();
        let (seen, accepted) = (Arc::clone(&bodies), Arc::clone(&connections));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                accepted.fetch_add(1, Ordering::SeqCst);
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || {
                    let _ = going_away(stream, each, &seen);
                });
            }
        });
        Self { address, bodies, connections }
    }

    /// Its URL, for `servers`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The bodies of the requests that it has acted on.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.bodies.lock().unwrap().clone()
    }

    /// How many connections were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn going_away(
    mut io: std::net::TcpStream,
    each: usize,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    io.set_nodelay(true)?;
    let mut preface = [0; 24];
    io.read_exact(&mut preface)?;
    io.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    let mut bodies = BTreeMap::<u32, String>::new();
    let mut answered = 0;
    let mut opened = 0;
    let mut last = u32::MAX;
    loop {
        let mut head = [0; 9];
        io.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & (u32::MAX >> 1);
        let mut payload = vec![0; length];
        io.read_exact(&mut payload)?;
        match head[3] {
            SETTINGS if head[4] == 0 => io.write_all(&frame(SETTINGS, 1, 0, &[]))?,
            PING if head[4] == 0 => io.write_all(&frame(PING, 1, 0, &payload))?,
            HEADERS if stream <= last => {
                opened += 1;
                bodies.insert(stream, String::new());
                if opened == each {
                    last = stream;
                    let payload = [stream.to_be_bytes(), [0; 4]].concat();
                    io.write_all(&frame(GOAWAY, 0, 0, &payload))?;
                }
            }
            DATA if stream <= last => {
                let text = String::from_utf8_lossy(&payload).into_owned();
                bodies.entry(stream).or_default().push_str(&text);
            }
            _ => {}
        }
        let is_request = matches!(head[3], HEADERS | DATA) && stream <= last;
        if is_request && head[4] & END_STREAM != 0 {
            seen.lock().unwrap().push(bodies.remove(&stream).unwrap_or_default());
            // `:status: 200` is entry 8 of the static table (RFC 7541 Appendix A).
            let answer = [
                frame(HEADERS, END_HEADERS, stream, &[0x88]),
                frame(DATA, END_STREAM, stream, b"fine"),
            ];
            io.write_all(&answer.concat())?;
            answered += 1;
        }
        if answered == each {
            io.shutdown(std::net::Shutdown::Write)?;
        }
    }
}
