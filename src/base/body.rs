//! The request body on its way to the upstream: counted, watched for progress, stripped of
//! trailers.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::copied::{BoundedCopy, Copied, Tee};
use super::digested::{Digested, Meter, Sha256};
use super::expect::{Gate, Wait};
use super::grpc::Messages;
use super::grpc_web::Decoder;
use super::pace::Pace;

/// Why a client's body could not be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UploadFault {
    /// It is longer than `server.limits.body_bytes`.
    #[error("the request body is longer than the limit")]
    TooLarge,
    /// A message of a gRPC call is longer than the route's `grpc.message_bytes`.
    #[error("a message of the call is longer than the limit")]
    MessageTooLarge,
    /// It moved by less than `progress_bytes` in `progress_timeout` of waiting.
    #[error("the request body came too slowly")]
    Stalled,
    /// The client ended the connection or broke the framing.
    #[error("the request body was cut off or is malformed")]
    Broken,
}

/// What one client may take with a body.
#[derive(Debug, Clone, Copy)]
pub struct UploadLimits {
    /// Longest body, in bytes.
    pub bytes_max: u64,
    /// The period in which a body must move by at least `progress_bytes`.
    pub progress_timeout: Duration,
    /// See `progress_timeout`.
    pub progress_bytes: u64,
}

/// What others know of a body on its way.
#[derive(Debug, Default)]
pub struct Progress {
    fault: OnceLock<UploadFault>,
    moved: AtomicBool,
    /// Whether any of it went to the upstream.
    is_begun: AtomicBool,
    /// Bytes that the client has sent.
    received: AtomicU64,
    is_awaited: AtomicBool,
    /// When the client had sent all of it, where that is timed.
    ended: OnceLock<Instant>,
}

impl Progress {
    /// Why an exchange failed, when the client's body was the reason.
    pub fn fault(&self) -> Option<UploadFault> {
        self.fault.get().copied()
    }

    /// Whether the body has moved since the last call.
    pub fn has_moved(&self) -> bool {
        self.moved.swap(false, Ordering::Relaxed)
    }

    /// Whether the upstream may have any of it.
    pub fn is_begun(&self) -> bool {
        self.is_begun.load(Ordering::Relaxed)
    }

    /// A part of the body is here: it moves, and nobody waits for the client.
    fn note_frame(&self) {
        self.is_awaited.store(false, Ordering::Relaxed);
        self.moved.store(true, Ordering::Relaxed);
    }

    /// How many bytes the client has sent.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// When the client had sent all of it; nothing before that, and where it is not
    /// [timed](Upload::timed).
    pub fn ended(&self) -> Option<Instant> {
        self.ended.get().copied()
    }

    /// Whether whoever takes the body waits for more of it from the client.
    pub fn is_awaited(&self) -> bool {
        self.is_awaited.load(Ordering::Relaxed)
    }
}

/// A request body as it comes in. hyper alone can make its own kind; whoever sends a request from
/// inside the gateway has bytes.
#[derive(Debug)]
pub enum Inbound {
    /// Read from a client's connection.
    Hyper(Incoming),
    /// All of it is here.
    Bytes(Bytes),
    /// One of the others, of which somebody gets a copy.
    Copied(Box<(Inbound, Tee)>),
    /// One of the others, of which somebody gets the digest.
    Digested(Box<(Inbound, Meter)>),
}

impl Inbound {
    /// The body; what is left is none.
    pub fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Bytes(Bytes::new()))
    }

    /// The same body, and what will be the copy of it if it has no more than `bytes_max` bytes.
    pub fn copied(self, bytes_max: usize) -> (Self, Copied) {
        let (tee, copied) = Tee::new(bytes_max);
        (Self::Copied(Box::new((self, tee))), copied)
    }

    /// The same body, and what will be the digest of what has passed `before` and of it.
    pub fn digested(self, before: Sha256) -> (Self, Digested) {
        let (meter, digested) = Meter::new(before, self.size_hint().exact());
        (Self::Digested(Box::new((self, meter))), digested)
    }
}

