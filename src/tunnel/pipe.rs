//! One direction of a tunnel: bytes that were read, as far as they may pass, are written. There is
//! a buffer only while bytes wait in it, and nothing is read while they do.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::flow::{Flow, FlowRules, Refusal, Verdict};

/// Most bytes that are read at once, and so most that wait.
const READ_BYTES_MAX: usize = 8 * 1024;
/// How many times one poll reads before others have their turn.
const READS_MAX: usize = 16;

/// Why a direction broke off.
#[derive(Debug)]
pub(super) enum Fault {
    /// Who sends is gone.
    Source,
    /// Who receives is gone.
    Sink,
    /// What was sent may not pass.
    Refused(Refusal),
}

/// How far a direction has come.
#[derive(Debug)]
enum State {
    /// Bytes pass.
    Open,
    /// This Close follows the current frame, and nothing else does.
    Stopping(Vec<u8>),
    /// The Close waits, or the flush behind it.
    Stopped,
    /// The Close was written; what comes is dropped until it is answered.
    Deaf,
    /// The source has ended, which its other end is to learn.
    Ended,
    /// Nothing comes any more.
    Done,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pipe {
    flow: Flow,
    state: State,
    /// Bytes that were read, and not all written.
    waiting: Vec<u8>,
    /// How many of them were written.
    written: usize,
    /// How many of them may be.
    passed: usize,
    /// Whether something was written and not flushed.
    is_dirty: bool,
    /// Bytes that were written.
    bytes: u64,
    /// Whether something was read since somebody looked.
    has_read: bool,
    /// Since when who receives takes nothing.
    blocked_since: Option<Instant>,
    /// When the next message may pass.
    wait_until: Option<Instant>,
}

impl Pipe {
    /// A direction whose first bytes are `early`.
    pub(super) fn new(rules: FlowRules, early: &[u8]) -> Self {
        Self {
            flow: Flow::new(rules),
            state: State::Open,
            waiting: early.to_owned(),
            written: 0,
            passed: 0,
            is_dirty: false,
            bytes: 0,
            has_read: false,
            blocked_since: None,
            wait_until: None,
        }
    }

    /// Bytes that were written.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Messages that were begun.
    pub(super) fn messages(&self) -> u64 {
        self.flow.messages()
    }

    /// Whether something was read since the last call.
    pub(super) fn take_has_read(&mut self) -> bool {
        std::mem::take(&mut self.has_read)
    }

    /// Whether its source has said that it ends the tunnel, or has ended.
    pub(super) fn has_closed(&self) -> bool {
        self.flow.is_closing() || matches!(self.state, State::Ended | State::Done)
    }

    /// Whether a Close has passed.
    pub(super) fn is_closing(&self) -> bool {
        self.flow.is_closing() && self.flow.is_at_boundary()
    }

    /// Whether nothing comes any more.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Since when who receives takes nothing.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since
    }

    /// When the next message may pass, where one waits.
    pub(super) fn wait_until(&self) -> Option<Instant> {
        self.wait_until
    }

    /// Lets nothing pass behind the current frame but this Close.
    pub(super) fn stop(&mut self, close: Vec<u8>) {
        if matches!(self.state, State::Open) {
            self.wait_until = None;
            self.state = State::Stopping(close);
        }
    }

