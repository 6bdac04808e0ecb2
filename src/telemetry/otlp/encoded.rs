//! Spans as OpenTelemetry's crates take them. Of these the exporter alone is used, which encodes
//! spans and hands them to an HTTP client of ours: their providers and processors have threads and
//! globals of their own, and lose spans at the end.

use std::collections::HashMap;

use opentelemetry::Value as Encoded;
use opentelemetry::trace::{Link, SpanContext, SpanKind as Kind, Status, TraceFlags, TraceState};
use opentelemetry::{Array, InstrumentationScope, KeyValue, SpanId, StringValue, TraceId};
use opentelemetry_otlp::{
    Protocol, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};

use super::collector::{Collector, TIMEOUT};
use crate::base::trace::Trace;
use crate::config::Traces;
use crate::observe::{Span, SpanKind, Value};

/// Encodes spans and sends them.
#[derive(Debug)]
pub(in crate::telemetry) struct Client {
    exporter: SpanExporter,
    scope: InstrumentationScope,
}

impl Client {
    /// Sends where the configuration says.
    ///
    /// # Errors
    /// A text that says what the environment makes impossible.
    pub(in crate::telemetry) fn new(traces: &Traces) -> Result<Self, String> {
        let made = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new(traces))
            .with_endpoint(traces.endpoint.to_string())
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(TIMEOUT)
            .with_headers(HashMap::new())
            // Between two attempts it would block the thread: the collector's client tries again.
            .with_retry_policy(RetryPolicy::disabled())
            .build();
        let mut exporter = made.map_err(|error| error.to_string())?;
        exporter.set_resource(&resource(traces));
        let scope = InstrumentationScope::builder("portcullis");
        let scope = scope.with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { exporter, scope })
    }

    /// Sends spans, again where the collector asks for that, within the timeout.
    ///
    /// # Errors
    /// A text that says why the collector has not taken them.
    pub(in crate::telemetry) async fn export(&self, spans: Vec<Span>) -> Result<(), String> {
        let spans = spans.into_iter().map(|span| encode(span, &self.scope)).collect();
        self.exporter.export(spans).await.map_err(|error| error.to_string())
    }
}

/// What is said of this gateway: what it is, unless the configuration names it otherwise.
fn resource(traces: &Traces) -> Resource {
    let own = [("service.name", "portcullis"), ("service.version", env!("CARGO_PKG_VERSION"))];
    let written = |name: &str| traces.resource.iter().any(|(known, _)| known == name);
    let own = own.into_iter().filter(|(name, _)| !written(name));
    let own = own.map(|(name, value)| KeyValue::new(name, value));
    let more =
        traces.resource.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    // Not with what the environment says: it is meant for other programs.
    Resource::builder_empty().with_attributes(own.chain(more)).build()
}

fn encode(span: Span, scope: &InstrumentationScope) -> SpanData {
    let (parent, is_remote) = span.parent.unwrap_or_default();
    let mut links = SpanLinks::default();
    links.links.extend(span.link.map(|link| Link::with_context(context(link, true))));
    let attributes = span.attributes.into_iter();
    SpanData {
        span_context: context(span.trace, false),
        parent_span_id: SpanId::from_bytes(parent),
        parent_span_is_remote: is_remote,
        span_kind: match span.kind {
            SpanKind::Server => Kind::Server,
            SpanKind::Client => Kind::Client,
            SpanKind::Internal => Kind::Internal,
        },
        name: span.name.into(),
        start_time: span.began,
        end_time: span.ended,
        attributes: attributes.map(|(name, it)| KeyValue::new(name, value(it))).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        status: if span.has_failed { Status::error("") } else { Status::Unset },
        instrumentation_scope: scope.clone(),
    }
}

fn context(trace: Trace, is_remote: bool) -> SpanContext {
    let (id, span) = (TraceId::from_bytes(trace.id), SpanId::from_bytes(trace.span));
    SpanContext::new(id, span, TraceFlags::new(trace.flags), is_remote, TraceState::NONE)
}

fn value(value: Value) -> Encoded {
    match value {
        Value::Text(text) => text.into(),
        Value::Number(number) => number.into(),
        Value::Flag(flag) => flag.into(),
        Value::Words(words) => {
            let words: Vec<StringValue> = words.into_iter().map(StringValue::from).collect();
            Encoded::Array(Array::String(words))
        }
    }
}
