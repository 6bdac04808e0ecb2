//! The table: one row for each refusal, by kind. No arm stands for what it does not name.

use std::time::Duration;

use http::StatusCode;

use super::delivery_rows::delivery_row;
use super::event_rows::event_row;
use super::kind::Rejection;
use super::login_rows::{cross_site_row, not_logged_in_row};
use super::oidc_rows::oidc_row;
use super::row::{Adds, Bound, Fault, Public, Row, UNREACHABLE};
use super::signed_rows::{not_asserted_row, refresh_row};
use crate::auth::{Denied, KeyFault, ProofFault, Reason};
use crate::base::body::UploadFault;
use crate::base::grpc;
use crate::guard::{BadHandshake, Malformed};
use crate::idempotency::NotOnce;
use crate::limit::Exceeded;
use crate::route::NoRoute;
use crate::session::NoSession;
use crate::tunnel::End;
use crate::upstream::Failure;

/// A fault in the service itself, which no retry mends.
const GRPC_INTERNAL: u16 = 13;

/// What a stranger reads of an upstream's failure.
const UNUSABLE: &str = "The service behind the gateway did not give a usable answer.";

impl Rejection {
    /// The table. What is wrong with a token or an API key has one of its own in `auth`.
    pub(super) fn row(&self) -> Row<'_> {
        use Fault::{Client, Store};
        use Public::Text;
        match self {
            Self::Malformed(malformed) => malformed_row(*malformed).spoils_connection(),
            Self::NoRoute(no_route) => no_route_row(no_route),
            Self::Misdirected => {
                const TEXT: &str =
                    "Ask for this host on a connection of its own: it has other rules for TLS.";
                Row::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", Client, Text(TEXT))
            }
            Self::Loop => {
                let text = Text("The request goes round in a circle.");
                Row::new(StatusCode::LOOP_DETECTED, "loop_detected", Fault::Gateway, text)
                    .key("server.via")
                    .in_grpc(Some(GRPC_INTERNAL))
            }
            Self::Injected(status) => {
                let text = Text("The gateway was told to fail this request, for a test.");
                let row = Row::new(*status, "fault_injected", Fault::Gateway, text);
                row.bound(Bound::Route("faults.abort"))
            }
            Self::ForeignPage(_) => {
                let row = Row::new(StatusCode::FORBIDDEN, "origin_refused", Client, Public::Itself);
                row.bound(Bound::Route("cors.origins"))
            }
            Self::Denied(denied) => denied_row(denied),
            Self::RevocationUnknown(_) => {
                let text = Text(UNREACHABLE);
                Row::new(StatusCode::SERVICE_UNAVAILABLE, "revocation_unknown", Store, text)
                    .key("store.on_outage.revocation")
            }
            Self::Exceeded(exceeded) => exceeded_row(exceeded),
            Self::NoSession { why, takes_credentials } => session_row(why, *takes_credentials),
            Self::NotOnce(not_once) => not_once_row(not_once),
            Self::OnlyIfCached => not_cached_row(),
            Self::CacheLost => {
                let text = Text("A stored response was evicted while it was used. Retry.");
                Row::new(StatusCode::BAD_GATEWAY, "cache_chunk_lost", Store, text)
            }
            Self::Upload(fault) => upload_row(fault).spoils_connection(),
            Self::DeadlineExceeded { is_clients } => deadline_row(*is_clients),
            Self::CallIdle => idle_row(),
            Self::CallEnded(end) => ended_row(*end),
            Self::Upstream(failure) => upstream_row(failure),
            Self::Delivery(refused) => delivery_row(refused),
            Self::Event(refused) => event_row(refused),
            Self::NotAsserted(_) => not_asserted_row(),
            Self::Refresh(refused) => refresh_row(refused),
            Self::CrossSite(_) => cross_site_row(),
            Self::NotLoggedIn(fault) => not_logged_in_row(fault),
            Self::Oidc(fault) => oidc_row(fault),
            Self::Handshake(bad) => handshake_row(*bad).spoils_connection(),
            Self::UpgradeRefused(_) => {
                let text = Text(UNUSABLE);
                Row::new(StatusCode::BAD_GATEWAY, "upgrade_refused", Fault::Upstream, text)
                    .spoils_connection()
            }
        }
    }
}

fn not_cached_row() -> Row<'static> {
    let text = Public::Text("No cached response; retry without only-if-cached.");
    Row::new(StatusCode::GATEWAY_TIMEOUT, "not_cached", Fault::Client, text)
}

