//! Mistakes in the file: collected, then printed with the line they are on and what to do about
//! them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use aws_lc_rs::digest::{SHA256, digest};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::base::http::hex;

/// What a printed line shows in place of a secret.
const MASK: &str = "***";
/// Longest source line that is printed whole, in characters.
const LINE_CHARS_MAX: usize = 160;
/// Deepest table that is indexed; no key that the reader knows is deeper than five.
const DEPTH_MAX: usize = 16;

/// The tables whose keys are names.
pub(super) const NAMED_TABLES: [&str; 6] =
    ["auth", "limits", "queues", "events", "upstreams", "routes"];

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Key path, such as `routes.products.upstream` or `limits.api.allow[1]`.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// All mistakes of one file, in the order in which they were found.
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
        self.0.push(Problem { path: path.into(), what: what.into(), remedy: remedy.into() });
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
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

/// The file that was read: what is needed to show a problem in its place.
#[derive(Clone)]
pub struct Source {
    name: String,
    text: String,
    /// Key path to the bytes of its key, or of the element of a list.
    keys: BTreeMap<String, Range<usize>>,
    /// The bytes that must not be printed, in the order of the file.
    masked: Vec<Range<usize>>,
}

/// The text may hold secrets, so only the name is printed.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Source {
    /// The SHA-256 of the file, in hexadecimal: what `sha256sum` says of it.
    pub fn sha256(&self) -> String {
        hex::encode(digest(&SHA256, self.text.as_bytes()).as_ref())
    }

    /// Where it was read.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// All of it; it may hold secrets.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Indexes `table`, which was parsed from `text`.
    pub(super) fn new(name: &str, text: &str, table: &DeTable<'_>) -> Self {
        let mut source = Self {
            name: name.to_owned(),
            text: text.to_owned(),
            keys: BTreeMap::new(),
            masked: Vec::new(),
        };
        source.index_table("", table, false, 0);
        source.masked.sort_by_key(|span| span.start);
        source
    }

    /// `hide` says that a key around the table bears a secret, and so do all keys in it.
    fn index_table(&mut self, path: &str, table: &DeTable<'_>, hide: bool, depth: usize) {
        // Names of the user's choice, such as `[limits.tokens]`, say nothing about what they hold.
        let names = NAMED_TABLES.contains(&path);
        for (key, value) in table {
            let path = join(path, key.get_ref());
            self.keys.insert(path.clone(), key.span());
            let hide = hide || (!names && is_masked(key.get_ref()));
            self.index_value(&path, value, hide, depth + 1);
        }
    }

    fn index_value(&mut self, path: &str, value: &Spanned<DeValue<'_>>, hide: bool, depth: usize) {
        let span = value.span();
        match value.get_ref() {
            DeValue::Table(table) if depth <= DEPTH_MAX => {
                self.index_table(path, table, hide, depth);
            }
            DeValue::Array(array) if depth <= DEPTH_MAX => {
                for (position, item) in array.iter().enumerate() {
                    let path = format!("{path}[{position}]");
                    self.keys.insert(path.clone(), item.span());
                    self.index_value(&path, item, hide, depth + 1);
                }
            }
            // Below the bound nobody looks at the keys, so nothing from here on is shown.
            DeValue::Table(_) | DeValue::Array(_) => self.masked.push(span.start..self.text.len()),
            DeValue::String(text) if hide || bears_credentials(text) => self.masked.push(span),
            DeValue::Boolean(_) | DeValue::String(_) => {}
            _ if hide => self.masked.push(span),
            _ => {}
        }
    }

    /// Every problem in three lines, by line and then by path, and how many there are.
    pub fn render(&self, problems: &Problems) -> String {
        self.render_as("problem", "", problems)
    }

    /// Every warning in the same form: what is served all the same, but deserves a second look.
    /// Nothing where there is none.
    pub fn render_warnings(&self, warnings: &Problems) -> String {
        if warnings.is_empty() {
            return String::new();
        }
        self.render_as("warning", "warning: ", warnings)
    }

    fn render_as(&self, noun: &str, mark: &str, problems: &Problems) -> String {
        let mut placed: Vec<(usize, usize, &Problem)> = problems
            .iter()
            .map(|problem| {
                let (line, column) = line_and_column(&self.text, self.locate(&problem.path));
                (line, column, problem)
            })
            .collect();
        placed.sort_by_key(|(line, _, p)| (*line, &p.path, &p.what, &p.remedy));
        placed.dedup();

        let name = &self.name;
        let mut out = String::new();
        for (line, column, Problem { path, what, remedy }) in &placed {
            let shown = self.shown_line(*line);
            out += &format!("{name}:{line}:{column}: {mark}{path}: {what}\n    {shown}\n");
            out += &format!("    help: {remedy}\n");
        }
        let plural = if placed.len() == 1 { "" } else { "s" };
        out + &format!("{} {noun}{plural} in {name}\n", placed.len())
    }

    /// Where `path` stands; when it is not in the file, where the nearest table around it stands.
    fn locate(&self, path: &str) -> usize {
        let mut path = path;
        loop {
            if let Some(span) = self.keys.get(path) {
                return span.start;
            }
            if path.is_empty() {
                return 0;
            }
            path = parent(path);
        }
    }

    /// One line of the file, without its secrets.
    fn shown_line(&self, line: usize) -> String {
        let range = line_range(&self.text, line);
        let mut shown = String::new();
        let mut at = range.start;
        for span in self.masked.iter().filter(|s| s.start < range.end && s.end > range.start) {
            let (start, end) = (span.start.max(at), span.end.min(range.end));
            shown += self.text.get(at..start).unwrap_or_default();
            shown += MASK;
            at = end.max(at);
        }
        shown += self.text.get(at..range.end).unwrap_or_default();
        tidy_line(&shown)
    }
}

