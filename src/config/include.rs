//! The files that the main one includes: which those are, and what they hold.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::glob;
use super::problem::Problems;
use super::source::{File, sha256_of_all};
use super::value::echo;
use super::variables::{Taken, Variables};
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
    /// The variables that the name is from: it may be a secret in the wrong place, and is not shown
    /// then.
    given: Option<String>,
}

impl Named {
    /// Its name, as a problem tells it.
    fn told(&self, name: &str) -> String {
        self.given.as_ref().map_or_else(|| echo(name), |given| format!("what {given} names"))
    }
}

/// One element of `include`.
struct Pattern {
    key: String,
    text: String,
    /// The variables that it is from.
    given: Option<String>,
}

/// The file that is meant, however its name is spelt: its device and its number there.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|it| (it.dev(), it.ino()))
}

/// The files that the main one, `table`, names: each once, in the order of the list. What is wrong
/// with a name is added to `problems`.
fn named(main: &File, table: &DeTable<'_>, env: Env<'_>, problems: &mut Problems) -> Vec<Named> {
    let own = main.folder.join(&main.short);
    let own_identity = identity(&own);
    let mut named: Vec<Named> = Vec::new();
    let mut known: BTreeSet<(u64, u64)> = BTreeSet::new();
    for Pattern { key, text, given } in patterns(table, env).0 {
        let files = match glob::files(&main.folder, &text) {
            Ok(files) => files,
            Err(what) => {
                let what =
                    given.map_or(what, |it| format!("{it} makes no pattern that can be used here"));
                problems.push(key, what, "write one like \"routes.d/*.toml\"");
                continue;
            }
        };
        for path in files {
            let place = main.folder.join(&path);
            let identity = identity(&place);
            let is_same = place == own || (identity.is_some() && identity == own_identity);
            // A wildcard may mean the main file as well.
            let is_own = glob::is_glob(&text) && is_same;
            let is_known = named.iter().any(|it| it.path == path)
                || identity.is_some_and(|identity| !is_own && !known.insert(identity));
            if is_own || is_known {
                continue;
            }
            if named.len() == FILES_MAX {
                let what = format!("names more than {FILES_MAX} files with those before it");
                problems.push(key, what, "put several tables into one file");
                return named;
            }
            named.push(Named { key: key.clone(), path, given: given.clone() });
        }
    }
    named
}

/// The elements of `include`, and what is wrong with their variables. That, and which are no text,
/// is the reader's to report where there is one.
fn patterns(table: &DeTable<'_>, env: Env<'_>) -> (Vec<Pattern>, Problems) {
    let Some(value) = table.get(INCLUDE) else { return Default::default() };
    let mut value = value.get_ref().clone();
    let mut variables = Variables::new(env);
    variables.fill(INCLUDE, &mut value);
    let taken = |key: &str| variables.taken.get(key);
    let mut found = Vec::new();
    let mut add = |key: String, text: &str| {
        if !text.is_empty() && taken(&key).is_none_or(|it| !it.is_missing) {
            let given = taken(&key).and_then(Taken::given);
            found.push(Pattern { key, text: text.to_owned(), given });
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
    (found, variables.problems)
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
    for named in named {
        let Some(main) = files.first() else { break };
        let place = main.folder.join(&named.path);
        let name = place.display().to_string();
        let told = named.told(&name);
        let Named { key, path, .. } = named;
        let bytes = match file::read(&place, left) {
            Ok(bytes) => bytes,
            Err(FileFault::TooLarge(_)) => {
                let what = format!("{told} is too large, with the files before it");
                let remedy = format!("all files have {} MiB together", CONFIG_BYTES_MAX >> 20);
                problems.push(key, what, remedy);
                break;
            }
            Err(fault) => {
                problems.push(key, format!("cannot read {told}: {fault}"), fault.remedy());
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
/// Ready-to-print text, when one cannot be read, or when it is not known which those are.
pub(super) fn paths(main: &File, path: &Path, env: Env<'_>) -> Result<Vec<PathBuf>, String> {
    let table = main.table()?;
    let (_, mut problems) = patterns(&table, env);
    let found = named(main, &table, env, &mut problems);
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