fn no_route_row(no_route: &NoRoute) -> Row<'_> {
    match no_route {
        NoRoute::NotFound => {
            let text = Public::Text("Nothing is served at this host and path.");
            Row::new(StatusCode::NOT_FOUND, "route_not_found", Fault::Client, text)
        }
        NoRoute::MethodNotAllowed { allow } => {
            let text = Public::Accepts(allow);
            Row::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", Fault::Client, text)
                .adds(Adds::Allow(allow))
        }
    }
}

fn exceeded_row(exceeded: &Exceeded) -> Row<'_> {
    match exceeded {
        Exceeded::Limit { limit, retry_after, quota, .. } => {
            let text = Public::RetryIn(limit, *retry_after);
            Row::new(StatusCode::TOO_MANY_REQUESTS, "limit_exceeded", Fault::Client, text)
                .adds(Adds::Quota(quota, *retry_after))
        }
        Exceeded::Blocked => {
            let text = Public::Text("This address may not use the service.");
            Row::new(StatusCode::FORBIDDEN, "address_blocked", Fault::Client, text)
                .bound(Bound::Block)
        }
        Exceeded::Unknown(_) => {
            let text = Public::Text(UNREACHABLE);
            Row::new(StatusCode::SERVICE_UNAVAILABLE, "limit_unknown", Fault::Store, text)
                .key("store.on_outage.limits")
        }
    }
}

fn malformed_row(malformed: Malformed) -> Row<'static> {
    let row = |status, code| Row::new(status, code, Fault::Client, Public::Itself);
    match malformed {
        Malformed::Host => row(StatusCode::BAD_REQUEST, "host_invalid"),
        Malformed::Authority => row(StatusCode::BAD_REQUEST, "authority_mismatch"),
        Malformed::TargetForm => row(StatusCode::BAD_REQUEST, "target_invalid"),
        Malformed::Path(what) => {
            let row = row(StatusCode::BAD_REQUEST, "path_invalid");
            if what.contains("%2F") { row.key("server.limits.encoded_slash") } else { row }
        }
        Malformed::TransferEncoding => row(StatusCode::BAD_REQUEST, "transfer_encoding_invalid"),
        Malformed::ContentLength => row(StatusCode::BAD_REQUEST, "content_length_invalid"),
        Malformed::Expectation => row(StatusCode::EXPECTATION_FAILED, "expectation_failed"),
        Malformed::TooManyHeaders => {
            row(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_many")
                .key("server.limits.headers")
        }
        Malformed::BodyTooLarge => {
            row(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large").bound(Bound::Body)
        }
        Malformed::MethodRefused => row(StatusCode::METHOD_NOT_ALLOWED, "method_refused")
            .adds(Adds::Allow("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")),
    }
}

fn denied_row(denied: &Denied) -> Row<'_> {
    let text = denied.public();
    let row = |fault| Row::new(denied.status(), denied.code(), fault, Public::Text(text));
    let refused = row(Fault::Client).adds(Adds::Challenge(denied));
    match denied {
        // No credentials would help.
        Denied::KeysUnavailable(name) => row(Fault::Issuer).bound(Bound::Jwks(name)),
        Denied::Unasked(name) => row(Fault::Issuer).bound(Bound::Introspect(name)),
        Denied::KeyUnread(_) => row(Fault::Store),
        Denied::Invalid(Reason::TooLarge) | Denied::ApiKey(KeyFault::TooLarge) => {
            refused.bound(Bound::Auth("token_bytes"))
        }
        Denied::Invalid(Reason::MaxAge) => refused.bound(Bound::Auth("max_age")),
        Denied::NoToken
        | Denied::Malformed
        | Denied::Several
        | Denied::Invalid(_)
        | Denied::Revoked(_)
        | Denied::NoApiKey
        | Denied::ApiKey(_)
        | Denied::NoCertificate
        | Denied::Certificate(_)
        | Denied::NoSession
        | Denied::SessionRevoked
        | Denied::Unbound => refused,
        Denied::Unproven { fault: ProofFault::Time, .. } => {
            refused.bound(Bound::Auth("dpop.window"))
        }
        Denied::Unproven { .. } => refused,
        Denied::Insufficient { unmet, .. } => match &unmet.clause {
            Some(clause) => refused.bound(Bound::Clause(clause)),
            None => refused,
        },
    }
}

