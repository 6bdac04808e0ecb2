//! The rows of the table for requests that are delivered later.

use http::StatusCode;

use super::row::{Adds, Bound, Fault, Public, Row};
use super::rows::UNREACHABLE;
use crate::deliver::Refused;

pub(super) fn delivery_row(refused: &Refused) -> Row<'static> {
    let client = |status, code, text| Row::new(status, code, Fault::Client, Public::Text(text));
    let store = |code, text| {
        Row::new(StatusCode::SERVICE_UNAVAILABLE, code, Fault::Store, Public::Text(text))
    };
    match refused {
        Refused::Full { retry_after } => {
            store("queue_full", "Too much waits to be delivered already. Retry later.")
                .bound(Bound::Route("deliver.queue"))
                .adds(Adds::RetryAfter(*retry_after))
        }
        Refused::Away(_) => store("queue_away", UNREACHABLE),
        Refused::Unsafe(_) => store("queue_store_unsafe", UNREACHABLE),
        Refused::InDoubt => {
            let text = "The request is queued, and may be lost. Retry with the same \
                        Idempotency-Key.";
            store("delivery_in_doubt", text)
        }
        Refused::KeyMissing => {
            let text = "Send an Idempotency-Key, one for each thing that is to be done once.";
            client(StatusCode::BAD_REQUEST, "idempotency_key_missing", text)
                .bound(Bound::Route("deliver.key"))
        }
        Refused::KeyInvalid(_) => {
            let text = "The Idempotency-Key must be 1 to 255 visible characters, and one field.";
            client(StatusCode::BAD_REQUEST, "idempotency_key_invalid", text)
        }
        Refused::KeyReused => {
            let text = "The Idempotency-Key was sent with another request before. Take a new one.";
            client(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", text)
        }
        Refused::Time(_) => {
            let row = |text| {
                Row::new(StatusCode::BAD_REQUEST, "delivery_time_invalid", Fault::Client, text)
            };
            row(Public::Itself).bound(Bound::Route("deliver.max_delay"))
        }
        Refused::NotFound => {
            let text = "There is no such delivery, or it is another caller's.";
            client(StatusCode::NOT_FOUND, "delivery_not_found", text)
        }
        Refused::NotKept => {
            let text = "No answer to this delivery is kept.";
            client(StatusCode::NOT_FOUND, "delivery_response_not_kept", text)
        }
        Refused::InProgress => {
            let text = "The delivery is in progress.";
            let soon = std::time::Duration::from_secs(1);
            client(StatusCode::CONFLICT, "delivery_in_progress", text).adds(Adds::RetryAfter(soon))
        }
        Refused::Ended => {
            let text = "The delivery has ended, and cannot be cancelled any more.";
            client(StatusCode::CONFLICT, "delivery_ended", text)
        }
    }
}
