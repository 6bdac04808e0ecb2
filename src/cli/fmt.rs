//! `fmt`: writes the configuration in the form that all such files have, or says which do not have
//! it.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};

use clap::Args;

use super::remote::Failure;
use crate::base::file;
use crate::config;

/// Largest file that is written anew: 4 MiB, which no configuration may be longer than.
const BYTES_MAX: u64 = 4 << 20;
/// Stands for standard input.
const STDIN: &str = "-";

const EXIT: &str = "\
Only spaces, the ends of lines and empty lines change. Comments and the order stay.

Exit status: 0 all files have the form, or have it now; 1 with --check, one has not; 2 a file \
cannot be read or written, or is not TOML.";

/// Options of `fmt`.
#[derive(Debug, Args)]
#[command(after_help = EXIT)]
pub(super) struct Fmt {
    /// Write nothing; print the names of the files that would change.
    #[arg(long)]
    check: bool,
    /// The files; `-` is standard input, printed in its form. Without any, the configuration and
    /// the files that it includes.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// A file that has another form.
struct Otherwise {
    path: PathBuf,
    form: String,
}

/// What there is to print, without the end of its last line, and the exit status.
///
/// # Errors
/// When a file cannot be read or written, or is not TOML.
pub(super) fn fmt(options: &Fmt, path: &Path) -> Result<(String, u8), Failure> {
    if let [only] = options.files.as_slice()
        && only == Path::new(STDIN)
    {
        return stdin(options.check);
    }
    let files = match options.files.as_slice() {
        [] => config::files_of(path).map_err(Failure::unusable)?,
        files => files.to_vec(),
    };
    let number = files.len();
    let mut differing = Vec::new();
    let mut faults = String::new();
    for path in files {
        match form(&path) {
            Ok(Some(form)) => differing.push(Otherwise { path, form }),
            Ok(None) => {}
            Err(fault) => faults += &fault,
        }
    }
    if !faults.is_empty() {
        return Err(Failure::unusable(faults));
    }
    if differing.is_empty() {
        let files = if number == 1 { "file has" } else { "files have" };
        return Ok((format!("{number} {files} the form"), 0));
    }
    let names: Vec<String> = differing.iter().map(|it| it.path.display().to_string()).collect();
    if options.check {
        return Ok((names.join("\n"), 1));
    }
    write(&differing).map_err(Failure::unusable)?;
    Ok((format!("wrote {}", names.join("\nwrote ")), 0))
}

/// Writes all files, or none where one of them cannot be written. The error says which were.
fn write(differing: &[Otherwise]) -> Result<(), String> {
    let mut staged = Vec::new();
    for (number, Otherwise { path, form }) in differing.iter().enumerate() {
        let new = Staged::write(path, form, number).map_err(|error| {
            format!("cannot write {}: {error}; no file is changed", path.display())
        })?;
        staged.push(new);
    }
    // Everything lies beside its place by now, and a rename needs no room.
    let mut written: Vec<String> = Vec::new();
    for (new, Otherwise { path, .. }) in staged.into_iter().zip(differing) {
        let name = path.display();
        new.put().map_err(|error| {
            let others = if written.is_empty() { "no file".to_owned() } else { written.join(", ") };
            format!("cannot write {name}: {error}; {others} is changed")
        })?;
        written.push(name.to_string());
    }
    Ok(())
}

/// Prints standard input in its form.
fn stdin(is_check: bool) -> Result<(String, u8), Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| Failure::unusable(format!("cannot read standard input: {error}")))?;
    if text.len() as u64 > BYTES_MAX {
        return Err(Failure::unusable(format!("standard input has more than {BYTES_MAX} bytes")));
    }
    let form = config::formatted(STDIN, &text).map_err(Failure::unusable)?;
    match is_check {
        true if form == text => Ok(("1 file has the form".to_owned(), 0)),
        true => Ok((STDIN.to_owned(), 1)),
        // What prints it ends the last line.
        false => Ok((form.strip_suffix('\n').unwrap_or(&form).to_owned(), 0)),
    }
}

/// The form of a file, where it has another one.
fn form(path: &Path) -> Result<Option<String>, String> {
    let name = path.display().to_string();
    let fault = |why: String| format!("{name}: cannot be read: {why}\n");
    let bytes = file::read(path, BYTES_MAX)
        .map_err(|it| fault(format!("{it}\n    help: {}", it.remedy())))?;
    let text = String::from_utf8(bytes).map_err(|_| fault("it is not UTF-8".to_owned()))?;
    let form = config::formatted(&name, &text)?;
    Ok((form != text).then_some(form))
}

/// A text that lies beside the file whose place it is to take.
struct Staged {
    /// Where it lies; nothing once it is in its place.
    new: Option<PathBuf>,
    path: PathBuf,
}

impl Staged {
    /// Writes a text beside a file, with its owner, group and mode. Whoever reads the file by its
    /// group would read it no more with another one. Where it is a link, what it leads to is meant.
    /// One file may be named twice, so the number is a part of the name.
    fn write(path: &Path, text: &str, number: usize) -> std::io::Result<Self> {
        let path = fs::canonicalize(path)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}-{number}.new", std::process::id()));
        // Nothing else with this name is overwritten.
        let new = path.with_file_name(name);
        let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
        let staged = Self { new: Some(new), path };
        let of = fs::metadata(&staged.path)?;
        fchown(&file, Some(of.uid()), Some(of.gid()))?;
        file.set_permissions(of.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(staged)
    }

    /// Puts it in the place of the file, so that whoever reads that finds all of the old text or
    /// all of the new one.
    fn put(mut self) -> std::io::Result<()> {
        if let Some(new) = &self.new {
            fs::rename(new, &self.path)?;
        }
        self.new = None;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(new) = &self.new {
            let _ = fs::remove_file(new);
        }
    }
}
