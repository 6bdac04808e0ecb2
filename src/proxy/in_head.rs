//! What a head says that requests are told apart by; see `affinity` for the rest.

use std::borrow::Cow;

use http::HeaderMap;

use crate::base::http::cookie;
use crate::config::HashKey;

/// What stands in a field or a cookie. Of a field in several lines all count, of a cookie that is
/// there twice the first; what is empty is not there.
pub(super) fn in_head<'r>(by: &HashKey, fields: &'r HeaderMap) -> Option<Cow<'r, [u8]>> {
    let value = match by {
        HashKey::Header(name) => {
            let mut lines = fields.get_all(name).iter().map(|line| line.as_bytes());
            let first = lines.next()?;
            let others: Vec<&[u8]> = lines.collect();
            if others.is_empty() {
                Cow::Borrowed(first)
            } else {
                Cow::Owned([&[first], &*others].concat().join(&b','))
            }
        }
        HashKey::Cookie(name) => Cow::Borrowed(cookie::values(fields, name).next()?),
        HashKey::Address | HashKey::Claim(_) | HashKey::Path => return None,
    };
    Some(value).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn all_lines_of_a_field_count_and_the_first_of_equal_cookies() {
        let of = |by: &HashKey, fields: &[(&'static str, &'static str)]| {
            let fields = fields.iter().map(|(name, value)| {
                (HeaderName::from_static(name), value.parse().expect("a value"))
            });
            let fields: HeaderMap = fields.fold(HeaderMap::new(), |mut all, (name, value)| {
                all.append(name, value);
                all
            });
            in_head(by, &fields).map(|value| String::from_utf8_lossy(&value).into_owned())
        };
        let field = HashKey::Header(HeaderName::from_static("x-tenant"));
        let cookie = HashKey::Cookie("sid".to_owned());
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(of(&field, &[("x-tenant", "a")]), text("a"));
        assert_eq!(of(&field, &[("x-tenant", "a"), ("x-tenant", "b")]), text("a,b"));
        assert_eq!(of(&cookie, &[("cookie", "sid=1; sid=2")]), text("1"));
        assert_eq!([of(&field, &[("x-tenant", "")]), of(&cookie, &[])], [None, None]);
        assert_eq!(of(&HashKey::Path, &[("x-tenant", "a")]), None);
    }
}
