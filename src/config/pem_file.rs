//! Files that are read anew while the gateway runs.

use std::path::{Path, PathBuf};

use crate::base::file::{self, FILE_BYTES_MAX, FileFault};
use crate::base::units::Secret;

/// What a file of one secret holds now.
///
/// # Errors
/// It cannot be read, or is empty.
pub fn reread_secret(path: &Path) -> Result<Secret, String> {
    let content = file::read(path, FILE_BYTES_MAX).map_err(|fault| fault.to_string())?;
    let content = without_newline(content);
    if content.is_empty() { Err("it is empty".to_owned()) } else { Ok(Secret::new(content)) }
}

/// Editors end files with a newline that is not part of the secret.
pub(super) fn without_newline(mut content: Vec<u8>) -> Vec<u8> {
    if content.pop_if(|byte| *byte == b'\n').is_some() {
        content.pop_if(|byte| *byte == b'\r');
    }
    content
}

/// A file in PEM that is read anew when it changes. Private keys are among them, so no content is
/// ever printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PemFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it held when it was read.
    pub content: Secret,
}

impl PemFile {
    /// The same file as it is now.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn reread(&self) -> Result<Self, FileFault> {
        let content = Secret::new(file::read(&self.path, FILE_BYTES_MAX)?);
        Ok(Self { path: self.path.clone(), content })
    }
}