/// A syntax error in the same three lines. There is no table yet that could say which bytes are
/// secret, so the line is judged by its looks.
pub(super) fn render_syntax_error(name: &str, text: &str, error: &toml::de::Error) -> String {
    let offset = error.span().map_or(0, |span| span.start).min(text.len());
    let (line, column) = line_and_column(text, offset);
    let range = line_range(text, line);
    let source = text.get(range.clone()).unwrap_or_default();
    let before = text.get(..range.start).unwrap_or_default();
    // A line without `=` can be the inside of a string that began on an earlier line.
    let continues = !source.contains('=') && (before.contains("\"\"\"") || before.contains("'''"));
    let bears = bears_credentials(source)
        || source.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).any(is_masked)
        || is_of_callback(before);
    let shown = match source.split_once('=') {
        _ if continues => MASK.to_owned(),
        Some((key, _)) if bears => format!("{key}= {MASK}"),
        _ if bears => MASK.to_owned(),
        _ => source.to_owned(),
    };
    format!(
        "{name}:{line}:{column}: {}\n    {}\n    help: correct the syntax (https://toml.io), \
         then run the check again for everything else\n",
        error.message(),
        tidy_line(&shown)
    )
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

/// The path without its last key or position.
fn parent(path: &str) -> &str {
    let (mut cut, mut quoted, mut escaped) = (0, false, false);
    for (at, c) in path.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '.' | '[' if !quoted => cut = at,
            _ => {}
        }
    }
    path.get(..cut).unwrap_or_default()
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
fn is_masked(key: &str) -> bool {
    let plain = key.to_ascii_lowercase();
    bears_secret(&plain) || distance(&plain, "seal") <= 1 || distance(&plain, "callback") <= 2
}

/// Whether what follows is in a table of such a kind, as far as its header says.
fn is_of_callback(before: &str) -> bool {
    let header = before.lines().rev().find(|line| line.trim_start().starts_with('['));
    let is_it = |name: &str| name != "callbacks" && distance(name, "callback") <= 2;
    header.is_some_and(|line| line.split(['.', '[', ']', '"', ' ']).any(is_it))
}

/// Whether a text contains a URL with a user or a password before its host.
pub(super) fn bears_credentials(text: &str) -> bool {
    text.split_once("://").is_some_and(|(_, rest)| rest.contains('@'))
}

/// Edits (insert, delete, replace) that make one word of the other; words that differ much in
/// length are simply far.
pub(super) fn distance(a: &str, b: &str) -> usize {
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

/// Line and column of a byte, both from 1; columns count characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// The bytes of a line, counted from 1, without its end.
fn line_range(text: &str, line: usize) -> Range<usize> {
    let mut start = 0;
    for (number, content) in text.split_inclusive('\n').enumerate() {
        if number + 1 == line {
            return start..start + content.trim_end_matches(['\n', '\r']).len();
        }
        start += content.len();
    }
    text.len()..text.len()
}

/// A source line as it is printed: on one line, harmless to a terminal, of bounded length, never
/// blank.
fn tidy_line(line: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut shown: String = line.trim().chars().take(LINE_CHARS_MAX).map(clean).collect();
    if line.trim().chars().count() > LINE_CHARS_MAX {
        shown.push('…');
    }
    if shown.is_empty() { "(an empty line)".to_owned() } else { shown }
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
    fn parents_respect_quotes() {
        for (path, expected) in [
            ("routes.products.upstream", "routes.products"),
            ("limits.api.allow[1]", "limits.api.allow"),
            ("server", ""),
            ("", ""),
            (r#"routes.x.require."a.b""#, "routes.x.require"),
            (r#"routes."a\".b""#, "routes"),
        ] {
            assert_eq!(parent(path), expected);
        }
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(line_and_column("é = 1\nü = x", 0), (1, 1));
        assert_eq!(line_and_column("é = 1\nü = x", 12), (2, 5));
        assert_eq!(line_and_column("", 0), (1, 1));
        assert_eq!(line_and_column("a", 99), (1, 2));
    }

    #[test]
    fn who_is_called_back_and_what_seals_is_not_printed() {
        const TEXT: &str = "[queues.mail]\nseal = [\"hunter2\"]\nsaal = \"hunter2\"\n\
                            [queues.mail.callback]\nurl = \"https://h.test/hunter2\"\n\
                            [queues.callbacks]\nmax_age = \"1h\"\n";
        let table = DeTable::parse(TEXT).expect("TOML");
        let source = Source::new("t.toml", TEXT, table.get_ref());
        let mut problems = Problems::default();
        let paths = ["seal[0]", "saal", "callback.url"].map(|key| format!("queues.mail.{key}"));
        for path in paths.into_iter().chain(["queues.callbacks.max_age".to_owned()]) {
            problems.push(path, "is wrong", "write another one");
        }
        let report = source.render(&problems);
        assert!(!report.contains("hunter2") && report.contains("    url = ***\n"), "{report}");
        assert!(report.contains("max_age = \"1h\""), "{report}");
        for start in ["seal = [\"hunter2", "[queues.mail.callback]\nurl = \"https://h/hunter2"] {
            let error = DeTable::parse(start).expect_err("no TOML");
            let report = render_syntax_error("t.toml", start, &error);
            assert!(!report.contains("hunter2") && report.contains("= ***"), "{report}");
        }
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
            ("token_bytes", false),
            ("forward_token", false),
            ("servers", false),
            ("prefix", false),
            ("level", false),
        ] {
            assert_eq!(bears_secret(key), expected, "{key}");
        }
    }
}
