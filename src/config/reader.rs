//! Walks the spanned table of the file: every wrong value becomes a problem, and reading goes on
//! with the default.
//!
//! A section is read inside a closure; when that returns, the keys that nobody asked for are
//! reported, so that no section can forget to. The same closures, run over an empty document, yield
//! the list of all keys ([`Reader::survey`]); over a value of the wrong kind, what is wanted in its
//! place ([`Reader::flaws`]); over a file, what holds where nothing is written ([`Reader::notes`]).

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::field::Field;
use super::pem_file::PemFile;
use super::problem::{Problems, UNKNOWN_KEY, distance, join};
use super::readable::Holds;
use super::value::{Flaw, Mistake, Read, echo, string, text};
use super::walk::{Note, Reader};
use super::written::written;
use crate::base::units::Secret;

/// Longest name of a named table.
const NAME_BYTES_MAX: usize = 64;

impl Reader<'_> {
    /// Reads `table` as the root section.
    pub(super) fn read<T>(
        self,
        table: &DeTable<'_>,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> (T, Found) {
        let value = Section::new(&self, String::new(), Some(table)).read(read);
        let found = Found {
            problems: self.problems.into_inner(),
            warnings: self.warnings.into_inner(),
            unseen: self.unseen.map(RefCell::into_inner).unwrap_or_default(),
        };
        (value, found)
    }

    /// What `read` finds amiss in `table`, for programs.
    pub(super) fn flaws<T>(
        mut self,
        table: &DeTable<'_>,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Vec<(String, Flaw)> {
        self.flaws = Some(RefCell::default());
        Section::new(&self, String::new(), Some(table)).read(read);
        self.flaws.map(RefCell::into_inner).unwrap_or_default()
    }

    /// What is to be known of the values in `table` before they are shown, in order: what stands in
    /// for what is not written may be told once as nothing, and then as what it is.
    pub(super) fn notes<T>(
        mut self,
        table: &DeTable<'_>,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Vec<(String, Note)> {
        self.notes = Some(RefCell::default());
        Section::new(&self, String::new(), Some(table)).read(read);
        self.notes.map(RefCell::into_inner).unwrap_or_default()
    }

    /// The path of every key that `read` asks for, with `NAME` for the names of tables.
    pub(super) fn survey<T>(read: impl FnOnce(&mut Section<'_>) -> T) -> Vec<String> {
        let no_env = |_: &str| None;
        let mut reader = Reader::new(Path::new(""), &no_env);
        reader.survey = Some(RefCell::default());
        Section::new(&reader, String::new(), None).read(read);
        let mut keys = reader.survey.map(RefCell::into_inner).unwrap_or_default();
        keys.sort();
        keys.dedup();
        keys
    }

    /// What `read` makes of a table in which nothing is written, whatever is missing there.
    pub(super) fn of_nothing<T>(read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let no_env = |_: &str| None;
        let reader = Reader::new(Path::new(""), &no_env);
        Section::new(&reader, String::new(), None).read(read)
    }
}

/// What was found beside the values.
pub(super) struct Found {
    pub(super) problems: Problems,
    /// What may be read, but deserves a second look.
    pub(super) warnings: Problems,
    /// The secrets that are not here, by path, with their places.
    pub(super) unseen: BTreeMap<String, String>,
}

/// One table: remembers which of its keys were asked for.
pub(super) struct Section<'a> {
    reader: &'a Reader<'a>,
    path: String,
    /// Nothing when the table is absent: every key then has its default.
    table: Option<&'a DeTable<'a>>,
    known: Vec<&'static str>,
    not_built: Vec<&'static str>,
}

impl<'a> Section<'a> {
    fn new(reader: &'a Reader<'a>, path: String, table: Option<&'a DeTable<'a>>) -> Self {
        Self { reader, path, table, known: Vec::new(), not_built: Vec::new() }
    }

