//! Commands as they are sent: arrays of strings, in RESP3 as before it. Pure.
//!
//! Forms are those of <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

use redis::{Arg, Pipeline};

/// Longest head: what follows, a number, and the end of the line.
const HEAD_BYTES_MAX: usize = 1 + 20 + END.len();

const END: &[u8; 2] = b"\r\n";

/// The commands of a pipeline, in one buffer.
pub(super) fn encode(pipeline: &Pipeline) -> Vec<u8> {
    let mut length = HEAD_BYTES_MAX * pipeline.len();
    for command in pipeline.cmd_iter() {
        for argument in command.args_iter() {
            length += HEAD_BYTES_MAX + bytes(&argument).len() + END.len();
        }
    }
    let mut out = Vec::with_capacity(length);
    for command in pipeline.cmd_iter() {
        head(&mut out, b'*', command.args_iter().len());
        for argument in command.args_iter() {
            let argument = bytes(&argument);
            head(&mut out, b'$', argument.len());
            out.extend_from_slice(argument);
            out.extend_from_slice(END);
        }
    }
    out
}

/// An argument. No command here has a cursor, which would stand at its beginning.
fn bytes<'a>(argument: &Arg<&'a [u8]>) -> &'a [u8] {
    match argument {
        Arg::Simple(bytes) => bytes,
        _ => b"0",
    }
}

/// Says how much of what follows. Nearly all numbers are short, and written in one piece.
fn head(out: &mut Vec<u8>, what: u8, number: usize) {
    let digit = |number: usize| b'0' + (number % 10) as u8;
    match number {
        0..10 => out.extend_from_slice(&[what, digit(number), b'\r', b'\n']),
        10..100 => {
            out.extend_from_slice(&[what, digit(number / 10), digit(number), b'\r', b'\n']);
        }
        100..1000 => {
            let (hundreds, tens) = (digit(number / 100), digit(number / 10));
            out.extend_from_slice(&[what, hundreds, tens, digit(number), b'\r', b'\n']);
        }
        _ => {
            out.push(what);
            out.extend_from_slice(number.to_string().as_bytes());
            out.extend_from_slice(END);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_as_the_library_writes_them() {
        let long = "x".repeat(12_345);
        let mut pipeline = Pipeline::new();
        pipeline.cmd("PING").cmd("SET").arg("key").arg("").arg(b"\0\r\n".as_slice());
        pipeline.cmd("GET").arg("x".repeat(10)).cmd("GET").arg("x".repeat(999));
        pipeline.cmd("EVAL").arg(&long).arg(0).arg(u64::MAX).arg(&["a"; 100]);
        assert_eq!(encode(&pipeline), pipeline.get_packed_pipeline());
        assert_eq!(encode(&Pipeline::new()), b"");
        let mut longest = Vec::new();
        head(&mut longest, b'$', usize::MAX);
        assert_eq!(longest, format!("${}\r\n", usize::MAX).into_bytes());
    }
}
