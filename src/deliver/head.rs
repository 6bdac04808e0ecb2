//! What is kept of a request beside its body, as bytes, and the head that its upstream gets of it.

use std::net::IpAddr;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use crate::base::packed::{Magic, Packer, Unpacker};

/// Version 1 of the layout.
const MAGIC: Magic = *b"dlv\x01";

/// The id of a delivery, for its upstream.
pub const X_DELIVERY_ID: HeaderName = HeaderName::from_static("x-delivery-id");
/// How often it was sent until now, this time included.
pub const X_DELIVERY_ATTEMPT: HeaderName = HeaderName::from_static("x-delivery-attempt");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What is kept of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// The route that took it.
    pub route: String,
    /// Its upstream, in case the route is no more.
    pub upstream: String,
    /// Its method.
    pub method: Method,
    /// Its canonical path and query, as its upstream gets them.
    pub target: PathAndQuery,
    /// What its upstream gets of its fields, with those of claims and of the session as they were.
    pub fields: HeaderMap,
    /// The client's `Idempotency-Key`, without quotes; without one the id stands in for it.
    pub key: Option<String>,
    /// The client's address.
    pub client: IpAddr,
    /// Its `traceparent`.
    pub trace: HeaderValue,
    /// The epochs of what it makes stale in the cache once it is delivered.
    pub stale: Vec<String>,
    /// When it was accepted, in Unix milliseconds of the node that did.
    pub accepted_ms: u64,
    /// When it is due, by the same clock.
    pub due_ms: u64,
}

impl Head {
    /// Whether it tells somebody of an end: that is a request of no route. Its path may be a secret
    /// and is shown to nobody.
    pub fn is_callback(&self) -> bool {
        self.route.is_empty()
    }

    /// The bytes of it.
    pub fn pack(&self) -> Vec<u8> {
        let mut packer = Packer::begin(MAGIC, 512);
        packer.put(&self.accepted_ms.to_le_bytes());
        packer.put(&self.due_ms.to_le_bytes());
        packer.part(self.route.as_bytes());
        packer.part(self.upstream.as_bytes());
        packer.part(self.method.as_str().as_bytes());
        packer.part(self.target.as_str().as_bytes());
        packer.part(self.key.as_deref().unwrap_or_default().as_bytes());
        packer.part(self.client.to_string().as_bytes());
        packer.part(self.trace.as_bytes());
        packer.headers(&self.fields);
        packer.count(self.stale.len());
        self.stale.iter().for_each(|epoch| packer.part(epoch.as_bytes()));
        packer.seal()
    }

    /// What [`Self::pack`] made; nothing of anything else.
    pub fn unpack(bytes: &Bytes) -> Option<Self> {
        let mut read = Unpacker::open(MAGIC, bytes)?;
        let accepted_ms = u64::from_le_bytes(read.array()?);
        let due_ms = u64::from_le_bytes(read.array()?);
        let (route, upstream) = (read.text()?, read.text()?);
        let method = Method::from_bytes(&read.part()?).ok()?;
        let target = PathAndQuery::from_maybe_shared(read.part()?).ok()?;
        let key = Some(read.text()?).filter(|key| !key.is_empty());
        let client = read.text()?.parse().ok()?;
        let trace = HeaderValue::from_maybe_shared(read.part()?).ok()?;
        let fields = read.headers()?;
        let stale = read.list(Unpacker::text)?;
        Some(Self {
            route,
            upstream,
            method,
            target,
            fields,
            key,
            client,
            trace,
            stale,
            accepted_ms,
            due_ms,
        })
    }

    /// The head that its upstream gets at this attempt.
    pub fn request(&self, id: &str, attempt: u64) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.target.clone());
        let mut fields = self.fields.clone();
        // Ids and keys are visible characters.
        let value = |text: &str| HeaderValue::try_from(text).ok();
        if let Some(id) = value(id) {
            fields.insert(X_DELIVERY_ID, id);
        }
        fields.insert(X_DELIVERY_ATTEMPT, HeaderValue::from(attempt));
        if let Some(key) = value(self.key.as_deref().unwrap_or(id)) {
            fields.insert(IDEMPOTENCY_KEY, key);
        }
        *request.headers_mut() = fields;
        request
    }
}
