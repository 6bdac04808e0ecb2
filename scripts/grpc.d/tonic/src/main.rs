//! Compares gRPC calls through the gateway with the same calls without it, by tonic: its client on
//! one side, its server on the other.
//!
//! usage: grpc-tonic FOLDER CLEAR SECURE CLEAR_SERVER SECURE_SERVER FRAMES_SERVER
//!
//! `scripts/grpc --tonic` runs it, and says there what is compared. FOLDER has the certificate and
//! its authority, the rest are ports of localhost: two of the gateway, which runs; two that this
//! program serves; one of a server of frames, which runs. Prints a line per comparison, and ends
//! with status 1 where one differs from what is expected of it.

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::server::{NamedService, StreamingService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status, Streaming};

/// The longest time that a call may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// When a client leaves that has got no message.
const LEAVES_AFTER: Duration = Duration::from_millis(300);
const DEADLINE: Duration = Duration::from_millis(500);
/// Messages to and fro on one call.
const PINGS: usize = 1000;
/// Bytes of a large message.
const LARGE: usize = 5_000_000;
/// What the gateway adds, what differs from call to call, and what is no metadata: a reset has no
/// content type, the status that the gateway makes of it has one.
const OURS: [&str; 3] = ["x-request-id", "date", "content-type"];

/// How many calls were cancelled at the server.
static CANCELLED: AtomicUsize = AtomicUsize::new(0);

/// Bytes as they are: no messages are parsed here.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

fn large() -> Bytes {
    (0..=u8::MAX).cycle().take(LARGE).collect()
}

// The server.

type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// Counts the call as cancelled when it is dropped.
struct Unfinished;

impl Drop for Unfinished {
    fn drop(&mut self) {
        CANCELLED.fetch_add(1, Ordering::SeqCst);
    }
}

/// An error with details, and with trailers that tell what the call was asked with.
fn error(code: Code, text: &str, asked: &MetadataMap) -> Status {
    let mut trailers = MetadataMap::new();
    for value in asked.get_all("x-asked") {
        trailers.append("x-asked", value.clone());
    }
    for value in asked.get_all_bin("asked-bin") {
        trailers.append_bin("asked-bin", value.clone());
    }
    trailers.append("x-cost", MetadataValue::from_static("7"));
    trailers.append("x-cost", MetadataValue::from_static("8"));
    trailers.append_bin("cost-bin", MetadataValue::from_bytes(b"\0\xff,;"));
    let details = Bytes::from_static(b"\x08\x09\x12\x04\xff\0%,");
    Status::with_details_and_metadata(code, text, details, trailers)
}

/// Does what the first message says.
async fn answer(request: Request<Streaming<Bytes>>) -> Result<Response<Messages>, Status> {
    let (metadata, _, mut asked) = request.into_parts();
    let first = asked.message().await?.ok_or_else(|| Status::internal("no message"))?;
    let way = first.split(|byte| *byte == b' ').next().unwrap_or_default().to_vec();
    let head = String::from_utf8_lossy(&way).parse();
    if way == b"fails" {
        return Err(error(Code::FailedPrecondition, "déjà vu: 100 %\nof it", &metadata));
    }
    if way == b"waits" {
        let _unfinished = Unfinished;
        std::future::pending::<()>().await;
    }
    let (to, messages) = mpsc::channel(4);
    tokio::spawn(async move {
        if way == b"leaves" {
            let _unfinished = Unfinished;
            let _ = to.send(Ok(Bytes::from_static(b"one"))).await;
            return to.closed().await;
        }
        // The first of the large ones comes back as its digest.
        let first = if first.len() > 100 { digest(&[first]).into() } else { first };
        let _ = to.send(Ok(first)).await;
        let mut left = if way == b"breaks" { 2 } else { usize::MAX };
        while left > 0
            && let Some(Ok(message)) = asked.next().await
        {
            let _ = to.send(Ok(message)).await;
            left -= 1;
        }
        let last = match &way[..] {
            b"breaks" => Err(error(Code::ResourceExhausted, "after two", &metadata)),
            b"large" => Ok(large()),
            _ => return,
        };
        let _ = to.send(last).await;
    });
    let mut response = Response::new(Box::pin(ReceiverStream::new(messages)) as Messages);
    response.metadata_mut().insert("x-head", head.map_err(|_| Status::internal("no text"))?);
    Ok(response)
}

