//! Where a response is kept, and under which epochs it is valid.
//!
//! Everything that can change the response and is not compared later is part of the key: the site,
//! the path, the query byte for byte, the route (whose upstream and rules it came from) and the
//! partition of the caller.

use std::fmt::Write as _;

use super::Policy;
use crate::base::facts::{Caller, Target};
use crate::store::keys::Keys;

/// Deepest path prefix that can be made stale on its own; deeper ones are covered by their parents.
const PREFIX_DEPTH_MAX: usize = 8;

/// The keys of one response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Key of the entry; names the response completely.
    pub entry: String,
    /// Epoch keys in order: the base, each path prefix from `/` down, the path itself.
    pub epochs: Vec<String>,
}

impl Place {
    /// The place of the response to a GET of `target` on a route.
    pub fn of(keys: &Keys, policy: &Policy, route: &str, target: &Target, caller: &Caller) -> Self {
        let mut variant = format!("{route}:");
        // Two issuers may give the same claim to different callers.
        let qualifier = caller.as_ref().and_then(|caller| caller.qualifier.as_deref());
        if let (Some(verifier), false) = (qualifier, policy.partition.is_empty()) {
            variant.extend([verifier, "/"]);
        }
        for name in &policy.partition {
            let value = caller.as_ref().and_then(|caller| caller.claim(name));
            let value = value.as_deref();
            // Lengths keep `a` + `bc` apart from `ab` + `c`, and absence apart from an empty value.
            let length = value.map_or_else(|| "-".to_owned(), |value| value.len().to_string());
            // Writing to a String cannot fail.
            let _ = write!(variant, "{length}={},", value.unwrap_or_default());
        }
        if let Some(query) = target.query() {
            variant.push('?');
            variant.push_str(query);
        }
        let site = target.authority.site();
        let path = target.path();
        let mut epochs = Vec::with_capacity(5);
        epochs.push(keys.cache_base());
        epochs.extend(prefixes(path).map(|prefix| keys.cache_prefix(prefix)));
        epochs.push(keys.cache_path(&site, path));
        Self { entry: keys.cache_entry(&site, path, &variant), epochs }
    }

    /// The epoch key of the path itself.
    pub fn path_epoch(&self) -> &str {
        self.epochs.last().map_or("", String::as_str)
    }
}

/// The epoch key that makes `path` stale: the prefix and everything below it on every host, or the
/// one path on `site`.
pub fn scope(keys: &Keys, site: &str, path: &str, and_below: bool) -> String {
    if and_below {
        let deepest = prefixes(path).last().unwrap_or("/");
        keys.cache_prefix(deepest)
    } else {
        keys.cache_path(site, path)
    }
}

/// `/`, `/a`, `/a/b` of `/a/b`.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let path = path.trim_end_matches('/');
    let ends = path.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
    let below = ends.chain((!path.is_empty()).then_some(path.len())).map(move |end| &path[..end]);
    std::iter::once("/").chain(below).take(PREFIX_DEPTH_MAX)
}

#[cfg(test)]
mod tests {
    use http::uri::PathAndQuery;

    use super::*;
    use crate::base::authority::Authority;

    fn place(host: &str, path: &'static str, partition: &[&str]) -> Place {
        let policy = Policy {
            shared: true,
            partition: partition.iter().map(|name| (*name).to_owned()).collect(),
            ..Policy::default()
        };
        let target = Target {
            authority: Authority::parse(host.as_bytes()).unwrap(),
            path_and_query: PathAndQuery::from_static(path),
        };
        Place::of(&Keys::new("app"), &policy, "r", &target, &None)
    }

    #[test]
    fn the_same_claim_from_two_issuers_parts_the_cache() {
        let entry = |verifier: Option<&str>, partition: &[&str]| {
            let caller = std::sync::Arc::new(crate::base::facts::Identity {
                claims: serde_json::Map::from_iter([("sub".to_owned(), "42".into())]),
                subject: None,
                issued_at: None,
                expires_at: 0,
                blacklist_keys: Vec::new(),
                not_before_key: None,
                qualifier: verifier.map(Into::into),
                headers: Vec::new(),
            });
            let policy = Policy {
                partition: partition.iter().map(|name| (*name).to_owned()).collect(),
                ..Policy::default()
            };
            let target = Target {
                authority: Authority::parse(b"h").unwrap(),
                path_and_query: PathAndQuery::from_static("/p"),
            };
            Place::of(&Keys::new("app"), &policy, "r", &target, &Some(caller)).entry
        };
        assert_eq!(entry(None, &["sub"]), "app:cache:{h/p}:entry:r:2=42,");
        assert_eq!(entry(Some("users"), &["sub"]), "app:cache:{h/p}:entry:r:users/2=42,");
        assert_eq!(entry(Some("users"), &[]), entry(None, &[]));
    }

    #[test]
    fn the_key_names_everything_that_tells_responses_apart() {
        let base = place("a.example", "/p", &[]).entry;
        assert_eq!(base, "app:cache:{a.example/p}:entry:r:");
        for other in [
            place("b.example", "/p", &[]),
            place("a.example:81", "/p", &[]),
            place("a.example", "/p?", &[]),
            place("a.example", "/p?a=1", &[]),
            place("a.example", "/p/", &[]),
            place("a.example", "/p", &["plan"]),
        ] {
            assert_ne!(other.entry, base);
        }
        assert_eq!(place("A.example:80", "/p", &[]).entry, base);
    }

    #[test]
    fn epochs_go_from_everything_down_to_the_path() {
        let epochs = place("h", "/a/b/", &[]).epochs;
        let expected = ["{*}", "{/}", "{/a}", "{/a/b}", "{h/a/b/}"];
        let expected = expected.map(|tag| format!("app:cache:{tag}:epoch"));
        assert_eq!(epochs, expected);
        assert_eq!(place("h", "/", &[]).epochs.len(), 3);
        assert_eq!(place("h", "/1/2/3/4/5/6/7/8/9/10", &[]).epochs.len(), 2 + PREFIX_DEPTH_MAX);
    }

    #[test]
    fn a_scope_is_one_of_the_epochs_it_must_change() {
        let keys = Keys::new("app");
        let place = place("h", "/1/2/3/4/5/6/7/8/9/10", &[]);
        for (path, below) in [
            ("/1/2/3/4/5/6/7/8/9/10", false),
            ("/1/2", true),
            ("/1/2/3/4/5/6/7/8/9", true),
            ("/", true),
        ] {
            assert!(place.epochs.contains(&scope(&keys, "h", path, below)), "{path}");
        }
    }
}