fn session_row(no_session: &NoSession, takes_credentials: bool) -> Row<'static> {
    use Fault::{Client, Gateway, Store};
    let row = |status, code, fault, text| {
        let row = Row::new(status, code, fault, Public::Text(text));
        // Logging in helps.
        let helps = status == StatusCode::UNAUTHORIZED;
        match takes_credentials {
            _ if !helps => row,
            true => row.adds(Adds::Challenge(&Denied::NoToken)),
            false => row.adds(Adds::SessionChallenge),
        }
    };
    let unusable = "The session cannot be used; the operator can see why in the log.";
    match no_session {
        NoSession::Required => {
            let text = "This needs a session: log in again.";
            row(StatusCode::UNAUTHORIZED, "session_missing", Client, text)
        }
        NoSession::Idle => {
            let text = "The session ended because it was not used: log in again.";
            row(StatusCode::UNAUTHORIZED, "session_idle", Client, text).key("session.idle_timeout")
        }
        NoSession::Expired => {
            let text = "The session has reached its greatest age: log in again.";
            row(StatusCode::UNAUTHORIZED, "session_expired", Client, text)
                .key("session.absolute_timeout")
        }
        NoSession::NotRenewed => {
            let text = "The session was not renewed in time: log in again.";
            row(StatusCode::UNAUTHORIZED, "session_not_renewed", Client, text)
                .key("session.rolling_timeout")
        }
        NoSession::Undated { .. } => {
            let text = "The session does not say how old it is: log in again.";
            row(StatusCode::UNAUTHORIZED, "session_undated", Gateway, text)
        }
        NoSession::Suspended => {
            let text = "The session is suspended.";
            row(StatusCode::FORBIDDEN, "session_suspended", Client, text)
                .key("session.suspended_field")
        }
        NoSession::TooLarge => row(StatusCode::BAD_GATEWAY, "session_too_large", Gateway, unusable)
            .key("session.max_bytes"),
        NoSession::Unreadable => {
            row(StatusCode::BAD_GATEWAY, "session_unreadable", Gateway, unusable)
        }
        NoSession::Unknown(_) => {
            row(StatusCode::SERVICE_UNAVAILABLE, "session_unknown", Store, UNREACHABLE)
                .key("store.on_outage.session")
        }
    }
}

fn not_once_row(not_once: &NotOnce) -> Row<'static> {
    let row = |status, code| Row::new(status, code, Fault::Client, Public::Itself);
    match not_once {
        NotOnce::Missing => row(StatusCode::BAD_REQUEST, "idempotency_key_missing")
            .bound(Bound::Route("idempotency.required")),
        NotOnce::Key(_) => row(StatusCode::BAD_REQUEST, "idempotency_key_invalid"),
        NotOnce::InProgress => row(StatusCode::CONFLICT, "idempotency_in_progress")
            .adds(Adds::RetryAfter(Duration::from_secs(1))),
        NotOnce::OutcomeUnknown => row(StatusCode::CONFLICT, "idempotency_outcome_unknown")
            .bound(Bound::Route("idempotency.unknown")),
        NotOnce::Reused => row(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
        NotOnce::NotKept(_) => row(StatusCode::CONFLICT, "idempotency_response_not_kept")
            .bound(Bound::Route("idempotency.keep_bytes")),
        NotOnce::Unsealable => row(StatusCode::CONFLICT, "idempotency_response_not_kept")
            .bound(Bound::Route("idempotency.seal")),
        NotOnce::Unknown(_) => {
            let text = Public::Text(UNREACHABLE);
            Row::new(StatusCode::SERVICE_UNAVAILABLE, "idempotency_unknown", Fault::Store, text)
                .key("store.on_outage.idempotency")
        }
    }
}

fn upload_row(fault: &UploadFault) -> Row<'static> {
    let row = |status, code| Row::new(status, code, Fault::Client, Public::Itself);
    match fault {
        UploadFault::TooLarge => {
            row(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large").bound(Bound::Body)
        }
        UploadFault::MessageTooLarge => row(StatusCode::PAYLOAD_TOO_LARGE, "message_too_large")
            .bound(Bound::Route("grpc.message_bytes")),
        UploadFault::Stalled => {
            row(StatusCode::REQUEST_TIMEOUT, "body_stalled").key("server.limits.progress_timeout")
        }
        UploadFault::Broken => row(StatusCode::BAD_REQUEST, "body_malformed"),
    }
}

fn deadline_row(is_clients: bool) -> Row<'static> {
    let row = |status, code, text| Row::new(status, code, Fault::Upstream, Public::Text(text));
    let late = "The call took longer than it may.";
    let row = row(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", late);
    if is_clients { row } else { row.bound(Bound::Route("grpc.deadline")) }
}

fn idle_row() -> Row<'static> {
    upstream_row(&Failure::Timeout).bound(Bound::Route("grpc.idle_timeout"))
}

