//! What all sections of one walk over the file share: the problems so far, and the way to what the
//! file only names, which are other files and environment variables.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::document::Document;
use super::pem_file::without_newline;
use super::problem::Problems;
use super::readable::{self, Holds};
use super::source::File;
use super::value::{Flaw, Mistake, Read, echo};
use super::variables::Taken;
use crate::base::file::{self, FILE_BYTES_MAX};
use crate::base::units::Secret;

/// What all sections of one walk share.
pub(super) struct Reader<'a> {
    folder: &'a Path,
    /// All files, where there are several.
    files: &'a [File],
    /// What was taken from the environment.
    taken: Option<&'a BTreeMap<String, Taken>>,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    pub(super) problems: RefCell<Problems>,
    /// The keys asked for, when that is what the walk is for.
    pub(super) survey: Option<RefCell<Vec<String>>>,
    /// What is amiss, by path, when that is what the walk is for.
    pub(super) flaws: Option<RefCell<Vec<(String, Flaw)>>>,
    /// What is to be known of values that are shown, by path, when that is what the walk is for.
    pub(super) notes: Option<RefCell<Vec<(String, Note)>>>,
    /// What may be read, but deserves a second look.
    pub(super) warnings: RefCell<Problems>,
    /// The secrets that are not here, by path, where that is no mistake.
    pub(super) unseen: Option<RefCell<BTreeMap<String, String>>>,
}

/// What is to be known of a value that is shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Note {
    /// Nothing is written, and this holds; null where nothing does.
    Default(Value),
    /// The text that the environment gives was read as this.
    Means(Value),
    /// It must not be shown.
    Secret,
    /// The same of what nothing reads: it may be a secret under a misspelt key.
    Unread,
}

impl<'a> Reader<'a> {
    /// A walk over a file in `folder`, from which the files it names are found.
    pub(super) fn new(folder: &'a Path, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            folder,
            files: &[],
            taken: None,
            env,
            problems: RefCell::default(),
            survey: None,
            flaws: None,
            notes: None,
            warnings: RefCell::default(),
            unseen: None,
        }
    }

    /// A walk over the table of all files.
    pub(super) fn of(document: &'a Document<'a>, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        let folder = document.files.first().map_or(Path::new(""), |file| &file.folder);
        let (files, taken) = (document.files, Some(&document.taken));
        Self { files, taken, ..Self::new(folder, env) }
    }

    /// The folder of the file that has this byte of all files: from there its files are found.
    pub(super) fn folder_at(&self, at: usize) -> &'a Path {
        let file = self.files.iter().rev().find(|file| file.start <= at);
        file.map_or(self.folder, |file| &file.folder)
    }

    /// What the value at a path has from the environment.
    pub(super) fn taken_at(&self, path: &str) -> Option<&'a Taken> {
        self.taken?.get(path)
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

    /// Keeps that a secret is not here, where that is no mistake: `place` says where it would be.
    /// Whether it is none.
    pub(super) fn goes_without(&self, path: &str, place: &str) -> bool {
        let Some(unseen) = &self.unseen else { return false };
        unseen.borrow_mut().insert(path.to_owned(), place.to_owned());
        true
    }

    /// Whether that was kept of a path.
    pub(super) fn is_unseen(&self, path: &str) -> bool {
        self.unseen.as_ref().is_some_and(|unseen| unseen.borrow().contains_key(path))
    }

    /// Whether there is no such file; one that is there, and cannot be used, is a mistake.
    pub(super) fn lacks_file(&self, name: &str, folder: &Path) -> bool {
        !name.is_empty() && !folder.join(name).exists()
    }

    /// Warns of a file with a secret that others of this machine may read.
    pub(super) fn warn_of_readers(&self, path: &str, name: &str, folder: &Path, what: Holds) {
        if let Some((what, remedy)) = readable::by_others(&folder.join(name), what) {
            self.warnings.borrow_mut().push(path, what, remedy);
        }
    }

    /// The content of a file that the configuration names, seen from a folder.
    pub(super) fn file(&self, name: &str, folder: &Path) -> Read<Vec<u8>> {
        if name.is_empty() {
            return Err(Mistake::new("names no file", "write the path of a file"));
        }
        let path = folder.join(name);
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
    pub(super) fn secret(&self, text: &str, folder: &Path) -> Read<Secret> {
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
            (without_newline(self.file(name, folder)?), format!("the file {}", echo(name)))
        } else {
            (text.as_bytes().to_vec(), "the secret".to_owned())
        };
        if bytes.is_empty() {
            return Err(Mistake::new(format!("{origin} is empty"), "give it a value"));
        }
        Ok(Secret::new(bytes))
    }
}
