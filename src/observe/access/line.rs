//! What one access line says.

use std::borrow::Cow;

use http::HeaderName;
use serde::{Serialize, Serializer};

/// One line. Field names are a contract with whoever reads the log.
#[derive(Debug, Default, Serialize)]
pub struct Line<'a> {
    /// When the request head was there.
    #[serde(serialize_with = "rfc3339")]
    pub time: jiff::Timestamp,
    /// `X-Request-Id`
    pub request_id: &'a str,
    /// Trace id of `traceparent`
    pub trace_id: &'a str,
    /// Id of the request's own span, where it is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_id: Option<&'a str>,
    /// Whether its trace is recorded.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub trace_sampled: bool,
    /// The client's address.
    pub client: String,
    /// Method.
    pub method: &'a str,
    /// Host, canonical.
    pub host: &'a str,
    /// Path, canonical, without the query: a query may hold secrets.
    pub path: &'a str,
    /// What is shown of the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// What the client spoke: `http/1.0`, `http/1.1` or `h2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<&'static str>,
    /// Route, or `-`.
    pub route: &'a str,
    /// Status sent; 499 when the client left before there was one.
    pub status: u16,
    /// Status of a gRPC call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u16>,
    /// Stable code of a refusal, or of how the body ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// What exactly was wrong with the credentials, in one stable word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'static str>,
    /// The claim that was missing or wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<&'a str>,
    /// What would have been accepted there, as the configuration says it.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub wanted: &'a [String],
    /// The key of `gateway.toml` that says where the bound is that was met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound: Option<&'a str>,
    /// Internal detail of a failure; never sent to clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
    /// Subject of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Cow<'a, str>>,
    /// `pass`, `shadow`, `mark`, `refused`, `denied-locally`, `local` or `off`.
    pub limits: &'static str,
    /// The limit that refused the request, by its name in `[limits]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<&'a str>,
    /// Its window as the store's key names it (`15m`), or `in-flight`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_window: Option<&'a str>,
    /// Whose counter it is, as `portcullis limits --key` takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_key: Option<Cow<'a, str>>,
    /// Seconds that the client was told to wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// Cache verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<&'static str>,
    /// Of a request with an idempotency key: `first`, `repeated` or `replayed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<&'static str>,
    /// The upstream that was asked, or would have been.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<&'a str>,
    /// Of a split route, the upstream whose share the request is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arm: Option<&'a str>,
    /// Who of an upstream with readers has answered: `readers`, or why its servers have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<&'static str>,
    /// The server that was asked last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// How often the request was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Why it was sent once more, the last time, in one stable word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<&'static str>,
    /// Functions that did without the store.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub degraded: &'a [&'static str],
    /// Body bytes sent.
    pub bytes: u64,
    /// Body bytes that the client has sent, where its body was passed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    /// The coding in which the gateway sent them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<&'static str>,
    /// Bytes that came through a tunnel from its client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<u64>,
    /// Messages that went through a tunnel, in both directions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<u64>,
    /// Why a tunnel has ended, in one stable word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel_end: Option<&'static str>,
    /// Milliseconds to the last byte.
    pub duration_ms: f64,
    /// Milliseconds waited for the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_ms: Option<f64>,
    /// Milliseconds to the upstream's head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ms: Option<f64>,
    /// Microseconds of each stage.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "stages")]
    pub stages: Vec<(&'static str, u64)>,
    /// `delivery` where it is no request, but an attempt to deliver one that was accepted before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// The delivery that a request has become, or asks for, or that was attempted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<&'a str>,
    /// Its queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<&'a str>,
    /// How often it was sent, this time included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u64>,
    /// What came of it: `done`, `retry`, `dead`, `back` or `lost`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<&'static str>,
    /// Whether it took longer than `log.slow`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub slow: bool,
    /// `User-Agent`, or its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<&'a str>,
    /// `Referer`, where the format has a place for it.
    #[serde(skip)]
    pub referer: Option<&'a str>,
    /// The fields that `log.headers` names, as far as the request had them.
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "map")]
    pub headers: &'a [(HeaderName, String)],
}

/// RFC 3339 with milliseconds, UTC.
fn rfc3339<S: Serializer>(time: &jiff::Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.3}"))
}

fn map<S: Serializer>(fields: &[(HeaderName, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(fields.iter().map(|(name, value)| (name.as_str(), value)))
}

fn stages<S: Serializer>(stages: &[(&'static str, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(stages.iter().copied())
}
