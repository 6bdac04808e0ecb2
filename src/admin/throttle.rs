//! How often an address may try to log in and fail. Pure: it is told what time it is.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;

/// Failures that an address has in one period.
const FAILURES_MAX: u32 = 5;
const PERIOD: Duration = Duration::from_secs(60);
/// Most addresses that are remembered; beyond them the oldest is forgotten.
const ADDRESSES_MAX: usize = 1024;

/// The failures of one address since the first one of its period.
#[derive(Debug)]
struct Failures {
    from: IpAddr,
    since: Instant,
    count: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Throttle(Vec<Failures>);

impl Throttle {
    /// Has an address try. A failure counts in the same step, so that none are made at once.
    ///
    /// # Errors
    /// It has failed too often, and may try again after this time.
    pub(super) fn attempt<T>(
        &mut self,
        from: IpAddr,
        now: Instant,
        check: impl FnOnce() -> Option<T>,
    ) -> Result<Option<T>, Duration> {
        let from = network(from);
        self.0.retain(|it| now.saturating_duration_since(it.since) < PERIOD);
        let known = self.0.iter().position(|it| it.from == from);
        if let Some(failures) = known.and_then(|at| self.0.get(at))
            && failures.count >= FAILURES_MAX
        {
            return Err(PERIOD.saturating_sub(now.saturating_duration_since(failures.since)));
        }
        let outcome = check();
        if outcome.is_none() {
            match known.and_then(|at| self.0.get_mut(at)) {
                Some(failures) => failures.count += 1,
                None => self.remember(Failures { from, since: now, count: 1 }),
            }
        }
        Ok(outcome)
    }

    /// They stand in the order of their time.
    fn remember(&mut self, failures: Failures) {
        if self.0.len() >= ADDRESSES_MAX {
            self.0.remove(0);
        }
        self.0.push(failures);
    }
}

/// Whoever has an IPv6 address has a whole network of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn five_failures_a_minute_are_all_that_an_address_has() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let one: IpAddr = [192, 0, 2, 1].into();
        for second in 0..5 {
            let failed = throttle.attempt(one, start + SECOND * second, || None::<()>);
            assert_eq!(failed, Ok(None), "{second}");
        }
        // What is right is refused, too: an answer would tell.
        let refused = throttle.attempt(one, start + SECOND * 10, || Some(()));
        assert_eq!(refused, Err(SECOND * 50));
        let other = throttle.attempt([192, 0, 2, 2].into(), start + SECOND * 10, || Some(()));
        assert_eq!(other, Ok(Some(())));
        assert_eq!(throttle.attempt(one, start + PERIOD, || Some(())), Ok(Some(())));
    }

    #[test]
    fn what_succeeds_does_not_count_and_what_is_remembered_is_bounded() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..10 {
            assert_eq!(throttle.attempt([192, 0, 2, 1].into(), now, || Some(())), Ok(Some(())));
        }
        for number in 0..2000 {
            let from = Ipv6Addr::from_bits(number << 64);
            assert_eq!(throttle.attempt(from.into(), now, || None::<()>), Ok(None));
        }
        assert_eq!(throttle.0.len(), ADDRESSES_MAX);
    }

    #[test]
    fn the_addresses_of_one_network_count_together() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let all = (0..6).map(|number| Ipv6Addr::from_bits((7 << 64) + number));
        let outcomes: Vec<_> =
            all.map(|from| throttle.attempt(from.into(), now, || None::<()>).is_ok()).collect();
        assert_eq!(outcomes, [true, true, true, true, true, false]);
    }
}
