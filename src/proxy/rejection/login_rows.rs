//! The rows of the table for sessions that the gateway makes: requests of other sites, and log-ins
//! that come to nothing.

use http::StatusCode;

use super::row::{Bound, Fault, Public, Row, UNREACHABLE};
use crate::runtime::NotMade;

pub(super) fn cross_site_row() -> Row<'static> {
    let text = "This request may come from another site. Send it from a page of this one, or with \
                the session's x-csrf-token.";
    let public = Public::Text(text);
    Row::new(StatusCode::FORBIDDEN, "cross_site_request", Fault::Client, public)
        .key("session.make.csrf_origins")
}

pub(super) fn not_logged_in_row(fault: &NotMade) -> Row<'_> {
    match fault {
        NotMade::Unusable(_) => {
            let text = Public::Text("The service's answer to the log-in cannot be used.");
            Row::new(StatusCode::BAD_GATEWAY, "login_answer_invalid", Fault::Upstream, text)
                .bound(Bound::Route("issues"))
        }
        NotMade::Away(_) => {
            let text = Public::Text(UNREACHABLE);
            Row::new(StatusCode::SERVICE_UNAVAILABLE, "login_away", Fault::Store, text)
        }
    }
}
