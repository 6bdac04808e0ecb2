//! What all sections of one walk over the file share: the problems so far, and the way to what the
//! file only names, which are other files and environment variables.

use std::cell::RefCell;
use std::path::Path;

use serde_json::Value;

use super::pem_file::without_newline;
use super::problem::Problems;
use super::value::{Flaw, Mistake, Read, echo};
use crate::base::file::{self, FILE_BYTES_MAX};
use crate::base::units::Secret;

/// What all sections of one walk share.
pub(super) struct Reader<'a> {
    pub(super) folder: &'a Path,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    pub(super) problems: RefCell<Problems>,
    /// The keys asked for, when that is what the walk is for.
    pub(super) survey: Option<RefCell<Vec<String>>>,
    /// What is amiss, by path, when that is what the walk is for.
    pub(super) flaws: Option<RefCell<Vec<(String, Flaw)>>>,
    /// What is to be known of values that are shown, by path, when that is what the walk is for.
    pub(super) notes: Option<RefCell<Vec<(String, Note)>>>,
}

/// What is to be known of a value that is shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Note {
    /// Nothing is written, and this holds; null where nothing does.
    Default(Value),
    /// It must not be shown.
    Secret,
}

impl<'a> Reader<'a> {
    /// A walk over a file in `folder`, from which the files it names are found.
    pub(super) fn new(folder: &'a Path, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { folder, env, problems: RefCell::default(), survey: None, flaws: None, notes: None }
    }

    /// Keeps a note, where that is what the walk is for.
    pub(super) fn note(&self, path: &str, note: impl FnOnce() -> Note) {
        if let Some(notes) = &self.notes {
            notes.borrow_mut().push((path.to_owned(), note()));
        }
    }

    /// Keeps a mistake.
    pub(super) fn report(&self, path: &str, mistake: Mistake) {
        if let Some(flaws) = &self.flaws {
            flaws.borrow_mut().push((path.to_owned(), mistake.flaw));
        }
        self.problems.borrow_mut().push(path, mistake.what, mistake.remedy);
    }

    /// The content of a file that the configuration names.
    pub(super) fn file(&self, name: &str) -> Read<Vec<u8>> {
        if name.is_empty() {
            return Err(Mistake::new("names no file", "write the path of a file"));
        }
        let path = self.folder.join(name);
        file::read(&path, FILE_BYTES_MAX).map_err(|fault| {
            let what = format!("cannot read {}: {fault}", echo(&path.to_string_lossy()));
            Mistake::new(what, fault.remedy())
        })
    }

    /// The value of an environment variable.
    pub(super) fn variable(&self, name: &str) -> Read<String> {
        (self.env)(name).ok_or_else(|| {
            let what = format!("the environment variable {} is not set", echo(name));
            Mistake::new(what, "set it before the gateway starts, or write the value here")
        })
    }

    /// A secret as the file gives it: `env:NAME`, `file:PATH` or the secret itself.
    pub(super) fn secret(&self, text: &str) -> Read<Secret> {
        let (bytes, origin) = if let Some(name) = text.strip_prefix("env:") {
            let missing = || {
                Mistake::new(
                    format!("the environment variable {} is not set", echo(name)),
                    "set it before the gateway starts, or use file:PATH",
                )
            };
            let value = (self.env)(name).ok_or_else(missing)?;
            (value.into_bytes(), format!("the environment variable {}", echo(name)))
        } else if let Some(name) = text.strip_prefix("file:") {
            (without_newline(self.file(name)?), format!("the file {}", echo(name)))
        } else {
            (text.as_bytes().to_vec(), "the secret".to_owned())
        };
        if bytes.is_empty() {
            return Err(Mistake::new(format!("{origin} is empty"), "give it a value"));
        }
        Ok(Secret::new(bytes))
    }
}
