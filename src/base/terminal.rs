//! What commands print, in one place: whoever reads may leave before the end, and a disk may be
//! full. Neither is a panic.

use std::io::{self, ErrorKind, Write};

/// Exit status when whoever reads has left: what a shell tells of a program that SIGPIPE has ended
/// (128 and the signal's number, 13), as it ends other tools.
const READER_LEFT: i32 = 141;
/// Exit status when nothing can be printed for another reason.
const UNPRINTABLE: i32 = 1;

/// Prints a text to standard output, as it is. Where that is not possible, the process ends.
pub fn out(text: &str) {
    written(print(io::stdout().lock(), text));
}

/// The same with an end of line.
pub fn out_line(text: &str) {
    written(print(io::stdout().lock(), &format!("{text}\n")));
}

/// Prints a text to standard error, as it is. Where nobody reads it, the process ends; another
/// failure could be told to nobody, and changes nothing.
pub fn err(text: &str) {
    if let Err(error) = print(io::stderr().lock(), text)
        && error.kind() == ErrorKind::BrokenPipe
    {
        end(READER_LEFT);
    }
}

/// The same with an end of line.
pub fn err_line(text: &str) {
    err(&format!("{text}\n"));
}

/// All of it, so that a failure is known here and not at the end of the process.
fn print(mut to: impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}

fn written(result: io::Result<()>) {
    match result {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => end(READER_LEFT),
        Err(error) => {
            err_line(&format!("cannot print to standard output: {error}"));
            end(UNPRINTABLE);
        }
    }
}

#[expect(clippy::exit, reason = "a command without its output ends, as other tools do")]
fn end(status: i32) -> ! {
    std::process::exit(status)
}
