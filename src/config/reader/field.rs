//! One value of the file with its place: reads it as what it should be, or reports what is wrong.

use toml::de::{DeTable, DeValue};

use super::{Reader, Section};
use crate::config::value::{Mistake, Read, echo};

/// One value with its place.
pub(in crate::config) struct Field<'a> {
    pub(super) reader: &'a Reader<'a>,
    pub(super) path: String,
    pub(super) value: &'a DeValue<'a>,
}

impl<'a> Field<'a> {
    /// The value as `kind`; nothing when it is something else, which is reported.
    pub(in crate::config) fn read<T>(
        &self,
        kind: impl FnOnce(&DeValue<'_>) -> Read<T>,
    ) -> Option<T> {
        self.keep(kind(self.value))
    }

    /// The same; text of the form `env:NAME` stands for the value of that environment variable. A
    /// wrong one is not shown: the name may be that of a secret.
    pub(in crate::config) fn read_env<T>(
        &self,
        kind: impl FnOnce(&DeValue<'_>) -> Read<T>,
    ) -> Option<T> {
        let Some(name) = self.value.as_str().and_then(|text| text.strip_prefix("env:")) else {
            return self.read(kind);
        };
        self.keep(self.reader.variable(name).and_then(|text| {
            kind(&DeValue::String(text.into())).map_err(|mistake| {
                let what = format!("the environment variable {} has no usable value", echo(name));
                Mistake::new(what, mistake.remedy)
            })
        }))
    }

    pub(super) fn keep<T>(&self, outcome: Read<T>) -> Option<T> {
        outcome.map_err(|mistake| self.reader.report(&self.path, mistake)).ok()
    }

    /// The value as a table.
    pub(super) fn read_table(&self) -> Option<&'a DeTable<'a>> {
        let wrong = || {
            let name = self.path.rsplit('.').next().unwrap_or_default();
            let example =
                format!("{name} = {{ … }}, or [{}] on its own line, its keys below", self.path);
            Mistake::wrong_type(self.value, "a table", &example)
        };
        self.keep(self.value.as_table().ok_or_else(wrong))
    }

    /// The elements of a list.
    pub(super) fn items(&self) -> Option<Vec<Field<'a>>> {
        let wrong = || Mistake::wrong_type(self.value, "a list", "it in square brackets: [ … ]");
        let items = self.keep(self.value.as_array().ok_or_else(wrong))?;
        let item = |(position, item): (usize, &'a toml::Spanned<DeValue<'a>>)| Field {
            reader: self.reader,
            path: format!("{}[{position}]", self.path),
            value: item.get_ref(),
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// A list whose elements `read` reads; the wrong ones are left out.
    pub(super) fn list<T>(&self, read: impl Fn(&Field<'a>) -> Option<T>) -> Option<Vec<T>> {
        let items = self.items()?;
        if items.is_empty() {
            self.keep::<()>(Err(Mistake::new("is an empty list", "name at least one")));
        }
        Some(items.iter().filter_map(read).collect())
    }

    /// A list of `kind` with at least one element.
    pub(in crate::config) fn list_of<T>(
        &self,
        kind: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> Option<Vec<T>> {
        self.list(|item| item.read(&kind))
    }

    /// A table that `read` reads, or else a value of `kind`.
    pub(super) fn either<T>(
        &self,
        kind: impl Fn(&DeValue<'_>) -> Read<T>,
        read: impl Fn(&mut Section<'_>) -> Option<T>,
    ) -> Option<T> {
        match self.value.as_table() {
            Some(table) => Section::new(self.reader, self.path.clone(), Some(table)).read(read),
            None => self.read(kind),
        }
    }
}
