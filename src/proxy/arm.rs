//! Which of a split route's upstreams takes a request, and why.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, Response};

use super::affinity;
use super::edged::{Chosen, Why};
use super::in_head::in_head;
use super::request::Request;
use crate::config::{HashKey, WHOLE};
use crate::traffic::{Canary, bucket};
use crate::upstream::{Download, Failure, has_failed};

/// The field by which a trusted proxy says which upstream takes a request: its name, `always` for
/// the one that is tried, `never` for the base.
const X_CANARY: &str = "x-canary";

/// Chooses the upstream of a request, once it is known who calls.
pub(super) fn choose(request: &Request<'_>, headers: &HeaderMap) {
    if let Some(edge) = &request.route.edge
        && let Some(arms) = &edge.split
    {
        let chosen = chosen(request, arms, headers);
        if let (Some(edged), Some(chosen)) = (&request.resolved.edged, chosen) {
            // Once: what was asked by one answer's name must not be sent elsewhere.
            let _ = edged.chosen.set(chosen);
        }
    }
}

fn chosen(request: &Request<'_>, arms: &[usize], headers: &HeaderMap) -> Option<Chosen> {
    let canary = request.running().traffic_of(request.route.index)?.canary.as_ref()?;
    let split = request.route.written.split.as_ref()?;
    let peer = request.received.connection.peer.address.ip();
    let forced = headers.get(X_CANARY).filter(|_| request.plan().client.trusts(peer));
    let (arm, why) = match (forced.and_then(|name| canary.named(name.as_bytes())), &split.sticky) {
        (Some(arm), _) => (arm, Why::Forced),
        (None, Some(sticky)) => {
            let bucket = bucket(&request.route.name, &key(sticky, request, headers));
            (canary.arm_of(bucket), Why::Bucket(bucket))
        }
        (None, None) => {
            let drawn = fastrand::u16(0..WHOLE);
            (canary.arm_of(drawn), Why::Drawn)
        }
    };
    Some(Chosen { arm, upstream: *arms.get(arm)?, why })
}

/// What of a request is hashed; of one that has none of it, its address.
fn key<'r>(sticky: &HashKey, request: &'r Request<'_>, headers: &'r HeaderMap) -> Cow<'r, [u8]> {
    let found = in_head(sticky, headers);
    let found = found.or_else(|| affinity::beside_the_head(sticky, request));
    let found = found.filter(|key| !key.is_empty());
    found.unwrap_or_else(|| Cow::Owned(affinity::address(request).into_bytes()))
}

/// Tells a canary what its arm has answered: a failure is what the upstream itself has failed. What
/// the client or the gateway is the cause of says nothing, and neither does what another request
/// was answered. `is_clients_time`: the client has said how long its call may take. `took` is none
/// where the client has taken a part of that time, or the gateway most of the route's deadline.
pub(super) fn note(
    canary: &Canary,
    arm: usize,
    (sent, is_clients_time): (&Result<Response<Box<Download>>, Failure>, bool),
    took: Option<Duration>,
) {
    let failed = match sent {
        Ok(response) => has_failed(response.status(), response.headers(), is_clients_time),
        // Unless others had a part in it, the upstream has used up the time of the route.
        Err(Failure::Deadline) => took.map(|_| true),
        Err(failure) => failure.is_upstreams().then_some(true),
    };
    if let Some(failed) = failed {
        canary.note(arm, failed, took);
    }
}

/// What `explain` tells of it.
pub(super) fn describe(request: &Request<'_>) -> Option<(String, String)> {
    let chosen = request.resolved.chosen()?;
    let traffic = request.running().traffic_of(request.route.index)?;
    let canary = traffic.canary.as_ref()?;
    let share = f64::from(canary.share()) / 100.0;
    let second = canary.name(1).unwrap_or_default();
    let why = match chosen.why {
        Why::Forced => format!("{X_CANARY} of a trusted proxy names it"),
        Why::Bucket(bucket) => format!(
            "the caller's number is {bucket} of {WHOLE}, and {second} takes {share}%, from 0 on"
        ),
        Why::Drawn => format!("it is drawn for each request, and {second} takes {share}%"),
    };
    Some((canary.name(chosen.arm)?.to_owned(), why))
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;
    use crate::config::{Arm, Split};

    #[test]
    fn only_what_the_upstream_has_failed_is_held_against_its_arm() {
        let arm = |name: &str| Arm { upstream: name.to_owned(), share: WHOLE / 2 };
        let arms = vec![arm("base"), arm("next")];
        let split = Split { arms, sticky: None, ramp: Vec::new(), rollback: None };
        let told_of = |failure: Failure, took: Option<Duration>| {
            let canary = Canary::new("all", &split, None);
            note(&canary, 1, (&Err(failure), false), took);
            let arm = &canary.now(0).arms[1];
            (arm.answers, arm.failures)
        };
        let told = |failure: Failure| told_of(failure, Some(Duration::from_secs(1)));
        // No more files, no more places, a slow or lost client, another one's request.
        for failure in [
            Failure::Connect(Error::from_raw_os_error(24)),
            Failure::Busy,
            Failure::Starved,
            Failure::Withdrawn,
            Failure::Shared,
        ] {
            let name = failure.to_string();
            assert_eq!(told(failure), (0, 0), "{name}");
        }
        assert_eq!(told(Failure::Deadline), (1, 1));
        assert_eq!(told_of(Failure::Deadline, None), (0, 0), "others have used up its time");
        for failure in [
            Failure::Connect(Error::from(ErrorKind::ConnectionRefused)),
            Failure::ConnectTimeout,
            Failure::Timeout,
            Failure::Broken(None),
            Failure::Unresolved,
            Failure::Open(Duration::ZERO),
        ] {
            let name = failure.to_string();
            assert_eq!(told(failure), (1, 1), "{name}");
        }
    }
}