fn ended_row(end: End) -> Row<'static> {
    let row = |status, code, text| Row::new(status, code, Fault::Client, Public::Text(text));
    match end {
        End::Expired => row(StatusCode::UNAUTHORIZED, "stream_expired", "The token has expired."),
        End::Revoked => row(StatusCode::UNAUTHORIZED, "stream_revoked", "The token was revoked."),
        End::Session => {
            let text = "The session has ended: log in again.";
            row(StatusCode::UNAUTHORIZED, "stream_session_ended", text)
        }
        // Only an operator does: what else ends tunnels ends no call.
        End::Operator
        | End::Drain
        | End::RouteGone
        | End::Client
        | End::Upstream
        | End::Idle
        | End::Age
        | End::Limit
        | End::Cut => {
            let text = "An operator has ended the call.";
            row(StatusCode::FORBIDDEN, "closed_by_operator", text)
        }
    }
}

fn handshake_row(bad: BadHandshake) -> Row<'static> {
    let row = |status, code| Row::new(status, code, Fault::Client, Public::Itself);
    match bad {
        BadHandshake::Malformed(_) => row(StatusCode::BAD_REQUEST, "upgrade_malformed"),
        BadHandshake::Version => {
            row(StatusCode::UPGRADE_REQUIRED, "upgrade_version").adds(Adds::WebSocketVersion)
        }
        BadHandshake::Origin => row(StatusCode::FORBIDDEN, "origin_refused"),
    }
}

fn upstream_row(failure: &Failure) -> Row<'static> {
    let row = |status, code, text| {
        let adds = failure.retry_after().map_or(Adds::Nothing, Adds::RetryAfter);
        Row::new(status, code, Fault::Upstream, Public::Text(text)).adds(adds)
    };
    let late = "The service behind the gateway did not answer in time.";
    let busy = "The service behind the gateway is busy. Retry shortly.";
    let down = "The service behind the gateway is not available. Retry shortly.";
    let bad = UNUSABLE;
    let reset = failure.reset_code().map(grpc::status_of_reset);
    match failure {
        Failure::Connect(_) => row(StatusCode::BAD_GATEWAY, "upstream_unreachable", bad),
        Failure::Disconnected => row(StatusCode::SERVICE_UNAVAILABLE, "upstream_unreachable", down),
        Failure::NoResponders => {
            row(StatusCode::SERVICE_UNAVAILABLE, "upstream_no_responders", down)
        }
        Failure::TooLong => {
            let text = Public::Text("The request is longer than the service takes.");
            Row::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", Fault::Client, text)
        }
        Failure::NotJson => {
            let text = Public::Text("The body of the request must be JSON.");
            Row::new(StatusCode::BAD_REQUEST, "body_not_json", Fault::Client, text)
        }
        Failure::Failed(_) => row(StatusCode::BAD_GATEWAY, "upstream_failed", bad),
        Failure::ConnectTimeout => {
            row(StatusCode::GATEWAY_TIMEOUT, "upstream_connect_timeout", late)
                .bound(Bound::Upstream("connect_timeout"))
        }
        Failure::Tls(_) if failure.has_waited_to_connect() => {
            row(StatusCode::BAD_GATEWAY, "upstream_tls", bad)
                .bound(Bound::Upstream("connect_timeout"))
        }
        Failure::Tls(_) => row(StatusCode::BAD_GATEWAY, "upstream_tls", bad),
        Failure::Busy => row(StatusCode::SERVICE_UNAVAILABLE, "upstream_busy", busy)
            .bound(Bound::UpstreamRequests),
        Failure::Unavailable(_) => {
            row(StatusCode::SERVICE_UNAVAILABLE, "upstream_unavailable", down)
                .bound(Bound::Upstream("panic"))
        }
        Failure::Unresolved => row(StatusCode::BAD_GATEWAY, "upstream_unresolved", bad),
        Failure::Open(_) => row(StatusCode::SERVICE_UNAVAILABLE, "upstream_open", down)
            .bound(Bound::Upstream("breaker")),
        Failure::Timeout | Failure::Starved => {
            row(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", late)
                .bound(Bound::Upstream("response_timeout"))
        }
        Failure::Deadline => row(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", late)
            .bound(Bound::Route("deadline")),
        Failure::Broken(_) | Failure::Withdrawn | Failure::TurnedAway(_) => {
            row(StatusCode::BAD_GATEWAY, "upstream_broken", bad).in_grpc(reset)
        }
        Failure::CutOff(_) => row(StatusCode::BAD_GATEWAY, "upstream_cut_off", bad).in_grpc(reset),
        Failure::HeadTooLarge => row(StatusCode::BAD_GATEWAY, "upstream_head_too_large", bad)
            .bound(Bound::Upstream("header_bytes")),
        Failure::Shared => row(StatusCode::BAD_GATEWAY, "upstream_failed_before", bad),
        Failure::Malformed(_) => row(StatusCode::BAD_GATEWAY, "upstream_malformed", bad),
    }
}
