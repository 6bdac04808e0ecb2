//! The metrics of what the gateway asks of Redis.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::series::{Described, family};

/// One store, looked up when somebody asks. All words are this program's, except the names of
/// servers, which are the configuration's and Redis's own.
#[derive(Debug, Default)]
pub struct StoreNow {
    /// Which store it is.
    pub name: &'static str,
    /// The servers that are asked, and the rung of each.
    pub nodes: Vec<(String, &'static str)>,
    /// All rungs.
    pub rungs: &'static [&'static str],
    /// What became of questions.
    pub questions: Vec<(&'static str, u64)>,
    /// How many are in flight, and most of them.
    pub in_flight: (u64, u64),
    /// How often a connection was made again that was lost.
    pub reconnects: u64,
    /// How many were too much at a time.
    pub shed: u64,
    /// How commands were sent on.
    pub redirects: Vec<(&'static str, u64)>,
    /// What was looked at, and whether it was found to be as it should.
    pub checks: Vec<(&'static str, bool)>,
}

/// Writes all of them.
pub(super) fn encode(stores: &[StoreNow], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let states = stores.iter().flat_map(|store| {
        store.nodes.iter().flat_map(move |(node, rung)| {
            store.rungs.iter().map(move |state| {
                let labels = [("store", store.name), ("node", &**node), ("state", *state)];
                (labels, ConstGauge::new(i64::from(state == rung)))
            })
        })
    });
    let help = "The rung of each server of Redis that is asked: 1 for the one it is on.";
    family(encoder, &Described::new("store_state", help), states)?;
    let questions = stores.iter().flat_map(|store| {
        let counts = store.questions.iter();
        counts.map(|(outcome, count)| {
            ([("store", store.name), ("outcome", *outcome)], ConstCounter::new(*count))
        })
    });
    let help = "Exchanges with Redis, by what became of them; open and shed were not begun.";
    family(encoder, &Described::new("store_questions", help), questions)?;
    encode_connections(stores, encoder)?;
    let shed = stores.iter().map(|it| ([("store", it.name)], ConstCounter::new(it.shed)));
    let help = "Exchanges with Redis that store.max_in_flight forbade.";
    family(encoder, &Described::new("store_shed", help), shed)?;
    let redirects = stores.iter().flat_map(|store| {
        let counts = store.redirects.iter();
        counts.map(|(kind, count)| {
            ([("store", store.name), ("kind", *kind)], ConstCounter::new(*count))
        })
    });
    let help = "Commands that a server of a Redis Cluster sent on, by how.";
    family(encoder, &Described::new("store_redirects", help), redirects)?;
    let checks = stores.iter().flat_map(|store| {
        let checks = store.checks.iter();
        checks.map(|(check, is_ok)| {
            ([("store", store.name), ("check", *check)], ConstGauge::new(i64::from(*is_ok)))
        })
    });
    let help = "Whether the look at Redis found it as it should be (1) or not (0), by check.";
    family(encoder, &Described::new("store_selftest_ok", help), checks)
}

fn encode_connections(stores: &[StoreNow], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let gauge = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    let now = stores.iter().map(|it| ([("store", it.name)], gauge(it.in_flight.0)));
    let help = "Exchanges with Redis that are in progress.";
    family(encoder, &Described::new("store_questions_in_flight", help), now)?;
    let most = stores.iter().map(|it| ([("store", it.name)], gauge(it.in_flight.1)));
    let help = "Most exchanges with Redis, store.max_in_flight on each connection.";
    family(encoder, &Described::new("store_questions_max", help), most)?;
    let again = stores.iter().map(|it| ([("store", it.name)], ConstCounter::new(it.reconnects)));
    let help = "Connections to Redis that were lost and have been made again.";
    family(encoder, &Described::new("store_reconnects", help), again)
}
