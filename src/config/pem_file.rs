//! Files that are read anew while the gateway runs.

use std::path::PathBuf;

use crate::base::file::{self, FILE_BYTES_MAX, FileFault};
use crate::base::units::Secret;

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
