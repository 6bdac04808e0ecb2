//! What the key of a stored response names, for people: its URL, and whose route it is.

use super::query::without_values;
use crate::store::keys::Keys;

/// A key in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Scheme, host, path, and the names of the query's parameters; nothing where a digest stands
    /// for them.
    pub url: Option<String>,
    /// The route; nothing where a digest stands for it.
    pub route: Option<String>,
    /// Whether there is a response for each of several callers.
    pub is_parted: bool,
}

/// What stands in place of a part that is too long.
const DIGEST: &str = "sha256:";

/// Reads the key of an entry; nothing of another key.
#[must_use]
pub fn named(entry: &str) -> Option<Named> {
    let (target, variant) = Keys::cache_entry_parts(entry)?;
    if variant.starts_with(DIGEST) {
        let url = (!target.starts_with(DIGEST)).then(|| target.to_owned());
        return Some(Named { url, route: None, is_parted: false });
    }
    let (route, rest) = variant.split_once(';')?;
    let rest = rest.get(rest.find([';', ':'])?..)?;
    let rest = rest.strip_prefix(";@").map_or(rest, behind_authority);
    let (scheme, rest) = match rest.strip_prefix(";https:") {
        Some(rest) => ("https", rest),
        None => ("http", rest.strip_prefix(':')?),
    };
    let query = rest.strip_prefix('?');
    let mut url = format!("{scheme}://{target}");
    if let Some(query) = query {
        url.extend(["?", &without_values(query)]);
    }
    Some(Named {
        url: (!target.starts_with(DIGEST)).then_some(url),
        route: Some(route.to_owned()),
        // A claim's value may hold anything, so no query is looked for behind it.
        is_parted: !rest.is_empty() && query.is_none(),
    })
}

/// What follows host and port.
fn behind_authority(text: &str) -> &str {
    let host = if text.starts_with('[') { text.find(']').map_or(0, |end| end + 1) } else { 0 };
    let end = text[host..].find([';', ':']).map_or(text.len(), |end| host + end);
    let rest = &text[end..];
    let Some(port) = rest.strip_prefix(':') else { return rest };
    let digits = port.len() - port.trim_start_matches(|it: char| it.is_ascii_digit()).len();
    if digits > 0 { &port[digits..] } else { rest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let keys = Keys::new("app");
        let long = "x".repeat(600);
        for (host, variant, url, is_parted) in [
            ("h", "r;u:", "http://h/p", false),
            ("h:81", "r;u;https:", "https://h:81/p", false),
            ("h", "r;u:?q=tea&page=2", "http://h/p?q=…&page=…", false),
            ("h", "r;u;@other:?q", "http://h/p?…", false),
            ("h", "r;u;@other:8080:?q=1", "http://h/p?q=…", false),
            ("h", "r;u;@[::1]:8080;https:?q=1", "https://h/p?q=…", false),
            ("h", "r;u;@[::1]:", "http://h/p", false),
            ("h", "r;u:3=sub:2=42,", "http://h/p", true),
            ("h", "r;u;https:users/3=sub:2=42,?q=1", "https://h/p", true),
        ] {
            let found = named(&keys.cache_entry(host, "/p", variant)).unwrap();
            let expected =
                Named { url: Some(url.to_owned()), route: Some("r".to_owned()), is_parted };
            assert_eq!(found, expected, "{variant}");
        }
        let digest = named(&keys.cache_entry("h", "/p", &long)).unwrap();
        assert_eq!((digest.url.as_deref(), digest.route), (Some("h/p"), None));
        let digest = named(&keys.cache_entry("h", &format!("/{long}"), "r;u:")).unwrap();
        assert_eq!((digest.url, digest.route.as_deref()), (None, Some("r")));
        for other in ["app:session:a", "app:cache:{h/p}:entry:", "app:cache:{h/p}:entry:r", ""] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
