//! Mistakes in the configuration: collected, to be printed later with the line that each is on and
//! what to do about it.

/// The tables whose keys are names.
pub(super) const NAMED_TABLES: [&str; 8] =
    ["auth", "providers", "signers", "limits", "queues", "events", "upstreams", "routes"];

/// What is said of a key that is none.
pub(super) const UNKNOWN_KEY: &str = "unknown key";

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Key path, such as `routes.products.upstream` or `limits.api.allow[1]`.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
    /// Where it is, in bytes of all files, when that is not where the key stands first.
    pub(super) at: Option<usize>,
}

/// All mistakes of one configuration, in the order in which they were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds one.
    pub fn push(
        &mut self,
        path: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (what, remedy) =
            (without_credentials(&what.into()), without_credentials(&remedy.into()));
        self.0.push(Problem { path: path.into(), what, remedy, at: None });
    }

    /// Adds one that has a place of its own.
    pub(super) fn place(&mut self, at: usize, path: &str, what: &str, remedy: &str) {
        let (what, remedy) = (without_credentials(what), without_credentials(remedy));
        self.0.push(Problem { path: path.to_owned(), what, remedy, at: Some(at) });
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All but those at the paths that are meant.
    #[must_use]
    pub fn without(mut self, is_meant: impl Fn(&str) -> bool) -> Self {
        self.0.retain(|problem| !is_meant(&problem.path));
        self
    }

    /// Takes over the problems of `other`.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Appends a key to a path; keys that TOML would quote are quoted, so that every path is
/// unambiguous and prints on one line.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let dot = if path.is_empty() { "" } else { "." };
    if !key.is_empty() && key.chars().all(bare) {
        format!("{path}{dot}{key}")
    } else {
        format!("{path}{dot}{key:?}")
    }
}

/// Whether a key's value is a secret. A misspelt `pasword` bears one too.
pub(super) fn bears_secret(key: &str) -> bool {
    const PARTS: [&str; 6] = ["secret", "pass", "pwd", "token", "nkey", "creds"];
    const MISSPELT: [&str; 3] = ["secret", "password", "token"];
    const HARMLESS: [&str; 2] = ["token_bytes", "forward_token"];
    let key = key.to_ascii_lowercase();
    !HARMLESS.contains(&key.as_str())
        && (PARTS.iter().any(|part| key.contains(part))
            || MISSPELT.iter().any(|word| distance(&key, word) <= 2))
}

/// Whether nothing below a key is printed: it bears a secret, keys that seal, or whom a queue calls
/// back, whose URL may be all that it takes to call him.
pub(super) fn is_masked(key: &str) -> bool {
    let plain = key.to_ascii_lowercase();
    bears_secret(&plain)
        || plain.contains("authorization")
        || distance(&plain, "seal") <= 1
        || distance(&plain, "callback") <= 2
}

/// Whether a text contains a URL with a user or a password before its host.
pub(super) fn bears_credentials(text: &str) -> bool {
    text.split_once("://").is_some_and(|(_, rest)| rest.contains('@'))
}

/// Whether a text contains a URL with a query, which may let in.
pub(super) fn bears_query(text: &str) -> bool {
    text.split_once("://").is_some_and(|(_, rest)| rest.contains('?'))
}

/// A text in which no URL has a user or a password before its host, or a query.
fn without_credentials(text: &str) -> String {
    let mut parts = text.split("://");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_whitespace() || "\"'`<>".contains(c));
        let (url, rest) = part.split_at(end.unwrap_or(part.len()));
        let (url, query) = url.split_once('?').map_or((url, ""), |(url, _)| (url, "?…"));
        let (user, host) = url.rsplit_once('@').map_or(("", url), |(_, host)| ("…@", host));
        clean.extend(["://", user, host, query, rest]);
    }
    clean
}

/// Edits (insert, delete, replace) that make one word of the other; words that differ much in
/// length are simply far.
pub fn distance(a: &str, b: &str) -> usize {
    const FAR: usize = usize::MAX;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 3 {
        return FAR;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        // `diagonal` is the cell above and to the left; `left` the one just written.
        let (mut diagonal, mut left) = (i, i + 1);
        for (cell, to) in row.iter_mut().skip(1).zip(&b) {
            let cost = diagonal + usize::from(from != to);
            diagonal = *cell;
            left = cost.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits() {
        for (a, b, expected) in [
            ("listen", "listen", 0),
            ("lsten", "listen", 1),
            ("lisetn", "listen", 2),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("a", "abcdefgh", usize::MAX),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn no_problem_shows_what_a_url_lets_in_with() {
        for (text, expected) in [
            ("no URL: a@b?c", "no URL: a@b?c"),
            ("\"http://u:p@x/?key=s\" is not one", "\"http://…@x/?…\" is not one"),
            ("http://x/a, redis://:p@y:1/0", "http://x/a, redis://…@y:1/0"),
            ("https://x/?a=b c", "https://x/?… c"),
            ("://@", "://…@"),
        ] {
            assert_eq!(without_credentials(text), expected);
        }
        let mut problems = Problems::default();
        problems.push("a", "redis://u:secret@x", "write http://x?token=secret");
        problems.place(1, "a", "redis://u:secret@x", "http://x?secret");
        assert!(!format!("{problems:?}").contains("secret"), "{problems:?}");
    }

    #[test]
    fn masks_are_judged_by_the_key() {
        for (key, expected) in [
            ("secret", true),
            ("client_secret", true),
            ("pasword", true),
            ("Token", true),
            ("nkey", true),
            ("creds", true),
            ("proxy-authorization", true),
            ("token_bytes", false),
            ("forward_token", false),
            ("servers", false),
            ("prefix", false),
            ("level", false),
        ] {
            assert_eq!(is_masked(key), expected, "{key}");
        }
    }
}
