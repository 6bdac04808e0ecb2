//! The names under which many stored responses can be withdrawn at once: cache tags and cache
//! groups (RFC 9875).
//!
//! A response that names more than is kept is not stored at all: a purge that misses one of its
//! names would leave it in place.

use http::HeaderMap;
use http::header::HeaderName;
use sfv::{List, ListEntry, Parser};

use super::text;

/// Most tags, and most groups, of one response. RFC 9875 §2 asks for at least 32.
pub(super) const NAMES_MAX: usize = 64;
/// Longest tag or group, in bytes. RFC 9875 §2 asks for at least 32.
pub(super) const NAME_BYTES_MAX: usize = 256;

/// What stands between two members.
type Parting = fn(&u8) -> bool;

/// Fields that name tags, and what parts their members.
const TAG_FIELDS: [(HeaderName, Parting); 3] = [
    (HeaderName::from_static("surrogate-key"), is_space),
    (HeaderName::from_static("xkey"), is_space),
    (HeaderName::from_static("cache-tag"), is_comma),
];

const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// The tags of a response in Surrogate-Key, xkey and Cache-Tag, sorted and without repeats; none
/// if there are more, or longer ones, than are kept.
pub(super) fn tags(headers: &HeaderMap) -> Option<Vec<String>> {
    let mut tags = Vec::new();
    if !has_tags(headers) {
        return Some(tags);
    }
    for (field, parts) in TAG_FIELDS {
        for line in headers.get_all(field) {
            let members = line.as_bytes().split(parts).map(<[u8]>::trim_ascii);
            for member in members.filter(|member| !member.is_empty()) {
                if tags.len() == NAMES_MAX * 2 {
                    return None;
                }
                tags.push(String::from_utf8_lossy(member).into_owned());
            }
        }
    }
    bounded(tags)
}

/// Whether a response names tags at all. One look over the names is cheaper than asking for each.
pub(super) fn has_tags(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| is_tag_field(name.as_str()))
}

/// Whether a response can have this tag: whatever its field, no member of it holds both what parts
/// the members of the one and what parts those of the other.
pub fn is_tag(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    let parts = bytes.iter().any(is_space) && bytes.iter().any(is_comma);
    let is_sound = bytes.trim_ascii() == bytes && !bytes.iter().any(|b| is_control(*b));
    (1..=NAME_BYTES_MAX).contains(&tag.len()) && is_sound && !parts
}

/// Whether a response can have this group: a string of RFC 9651 §3.3.3, and not a long one.
pub fn is_group(group: &str) -> bool {
    let is_printable = group.bytes().all(|byte| (0x20..=0x7E).contains(&byte));
    (1..=NAME_BYTES_MAX).contains(&group.len()) && is_printable
}

/// Whether a byte stands in no field.
fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// Whether a field names tags, which are for this cache and not for its clients.
pub(super) fn is_tag_field(name: &str) -> bool {
    TAG_FIELDS.iter().any(|(field, _)| field.as_str() == name)
}

/// Takes the tags out of a response on its way to the client: they tell how the origin is built.
pub fn strip_tags(headers: &mut HeaderMap) {
    if has_tags(headers) {
        for (field, _) in TAG_FIELDS {
            headers.remove(field);
        }
    }
}

/// The groups of a response, Cache-Groups of RFC 9875 §2; none if there are more, or longer ones,
/// than are kept. A field that cannot be read names none.
pub(super) fn groups(headers: &HeaderMap) -> Option<Vec<String>> {
    bounded(strings(headers, CACHE_GROUPS))
}

/// The groups that an answer withdraws, Cache-Group-Invalidation of RFC 9875 §3: no more than are
/// kept of any response.
pub(super) fn withdrawn_groups(headers: &HeaderMap) -> Vec<String> {
    let mut groups = strings(headers, CACHE_GROUP_INVALIDATION);
    groups.retain(|group| group.len() <= NAME_BYTES_MAX);
    groups.sort_unstable();
    groups.dedup();
    groups.truncate(NAMES_MAX);
    groups
}

/// A list of strings (RFC 9651 §3.1), its parameters left aside; nothing if it is anything else.
fn strings(headers: &HeaderMap, field: HeaderName) -> Vec<String> {
    let Some(text) = text::combined(headers, field) else {
        return Vec::new();
    };
    let list: List = Parser::new(&text).parse().unwrap_or_default();
    let string = |entry: &ListEntry| match entry {
        ListEntry::Item(item) => item.bare_item.as_string().map(|text| text.as_str().to_owned()),
        ListEntry::InnerList(_) => None,
    };
    list.iter().map(string).collect::<Option<_>>().unwrap_or_default()
}

fn bounded(mut names: Vec<String>) -> Option<Vec<String>> {
    names.sort_unstable();
    names.dedup();
    let fits = names.len() <= NAMES_MAX && names.iter().all(|name| name.len() <= NAME_BYTES_MAX);
    fits.then_some(names)
}

fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_comma(byte: &u8) -> bool {
    *byte == b','
}
