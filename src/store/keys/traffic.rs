//! Keys of what the gateways of a fleet know together of traffic that moves and of upstreams. Names
//! of routes and upstreams are the configuration's: none needs escaping.

use super::Keys;

impl Keys {
    /// When the ramp of a route's canary began, and whether it was stopped.
    pub fn canary(&self, route: &str) -> String {
        [&*self.prefix, ":canary:", route].concat()
    }

    /// What each gateway says of the answers to a route's canary.
    pub fn canary_answers(&self, route: &str) -> String {
        [&*self.prefix, ":canary-answers:", route].concat()
    }

    /// What each gateway says of an upstream.
    pub fn fleet(&self, upstream: &str) -> String {
        [&*self.prefix, ":fleet:", upstream].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreUse;
    use crate::store::keys::{Kind, usage};

    #[test]
    fn they_are_kept_with_what_a_fleet_shares() {
        let keys = Keys::new("app");
        for (key, expected) in [
            (keys.canary("shop"), "app:canary:shop"),
            (keys.canary_answers("shop"), "app:canary-answers:shop"),
            (keys.fleet("shop"), "app:fleet:shop"),
        ] {
            assert_eq!(key, expected);
            assert_eq!((Kind::of(&key), usage(&key)), (Kind::Tls, StoreUse::Main), "{key}");
        }
    }
}
