//! Requests that wait or fail on purpose, for those who test what becomes of that.

use super::rejection::Rejection;
use super::request::Request;
use crate::config::Faults;
use crate::traffic::is_drawn;

/// Has a request wait, if it may be chosen for that and is drawn.
pub(super) async fn delay(request: &Request<'_>, faults: &Faults) {
    if may_be_chosen(request, faults) && is_drawn(faults.delay) {
        tokio::time::sleep(faults.delay_time).await;
    }
}

/// Has a request fail, if it may be chosen for that and is drawn.
///
/// # Errors
/// It is to fail.
pub(super) fn abort(request: &Request<'_>, faults: &Faults) -> Result<(), Rejection> {
    if may_be_chosen(request, faults) && is_drawn(faults.abort) {
        return Err(Rejection::Injected(faults.status));
    }
    Ok(())
}

fn may_be_chosen(request: &Request<'_>, faults: &Faults) -> bool {
    let address = request.client().address.ip();
    faults.allow_from.iter().any(|network| network.contains(&address))
}
