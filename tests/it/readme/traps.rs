//! The tables of known traps, and whether what is said to drive each is there.

use std::path::{Path, PathBuf};

use super::pages::{ROOT, page};

/// What stands above the second column of such a table.
const HEAD: &str = "| trap | driven by |";

/// Every test by its full name: those of `tests/it`, and of the code itself.
fn tests() -> Vec<String> {
    let mut names = Vec::new();
    for root in ["tests/it", "src"] {
        let mut waiting = vec![Path::new(ROOT).join(root)];
        while let Some(path) = waiting.pop() {
            if path.is_dir() {
                let entries = std::fs::read_dir(&path).unwrap();
                waiting.extend(entries.map(|entry| entry.unwrap().path()));
            } else if path.extension().is_some_and(|it| it == "rs") {
                names.extend(tests_of(&path, &Path::new(ROOT).join(root)));
            }
        }
    }
    names
}

fn tests_of(path: &PathBuf, root: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let within = path.strip_prefix(root).unwrap().with_extension("");
    let mut room = within.iter().map(|part| part.to_str().unwrap()).collect::<Vec<_>>();
    room.retain(|part| *part != "mod");
    let room = room.join("::");
    let mut names = Vec::new();
    let (mut is_test, mut inside) = (false, "");
    for line in text.lines() {
        let line = line.trim();
        if line == "mod tests {" {
            inside = "::tests";
        }
        is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
        let named = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some((name, _)) = named.filter(|_| is_test).and_then(|rest| rest.split_once('(')) {
            names.push(format!("{room}{inside}::{name}"));
            is_test = false;
        }
    }
    names
}

/// Names without the end that stands for any other one, and whether they are a script's.
fn drivers(row: &str) -> impl Iterator<Item = &str> {
    let (_, driven) = row.trim_end_matches('|').rsplit_once(" | ").expect("two columns");
    driven.split('`').skip(1).step_by(2)
}

#[test]
fn every_trap_is_driven_by_something_that_is_there() {
    let (page, tests) = (page("docs/edge.md"), tests());
    let is_there = |name: &str| match name.split_once("scripts/") {
        Some((_, command)) => {
            let script = command.split(' ').next().unwrap_or_default();
            Path::new(ROOT).join("scripts").join(script).is_file()
        }
        None => match name.strip_suffix('*') {
            Some(begin) => tests.iter().any(|test| test.starts_with(begin)),
            None => tests.iter().any(|test| test.starts_with(&format!("{name}::"))),
        },
    };
    let mut rows = 0;
    for table in page.text.split(HEAD).skip(1) {
        for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
            rows += 1;
            assert!(drivers(row).count() > 0, "{row}");
            for name in drivers(row) {
                assert!(is_there(name), "{row}: there is no {name}");
            }
        }
    }
    assert!(rows > 60, "{rows}");
}
