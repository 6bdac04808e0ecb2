//! `portcullis completions` and `portcullis man`: what shells and manuals want to know of the
//! command line, made from the command line itself.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

/// Options of `completions`.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell.
    shell: Shell,
}

/// Options of `man`.
#[derive(Debug, Args)]
pub(super) struct Manual {
    /// Write a page for each command into this folder. Without it, the page of the program is
    /// printed.
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

/// What a shell sources to complete this command line.
pub(super) fn completions(options: &Completions, mut command: Command) -> String {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The page of the program, or what was written where.
pub(super) fn manual(options: &Manual, command: Command) -> Result<String, String> {
    let Some(folder) = &options.to else {
        let mut page = Vec::new();
        let rendered = Man::new(command).render(&mut page);
        rendered.map_err(|error| format!("cannot print the page: {error}"))?;
        return Ok(String::from_utf8_lossy(&page).into_owned());
    };
    write_all(folder, command)
        .map(|()| format!("wrote the pages into {}", folder.display()))
        .map_err(|error| format!("cannot write into {}: {error}", folder.display()))
}

fn write_all(folder: &Path, command: Command) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)
}
