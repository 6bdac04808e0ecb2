//! Which files a pattern means: `*` and `?` in the names of folders and files, and nothing else.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::value::echo;

/// Most names that are looked at for one pattern.
const NAMES_MAX: usize = 16_384;

/// Whether a pattern may mean several files, or none.
pub(crate) fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

/// The files that a pattern means, seen from a folder: sorted by name, folder by folder. A name
/// that begins with a dot is only meant by one that does, too. What has no wildcard is the file
/// that it names, whether that is there or not.
///
/// # Errors
/// What is wrong with the pattern, or with a folder.
pub(crate) fn files(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    if pattern.contains("**") || pattern.contains(['[', ']', '{', '}']) {
        return Err(format!("{} has a wildcard other than `*` and `?`", echo(pattern)));
    }
    let mut looked_at = 0;
    let mut found = vec![PathBuf::from(if pattern.starts_with('/') { "/" } else { "" })];
    for part in pattern.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if !is_glob(part) {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        let mut deeper = Vec::new();
        for path in &found {
            let mut names = names(&folder.join(path), part, &mut looked_at)?;
            names.sort_unstable();
            deeper.extend(names.iter().map(|name| path.join(name)));
        }
        found = deeper;
    }
    if is_glob(pattern) {
        // What a wildcard met on the way need not have the file, and is none itself.
        found.retain(|path| std::fs::symlink_metadata(folder.join(path)).is_ok());
        found.retain(|path| !folder.join(path).is_dir());
    }
    Ok(found)
}

/// The names in a folder that a pattern means; none where there is no such folder.
fn names(folder: &Path, pattern: &str, looked_at: &mut usize) -> Result<Vec<String>, String> {
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let fault = |error: std::io::Error| {
        format!("cannot look into {}: {error}", echo(&here.to_string_lossy()))
    };
    let entries = match std::fs::read_dir(here) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(fault(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        *looked_at += 1;
        if *looked_at > NAMES_MAX {
            return Err(format!("looks at more than {NAMES_MAX} names"));
        }
        // What is no text, nobody can have written in the file.
        let Ok(name) = entry.map_err(fault)?.file_name().into_string() else { continue };
        if matches(pattern, &name) {
            found.push(name);
        }
    }
    Ok(found)
}

/// Whether a pattern without `/` means a name.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut in_name) = (0, 0);
    // The last `*`, and where the name goes on if it stands for one character more.
    let mut star = None;
    while let Some(c) = name.get(in_name) {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, in_name));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || wanted == c => {
                at += 1;
                in_name += 1;
            }
            _ => match star {
                Some((before, begin)) => {
                    star = Some((before, begin + 1));
                    (at, in_name) = (before + 1, begin + 1);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_mean_what_they_mean_in_a_shell() {
        for (pattern, name, expected) in [
            ("*.toml", "a.toml", true),
            ("*.toml", ".toml", false),
            ("*.toml", "..2026_data", false),
            ("*.toml", ".#a.toml", false),
            (".*", ".a", true),
            ("*", "", true),
            ("a*b*c", "abbbc", true),
            ("a*b*c", "abbcb", false),
            ("a*bc", "abcabc", true),
            ("??-*.toml", "10-shop.toml", true),
            ("??-*.toml", "1-shop.toml", false),
            ("?", "é", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("ab", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn folders_may_be_meant_by_wildcards_and_files_come_sorted() {
        let folder = std::env::temp_dir().join(format!("portcullis-glob-{}", std::process::id()));
        for (name, is_folder) in
            [("b/x.toml", false), ("a/y.toml", false), ("a/x.toml", false), ("a/z.toml/f", true)]
        {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            if !is_folder {
                std::fs::write(path, "").unwrap();
            }
        }
        let found = |pattern: &str| {
            let files = files(&folder, pattern).unwrap();
            files.iter().map(|it| it.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(found("*/*.toml"), ["a/x.toml", "a/y.toml", "b/x.toml"]);
        assert_eq!(found("?/x.toml"), ["a/x.toml", "b/x.toml"]);
        assert_eq!(found("*/y.toml"), ["a/y.toml"]);
        assert!(found("none/*.toml").is_empty() && found("a/x.toml/*").is_empty());
        assert_eq!(found("none/at-all.toml"), ["none/at-all.toml"]);
        let absolute = folder.join("b").display().to_string();
        assert_eq!(found(&format!("{absolute}/*")), [format!("{absolute}/x.toml")]);
        assert!(files(&folder, "**/*.toml").unwrap_err().contains("other than"));
        assert!(files(&folder, "[ab].toml").unwrap_err().contains("other than"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
