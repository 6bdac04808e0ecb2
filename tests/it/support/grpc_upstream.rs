//! What an upstream of gRPC does with one call, step by step, and a client of gRPC.

use std::net::SocketAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use super::PATIENCE;

/// What small frames may cost a client that does not read them, in bytes.
const SMALL_FRAMES_BYTES: usize = 64 << 20;

/// Names and values of fields.
pub(crate) type Fields = &'static [(&'static str, &'static str)];

/// One step of an upstream.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Reads the request to its end.
    Read,
    /// Sends the head.
    Head(u16, Fields),
    /// Sends a part of the body.
    Data(Bytes),
    /// Ends the call.
    Trailers(Fields),
    /// Ends the body without trailers.
    End,
    /// Sends a head, and nothing else.
    Only(u16, Fields),
    /// Resets the stream.
    Reset(Reason),
    /// Waits until the stream is reset.
    Rest,
}

/// The head of an answer of gRPC.
pub(crate) const GRPC: Step = Step::Head(200, &[("content-type", "application/grpc")]);
/// The end of a call that went well.
pub(crate) const OK: Step = Step::Trailers(&[("grpc-status", "0")]);

/// A message in its frame.
pub(crate) fn message(payload: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(payload.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(payload.len()).unwrap());
    framed.extend_from_slice(payload);
    framed.freeze()
}

fn map(fields: Fields) -> HeaderMap {
    let parse = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    fields.iter().map(parse).collect()
}

/// Does the steps. The body of the request is added to `read`; `None` where the stream was not
/// reset while it rested, or else why it was.
pub(super) async fn play(
    steps: Vec<Step>,
    request: &mut RecvStream,
    mut respond: SendResponse<Bytes>,
    read: &mut Vec<u8>,
) -> Result<Option<Reason>, h2::Error> {
    let mut stream: Option<SendStream<Bytes>> = None;
    for step in steps {
        match (step, &mut stream) {
            (Step::Read, _) => {
                while let Some(data) = request.data().await {
                    let data = data?;
                    read.extend_from_slice(&data);
                    request.flow_control().release_capacity(data.len())?;
                }
            }
            (Step::Head(status, fields), _) => {
                stream = Some(respond.send_response(head(status, fields), false)?);
            }
            (Step::Only(status, fields), _) => {
                stream = Some(respond.send_response(head(status, fields), true)?);
            }
            (Step::Data(data), Some(stream)) => {
                super::http2_upstream::send_all(stream, data).await?
            }
            (Step::Trailers(fields), Some(stream)) => stream.send_trailers(map(fields))?,
            (Step::End, Some(stream)) => stream.send_data(Bytes::new(), true)?,
            (Step::Reset(reason), Some(stream)) => stream.send_reset(reason),
            (Step::Reset(reason), None) => respond.send_reset(reason),
            (Step::Rest, Some(stream)) => {
                return std::future::poll_fn(|cx| stream.poll_reset(cx)).await.map(Some);
            }
            (Step::Rest, None) => {
                return std::future::poll_fn(|cx| respond.poll_reset(cx)).await.map(Some);
            }
            (step, None) => panic!("{step:?} needs a head"),
        }
    }
    Ok(None)
}

fn head(status: u16, fields: Fields) -> Response<()> {
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::from_u16(status).unwrap();
    *head.headers_mut() = map(fields);
    head
}

/// A client of gRPC, with one connection.
pub(crate) struct GrpcClient(SendRequest<Bytes>);

/// A call in progress.
pub(crate) struct Call {
    answer: ResponseFuture,
    pub(crate) upload: SendStream<Bytes>,
}

/// A call that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) head: Response<()>,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl GrpcClient {
    /// In clear, with prior knowledge.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
        let mut builder = h2::client::Builder::new();
        builder.data_frame_budget(SMALL_FRAMES_BYTES);
        let (client, connection) = builder.handshake(stream).await.expect("a handshake");
        tokio::spawn(connection);
        Self(client.ready().await.expect("a place for a stream"))
    }

    /// Begins a call with these fields.
    pub(crate) fn begin(&mut self, path: &str, fields: &[(&str, &str)]) -> Call {
        let mut head = Request::builder()
            .method(Method::POST)
            .uri(format!("http://shop.test{path}"))
            .header("te", "trailers");
        let has_type = fields.iter().any(|(name, _)| *name == "content-type");
        if !has_type {
            head = head.header("content-type", "application/grpc");
        }
        for (name, value) in fields {
            head = head.header(*name, *value);
        }
        let (answer, upload) = self.0.send_request(head.body(()).unwrap(), false).unwrap();
        Call { answer, upload }
    }

    /// A whole call with one message.
    pub(crate) async fn call(&mut self, path: &str, fields: &[(&str, &str)], body: Bytes) -> Ended {
        let mut call = self.begin(path, fields);
        // A call that is refused may have ended before its message is sent.
        let _ = call.upload.send_data(body, true);
        call.end().await.expect("an answer")
    }
}

impl Call {
    /// The head of the answer, and the way for more messages.
    pub(crate) async fn head(self) -> (SendStream<Bytes>, Response<RecvStream>) {
        let head = tokio::time::timeout(PATIENCE, self.answer).await.expect("a head in time");
        (self.upload, head.expect("a head"))
    }

    /// The rest of the answer.
    pub(crate) async fn end(self) -> Result<Ended, h2::Error> {
        // The request stays open meanwhile, where it is.
        let Self { answer, upload: _upload } = self;
        let all = async {
            let (head, mut download) = answer.await?.into_parts();
            let mut body = BytesMut::new();
            while let Some(data) = download.data().await {
                let data = data?;
                body.extend_from_slice(&data);
                download.flow_control().release_capacity(data.len())?;
            }
            let trailers = download.trailers().await?.unwrap_or_default();
            Ok(Ended { head: Response::from_parts(head, ()), body: body.freeze(), trailers })
        };
        tokio::time::timeout(PATIENCE, all).await.expect("an answer in time")
    }
}

impl Ended {
    /// The value of a field of the trailers, or of the head where there are none.
    pub(crate) fn field(&self, name: &str) -> &str {
        let fields = if self.trailers.is_empty() { self.head.headers() } else { &self.trailers };
        fields.get(name).map_or("", |value| value.to_str().unwrap())
    }
}
