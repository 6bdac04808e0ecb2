//! The key of a stored response, and the epochs under which it is valid.
//!
//! Everything that can change the response and is not compared later is part of the key: the site,
//! the path, the query as it is forwarded, the route (whose upstream and rules it came from) and
//! the partition of the caller.

use std::fmt::Write as _;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use crate::base::claim::{Found, Spelling};
use crate::base::facts::{Caller, Target};
use crate::base::http::path::Reading;
use crate::config;
use crate::store::keys::Keys;
use crate::store::{Epoch, hard_halves, soft_halves};

/// Deepest path prefix that can be made stale on its own; deeper ones are covered by their parents.
const PREFIX_DEPTH_MAX: usize = 8;

/// The key of one response, and those of its epochs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheKey {
    /// Key of the entry; names the response completely.
    pub entry: String,
    /// Epoch keys in order: the base, the clock of tags, the route, the host, each path prefix from
    /// `/` down, the path on every host where events purge such, the path itself.
    pub epochs: Vec<String>,
}

/// Who answers: a response of another route, upstream or scheme is another response.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Name of the route.
    pub route: &'a str,
    /// Name of the upstream, with the host that it is told of where that is not the target's.
    pub upstream: &'a str,
    /// `http` or `https`, as the client sees it.
    pub scheme: &'a str,
}

/// What of a route decides under which epochs its responses are valid.
#[derive(Debug, Clone, Copy)]
pub struct Naming<'a> {
    /// Name of the route.
    pub route: &'a str,
    /// How its upstream reads paths.
    pub reading: Reading,
    /// Whether a path may go by itself on every host. It costs one more epoch, so that only those
    /// pay who have events that do so.
    pub by_path_alone: bool,
}

/// Where the clock of tags stands among a key's epochs. It is no part of what makes a response
/// valid: it says that tags must be looked at again.
const CLOCK: usize = 1;
/// Bytes of one half of an epoch.
const HALF_BYTES: usize = 8;

/// What kind of purge has withdrawn a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawn {
    /// Of everything; also where the store begins anew.
    All,
    /// Of its route.
    Route,
    /// Of its host.
    Host,
    /// Of its path and what lies below it, or of one above.
    Below,
    /// Of its path: also by a write to it.
    Path,
    /// Of one of its tags or groups.
    Tag,
}

impl CacheKey {
    /// The key of the response to a GET of `target` on a route. `scheme` is the client's: what an
    /// upstream answers may depend on it. A route that is given another upstream begins anew.
    pub fn entry(
        keys: &Keys,
        policy: &config::Cache,
        source: Source<'_>,
        target: &Target,
        caller: &Caller,
    ) -> String {
        let Source { route, upstream, scheme } = source;
        let query = target.query();
        let length = route.len() + upstream.len() + query.map_or(0, str::len);
        let mut variant = String::with_capacity(length + 16);
        // No name holds a semicolon or a colon.
        let scheme = if scheme == "https" { ";https:" } else { ":" };
        variant.extend([route, ";", upstream, scheme]);
        // Two issuers may give the same claim to different callers.
        let qualifier = caller.as_ref().and_then(|caller| caller.qualifier.as_deref());
        if let (Some(verifier), false) = (qualifier, policy.partition.is_empty()) {
            variant.extend([verifier, "/"]);
        }
        for name in &policy.partition {
            let claim = caller.as_ref().and_then(|caller| caller.find(name));
            // The name too: what was kept by one claim is not another's after a reload. Lengths
            // keep `a` + `bc` apart from `ab` + `c`, and the mark `"1"` apart from `1`. Writing to
            // a String cannot fail.
            let _ = write!(variant, "{}={name}:", name.len());
            let _ = match claim.map(Found::spelling) {
                Some(Spelling::Text(text)) => write!(variant, "{}={text},", text.len()),
                Some(Spelling::Json(text)) => write!(variant, "json:{}={text},", text.len()),
                // Nothing is kept here: see [`Self::is_known`].
                None => write!(variant, "-=,"),
            };
        }
        if let Some(query) = query {
            variant.extend(["?", query]);
        }
        keys.cache_entry(&target.authority.site(), target.path(), &variant)
    }

    /// Whether the caller has all claims of the partition. Otherwise nobody can say whose the
    /// answer is, and it is kept nowhere.
    pub fn is_known(policy: &config::Cache, caller: &Caller) -> bool {
        let has = |name: &String| caller.as_ref().is_some_and(|it| it.find(name).is_some());
        policy.partition.iter().all(has)
    }

