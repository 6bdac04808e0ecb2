//! What stands in a path for the placeholders of its route, for who compares it with something: the
//! text that an upstream reads there, or nothing where two readers could read different ones.

use std::borrow::Cow;

use super::pattern::{PathPattern, placeholders};
use crate::base::http::path::Reading;
use crate::base::http::percent;

/// The placeholders of one route.
#[derive(Debug, Clone)]
pub struct Parameters {
    names: Vec<Option<String>>,
    pattern: PathPattern,
    reading: Reading,
}

impl Parameters {
    /// Those of `pattern`, which is written as `route`.
    pub fn of(route: &str, pattern: &PathPattern, reading: Reading) -> Self {
        let names = placeholders(route).map(|name| name.map(str::to_owned)).collect();
        Self { names, pattern: pattern.clone(), reading }
    }

    /// Whether the route has one placeholder of this name, and not several.
    pub fn knows(&self, name: &str) -> bool {
        self.names.iter().filter(|known| known.as_deref() == Some(name)).count() == 1
    }

    /// The decoded text that stands for a placeholder in a canonical path which the route matches.
    /// Nothing where there is none, or it has what some readers take for an end or decode once
    /// more: a slash, a backslash, a percent sign, a control character, bytes that are no UTF-8,
    /// and a semicolon where the upstream reads parameters.
    pub fn value<'p>(&self, name: &str, path: &'p str) -> Option<Cow<'p, str>> {
        let at = self.names.iter().position(|known| known.as_deref() == Some(name))?;
        let (written, _) = *self.pattern.split(self.reading, path).get(at)?;
        let text = match percent::decode_strictly(written.as_bytes())? {
            Cow::Borrowed(_) => Cow::Borrowed(written),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).ok()?),
        };
        let is_split = |letter: char| {
            matches!(letter, '/' | '\\' | '%')
                || letter.is_control()
                || (letter == ';' && self.reading.parameters)
        };
        (!text.is_empty() && !text.contains(is_split)).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_reading_or_none() {
        let loose = Reading { any_case: true, trailing_slash: true, parameters: true };
        for (route, path, reading, expected) in [
            ("/users/{id}/posts", "/users/42/posts", Reading::default(), Some("42")),
            ("/users/{id}/*", "/users/42/a/b", Reading::default(), Some("42")),
            ("/users/{id}/*", "/users/42", Reading::default(), Some("42")),
            ("/users/{id}", "/users/a%20b", Reading::default(), Some("a b")),
            ("/users/{id}", "/users/%C3%A9", Reading::default(), Some("\u{e9}")),
            ("/users/{id}", "/users/Ann", Reading::default(), Some("Ann")),
            ("/users/{id}", "/users/42;x", Reading::default(), Some("42;x")),
            ("/users/{id}", "/users/42;x", loose, None),
            ("/users/{id}", "/users/42%3Bx", loose, None),
            ("/users/{id}", "/users/42/", loose, Some("42")),
            ("/users/{id}", "/USERS/;x/Ann/", loose, Some("Ann")),
            ("/users/{id}", "/users/a%2Fb", Reading::default(), None),
            ("/users/{id}", "/users/a%252Fb", Reading::default(), None),
            ("/users/{id}", "/users/a%5Cb", Reading::default(), None),
            ("/users/{id}", "/users/a%09", Reading::default(), None),
            ("/users/{id}", "/users/%FF", Reading::default(), None),
            ("/users/{id}", "/users/", Reading::default(), None),
            ("/users/{id}", "/users", Reading::default(), None),
            ("/users/{other}", "/users/42", Reading::default(), None),
        ] {
            let pattern = PathPattern::parse(route).unwrap();
            let parameters = Parameters::of(route, &pattern, reading);
            assert_eq!(parameters.value("id", path).as_deref(), expected, "{route} {path}");
        }
        let twice = "/{id}/{id}";
        let pattern = PathPattern::parse(twice).unwrap();
        assert!(!Parameters::of(twice, &pattern, Reading::default()).knows("id"));
    }
}
