//! Requests that wait or fail on purpose, for those who test what becomes of that.

use super::rejection::Rejection;
use super::request::Request;
use crate::config::Faults;
use crate::traffic::is_drawn;

/// Has a request wait, or fail, if it may be chosen for that and is drawn.
///
/// # Errors
/// It is to fail.
pub(super) async fn inject(request: &Request<'_>, faults: &Faults) -> Result<(), Rejection> {
    let address = request.client().address.ip();
    if !faults.allow_from.iter().any(|network| network.contains(&address)) {
        return Ok(());
    }
    if is_drawn(faults.delay) {
        tokio::time::sleep(faults.delay_time).await;
    }
    if is_drawn(faults.abort) { Err(Rejection::Injected(faults.status)) } else { Ok(()) }
}