    /// The key and the epochs of what lies under [`Self::entry`]. Each spelling of a path has an
    /// entry of its own, since the upstream may redirect from one to the other; a write to any of
    /// those that are one to it makes all of them stale.
    pub fn of(keys: &Keys, entry: String, naming: Naming<'_>, target: &Target) -> Self {
        let site = target.authority.site();
        let path = &*naming.reading.name(target.path());
        let mut epochs = Vec::with_capacity(8);
        epochs.push(keys.cache_base());
        epochs.push(keys.cache_tags_clock());
        epochs.push(keys.cache_route(naming.route));
        epochs.push(keys.cache_host(&site));
        epochs.extend(prefixes(path).map(|prefix| keys.cache_prefix(prefix)));
        epochs.extend(naming.by_path_alone.then(|| keys.cache_path_alone(path)));
        epochs.push(keys.cache_path(&site, path));
        Self { entry, epochs }
    }

    /// The hard halves of what the store said of [`Self::epochs`]: a response is not used any more
    /// when they differ.
    pub fn hard(&self, epochs: &[Epoch]) -> Bytes {
        hard_halves(without_clock(epochs))
    }

    /// The soft halves: a response is stale when they differ.
    pub fn soft(&self, epochs: &[Epoch]) -> Bytes {
        soft_halves(without_clock(epochs))
    }

    /// Whether these are the same epochs, whatever was tagged otherwise.
    pub fn is_same(&self, one: &[Epoch], other: &[Epoch]) -> bool {
        without_clock(one).eq(without_clock(other))
    }

    /// The clock of tags: while it is as it was, no tag and no group was purged. Where it is not,
    /// the store tells which were.
    pub fn tags_clock(&self, epochs: &[Epoch]) -> Epoch {
        epochs.get(CLOCK).copied().unwrap_or_default()
    }

    /// By what purge these halves of epochs, with those of tags behind them, came to differ: the
    /// widest. Nothing where they are the same.
    pub fn withdrawn_by(&self, then: &[u8], now: &[u8]) -> Option<Withdrawn> {
        if then == now {
            return None;
        }
        let mut halves = then.chunks(HALF_BYTES).zip(now.chunks(HALF_BYTES));
        let at = halves.position(|(then, now)| then != now).unwrap_or(usize::MAX);
        // The clock is not among them.
        let path = self.epochs.len().saturating_sub(2);
        Some(match at {
            0 => Withdrawn::All,
            1 => Withdrawn::Route,
            2 => Withdrawn::Host,
            at if self.epochs.get(at + 1).is_some_and(|key| Keys::is_path_alone(key)) => {
                Withdrawn::Path
            }
            at if at < path => Withdrawn::Below,
            at if at == path => Withdrawn::Path,
            _ => Withdrawn::Tag,
        })
    }

    /// The key of the lock under which one node fetches a variant of the response, as it is under
    /// these epochs: a read after a write waits for no fetch from before it. A purge of a tag parts
    /// no fetches: nobody knows the tags of what is being fetched, and what is kept is looked at
    /// with the epochs of its own.
    pub fn lock(&self, variant: &str, epochs: &[Epoch]) -> String {
        let mut fetch = Vec::with_capacity(variant.len() + 16 * epochs.len());
        fetch.extend_from_slice(variant.as_bytes());
        without_clock(epochs).for_each(|epoch| fetch.extend_from_slice(&epoch.to_bytes()));
        Keys::cache_lock(&self.entry, xxh3_128(&fetch))
    }

    /// The key of one part of a body that is stored apart from the entry.
    pub fn body(&self, object: &[u8; 16], index: u32) -> String {
        Keys::cache_body(&self.entry, object, index)
    }

    /// Whether its path may go by itself on every host: see [`Naming::by_path_alone`].
    pub fn by_path_alone(&self) -> bool {
        self.epochs.iter().rev().nth(1).is_some_and(|key| Keys::is_path_alone(key))
    }

    /// The epoch key of the path itself.
    pub fn path_epoch(&self) -> &str {
        self.epochs.last().map_or("", String::as_str)
    }
}

fn without_clock(epochs: &[Epoch]) -> impl Iterator<Item = &Epoch> {
    epochs.iter().enumerate().filter(|(at, _)| *at != CLOCK).map(|(_, epoch)| epoch)
}

