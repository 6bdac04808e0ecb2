//! Every way in which the gateway itself ends a request, in one table ([`Rejection::row`]): status,
//! stable code, whose fault it was, what the client reads, the key that bounds it. A new kind of
//! refusal does not compile until it has a row.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::auth::{Denied, KeyFault, REALM, Reason};
use crate::base::body::UploadFault;
use crate::base::grpc::{self, GRPC_MESSAGE, GRPC_RETRY_PUSHBACK, GRPC_STATUS};
use crate::guard::{BadHandshake, Malformed, WEBSOCKET_VERSION};
use crate::limit::{Exceeded, Quota};
use crate::route::NoRoute;
use crate::session::NoSession;
use crate::store::StoreError;
use crate::tunnel::End;
use crate::upstream::Failure;

/// What a client should wait after a 503 that does not say: the store's reconnection time.
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
    /// The connection is for hosts of whose clients TLS asks something else (RFC 9110 §15.5.20).
    #[error("TLS asks something else of the host's clients than it asked on this connection")]
    Misdirected,
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
    /// The time of a gRPC call is over.
    #[error("the call took longer than its client waits, or its route allows")]
    DeadlineExceeded {
        /// Whether the client's own time was the shorter one.
        is_clients: bool,
    },
    /// Nothing of a gRPC call has moved for the route's `grpc.idle_timeout`.
    #[error("nothing of the call moved within idle_timeout")]
    CallIdle,
    /// What let the caller of a gRPC call in has ended before the call.
    #[error("the call was ended: {}", .0.word())]
    CallEnded(End),
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
enum Fault {
    Client,
    Gateway,
    Store,
    Issuer,
    Upstream,
}

/// One row of the table.
struct Row<'a> {
    status: StatusCode,
    code: &'static str,
    fault: Fault,
    public: Public<'a>,
    bound: Option<Bound<'a>>,
    adds: Adds<'a>,
    spoils_connection: bool,
    /// The status in gRPC, where it does not follow from the one in HTTP.
    in_grpc: Option<u16>,
}

