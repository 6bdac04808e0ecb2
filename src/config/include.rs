//! The files that the main one includes: which those are, and what they hold.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::glob;
use super::problem::Problems;
use super::source::{File, sha256_of_all};
use super::value::echo;
use super::variables::Variables;
use crate::base::file::{self, FileFault};

/// Largest configuration, all files together: 4 MiB. A file cannot say how long it may be itself.
pub(super) const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Most files that are included.
const FILES_MAX: usize = 256;

/// The key that names them.
pub(super) const INCLUDE: &str = "include";

type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// A file that the main one names, seen from its folder.
struct Named {
    /// The element of the list that names it.
    key: String,
    path: PathBuf,
}

/// The files that the main one, `table`, names: each once, in the order of the list. What is wrong
/// with a name is added to `problems`.
fn named(main: &File, table: &DeTable<'_>, env: Env<'_>, problems: &mut Problems) -> Vec<Named> {
    let own = main.folder.join(&main.short);
    let mut named: Vec<Named> = Vec::new();
    for (key, pattern) in patterns(table, env) {
        let files = match glob::files(&main.folder, &pattern) {
            Ok(files) => files,
            Err(what) => {
                problems.push(key, what, "write one like \"routes.d/*.toml\"");
                continue;
            }
        };
        for path in files {
            // A wildcard may mean the main file as well.
            let is_own = glob::is_glob(&pattern) && main.folder.join(&path) == own;
            if is_own || named.iter().any(|it| it.path == path) {
                continue;
            }
            if named.len() == FILES_MAX {
                let what = format!("names more than {FILES_MAX} files with those before it");
                problems.push(key, what, "put several tables into one file");
                return named;
            }
            named.push(Named { key: key.clone(), path });
        }
    }
    named
}

/// The elements of `include`; those that are no text, or whose variables are not there, are the
/// reader's to report.
fn patterns(table: &DeTable<'_>, env: Env<'_>) -> Vec<(String, String)> {
    let Some(value) = table.get(INCLUDE) else { return Vec::new() };
    let mut value = value.get_ref().clone();
    let mut variables = Variables::new(env);
    variables.fill(INCLUDE, &mut value);
    let taken = |key: &str| variables.taken.get(key);
    let mut found = Vec::new();
    let mut add = |key: String, text: &str| {
        if !text.is_empty() && taken(&key).is_none_or(|it| !it.is_missing) {
            found.push((key, text.to_owned()));
        }
    };
    match &value {
        DeValue::Array(items) => {
            for (position, item) in items.iter().enumerate() {
                add(format!("{INCLUDE}[{position}]"), item.get_ref().as_str().unwrap_or_default());
            }
        }
        // One variable may stand for several, as for every list.
        DeValue::String(text) if taken(INCLUDE).is_some_and(|it| it.is_whole) => {
            text.split(',').for_each(|part| add(INCLUDE.to_owned(), part.trim()));
        }
        _ => {}
    }
    found
}

/// The main file and all that it includes. One that cannot be read is left out, and added to
/// `problems`.
///
/// # Errors
/// Ready-to-print text, when the main file is not TOML, or one is not UTF-8.
pub(super) fn gather(
    main: File,
    env: Env<'_>,
    problems: &mut Problems,
) -> Result<Vec<File>, String> {
    let named = named(&main, &main.table()?, env, problems);
    let mut left = CONFIG_BYTES_MAX.saturating_sub(main.text.len() as u64);
    let mut files = vec![main];
    let mut faults = String::new();
    for Named { key, path } in named {
        let Some(main) = files.first() else { break };
        let place = main.folder.join(&path);
        let name = place.display().to_string();
        let bytes = match file::read(&place, left) {
            Ok(bytes) => bytes,
            Err(FileFault::TooLarge(_)) => {
                let what = format!("{} is too large, with the files before it", echo(&name));
                let remedy = format!("all files have {} MiB together", CONFIG_BYTES_MAX >> 20);
                problems.push(key, what, remedy);
                break;
            }
            Err(fault) => {
                problems.push(key, format!("cannot read {}: {fault}", echo(&name)), fault.remedy());
                continue;
            }
        };
        left -= bytes.len() as u64;
        match text(&name, bytes) {
            Ok(text) => {
                let start = files.last().map_or(0, File::end);
                let folder = place.parent().unwrap_or(Path::new("")).to_owned();
                let short = path.display().to_string();
                files.push(File { name, short, folder, text, start });
            }
            Err(fault) => faults += &fault,
        }
    }
    if faults.is_empty() { Ok(files) } else { Err(faults) }
}

/// The content of a file as text.
///
/// # Errors
/// Ready-to-print text, when it is none.
pub(super) fn text(name: &str, bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("{name}:{line}: this line is not UTF-8\n    help: save the file as UTF-8\n")
    })
}

/// The SHA-256 of a configuration as it is now, as [`Source::sha256`](super::Source::sha256) has
/// it; nothing where the main file cannot be read.
pub(super) fn sha256(path: &Path, env: Env<'_>) -> Option<String> {
    let bytes = file::read(path, CONFIG_BYTES_MAX).ok()?;
    let mut others: Vec<(String, Option<Vec<u8>>)> = Vec::new();
    // Most files include nothing, and this is asked again and again.
    let text = String::from_utf8_lossy(&bytes);
    let folder = path.parent().unwrap_or(Path::new(""));
    let main =
        text.contains(INCLUDE).then(|| File::main(&path.display().to_string(), folder, &text));
    if let Some(main) = &main
        && let Ok(table) = main.table()
    {
        let mut left = CONFIG_BYTES_MAX.saturating_sub(bytes.len() as u64);
        for Named { path, .. } in named(main, &table, env, &mut Problems::default()) {
            let content = file::read(&folder.join(&path), left).ok();
            left -= content.as_ref().map_or(0, |it| it.len() as u64);
            others.push((path.display().to_string(), content));
        }
    }
    let short = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let others: Vec<(&str, Option<&[u8]>)> =
        others.iter().map(|(name, content)| (name.as_str(), content.as_deref())).collect();
    let all = [(&*short, Some(bytes.as_slice()))].into_iter().chain(others);
    Some(sha256_of_all(&all.collect::<Vec<_>>()))
}

/// The files of a configuration, the main one first.
///
/// # Errors
/// Ready-to-print text, when one cannot be read.
pub(super) fn paths(main: &File, path: &Path, env: Env<'_>) -> Result<Vec<PathBuf>, String> {
    let mut problems = Problems::default();
    let found = named(main, &main.table()?, env, &mut problems);
    let faults: String = problems
        .iter()
        .map(|it| format!("{}: {}: {}\n    help: {}\n", main.name, it.path, it.what, it.remedy))
        .collect();
    if !faults.is_empty() {
        return Err(faults);
    }
    let others = found.into_iter().map(|it| main.folder.join(it.path));
    Ok([path.to_owned()].into_iter().chain(others).collect())
}
