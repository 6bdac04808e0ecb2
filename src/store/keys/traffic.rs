//! Keys of what the gateways of a fleet know together of traffic that moves. Names of routes are
//! the configuration's: none needs escaping.

use super::Keys;

impl Keys {
    /// When the ramp of a route's canary began, and whether it was stopped.
    pub fn canary(&self, route: &str) -> String {
        [&*self.prefix, ":canary:", route].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreUse;
    use crate::store::keys::{Kind, usage};

    #[test]
    fn they_are_kept_with_what_a_fleet_shares() {
        let key = Keys::new("app").canary("shop");
        assert_eq!(key, "app:canary:shop");
        assert_eq!(Kind::of(&key), Kind::Tls);
        assert_eq!(usage(&key), StoreUse::Main);
    }
}
