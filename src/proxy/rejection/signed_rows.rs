//! The rows of the table for tokens of the gateway's own: those that it exchanges (RFC 6749 §5.2),
//! and those by which upstreams learn who calls.

use http::StatusCode;

use super::row::{Bound, Fault, Public, Row, UNREACHABLE};
use crate::signing::Refused;

/// A fault in the service itself, which no retry mends, as gRPC tells it.
const GRPC_INTERNAL: u16 = 13;

pub(super) fn not_asserted_row() -> Row<'static> {
    let text = Public::Text("What is known of you cannot be told to the service.");
    Row::new(StatusCode::INTERNAL_SERVER_ERROR, "assertion_failed", Fault::Gateway, text)
        .bound(Bound::Route("assertion"))
        .in_grpc(Some(GRPC_INTERNAL))
}

pub(super) fn refresh_row(refused: &Refused) -> Row<'static> {
    let row = |status, code, text| {
        Row::new(status, code, Fault::Client, Public::Text(text)).oauth(refused.oauth())
    };
    match refused {
        Refused::Malformed(_) => {
            let public = Public::Itself;
            Row::new(StatusCode::BAD_REQUEST, "refresh_request_invalid", Fault::Client, public)
                .oauth(refused.oauth())
        }
        Refused::GrantType => {
            let text = "Send grant_type=refresh_token: there is no other.";
            row(StatusCode::BAD_REQUEST, "grant_type_unsupported", text)
        }
        Refused::Invalid => {
            let text = "The refresh token is unknown or too old: log in again.";
            row(StatusCode::BAD_REQUEST, "refresh_token_invalid", text)
        }
        Refused::Reused => {
            let text = "The refresh token was used before: log in again.";
            row(StatusCode::BAD_REQUEST, "refresh_token_reused", text)
        }
        Refused::Revoked => {
            let text = "The refresh token was revoked: log in again.";
            row(StatusCode::BAD_REQUEST, "refresh_token_revoked", text)
        }
        Refused::Away(_) => {
            let text = Public::Text(UNREACHABLE);
            Row::new(StatusCode::SERVICE_UNAVAILABLE, "refresh_away", Fault::Store, text)
        }
    }
}
