//! Sends spans to a collector, by OTLP over HTTP. `queue` knows when, `otlp` how; nobody who is
//! traced waits for either, and what is sent here is never traced.

mod otlp;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Traces;
use crate::observe::{SpanMeter, Tracer};

/// How long the end of the gateway waits for the collector.
const FINISH_MAX: Duration = Duration::from_secs(2);

/// Who exports spans: one task for each configuration that is in use, or was and has spans left.
#[derive(Debug)]
pub struct Exports {
    tasks: TaskTracker,
    /// Cancelled at the end of the gateway.
    end: CancellationToken,
    meter: SpanMeter,
}

impl Exports {
    /// None yet.
    pub fn new(meter: &SpanMeter) -> Self {
        let (tasks, end) = (TaskTracker::new(), CancellationToken::new());
        Self { tasks, end, meter: meter.clone() }
    }

    /// Sends what is left with this tracer where the configuration says, until nobody has the
    /// tracer any more. Must be called within a tokio runtime.
    pub fn begin(&self, traces: &Traces) -> Arc<Tracer> {
        let (tracer, spans) = Tracer::new(traces.errors, traces.slow, &self.meter);
        let client = otlp::Client::new(traces);
        let exporter = queue::Exporter::new(client, &self.meter, traces.endpoint.to_string());
        self.tasks.spawn(exporter.run(spans, self.end.clone()));
        Arc::new(tracer)
    }

    /// Sends what waits, for a short time at most: for the end of the process, when no request is
    /// left.
    pub async fn finish(&self) {
        self.end.cancel();
        self.tasks.close();
        if timeout(FINISH_MAX, self.tasks.wait()).await.is_err() {
            let lost = self.meter.lost();
            tracing::warn!("{lost} spans were lost: the collector did not take them in time");
        }
    }
}
