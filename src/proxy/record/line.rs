//! The access line of a request that has ended.

use std::time::Duration;

use http::Version;

use super::{Ended, Record, TunnelNotes};
use crate::base::body::Progress;
use crate::base::facts::Target;
use crate::base::http::credentials::without_credentials;
use crate::cache;
use crate::config::TokenSource;
use crate::encode::Coding;
use crate::observe::access::{Line, Shown};
use crate::observe::{AskedUrl, CacheReport, Marks, Stage};
use crate::plan::Plan;
use crate::proxy::edged::Side;
use crate::proxy::request::{Received, Resolved};

impl Record {
    /// Tells of a request that took so long, as far as anybody wants to know.
    pub(super) fn tell(&self, ended: Ended<'_>, duration: Duration) {
        let Received { connection, ids, .. } = ended.received;
        let access = &connection.gateway.observer.access;
        let is_slow = access.slow.is(self.answered_after(ended.received, duration));
        if is_slow && let Some(untold) = access.slow.warns() {
            self.warn(&ended, duration, untold);
        }
        let is_notable =
            is_slow || self.reason.is_some() || self.status >= 500 || !self.degraded.is_empty();
        let is_written = access.is_on() && (is_notable || access.samples(ids.trace));
        let (recent, looking) = (&connection.gateway.observer.recent, &connection.gateway.looking);
        let ended_at = ended.received.started + duration;
        let is_kept = recent.takes(ended_at, is_notable, looking.is_watched());
        if !is_written && !is_kept {
            return;
        }
        self.with_line(ended, duration, is_slow, |line| {
            if is_written {
                access.write(line);
            }
            if is_kept && let Some(kept) = recent.keep(line) {
                let kind = if line.reason.is_some() { "refusal" } else { "request" };
                looking.tell(kind, || kept.told.clone().into());
            }
        });
    }

    /// Counts the URL of a request that the cache was asked for, while somebody wants to know.
    pub(super) fn tell_url(&self, ended: Ended<'_>, verdict: &str, duration: Duration) {
        let Ended { received, resolved, .. } = ended;
        let top_urls = &received.connection.gateway.observer.top_urls;
        let now = received.started + duration;
        let Some(stands_for) = top_urls.takes(now) else { return };
        let Some(target) = resolved.forwarded.as_deref().or(resolved.target.as_ref()) else {
            return;
        };
        let (scheme, site) = (resolved.client.scheme, target.authority.site());
        let mut url = format!("{scheme}://{site}{}", without_credentials(target.path()));
        if let Some(query) = target.query() {
            url.extend(["?", &cache::without_values(query)]);
        }
        let route = resolved.route_name(received.plan());
        let is_hit = CacheReport::is_hit(verdict);
        top_urls.note(&url, AskedUrl { route, is_hit, bytes: self.bytes }, stands_for, now);
    }

    /// All that a request has waited for which began then and took so long.
    pub(super) fn stages(&self, ended: &Ended<'_>, duration: Duration) -> Marks {
        let started = ended.received.started;
        let mut marks = self.marks;
        if let Some(took) = self.upstream_time {
            let status = if self.reason.is_none() { self.status } else { 0 };
            marks.add_with(Stage::Upstream, started, took, status);
        }
        let is_collapsed = ended.cache == Some("collapsed") && self.upstream_time.is_none();
        marks.end(duration, if is_collapsed { Stage::Collapsed } else { Stage::Send });
        marks
    }

    /// Warns of a slow request; `untold`: so many before it had no warning.
    fn warn(&self, Ended { received, resolved, .. }: &Ended<'_>, took: Duration, untold: u64) {
        let path = resolved.target.as_ref().map_or("-", |target| target.path());
        let path = without_credentials(path);
        tracing::warn!(
            route = resolved.route_name(received.plan()),
            status = self.status,
            duration_ms = ms(took),
            store_ms = self.store_time.map(ms),
            upstream_ms = self.upstream_time.map(|took| ms(took.time)),
            request_id = received.ids.request.to_str().unwrap_or_default(),
            untold,
            "slow request: {} {path}",
            received.method
        );
    }

