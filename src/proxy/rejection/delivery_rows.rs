//! The rows of the table for requests that are delivered later.

use std::time::Duration;

use http::StatusCode;

use super::row::Fault::{Client, Store, Upstream};
use super::row::{Adds, Bound, Public, Row, UNREACHABLE};
use crate::deliver::Refused;

/// When it is worth asking again for what is under way.
const SOON: Duration = Duration::from_secs(1);

const IN_DOUBT: &str = "The request is queued, and might be lost. Retry with the same \
                        Idempotency-Key.";
const NOT_KEPT: &str = "No answer to this delivery is kept.";
const ENDED: &str = "The delivery has ended, and cannot be cancelled any more.";

pub(super) fn delivery_row(refused: &Refused) -> Row<'static> {
    let row = |status, code, fault, text| Row::new(status, code, fault, Public::Text(text));
    let unavailable = |code, fault, text| row(StatusCode::SERVICE_UNAVAILABLE, code, fault, text);
    match refused {
        Refused::Full { retry_after } => {
            let text = "Too much waits to be delivered already. Retry later.";
            unavailable("queue_full", Store, text)
                .bound(Bound::Route("deliver.queue"))
                .adds(Adds::RetryAfter(*retry_after))
        }
        Refused::Away(_) => unavailable("queue_away", Store, UNREACHABLE),
        Refused::Unsafe(_) | Refused::NoDisk => {
            unavailable("queue_store_unsafe", Store, UNREACHABLE)
        }
        Refused::InDoubt => unavailable("delivery_in_doubt", Store, IN_DOUBT),
        Refused::StreamFull(_) => {
            let text = "Too much is stored already. Retry later.";
            unavailable("queue_full", Upstream, text)
                .bound(Bound::Route("deliver.jetstream"))
                .adds(Adds::RetryAfter(SOON))
        }
        Refused::StreamAway { .. } => unavailable("queue_away", Upstream, UNREACHABLE),
        Refused::StreamSilent(_) => {
            let text = "The request may be queued. Retry with the same Idempotency-Key.";
            unavailable("delivery_in_doubt", Upstream, text)
        }
        Refused::KeyMissing => {
            let text = "Send an Idempotency-Key, one for each thing that is to be done once.";
            row(StatusCode::BAD_REQUEST, "idempotency_key_missing", Client, text)
                .bound(Bound::Route("deliver.key"))
        }
        Refused::KeyInvalid(_) => {
            let text = "The Idempotency-Key must be 1 to 255 visible characters, and one field.";
            row(StatusCode::BAD_REQUEST, "idempotency_key_invalid", Client, text)
        }
        Refused::KeyReused => {
            let text = "The Idempotency-Key was sent with another request before. Take a new one.";
            row(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", Client, text)
        }
        Refused::Time(_) => {
            let public = Public::Itself;
            Row::new(StatusCode::BAD_REQUEST, "delivery_time_invalid", Client, public)
                .bound(Bound::Route("deliver.max_delay"))
        }
        Refused::NotFound => {
            let text = "There is no such delivery, or it is another caller's.";
            row(StatusCode::NOT_FOUND, "delivery_not_found", Client, text)
        }
        Refused::NotKept => {
            row(StatusCode::NOT_FOUND, "delivery_response_not_kept", Client, NOT_KEPT)
        }
        Refused::InProgress => {
            let text = "The delivery is in progress.";
            row(StatusCode::CONFLICT, "delivery_in_progress", Client, text)
                .adds(Adds::RetryAfter(SOON))
        }
        Refused::Ended => row(StatusCode::CONFLICT, "delivery_ended", Client, ENDED),
    }
}
