//! Reading a file that somebody names: regular files alone, up to a bound. A FIFO would be waited
//! for without end, a device can be read without end.

use std::fs::{File, FileType, Metadata};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Largest file of a key, a key set, certificates, a secret or a token: 1 MiB.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// `O_NONBLOCK` of `open(2)`: what became a FIFO a moment ago is not waited for either. Where the
/// number is another one, the look before the opening must do.
#[cfg(any(target_os = "linux", target_os = "android"))]
const O_NONBLOCK: i32 =
    if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 0o200 } else { 0o4000 };
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const O_NONBLOCK: i32 = 0x4;

/// Why a file was not read. The text goes behind the file's name.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// It is not there, or may not be read.
    #[error("{0}")]
    Unreadable(#[from] std::io::Error),
    /// It is something else: a directory, a FIFO, a device.
    #[error("it is {0}, and only a regular file is read")]
    Irregular(&'static str),
    /// It is larger than this many bytes.
    #[error("it is larger than {}", size(*.0))]
    TooLarge(u64),
}

impl FileFault {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "name a file that the gateway may read",
            Self::Irregular(_) => {
                "name a regular file, or a symbolic link to one; write to a file what a pipe or a \
                 device would give"
            }
            Self::TooLarge(_) => "name a smaller file",
        }
    }
}

/// The content of a regular file (a symbolic link is followed) of at most `bytes_max` bytes.
///
/// # Errors
/// [`FileFault`] when it is no regular file, is longer, or cannot be read.
pub fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileFault> {
    // Before it is opened, because opening alone means something to a FIFO and to some devices.
    check(&std::fs::metadata(path)?, bytes_max)?;
    let file = File::options().read(true).custom_flags(O_NONBLOCK).open(path)?;
    // Once more: only what is open can no longer become something else.
    check(&file.metadata()?, bytes_max)?;
    let mut content = Vec::new();
    // Files of /proc say that they are empty, and others grow: the bound holds for what is read.
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > bytes_max {
        return Err(FileFault::TooLarge(bytes_max));
    }
    Ok(content)
}

fn check(metadata: &Metadata, bytes_max: u64) -> Result<(), FileFault> {
    if let Some(kind) = irregular(metadata.file_type()) {
        return Err(FileFault::Irregular(kind));
    }
    if metadata.len() > bytes_max {
        return Err(FileFault::TooLarge(bytes_max));
    }
    Ok(())
}

fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes.is_multiple_of(MIB) { format!("{}MiB", bytes / MIB) } else { format!("{bytes}B") }
}

/// What a file is that is not regular.
fn irregular(kind: FileType) -> Option<&'static str> {
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_fifo() {
        Some("a FIFO (a named pipe)")
    } else if kind.is_socket() {
        Some("a socket")
    } else if kind.is_char_device() || kind.is_block_device() {
        Some("a device")
    } else {
        Some("something else")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(path: &str, bytes_max: u64) -> String {
        read(Path::new(path), bytes_max).unwrap_err().to_string()
    }

    #[test]
    fn only_regular_files_are_read() {
        assert!(fault("/dev/zero", 10).contains("a device"));
        assert!(fault("/dev/null", 10).contains("a device"));
        assert!(fault("/", 10).contains("a directory"));
        assert!(fault("/nowhere/at-all", 10).contains("No such file"));
    }

    #[test]
    fn the_bound_is_exact() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let length = std::fs::metadata(&manifest).unwrap().len();
        assert_eq!(read(&manifest, length).unwrap().len() as u64, length);
        let larger = read(&manifest, length - 1).unwrap_err();
        assert!(matches!(larger, FileFault::TooLarge(_)), "{larger}");
    }

    /// Its length is 0, and it is not empty.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_does_not_say_its_length_is_bounded_too() {
        assert!(read(Path::new("/proc/self/status"), 1 << 20).unwrap().len() > 100);
        assert!(fault("/proc/self/status", 100).contains("larger than 100B"));
    }
}