    /// Makes the line of a request that took so long, for whoever uses it.
    fn with_line(
        &self,
        ended: Ended<'_>,
        duration: Duration,
        is_slow: bool,
        used: impl FnOnce(&Line<'_>),
    ) {
        let Ended { received, resolved, caller, cache } = ended;
        let access = &received.connection.gateway.observer.access;
        let (shown, told) = (&access.shown, received.told.as_deref());
        let now = jiff::Timestamp::now();
        let started =
            jiff::SignedDuration::try_from(duration).ok().and_then(|d| now.checked_sub(d).ok());
        let (host, path) = match &resolved.target {
            Some(target) => (target.authority.host(), without_credentials(target.path())),
            None => ("-", "-".into()),
        };
        let was_sent = self.upstream_time.is_some()
            || self.reason.is_some_and(|reason| reason.starts_with("upstream_"));
        let subject = caller.as_ref().and_then(|identity| identity.subject.as_deref());
        let is_recorded = received.ids.is_recorded;
        let (trace_id, span_id) =
            (received.ids.trace.id_digits(), received.ids.trace.span_digits());
        let span_id = std::str::from_utf8(&span_id).ok().filter(|_| is_recorded);
        let mut line = Line {
            time: started.unwrap_or(now),
            request_id: received.ids.request.to_str().unwrap_or_default(),
            trace_id: std::str::from_utf8(&trace_id).unwrap_or_default(),
            span_id,
            trace_sampled: is_recorded,
            client: shown.client(resolved.client.address),
            method: received.method.as_str(),
            host,
            path: &path,
            query: resolved
                .target
                .as_ref()
                .and_then(|target| query(shown, target, (received.plan(), resolved))),
            protocol: Some(protocol(received.version)),
            route: resolved.route_name(received.plan()),
            status: self.status,
            grpc_status: self.grpc_status,
            reason: self.reason,
            error: self.error.as_deref(),
            subject: subject.or(self.refused.as_deref()).map(|it| shown.subject(it)),
            limits: self.limits,
            cache,
            idempotency: self.idempotency,
            upstream: was_sent.then(|| resolved.upstream_name(received.plan())),
            pool: resolved.side().filter(|_| was_sent).map(Side::word),
            arm: resolved.chosen().map(|_| resolved.upstream_name(received.plan())),
            degraded: &self.degraded,
            bytes: self.bytes,
            encoding: resolved.edged.as_ref().and_then(|it| it.coding).map(Coding::name),
            duration_ms: ms(duration),
            store_ms: self.store_time.map(ms),
            upstream_ms: self.upstream_time.map(|took| ms(took.time)),
            stages: self.stages(&ended, duration).micros(),
            bytes_in: self.upload.as_deref().map(Progress::received),
            slow: is_slow,
            user_agent: told.and_then(|fields| fields.user_agent.as_deref()),
            referer: told.and_then(|fields| fields.referer.as_deref()),
            headers: told.map_or(&[], |fields| &fields.headers),
            ..Line::default()
        };
        self.add_rare(&mut line, shown);
        used(&line);
    }

    /// Adds what few lines say.
    fn add_rare<'a>(&'a self, line: &mut Line<'a>, shown: &Shown) {
        if let Some(attempts) = &self.attempts {
            line.server = attempts.server();
            line.attempts = Some(attempts.count()).filter(|count| *count > 0);
            line.retry = attempts.reason();
        }
        line.delivery = self.delivery.as_deref();
        if let Some(why) = &self.why {
            why.tell(line, shown);
        }
        if let Some(TunnelNotes { report, .. }) = self.tunnel.as_deref() {
            line.received = Some(report.received);
            line.messages = Some(report.messages);
            line.tunnel_end = Some(report.end.word());
        }
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// What the client spoke.
fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "h2",
        Version::HTTP_10 => "http/1.0",
        _ => "http/1.1",
    }
}

/// What lines show of the query; no token is in that, wherever the configuration expects one.
fn query(shown: &Shown, target: &Target, (plan, resolved): (&Plan, &Resolved)) -> Option<String> {
    let edge = resolved.route(plan).and_then(|route| route.edge.as_ref());
    let is_oidc = edge.is_some_and(|edge| edge.oidc.is_some());
    let is_token = |name: &str| {
        // RFC 9700 §4.2.3: whoever reads the log ends no log-in.
        if is_oidc && matches!(name, "code" | "state") {
            return true;
        }
        let mut places = plan.config.auth.values().flat_map(|verifier| &verifier.from);
        places.any(|place| matches!(place, TokenSource::Query(it) if it == name))
    };
    shown.query(target.query(), is_token)
}