/// What a purge makes stale. A site is a host, with its port where that is not the usual one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Everything.
    All,
    /// What one route answered.
    Route(&'a str),
    /// Everything on one site.
    Host(&'a str),
    /// One path on one site, whatever the query.
    Path {
        /// The site.
        site: &'a str,
        /// Its canonical path.
        path: &'a str,
    },
    /// A path and everything below it, on any host.
    Below(&'a str),
    /// A path and nothing below it, on any host. Only routes know it whose plan has events that
    /// purge so: see [`Naming::by_path_alone`].
    Alone(&'a str),
    /// What carries this tag, on one site.
    Tag {
        /// The site.
        site: &'a str,
        /// The tag.
        tag: &'a [u8],
    },
    /// What belongs to this group of one origin (RFC 9875).
    Group {
        /// `http` or `https`.
        scheme: &'a str,
        /// The site.
        site: &'a str,
        /// The group's name.
        group: &'a [u8],
    },
}

impl Scope<'_> {
    /// The key of its epoch.
    pub fn epoch(&self, keys: &Keys) -> String {
        match *self {
            Self::All => keys.cache_base(),
            Self::Route(route) => keys.cache_route(route),
            Self::Host(site) => keys.cache_host(site),
            Self::Path { site, path } => keys.cache_path(site, path),
            Self::Below(path) => keys.cache_prefix(covering(path)),
            Self::Alone(path) => keys.cache_path_alone(path),
            Self::Tag { site, tag } => keys.cache_tag(site, tag),
            Self::Group { scheme, site, group } => keys.cache_group(scheme, site, group),
        }
    }

    /// The keys of all epochs that its purge changes: with a tag or a group, the clock of tags too.
    /// They belong into one call of `Store::purge`, which changes all of them at once.
    pub fn epochs(&self, keys: &Keys) -> Vec<String> {
        let clock = matches!(self, Self::Tag { .. } | Self::Group { .. });
        clock.then(|| keys.cache_tags_clock()).into_iter().chain([self.epoch(keys)]).collect()
    }
}

/// The epoch key that makes `path` stale: the prefix and everything below it on every host, or the
/// one path on `site`.
pub fn scope(keys: &Keys, site: &str, path: &str, and_below: bool) -> String {
    if and_below { Scope::Below(path) } else { Scope::Path { site, path } }.epoch(keys)
}

/// The deepest prefix of `path` that can be made stale on its own.
pub fn covering(path: &str) -> &str {
    prefixes(path).last().unwrap_or("/")
}

/// The canonical paths that an operator means by this one. A star may stand in a path as it is or
/// escaped; where purges are written, one as it is means all that is below, so the escape means
/// both.
pub fn spellings(path: &str) -> Vec<String> {
    let mut spellings = vec![path.to_owned()];
    if path.contains("%2A") {
        spellings.push(path.replace("%2A", "*"));
    }
    spellings
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
    use crate::base::http::authority::Authority;

    const SOURCE: Source<'_> = Source { route: "r", upstream: "u", scheme: "http" };

    fn key(host: &str, path: &'static str, partition: &[&str]) -> CacheKey {
        let policy = config::Cache {
            shared: true,
            partition: partition.iter().map(|name| (*name).to_owned()).collect(),
            ..config::Cache::default()
        };
        let target = Target {
            authority: Authority::parse(host.as_bytes()).unwrap(),
            path_and_query: PathAndQuery::from_static(path),
        };
        let keys = Keys::new("app");
        let entry = CacheKey::entry(&keys, &policy, SOURCE, &target, &None);
        let naming = Naming { route: "r", reading: Reading::default(), by_path_alone: false };
        CacheKey::of(&keys, entry, naming, &target)
    }

    #[test]
    fn the_same_claim_from_two_issuers_parts_the_cache() {
        let entry = |verifier: Option<&str>, partition: &[&str]| {
            let caller = std::sync::Arc::new(crate::base::facts::Identity {
                claims: ["sub", "tenant"]
                    .map(|it| (it.to_owned(), "42".into()))
                    .into_iter()
                    .collect(),
                exact: Default::default(),
                subject: None,
                issued_at: None,
                expires_at: 0,
                blacklist_keys: Vec::new(),
                not_before_key: None,
                credential: crate::base::facts::Credential::Token {
                    bound_to: None,
                    proven_by: None,
                },
                verifier: "users".into(),
                qualifier: verifier.map(Into::into),
                headers: Vec::new(),
            });
            let policy = config::Cache {
                partition: partition.iter().map(|name| (*name).to_owned()).collect(),
                ..config::Cache::default()
            };
            let target = Target {
                authority: Authority::parse(b"h").unwrap(),
                path_and_query: PathAndQuery::from_static("/p"),
            };
            CacheKey::entry(&Keys::new("app"), &policy, SOURCE, &target, &Some(caller))
        };
        assert_eq!(entry(None, &["sub"]), "app:cache:{h/p}:entry:r;u:3=sub:2=42,");
        assert_eq!(entry(Some("users"), &["sub"]), "app:cache:{h/p}:entry:r;u:users/3=sub:2=42,");
        assert_eq!(entry(Some("users"), &[]), entry(None, &[]));
        assert_ne!(entry(None, &["tenant"]), entry(None, &["sub"]));
    }

    #[test]
    fn the_key_names_everything_that_tells_responses_apart() {
        let base = key("a.example", "/p", &[]).entry;
        assert_eq!(base, "app:cache:{a.example/p}:entry:r;u:");
        for other in [
            key("b.example", "/p", &[]),
            key("a.example:81", "/p", &[]),
            key("a.example", "/p?", &[]),
            key("a.example", "/p?a=1", &[]),
            key("a.example", "/p/", &[]),
            key("a.example", "/p", &["plan"]),
        ] {
            assert_ne!(other.entry, base);
        }
        assert_eq!(key("A.example:80", "/p", &[]).entry, base);
    }

    #[test]
    fn epochs_go_from_everything_down_to_the_path() {
        let epochs = key("h", "/a/b/", &[]).epochs;
        let expected = [
            "{*}",
            "{*}tags-clock",
            "{*}route=r",
            "{*}host=h",
            "{*}/",
            "{/a}",
            "{/a}/b",
            "{h/a/b/}",
        ];
        let expected = expected.map(|scope| format!("app:cache-epoch:{scope}"));
        assert_eq!(epochs, expected);
        assert_eq!(key("h", "/", &[]).epochs.len(), 6);
        assert_eq!(key("h", "/1/2/3/4/5/6/7/8/9/10", &[]).epochs.len(), 5 + PREFIX_DEPTH_MAX);
    }

    #[test]
    fn the_clock_of_tags_makes_nothing_stale() {
        let key = key("h", "/p", &[]);
        let mut epochs = vec![Epoch::default(); key.epochs.len()];
        let (hard, soft) = (key.hard(&epochs), key.soft(&epochs));
        epochs[CLOCK] = Epoch { hard: [1; 8], soft: [1; 8] };
        assert_eq!((key.hard(&epochs), key.soft(&epochs)), (hard.clone(), soft.clone()));
        assert_eq!(key.tags_clock(&epochs), epochs[CLOCK]);
        epochs[0].soft = [2; 8];
        assert_eq!(key.hard(&epochs), hard);
        assert_ne!(key.soft(&epochs), soft);
        epochs.last_mut().unwrap().hard = [2; 8];
        assert_ne!(key.hard(&epochs), hard);
    }

    #[test]
    fn the_widest_purge_is_told_of() {
        let key = key("h", "/a/b", &[]);
        let before = vec![Epoch::default(); key.epochs.len()];
        let tag = [0; HALF_BYTES];
        let then = [&key.hard(&before), &tag[..]].concat();
        assert_eq!(key.withdrawn_by(&then, &then), None);
        use Withdrawn::{All, Below, Host, Path, Route};
        for (at, expected) in [
            (0, Some(All)),
            (CLOCK, None),
            (2, Some(Route)),
            (3, Some(Host)),
            (4, Some(Below)),
            (6, Some(Below)),
            (7, Some(Path)),
        ] {
            let mut epochs = before.clone();
            epochs[at].hard = [1; 8];
            let now = [&key.hard(&epochs), &tag[..]].concat();
            assert_eq!(key.withdrawn_by(&then, &now), expected, "{at}: {:?}", key.epochs);
        }
        let now = [&key.hard(&before), &[1; HALF_BYTES][..]].concat();
        assert_eq!(key.withdrawn_by(&then, &now), Some(Withdrawn::Tag));
    }

    #[test]
    fn every_scope_that_holds_a_response_is_among_its_epochs() {
        let (keys, key) = (Keys::new("app"), key("h", "/a/b", &[]));
        for scope in [
            Scope::All,
            Scope::Route("r"),
            Scope::Host("h"),
            Scope::Path { site: "h", path: "/a/b" },
            Scope::Below("/a"),
        ] {
            assert!(key.epochs.contains(&scope.epoch(&keys)), "{scope:?}");
            assert_eq!(scope.epochs(&keys), [scope.epoch(&keys)]);
        }
        for scope in [
            Scope::Tag { site: "h", tag: b"t" },
            Scope::Group { scheme: "http", site: "h", group: b"t" },
        ] {
            assert_eq!(scope.epochs(&keys), [keys.cache_tags_clock(), scope.epoch(&keys)]);
        }
    }

    #[test]
    fn a_scope_is_one_of_the_epochs_it_must_change() {
        let keys = Keys::new("app");
        let key = key("h", "/1/2/3/4/5/6/7/8/9/10", &[]);
        for (path, below) in [
            ("/1/2/3/4/5/6/7/8/9/10", false),
            ("/1/2", true),
            ("/1/2/3/4/5/6/7/8/9", true),
            ("/", true),
        ] {
            assert!(key.epochs.contains(&scope(&keys, "h", path, below)), "{path}");
        }
    }
}
