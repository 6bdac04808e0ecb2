//! The rows of the table for log-ins at OpenID providers. What a stranger reads is the same for
//! whatever went wrong within the provider's answer: it may be his own.

use http::StatusCode;

use super::row::{Adds, Bound, Fault, Public, Row, UNREACHABLE};
use crate::oidc;

pub(super) fn oidc_row(fault: &oidc::Fault) -> Row<'_> {
    let row = |status, code, fault, text| {
        Row::new(status, code, fault, Public::Text(text)).adds(Adds::NoReferrer)
    };
    match fault {
        oidc::Fault::Malformed(_) => {
            let text = "This is no answer to a log-in: begin again.";
            row(StatusCode::BAD_REQUEST, "login_response_invalid", Fault::Client, text)
        }
        oidc::Fault::StateUnknown => {
            let text =
                "This log-in was begun by another browser, is over, or was used: begin again.";
            row(StatusCode::BAD_REQUEST, "login_state_unknown", Fault::Client, text)
        }
        oidc::Fault::OtherProvider | oidc::Fault::OtherIssuer => {
            let text = "This answer is of another provider than the log-in was begun at.";
            row(StatusCode::BAD_REQUEST, "login_mixed_up", Fault::Client, text)
        }
        oidc::Fault::Code(_) => {
            let text = "The provider does not know this code any more: begin again.";
            row(StatusCode::BAD_REQUEST, "login_code_invalid", Fault::Client, text)
        }
        oidc::Fault::Refused(_) => {
            let text = "The provider did not log you in.";
            row(StatusCode::FORBIDDEN, "login_refused", Fault::Client, text)
        }
        oidc::Fault::Answer(_) => {
            let text = "The provider's answer cannot be used.";
            row(StatusCode::BAD_GATEWAY, "provider_answer_invalid", Fault::Issuer, text)
        }
        oidc::Fault::Away(_) => {
            let text = UNREACHABLE;
            row(StatusCode::SERVICE_UNAVAILABLE, "provider_away", Fault::Issuer, text)
                .bound(Bound::Route("provider"))
        }
        oidc::Fault::Store(_) | oidc::Fault::NoRandomness => {
            let text = UNREACHABLE;
            row(StatusCode::SERVICE_UNAVAILABLE, "login_away", Fault::Store, text)
        }
        oidc::Fault::LogoutToken(_) => {
            let text = "The logout_token is not believed.";
            row(StatusCode::BAD_REQUEST, "logout_token_invalid", Fault::Client, text)
                .oauth(Some("invalid_request"))
        }
    }
}
