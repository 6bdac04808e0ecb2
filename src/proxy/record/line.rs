//! The access line of a request that has ended.

use std::time::Duration;

use super::{Ended, Record, TunnelNotes};
use crate::encode::Coding;
use crate::observe::access::Line;
use crate::proxy::edged::Side;

impl Record {
    /// Writes the line of a request that took so long.
    pub(super) fn write_line(&self, ended: Ended<'_>, duration: Duration) {
        let Ended { received, resolved, caller, cache } = ended;
        let ms = |duration: Duration| duration.as_micros() as f64 / 1000.0;
        let now = jiff::Timestamp::now();
        let started =
            jiff::SignedDuration::try_from(duration).ok().and_then(|d| now.checked_sub(d).ok());
        let (host, path) = match &resolved.target {
            Some(target) => (target.authority.host(), target.path()),
            None => ("-", "-"),
        };
        let was_sent = self.upstream_time.is_some()
            || self.reason.is_some_and(|reason| reason.starts_with("upstream_"));
        let subject = caller.as_ref().and_then(|identity| identity.subject.as_deref());
        let trace_id = received.ids.trace.id_digits();
        let mut line = Line {
            time: format!("{:.3}", started.unwrap_or(now)),
            request_id: received.ids.request.to_str().unwrap_or_default(),
            trace_id: std::str::from_utf8(&trace_id).unwrap_or_default(),
            client: resolved.client.address.to_string(),
            method: received.method.as_str(),
            host,
            path,
            route: resolved.route_name(received.plan()),
            status: self.status,
            grpc_status: self.grpc_status,
            reason: self.reason,
            error: self.error.as_deref(),
            subject: subject.or(self.refused.as_deref()),
            limits: self.limits,
            cache,
            upstream: was_sent.then(|| resolved.upstream_name(received.plan())),
            pool: resolved.side().filter(|_| was_sent).map(Side::word),
            arm: resolved.chosen().map(|_| resolved.upstream_name(received.plan())),
            degraded: &self.degraded,
            bytes: self.bytes,
            encoding: resolved.edged.as_ref().and_then(|it| it.coding).map(Coding::name),
            duration_ms: ms(duration),
            store_ms: self.store_time.map(ms),
            upstream_ms: self.upstream_time.map(ms),
            ..Line::default()
        };
        if let Some(attempts) = &self.attempts {
            line.server = attempts.server();
            line.attempts = Some(attempts.count()).filter(|count| *count > 1);
            line.retry = attempts.reason();
        }
        if let Some(why) = &self.why {
            why.tell(&mut line);
        }
        if let Some(TunnelNotes { report, .. }) = self.tunnel.as_deref() {
            line.received = Some(report.received);
            line.messages = Some(report.messages);
            line.tunnel_end = Some(report.end.word());
        }
        received.connection.gateway.observer.access.write(&line);
    }
}
