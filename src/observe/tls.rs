//! What operators see of TLS with clients.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::family::Family;
use super::histogram::Histogram;

/// How a handshake can end.
const RESULTS: [&str; 12] = [
    "ok",
    "acme_challenge",
    "clear",
    "client_certificate",
    "closed",
    "incompatible",
    "malformed",
    "no_certificate_yet",
    "refused_by_client",
    "timeout",
    "tls_busy",
    "unknown_name",
];

/// How an order of a certificate can end.
const ORDER_RESULTS: [&str; 8] =
    ["issued", "put_back", "failed", "lease_lost", "over_budget", "store", "timeout", "unproved"];

/// Counts of handshakes, of what they agreed on, and of certificates read anew.
#[derive(Debug)]
pub struct TlsMeter {
    handshakes: Family<1, Counter>,
    duration: Histogram,
    sessions: Family<2, Counter>,
    reloads: Family<1, Counter>,
    orders: Family<1, Counter>,
    leader: Gauge,
}

impl Default for TlsMeter {
    fn default() -> Self {
        Self {
            handshakes: Family::new(["result"]),
            duration: Histogram::default(),
            sessions: Family::new(["version", "resumed"]),
            reloads: Family::new(["result"]),
            orders: Family::new(["result"]),
            leader: Gauge::default(),
        }
    }
}

impl TlsMeter {
    pub(super) fn register(&self, registry: &mut Registry) {
        for result in RESULTS {
            self.handshakes.of([result]).inc_by(0);
        }
        for version in ["TLSv1.2", "TLSv1.3"] {
            for resumed in ["no", "yes"] {
                self.sessions.of([version, resumed]).inc_by(0);
            }
        }
        for result in ["applied", "refused"] {
            self.reloads.of([result]).inc_by(0);
        }
        for result in ORDER_RESULTS {
            self.orders.of([result]).inc_by(0);
        }
        let help = "Orders of certificates by ACME, by result";
        registry.register("acme_orders", help, self.orders.clone());
        let help = "Certificates that this gateway orders now, for the fleet";
        registry.register("acme_leader", help, self.leader.clone());
        let help = "TLS handshakes with clients, by result";
        registry.register("tls_handshakes", help, self.handshakes.clone());
        let help = "One TLS handshake that succeeded, from the connection's start";
        let duration = self.duration.clone();
        registry.register_with_unit("tls_handshake", help, Unit::Seconds, duration);
        let help = "TLS sessions with clients, by version and by whether they were resumed";
        registry.register("tls_versions", help, self.sessions.clone());
        let help = "Certificate files read anew after a change, by result";
        registry.register("tls_reloads", help, self.reloads.clone());
    }

    /// A handshake succeeded after so long.
    pub fn shaken(&self, took: Duration, version: &'static str, is_resumed: bool) {
        self.handshakes.of(["ok"]).inc();
        self.duration.observe(took);
        let resumed = if is_resumed { "yes" } else { "no" };
        self.sessions.of([version, resumed]).inc();
    }

    /// A handshake failed.
    pub fn failed(&self, result: &'static str) {
        self.handshakes.of([result]).inc();
    }

    /// An order of a certificate ended.
    pub fn ordered(&self, result: &'static str) {
        self.orders.of([result]).inc();
    }

    /// This gateway orders one certificate more for the fleet, until what is returned is dropped.
    pub fn leads(&self) -> Leads<'_> {
        self.leader.inc();
        Leads(&self.leader)
    }

    /// Certificates were read anew, or could not be used.
    pub fn reloaded(&self, result: &'static str) {
        self.reloads.of([result]).inc();
    }
}

/// See [`TlsMeter::leads`].
#[derive(Debug)]
pub struct Leads<'m>(&'m Gauge);

impl Drop for Leads<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
