//! What operators see of an upstream's servers, and what they do to them by hand.

use std::time::Duration;

use super::care::Reason;
use super::endpoint::Endpoint;
use super::endpoints::Endpoints;
use super::failure::Failure;
use super::retry;
use super::tally::Kind;
use crate::config::Balance;
use crate::observe::{CareNow, NameNow, RetriesNow, ServerNow};

/// What an operator does to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Takes it out until it is restored.
    Eject,
    /// Brings it back, whatever is known of it.
    Restore,
}

/// Where a request would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreseen {
    /// The server, as the configuration writes it.
    pub server: String,
    /// Why that one.
    pub why: String,
}

/// What is known of an upstream's servers.
pub(super) fn now(endpoints: &Endpoints, names: Vec<NameNow>) -> CareNow {
    let care = endpoints.care();
    let ejects = care.is_some_and(|care| care.settings().care.eject.is_some());
    let ejections = care.filter(|_| ejects).map(|care| care.ejections());
    let all = endpoints.all().iter().enumerate();
    let is_ewma = endpoints.settings().balance == Balance::Ewma;
    CareNow {
        breaker: care.and_then(|care| care.breaker_state()),
        is_panic: endpoints.candidates().is_panic,
        retries: endpoints.retry().map(|retry| RetriesNow {
            outcomes: retry::Outcome::WORDS.into_iter().zip(retry.outcomes()).collect(),
            budget_left: retry.left(),
            hedges: retry.hedges(),
        }),
        ejections: Reason::WORDS.into_iter().zip(ejections.into_iter().flatten()).collect(),
        names,
        servers: all
            .map(|(at, server)| ServerNow {
                weight: endpoints.weight(at),
                is_backup: endpoints.is_backup(at),
                latency: is_ewma.then(|| server.latency().estimate()).flatten(),
                failures: if care.is_some() { failures(server) } else { Vec::new() },
                ..of_server(server)
            })
            .collect(),
    }
}

fn failures(server: &Endpoint) -> Vec<(&'static str, u64)> {
    Kind::WORDS.into_iter().zip(server.tally().failures()).collect()
}

fn of_server(server: &Endpoint) -> ServerNow {
    let verdict = server.verdict();
    let word = verdict.word();
    ServerNow {
        url: server.transport().url(),
        busy: server.busy(),
        idle: server.idle(),
        requests: server.attempts().total(),
        errors: server.attempts().failed().collect(),
        is_in: word.is_usable(),
        is_probing: word.is_probing(),
        states: vec![
            ("by_hand", word.is_by_hand()),
            ("down", word.is_down()),
            ("ejected", word.is_ejected()),
            ("fleet", word.is_out_elsewhere()),
            ("avoided", word.is_avoided()),
            ("slow_start", word.is_slow()),
        ],
        left: word.left(verdict.now()).map(Duration::from_millis),
        times: word.times(),
        failures_in_a_row: verdict.failures(),
        fault: server.checked().fault(),
        ..ServerNow::default()
    }
}

/// Changes the server with this url; without one, all, and the breaker is closed, where they are
/// restored. Returns how many servers it was about.
pub(super) fn change(endpoints: &Endpoints, url: Option<&str>, change: Change) -> usize {
    let is_meant = |server: &Endpoint| url.is_none_or(|url| server.transport().url() == url);
    let begins_slowly = endpoints.care().is_some_and(|care| care.begins_slowly());
    let mut count = 0;
    for server in endpoints.all().iter().filter(|server| is_meant(server)) {
        count += 1;
        match change {
            Change::Eject => server.verdict().take_out(),
            Change::Restore => server.verdict().restore(begins_slowly),
        };
    }
    if let (Change::Restore, None, Some(care)) = (change, url, endpoints.care()) {
        care.close_breaker();
    }
    count
}

/// Where a request would go now, by one that only looks.
///
/// # Errors
/// Why it would go nowhere.
pub(super) fn foresee(endpoints: &Endpoints, key: Option<u64>) -> Result<Foreseen, Failure> {
    if let Some(left) = endpoints.care().and_then(|care| care.refuses()) {
        return Err(Failure::Open(left));
    }
    let all = endpoints.all();
    if all.is_empty() {
        return Err(Failure::Unresolved);
    }
    if let [only] = all
        && endpoints.care().is_none()
        && endpoints.has_one_for_all()
    {
        let why = "it is the only server".to_owned();
        return Ok(Foreseen { server: only.transport().url(), why });
    }
    let candidates = endpoints.candidates();
    let found = endpoints.peek(key).and_then(|it| Some((it.at, all.get(it.at)?)));
    let Some((at, server)) = found else {
        return Err(Failure::Unavailable(endpoints.until_one_is_back()));
    };
    let how = how(endpoints, at, key);
    let (count, of) = (candidates.servers.len(), all.len());
    let whom = if candidates.is_panic {
        "all servers, as too few are in (panic)".to_owned()
    } else {
        format!("{count} of {of} servers that are in")
    };
    let backup = if endpoints.is_backup(at) { "; it is a backup" } else { "" };
    let why = format!("{how}, among {whom}{backup}");
    Ok(Foreseen { server: server.transport().url(), why })
}

/// How this server was chosen.
fn how(endpoints: &Endpoints, at: usize, key: Option<u64>) -> String {
    match (&endpoints.settings().balance, key) {
        (Balance::RoundRobin, _) => "the next one in turn".to_owned(),
        (Balance::Ewma, _) => {
            let busy = endpoints.all()[at].busy();
            let cost = endpoints.cost(at) * 1_000.0;
            format!(
                "of two random servers the one that would be sooner done, in {cost:.1} ms with \
                 {busy} requests in progress"
            )
        }
        (Balance::Hash(by), Some(_)) => format!("the one for this {by}"),
        (Balance::Hash(by), None) => {
            format!("the less busy of two random servers, as the request has no {by}")
        }
        (Balance::P2c, _) => "the less busy of two random servers".to_owned(),
    }
}
