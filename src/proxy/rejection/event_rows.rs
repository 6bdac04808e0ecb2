//! The rows of the table for requests that bring events.

use http::StatusCode;

use super::row::{Bound, Fault, Public, Row, UNREACHABLE};
use crate::events::Refused;

pub(super) fn event_row(refused: &Refused) -> Row<'static> {
    let row = |status, code, text| {
        Row::new(status, code, Fault::Client, Public::Text(text)).bound(Bound::Route("events"))
    };
    match refused {
        Refused::Incomplete(_) => {
            let text = "Send webhook-id, webhook-timestamp and webhook-signature, each once.";
            row(StatusCode::UNAUTHORIZED, "event_unsigned", text)
        }
        Refused::Stale(_) => {
            let text = "The webhook-timestamp must be within five minutes of now.";
            row(StatusCode::UNAUTHORIZED, "event_timestamp_invalid", text)
        }
        Refused::Signature => {
            let text = "No webhook-signature is by one who may sign.";
            row(StatusCode::UNAUTHORIZED, "event_signature_invalid", text)
        }
        Refused::Away(_) => {
            let text = Public::Text(UNREACHABLE);
            Row::new(StatusCode::SERVICE_UNAVAILABLE, "events_away", Fault::Store, text)
        }
    }
}