/// Answers calls of all kinds; those that get one message get the last.
struct Answer {
    single: bool,
}

impl StreamingService<Bytes> for Answer {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = BoxFuture<Response<Messages>, Status>;
    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let single = self.single;
        Box::pin(async move {
            let response = answer(request).await?;
            if !single {
                return Ok(response);
            }
            let (metadata, mut messages, extensions) = response.into_parts();
            let mut last = Bytes::new();
            while let Some(message) = messages.next().await {
                last = message?;
            }
            let last = Box::pin(tokio_stream::once(Ok(last)));
            Ok(Response::from_parts(metadata, last, extensions))
        })
    }
}

/// The service that is called in clear, or over TLS: the gateway tells them apart by their names.
#[derive(Clone)]
struct Calls<const SECURE: bool>;

impl<const SECURE: bool> NamedService for Calls<SECURE> {
    const NAME: &'static str = if SECURE { "secure.Calls" } else { "clear.Calls" };
}

impl<const SECURE: bool> Service<http::Request<Body>> for Calls<SECURE> {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let service = Answer { single: path.ends_with("/unary") || path.ends_with("/client") };
        let mut grpc = tonic::server::Grpc::new(Raw).max_decoding_message_size(usize::MAX);
        Box::pin(async move { Ok(grpc.streaming(service, request).await) })
    }
}

// The client.

/// A channel to the calls, one to the server of frames, and the service that is asked on the first.
struct Way {
    name: &'static str,
    calls: Channel,
    frames: Channel,
    service: &'static str,
}

/// What calls of each kind are asked with, and how they end.
struct Case {
    name: String,
    messages: Vec<Bytes>,
    to_frames: bool,
    /// The status without the gateway, and through it.
    statuses: [Code; 2],
}

/// What a client sees of a call, and whether the server saw it cancelled.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    status: String,
    text: String,
    details: Vec<u8>,
    messages: String,
    head: Vec<String>,
    trailers: Vec<String>,
    cancelled: bool,
}

fn digest(messages: &[Bytes]) -> String {
    let mut hasher = DefaultHasher::new();
    messages.hash(&mut hasher);
    format!("{} {:x}", messages.len(), hasher.finish())
}

/// All other fields as they came, in their order.
fn fields(metadata: &MetadataMap) -> Vec<String> {
    let fields = metadata.clone().into_headers();
    let fields = fields.iter().filter(|(name, _)| !OURS.contains(&name.as_str()));
    fields.map(|(name, value)| format!("{name}: {value:?}")).collect()
}

