//! What is known of the servers of a store without asking them.

use std::time::Duration;

use super::finding::Finding;
use super::rung::Rung;
use super::tally::Asked;

/// See the module.
#[derive(Debug, Clone)]
pub struct StoreState {
    /// Servers that are asked, then those of a Redis Cluster that may be.
    pub nodes: Vec<NodeState>,
    /// What became of questions, since the start.
    pub asked: Asked,
    /// Questions in flight, and most of them.
    pub in_flight: (u64, u64),
    /// How often a connection was made again that was lost.
    pub reconnects: u64,
    /// How often a server of a Redis Cluster sent a command on, by how.
    pub redirects: [(&'static str, u64); 3],
    /// The epoch of a Redis Cluster, as far as it is known.
    pub epoch: Option<u64>,
    /// What was looked at, and whether it was found to be as it should.
    pub checks: Vec<(&'static str, bool)>,
    /// What was not, with the server's name.
    pub findings: Vec<(String, Finding)>,
}

/// Why a store does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhyAway {
    /// What was seen, and at which server.
    pub seen: String,
    /// What to do, where that is known.
    pub remedy: Option<String>,
}

/// One server.
#[derive(Debug, Clone)]
pub struct NodeState {
    /// Host and port, or the path of its socket.
    pub name: String,
    /// Whether it is asked, or follows one that is.
    pub is_primary: bool,
    /// How well it serves.
    pub rung: Rung,
    /// For how long it has been on that rung.
    pub since: Duration,
    /// Why.
    pub cause: String,
}
