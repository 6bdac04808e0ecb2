//! When spans are sent: in batches, once there are enough or the first has waited long enough.

use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::otlp::Client;
use crate::observe::{Span, SpanMeter};

/// Most spans of one batch.
const BATCH_SPANS: usize = 512;
/// How long the first span of a batch waits for others.
const BATCH_WAIT: Duration = Duration::from_secs(1);

/// Sends batches, one after the other.
pub(super) struct Exporter {
    client: Result<Client, String>,
    meter: SpanMeter,
    /// Where they go, for the log.
    endpoint: String,
    /// Whether the last batch was not taken.
    is_failing: bool,
}

impl Exporter {
    /// One that has sent nothing yet.
    pub(super) fn new(client: Result<Client, String>, meter: &SpanMeter, endpoint: String) -> Self {
        Self { client, meter: meter.clone(), endpoint, is_failing: false }
    }

    /// Sends until nobody is left who could leave a span, or until the `end`, and then what waits.
    pub(super) async fn run(mut self, mut spans: Receiver<Span>, end: CancellationToken) {
        loop {
            let mut batch = Vec::with_capacity(BATCH_SPANS);
            tokio::select! {
                got = spans.recv_many(&mut batch, BATCH_SPANS) => if got == 0 { return },
                () = end.cancelled(), if !spans.is_closed() => {
                    spans.close();
                    continue;
                }
            }
            let until = Instant::now() + BATCH_WAIT;
            while batch.len() < BATCH_SPANS && !end.is_cancelled() {
                let room = BATCH_SPANS - batch.len();
                let more = timeout_at(until, spans.recv_many(&mut batch, room));
                tokio::select! {
                    got = more => if !matches!(got, Ok(1..)) { break },
                    () = end.cancelled() => break,
                }
            }
            self.send(batch).await;
        }
    }

    async fn send(&mut self, batch: Vec<Span>) {
        let count = batch.len();
        let sent = match &self.client {
            Ok(client) => client.export(batch).await,
            Err(why) => Err(why.clone()),
        };
        let (endpoint, was_failing) = (&self.endpoint, self.is_failing);
        self.is_failing = sent.is_err();
        match sent {
            Ok(()) => {
                self.meter.exported(count);
                if was_failing {
                    tracing::info!(%endpoint, "spans are exported again");
                }
            }
            Err(why) => {
                self.meter.failed(count);
                if !was_failing {
                    tracing::warn!(%endpoint, "spans cannot be exported: {why}");
                }
            }
        }
    }
}
