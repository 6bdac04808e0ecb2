//! The table in force, which follows its files: certificates are renewed by others.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;

use super::issued::Issued;
use super::table::Table;
use crate::config;

/// The table of one plan.
#[derive(Debug)]
pub struct Live {
    table: ArcSwap<Table>,
    followed: Mutex<Followed>,
}

#[derive(Debug)]
struct Followed {
    written: config::Tls,
    /// The table of the files alone.
    files: Arc<Table>,
    /// What no file holds.
    issued: Vec<Issued>,
    stamps: Vec<Option<Stamp>>,
    /// What was said of the files last, so that it is said once.
    said: String,
}

/// What changes when a file does. Links are followed: certificates are often swapped by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: Option<SystemTime>,
    bytes: u64,
}

/// What a look at the files found.
#[derive(Debug, PartialEq, Eq)]
pub enum Looked {
    /// Nothing has changed.
    Same,
    /// The new ones are in force.
    Swapped,
    /// They cannot be used, and the old ones stay. Why is told once; nothing was said before.
    Refused(Option<String>),
}

impl Live {
    /// The table of a plan, compiled from `written`.
    pub fn new(written: &config::Tls, table: Arc<Table>) -> Self {
        // Nobody knows when they were read, so the first look reads them.
        let followed = Followed {
            written: written.clone(),
            files: Arc::clone(&table),
            issued: Vec::new(),
            stamps: Vec::new(),
            said: String::new(),
        };
        Self { table: ArcSwap::new(table), followed: Mutex::new(followed) }
    }

    /// The table of now.
    pub fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.table.load()
    }

    /// The first name of each certificate, and its end in Unix seconds.
    pub fn ends(&self) -> Vec<(String, i64)> {
        self.table.load().dates().map(|(name, _, end)| (name.to_owned(), end)).collect()
    }

    /// Puts certificates in force that no file holds, in place of those of before.
    pub fn install(&self, issued: Vec<Issued>) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        self.table.store(Arc::new(followed.files.with_issued(issued.iter())));
        followed.issued = issued;
    }

    /// Looks whether a file has changed, and puts the new ones in force if all of them can be used.
    /// Reads files: not for threads that serve.
    pub fn look(&self, now: i64) -> Looked {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&followed.written);
        // A file that was half written is looked at again: a refusal keeps the old stamps.
        if stamps == followed.stamps {
            return Looked::Same;
        }
        // What is read may be newer than the stamps; then they differ the next time.
        match self.anew(&followed.written, now) {
            Ok(None) => {
                followed.stamps = stamps;
                Looked::Same
            }
            Ok(Some((written, table))) => {
                self.table.store(Arc::new(table.with_issued(followed.issued.iter())));
                let issued = std::mem::take(&mut followed.issued);
                let (files, said) = (Arc::new(table), String::new());
                *followed = Followed { written, files, issued, stamps, said };
                Looked::Swapped
            }
            Err(why) => {
                let is_new = followed.said != why;
                followed.said.clone_from(&why);
                Looked::Refused(is_new.then_some(why))
            }
        }
    }

    /// What the files hold now; nothing where that is what they held.
    fn anew(
        &self,
        written: &config::Tls,
        now: i64,
    ) -> Result<Option<(config::Tls, Table)>, String> {
        let of_file = |(path, fault): (PathBuf, _)| format!("{}: {fault}", path.display());
        let reread = written.reread().map_err(of_file)?;
        if reread == *written {
            return Ok(None);
        }
        let table = Table::compile(&reread, Some(&self.table.load())).map_err(|flaws| {
            let told: Vec<String> = flaws.iter().map(ToString::to_string).collect();
            told.join("; ")
        })?;
        let over = table.dates().find(|(_, _, not_after)| *not_after < now);
        if let Some((name, ..)) = over {
            return Err(format!("the certificate of {name} has expired already"));
        }
        Ok(Some((reread, table)))
    }
}

fn stamps(written: &config::Tls) -> Vec<Option<Stamp>> {
    use std::os::unix::fs::MetadataExt as _;
    let stamp = |file: &config::PemFile| {
        let metadata = std::fs::metadata(&file.path).ok()?;
        Some(Stamp {
            inode: metadata.ino(),
            modified: metadata.modified().ok(),
            bytes: metadata.len(),
        })
    };
    written.files().map(stamp).collect()
}
