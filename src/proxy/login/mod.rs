//! Log-ins and log-outs: what an upstream's answer gives to whoever has logged in, what a session
//! says to its own browser, and its end.

mod issue;
mod judged;
mod logout;
mod told;

use http::Response;
use http::request::Parts;

use super::content::Content;
use super::rejection::Rejection;
use super::request::Request;
use crate::plan::{Given, Issue, LoginAnswer};
use crate::session::CrossSite;

pub(super) use self::issue::issue;
use self::judged::counted;

/// What the answers of the route's upstream give; nothing on most routes.
pub(super) fn issues<'a>(request: &Request<'a>) -> Option<&'a Issue> {
    request.route.edge.as_deref()?.issues()
}

/// Whether whoever sends a request may log a browser in: a page of another site would log its
/// visitor in as somebody else.
///
/// # Errors
/// Another site may have sent it.
pub(super) fn may_log_in(request: &Request<'_>, head: &Parts) -> Result<(), Rejection> {
    counted(request, judge_log_in(request, head))
}

/// The same, of which nothing is counted.
///
/// # Errors
/// Another site may have sent it.
pub(super) fn judge_log_in(request: &Request<'_>, head: &Parts) -> Result<(), CrossSite> {
    let gives_session = issues(request).is_some_and(|it| matches!(it.given, Given::Session));
    if !gives_session || !request.route.written.login.refuses_others() {
        return Ok(());
    }
    let sender = request.sender(head);
    if sender.may_change() { sender.judge_log_in(request.csrf_origins()) } else { Ok(()) }
}

/// What the gateway itself answers.
///
/// # Errors
/// There is no session, or the store does not answer.
pub(super) async fn answer(
    request: &Request<'_>,
    answers: &LoginAnswer,
    head: &Parts,
) -> Result<Response<Content>, Rejection> {
    match answers {
        LoginAnswer::Session => told::tell(request).await,
        LoginAnswer::Logout { then, clear_site_data } => {
            logout::log_out(request, head, (then.as_ref(), *clear_site_data)).await
        }
    }
}
