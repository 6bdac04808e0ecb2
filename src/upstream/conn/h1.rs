//! One HTTP/1.1 connection to a server, driven by whoever uses it.
//!
//! hyper splits a client connection into a handle and a future that does the I/O. The usual place
//! for that future is a task of its own; then each exchange wakes two tasks in turn, often on two
//! cores. Here the request's task polls both: the same work without the hand-over. An unused
//! connection is polled by nobody; it is looked at when it is taken out of the pool.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep};

use super::count::Counted;
use super::unanswered::Unanswered;
use crate::base::body::Upload;
use crate::base::socket::Socket;
use crate::config;

/// How many fields hyper reads without allocating for it.
const FIELDS_INLINE: usize = 100;
/// Longest head that fits in hyper's buffer as it is, in bytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// A connection and its handle.
pub(in crate::upstream) struct Connection {
    sender: SendRequest<Upload>,
    io: http1::Connection<TokioIo<Socket>, Upload>,
    /// Why the connection ended, once it has.
    ended: Option<Result<(), hyper::Error>>,
    resting_since: Option<Instant>,
    /// Whether the server has answered in HTTP/1.0.
    is_old: bool,
    /// Fires no later than the current exchange's deadline. Kept from one exchange to the next,
    /// because moving a timer costs more than letting it fire early once in a while.
    alarm: Pin<Box<Sleep>>,
    counted: Counted,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Connection {
    /// Speaks HTTP/1.1 with a server.
    ///
    /// # Errors
    /// hyper's.
    pub(in crate::upstream) async fn over(
        socket: Socket,
        settings: &config::Upstream,
        counted: Counted,
    ) -> std::io::Result<Box<Self>> {
        let header_bytes = usize::try_from(settings.header_bytes).unwrap_or(BUFFER_BYTES);
        let mut builder = http1::Builder::new();
        builder.max_header_size(header_bytes);
        if header_bytes > BUFFER_BYTES {
            builder.max_buf_size(header_bytes.saturating_add(BUFFER_BYTES));
        }
        if settings.headers != FIELDS_INLINE {
            builder.max_headers(settings.headers);
        }
        let (sender, io) =
            builder.handshake(TokioIo::new(socket)).await.map_err(std::io::Error::other)?;
        let alarm = Box::pin(tokio::time::sleep(settings.response_timeout));
        Ok(Box::new(Self {
            sender,
            io,
            ended: None,
            resting_since: None,
            is_old: false,
            alarm,
            counted,
        }))
    }

    /// Whether the connection has served a request before.
    pub(in crate::upstream) fn is_reused(&self) -> bool {
        self.resting_since.is_some()
    }

    /// Marks it as unused from now on.
    pub(super) fn rest(&mut self) {
        self.resting_since = Some(Instant::now());
    }

    /// Since when nobody uses it.
    pub(super) fn resting_since(&self) -> Instant {
        self.resting_since.unwrap_or_else(Instant::now)
    }

    /// Looks whether the server has closed an unused connection.
    pub(super) fn is_open(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.ended.is_none() && !self.sender.is_closed()
    }

    /// Lets the connection notice that an exchange is over, which it mostly has with the last byte.
    /// True when it can take another.
    pub(super) fn settle(&mut self) -> bool {
        let is_settled = self.sender.is_ready() || self.is_open() && self.sender.is_ready();
        is_settled && self.ended.is_none() && !self.is_old
    }

    /// The server has answered in HTTP/1.0. There is no next request on the connection, whatever
    /// its `Connection` says: hyper would send it in HTTP/1.0, and drop a body of unknown length.
    pub(super) fn is_of_an_old_server(&mut self) {
        self.is_old = true;
    }

    /// The socket, what was read from it and not used, and the connection's place in the count.
    pub(in crate::upstream) fn into_socket(self) -> (Socket, Bytes, Counted) {
        let parts = self.io.into_parts();
        (parts.io.into_inner(), parts.read_buf, self.counted)
    }

    /// Does what I/O there is to do.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if self.ended.is_none()
            && let Poll::Ready(end) = Pin::new(&mut self.io).poll(cx)
        {
            self.ended = Some(end);
        }
    }

    /// Does what I/O there is to do until `look` finds something.
    ///
    /// When we take what hyper has made, it wakes whoever it was driven for: this very task, which
    /// would be polled once more for nothing. So it is driven for nobody first, and for the task
    /// where there is something left to wait for.
    pub(super) fn drive_until<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut look: impl FnMut() -> Poll<T>,
    ) -> Poll<T> {
        self.drive(&mut Context::from_waker(Waker::noop()));
        let found = look();
        if found.is_ready() {
            return found;
        }
        self.drive(cx);
        look()
    }

    /// Sends a request and waits for the head of its response. Of what was not written, the request
    /// is put back.
    ///
    /// # Errors
    /// [`Unanswered`], after which the connection is of no use.
    pub(super) async fn send(
        &mut self,
        request: &mut Option<Request<Upload>>,
        timeout: Duration,
    ) -> Result<Response<Incoming>, Unanswered> {
        let Some(outgoing) = request.take() else { return Err(Unanswered::Lost(None)) };
        let mut deadline = Instant::now() + timeout;
        let upload = outgoing.body().progress();
        if self.alarm.deadline() > deadline {
            self.alarm.as_mut().reset(deadline);
        }
        // Unconstrained: a poll that is put off for fairness would count on a wake-up.
        let answer = tokio::task::unconstrained(self.sender.try_send_request(outgoing));
        let mut answer = std::pin::pin!(answer);
        let mut is_written = false;
        let answered = std::future::poll_fn(|cx| {
            // The answer comes out of `drive` and from nowhere else, so nobody needs to be woken
            // for it.
            let mut nobody = Context::from_waker(Waker::noop());
            let mut look = || answer.as_mut().poll(&mut nobody);
            let answered = if std::mem::replace(&mut is_written, true) {
                self.drive_until(cx, look)
            } else {
                // There is no answer yet.
                self.drive(cx);
                look()
            };
            match answered {
                Poll::Ready(answered) => Poll::Ready(Some(answered)),
                Poll::Pending => loop {
                    std::task::ready!(self.poll_deadline(cx, deadline));
                    // An upstream that still takes the body is not expected to answer yet.
                    if !upload.as_ref().is_some_and(|upload| upload.has_moved()) {
                        break Poll::Ready(None);
                    }
                    deadline = Instant::now() + timeout;
                },
            }
        });
        match answered.await {
            None if upload.as_ref().is_some_and(|upload| upload.is_awaited()) => {
                Err(Unanswered::Starved)
            }
            None => Err(Unanswered::TimedOut),
            Some(Ok(response)) => Ok(response),
            Some(Err(mut error)) => {
                *request = error.take_message();
                if request.is_some() {
                    return Err(Unanswered::Unsent);
                }
                // Who breaks off a body ends the connection with it; no server is to blame.
                if upload.is_some_and(|upload| upload.fault().is_some()) {
                    return Err(Unanswered::Withdrawn);
                }
                // How the connection ended says more.
                let end = self.ended.replace(Ok(())).and_then(Result::err);
                Err(Unanswered::Lost(Some(end.unwrap_or_else(|| error.into_error()).into())))
            }
        }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        while self.alarm.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
