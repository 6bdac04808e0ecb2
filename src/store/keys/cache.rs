//! Keys of the response cache. Epochs have a prefix that no entry shares, so that a server can tell
//! of their changes alone; the hash tag of a path's epoch is that of its entries, so that scripts
//! touch one slot of a cluster. What all requests ask for has one tag, and so have the prefixes
//! below one first segment: a request asks three slots, however deep its path is.

use super::{Keys, hashed};
use crate::base::http::hex;

/// Longest host and path, and longest variant, that stand verbatim in a cache key, in bytes.
const CACHE_TARGET_BYTES_MAX: usize = 512;
/// What the key of the clock of tags is, behind the prefix of all keys.
const TAGS_CLOCK: &str = ":cache-epoch:{*}tags-clock";
/// What the epoch of a path on any host ends with.
const ALONE: &str = "?";
/// What stands before the scope in the key of an epoch.
const EPOCH: &str = ":cache-epoch:";
/// What stands between the hash tag and the variant in an entry's key. No tag holds a brace.
const ENTRY: &str = "}:entry:";

impl Keys {
    /// The prefix of every epoch, and of nothing else.
    pub fn cache_epochs(&self) -> String {
        format!("{}:cache-epoch:", self.prefix)
    }

    /// The epoch under which every cached response is stored; changing it empties the cache.
    pub fn cache_base(&self) -> String {
        self.epoch(&["{*}"])
    }

    /// The epoch that changes with every purge of a tag or a group, in the same step.
    pub fn cache_tags_clock(&self) -> String {
        self.epoch(&["{*}tags-clock"])
    }

    /// The key of what is noted beside the clock of tags, of which tags were purged lately; nothing
    /// where `epoch` is another epoch. No epoch itself: nobody is told of its changes.
    pub fn tags_purged(epoch: &str) -> Option<String> {
        let prefix = epoch.strip_suffix(TAGS_CLOCK)?;
        Some(format!("{prefix}:cache-purges:{{*}}"))
    }

    /// Whether an epoch is that of a tag or a group, which never changes without the clock of tags.
    pub fn is_behind_tags_clock(epoch: &str) -> bool {
        let scope = epoch.split_once(EPOCH).map(|(_, scope)| scope);
        scope.is_some_and(|scope| scope.starts_with("{tag=") || scope.starts_with("{group="))
    }

    /// The epoch of everything that one route answers.
    pub fn cache_route(&self, route: &str) -> String {
        self.epoch(&["{*}route=", &plain(route)])
    }

    /// The epoch of everything on one host (with its port, where that is not the usual one).
    pub fn cache_host(&self, host: &str) -> String {
        self.epoch(&["{*}host=", host])
    }

    /// The epoch of a tag on one host. The tag is an origin's text, so it stands as a digest.
    pub fn cache_tag(&self, host: &str, tag: &[u8]) -> String {
        self.epoch(&["{tag=", host, "=", &hashed(tag), "}"])
    }

    /// The epoch of a cache group (RFC 9875) of one origin: scheme, host and port.
    pub fn cache_group(&self, scheme: &str, host: &str, group: &[u8]) -> String {
        self.epoch(&["{group=", scheme, "=", host, "=", &hashed(group), "}"])
    }

    /// The epoch of everything at or below a path, on any host.
    pub fn cache_prefix(&self, path: &str) -> String {
        if !is_short("", path) {
            return self.epoch(&["{", &hashed(path.as_bytes()), "}"]);
        }
        match path.strip_prefix('/') {
            None | Some("") => self.epoch(&["{*}", path]),
            Some(below) => {
                let first = below.find('/').map_or(path.len(), |at| at + 1);
                let (first, rest) = path.split_at(first);
                self.epoch(&["{", first, "}", rest])
            }
        }
    }

    /// The epoch of one path on any host, whatever the query, and of nothing below it. No path
    /// holds a question mark, so that none has this one as a prefix. It is in the prefixes' slot.
    pub fn cache_path_alone(&self, path: &str) -> String {
        self.cache_prefix(path) + ALONE
    }

