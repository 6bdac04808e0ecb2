//! Tells the program of which commit it is: by `PORTCULLIS_COMMIT` where the build is told, else by
//! git, else nobody knows.
#![allow(clippy::print_stdout, reason = "cargo listens to it")]

use std::path::Path;
use std::process::Command;

/// What the build is told by.
const COMMIT: &str = "PORTCULLIS_COMMIT";
/// Most letters of what it is told.
const LETTERS_MAX: usize = 64;

fn main() {
    let here = Path::new(".");
    println!("cargo:rerun-if-env-changed={COMMIT}");
    println!("cargo:rerun-if-changed=build.rs");
    // Only what moves with the commit, and only files that are there: cargo would build anew each
    // time for want of one that is not.
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(here, &["rev-parse", "--git-path", name]);
        if let Some(path) = path.filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    println!("cargo:rustc-env={COMMIT}={}", commit(std::env::var(COMMIT).ok(), here));
}

/// The commit of what lies in a folder, unless the build is told.
pub(crate) fn commit(told: Option<String>, folder: &Path) -> String {
    let is_plain = |word: &String| {
        let mut letters = word.bytes();
        (1..=LETTERS_MAX).contains(&word.len())
            && letters.all(|it| it.is_ascii_alphanumeric() || b"._-".contains(&it))
    };
    told.filter(is_plain)
        .or_else(|| git(folder, &["rev-parse", "--short=12", "HEAD"]).filter(is_plain))
        .unwrap_or_else(|| "unknown".to_owned())
}

/// What git says, where there is a git and it says something.
fn git(folder: &Path, words: &[&str]) -> Option<String> {
    let said = Command::new("git").args(words).current_dir(folder).output().ok()?;
    let text = String::from_utf8(said.stdout).ok()?;
    said.status.success().then(|| text.trim().to_owned())
}
