//! The files that were read, main file first: what is needed to show a problem in its place. A
//! place is a number of bytes from the beginning of the first file, with all behind each other.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{
    NAMED_TABLES, Problem, Problems, UNKNOWN_KEY, bears_credentials, bears_query, distance,
    is_masked, join,
};
use super::value::echo;
use crate::base::http::hex;

/// What a printed line shows in place of a secret.
const MASK: &str = "***";
/// Tables in which a value often is a secret.
const OF_SECRETS: [&str; 4] = ["admin.", "auth.", "events.", "store."];
/// Longest source line that is printed whole, in characters.
const LINE_CHARS_MAX: usize = 160;
/// Shortest value of the environment that is looked for inside of words, in characters: a shorter
/// one is part of many.
const HIDDEN_CHARS_MIN: usize = 6;
/// Deepest table that is indexed; no key that the reader knows is deeper than five.
const DEPTH_MAX: usize = 16;

/// One file.
#[derive(Debug, Clone)]
pub(super) struct File {
    /// As it is shown.
    pub(super) name: String,
    /// The same, seen from the folder of the main file.
    pub(super) short: String,
    /// Where it lies; what it names is looked for there.
    pub(super) folder: PathBuf,
    /// All of it; it may hold secrets.
    pub(super) text: String,
    /// Where it begins.
    pub(super) start: usize,
}

impl File {
    /// The main file: called `name`, in `folder`.
    pub(super) fn main(name: &str, folder: &Path, text: &str) -> Self {
        let short =
            Path::new(name).file_name().map_or_else(|| name.into(), |it| it.to_string_lossy());
        Self {
            name: name.to_owned(),
            short: short.into_owned(),
            folder: folder.to_owned(),
            text: text.to_owned(),
            start: 0,
        }
    }

    /// Where whatever comes behind it begins.
    pub(super) fn end(&self) -> usize {
        self.start + self.text.len() + 1
    }

    /// What it says.
    ///
    /// # Errors
    /// Ready-to-print text, when it is not TOML.
    pub(super) fn table(&self) -> Result<DeTable<'_>, String> {
        let table = DeTable::parse(&self.text)
            .map_err(|error| render_syntax_error(&self.name, &self.text, &error))?;
        Ok(moved_table(table.into_inner(), self.start))
    }
}

/// The same table with all places moved by so many bytes.
fn moved_table(table: DeTable<'_>, by: usize) -> DeTable<'_> {
    if by == 0 {
        return table;
    }
    let place = |span: Range<usize>| span.start + by..span.end + by;
    let entries = table.into_iter().map(|(key, value)| {
        let span = place(key.span());
        (Spanned::new(span, key.into_inner()), moved(value, by))
    });
    entries.collect()
}

fn moved(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let span = value.span();
    let inner = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(moved_table(table, by)),
        DeValue::Array(mut items) => {
            for item in items.iter_mut() {
                let empty = Spanned::new(0..0, DeValue::Boolean(false));
                *item = moved(std::mem::replace(item, empty), by);
            }
            DeValue::Array(items)
        }
        other => other,
    };
    Spanned::new(span.start + by..span.end + by, inner)
}

/// The SHA-256 of a configuration, in hexadecimal: what `sha256sum` says of the main file; where
/// that includes others, what it says of what it says of all of them, by their names from the
/// folder of the main file. Of a file that cannot be read there is a dash.
pub(super) fn sha256_of_all(files: &[(&str, Option<&[u8]>)]) -> String {
    let sum = |bytes: &[u8]| hex::encode(digest(&SHA256, bytes).as_ref());
    let line = |(name, bytes): &(&str, Option<&[u8]>)| {
        let sum = bytes.map_or_else(|| "-".to_owned(), sum);
        format!("{sum}  {name}\n")
    };
    match files {
        [(_, bytes)] => bytes.map(sum).unwrap_or_default(),
        _ => sum(files.iter().map(line).collect::<String>().as_bytes()),
    }
}

/// The files that were read: what is needed to show a problem in its place.
#[derive(Clone)]
pub struct Source {
    /// The main file, and those that it includes.
    files: Vec<File>,
    index: Index,
    /// What the environment gave, by the path of the value: no problem shows it.
    given: BTreeMap<String, Given>,
}

/// A value that is, or has in it, what the environment says.
#[derive(Clone)]
pub(super) struct Given {
    /// The variables, as they are written.
    pub(super) names: String,
    /// What became of the value, and its parts where it stands for a list.
    pub(super) texts: Vec<String>,
}