impl From<Incoming> for Inbound {
    fn from(incoming: Incoming) -> Self {
        Self::Hyper(incoming)
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Hyper(incoming) => Pin::new(incoming).poll_frame(cx),
            Self::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Copied(copied) => {
                let (source, tee) = &mut **copied;
                let frame = ready!(Pin::new(&mut *source).poll_frame(cx));
                if let Some(data) = frame.iter().flatten().find_map(Frame::data_ref) {
                    tee.keep(data);
                }
                // Not everybody reads on behind the last byte.
                if frame.is_none() || source.is_end_stream() {
                    tee.end();
                }
                Poll::Ready(frame)
            }
            Self::Digested(digested) => {
                let (source, meter) = &mut **digested;
                let frame = ready!(Pin::new(&mut *source).poll_frame(cx));
                if let Some(data) = frame.iter().flatten().find_map(Frame::data_ref) {
                    meter.add(data);
                }
                if frame.is_none() || source.is_end_stream() {
                    meter.end();
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Hyper(incoming) => incoming.is_end_stream(),
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Copied(copied) => copied.0.is_end_stream(),
            Self::Digested(digested) => digested.0.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Hyper(incoming) => incoming.size_hint(),
            Self::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Copied(copied) => copied.0.size_hint(),
            Self::Digested(digested) => digested.0.size_hint(),
        }
    }
}

/// A request body as the upstream connection reads it.
#[derive(Debug)]
pub struct Upload(Option<Box<Stream>>);

#[derive(Debug)]
struct Stream {
    inbound: Inbound,
    limits: UploadLimits,
    /// A streaming call may rest as long as its connection lives.
    may_rest: bool,
    /// Whether its end is noted.
    is_timed: bool,
    left: u64,
    /// The messages of a gRPC call, which are bounded each, and not together.
    messages: Option<Messages>,
    /// What undoes the base64 of gRPC-Web.
    decoder: Option<Decoder>,
    progress: Arc<Progress>,
    watch: Option<Watch>,
    /// What a client that expects a 100 waits for.
    wait: Option<Wait>,
    /// What was read before, and comes first again.
    ahead: VecDeque<Bytes>,
    /// What was read of it, where it may be wanted again.
    kept: Option<Kept>,
}

/// What was read of a body.
#[derive(Debug)]
struct Kept {
    /// What was read until the body was sent once more, each time.
    before: Vec<Bytes>,
    /// What was read since.
    copy: BoundedCopy,
    /// Where the body goes when whoever sent it has let it go.
    home: Weak<Mutex<Option<Box<Stream>>>>,
}

impl Kept {
    /// All that was read, in order; nothing where that was too much.
    fn all(&mut self) -> Option<VecDeque<Bytes>> {
        let since = self.copy.take()?;
        if !since.is_empty() {
            self.before.push(since);
        }
        Some(self.before.iter().cloned().collect())
    }
}

/// A body that can be had again from its begin, once whoever sent it has let it go.
#[derive(Debug)]
pub struct Replay(Arc<Mutex<Option<Box<Stream>>>>);

impl Replay {
    /// Whether it is here, and all of it.
    pub fn is_here(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The body.
    pub fn take(&self) -> Option<Upload> {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream.map(|stream| Upload(Some(stream)))
    }
}

/// The clock of a body that is being waited for.
#[derive(Debug)]
struct Watch {
    /// Fires no later than the pace demands.
    timer: Pin<Box<Sleep>>,
    pace: Pace,
}

impl Upload {
    /// No body.
    pub fn none() -> Self {
        Self(None)
    }

    /// The client's body. `may_rest` turns the progress watch off.
    pub fn new(inbound: Inbound, limits: UploadLimits, may_rest: bool) -> (Self, Arc<Progress>) {
        let progress = Arc::<Progress>::default();
        if inbound.is_end_stream() {
            return (Self::none(), progress);
        }
        let stream = Stream {
            inbound,
            limits,
            may_rest,
            is_timed: false,
            left: limits.bytes_max,
            messages: None,
            decoder: None,
            progress: Arc::clone(&progress),
            watch: None,
            wait: None,
            ahead: VecDeque::new(),
            kept: None,
        };
        (Self(Some(Box::new(stream))), progress)
    }

    /// What others may know of the body; nothing when there is none.
    pub fn progress(&self) -> Option<Arc<Progress>> {
        self.0.as_ref().map(|stream| Arc::clone(&stream.progress))
    }

    /// Has it noted when the client has sent all of it. Returns where; nothing when there is no
    /// body.
    pub fn timed(&mut self) -> Option<Arc<Progress>> {
        let stream = self.0.as_mut()?;
        stream.is_timed = true;
        // Others may have read it.
        stream.note_end(false);
        Some(Arc::clone(&stream.progress))
    }

    /// Leaves the body with its client until the upstream asks for it, for `timeout` at most. What
    /// is returned opens the way; nothing when there is no body.
    pub fn hold_back(&mut self, timeout: Duration) -> Option<Arc<Gate>> {
        let stream = self.0.as_mut()?;
        let (wait, gate) = Wait::new(timeout);
        stream.wait = Some(wait);
        Some(gate)
    }

    /// Bounds each message of a gRPC call by so many bytes, and not all of them together.
    pub fn bound_messages(&mut self, bytes_max: u64) {
        if let Some(stream) = &mut self.0 {
            stream.left = u64::MAX;
            stream.messages = Some(Messages::new(bytes_max));
        }
    }

    /// Undoes the base64 of a call of gRPC-Web.
    pub fn decode(&mut self) {
        if let Some(stream) = &mut self.0 {
            stream.decoder = Some(Decoder::default());
        }
    }

    /// Puts back all that was read of it: whoever reads next begins anew.
    pub fn put_back(&mut self, read: Bytes) {
        if let (Some(stream), false) = (&mut self.0, read.is_empty()) {
            stream.ahead.push_front(read);
        }
    }