    /// Runs `read`, then reports the keys that it did not ask for.
    fn read<T>(mut self, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let value = read(&mut self);
        self.finish();
        value
    }

    /// Reports a problem at one of this table's keys, or at the table itself for the key "".
    pub(super) fn problem(&self, key: &str, what: impl Into<String>, remedy: impl Into<String>) {
        let path = if key.is_empty() { self.path.clone() } else { join(&self.path, key) };
        self.reader.report(&path, Mistake::new(what, remedy));
    }

    /// What the environment says by this name, where it says anything.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.reader.env)(name)
    }

    /// Whether the file gives this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Where the file is that this key names: it is seen from the file that the key stands in.
    pub(super) fn beside(&self, key: &str, name: &str) -> PathBuf {
        let value = self.table.and_then(|table| table.get(key));
        self.reader.folder_at(value.map_or(0, |it| it.span().start)).join(name)
    }

    /// Whether it is only asked which keys there are.
    pub(super) fn is_survey(&self) -> bool {
        self.reader.survey.is_some()
    }

    fn find(&mut self, key: &'static str) -> Option<Field<'a>> {
        self.known.push(key);
        let value = self.table?.get(key)?;
        Some(Field::new(self.reader, join(&self.path, key), value))
    }

    /// The value of a key.
    pub(super) fn field(&mut self, key: &'static str) -> Option<Field<'a>> {
        if let Some(survey) = &self.reader.survey {
            survey.borrow_mut().push(join(&self.path, key));
        }
        let found = self.find(key);
        if found.is_none() {
            self.holds(key, || Some(Value::Null));
        }
        found
    }

    /// Says what holds where the file does not give this key.
    pub(super) fn holds(&self, key: &str, value: impl FnOnce() -> Option<Value>) {
        if self.reader.notes.is_some()
            && !self.has(key)
            && let Some(value) = value()
        {
            self.reader.note(&join(&self.path, key), || Note::Default(value));
        }
    }

    /// The value of a key as `kind`; nothing when it is absent or wrong.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        kind: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> Option<T> {
        self.field(key)?.read(kind)
    }

    /// The value of a key as `kind`, or the default.
    pub(super) fn or<T: PartialEq + Any>(
        &mut self,
        key: &'static str,
        default: T,
        kind: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> T {
        let found = self.field(key);
        self.holds(key, || written(&default, &kind));
        found.and_then(|field| field.read(kind)).unwrap_or(default)
    }

    /// Like [`Section::get`]; an absent key is a problem, and `example` its remedy.
    pub(super) fn need<T>(
        &mut self,
        key: &'static str,
        example: &str,
        kind: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> Option<T> {
        self.require(key, example);
        self.get(key, kind)
    }

    fn require(&self, key: &str, example: &str) {
        if !self.has(key) {
            let mistake = Mistake::new("is missing", format!("write {key} = {example}"));
            self.reader.report(&join(&self.path, key), mistake.of(Flaw::Missing));
        }
    }

    /// Like [`Section::or`]; `env:NAME` stands for the value of that environment variable.
    pub(super) fn or_env<T: PartialEq + Any>(
        &mut self,
        key: &'static str,
        default: T,
        kind: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> T {
        let found = self.field(key);
        self.holds(key, || written(&default, &kind));
        found.and_then(|field| field.read_env(kind)).unwrap_or(default)
    }

    /// Like [`Section::list`]; each element may be `env:NAME`.
    pub(super) fn list_env<T>(
        &mut self,
        key: &'static str,
        kind: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> Option<Vec<T>> {
        self.field(key)?.list(|item| item.read_env(&kind))
    }

    /// Like [`Section::need`]; `env:NAME` stands for the value of that environment variable.
    pub(super) fn need_env<T>(
        &mut self,
        key: &'static str,
        example: &str,
        kind: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> Option<T> {
        self.require(key, example);
        self.field(key)?.read_env(kind)
    }

    /// A list of `kind` with at least one element; nothing when the key is absent.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        kind: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> Option<Vec<T>> {
        self.field(key)?.list_of(kind)
    }

    /// A list of `kind` that may be empty or absent.
    pub(super) fn list_or_empty<T>(
        &mut self,
        key: &'static str,
        kind: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> Vec<T> {
        let items = self.field(key).and_then(|field| field.items()).unwrap_or_default();
        self.holds(key, || Some(Value::Array(Vec::new())));
        items.iter().filter_map(|item| item.read(&kind)).collect()
    }

    /// Like [`Section::list`]; an absent key is a problem, and `example` its remedy.
    pub(super) fn need_list<T>(
        &mut self,
        key: &'static str,
        example: &str,
        kind: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> Vec<T> {
        self.require(key, example);
        self.list(key, kind).unwrap_or_default()
    }

    /// Like [`Section::need_list`], with elements that are a value of `kind`, which may be
    /// `env:NAME`, or a table.
    pub(super) fn need_list_of_either<T>(
        &mut self,
        key: &'static str,
        example: &str,
        kind: impl Fn(&DeValue<'_>) -> Read<T>,
        read: impl Fn(&mut Section<'_>) -> Option<T>,
    ) -> Vec<T> {
        self.require(key, example);
        self.survey_table(key, &read);
        let found = self.field(key);
        let list = found.and_then(|field| {
            field.list(|item| match item.table() {
                Some(_) => either(self.reader, item, &kind, &read),
                None => item.read_env(&kind),
            })
        });
        list.unwrap_or_default()
    }

    /// A value of `kind` or a table that `read` reads.
    pub(super) fn either<T>(
        &mut self,
        key: &'static str,
        kind: impl Fn(&DeValue<'_>) -> Read<T>,
        read: impl Fn(&mut Section<'_>) -> Option<T>,
    ) -> Option<T> {
        self.survey_table(key, &read);
        let field = self.field(key)?;
        either(self.reader, &field, kind, read)
    }

    /// Shows a survey the table that `key` may be or contain.
    fn survey_table<T>(&self, key: &str, read: impl Fn(&mut Section<'_>) -> T) {
        if self.reader.survey.is_some() {
            Section::new(self.reader, join(&self.path, key), None).read(read);
        }
    }

    /// A table with names of the user's choice; `key` reads a name, `value` reads what it stands
    /// for.
    pub(super) fn map<T>(
        &mut self,
        key: &'static str,
        name: impl Fn(&str) -> Read<String>,
        value: impl Fn(&Field<'a>) -> Option<T>,
    ) -> BTreeMap<String, T> {
        let mut map = BTreeMap::new();
        let found = self.field(key);
        self.holds(key, || Some(Value::Object(serde_json::Map::new())));
        let Some(field) = found else { return map };
        let table = field.table_or("{ name = \"value\" }");
        for (written, spanned) in table.into_iter().flatten() {
            let entry = Field::new(self.reader, join(&field.path, written.get_ref()), spanned);
            let (Some(name), Some(value)) = (entry.keep(name(written.get_ref())), value(&entry))
            else {
                continue;
            };
            if map.insert(name, value).is_some() {
                let what = "names the same as another key here, in another spelling";
                entry.keep::<()>(Err(Mistake::new(what, "remove one of them")));
            }
        }
        map
    }

    /// A secret: `env:NAME`, `file:PATH` or the secret itself.
    pub(super) fn secret(&mut self, key: &'static str) -> Option<Secret> {
        self.field(key)?.secret()
    }

    /// A secret as above, or a list of such; nothing where the key is absent.
    pub(super) fn secrets(&mut self, key: &'static str) -> Vec<Secret> {
        self.secrets_as(key, |_, secret| Ok(secret))
    }

    /// The same, of each of which, as it is written, `read` makes something.
    pub(super) fn secrets_as<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&DeValue<'_>, Secret) -> Read<T>,
    ) -> Vec<T> {
        let Some(field) = self.field(key) else { return Vec::new() };
        match field.is_list() || field.is_list_of_secrets() {
            true => field.list(|item| item.secret_as(&read)).unwrap_or_default(),
            false => field.secret_as(&read).into_iter().collect(),
        }
    }

    /// A secret, and the file that it is in, if it is in one.
    pub(super) fn secret_of_file(
        &mut self,
        key: &'static str,
    ) -> Option<(Secret, Option<PathBuf>)> {
        let secret = self.secret(key)?;
        let written = self.table?.get(key)?.get_ref().as_str()?;
        let name = written.strip_prefix("file:");
        Some((secret, name.map(|name| self.beside(key, name))))
    }

    /// The text of a file that a key names.
    pub(super) fn file(&mut self, key: &'static str) -> Option<String> {
        let field = self.field(key)?;
        field.read(|value| {
            let name = string(value, "the path of a file in quotes")?;
            String::from_utf8(self.reader.file(name, field.folder)?).map_err(|_| {
                let what = format!("{} is not text", echo(name));
                Mistake::new(what, "name a file in PEM or JSON")
            })
        })
    }

    /// A path that a key names, from the folder of the file.
    pub(super) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let field = self.field(key)?;
        field.read(|value| text(value).map(|name| field.folder.join(name)))
    }

    /// Whether a secret or a file of secrets, which the file names, is not here, and that is no
    /// mistake.
    pub(super) fn goes_without(&self, key: &str) -> bool {
        self.reader.is_unseen(&join(&self.path, key))
    }

    /// Whether one of both files is not here, of which one is no use without the other one, and
    /// that is no mistake.
    pub(super) fn goes_without_pair(&self, keys: [&str; 2]) -> bool {
        let lacking = keys.into_iter().filter_map(|key| {
            let value = self.table?.get(key)?;
            let name = value.get_ref().as_str()?;
            let folder = self.reader.folder_at(value.span().start);
            self.reader.lacks_file(name, folder).then(|| (join(&self.path, key), name))
        });
        let lacking: Vec<_> = lacking.collect();
        // All of them are kept.
        lacking.iter().filter(|(path, name)| self.reader.goes_without(path, name)).count() > 0
    }

    /// Warns where others may read the private key in the file that a key names.
    pub(super) fn warn_of_key(&self, key: &str) {
        let value = self.table.and_then(|table| table.get(key));
        let name = value.and_then(|it| Some((it.get_ref().as_str()?, it.span().start)));
        if let Some((name, at)) = name {
            let folder = self.reader.folder_at(at);
            self.reader.warn_of_readers(&join(&self.path, key), name, folder, Holds::Key);
        }
    }

    /// A file in PEM that a key names.
    pub(super) fn pem_file(&mut self, key: &'static str) -> Option<PemFile> {
        let field = self.field(key)?;
        field.read(|value| {
            let name = string(value, "the path of a file in quotes")?;
            let content = Secret::new(self.reader.file(name, field.folder)?);
            Ok(PemFile { path: field.folder.join(name), content })
        })
    }

    /// The same; an absent key is a problem, and `example` its remedy.
    pub(super) fn need_pem_file(&mut self, key: &'static str, example: &str) -> Option<PemFile> {
        self.require(key, example);
        self.pem_file(key)
    }

    /// A list of at least one table; an absent key is a problem, and `example` its remedy.
    pub(super) fn need_tables<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl Fn(&mut Section<'_>) -> Option<T>,
    ) -> Vec<T> {
        self.require(key, example);
        self.survey_table(key, &read);
        self.tables(key, read).unwrap_or_default()
    }

    /// A list of at least one table; nothing when the key is absent. A survey does not look into
    /// them, which may lie in each other.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&mut Section<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let found = self.field(key)?;
        let read_one = |item: &Field<'a>| {
            let table = item.read_table()?;
            Section::new(self.reader, item.path.clone(), Some(table)).read(&read)
        };
        found.list(read_one)
    }

    /// Whether the file gives this key a list.
    pub(super) fn has_list(&self, key: &str) -> bool {
        self.table.and_then(|table| table.get(key)).is_some_and(|it| it.get_ref().is_array())
    }

    /// What is wrong with a key was said: it is not looked at.
    pub(super) fn skip(&mut self, key: &'static str) {
        self.known.push(key);
    }

    /// A table that has defaults.
    pub(super) fn section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let table = self.table_at(key);
        Section::new(self.reader, join(&self.path, key), table).read(read)
    }

    /// A table that is off when it is absent.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        let table = self.table_at(key);
        self.holds(key, || Some(Value::Null));
        let wanted = table.is_some() || self.reader.survey.is_some();
        wanted.then(|| Section::new(self.reader, join(&self.path, key), table).read(read))
    }

    /// A table of named tables.
    pub(super) fn named<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&mut Section<'_>) -> T,
    ) -> BTreeMap<String, T> {
        let mut map = BTreeMap::new();
        if self.reader.survey.is_some() {
            let path = join(&join(&self.path, key), "NAME");
            Section::new(self.reader, path, None).read(&read);
        }
        let path = join(&self.path, key);
        self.holds(key, || Some(Value::Object(serde_json::Map::new())));
        for (name, spanned) in self.table_at(key).into_iter().flatten() {
            let field = Field::new(self.reader, join(&path, name.get_ref()), spanned);
            field.keep(check_name(name.get_ref()));
            if let Some(table) = field.read_table() {
                let section = Section::new(self.reader, field.path, Some(table));
                map.insert(name.get_ref().to_string(), section.read(&read));
            }
        }
        map
    }

    fn table_at(&mut self, key: &'static str) -> Option<&'a DeTable<'a>> {
        self.find(key)?.read_table()
    }

    /// A key of the design that this build does not have. Ignoring it would be unsafe, so it is a
    /// problem; `without` says what would silently not happen.
    pub(super) fn not_built(&mut self, key: &'static str, without: &str) {
        self.not_built.push(key);
        if self.has(key) {
            self.reader.note(&join(&self.path, key), || Note::Secret);
            self.problem(key, "is not built yet", format!("remove it; without it, {without}"));
        }
    }

    /// Reports the keys that nobody asked for.
    fn finish(self) {
        for (key, _) in self.table.into_iter().flatten() {
            let key = key.get_ref().as_ref();
            if self.known.contains(&key) || self.not_built.contains(&key) {
                continue;
            }
            self.reader.note(&join(&self.path, key), || Note::Unread);
            let close = self.known.iter().map(|known| (distance(key, known), known)).min();
            let remedy = match close {
                Some((edits, known)) if edits <= known.len().div_ceil(3).min(3) => {
                    format!("did you mean `{known}`?")
                }
                _ => format!("the keys here are: {}", self.known.join(", ")),
            };
            self.problem(key, UNKNOWN_KEY, remedy);
        }
    }
}

/// A table that `read` reads, or else a value of `kind`.
fn either<'a, T>(
    reader: &'a Reader<'a>,
    field: &Field<'a>,
    kind: impl Fn(&DeValue<'_>) -> Read<T>,
    read: impl Fn(&mut Section<'_>) -> Option<T>,
) -> Option<T> {
    match field.table() {
        Some(table) => Section::new(reader, field.path.clone(), Some(table)).read(read),
        None => field.read(kind),
    }
}

/// Names appear in metrics, logs and store keys, so they are plain.
fn check_name(name: &str) -> Read<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
        let what = format!("{} cannot be a name", echo(name));
        return Err(Mistake::new(what, "use 1 to 64 letters, digits, `-` and `_`"));
    }
    Ok(())
}