/// Where things stand.
#[derive(Clone, Default)]
struct Index {
    /// Key path to the bytes of its key, or of the element of a list; of the first, where there are
    /// several.
    keys: BTreeMap<String, Range<usize>>,
    /// The bytes that must not be printed, in the order of the files.
    masked: Vec<Range<usize>>,
    /// Where the file ends that is looked at.
    end: usize,
}

/// The text may hold secrets, so only the names are printed.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        f.debug_struct("Source").field("names", &names).finish_non_exhaustive()
    }
}

impl Source {
    /// Indexes files, the main one first.
    ///
    /// # Errors
    /// Ready-to-print text, when one is not TOML.
    pub(super) fn new(files: Vec<File>) -> Result<Self, String> {
        let mut index = Index::default();
        let mut faults = String::new();
        for file in &files {
            index.end = file.start + file.text.len();
            match file.table() {
                Ok(table) => index.index_table("", &table, false, 0),
                Err(text) => faults += &text,
            }
        }
        index.masked.sort_by_key(|span| span.start);
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self { files, index, given: BTreeMap::new() })
    }

    /// Keeps from problems what the environment gave: it may be a secret in the wrong place.
    pub(super) fn hide(&mut self, given: BTreeMap<String, Given>) {
        self.given = given;
    }

    /// What a problem at `path` says, without what the environment gave there.
    fn without_given(&self, path: &str, text: &str) -> String {
        let mut shown = text.to_owned();
        let near = |at: &str| is_within(path, at) || is_within(at, path);
        for Given { names, texts } in
            self.given.iter().filter(|(at, _)| near(at)).map(|(_, given)| given)
        {
            for text in texts {
                for quoted in [echo(text), format!("{text:?}"), format!("`{text}`")] {
                    shown = shown.replace(&quoted, names);
                }
                if text.chars().count() >= HIDDEN_CHARS_MIN {
                    shown = shown.replace(text.as_str(), names);
                }
            }
        }
        shown
    }

    /// The SHA-256 of all of it, in hexadecimal: see [`sha256_of_all`].
    pub fn sha256(&self) -> String {
        let all = self.files.iter().map(|it| (it.short.as_str(), Some(it.text.as_bytes())));
        sha256_of_all(&all.collect::<Vec<_>>())
    }

    /// The main file, and those that it includes.
    pub(super) fn files(&self) -> &[File] {
        &self.files
    }

    /// Where `path` stands first, as a file and a line.
    pub(super) fn line_of(&self, path: &str) -> String {
        let Spot { file, line, .. } = self.spot(self.locate(path));
        format!("{}:{line}", file.map_or("", |file| &file.name))
    }
}

impl Index {
    /// `hide` says that a key around the table bears a secret, and so do all keys in it.
    fn index_table(&mut self, path: &str, table: &DeTable<'_>, hide: bool, depth: usize) {
        // Names of the user's choice, such as `[limits.tokens]`, say nothing about what they hold.
        let names = NAMED_TABLES.contains(&path);
        for (key, value) in table {
            let path = join(path, key.get_ref());
            self.keys.entry(path.clone()).or_insert_with(|| key.span());
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
                    self.keys.entry(path.clone()).or_insert_with(|| item.span());
                    self.index_value(&path, item, hide, depth + 1);
                }
            }
            // Below the bound nobody looks at the keys, so nothing from here on is shown.
            DeValue::Table(_) | DeValue::Array(_) => self.masked.push(span.start..self.end),
            DeValue::String(text) if hide || bears_credentials(text) || bears_query(text) => {
                self.masked.push(span);
            }
            DeValue::Boolean(_) | DeValue::String(_) => {}
            _ if hide => self.masked.push(span),
            _ => {}
        }
    }
}

