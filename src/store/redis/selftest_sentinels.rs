//! Looks whether sentinels tell where the primary is, and whether they could choose another one.

use super::claims::{View, choose};
use super::finding::Finding;
use super::sentinel::{Fault, Speech};
use super::slots::Address;
use crate::config;

/// With fewer, the loss of one leaves no majority, and nobody is promoted.
const SENTINELS_MIN: usize = 3;
const SUFFERS: &str = "fail-over";

/// What was found.
pub(super) struct Found {
    /// Where the sentinels say that the primary is.
    pub(super) primary: Option<Address>,
    /// What is not as it should be with them.
    pub(super) findings: Vec<Finding>,
    /// Whether none of them has answered anything.
    pub(super) is_silent: bool,
}

/// Asks all of them.
pub(super) async fn find(settings: &config::Store, named: &[Address], watched: &str) -> Found {
    let speech = Speech::of(settings, watched);
    let (mut findings, mut is_silent) = (Vec::new(), true);
    let mut views: Vec<View> = Vec::new();
    for address in named {
        match speech.ask_once(address).await {
            Ok(view) => {
                is_silent = false;
                views.push(view);
            }
            Err(fault) => {
                is_silent &= !fault.is_answer();
                findings.push(silent(address, &fault, watched));
            }
        }
    }
    let all: Vec<&View> = views.iter().collect();
    let Some(claim) = choose(&all, named.len(), 0, &[]) else {
        let seen = "no sentinel of {store}.url says where the primary is";
        let remedy = "correct the sentinels and the name in {store}.url, or [{store}.sentinel]";
        findings.push(Finding::fatal("sentinel", seen, remedy));
        return Found { primary: None, findings, is_silent };
    };
    if views.iter().any(|view| view.primary != claim.primary) {
        let seen = "sentinels do not agree on where the primary is";
        let remedy = "look again when a fail-over is over; SENTINEL MASTER shows what each knows";
        findings.push(Finding::warning("sentinel", seen, SUFFERS, remedy));
    }
    let known = views.iter().map(|view| view.others.len() + 1).max().unwrap_or_default();
    if known < SENTINELS_MIN {
        let seen = format!("there are {known} sentinels: without one of them nobody is promoted");
        let remedy = "run at least three, on machines that fail apart";
        findings.push(Finding::warning("sentinel", seen, SUFFERS, remedy));
    }
    if named.len() == 1 {
        let seen = "{store}.url names one sentinel: without it a gateway finds no primary at its \
                    start";
        findings.push(Finding::warning("sentinel", seen, "start", "name several in {store}.url"));
    }
    Found { primary: Some(claim.primary), findings, is_silent }
}

/// The replicas that the first sentinel knows that answers, or what to say where none says so.
pub(super) async fn replicas(
    settings: &config::Store,
    named: &[Address],
    watched: &str,
) -> Result<Vec<Address>, Finding> {
    let speech = Speech::of(settings, watched);
    let mut why = String::new();
    for address in named {
        match speech.replicas(address).await {
            Ok(replicas) => return Ok(replicas),
            Err(fault) => why = fault.to_string(),
        }
    }
    let seen = format!("no sentinel says which replicas there are, so none was looked at: {why}");
    let remedy = "give the sentinels' user +sentinel|replicas: `portcullis acl --sentinel` prints \
                  all rights";
    Err(Finding::warning("sentinel", seen, SUFFERS, remedy))
}

fn silent((host, port): &Address, fault: &Fault, watched: &str) -> Finding {
    let seen = format!("the sentinel {host}:{port} does not say where {watched} is: {fault}");
    let remedy = "see to it that it runs and watches that name; [{store}.sentinel] holds its user, \
                  its password and its TLS, and `portcullis acl --sentinel` prints the user";
    Finding::warning("sentinel", seen, SUFFERS, remedy)
}
