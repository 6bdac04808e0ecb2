//! `signing-key`: makes a private key for a signer.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use clap::Args;

use crate::signing::new_key;

/// Its owner may read and write it, and nobody else.
const MODE: u32 = 0o600;

/// Options of `signing-key`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The file to write, in PEM.
    path: PathBuf,
}

/// Writes a new key; what to print.
///
/// # Errors
/// The file is there, or cannot be written.
pub(super) fn run(options: &Options) -> Result<String, String> {
    let path = options.path.display();
    let (pem, kid) = new_key().ok_or("the system's random source failed")?;
    // What signs today must not be lost by a command that is repeated.
    let file = File::options().write(true).create_new(true).mode(MODE).open(&options.path);
    let written = file.and_then(|mut file| {
        file.write_all(pem.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => format!(
            "{path} is there already, and a key that signs is never overwritten\n    help: name \
             another file, and list both in keys of [signers.NAME]: the first signs, the others \
             still verify"
        ),
        _ => format!("cannot write {path}: {error}"),
    })?;
    Ok(format!("{path}: kid {kid}"))
}
