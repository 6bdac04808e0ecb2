//! One connection to Redis. Requests go to the task that owns the socket, which writes them in the
//! order in which they come and gives each its replies: as many as it has commands.
//!
//! A reply that is too long, that nobody asked for or that is no RESP3 ends the connection before
//! it is in memory.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use redis::{Cmd, Pipeline, PushInfo, PushKind, RedisError, Value};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::encode::encode;
use super::resp::{Decoder, Fault, LINE_BYTES_MAX, Message};
use super::says::{Condition, Says};

/// Requests that may wait for the task; more wait for a place, within their deadlines.
const REQUESTS_MAX: usize = 50;
/// Bytes that may wait to be written before no further request is taken.
const UNWRITTEN_BYTES_MAX: usize = 64 * 1024;

/// Commands on their way, and who waits for the replies.
#[derive(Debug)]
struct Request {
    bytes: Vec<u8>,
    commands: usize,
    reply: oneshot::Sender<Result<Vec<Value>, RedisError>>,
}

/// A connection and the task that drives it, which ends with this.
#[derive(Debug)]
pub(super) struct Connection {
    requests: mpsc::Sender<Request>,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Drives `stream`, of which no reply may have more than `reply_bytes`. `on_push` is told what
    /// the server pushes, before anything that came later is read, and at last that the connection
    /// was closed (`PushKind::Disconnection`). Must be called within a tokio runtime.
    pub(super) fn start<S, F>(stream: S, reply_bytes: u64, says: &Arc<Says>, on_push: F) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: FnMut(PushInfo) + Send + 'static,
    {
        let (requests, received) = mpsc::channel(REQUESTS_MAX);
        let driver = Driver {
            stream,
            requests: received,
            unwritten: Vec::new(),
            written: 0,
            unflushed: false,
            buffer: vec![0; LINE_BYTES_MAX].into_boxed_slice(),
            filled: 0,
            decoder: Decoder::new(reply_bytes),
            waiting: VecDeque::new(),
            says: Arc::clone(says),
            on_push,
        };
        Self { requests, driver: tokio::spawn(driver.drive()).abort_handle() }
    }

    /// Sends commands: one reply for each, errors of single commands among them. The caller has a
    /// deadline around it.
    pub(super) async fn send(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        self.exchange(encode(pipeline), pipeline.len()).await
    }

    /// Sends one command: its reply, or its error.
    pub(super) async fn run(&self, command: &Cmd) -> Result<Value, RedisError> {
        let replies = self.exchange(command.get_packed_command(), 1).await?;
        replies.into_iter().next().unwrap_or_default().extract_error()
    }

    /// Subscribes to channels, of which `on_push` is told. It is not answered but by pushes, so a
    /// PING behind it is; its error is the error.
    pub(super) async fn subscribe(&self, command: &Cmd) -> Result<(), RedisError> {
        let mut bytes = command.get_packed_command();
        redis::cmd("PING").write_packed_command(&mut bytes);
        let replies = self.exchange(bytes, 1).await?;
        replies.into_iter().next().unwrap_or_default().extract_error().map(|_| ())
    }

