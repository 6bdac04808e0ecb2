//! What operators see of TLS with clients.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Session {
    version: &'static str,
    resumed: &'static str,
}

/// Counts of handshakes, of what they agreed on, and of certificates read anew.
#[derive(Debug, Default)]
pub struct TlsMeter {
    handshakes: Family<Outcome, Counter>,
    duration: Histogram,
    sessions: Family<Session, Counter>,
    reloads: Family<Outcome, Counter>,
    orders: Family<Outcome, Counter>,
    leader: Gauge,
}

impl TlsMeter {
    pub(super) fn register(&self, registry: &mut Registry) {
        for result in RESULTS {
            self.handshakes.get_or_create(&Outcome { result }).inc_by(0);
        }
        for version in ["TLSv1.2", "TLSv1.3"] {
            for resumed in ["no", "yes"] {
                self.sessions.get_or_create(&Session { version, resumed }).inc_by(0);
            }
        }
        for result in ["applied", "refused"] {
            self.reloads.get_or_create(&Outcome { result }).inc_by(0);
        }
        for result in ORDER_RESULTS {
            self.orders.get_or_create(&Outcome { result }).inc_by(0);
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
        self.handshakes.get_or_create(&Outcome { result: "ok" }).inc();
        self.duration.observe(took);
        let resumed = if is_resumed { "yes" } else { "no" };
        self.sessions.get_or_create(&Session { version, resumed }).inc();
    }

    /// A handshake failed.
    pub fn failed(&self, result: &'static str) {
        self.handshakes.get_or_create(&Outcome { result }).inc();
    }

    /// An order of a certificate ended.
    pub fn ordered(&self, result: &'static str) {
        self.orders.get_or_create(&Outcome { result }).inc();
    }

    /// This gateway orders one certificate more for the fleet, until what is returned is dropped.
    pub fn leads(&self) -> Leads<'_> {
        self.leader.inc();
        Leads(&self.leader)
    }

    /// Certificates were read anew, or could not be used.
    pub fn reloaded(&self, result: &'static str) {
        self.reloads.get_or_create(&Outcome { result }).inc();
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
