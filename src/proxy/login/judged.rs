//! What another site may have sent, counted.

use crate::observe::LoginOutcome;
use crate::proxy::rejection::Rejection;
use crate::proxy::request::Request;
use crate::session::CrossSite;

/// Counts a refusal.
pub(super) fn counted(
    request: &Request<'_>,
    judged: Result<(), CrossSite>,
) -> Result<(), Rejection> {
    judged.map_err(|why| {
        request.gateway().observer.metrics.identity().login(LoginOutcome::CrossSite);
        why.into()
    })
}