/// What a stranger may read: what happened and what to do. Never addresses, keys or internal
/// errors.
enum Public<'a> {
    Text(&'static str),
    /// What the refusal itself says, which is written for strangers.
    Itself,
    /// The methods that the path accepts.
    Accepts(&'a str),
    /// The limit, and when a retry would pass.
    RetryIn(&'a str, Duration),
}

/// The key of `gateway.toml` that says where the bound is that the request met.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bound<'a> {
    /// This one.
    Key(&'static str),
    /// A key of the route's verifier.
    Auth(&'static str),
    /// `jwks_url` of this verifier.
    Jwks(&'a str),
    /// `block` of the limit that names the client's address.
    Block,
    /// A key of the route.
    Route(&'static str),
    /// A key of the route's upstream.
    Upstream(&'static str),
    /// The key of the route's upstream that bounds the requests in progress there.
    UpstreamRequests,
}

/// Fields of the response beside those that all refusals have.
enum Adds<'a> {
    Nothing,
    Challenge(&'a Denied),
    Allow(&'a str),
    Quota(&'a Quota, Duration),
    RetryAfter(Duration),
    /// The version of WebSocket that is spoken (RFC 6455 §4.4).
    WebSocketVersion,
}

/// The body of a refusal (RFC 9457 §3.1).
#[derive(Serialize)]
struct Problem<'a> {
    detail: &'a str,
    request_id: &'a str,
    status: u16,
    title: &'a str,
    #[serde(rename = "type")]
    name: String,
}

impl<'a> Row<'a> {
    /// Of a refusal that adds no field and leaves the connection as it is.
    fn new(status: StatusCode, code: &'static str, fault: Fault, public: Public<'a>) -> Self {
        let (bound, adds) = (None, Adds::Nothing);
        Self { status, code, fault, public, bound, adds, spoils_connection: false, in_grpc: None }
    }

    fn bound(self, bound: Bound<'a>) -> Self {
        Self { bound: Some(bound), ..self }
    }

    /// What decides is this key.
    fn key(self, key: &'static str) -> Self {
        self.bound(Bound::Key(key))
    }

    fn adds(self, adds: Adds<'a>) -> Self {
        Self { adds, ..self }
    }

    /// Of a request whose end is in doubt: what follows on the connection cannot be trusted, or is
    /// not worth reading.
    fn spoils_connection(self) -> Self {
        Self { spoils_connection: true, ..self }
    }

    /// In gRPC it has this status, where there is one.
    fn in_grpc(self, status: Option<u16>) -> Self {
        Self { in_grpc: status, ..self }
    }

    /// The status of the same thing in gRPC (codes.md of the gRPC project).
    fn grpc_status(&self) -> u16 {
        if let Some(status) = self.in_grpc {
            return status;
        }
        match self.status {
            StatusCode::UNAUTHORIZED => 16,
            StatusCode::FORBIDDEN => 7,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => 12,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => 8,
            StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => 4,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => 14,
            _ => 3,
        }
    }

    /// `application/problem+json` (RFC 9457).
    fn problem(&self, public: &str, request_id: &str) -> Response<Bytes> {
        let problem = Problem {
            detail: public,
            request_id,
            status: self.status.as_u16(),
            title: self.status.canonical_reason().unwrap_or("Error"),
            name: ["urn:portcullis:problem:", self.code].concat(),
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status;
        let json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }

    /// A trailers-only response: gRPC clients look at nothing else.
    fn grpc(&self, public: &str) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(self.grpc_status()));
        headers.insert(GRPC_MESSAGE, grpc::encode_message(public));
        if let Adds::Quota(_, retry_after) = self.adds {
            let pushback = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
            headers.insert(GRPC_RETRY_PUSHBACK, HeaderValue::from(pushback));
        }
        response
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        match self.adds {
            Adds::Nothing => {}
            Adds::Challenge(denied) => {
                headers.insert(WWW_AUTHENTICATE, denied.challenge(REALM));
            }
            Adds::Allow(allow) => {
                if let Ok(allow) = HeaderValue::try_from(allow) {
                    headers.insert(ALLOW, allow);
                }
            }
            Adds::WebSocketVersion => {
                let version = HeaderValue::from_static(WEBSOCKET_VERSION);
                headers.insert(SEC_WEBSOCKET_VERSION, version);
            }
            Adds::Quota(quota, retry_after) => {
                quota.stamp(headers, std::time::SystemTime::now());
                headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(retry_after)));
            }
            Adds::RetryAfter(after) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
            }
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.entry(RETRY_AFTER).or_insert(HeaderValue::from(RETRY_SOON.as_secs()));
        }
    }
}

impl Rejection {
    /// The table. What is wrong with a token or an API key has one of its own in `auth`.
    fn row(&self) -> Row<'_> {
        use Fault::{Client, Store};
        use Public::{Accepts, RetryIn, Text};
        match self {
            Self::Malformed(malformed) => malformed_row(*malformed).spoils_connection(),
            Self::NoRoute(NoRoute::NotFound) => {
                let text = Text("Nothing is served at this host and path.");
                Row::new(StatusCode::NOT_FOUND, "route_not_found", Client, text)
            }
            Self::NoRoute(NoRoute::MethodNotAllowed { allow }) => {
                let text = Accepts(allow);
                Row::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", Client, text)
                    .adds(Adds::Allow(allow))
            }
            Self::Misdirected => {
                const TEXT: &str =
                    "Ask for this host on a connection of its own: it has other rules for TLS.";
                Row::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", Client, Text(TEXT))
            }
            Self::Denied(denied) => denied_row(denied),
            Self::RevocationUnknown(_) => {
                let text = Text(UNREACHABLE);
                Row::new(StatusCode::SERVICE_UNAVAILABLE, "revocation_unknown", Store, text)
                    .key("store.on_outage.revocation")
            }
            Self::Exceeded(Exceeded::Limit { limit, retry_after, quota, .. }) => {
                let text = RetryIn(limit, *retry_after);
                Row::new(StatusCode::TOO_MANY_REQUESTS, "limit_exceeded", Client, text)
                    .adds(Adds::Quota(quota, *retry_after))
            }
            Self::Exceeded(Exceeded::Blocked) => {
                let text = Text("This address may not use the service.");
                Row::new(StatusCode::FORBIDDEN, "address_blocked", Client, text).bound(Bound::Block)
            }
            Self::Exceeded(Exceeded::Unknown(_)) => {
                let text = Text(UNREACHABLE);
                Row::new(StatusCode::SERVICE_UNAVAILABLE, "limit_unknown", Store, text)
                    .key("store.on_outage.limits")
            }
            Self::NoSession(no_session) => session_row(no_session),
            Self::OnlyIfCached => {
                let text = Text("No cached response; retry without only-if-cached.");
                Row::new(StatusCode::GATEWAY_TIMEOUT, "not_cached", Client, text)
            }
            Self::CacheLost => {
                let text = Text("A stored response was evicted while it was used. Retry.");
                Row::new(StatusCode::BAD_GATEWAY, "cache_chunk_lost", Store, text)
            }
            Self::Upload(fault) => upload_row(fault).spoils_connection(),
            Self::DeadlineExceeded { is_clients } => deadline_row(*is_clients),
            Self::CallIdle => idle_row(),
            Self::CallEnded(end) => ended_row(*end),
            Self::Upstream(failure) => upstream_row(failure),
            Self::Handshake(bad) => handshake_row(*bad).spoils_connection(),
            Self::UpgradeRefused(_) => {
                let text = Text(UNUSABLE);
                Row::new(StatusCode::BAD_GATEWAY, "upgrade_refused", Fault::Upstream, text)
                    .spoils_connection()
            }
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.row().status
    }

    /// A stable name: part of the body, of the access line and of a metric's label.
    pub(super) fn code(&self) -> &'static str {
        self.row().code
    }

    /// The key of `gateway.toml` that decided it, where one did.
    pub(super) fn bound(&self) -> Option<Bound<'_>> {
        self.row().bound
    }

    /// Whether what follows on the connection cannot be trusted or is not worth reading.
    pub(super) fn spoils_connection(&self) -> bool {
        self.row().spoils_connection
    }

    /// What a stranger reads of it.
    fn public(&self, public: &Public<'_>) -> Cow<'static, str> {
        match public {
            Public::Text(text) => (*text).into(),
            Public::Itself => self.to_string().into(),
            Public::Accepts(allow) => format!("This path accepts {allow}.").into(),
            Public::RetryIn(limit, wait) => {
                let wait = whole_seconds(*wait);
                format!("The limit `{limit}` is exhausted. Retry in {wait} s.").into()
            }
        }
    }

    /// What the log tells of it and nobody else: why credentials were refused, and what went wrong
    /// where the client is not to blame.
    pub(super) fn internal(&self) -> Option<String> {
        let has_cause = matches!(self, Self::Denied(denied) if denied.cause().is_some());
        (has_cause || self.row().fault != Fault::Client).then(|| with_sources(self))
    }

    /// The same in the trailers of a gRPC call whose head has gone.
    pub(super) fn trailers(&self) -> HeaderMap {
        let row = self.row();
        let mut fields = HeaderMap::new();
        fields.insert(GRPC_STATUS, HeaderValue::from(row.grpc_status()));
        fields.insert(GRPC_MESSAGE, grpc::encode_message(&self.public(&row.public)));
        fields
    }

    /// The response. `request_id` is where its reader finds it in the log.
    pub(super) fn response(&self, is_grpc: bool, request_id: &str) -> Response<Bytes> {
        let row = self.row();
        let public = self.public(&row.public);
        let mut response =
            if is_grpc { row.grpc(&public) } else { row.problem(&public, request_id) };
        row.add_headers(response.headers_mut());
        response
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
            row(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large").key("server.limits.body_bytes")
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
        | Denied::Unbound
        | Denied::Insufficient { .. } => refused,
    }
}

fn session_row(no_session: &NoSession) -> Row<'static> {
    use Fault::{Client, Gateway, Store};
    let row = |status, code, fault, text| {
        let row = Row::new(status, code, fault, Public::Text(text));
        // Logging in helps.
        let helps = status == StatusCode::UNAUTHORIZED;
        if helps { row.adds(Adds::Challenge(&Denied::NoToken)) } else { row }
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

fn upload_row(fault: &UploadFault) -> Row<'static> {
    let row = |status, code| Row::new(status, code, Fault::Client, Public::Itself);
    match fault {
        UploadFault::TooLarge => {
            row(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large").key("server.limits.body_bytes")
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
        _ => {
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
    let bad = UNUSABLE;
    let reset = failure.reset_code().map(grpc::status_of_reset);
    match failure {
        Failure::Connect(_) => row(StatusCode::BAD_GATEWAY, "upstream_unreachable", bad),
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
        Failure::Timeout => row(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", late)
            .bound(Bound::Upstream("response_timeout")),
        Failure::Broken(_) | Failure::TurnedAway(_) => {
            row(StatusCode::BAD_GATEWAY, "upstream_broken", bad).in_grpc(reset)
        }
        Failure::CutOff(_) => row(StatusCode::BAD_GATEWAY, "upstream_cut_off", bad).in_grpc(reset),
        Failure::HeadTooLarge => row(StatusCode::BAD_GATEWAY, "upstream_head_too_large", bad)
            .bound(Bound::Upstream("header_bytes")),
        Failure::Shared => row(StatusCode::BAD_GATEWAY, "upstream_failed_before", bad),
        Failure::Malformed(_) => row(StatusCode::BAD_GATEWAY, "upstream_malformed", bad),
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