impl Source {
    /// Every problem in three lines, by file and line and then by path, and how many there are.
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
        let mut placed: Vec<(Spot<'_>, &Problem)> = problems
            .iter()
            .map(|it| (self.spot(it.at.unwrap_or_else(|| self.locate(&it.path))), it))
            .collect();
        placed.sort_by_key(|(spot, it)| (spot.number, spot.line, &it.path, &it.what, &it.remedy));
        placed.dedup_by(|(_, one), (_, other)| one == other);

        let mut out = String::new();
        for (spot, Problem { path, what, remedy, .. }) in &placed {
            let (what, remedy) = (self.without_given(path, what), self.without_given(path, remedy));
            let name = spot.file.map_or("", |file| &file.name);
            let Spot { line, column, .. } = spot;
            let mut shown = self.shown_line(spot);
            // Of a key that is none, nobody knows whether its value is a secret.
            if what == UNKNOWN_KEY && OF_SECRETS.iter().any(|table| path.starts_with(table)) {
                shown =
                    shown.split_once('=').map_or(shown.clone(), |it| format!("{}= {MASK}", it.0));
            }
            out += &format!("{name}:{line}:{column}: {mark}{path}: {what}\n    {shown}\n");
            out += &format!("    help: {remedy}\n");
        }
        let plural = if placed.len() == 1 { "" } else { "s" };
        out + &format!("{} {noun}{plural} in {}\n", placed.len(), self.names())
    }

    fn names(&self) -> String {
        let name = self.files.first().map_or("", |file| file.name.as_str());
        match self.files.len() {
            0 | 1 => name.to_owned(),
            2 => format!("{name} and the file that it includes"),
            number => format!("{name} and the {} files that it includes", number - 1),
        }
    }

    fn spot(&self, at: usize) -> Spot<'_> {
        let number = self.files.partition_point(|file| file.start <= at).saturating_sub(1);
        let file = self.files.get(number);
        let (text, start) = file.map_or(("", 0), |file| (file.text.as_str(), file.start));
        let (line, column) = line_and_column(text, at - start);
        Spot { number, file, line, column }
    }

    /// Where `path` stands; when it is in no file, where the nearest table around it stands.
    fn locate(&self, path: &str) -> usize {
        let mut path = path;
        loop {
            if let Some(span) = self.index.keys.get(path) {
                return span.start;
            }
            if path.is_empty() {
                return 0;
            }
            path = parent(path);
        }
    }

    /// One line of a file, without its secrets.
    fn shown_line(&self, spot: &Spot<'_>) -> String {
        let Some(File { text, start, .. }) = spot.file else { return tidy_line("") };
        let range = line_range(text, spot.line);
        let mut shown = String::new();
        let mut at = range.start;
        let masked = self.index.masked.iter().filter(|span| span.end > *start);
        let masked = masked.map(|span| span.start.saturating_sub(*start)..span.end - start);
        for span in masked.filter(|s| s.start < range.end && s.end > range.start) {
            let (start, end) = (span.start.max(at), span.end.min(range.end));
            shown += text.get(at..start).unwrap_or_default();
            shown += MASK;
            at = end.max(at);
        }
        shown += text.get(at..range.end).unwrap_or_default();
        tidy_line(&shown)
    }
}

/// A place in a file; lines and columns from 1.
struct Spot<'a> {
    number: usize,
    file: Option<&'a File>,
    line: usize,
    column: usize,
}

/// A syntax error in the same three lines. There is no table yet that could say which bytes are
/// secret, so the line is judged by its looks.
fn render_syntax_error(name: &str, text: &str, error: &toml::de::Error) -> String {
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
        // What is no line of TOML at all may be any file, of secrets too.
        None if !source.trim_start().starts_with(['[', '#']) => MASK.to_owned(),
        _ if continues => MASK.to_owned(),
        Some((key, _)) if bears => format!("{key}= {MASK}"),
        _ if bears => MASK.to_owned(),
        _ => source.to_owned(),
    };
    let help = if error.message().contains("must be quoted") {
        "texts stand in quotes, times and sizes too: key = \"text\""
    } else {
        "correct the syntax (https://toml.io)"
    };
    format!(
        "{name}:{line}:{column}: {}\n    {}\n    help: {help}, then run the check again for \
         everything else\n",
        error.message(),
        tidy_line(&shown)
    )
}

/// Whether a path is `around`, or of something in it.
fn is_within(path: &str, around: &str) -> bool {
    path.strip_prefix(around).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
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

/// Whether what follows is in a table of such a kind, as far as its header says.
fn is_of_callback(before: &str) -> bool {
    let header = before.lines().rev().find(|line| line.trim_start().starts_with('['));
    let is_it = |name: &str| name != "callbacks" && distance(name, "callback") <= 2;
    header.is_some_and(|line| line.split(['.', '[', ']', '"', ' ']).any(is_it))
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
        let file = File::main("t.toml", Path::new(""), TEXT);
        let source = Source::new(vec![file]).expect("TOML");
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
}
