//! A response body on its way from the upstream: the connection moves along with it and returns to
//! the pool at its end.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Response};
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
    /// What was here along with the head.
    first: Option<First>,
}

/// A frame that came along with the head; small, because most responses have one and move.
#[derive(Debug)]
enum First {
    Data(Bytes),
    Trailers(Box<HeaderMap>),
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
        let held = Some((link, place));
        let mut download = Self { incoming, held, trailers, pause: None, first: None };
        download.release_at_end();
        download
    }

    /// Takes what is here of the body, and waits for nothing. A body that has broken off before its
    /// first byte is found out while the client can still be told.
    fn begin(&mut self, cx: &mut Context<'_>) -> Result<(), DownloadFault> {
        if !self.incoming.is_end_stream()
            && let Poll::Ready(Some(first)) = self.poll_incoming(cx)
        {
            self.first = match first?.into_data() {
                Ok(data) => Some(First::Data(data)),
                Err(other) => {
                    other.into_trailers().ok().map(|fields| First::Trailers(Box::new(fields)))
                }
            };
        }
        Ok(())
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

    /// The next piece, if it is here already.
    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadFault>>> {
        loop {
            // Frames come out of `drive` and from nowhere else, so nobody needs to be woken for
            // them.
            let mut nobody = Context::from_waker(Waker::noop());
            let mut frame = Pin::new(&mut self.incoming).poll_frame(&mut nobody);
            if frame.is_pending()
                && let Some((link, _)) = &mut self.held
            {
                // The body wants more: let the connection read, then look again.
                link.drive(cx);
                frame = Pin::new(&mut self.incoming).poll_frame(&mut nobody);
            }
            match std::task::ready!(frame) {
                None => {
                    self.release();
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    self.held = None;
                    return Poll::Ready(Some(Err(DownloadFault::Broken(error))));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.release_at_end();
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Err(frame) => {
                        let Ok(mut fields) = frame.into_trailers() else { continue };
                        crate::base::facts::keep_allowed_trailers(&mut fields);
                        self.release_at_end();
                        if self.trailers && !fields.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                        }
                    }
                },
            }
        }
    }
}

/// Looks at what came along with the head of a response, and waits for nothing.
///
/// # Errors
/// [`DownloadFault`] when its body has broken off before the first byte.
pub(super) async fn begun(response: &mut Response<Download>) -> Result<(), DownloadFault> {
    std::future::poll_fn(|cx| Poll::Ready(response.body_mut().begin(cx))).await
}

impl Body for Download {
    type Data = Bytes;
    type Error = DownloadFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadFault>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(match first {
                First::Data(data) => Frame::data(data),
                First::Trailers(fields) => Frame::trailers(*fields),
            })));
        }
        match self.poll_incoming(cx) {
            Poll::Ready(frame) => {
                self.pause = None;
                Poll::Ready(frame)
            }
            Poll::Pending => self.poll_pause(cx).map(|fault| Some(Err(fault))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = match &self.first {
            Some(First::Data(data)) => data.len() as u64,
            Some(First::Trailers(_)) | None => 0,
        };
        let rest = self.incoming.size_hint();
        rest.exact().map_or(rest, |rest| SizeHint::with_exact(rest.saturating_add(first)))
    }
}