    /// Whether an epoch is that of one path on any host.
    pub fn is_path_alone(epoch: &str) -> bool {
        epoch.ends_with(ALONE)
    }

    /// The epoch of one path on one host, whatever the query.
    pub fn cache_path(&self, host: &str, path: &str) -> String {
        if is_short(host, path) {
            self.epoch(&["{", host, path, "}"])
        } else {
            self.epoch(&["{", &target(host, path), "}"])
        }
    }

    /// All variants of one stored response. `variant` holds what else the response depends on:
    /// route, partition, query.
    pub fn cache_entry(&self, host: &str, path: &str, variant: &str) -> String {
        let target = target(host, path);
        if variant.len() <= CACHE_TARGET_BYTES_MAX {
            [&*self.prefix, ":cache:{", &target, ENTRY, variant].concat()
        } else {
            format!("{}:cache:{{{target}{ENTRY}{}", self.prefix, hashed(variant.as_bytes()))
        }
    }

    /// The pattern of all entries, as SCAN takes it.
    pub(in crate::store) fn cache_entries(prefix: &str) -> String {
        let mut pattern = String::with_capacity(prefix.len() + 20);
        for letter in prefix.chars() {
            if matches!(letter, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
                pattern.push('\\');
            }
            pattern.push(letter);
        }
        pattern + ":cache:{*" + ENTRY + "*"
    }

    /// Host and path, and the variant, of an entry's key; nothing of another key. Either may be a
    /// digest.
    pub fn cache_entry_parts(entry: &str) -> Option<(&str, &str)> {
        let (tag, variant) = parts(entry);
        let (_, target) = tag.split_once(":cache:{")?;
        (!variant.is_empty()).then_some((target, variant))
    }

    /// The lock of one fetch of an entry: of one variant, at one moment.
    pub fn cache_lock(entry: &str, fetch: u128) -> String {
        let (tag, variant) = parts(entry);
        let mut key = String::with_capacity(entry.len() + 40);
        key.extend([tag, "}:lock:", variant, ":"]);
        hex::push(&mut key, &fetch.to_be_bytes());
        key
    }

    /// The lock of who warms the cache of a route.
    pub fn cache_warming(&self, route: &str) -> String {
        format!("{}:cache-warming:{}", self.prefix, plain(route))
    }

    /// One part of the body of an object, stored apart from its entry. The object's id is random,
    /// so no two bodies share a part.
    pub fn cache_body(entry: &str, object: &[u8; 16], index: u32) -> String {
        let (tag, _) = parts(entry);
        format!("{tag}}}:body:{:032x}:{index}", u128::from_be_bytes(*object))
    }

    /// A miss names eight of these, so each is written once, into memory of its own length.
    fn epoch(&self, scope: &[&str]) -> String {
        let length = scope.iter().map(|part| part.len()).sum::<usize>();
        let mut key = String::with_capacity(self.prefix.len() + EPOCH.len() + length);
        key.extend([&*self.prefix, EPOCH]);
        key.extend(scope.iter().copied());
        key
    }
}

/// What stands before and behind [`ENTRY`] in an entry's key: the first brace that closes is its.
fn parts(entry: &str) -> (&str, &str) {
    let end = entry.bytes().position(|byte| byte == b'}').unwrap_or(entry.len());
    let (tag, rest) = (&entry[..end], entry.get(end + 1..).unwrap_or_default());
    (tag, rest.strip_prefix(&ENTRY[1..]).unwrap_or_default())
}

/// A name that may not end the hash tag.
fn plain(name: &str) -> std::borrow::Cow<'_, str> {
    let ends = |byte: u8| matches!(byte, b'{' | b'}');
    if name.bytes().any(ends) { hashed(name.as_bytes()).into() } else { name.into() }
}

/// `host` and a canonical path, which contains no brace. It contains a slash, or is a digest, so
/// that it is no other scope.
fn target(host: &str, path: &str) -> String {
    if is_short(host, path) {
        [host, path].concat()
    } else {
        hashed(format!("{host}{path}").as_bytes())
    }
}

