//! Keys of what the gateways of a fleet know together of traffic that moves, of upstreams and of
//! requests that take effect once. Names
//! of routes and upstreams are the configuration's: none needs escaping.

use aws_lc_rs::digest::{SHA256, digest};

use super::Keys;
use crate::base::http::hex;

impl Keys {
    /// When the ramp of a route's canary began, and whether it was stopped.
    pub fn canary(&self, route: &str) -> String {
        [&*self.prefix, ":canary:", route].concat()
    }

    /// The mark of all who have written to an upstream.
    pub fn anybody_wrote(&self, upstream: &str) -> String {
        self.wrote(&[upstream, "anybody"])
    }

    /// The mark of somebody who has written, by what tells him from others. No part but the last
    /// one may hold a zero byte. A digest, because names of sessions are credentials.
    pub fn wrote(&self, who: &[&str]) -> String {
        let mut key = [&*self.prefix, ":wrote:"].concat();
        hex::push(&mut key, digest(&SHA256, who.join("\0").as_bytes()).as_ref());
        key
    }

    /// What is known under an idempotency key, by the digest that tells it from others.
    pub fn idempotency(&self, scoped: &str) -> String {
        [&*self.prefix, ":idempotency:", scoped].concat()
    }

    /// What each gateway says of the answers to a route's canary.
    pub fn canary_answers(&self, route: &str) -> String {
        [&*self.prefix, ":canary-answers:", route].concat()
    }

    /// What each gateway says of an upstream.
    pub fn fleet(&self, upstream: &str) -> String {
        [&*self.prefix, ":fleet:", upstream].concat()
    }

    /// What each gateway says of itself.
    pub fn nodes(&self) -> String {
        [&*self.prefix, ":nodes:{*}"].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreUse;
    use crate::store::keys::{Kind, usage};

    #[test]
    fn a_mark_tells_nobody_whose_it_is() {
        let keys = Keys::new("app");
        let digest = "08d94a2357c24803611b69f54e0cb432093fa73bb36fc03d6c30046c1158eb1c";
        let key = keys.wrote(&["shop", "sub", "users", "42"]);
        assert_eq!(key, format!("app:wrote:{digest}"));
        assert_ne!(key, keys.wrote(&["shop", "sub", "users4", "2"]));
        assert_eq!(Kind::of(&key), Kind::Mark);
    }

    #[test]
    fn idempotency_keys_lie_in_the_main_store() {
        let key = Keys::new("app").idempotency("0f");
        assert_eq!((&*key, usage(&key)), ("app:idempotency:0f", StoreUse::Main));
    }

    #[test]
    fn they_are_kept_with_what_a_fleet_shares() {
        let keys = Keys::new("app");
        for (key, expected) in [
            (keys.canary("shop"), "app:canary:shop"),
            (keys.canary_answers("shop"), "app:canary-answers:shop"),
            (keys.fleet("shop"), "app:fleet:shop"),
            (keys.nodes(), "app:nodes:{*}"),
        ] {
            assert_eq!(key, expected);
            assert_eq!((Kind::of(&key), usage(&key)), (Kind::Tls, StoreUse::Main), "{key}");
        }
    }
}