    /// Does what there is to do. Ready when nothing comes any more.
    ///
    /// # Errors
    /// It has broken off; nothing more is to be done.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
        now: Instant,
    ) -> Poll<Result<(), Fault>> {
        let mut reads = 0;
        loop {
            ready!(self.poll_write(cx, sink, now))?;
            if self.pass_more(now)? {
                continue;
            }
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Ended => {
                    // It need not hear of it: it may be gone.
                    let _ = ready!(Pin::new(&mut *sink).poll_shutdown(cx));
                    self.state = State::Done;
                }
                State::Stopped => {
                    ready!(self.poll_flush(cx, sink, now))?;
                    self.state = if self.flow.is_closing() { State::Done } else { State::Deaf };
                }
                State::Open | State::Stopping(_) | State::Deaf => {
                    if self.wait_until.is_some() {
                        return self.poll_rest(cx, sink, now);
                    }
                    if reads == READS_MAX {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    reads += 1;
                    if self.poll_read(cx, source)?.is_pending() {
                        return self.poll_rest(cx, sink, now);
                    }
                }
            }
        }
    }

    /// Decides on the bytes that wait. False when more must come first.
    fn pass_more(&mut self, now: Instant) -> Result<bool, Fault> {
        let bytes = &self.waiting[self.passed..];
        match &mut self.state {
            State::Open => match self.flow.judge(bytes, now) {
                Verdict::Pass(more) => {
                    self.wait_until = None;
                    self.passed += more;
                    return Ok(true);
                }
                Verdict::More => self.wait_until = None,
                Verdict::Wait(until) => self.wait_until = Some(until),
                Verdict::Refuse(refusal) => return Err(Fault::Refused(refusal)),
            },
            State::Stopping(close) => {
                let rest = self.flow.rest(bytes);
                self.passed += rest;
                if self.flow.is_at_boundary() {
                    // A Close of the peer's own has gone before: two would be one too many.
                    let close = std::mem::take(close);
                    self.waiting.truncate(self.passed);
                    if !self.flow.is_closing() {
                        self.waiting.extend(close);
                        self.passed = self.waiting.len();
                    }
                    self.state = State::Stopped;
                    return Ok(true);
                }
                return Ok(rest > 0);
            }
            State::Deaf => {
                let skipped = self.flow.skip(bytes);
                self.waiting.drain(..self.passed + skipped);
                (self.written, self.passed) = (0, 0);
                if self.flow.is_closing() {
                    self.state = State::Done;
                    return Ok(true);
                }
            }
            // Half a header is what came, so it is what goes on.
            State::Ended if !bytes.is_empty() => {
                self.passed = self.waiting.len();
                return Ok(true);
            }
            State::Ended | State::Stopped | State::Done => {}
        }
        Ok(false)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut (impl AsyncWrite + Unpin),
        now: Instant,
    ) -> Poll<Result<(), Fault>> {
        while self.written < self.passed {
            let bytes = &self.waiting[self.written..self.passed];
            match Pin::new(&mut *sink).poll_write(cx, bytes) {
                Poll::Pending => {
                    self.blocked_since.get_or_insert(now);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Fault::Sink)),
                Poll::Ready(Ok(count)) => {
                    self.written += count;
                    self.bytes += count as u64;
                    (self.is_dirty, self.blocked_since) = (true, None);
                }
            }
        }
        if self.written > 0 {
            self.waiting.drain(..self.written);
            self.passed -= self.written;
            self.written = 0;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut (impl AsyncWrite + Unpin),
        now: Instant,
    ) -> Poll<Result<(), Fault>> {
        if !self.is_dirty {
            return Poll::Ready(Ok(()));
        }
        match Pin::new(sink).poll_flush(cx) {
            Poll::Pending => {
                self.blocked_since.get_or_insert(now);
                Poll::Pending
            }
            Poll::Ready(flushed) => {
                (self.is_dirty, self.blocked_since) = (false, None);
                Poll::Ready(flushed.map_err(|_| Fault::Sink))
            }
        }
    }

    /// Flushes, and waits for more.
    fn poll_rest(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut (impl AsyncWrite + Unpin),
        now: Instant,
    ) -> Poll<Result<(), Fault>> {
        ready!(self.poll_flush(cx, sink, now))?;
        Poll::Pending
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
    ) -> Result<Poll<()>, Fault> {
        let mut room = [const { MaybeUninit::uninit() }; READ_BYTES_MAX];
        let mut buffer = ReadBuf::uninit(&mut room);
        match Pin::new(source).poll_read(cx, &mut buffer) {
            Poll::Pending => {
                if self.waiting.is_empty() {
                    self.waiting = Vec::new();
                }
                return Ok(Poll::Pending);
            }
            Poll::Ready(Err(_)) => return Err(Fault::Source),
            Poll::Ready(Ok(())) => {}
        }
        if buffer.filled().is_empty() {
            self.state = match self.state {
                State::Deaf => State::Done,
                _ => State::Ended,
            };
        } else {
            self.has_read = true;
            self.waiting.extend_from_slice(buffer.filled());
        }
        Ok(Poll::Ready(()))
    }
}
