//! One exchange on one connection: the request goes out, and a response that can be passed on comes
//! back.

use std::task::Poll;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};

use super::body::Body;
use super::h1::{Connection, Unanswered};
use super::head;
use crate::base::body::Upload;

/// Sends the request and returns once the head of its response is there. The body brings the
/// connection along. `upgrades`: the request asks for another protocol, so a 101 is an answer.
///
/// # Errors
/// [`Unanswered`]; the connection is closed then. Of what was not written, the request is put back.
pub(in crate::upstream) async fn exchange(
    mut connection: Box<Connection>,
    request: &mut Option<Request<Upload>>,
    timeout: Duration,
    upgrades: bool,
) -> Result<Response<Body>, Unanswered> {
    let is_head = request.as_ref().is_some_and(|request| *request.method() == Method::HEAD);
    let mut response = connection.send(request, timeout).await?;
    if upgrades && response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response.map(|incoming| Body::switched(incoming, connection)));
    }
    let said = head::settle(&mut response).map_err(Unanswered::Malformed)?;
    if said.is_http_10 {
        connection.is_of_an_old_server();
    }
    let trailers = said.has_grpc_trailers && !is_head;
    let mut response = response.map(|incoming| Body::new(incoming, connection, trailers));
    let begin = std::future::poll_fn(|cx| Poll::Ready(response.body_mut().begin(cx)));
    begin.await.map_err(Unanswered::CutOff)?;
    Ok(response)
}
