//! What the gateways of a fleet tell each other of an upstream, and what each makes of that.
//!
//! It is advice: a gateway that hears nobody decides alone. What others say may be of any version,
//! and is believed within bounds. Pure, but for [`say`] and [`hear`].

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::endpoints::Endpoints;

/// What this one is written in; what is written in another one is not understood.
const VERSION: u32 = 1;
/// How far back counts reach.
const WINDOW_SECONDS: u64 = 10;
/// More within that time is no count.
const COUNT_MAX: u64 = 1_000_000_000;
/// Most ejected servers that are told of.
const EJECTED_MAX: usize = 32;
/// How many gateways must have ejected a server.
const VOTES_MIN: usize = 2;

/// What one gateway says of an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    v: u32,
    /// Requests of the last ten seconds.
    requests: u64,
    /// What failed at servers meanwhile.
    failures: u64,
    /// What was sent once more meanwhile.
    retries: u64,
    /// The servers that it has ejected by itself, as the configuration writes them.
    ejected: Vec<String>,
}

impl Said {
    /// What another gateway has written; nothing where nobody can know what it means.
    fn read(bytes: &[u8]) -> Option<Self> {
        let said: Self = serde_json::from_slice(bytes).ok()?;
        let counts = [said.requests, said.failures, said.retries];
        (said.v == VERSION && counts.iter().all(|count| *count <= COUNT_MAX)).then_some(said)
    }

    fn has_ejected(&self, url: &str) -> bool {
        self.ejected.iter().any(|it| it == url)
    }
}

/// Whether the fleet has ejected a server: at least two gateways have, and at least half of those
/// that send anything to its upstream.
fn is_ejected(url: &str, all: &[Said]) -> bool {
    let votes = all.iter().filter(|said| said.has_ejected(url)).count();
    let voters = all.iter().filter(|said| said.requests > 0 || said.has_ejected(url)).count();
    votes >= VOTES_MIN && votes * 2 >= voters
}

/// How many hundredths of a repeat a gateway may begin in a second beyond its own budget: its share
/// of what all of them have left of theirs, of which a second has a tenth. One that says too much
/// of itself must not let all others repeat without end: it is no more than if each of its `own`
/// requests were repeated once.
fn share(percent: u8, own: u64, all: &[Said]) -> u64 {
    let sum = |count: fn(&Said) -> u64| all.iter().map(count).fold(0, u64::saturating_add);
    let allowed = sum(|said| said.requests).saturating_mul(u64::from(percent));
    let left = allowed.saturating_sub(sum(|said| said.retries).saturating_mul(100));
    let share = left / (all.len() as u64).max(1);
    share.min(own.saturating_mul(100)) / WINDOW_SECONDS
}

/// Whether there is anything to tell.
fn is_on(endpoints: &Endpoints) -> bool {
    let settings = endpoints.settings();
    settings.fleet && (settings.care.eject.is_some() || settings.retry.is_some())
}

/// What this gateway says; nothing where it has nothing to say to others.
pub(super) fn say(endpoints: &Endpoints) -> Option<Vec<u8>> {
    if !is_on(endpoints) {
        return None;
    }
    let mut said = Said { v: VERSION, ..Said::default() };
    if let Some(care) = endpoints.care() {
        let seen = care.seen();
        (said.requests, said.failures) = (seen.all, seen.bad);
        let ejected = endpoints.all().iter().filter(|server| care.has_ejected(server));
        said.ejected = ejected.take(EJECTED_MAX).map(|server| server.transport().url()).collect();
    }
    if let Some(retry) = endpoints.retry() {
        let seen = retry.seen();
        (said.requests, said.retries) = (seen.all, seen.bad);
    }
    // It is made of texts and numbers: nothing in it fails to be written.
    serde_json::to_vec(&said).ok()
}

/// Goes by what all gateways say by now, this one too; by none, where nobody is heard any more.
pub(super) fn hear(endpoints: &Endpoints, all: &[(Bytes, Bytes)]) {
    if !is_on(endpoints) {
        return;
    }
    let all: Vec<Said> = all.iter().filter_map(|(_, bytes)| Said::read(bytes)).collect();
    if let Some(care) = endpoints.care() {
        for server in endpoints.all() {
            care.follow(server, is_ejected(&server.transport().url(), &all));
        }
    }
    if let Some(retry) = endpoints.retry() {
        retry.lend(share(retry.percent(), retry.seen().all, &all));
    }
}

#[cfg(test)]
mod tests;
