//! Secrets that a command is given. One on the command line stands in every process list, so each
//! may be said by where it is: `env:NAME`, `file:PATH`, or `-` for standard input.

use std::io::Read as _;
use std::path::Path;

use crate::base::file::{self, FILE_BYTES_MAX};

/// What `option` (as messages name it) gives as `text`: what lies where that says, without a line
/// break at its end, or else the text itself.
///
/// # Errors
/// Nothing is there, or it cannot be read; in a sentence that does not show it.
pub(super) fn read(option: &str, text: &str) -> Result<String, String> {
    let found = match (text, elsewhere(option, text)) {
        (_, Some(found)) => found?,
        ("-", None) => of_input(option)?,
        _ => return Ok(text.to_owned()),
    };
    let value = String::from_utf8(found.trim_ascii_end().to_vec());
    let value = value.map_err(|_| format!("{option}: what {text} has is no text"))?;
    if value.is_empty() {
        return Err(format!("{option}: {text} is empty; give it a value"));
    }
    Ok(value)
}

/// What an environment variable or a file has; nothing where the text names none.
///
/// # Errors
/// See [`read`].
pub(super) fn elsewhere(option: &str, text: &str) -> Option<Result<Vec<u8>, String>> {
    if let Some(name) = text.strip_prefix("env:") {
        let value = std::env::var(name).map(String::into_bytes);
        return Some(value.map_err(|_| {
            format!(
                "{option}: the environment variable {name} is not set; set it, or use file:PATH"
            )
        }));
    }
    let name = text.strip_prefix("file:")?;
    Some(file::read(Path::new(name), FILE_BYTES_MAX).map_err(|fault| {
        let remedy = fault.remedy();
        format!("{option}: cannot read {name}: {fault}; {remedy}")
    }))
}

fn of_input(option: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(FILE_BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(|error| format!("{option}: cannot read standard input: {error}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_no_place_is_the_value_itself() {
        for text in ["eyJhbGciOiJub25lIn0.e30.", "environment", "files", "", "--"] {
            assert_eq!(read("--token", text).as_deref(), Ok(text));
        }
        for (text, what) in [
            ("env:PORTCULLIS_TEST_NOT_SET", "PORTCULLIS_TEST_NOT_SET is not set"),
            ("file:/nonexistent", "cannot read /nonexistent"),
            ("file:/dev/null", "a device"),
        ] {
            let told = read("--token", text).unwrap_err();
            assert!(told.starts_with("--token: ") && told.contains(what), "{told}");
        }
    }
}