    async fn exchange(&self, bytes: Vec<u8>, commands: usize) -> Result<Vec<Value>, RedisError> {
        if commands == 0 {
            return Ok(Vec::new());
        }
        let (reply, answer) = oneshot::channel();
        let request = Request { bytes, commands, reply };
        self.requests.send(request).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

fn closed() -> RedisError {
    Error::new(ErrorKind::BrokenPipe, "the connection is closed").into()
}

/// A request that was written, or is about to be, and its replies so far.
#[derive(Debug)]
struct Waiting {
    commands: usize,
    replies: Vec<Value>,
    reply: oneshot::Sender<Result<Vec<Value>, RedisError>>,
}

/// What the task owns.
struct Driver<S, F> {
    stream: S,
    requests: mpsc::Receiver<Request>,
    unwritten: Vec<u8>,
    /// How many bytes of `unwritten` were written.
    written: usize,
    /// Whether the stream may still hold something of what was written, as TLS does.
    unflushed: bool,
    /// Holds the longest line.
    buffer: Box<[u8]>,
    /// Bytes at the beginning of `buffer` that were read and not used.
    filled: usize,
    decoder: Decoder,
    /// In the order of their commands.
    waiting: VecDeque<Waiting>,
    says: Arc<Says>,
    on_push: F,
}

impl<S: AsyncRead + AsyncWrite + Unpin, F: FnMut(PushInfo)> Driver<S, F> {
    /// Serves until the connection ends.
    async fn drive(mut self) {
        let error = poll_fn(|cx| self.poll(cx)).await;
        self.requests.close();
        (self.on_push)(PushInfo { kind: PushKind::Disconnection, data: Vec::new() });
        for waiting in self.waiting {
            // Who does not wait any more needs no answer.
            let _ = waiting.reply.send(Err(error.clone()));
        }
    }

    /// Reads first, so that a reply to what was not yet written is known as one to nothing.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RedisError> {
        if let Poll::Ready(error) = self.poll_read(cx) {
            return Poll::Ready(error);
        }
        self.poll_write(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<RedisError> {
        loop {
            let free = self.buffer.get_mut(self.filled..).unwrap_or_default();
            let mut buffer = ReadBuf::new(free);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            let count = buffer.filled().len();
            match read {
                Err(error) => return Poll::Ready(error.into()),
                Ok(()) if count == 0 => return Poll::Ready(closed()),
                Ok(()) => self.filled += count,
            }
            if let Err(fault) = self.take_replies() {
                self.says.note(match fault {
                    Fault::TooLong => Condition::ReplyTooLong,
                    Fault::Garbled | Fault::Unasked => Condition::ForeignReply,
                });
                return Poll::Ready(Error::new(ErrorKind::ConnectionReset, fault).into());
            }
        }
    }

    /// Reads what is in the buffer. Nobody is answered before all of it was found to be in order.
    fn take_replies(&mut self) -> Result<(), Fault> {
        let (mut used, mut answered) = (0, 0);
        loop {
            let unread = self.buffer.get(used..self.filled).unwrap_or_default();
            let (step, message) = self.decoder.read(unread)?;
            used += step;
            match message {
                None => break,
                Some(Message::Push(push)) => (self.on_push)(push),
                Some(Message::Reply(reply)) => {
                    let waiting = self.waiting.get_mut(answered).ok_or(Fault::Unasked)?;
                    waiting.replies.push(reply);
                    answered += usize::from(waiting.replies.len() == waiting.commands);
                }
            }
        }
        self.buffer.copy_within(used..self.filled, 0);
        self.filled -= used;
        for Waiting { replies, reply, .. } in self.waiting.drain(..answered) {
            // Who does not wait any more needs no answer.
            let _ = reply.send(Ok(replies));
        }
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<RedisError> {
        loop {
            self.take_requests(cx);
            let rest = self.unwritten.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                return match ready!(self.poll_flush(cx)) {
                    Ok(()) => Poll::Pending,
                    Err(error) => Poll::Ready(error.into()),
                };
            }
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest)) {
                Ok(0) => return Poll::Ready(Error::from(ErrorKind::WriteZero).into()),
                Ok(count) => {
                    self.written += count;
                    self.unflushed = true;
                }
                Err(error) => return Poll::Ready(error.into()),
            }
            if self.written == self.unwritten.len() {
                (self.unwritten, self.written) = (Vec::new(), 0);
            }
        }
    }

    /// Over TCP this does nothing.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn take_requests(&mut self, cx: &mut Context<'_>) {
        while self.unwritten.len() < UNWRITTEN_BYTES_MAX {
            // Without anybody left who could ask, this task is ended from outside.
            let Poll::Ready(Some(request)) = self.requests.poll_recv(cx) else { return };
            let Request { bytes, commands, reply } = request;
            if reply.is_closed() {
                continue;
            }
            if self.unwritten.is_empty() {
                self.unwritten = bytes;
            } else {
                self.unwritten.extend_from_slice(&bytes);
            }
            self.waiting.push_back(Waiting {
                commands,
                replies: Vec::with_capacity(commands),
                reply,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn pings(count: usize) -> Pipeline {
        let mut pipeline = redis::pipe();
        (0..count).for_each(|_| {
            pipeline.cmd("PING");
        });
        pipeline
    }

    /// How many replies a client gets that has sent so many commands when the server answers this,
    /// and what it is told beside them.
    async fn exchange(commands: usize, answer: &str) -> (Result<usize, RedisError>, Vec<PushKind>) {
        let (stream, mut server) = tokio::io::duplex(1024);
        let (tell, mut told) = mpsc::unbounded_channel();
        let on_push = move |push: PushInfo| drop(tell.send(push.kind));
        let connection = Connection::start(stream, 100, &says(), on_push);
        let pings = pings(commands);
        let serve = async {
            let mut sent = vec![0; pings.get_packed_pipeline().len()];
            server.read_exact(&mut sent).await.expect("the commands");
            server.write_all(answer.as_bytes()).await.expect("a client that reads");
            server
        };
        let (replies, _server) = tokio::join!(connection.send(&pings), serve);
        let mut kinds = Vec::new();
        if commands == 0 || replies.is_err() {
            kinds.extend(told.recv().await);
            assert!(connection.send(&self::pings(1)).await.is_err(), "it goes on after {answer}");
        }
        while let Ok(kind) = told.try_recv() {
            kinds.push(kind);
        }
        (replies.map(|replies| replies.len()), kinds)
    }

    fn says() -> Arc<Says> {
        Arc::new(Says::of(None, "store"))
    }

    #[tokio::test]
    async fn as_many_replies_as_commands_pass() {
        assert_eq!(exchange(1, "+PONG\r\n").await, (Ok(1), vec![]));
        let told = vec![PushKind::Invalidate];
        assert_eq!(exchange(2, ">1\r\n+invalidate\r\n:1\r\n:2\r\n").await, (Ok(2), told));
        let (nothing, told) = exchange(0, "+OK\r\n").await;
        assert_eq!((nothing, told), (Ok(0), vec![PushKind::Disconnection]));
        for answer in [":1\r\n:1\r\n", "$1000\r\n", "what?\r\n"] {
            let (replies, told) = exchange(1, answer).await;
            let error = replies.expect_err(answer);
            assert!(error.is_io_error() && error.is_connection_dropped(), "{answer}: {error}");
            assert_eq!(told, [PushKind::Disconnection], "{answer}");
        }
    }

    #[tokio::test]
    async fn replies_go_to_who_asked_however_they_are_cut() {
        let (stream, mut server) = tokio::io::duplex(7);
        let connection = Connection::start(stream, 100_000, &says(), |_| {});
        let long = "x".repeat(9000);
        let answer = format!("*2\r\n${}\r\n{long}\r\n_\r\n:2\r\n:3\r\n", long.len());
        let (first, second) = (pings(1), pings(2));
        let serve = async {
            let mut sent = vec![0; pings(3).get_packed_pipeline().len()];
            server.read_exact(&mut sent).await.expect("the commands");
            server.write_all(answer.as_bytes()).await.expect("a client that reads");
        };
        let (first, second, ()) =
            tokio::join!(connection.send(&first), connection.send(&second), serve);
        let list = Value::Array(vec![Value::BulkString(long.into_bytes()), Value::Nil]);
        assert_eq!((first, second), (Ok(vec![list]), Ok(vec![Value::Int(2), Value::Int(3)])));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_read_and_forgotten() {
        let (stream, mut server) = tokio::io::duplex(1024);
        let connection = Connection::start(stream, 100, &says(), |_| {});
        let one = pings(1);
        let mut sent = vec![0; one.get_packed_pipeline().len()];
        tokio::select! {
            _ = connection.send(&one) => panic!("nothing was answered"),
            read = server.read_exact(&mut sent) => drop(read.expect("the command")),
        }
        let serve = async {
            server.read_exact(&mut sent).await.expect("the command");
            server.write_all(b":1\r\n:2\r\n").await.expect("a client that reads");
        };
        let (replies, ()) = tokio::join!(connection.send(&one), serve);
        assert_eq!(replies, Ok(vec![Value::Int(2)]));
    }
}
