//! A small HTTP/1.1 client: one connection, one request at a time, no redirects, and every part of
//! an answer bounded. Who uses it sets the deadline. It must not know whom it asks, nor why.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::task::AbortHandle;

use super::fault::Fault;

/// Largest head of a response that most errands need, in bytes.
const HEAD_BYTES_MAX: usize = 400 * 1024;

/// A connection to one server, which ends with this.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects in clear. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Fault::Connect`] and [`Fault::Broken`].
    pub async fn open(address: impl ToSocketAddrs) -> Result<Self, Fault> {
        let stream = TcpStream::connect(address).await.map_err(Fault::Connect)?;
        Self::over(stream, HEAD_BYTES_MAX).await
    }

    /// Speaks HTTP over a stream that stands; no head of a response may be larger than this, in
    /// bytes.
    ///
    /// # Errors
    /// [`Fault::Broken`].
    pub async fn over<S>(stream: S, head_bytes_max: usize) -> Result<Self, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shaken =
            Builder::new().max_buf_size(head_bytes_max).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(broken)?;
        // Its error is the exchange's too.
        let driver = tokio::spawn(connection).abort_handle();
        Ok(Self { sender, driver })
    }

    /// Waits until the former exchange is over. False when the connection is.
    pub async fn is_ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Sends a request and waits for the head of its response. `Host` is the caller's to set.
    ///
    /// # Errors
    /// [`Fault::Broken`].
    pub async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Fault> {
        self.sender.send_request(request).await.map_err(broken)
    }
}

/// A whole body of at most so many bytes.
///
/// # Errors
/// [`Fault::TooLarge`] and [`Fault::Broken`].
pub async fn collect(body: Incoming, bytes_max: usize) -> Result<Bytes, Fault> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Fault::TooLarge(bytes_max)),
        Err(error) => Err(Fault::Broken(error)),
    }
}

fn broken(error: hyper::Error) -> Fault {
    Fault::Broken(error.into())
}