/// A whole call, as its client sees it.
async fn call(way: &Way, kind: &str, case: &Case) -> Seen {
    let cancels = matches!(&case.name[..], "deadline" | "client leaves");
    let before = CANCELLED.load(Ordering::SeqCst);
    let (mut seen, mut messages) = (Seen::default(), Vec::new());
    let ended = timeout(PATIENCE, exchange(way, kind, case, &mut seen, &mut messages)).await;
    seen.messages = digest(&messages);
    let status = match ended {
        Ok(ended) => ended.err().unwrap_or_else(|| Status::ok("")),
        Err(_) => Status::data_loss("it hangs"), // which no case expects
    };
    // Three clocks run, and any may be the first by a hair. tonic's client says CANCELLED where its
    // own is.
    let code = match status.code() {
        Code::Cancelled if case.name == "deadline" => Code::DeadlineExceeded,
        code => code,
    };
    seen.status = format!("{code:?}");
    if status.code() != Code::Ok {
        seen.details = status.details().to_vec();
        seen.trailers = fields(status.metadata());
    }
    // The library has words of its own for resets and deadlines.
    if !case.name.starts_with("reset") && case.name != "deadline" {
        seen.text = status.message().to_owned();
    }
    for _ in 0..if cancels { 250 } else { 0 } {
        if CANCELLED.load(Ordering::SeqCst) > before {
            seen.cancelled = true;
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    seen
}

/// Makes a call. tonic itself makes those with one request as streams of one message.
async fn exchange(
    way: &Way,
    kind: &str,
    case: &Case,
    seen: &mut Seen,
    messages: &mut Vec<Bytes>,
) -> Result<(), Status> {
    let (channel, service) =
        if case.to_frames { (&way.frames, "frames") } else { (&way.calls, way.service) };
    let mut client = tonic::client::Grpc::new(channel.clone());
    client = client.max_decoding_message_size(usize::MAX);
    client.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let path = format!("/{service}.Calls/{kind}").try_into();
    let path = path.map_err(|_| Status::internal("no path"))?;
    let (more, asked) = mpsc::unbounded_channel();
    let count = if matches!(kind, "client" | "both") { case.messages.len() } else { 1 };
    for message in &case.messages[..count] {
        let _ = more.send(message.clone());
    }
    let mut more = (case.name == "pings").then_some(more);
    let mut request = Request::new(UnboundedReceiverStream::new(asked));
    let metadata = request.metadata_mut();
    metadata.append("x-asked", MetadataValue::from_static("twice"));
    metadata.append("x-asked", MetadataValue::from_static("and again"));
    let every_seventh: Vec<u8> = (0..=u8::MAX).step_by(7).collect();
    metadata.append_bin("asked-bin", MetadataValue::from_bytes(&every_seventh));
    if case.name == "deadline" {
        request.set_timeout(DEADLINE);
    }
    let leaves = case.name == "client leaves";
    if matches!(kind, "unary" | "client") {
        let answer = client.client_streaming(request, path, Raw);
        let answer = timeout(if leaves { LEAVES_AFTER } else { PATIENCE }, answer).await;
        let answer = answer.map_err(|_| Status::cancelled("left"))??;
        seen.head = fields(answer.metadata());
        messages.push(answer.into_inner());
        return Ok(());
    }
    let answer = client.streaming(request, path, Raw).await?;
    seen.head = fields(answer.metadata());
    let mut answer = answer.into_inner();
    while let Some(message) = answer.message().await? {
        messages.push(message);
        if leaves {
            return Err(Status::cancelled("left"));
        }
        // Each ping is sent when the one before is back.
        match &more {
            Some(more) if messages.len() < PINGS => {
                let _ = more.send(format!("ping {}", messages.len()).into());
            }
            _ => more = None,
        }
    }
    seen.trailers = answer.trailers().await?.as_ref().map(fields).unwrap_or_default();
    Ok(())
}

/// The calls of a kind.
fn cases(kind: &str) -> Vec<Case> {
    let several = matches!(kind, "server" | "both");
    let case = |name: &str, messages: &[&str], code| Case {
        name: name.to_owned(),
        messages: messages
            .iter()
            .map(|message| Bytes::copy_from_slice(message.as_bytes()))
            .collect(),
        to_frames: false,
        statuses: [code; 2],
    };
    // A call that is told nothing yet has no message after which to leave.
    let leaves = if several { "leaves" } else { "waits" };
    let mut cases = vec![
        case("ok", &["ok", "two", "three"], Code::Ok),
        case("error at once", &["fails"], Code::FailedPrecondition),
        case("error after two messages", &["breaks", "1", "2", "3"], Code::ResourceExhausted),
        case("deadline", &["waits"], Code::DeadlineExceeded),
        case("client leaves", &[leaves], Code::Cancelled),
        Case {
            messages: vec![[b"large ", &large()[..]].concat().into(), large()],
            ..case("5 MB", &[], Code::Ok)
        },
    ];
    if kind == "both" {
        cases.push(case("pings", &["ping 0"], Code::Ok));
    }
    let codes = [
        (1, Code::Internal),
        (2, Code::Internal),
        (7, Code::Unavailable),
        (8, Code::Cancelled),
        (11, Code::ResourceExhausted),
        (12, Code::PermissionDenied),
    ];
    for (code, status) in codes {
        let mut reset = |name, word| {
            let name = format!("reset {code} {name}");
            let case = case(&name, &[&format!("{word} {code}\0")], status);
            cases.push(Case { to_frames: true, ..case });
        };
        if code != 8 {
            reset("at once", "reset");
        }
        reset("amid", "cut");
    }
    // Expected to differ. The gateway says INTERNAL for both, as grpcio does. tonic takes NO_ERROR
    // (0) for an end without a status, although gRPC's table of resets has INTERNAL for it. That
    // table does not have HTTP_1_1_REQUIRED (13), so tonic has no status for it.
    for code in [0, 13] {
        cases.push(Case {
            to_frames: true,
            statuses: [Code::Unknown, Code::Internal],
            ..case(&format!("reset {code} amid"), &[&format!("cut {code}\0")], Code::Unknown)
        });
    }
    let goaway = if several { "many 0\0" } else { "one 0\0" };
    cases.push(Case { to_frames: true, ..case("GOAWAY amid", &[goaway], Code::Ok) });
    cases
}

/// Prints a line per comparison; how many are equal, differ as expected, and differ.
async fn compare(ways: &[Way; 3]) -> [usize; 3] {
    let [direct_way, through @ ..] = ways;
    let mut counts = [0; 3];
    for kind in ["unary", "client", "server", "both"] {
        for case in cases(kind) {
            let [status, status_through] = case.statuses.map(|code| format!("{code:?}"));
            let direct = call(direct_way, kind, &case).await;
            let expected = Seen { status: status_through.clone(), ..direct.clone() };
            for way in through {
                let seen = call(way, kind, &case).await;
                let is_expected = direct.status == status && seen == expected;
                let (verdict, index) = match (is_expected, status == status_through) {
                    (true, true) => ("equal", 0),
                    (true, false) => ("differs as expected", 1),
                    (false, _) => ("DIFFERS", 2),
                };
                counts[index] += 1;
                println!("{:26}{kind:8}{:20}{:10}{verdict}", case.name, direct.status, way.name);
                if !is_expected {
                    println!("    direct:  {direct:?}\n    through: {seen:?}");
                    println!("    expected {status} and {status_through}");
                }
            }
        }
    }
    counts
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = std::path::PathBuf::from(arguments.next().ok_or("FOLDER is missing")?);
    let ports: Vec<u16> = arguments.map(|port| port.parse()).collect::<Result<_, _>>()?;
    let [clear, secure, clear_server, secure_server, frames_server] = ports[..] else {
        return Err("five ports are needed".into());
    };
    let read = |name| std::fs::read_to_string(folder.join(name));
    let bind = |port: u16| TcpIncoming::bind(([127, 0, 0, 1], port).into());

    let server = Server::builder().add_service(Calls::<false>);
    tokio::spawn(server.serve_with_incoming(bind(clear_server)?));
    let identity = Identity::from_pem(read("cert.pem")?, read("key.pem")?);
    let mut server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity))?;
    let server = server.add_service(Calls::<true>);
    tokio::spawn(server.serve_with_incoming(bind(secure_server)?));

    let plain =
        |port| Channel::from_shared(format!("http://127.0.0.1:{port}")).map(|to| to.connect_lazy());
    let authority = Certificate::from_pem(read("ca.pem")?);
    let tls = ClientTlsConfig::new().ca_certificate(authority);
    let tls = Channel::from_shared(format!("https://localhost:{secure}"))?.tls_config(tls)?;
    let (tls, clear) = (tls.connect_lazy(), plain(clear)?);
    let way = |name, calls, frames, service| Way { name, calls, frames, service };
    let ways = [
        way("direct", plain(clear_server)?, plain(frames_server)?, "clear"),
        way("in clear", clear.clone(), clear, "clear"),
        way("TLS", tls.clone(), tls, "secure"),
    ];
    let [equal, expected, differ] = compare(&ways).await;
    println!("\n{equal} comparisons are equal, {expected} differ as expected, {differ} differ");
    Ok(if differ > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
