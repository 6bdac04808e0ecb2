//! One row of the table of refusals, and how it is written as HTTP and as gRPC.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER, SEC_WEBSOCKET_VERSION,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::auth::{Denied, REALM};
use crate::base::grpc::{self, GRPC_MESSAGE, GRPC_RETRY_PUSHBACK, GRPC_STATUS};
use crate::guard::WEBSOCKET_VERSION;
use crate::limit::Quota;

/// What a client should wait after a 503 that does not say: the store's reconnection time.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// What a stranger reads of an outage.
pub(super) const UNREACHABLE: &str =
    "A part of the service is not reachable at the moment. Retry shortly.";

/// Who can mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Client,
    Gateway,
    Store,
    Issuer,
    Upstream,
}

/// One row of the table.
pub(super) struct Row<'a> {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) fault: Fault,
    pub(super) public: Public<'a>,
    pub(super) bound: Option<Bound<'a>>,
    pub(super) adds: Adds<'a>,
    pub(super) spoils_connection: bool,
    /// The status in gRPC, where it does not follow from the one in HTTP.
    pub(super) in_grpc: Option<u16>,
    /// What OAuth calls it (RFC 6749 §5.2), where it does.
    pub(super) oauth: Option<&'static str>,
}

/// What a stranger may read: what happened and what to do. Never addresses, keys or internal
/// errors.
pub(super) enum Public<'a> {
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
pub(in crate::proxy) enum Bound<'a> {
    /// This one.
    Key(&'static str),
    /// A key of the route's verifier.
    Auth(&'static str),
    /// Where the keys of this verifier come from: `jwks_url`, or `issuer`.
    Jwks(&'a str),
    /// The server that is asked about this verifier's tokens.
    Introspect(&'a str),
    /// `block` of the limit that names the client's address.
    Block,
    /// The largest body: the route's own bound, or that of all.
    Body,
    /// A key of the route.
    Route(&'static str),
    /// A clause of the route.
    Clause(&'a str),
    /// A key of the route's upstream.
    Upstream(&'static str),
    /// The key of the route's upstream that bounds the requests in progress there.
    UpstreamRequests,
}

/// Fields of the response beside those that all refusals have.
pub(super) enum Adds<'a> {
    Nothing,
    Challenge(&'a Denied),
    /// No scheme is registered for what an application's log-in gives, and RFC 9110 §15.5.2 wants a
    /// challenge.
    SessionChallenge,
    Allow(&'a str),
    Quota(&'a Quota, Duration),
    RetryAfter(Duration),
    /// Its address is told to no other page.
    NoReferrer,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_description: Option<&'a str>,
}

impl<'a> Row<'a> {
    /// Of a refusal that adds no field and leaves the connection as it is.
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        fault: Fault,
        public: Public<'a>,
    ) -> Self {
        Self {
            status,
            code,
            fault,
            public,
            bound: None,
            adds: Adds::Nothing,
            spoils_connection: false,
            in_grpc: None,
            oauth: None,
        }
    }

    pub(super) fn bound(self, bound: Bound<'a>) -> Self {
        Self { bound: Some(bound), ..self }
    }

    /// What decides is this key.
    pub(super) fn key(self, key: &'static str) -> Self {
        self.bound(Bound::Key(key))
    }

    pub(super) fn adds(self, adds: Adds<'a>) -> Self {
        Self { adds, ..self }
    }

    /// Of a request whose end is in doubt: what follows on the connection cannot be trusted, or is
    /// not worth reading.
    pub(super) fn spoils_connection(self) -> Self {
        Self { spoils_connection: true, ..self }
    }

    /// In gRPC it has this status, where there is one.
    pub(super) fn in_grpc(self, status: Option<u16>) -> Self {
        Self { in_grpc: status, ..self }
    }

    /// OAuth has a word of its own for it.
    pub(super) fn oauth(self, oauth: Option<&'static str>) -> Self {
        Self { oauth, ..self }
    }

    /// The status of the same thing in gRPC (codes.md of the gRPC project).
    pub(super) fn grpc_status(&self) -> u16 {
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
    pub(super) fn problem(&self, public: &str, request_id: &str) -> Response<Bytes> {
        let problem = Problem {
            detail: public,
            request_id,
            status: self.status.as_u16(),
            title: self.status.canonical_reason().unwrap_or("Error"),
            name: ["urn:portcullis:problem:", self.code].concat(),
            error: self.oauth,
            error_description: self.oauth.map(|_| public),
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status;
        let json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }

    /// A trailers-only response: gRPC clients look at nothing else.
    pub(super) fn grpc(&self, public: &str) -> Response<Bytes> {
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

    pub(super) fn add_headers(&self, headers: &mut HeaderMap) {
        match self.adds {
            Adds::Nothing => {}
            Adds::Challenge(denied) => {
                headers.insert(WWW_AUTHENTICATE, denied.challenge(REALM));
            }
            Adds::SessionChallenge => {
                let challenge = HeaderValue::from_static("Session realm=\"portcullis\"");
                headers.insert(WWW_AUTHENTICATE, challenge);
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
                quota.stamp(headers, std::time::SystemTime::now);
                headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(retry_after)));
            }
            Adds::NoReferrer => {
                headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            }
            Adds::RetryAfter(after) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
            }
        }
        if self.oauth.is_some() {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.entry(RETRY_AFTER).or_insert(HeaderValue::from(RETRY_SOON.as_secs()));
        }
    }
}

/// At least one second, rounded up: a client told to wait must not be early.
pub(in crate::proxy) fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}
