//! A response body on its way from the upstream: the connection moves along with it and returns to
//! the pool at its end.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::Place;
use super::link::Link;

/// A response body.
#[derive(Debug)]
pub struct Download {
    incoming: Incoming,
    /// The connection, until the body has ended.
    held: Option<(Box<Link>, Place)>,
    /// Whether trailers that carry a gRPC status are passed on.
    trailers: bool,
    /// Runs while the upstream pauses.
    pause: Option<Pin<Box<Sleep>>>,
}

/// Why a response body ended early. The client sees a cut-off message, never a clean end.
#[derive(Debug, thiserror::Error)]
pub enum DownloadFault {
    /// The upstream cut it off or broke its framing.
    #[error("the upstream cut the response off")]
    Broken(#[source] hyper::Error),
    /// It paused for longer than `read_timeout`.
    #[error("the upstream paused for longer than read_timeout")]
    Stalled,
}

impl Download {
    pub(super) fn new(incoming: Incoming, link: Box<Link>, place: Place, trailers: bool) -> Self {
        let mut download = Self { incoming, held: Some((link, place)), trailers, pause: None };
        download.release_at_end();
        download
    }

    /// Gives the connection back as soon as the last byte is here: nobody may poll a body beyond
    /// its known length.
    fn release_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.release();
        }
    }

    fn release(&mut self) {
        if let Some((link, place)) = self.held.take() {
            place.endpoint.checkin(link);
        }
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<DownloadFault> {
        let Some((_, place)) = &self.held else { return Poll::Pending };
        let timeout = place.read_timeout;
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        pause.as_mut().poll(cx).map(|()| DownloadFault::Stalled)
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = DownloadFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadFault>>> {
        let this = &mut *self;
        loop {
            // Frames come out of `drive` and from nowhere else, so nobody needs to be woken for
            // them.
            let mut nobody = Context::from_waker(Waker::noop());
            let mut frame = Pin::new(&mut this.incoming).poll_frame(&mut nobody);
            if frame.is_pending()
                && let Some((link, _)) = &mut this.held
            {
                // The body wants more: let the connection read, then look again.
                link.drive(cx);
                frame = Pin::new(&mut this.incoming).poll_frame(&mut nobody);
            }
            let Poll::Ready(frame) = frame else {
                return this.poll_pause(cx).map(|fault| Some(Err(fault)));
            };
            this.pause = None;
            match frame {
                None => {
                    this.release();
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    this.held = None;
                    return Poll::Ready(Some(Err(DownloadFault::Broken(error))));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        this.release_at_end();
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Err(frame) => {
                        let Ok(mut fields) = frame.into_trailers() else { continue };
                        crate::base::facts::keep_allowed_trailers(&mut fields);
                        this.release_at_end();
                        if this.trailers && !fields.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                        }
                    }
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