    /// Keeps what is read of it, up to so many bytes, for sending it again. Nothing when there is
    /// no body.
    pub fn keep(&mut self, bytes_max: usize) -> Option<Replay> {
        let stream = self.0.as_mut()?;
        let home = Arc::default();
        let (before, copy) = (Vec::new(), BoundedCopy::new(bytes_max));
        stream.kept = Some(Kept { before, copy, home: Arc::downgrade(&home) });
        Some(Replay(home))
    }

    /// Whether there is a body at all.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl Drop for Upload {
    /// A body that is kept goes back to whoever may want it again, with all that was read of it.
    fn drop(&mut self) {
        let Some(mut stream) = self.0.take() else { return };
        let Some(kept) = &mut stream.kept else { return };
        if let Some(home) = kept.home.upgrade()
            && stream.progress.fault().is_none()
            && let Some(ahead) = kept.all()
        {
            stream.ahead = ahead;
            *home.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        }
    }
}

impl Stream {
    fn fail(&self, fault: UploadFault) -> UploadFault {
        // Only the first fault is the cause; the cell keeps that one.
        let _ = self.progress.fault.set(fault);
        fault
    }

    /// Notes when the client has sent all of it, where somebody wants to know: not everybody reads
    /// on behind the last byte.
    fn note_end(&self, is_over: bool) {
        if self.is_timed && (is_over || self.inbound.is_end_stream()) {
            self.progress.ended.get_or_init(Instant::now);
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UploadFault>>> {
        if let Some(data) = self.ahead.pop_front() {
            self.progress.note_frame();
            return Poll::Ready(Some(Ok(data)));
        }
        if let Some(wait) = &mut self.wait {
            ready!(wait.poll(cx));
            self.wait = None;
        }
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.inbound).poll_frame(cx) else {
                self.progress.is_awaited.store(true, Ordering::Relaxed);
                return self.poll_watch(cx).map(|fault| Some(Err(fault)));
            };
            self.progress.note_frame();
            let data = match frame {
                None if self.decoder.as_ref().is_some_and(Decoder::is_amid) => {
                    return Poll::Ready(Some(Err(self.fail(UploadFault::Broken))));
                }
                None => return Poll::Ready(None),
                Some(Err(_)) => return Poll::Ready(Some(Err(self.fail(UploadFault::Broken)))),
                // Trailers of a request reach no upstream: they could smuggle an identity past the
                // head's rules.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(_) => continue,
                },
            };
            let length = data.len() as u64;
            self.progress.received.fetch_add(length, Ordering::Relaxed);
            let data = match &mut self.decoder {
                None => data,
                Some(decoder) => match decoder.read(&data) {
                    Some(data) if data.is_empty() => continue,
                    Some(data) => data,
                    None => return Poll::Ready(Some(Err(self.fail(UploadFault::Broken)))),
                },
            };
            if length > self.left {
                return Poll::Ready(Some(Err(self.fail(UploadFault::TooLarge))));
            }
            self.left -= length;
            if self.messages.as_mut().is_some_and(|messages| messages.read(&data).is_err()) {
                return Poll::Ready(Some(Err(self.fail(UploadFault::MessageTooLarge))));
            }
            if let Some(watch) = &mut self.watch {
                watch.pace.arrived(length, Instant::now);
            }
            if let Some(kept) = &mut self.kept {
                kept.copy.add(&data);
            }
            return Poll::Ready(Some(Ok(data)));
        }
    }

    /// Ready when the body has been too slow.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<UploadFault> {
        if self.may_rest {
            return Poll::Pending;
        }
        let UploadLimits { progress_timeout: period, progress_bytes, .. } = self.limits;
        let now = Instant::now();
        let watch = self.watch.get_or_insert_with(|| Watch {
            timer: Box::pin(tokio::time::sleep(period)),
            pace: Pace::new(progress_bytes, period),
        });
        let left = watch.pace.left(now);
        loop {
            if left.is_zero() {
                return Poll::Ready(self.fail(UploadFault::Stalled));
            }
            // Mostly it sleeps until a time that was too early for what came since.
            ready!(watch.timer.as_mut().poll(cx));
            watch.timer.as_mut().reset(now + left);
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        match &mut self.0 {
            None => Poll::Ready(None),
            Some(stream) => {
                let data = ready!(stream.poll_data(cx));
                stream.note_end(data.is_none());
                if matches!(data, Some(Ok(_))) {
                    stream.progress.is_begun.store(true, Ordering::Relaxed);
                }
                Poll::Ready(data.map(|data| data.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let has_ended = |stream: &Stream| stream.ahead.is_empty() && stream.inbound.is_end_stream();
        self.0.as_deref().is_none_or(has_ended)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            None => SizeHint::with_exact(0),
            Some(stream) if stream.decoder.is_some() => SizeHint::default(),
            Some(stream) => {
                let rest = stream.inbound.size_hint();
                let ahead: u64 = stream.ahead.iter().map(|data| data.len() as u64).sum();
                rest.exact().map_or(rest, |rest| SizeHint::with_exact(rest.saturating_add(ahead)))
            }
        }
    }
}

#[cfg(test)]
mod tests;
