//! A body on its way through an encoder: in pieces, so that no response keeps a thread to itself,
//! and flushed when its source pauses, so that a reader sees what is there.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::time::{Instant, Sleep};

use super::accept::Coding;
use super::codec::Codec;

/// Most content that is compressed before others have a turn, in bytes.
const PIECE_BYTES: usize = 16 * 1024;
/// When the source has paused for so long, what it gave so far goes out.
const PAUSE: Duration = Duration::from_millis(5);

/// One body in a coding.
#[derive(Debug)]
pub struct Encoding {
    coding: Coding,
    /// None once it has said all.
    codec: Option<Codec>,
    /// What was read and is still to be compressed.
    content: Bytes,
    trailers: Option<HeaderMap>,
    /// What was compressed since others had a turn, in bytes.
    worked: usize,
    /// Whether the encoder holds back what it was given.
    holds: bool,
    /// Fires when the source has paused for long enough.
    pause: Option<Pin<Box<Sleep>>>,
    is_pausing: bool,
    /// Bytes of content and of what became of it, until they are counted.
    counts: (u64, u64),
}

impl Encoding {
    /// For content of `length` bytes, where that is known.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new(coding: Coding, length: Option<u64>) -> io::Result<Self> {
        Ok(Self {
            coding,
            codec: Some(Codec::new(coding, length)?),
            content: Bytes::new(),
            trailers: None,
            worked: 0,
            holds: false,
            pause: None,
            is_pausing: false,
            counts: (0, 0),
        })
    }

    /// The coding.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.codec.is_none() && self.trailers.is_none()
    }

    /// Bytes of content, and of what became of it, since the last call.
    pub fn take_counts(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.counts)
    }

    /// The next frame of the body that `source` gives the content of. An error of the source ends
    /// it where it is: a reader can tell from the coding that there should be more.
    pub fn poll_frame<E: From<io::Error>>(
        &mut self,
        cx: &mut Context<'_>,
        mut source: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>>,
    ) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        loop {
            let Some(codec) = &mut self.codec else {
                return Poll::Ready(self.trailers.take().map(|it| Ok(Frame::trailers(it))));
            };
            if self.worked >= PIECE_BYTES {
                self.worked = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let made = if !self.content.is_empty() {
                let length = self.content.len().min(PIECE_BYTES - self.worked);
                let piece = self.content.split_to(length);
                self.worked += length;
                self.holds = true;
                self.counts.0 += length as u64;
                codec.write(&piece)
            } else if self.trailers.is_some() {
                self.finish()
            } else {
                match source(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        self.is_pausing = false;
                        match frame.into_data() {
                            Ok(data) => self.content = data,
                            Err(frame) => self.trailers = frame.into_trailers().ok(),
                        }
                        continue;
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                    Poll::Ready(None) => self.finish(),
                    Poll::Pending if self.holds => {
                        ready!(self.poll_pause(cx));
                        self.flush()
                    }
                    Poll::Pending => return Poll::Pending,
                }
            };
            match made {
                Ok(made) if made.is_empty() => {}
                Ok(made) => {
                    self.counts.1 += made.len() as u64;
                    return Poll::Ready(Some(Ok(Frame::data(made))));
                }
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    fn finish(&mut self) -> io::Result<Bytes> {
        self.codec.take().map_or_else(|| Ok(Bytes::new()), Codec::finish)
    }

    fn flush(&mut self) -> io::Result<Bytes> {
        self.holds = false;
        self.codec.as_mut().map_or_else(|| Ok(Bytes::new()), Codec::flush)
    }

    /// Ready when the source has paused for long enough.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let end = Instant::now() + PAUSE;
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        if !self.is_pausing {
            self.is_pausing = true;
            pause.as_mut().reset(end);
        }
        pause.as_mut().poll(cx)
    }
}
