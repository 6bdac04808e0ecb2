//! One exchange on one connection: the request goes out, and a response that can be passed on comes
//! back.

use std::task::Poll;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};

use super::body::Body;
use super::branch;
use super::h1::Connection;
use super::head;
use super::trunk::Seat;
use super::unanswered::Unanswered;
use crate::base::body::Upload;
use crate::upstream::outgoing::OnInterim;

/// What carries one exchange.
#[derive(Debug)]
pub(in crate::upstream) enum Carrier {
    /// An HTTP/1.1 connection, for as long as the exchange takes.
    Link(Box<Connection>),
    /// A stream of an HTTP/2 connection.
    Branch(Seat),
}

impl Carrier {
    /// Whether its connection has served a request before.
    pub(in crate::upstream) fn is_reused(&self) -> bool {
        match self {
            Self::Link(connection) => connection.is_reused(),
            Self::Branch(seat) => seat.is_reused(),
        }
    }
}

/// Sends the request and returns once the head of its response is there. The body brings the
/// connection along. `upgrades`: the request asks for another protocol, so a 101 is an answer.
///
/// # Errors
/// [`Unanswered`]; an HTTP/1.1 connection is closed then. Of what nobody has read, the request is
/// put back.
pub(in crate::upstream) async fn exchange(
    carrier: Carrier,
    request: &mut Option<Request<Upload>>,
    on_interim: Option<&impl OnInterim>,
    timeout: Duration,
    upgrades: bool,
) -> Result<Response<Body>, Unanswered> {
    let mut connection = match carrier {
        Carrier::Link(connection) => connection,
        // Boxed, so that the future of an exchange over HTTP/1.1 is no larger for it.
        Carrier::Branch(seat) => {
            return Box::pin(branch::exchange(seat, request, on_interim, timeout)).await;
        }
    };
    let is_head = request.as_ref().is_some_and(|request| *request.method() == Method::HEAD);
    if let (Some(request), Some(on_interim)) = (request.as_mut(), on_interim.cloned()) {
        // hyper drops interim responses otherwise.
        hyper::ext::on_informational(request, move |interim| {
            on_interim(interim.status(), interim.headers());
        });
    }
    let mut response = connection.send(request, timeout).await?;
    if upgrades && response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response.map(|incoming| Body::switched(incoming, connection)));
    }
    let said = head::settle(&mut response).map_err(Unanswered::Malformed)?;
    if said.is_http_10 {
        connection.is_of_an_old_server();
    }
    let trailers = said.has_grpc_trailers && !is_head;
    let mut response = response.map(|incoming| Body::link(incoming, connection, trailers));
    let begin = std::future::poll_fn(|cx| Poll::Ready(response.body_mut().begin(cx)));
    begin.await.map_err(Unanswered::CutOff)?;
    Ok(response)
}
