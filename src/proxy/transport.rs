//! The way of the cache's requests to the upstream.

use std::sync::Arc;

use http::Response;

use super::dispatch::Dispatch;
use super::edge::TimeLeft;
use super::mirror::Mirrored;
use super::pools;
use super::request::Request;
use crate::base::body::Upload;
use crate::caching::Transport;
use crate::observe::Took;
use crate::upstream::{Download, Failure};

/// See the module.
pub(super) struct CacheTransport<'t> {
    dispatch: Dispatch,
    /// The mark of whoever has written, where readers are asked.
    anybody: Option<Arc<str>>,
    /// The copy that leaves with the request, which may never leave.
    mirrored: Option<Box<Mirrored>>,
    /// The request waits: for others, and for another attempt.
    time_left: Option<Box<TimeLeft>>,
    /// Where it is written how long the upstream took.
    took: Option<&'t mut Option<Took>>,
}

impl<'t> CacheTransport<'t> {
    /// For a client that waits.
    pub(super) fn new(
        request: &Request<'_>,
        dispatch: Dispatch,
        took: &'t mut Option<Took>,
    ) -> Self {
        Self::of(request, dispatch, Some(took))
    }

    /// For a stored response that is fetched anew.
    pub(super) fn in_background(request: &Request<'_>) -> Self {
        Self::of(request, Dispatch::in_background(request), None)
    }

    fn of(
        request: &Request<'_>,
        mut dispatch: Dispatch,
        took: Option<&'t mut Option<Took>>,
    ) -> Self {
        dispatch.is_stored();
        let anybody = if dispatch.asks_readers() { pools::anybody(request) } else { None };
        let (mirrored, time_left) = (Mirrored::of(request), TimeLeft::of(request));
        Self { dispatch, anybody, mirrored, time_left, took }
    }
}

impl Transport for CacheTransport<'_> {
    async fn send(
        &mut self,
        request: http::Request<()>,
    ) -> Result<Response<Box<Download>>, Failure> {
        if let Some(mirrored) = self.mirrored.take() {
            mirrored.leaves(&request);
        }
        let mut unheeded = None;
        let took = self.took.as_deref_mut().unwrap_or(&mut unheeded);
        let time_left = self.time_left.as_deref();
        let head = || {
            let mut head = request.clone();
            if let Some(time_left) = time_left {
                time_left.stamp(head.headers_mut());
            }
            head
        };
        self.dispatch.send(head, Upload::none(), took).await
    }

    fn stored_unless(&self) -> Option<Arc<str>> {
        self.anybody.as_ref().filter(|_| self.dispatch.asks_readers()).cloned()
    }
}
