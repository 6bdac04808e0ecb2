//! One value with its place: read as a kind, as a list of them, or as a secret. What the
//! environment gave in the place of a whole value may stand for a number, a flag or a list.

use std::borrow::Cow;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::readable::Holds;
use super::value::{Flaw, Mistake, Read, echo, string};
use super::variables::Taken;
use super::walk::{Note, Reader};
use crate::base::http::hex;
use crate::base::units::Secret;

/// What a text begins with that says where a value lies.
pub(super) const ELSEWHERE: [&str; 2] = ["env:", "file:"];

/// One value with its place.
pub(super) struct Field<'a> {
    reader: &'a Reader<'a>,
    pub(super) path: String,
    value: Cow<'a, DeValue<'a>>,
    /// The folder of the file that it stands in.
    pub(super) folder: &'a Path,
    /// What it has from the environment.
    taken: Option<&'a Taken>,
}

impl<'a> Field<'a> {
    /// The value at `path`.
    pub(super) fn new(
        reader: &'a Reader<'a>,
        path: String,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Self {
        let (folder, taken) = (reader.folder_at(value.span().start), reader.taken_at(&path));
        Self { reader, path, value: Cow::Borrowed(value.get_ref()), folder, taken }
    }

    /// Whether it must not be looked at: what is wrong with it was said when it was taken from the
    /// environment.
    fn is_missing(&self) -> bool {
        self.taken.is_some_and(|taken| taken.is_missing) && !self.reader.is_unseen(&self.path)
    }

    /// The text, when it may stand for another type.
    fn loose_text(&self) -> Option<&str> {
        self.taken.filter(|taken| taken.is_whole)?;
        self.value.as_str()
    }

    /// The value as `kind`; nothing when it is something else, which is reported.
    pub(super) fn read<T>(&self, kind: impl Fn(&DeValue<'_>) -> Read<T>) -> Option<T> {
        if self.is_missing() {
            return None;
        }
        let read = kind(&self.value);
        let other = if read.is_err() { self.read_otherwise(kind) } else { None };
        self.keep(other.unwrap_or(read))
    }

    /// The value that its text would be without quotes, as `kind`; nothing where that is of no type
    /// that is wanted.
    fn read_otherwise<T>(&self, kind: impl Fn(&DeValue<'_>) -> Read<T>) -> Option<Read<T>> {
        let text = self.loose_text()?;
        let value = DeValue::parse(text).ok()?.into_inner();
        let note: Value = match &value {
            DeValue::Boolean(flag) => (*flag).into(),
            DeValue::Integer(number) => {
                i64::from_str_radix(number.as_str(), number.radix()).ok()?.into()
            }
            _ => return None,
        };
        let read = kind(&value);
        if read.as_ref().is_err_and(|mistake| mistake.flaw == Flaw::Type) {
            return None;
        }
        self.reader.note(&self.path, || Note::Means(note));
        Some(read)
    }

    /// The same; text of the form `env:NAME` stands for the value of that environment variable. A
    /// wrong one is not shown: the name may be that of a secret.
    pub(super) fn read_env<T>(&self, kind: impl Fn(&DeValue<'_>) -> Read<T>) -> Option<T> {
        let Some(name) = self.value.as_str().and_then(|text| text.strip_prefix("env:")) else {
            return self.read(kind);
        };
        if self.is_made_elsewhere() {
            return None;
        }
        self.keep(self.reader.variable(name).and_then(|text| {
            kind(&DeValue::String(text.into())).map_err(|mistake| {
                let what = format!("the environment variable {} has no usable value", echo(name));
                Mistake::new(what, mistake.remedy)
            })
        }))
    }

    /// Whether variables make the text say that its value lies elsewhere, which is reported: what
    /// they say is text, and whoever sets them chooses no file to read.
    fn is_made_elsewhere(&self) -> bool {
        let made = |beginning: &&str| self.taken?.makes(self.value.as_str()?, beginning);
        let found = ELSEWHERE.iter().find_map(|it| Some((*it, made(it)?)));
        let Some((beginning, names)) = found else { return false };
        let what = format!("{names} makes a text that begins with `{beginning}`, and is no place");
        let remedy = format!("write `{beginning}` in the file, and leave it out of the variable");
        self.reader.report(&self.path, Mistake::new(what, remedy));
        true
    }

    /// A secret: `env:NAME`, `file:PATH` or the secret itself.
    pub(super) fn secret(&self) -> Option<Secret> {
        self.reader.note(&self.path, || Note::Secret);
        if self.is_made_elsewhere() {
            return None;
        }
        if let Some(place) = self.lacking()
            && self.reader.goes_without(&self.path, &place)
        {
            return Some(stand_in(&self.path));
        }
        let secret = self.read(|value| {
            let text = string(value, "env:NAME or file:PATH in quotes")?;
            self.reader.secret(text, self.folder)
        })?;
        if let Some(name) = self.value.as_str().and_then(|text| text.strip_prefix("file:")) {
            self.reader.warn_of_readers(&self.path, name, self.folder, Holds::Secret);
        }
        Some(secret)
    }

    /// Where a secret would be that is not here; nothing where it is.
    fn lacking(&self) -> Option<String> {
        if let Some(taken) = self.taken.filter(|taken| taken.is_missing) {
            let names: Vec<String> =
                taken.variables.iter().map(|it| format!("${{{}}}", it.name)).collect();
            return Some(names.join(" and "));
        }
        let text = self.value.as_str()?;
        let is_lacking = match (text.strip_prefix("env:"), text.strip_prefix("file:")) {
            (Some(name), _) => (self.reader.env)(name).is_none(),
            (None, Some(name)) => self.reader.lacks_file(name, self.folder),
            (None, None) => false,
        };
        is_lacking.then(|| text.to_owned())
    }

    /// The same, as it is written, of which `read` makes something.
    pub(super) fn secret_as<T>(&self, read: impl Fn(&DeValue<'_>, Secret) -> Read<T>) -> Option<T> {
        let secret = self.secret()?;
        if self.reader.is_unseen(&self.path) {
            // Wherever it is, it is not here.
            return self.keep(read(&DeValue::String(ELSEWHERE.concat().into()), secret));
        }
        self.keep(read(&self.value, secret))
    }

    /// What came of the value, where nothing is wrong with it. What the environment gave is not
    /// shown, as it may be a secret in the wrong place.
    pub(super) fn keep<T>(&self, outcome: Read<T>) -> Option<T> {
        if self.is_missing() {
            return None;
        }
        let own = |mistake: Mistake| {
            let Some(names) = self.taken.and_then(Taken::given) else { return mistake };
            let what = format!("{names} makes no value that can be used here");
            Mistake { what, ..mistake }
        };
        outcome.map_err(|mistake| self.reader.report(&self.path, own(mistake))).ok()
    }

    /// The value, when it is a table.
    pub(super) fn table(&self) -> Option<&'a DeTable<'a>> {
        match &self.value {
            Cow::Borrowed(value) => value.as_table(),
            Cow::Owned(_) => None,
        }
    }

    /// The value as a table; reported, when it is something else.
    pub(super) fn read_table(&self) -> Option<&'a DeTable<'a>> {
        let name = self.path.rsplit('.').next().unwrap_or_default();
        let example =
            format!("{name} = {{ … }}, or [{}] on its own line, its keys below", self.path);
        let table = self.table_or(&example);
        if table.is_none() {
            self.reader.note(&self.path, || Note::Secret);
        }
        table
    }

    /// The same; `example` is what the remedy shows.
    pub(super) fn table_or(&self, example: &str) -> Option<&'a DeTable<'a>> {
        let wrong = || Mistake::wrong_type(&self.value, "a table", example);
        self.keep(self.table().ok_or_else(wrong))
    }

    /// Whether the value is a list as it is written.
    pub(super) fn is_list(&self) -> bool {
        self.value.is_array()
    }

    /// Whether the default of a variable is a list of secrets that are elsewhere: a secret itself
    /// may have commas, and what the environment says is text.
    pub(super) fn is_list_of_secrets(&self) -> bool {
        if self.taken.is_some_and(|taken| taken.given().is_some()) {
            return false;
        }
        let is_elsewhere = |part: &str| ELSEWHERE.iter().any(|it| part.trim().starts_with(it));
        let text = self.loose_text().filter(|text| text.contains(','));
        text.is_some_and(|text| text.split(',').all(is_elsewhere))
    }

    /// The elements of a list.
    pub(super) fn items(&self) -> Option<Vec<Field<'a>>> {
        if let Some(text) = self.loose_text() {
            let parts = || text.split(',').map(str::trim).filter(|part| !part.is_empty());
            self.reader.note(&self.path, || Note::Means(parts().collect()));
            let element = |(position, part): (usize, &str)| Field {
                reader: self.reader,
                path: format!("{}[{position}]", self.path),
                value: Cow::Owned(DeValue::String(part.to_owned().into())),
                folder: self.folder,
                taken: self.taken,
            };
            return Some(parts().enumerate().map(element).collect());
        }
        let array = match &self.value {
            Cow::Borrowed(value) => value.as_array(),
            Cow::Owned(_) => None,
        };
        let wrong = || {
            let port = self.value.as_integer().and_then(|it| it.as_str().parse::<u16>().ok());
            let example = match port.filter(|_| self.path.ends_with(".listen")) {
                Some(port) => format!("listen = [\"0.0.0.0:{port}\"]"),
                None => "it in square brackets: [ … ]".to_owned(),
            };
            Mistake::wrong_type(&self.value, "a list", &example)
        };
        let items = self.keep(array.ok_or_else(wrong))?;
        let element = |(position, item): (usize, &'a Spanned<DeValue<'a>>)| {
            Field::new(self.reader, format!("{}[{position}]", self.path), item)
        };
        Some(items.iter().enumerate().map(element).collect())
    }

    /// A list whose elements `read` reads; the wrong ones are left out.
    pub(super) fn list<T>(&self, read: impl Fn(&Field<'a>) -> Option<T>) -> Option<Vec<T>> {
        let items = self.items()?;
        if items.is_empty() {
            let mistake = Mistake::new("is an empty list", "name at least one");
            self.keep::<()>(Err(mistake.of(Flaw::Empty)));
        }
        Some(items.iter().filter_map(read).collect())
    }

    /// A list of `kind` with at least one element.
    pub(super) fn list_of<T>(&self, kind: impl Fn(&DeValue<'_>) -> Read<T>) -> Option<Vec<T>> {
        self.list(|item| item.read(&kind))
    }
}

/// What stands for a secret that is not here: as long as any must be, another one at each path, and
/// of every form that the reader asks for but that of keys of NATS.
fn stand_in(path: &str) -> Secret {
    Secret::new(hex::encode(digest(&SHA256, path.as_bytes()).as_ref()))
}
