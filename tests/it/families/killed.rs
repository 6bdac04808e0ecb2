//! A gateway or Redis is killed at each step of an exchange: whoever has the token tries it again,
//! and there is one successor; whoever stole it is found out all the same.

use super::{House, Pair, ask, begin, exchange, revoked, status};
use crate::auth::code;
use crate::support::{Client, Gateway, Redis, TcpProxy, eventually, operate};

/// More than an exchange has.
const STEPS_MAX: usize = 12;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Gateway,
    Redis,
}

/// At which side of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Before Redis has heard of it.
    Before,
    /// After Redis has done it, and before the gateway has heard so.
    After,
}

/// One gateway behind a network that can be cut, another one beside it.
struct Pairing {
    house: House,
    redis: Redis,
    proxy: TcpProxy,
    near: Gateway,
    grace: &'static str,
}

impl Pairing {
    fn open(grace: &'static str) -> Self {
        let house = House::open();
        let settings = ["--appendonly", "yes", "--appendfsync", "always"].map(str::to_owned);
        let redis = Redis::start_with(&settings);
        let proxy = TcpProxy::start(redis.address());
        let near = house.gateway(&redis.url(), grace, "");
        Self { house, redis, proxy, near, grace }
    }

    /// Sends a token to a gateway that is new, and kills at one side of a step. What was answered,
    /// and nothing where the exchange has no such step.
    fn killed_at(
        &mut self,
        step: usize,
        side: Side,
        victim: Victim,
        token: &str,
    ) -> Option<Option<Pair>> {
        let far = self.house.gateway(&self.proxy.url(), self.grace, "");
        eventually("the gateway has its store", || {
            operate(&far, "GET", "/v1/families?sub=42", "").status == 200
        });
        match side {
            Side::Before => self.proxy.swallow_after(step),
            Side::After => self.proxy.mute_after(step),
        }
        let public = far.public;
        let sent = std::thread::scope(|scope| {
            let asked = scope.spawn(move || {
                Client::request(public, "POST", "/token")
                    .header("Content-Type", "application/x-www-form-urlencoded")
                    .body(format!("grant_type=refresh_token&refresh_token={token}"))
                    .try_send()
            });
            eventually("it is at this step", || self.proxy.holds() || asked.is_finished());
            let was_cut = self.proxy.holds();
            match victim {
                Victim::Gateway => drop(far),
                Victim::Redis => self.redis.kill(),
            }
            // What is held back is lost with its connection.
            self.proxy.hang_up();
            self.proxy.pass();
            let reply = asked.join().expect("the client").ok();
            was_cut.then(|| reply.filter(|it| it.status == 200).map(|it| Pair::of(&it)))
        });
        if victim == Victim::Redis {
            self.redis.restart();
        }
        eventually("the other gateway has its store", || {
            operate(&self.near, "GET", "/v1/families?sub=42", "").status == 200
        });
        sent
    }

    /// Calls `then` after a death at each step; how many there were.
    fn at_each_step(
        &mut self,
        side: Side,
        victim: Victim,
        token: impl Fn(&Self) -> String,
        mut then: impl FnMut(&Self, &str, Option<Pair>),
    ) -> usize {
        for step in 0..STEPS_MAX {
            let token = token(self);
            let Some(answered) = self.killed_at(step, side, victim, &token) else { return step };
            then(self, &token, answered);
        }
        panic!("an exchange has no end");
    }
}

const ALL: [(Side, Victim); 4] = [
    (Side::Before, Victim::Gateway),
    (Side::After, Victim::Gateway),
    (Side::Before, Victim::Redis),
    (Side::After, Victim::Redis),
];

#[test]
fn whoever_was_not_answered_tries_again_and_there_is_one_successor() {
    let mut pairing = Pairing::open(", grace = \"5m\"");
    for (side, victim) in ALL {
        let begun = |it: &Pairing| begin(&it.near, "42").refresh;
        let steps = pairing.at_each_step(side, victim, begun, |it, token, answered| {
            let next = exchange(&it.near, token);
            // Signatures differ, and what is signed does not.
            let said = |pair: &Pair| (pair.refresh.clone(), pair.says());
            for same in answered.into_iter().chain([exchange(&it.near, token)]) {
                assert_eq!(said(&same), said(&next), "{side:?} {victim:?}");
            }
            let last = exchange(&it.near, &next.refresh);
            assert_eq!(status(&it.near, &last), 200);
        });
        // It is found, asked whether it is revoked, and exchanged.
        assert!(steps >= 3, "{side:?} {victim:?}: {steps}");
    }
}

#[test]
fn a_reuse_is_found_out_however_its_discovery_was_cut_off() {
    let mut pairing = Pairing::open(", grace = \"0s\"");
    for (side, victim) in ALL {
        let last = std::cell::RefCell::new(None);
        let stolen = |it: &Pairing| {
            let first = begin(&it.near, "42");
            *last.borrow_mut() = Some(exchange(&it.near, &first.refresh));
            first.refresh
        };
        let steps = pairing.at_each_step(side, victim, stolen, |it, token, answered| {
            assert_eq!(answered, None, "{side:?} {victim:?}");
            // The owner comes, and then the thief again: by then at the latest nobody is in.
            let owned = last.borrow_mut().take().expect("a pair");
            let owner = ask(&it.near, &owned.refresh);
            let thief = ask(&it.near, token);
            for reply in [&owner, &thief] {
                assert!([200, 400].contains(&reply.status), "{}", reply.text());
            }
            assert_eq!(thief.status, 400, "{side:?} {victim:?}");
            revoked(&it.near, &owned);
            if owner.status == 200 {
                let next = Pair::of(&owner);
                revoked(&it.near, &next);
                let again = ask(&it.near, &next.refresh);
                assert_eq!((again.status, &*code(&again)), (400, "refresh_token_invalid"));
            }
        });
        // It is found out, and revoked, and ended.
        assert!(steps >= 5, "{side:?} {victim:?}: {steps}");
    }
}
