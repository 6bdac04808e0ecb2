//! Every way in which the gateway itself ends a request: status, stable code, public text, whose
//! fault it was. One exhaustive table; a new kind of refusal does not compile until it stands here.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::auth::{Denied, REALM};
use crate::base::body::UploadFault;
use crate::guard::{BadHandshake, Malformed, WEBSOCKET_VERSION};
use crate::limit::Exceeded;
use crate::route::NoRoute;
use crate::session::NoSession;
use crate::store::StoreError;
use crate::upstream::Failure;

/// What a client should wait after a 503 whose cause usually passes within the store's or
/// upstream's reconnection time.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// What a stranger reads of an outage.
const UNREACHABLE: &str = "A part of the service is not reachable at the moment. Retry shortly.";

/// What a stranger reads of an upstream's failure.
const UNUSABLE: &str = "The service behind the gateway did not give a usable answer.";

/// Why a request ends here.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// Not well formed.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// No route.
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    /// Not permitted.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Nobody can say whether the token was revoked.
    #[error("revocation is unknown: {0}")]
    RevocationUnknown(#[source] StoreError),
    /// Over a limit.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// No session.
    #[error(transparent)]
    NoSession(#[from] NoSession),
    /// `only-if-cached`, and it is not.
    #[error("the client asked for a cached response only, and there is none")]
    OnlyIfCached,
    /// The body of a stored response, which its origin had just confirmed, is gone.
    #[error("the body of a stored response is gone from the store")]
    CacheLost,
    /// The client's body.
    #[error(transparent)]
    Upload(#[from] UploadFault),
    /// The upstream.
    #[error(transparent)]
    Upstream(#[from] Failure),
    /// The client's handshake.
    #[error(transparent)]
    Handshake(#[from] BadHandshake),
    /// The upstream said that it speaks WebSocket from here on, and does not.
    #[error("the upstream's answer to the WebSocket handshake is wrong: {0}")]
    UpgradeRefused(&'static str),
}

/// Who can mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Client,
    Gateway,
    Store,
    Issuer,
    Upstream,
}

impl Rejection {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(malformed) => match malformed {
                Malformed::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                Malformed::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Malformed::Expectation => StatusCode::EXPECTATION_FAILED,
                Malformed::MethodRefused => StatusCode::METHOD_NOT_ALLOWED,
                Malformed::Host
                | Malformed::Authority
                | Malformed::TargetForm
                | Malformed::Path(_)
                | Malformed::TransferEncoding
                | Malformed::ContentLength => StatusCode::BAD_REQUEST,
            },
            Self::NoRoute(NoRoute::NotFound) => StatusCode::NOT_FOUND,
            Self::NoRoute(NoRoute::MethodNotAllowed { .. }) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Denied(denied) => denied.status(),
            Self::Exceeded(Exceeded::Limit { .. }) => StatusCode::TOO_MANY_REQUESTS,
            Self::Exceeded(Exceeded::Blocked) => StatusCode::FORBIDDEN,
            Self::NoSession(no_session) => match no_session {
                NoSession::Required
                | NoSession::Idle
                | NoSession::Expired
                | NoSession::NotRenewed
                | NoSession::Undated { .. } => StatusCode::UNAUTHORIZED,
                NoSession::Suspended => StatusCode::FORBIDDEN,
                NoSession::TooLarge | NoSession::Unreadable => StatusCode::BAD_GATEWAY,
                NoSession::Unknown(_) => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::RevocationUnknown(_) | Self::Exceeded(Exceeded::Unknown(_)) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::OnlyIfCached => StatusCode::GATEWAY_TIMEOUT,
            Self::CacheLost => StatusCode::BAD_GATEWAY,
            Self::Upload(UploadFault::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Upload(UploadFault::Stalled) => StatusCode::REQUEST_TIMEOUT,
            Self::Upload(UploadFault::Broken) => StatusCode::BAD_REQUEST,
            Self::Upstream(failure) => match failure {
                Failure::Timeout | Failure::ConnectTimeout => StatusCode::GATEWAY_TIMEOUT,
                Failure::Busy => StatusCode::SERVICE_UNAVAILABLE,
                Failure::Connect(_)
                | Failure::Broken(_)
                | Failure::CutOff(_)
                | Failure::HeadTooLarge
                | Failure::Shared
                | Failure::Malformed(_) => StatusCode::BAD_GATEWAY,
            },
            Self::Handshake(bad) => match bad {
                BadHandshake::Malformed(_) => StatusCode::BAD_REQUEST,
                BadHandshake::Version => StatusCode::UPGRADE_REQUIRED,
                BadHandshake::Origin => StatusCode::FORBIDDEN,
            },
            Self::UpgradeRefused(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// A stable name: part of the body, of the access line and of a metric's label.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Malformed(malformed) => match malformed {
                Malformed::Host => "host_invalid",
                Malformed::Authority => "authority_mismatch",
                Malformed::TargetForm => "target_invalid",
                Malformed::Path(_) => "path_invalid",
                Malformed::TransferEncoding => "transfer_encoding_invalid",
                Malformed::ContentLength => "content_length_invalid",
                Malformed::Expectation => "expectation_failed",
                Malformed::TooManyHeaders => "headers_too_many",
                Malformed::BodyTooLarge => "body_too_large",
                Malformed::MethodRefused => "method_refused",
            },
            Self::NoRoute(NoRoute::NotFound) => "route_not_found",
            Self::NoRoute(NoRoute::MethodNotAllowed { .. }) => "method_not_allowed",
            Self::Denied(denied) => denied.code(),
            Self::RevocationUnknown(_) => "revocation_unknown",
            Self::Exceeded(Exceeded::Limit { .. }) => "limit_exceeded",
            Self::Exceeded(Exceeded::Blocked) => "address_blocked",
            Self::Exceeded(Exceeded::Unknown(_)) => "limit_unknown",
            Self::NoSession(no_session) => match no_session {
                NoSession::Required => "session_missing",
                NoSession::Idle => "session_idle",
                NoSession::Expired => "session_expired",
                NoSession::NotRenewed => "session_not_renewed",
                NoSession::Undated { .. } => "session_undated",
                NoSession::Suspended => "session_suspended",
                NoSession::TooLarge => "session_too_large",
                NoSession::Unreadable => "session_unreadable",
                NoSession::Unknown(_) => "session_unknown",
            },
            Self::OnlyIfCached => "not_cached",
            Self::CacheLost => "cache_chunk_lost",
            Self::Upload(UploadFault::TooLarge) => "body_too_large",
            Self::Upload(UploadFault::Stalled) => "body_stalled",
            Self::Upload(UploadFault::Broken) => "body_malformed",
            Self::Upstream(failure) => match failure {
                Failure::Connect(_) => "upstream_unreachable",
                Failure::ConnectTimeout => "upstream_connect_timeout",
                Failure::Busy => "upstream_busy",
                Failure::Timeout => "upstream_timeout",
                Failure::Broken(_) => "upstream_broken",
                Failure::CutOff(_) => "upstream_cut_off",
                Failure::HeadTooLarge => "upstream_head_too_large",
                Failure::Shared => "upstream_failed_before",
                Failure::Malformed(_) => "upstream_malformed",
            },
            Self::Handshake(bad) => match bad {
                BadHandshake::Malformed(_) => "upgrade_malformed",
                BadHandshake::Version => "upgrade_version",
                BadHandshake::Origin => "origin_refused",
            },
            Self::UpgradeRefused(_) => "upgrade_refused",
        }
    }

    /// What a stranger may read: what happened and what to do. Never addresses, keys or internal
    /// errors.
    fn public(&self) -> Cow<'static, str> {
        match self {
            Self::Malformed(malformed) => malformed.to_string().into(),
            Self::NoRoute(NoRoute::NotFound) => "Nothing is served at this host and path.".into(),
            Self::NoRoute(NoRoute::MethodNotAllowed { allow }) => {
                format!("This path accepts {allow}.").into()
            }
            Self::Denied(denied) => denied.public().into(),
            Self::Exceeded(Exceeded::Limit { limit, retry_after, .. }) => {
                let wait = whole_seconds(*retry_after);
                format!("The limit `{limit}` is exhausted. Retry in {wait} s.").into()
            }
            Self::Exceeded(Exceeded::Blocked) => "This address may not use the service.".into(),
            Self::NoSession(no_session) => public_session(no_session).into(),
            Self::RevocationUnknown(_) | Self::Exceeded(Exceeded::Unknown(_)) => UNREACHABLE.into(),
            Self::OnlyIfCached => "No cached response; retry without only-if-cached.".into(),
            Self::CacheLost => "A stored response was evicted while it was used. Retry.".into(),
            Self::Upload(fault) => fault.to_string().into(),
            Self::Upstream(failure) => match failure {
                Failure::Timeout | Failure::ConnectTimeout => {
                    "The service behind the gateway did not answer in time.".into()
                }
                Failure::Busy => "The service behind the gateway is busy. Retry shortly.".into(),
                Failure::Connect(_)
                | Failure::Broken(_)
                | Failure::CutOff(_)
                | Failure::HeadTooLarge
                | Failure::Shared
                | Failure::Malformed(_) => UNUSABLE.into(),
            },
            Self::Handshake(bad) => bad.to_string().into(),
            Self::UpgradeRefused(_) => UNUSABLE.into(),
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Denied(Denied::KeysUnavailable(_)) => Fault::Issuer,
            Self::Denied(Denied::KeyUnread(_)) => Fault::Store,
            Self::Malformed(_)
            | Self::NoRoute(_)
            | Self::Denied(_)
            | Self::Exceeded(Exceeded::Limit { .. } | Exceeded::Blocked)
            | Self::NoSession(
                NoSession::Required
                | NoSession::Idle
                | NoSession::Expired
                | NoSession::NotRenewed
                | NoSession::Suspended,
            )
            | Self::OnlyIfCached
            | Self::Upload(_)
            | Self::Handshake(_) => Fault::Client,
            Self::NoSession(
                NoSession::Undated { .. } | NoSession::TooLarge | NoSession::Unreadable,
            ) => Fault::Gateway,
            Self::RevocationUnknown(_)
            | Self::Exceeded(Exceeded::Unknown(_))
            | Self::NoSession(NoSession::Unknown(_))
            | Self::CacheLost => Fault::Store,
            Self::Upstream(_) | Self::UpgradeRefused(_) => Fault::Upstream,
        }
    }

    /// The status of the same thing in gRPC (codes.md of the gRPC project).
    fn grpc_status(&self) -> u8 {
        match self.status() {
            StatusCode::UNAUTHORIZED => 16,
            StatusCode::FORBIDDEN => 7,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => 12,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => 8,
            StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => 4,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => 14,
            _ => 3,
        }
    }

    /// What the log tells of it and nobody else: why credentials were refused, and what went wrong
    /// where the client is not to blame.
    pub(super) fn internal(&self) -> Option<String> {
        let has_cause = matches!(self, Self::Denied(denied) if denied.cause().is_some());
        (has_cause || self.fault() != Fault::Client).then(|| with_sources(self))
    }

    /// The response. `request_id` is where its reader finds it in the log.
    pub(super) fn response(&self, is_grpc: bool, request_id: &str) -> Response<Bytes> {
        let mut response = if is_grpc { self.grpc() } else { self.problem(request_id) };
        self.add_headers(response.headers_mut());
        response
    }

    /// `application/problem+json` (RFC 9457).
    fn problem(&self, request_id: &str) -> Response<Bytes> {
        let status = self.status();
        let problem = serde_json::json!({
            "type": format!("urn:portcullis:problem:{}", self.code()),
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "detail": self.public(),
            "request_id": request_id,
        });
        let mut response = Response::new(Bytes::from(problem.to_string()));
        *response.status_mut() = status;
        let json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }

    /// A trailers-only response: gRPC clients look at nothing else.
    fn grpc(&self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(u16::from(self.grpc_status())));
        if let Ok(message) = HeaderValue::try_from(self.public().as_ref()) {
            headers.insert("grpc-message", message);
        }
        response
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        match self {
            // No credentials would help.
            Self::Denied(Denied::KeysUnavailable(_) | Denied::KeyUnread(_)) => {}
            Self::Denied(denied) => {
                headers.insert(WWW_AUTHENTICATE, denied.challenge(REALM));
            }
            Self::NoSession(_) if self.status() == StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, Denied::NoToken.challenge(REALM));
            }
            Self::NoRoute(NoRoute::MethodNotAllowed { allow }) => {
                if let Ok(allow) = HeaderValue::try_from(allow.as_str()) {
                    headers.insert(ALLOW, allow);
                }
            }
            Self::Malformed(Malformed::MethodRefused) => {
                let allow = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";
                headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
            Self::Exceeded(Exceeded::Limit { retry_after, quota, .. }) => {
                quota.stamp(headers, std::time::SystemTime::now());
                headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(*retry_after)));
            }
            Self::Handshake(BadHandshake::Version) => {
                let version = HeaderValue::from_static(WEBSOCKET_VERSION);
                headers.insert(SEC_WEBSOCKET_VERSION, version);
            }
            Self::Malformed(_)
            | Self::NoRoute(_)
            | Self::RevocationUnknown(_)
            | Self::Exceeded(_)
            | Self::NoSession(_)
            | Self::OnlyIfCached
            | Self::CacheLost
            | Self::Upload(_)
            | Self::Upstream(_)
            | Self::Handshake(_)
            | Self::UpgradeRefused(_) => {}
        }
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_SOON.as_secs()));
        }
    }

    /// Whether what follows on the connection cannot be trusted or is not worth reading.
    pub(super) fn spoils_connection(&self) -> bool {
        match self {
            Self::Malformed(_) | Self::Upload(_) | Self::Handshake(_) | Self::UpgradeRefused(_) => {
                true
            }
            Self::NoRoute(_)
            | Self::Denied(_)
            | Self::RevocationUnknown(_)
            | Self::Exceeded(_)
            | Self::NoSession(_)
            | Self::OnlyIfCached
            | Self::CacheLost
            | Self::Upstream(_) => false,
        }
    }
}

fn public_session(no_session: &NoSession) -> &'static str {
    match no_session {
        NoSession::Required => "This needs a session: log in again.",
        NoSession::Idle => "The session ended because it was not used: log in again.",
        NoSession::Expired => "The session has reached its greatest age: log in again.",
        NoSession::NotRenewed => "The session was not renewed in time: log in again.",
        NoSession::Undated { .. } => "The session does not say how old it is: log in again.",
        NoSession::Suspended => "The session is suspended.",
        NoSession::TooLarge | NoSession::Unreadable => {
            "The session cannot be used; the operator can see why in the log."
        }
        NoSession::Unknown(_) => UNREACHABLE,
    }
}

/// At least one second, rounded up: a client told to wait must not be early.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