fn is_short(host: &str, path: &str) -> bool {
    host.len() + path.len() <= CACHE_TARGET_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_formats() {
        let keys = Keys::new("app");
        let entry = keys.cache_entry("h", "/p", "r:0:?q}:entry:");
        let digest = hashed(b"a tag");
        assert_eq!(Keys::cache_entry_parts(&entry), Some(("h/p", "r:0:?q}:entry:")));
        for other in [keys.cache_base(), Keys::cache_lock(&entry, 1), keys.session("a")] {
            assert_eq!(Keys::cache_entry_parts(&other), None, "{other}");
        }
        assert_eq!(Keys::cache_entries("a-[b]"), r"a\-\[b\]:cache:{*}:entry:*");
        for (key, expected) in [
            (keys.cache_base(), "app:cache-epoch:{*}"),
            (keys.cache_tags_clock(), "app:cache-epoch:{*}tags-clock"),
            (keys.cache_route("api"), "app:cache-epoch:{*}route=api"),
            (keys.cache_host("h:81"), "app:cache-epoch:{*}host=h:81"),
            (keys.cache_prefix("/"), "app:cache-epoch:{*}/"),
            (keys.cache_prefix("/products"), "app:cache-epoch:{/products}"),
            (keys.cache_prefix("/products/7/b"), "app:cache-epoch:{/products}/7/b"),
            (keys.cache_path_alone("/"), "app:cache-epoch:{*}/?"),
            (keys.cache_path_alone("/products/7"), "app:cache-epoch:{/products}/7?"),
            (keys.cache_path("shop.example", "/p"), "app:cache-epoch:{shop.example/p}"),
            (keys.cache_tag("h", b"a tag"), &format!("app:cache-epoch:{{tag=h={digest}}}")),
            (
                keys.cache_group("https", "h", b"a tag"),
                &format!("app:cache-epoch:{{group=https=h={digest}}}"),
            ),
            (entry.clone(), "app:cache:{h/p}:entry:r:0:?q}:entry:"),
            (
                Keys::cache_lock(&entry, 0xAB),
                &format!("app:cache:{{h/p}}:lock:r:0:?q}}:entry::{:032x}", 0xAB),
            ),
            (
                Keys::cache_body(&entry, &[0xAB; 16], 7),
                &format!("app:cache:{{h/p}}:body:{}:7", "ab".repeat(16)),
            ),
        ] {
            assert_eq!(key, expected);
        }
        let purged = Keys::tags_purged(&keys.cache_tags_clock());
        assert_eq!(purged.as_deref(), Some("app:cache-purges:{*}"));
        assert_eq!(Keys::tags_purged(&keys.cache_host("tags-clock")), None);
        for epoch in [keys.cache_tag("h", b"a"), keys.cache_group("https", "h", b"a")] {
            assert!(Keys::is_behind_tags_clock(&epoch), "{epoch}");
        }
        let others = [keys.cache_tags_clock(), keys.cache_base(), keys.cache_path("h", "/tag=a")];
        for epoch in others.into_iter().chain([keys.cache_prefix("/tag=a"), entry.clone()]) {
            assert!(!Keys::is_behind_tags_clock(&epoch), "{epoch}");
        }
        for epoch in [keys.cache_base(), keys.cache_path("h", "/p")] {
            assert!(epoch.starts_with(&keys.cache_epochs()) && !entry.starts_with(&epoch));
        }
        assert!(!keys.cache_route("a}b").contains("a}b"));
    }

    #[test]
    fn what_is_long_stands_as_a_digest() {
        let keys = Keys::new("app");
        let path = format!("/{}", "x".repeat(600));
        let entry = keys.cache_entry("h", &path, &path);
        assert_eq!(entry.matches("sha256:").count(), 2);
        assert_eq!(keys.cache_path("h", &path).len(), "app:cache-epoch:{}".len() + 71);
    }
}
