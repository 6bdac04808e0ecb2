//! What a key holds, read from the key itself: the embedded store has a budget for each kind.

use crate::config::StoreUse;

/// What keys of [`Kind::Tls`] go on with.
const OF_THE_FLEET: [&str; 5] = ["{tls}:", "canary:", "canary-answers:", "fleet:", "nodes:"];

/// What keys of sessions and of log-ins may go on with beside `session`.
const OF_LOG_INS: [&str; 4] =
    ["auth:refresh", "auth:login:", "auth:logout-token:", "auth:provider-"];

/// What lies under a key of the embedded store, counters of limits aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sessions, what is kept beside them, the indexes of their users, families of refresh tokens
    /// and theirs, and whatever else an application writes.
    Session,
    /// Revocations and not-before times.
    Revocation,
    /// Records of API keys, their ids, and the indexes of their owners.
    ApiKey,
    /// Epochs of the cache, and notes of what was purged lately.
    Epoch,
    /// Cached responses, pieces of their bodies, and locks of fetches.
    Cached,
    /// Certificates and what ordering them needs, what is known of canaries, and what gateways tell
    /// each other: a few of each configured name.
    Tls,
    /// Marks of callers who have written lately.
    Mark,
}

impl Kind {
    /// All of them, each at its number.
    pub const ALL: [Self; Self::Mark as usize + 1] = [
        Self::Session,
        Self::Revocation,
        Self::ApiKey,
        Self::Epoch,
        Self::Cached,
        Self::Tls,
        Self::Mark,
    ];

    /// The kind of a key. `store.prefix` holds no colon.
    pub fn of(key: &str) -> Self {
        let rest = key.split_once(':').map_or("", |(_, rest)| rest);
        if rest.starts_with("cache:") || rest.starts_with("cache-warming:") {
            Self::Cached
        } else if rest.starts_with("cache-epoch:") || rest.starts_with("cache-purges:") {
            Self::Epoch
        } else if OF_THE_FLEET.iter().any(|family| rest.starts_with(family)) {
            Self::Tls
        } else if rest.starts_with("wrote:") {
            Self::Mark
        } else if rest.starts_with("auth:key") {
            Self::ApiKey
        } else if OF_LOG_INS.iter().any(|family| rest.starts_with(family)) {
            Self::Session
        } else if rest.starts_with("auth:") {
            Self::Revocation
        } else {
            Self::Session
        }
    }
}

/// What the store of a key is used for.
pub fn usage(key: &str) -> StoreUse {
    match Kind::of(key) {
        Kind::Cached | Kind::Epoch => StoreUse::Cache,
        Kind::Session if is_below(key, "ratelimit:") => StoreUse::Limits,
        Kind::Session if is_below(key, "queue:") => StoreUse::Queue,
        Kind::Session | Kind::Revocation | Kind::ApiKey | Kind::Tls | Kind::Mark => StoreUse::Main,
    }
}

fn is_below(key: &str, family: &str) -> bool {
    key.split_once(':').is_some_and(|(_, rest)| rest.starts_with(family))
}

/// Whether a key is that of the epoch under which every cached response is stored.
pub fn is_cache_base(key: &str) -> bool {
    key.split_once(':').is_some_and(|(_, rest)| rest == "cache-epoch:{*}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::keys::Keys;

    #[test]
    fn all_kinds_stand_at_their_numbers() {
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number, "{kind:?}");
        }
    }

    #[test]
    fn every_key_of_the_contract_has_its_kind() {
        let keys = Keys::new("my.app-1");
        let entry = keys.cache_entry("h", "/auth:key", "r");
        for (key, kind) in [
            (keys.session("cache:x"), Kind::Session),
            (keys.session_end("s"), Kind::Session),
            (keys.sessions_of("s"), Kind::Session),
            (keys.blacklist("j"), Kind::Revocation),
            (keys.blacklist_key("j"), Kind::Revocation),
            (keys.blacklist_certificate("c"), Kind::Revocation),
            (keys.qualified("users").not_before("s"), Kind::Revocation),
            (keys.api_key("d"), Kind::ApiKey),
            (keys.api_key_id("i"), Kind::ApiKey),
            (keys.api_keys_of("o"), Kind::ApiKey),
            (keys.token_family("f"), Kind::Session),
            (keys.token_families_of("s"), Kind::Session),
            (keys.cache_base(), Kind::Epoch),
            (keys.cache_path("h", "/p"), Kind::Epoch),
            (Keys::tags_purged(&keys.cache_tags_clock()).unwrap_or_default(), Kind::Epoch),
            (Keys::cache_lock(&entry, 1), Kind::Cached),
            (Keys::cache_body(&entry, &[0; 16], 1), Kind::Cached),
            (keys.cache_warming("r"), Kind::Cached),
            (keys.tls_certificate("a.test"), Kind::Tls),
            (keys.tls_version(), Kind::Tls),
            (keys.wrote(&["shop", "sub", "42"]), Kind::Mark),
            (entry, Kind::Cached),
            ("no-key".to_owned(), Kind::Session),
        ] {
            assert_eq!(Kind::of(&key), kind, "{key}");
        }
        assert!(is_cache_base(&keys.cache_base()));
        let mut window = String::new();
        keys.limit_into(&mut window, "api", "1m", "address=10.0.0.1");
        for (key, expected) in [
            (window, StoreUse::Limits),
            (keys.in_flight("api", "address=10.0.0.1"), StoreUse::Limits),
            (keys.cache_base(), StoreUse::Cache),
            (keys.cache_warming("r"), StoreUse::Cache),
            (keys.session("ratelimit:"), StoreUse::Main),
            (keys.gateways(), StoreUse::Main),
            (keys.revocations(), StoreUse::Main),
            (keys.tls_version(), StoreUse::Main),
            (keys.wrote(&["shop", "sub", "42"]), StoreUse::Main),
        ] {
            assert_eq!(usage(&key), expected, "{key}");
        }
        assert!(!is_cache_base(&keys.cache_route("*")) && !is_cache_base(&keys.session("{*}")));
    }
}
