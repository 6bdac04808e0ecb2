//! `portcullis convert`: the configuration of another gateway as a gateway.toml, with a comment on
//! each thing and a list of what could not be carried over.

mod effects;
mod kong;
mod leftover;
mod networks;
mod nginx;
mod pattern;
mod precedence;
mod sheet;
mod tables;
mod traefik;
mod tree;
mod write;
mod yaml;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use self::sheet::{FILL_IN, Left, Sheet};
use self::tree::Node;
use super::plain::plain;
use crate::base::file;
use crate::config;
use crate::plan::Plan;

/// Largest source that is read, in bytes.
const BYTES_MAX: u64 = 4 << 20;
/// Exit status where something was left out.
const LEFT_OUT: u8 = 1;
/// Exit status of a source that cannot be used.
const UNUSABLE: u8 = 2;

const EXIT: &str = "\
The new configuration goes to the standard output, what could not be carried over to the standard \
error and to the end of the configuration:

  portcullis convert nginx /etc/nginx/nginx.conf > gateway.toml

Exit status: 0 all was carried over; 1 something was left out; 2 the source cannot be used.";

/// Whose configuration it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum From {
    /// nginx.conf, with the files that it includes.
    Nginx,
    /// Kong's declarative configuration, YAML or JSON.
    Kong,
    /// Traefik's dynamic configuration, YAML or TOML, with entry points if they are in it.
    Traefik,
}

/// Options of `convert`.
#[derive(Debug, Args)]
#[command(after_help = EXIT)]
pub(super) struct Convert {
    /// Whose configuration it is.
    from: From,
    /// The file.
    file: PathBuf,
}

/// What there is to print, and the exit status.
pub(super) struct Converted {
    /// The configuration; nothing where there is none.
    pub(super) text: Option<String>,
    /// What is said beside it.
    pub(super) said: String,
    pub(super) status: u8,
}

/// Carries out `convert`.
pub(super) fn run(options: &Convert) -> Converted {
    let path = &options.file;
    let name = path.display().to_string();
    let unusable = |said: String| Converted { text: None, said, status: UNUSABLE };
    let text = match read(path) {
        Ok(text) => text,
        Err(why) => return unusable(format!("{name}: {why}")),
    };
    let shown = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder = path.parent().unwrap_or(Path::new(""));
    match convert(options.from, (&shown, &text), folder) {
        Ok(sheet) => finished(sheet, &shown, folder),
        Err(why) => unusable(format!("{}\nhelp: {}", plain(&why), help(options.from))),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = file::read(path, BYTES_MAX)
        .map_err(|fault| format!("cannot read it: {fault}\nhelp: {}", fault.remedy()))?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line} is not UTF-8\nhelp: save the file as UTF-8")
    })
}

fn help(from: From) -> &'static str {
    match from {
        From::Nginx => "see whether `nginx -t` takes it, and give the file with the http block",
        From::Kong => "give the file that `deck gateway dump` or DB-less mode uses",
        From::Traefik => "give the file of the file provider, with http.routers in it",
    }
}

fn convert(from: From, (name, text): (&str, &str), folder: &Path) -> Result<Sheet, String> {
    let mut sheet = Sheet::default();
    match from {
        From::Nginx => nginx::convert(name, text, folder, &mut sheet)?,
        From::Kong => kong::convert(name, &document(name, text)?, &mut sheet)?,
        From::Traefik => traefik::convert(name, &document(name, text)?, &mut sheet)?,
    }
    Ok(sheet)
}

/// A document by what its name ends in: TOML, or else YAML, of which JSON is a part.
fn document(name: &str, text: &str) -> Result<Node, String> {
    let is = |end: &str| Path::new(name).extension().is_some_and(|it| it.eq_ignore_ascii_case(end));
    let read = match () {
        () if is("toml") => tables::parse(text),
        // JSON may be indented with tabs, and has none within strings; YAML may not.
        () if is("json") => yaml::parse(&text.replace('\t', " ")),
        () => yaml::parse(text),
    };
    read.map_err(|(line, what)| format!("{name}:{line}: {what}"))
}

/// The file, after `check` has looked at it.
fn finished(mut sheet: Sheet, name: &str, folder: &Path) -> Converted {
    for problem in judge(&sheet.render(name), folder) {
        sheet.left(Left { at: FILL_IN.to_owned(), ..problem });
    }
    let text = sheet.render(name);
    let left = sheet.all_left();
    if left.is_empty() {
        return Converted { text: Some(text), said: String::new(), status: 0 };
    }
    let mut said = format!("not carried over: {}\n", left.len());
    for Left { at, what, why, instead } in left {
        said += &plain(&format!("{at}: {what}: {why}"));
        said += &format!("\n    help: {}\n", plain(instead));
    }
    Converted { text: Some(text), said, status: LEFT_OUT }
}

/// What `check` would say of it.
fn judge(text: &str, folder: &Path) -> Vec<Left> {
    let env = |name: &str| std::env::var(name).ok();
    let loaded = match config::parse("gateway.toml", folder, text, &env) {
        Ok(loaded) => loaded,
        Err(why) => {
            let (what, instead) = ("gateway.toml".to_owned(), "please tell its authors".to_owned());
            return vec![Left { at: String::new(), what, why, instead }];
        }
    };
    let mut problems = loaded.problems;
    if let Err(more) = Plan::compile(loaded.config) {
        problems.extend(more);
    }
    let left = |it: &config::Problem| Left {
        at: String::new(),
        what: it.path.clone(),
        why: it.what.clone(),
        instead: it.remedy.clone(),
    };
    problems.iter().map(left).collect()
}

#[cfg(test)]
mod tests;
