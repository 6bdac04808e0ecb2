//! How requests end, and what stays charged for them.

use super::deliver::Answer;
use super::rejection::Rejection;
use super::request::Request;
use crate::limit::{Outcome, Receipt};

/// However a request ended, its end decides what stays charged to the limits that look at it.
pub(super) fn settle(request: &Request<'_>, receipt: Option<Receipt<'_>>, outcome: &Outcome<'_>) {
    if let Some(receipt) = receipt {
        request.gateway().limits.correct(receipt.settle(outcome));
    }
}

/// The end of a request that was refused.
pub(super) fn refused(rejection: &Rejection) -> Outcome<'static> {
    Outcome {
        status: rejection.status(),
        headers: None,
        failed: matches!(rejection, Rejection::Upstream(_)),
        cached: false,
    }
}

/// How a request ended, as far as limits look at that.
pub(super) fn ended(outcome: &Result<Answer, Rejection>) -> Outcome<'_> {
    match outcome {
        Ok(Answer { response, is_stored, .. }) => Outcome {
            status: response.status(),
            headers: Some(response.headers()),
            failed: response.status().is_server_error(),
            cached: *is_stored,
        },
        Err(rejection) => refused(rejection),
    }
}
