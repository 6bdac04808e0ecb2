//! What is said of a command line that cannot be read, and which command was meant by one that is
//! misspelt.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _, Error};

use super::{CONFIG_PROBLEMS, Cli};
use crate::base::terminal::{err, err_line, out};
use crate::config::distance;

/// Most letters that a misspelt command may be away from the one that was meant.
const EDITS_MAX: usize = 2;

/// Says what is wrong with a command line, or prints the help that it asks for.
pub fn unparsed(error: &Error) -> ExitCode {
    let text = error.render().to_string();
    if !error.use_stderr() {
        out(&text);
        return ExitCode::SUCCESS;
    }
    err(&text);
    if let Some(suggestion) = suggestion(error, &Cli::command()) {
        err_line(&format!("    help: {suggestion}"));
    }
    ExitCode::from(CONFIG_PROBLEMS)
}

/// What to add to an error of the command line; nothing where no command is meant.
fn suggestion(error: &Error, known: &Command) -> Option<String> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    let names = known.get_subcommands().map(Command::get_name);
    let near = names.map(|name| (distance(word, name), name)).min()?;
    let (edits, name) = near;
    (edits <= EDITS_MAX && edits < name.len()).then(|| format!("did you mean `{name}`?"))
}
