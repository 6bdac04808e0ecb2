//! What is known of the connections to upstreams, as it is told to operators.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::series::{Described, family};

/// The connections of one upstream, and the requests on them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Requests in progress; over HTTP/1.1 each has a connection, or is about to.
    pub busy: usize,
    /// Connections, in use and unused.
    pub open: usize,
    /// Requests that wait for one.
    pub waiting: usize,
    /// `max_connections`
    pub max: usize,
    /// `max_requests`
    pub requests_max: usize,
    /// Of the connections, those over HTTP/2, and of them those in use.
    pub trunks: (usize, usize),
    /// Requests in progress on them.
    pub streams: usize,
    /// How often a server has said that it takes no more on one (GOAWAY).
    pub goaways: u64,
}

/// Writes the families of all upstreams.
pub(super) fn encode(
    upstreams: &[(String, Occupancy)],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let value = |count: usize| ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
    let states = upstreams.iter().flat_map(|(name, it)| {
        let state = |protocol, state, count| {
            ([("upstream", &**name), ("state", state), ("protocol", protocol)], value(count))
        };
        let (trunks, busy_trunks) = it.trunks;
        let links = it.open.saturating_sub(trunks);
        let busy = it.busy.saturating_sub(it.streams);
        [
            state("http1", "busy", busy),
            state("http1", "idle", links.saturating_sub(busy)),
            state("h2", "busy", busy_trunks),
            state("h2", "idle", trunks.saturating_sub(busy_trunks)),
        ]
    });
    let help = "Connections to an upstream, in use (busy) or kept for the next request (idle).";
    family(encoder, &Described::new("upstream_connections", help), states)?;
    let most = upstreams.iter().map(|(name, it)| ([("upstream", &**name)], value(it.max)));
    let help = "Most connections to an upstream, its max_connections.";
    family(encoder, &Described::new("upstream_connections_max", help), most)?;
    let most = upstreams.iter().map(|(name, it)| ([("upstream", &**name)], value(it.requests_max)));
    let help = "Most requests in progress at an upstream, its max_requests.";
    family(encoder, &Described::new("upstream_requests_max", help), most)?;
    let streams = upstreams.iter().map(|(name, it)| ([("upstream", &**name)], value(it.streams)));
    let help = "Requests in progress on HTTP/2 connections to an upstream.";
    family(encoder, &Described::new("upstream_streams_open", help), streams)?;
    let goaways = upstreams.iter();
    let goaways =
        goaways.map(|(name, it)| ([("upstream", &**name)], ConstCounter::new(it.goaways)));
    let help = "Times that a server of an upstream took no more on an HTTP/2 connection (GOAWAY).";
    family(encoder, &Described::new("upstream_goaways", help), goaways)?;
    let waiting = upstreams.iter().map(|(name, it)| ([("upstream", &**name)], value(it.waiting)));
    let help = "Requests that wait for a connection to an upstream.";
    family(encoder, &Described::new("upstream_requests_waiting", help), waiting)
}
