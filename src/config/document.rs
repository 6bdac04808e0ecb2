//! All files as the one table that the sections are read from: merged by name, with what the
//! environment says in the place of variables.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::include::INCLUDE;
use super::problem::{NAMED_TABLES, Problems, join};
use super::source::{File, Given, Source};
use super::variables::{Taken, Variables};

/// What all files say.
pub(super) struct Document<'s> {
    pub(super) table: DeTable<'s>,
    /// What was taken from the environment, by the path of the value.
    pub(super) taken: BTreeMap<String, Taken>,
    /// What is wrong with the files together, and with variables.
    pub(super) problems: Problems,
    /// Where they lie.
    pub(super) files: &'s [File],
}

impl<'s> Document<'s> {
    /// Merges the files of `source`.
    pub(super) fn of(source: &'s Source, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut merge = Merge { source, problems: Problems::default() };
        let mut table = DeTable::new();
        for (number, file) in source.files().iter().enumerate() {
            // That it is TOML was seen when the source was made.
            let Ok(mut other) = file.table() else { continue };
            if number > 0 {
                merge.refuse_include(&mut other);
            }
            merge.add("", &mut table, other);
        }
        let mut variables = Variables::new(env);
        variables.fill_table("", &mut table);
        let Variables { taken, problems: more, .. } = variables;
        let mut problems = merge.problems;
        problems.extend(more);
        Self { table, taken, problems, files: source.files() }
    }

    /// What the environment gave, by the path of the value.
    pub(super) fn given(&self) -> BTreeMap<String, Given> {
        let all = self.taken.iter().filter(|(_, taken)| !taken.is_missing);
        let given = all.filter_map(|(path, taken)| {
            let names = taken.given()?;
            let mut texts = vec![taken.value.clone()];
            if taken.is_whole && taken.value.contains(',') {
                texts.extend(taken.value.split(',').map(|part| part.trim().to_owned()));
            }
            texts.retain(|text| !text.is_empty());
            Some((path.clone(), Given { names, texts }))
        });
        given.collect()
    }
}

/// The merging of files.
struct Merge<'s> {
    source: &'s Source,
    problems: Problems,
}

impl Merge<'_> {
    /// A file that includes others could include itself.
    fn refuse_include(&mut self, table: &mut DeTable<'_>) {
        if let Some((key, _)) = table.remove_entry(INCLUDE) {
            let main = self.source.files().first().map_or("", |file| &file.name);
            let what = "stands in a file that is included itself".to_owned();
            let remedy = format!("name the files in {main}: it alone includes others");
            self.problems.place(key.span().start, INCLUDE, &what, &remedy);
        }
    }

    /// Adds what another file says to a table.
    fn add<'s>(&mut self, path: &str, table: &mut DeTable<'s>, other: DeTable<'s>) {
        for (key, value) in other {
            let path = join(path, key.get_ref());
            let Some(known) = table.get_mut(&key) else {
                table.insert(key, value);
                continue;
            };
            let at = key.span().start;
            match (known.get_mut(), value.into_inner()) {
                (DeValue::Table(known), DeValue::Table(other)) if may_be_spread(&path) => {
                    self.add(&path, known, other);
                }
                _ => {
                    let what = format!("is written in {}, too", self.source.line_of(&path));
                    self.problems.place(at, &path, &what, "keep one of both");
                }
            }
        }
    }
}

/// Whether several files may write keys of a table: not of one with a name of the user's choice.
fn may_be_spread(path: &str) -> bool {
    path.split_once('.').is_none_or(|(table, _)| !NAMED_TABLES.contains(&table))
}
