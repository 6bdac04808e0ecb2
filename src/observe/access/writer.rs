//! The thread that writes access lines: those that wait are written together, and each is counted
//! by what became of it.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use super::counts::LineCounts;

/// Bytes collected before one write.
const WRITE_BYTES: usize = 64 * 1024;

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Message {
    /// Write this.
    Line(Vec<u8>),
    /// Open the file anew, behind everything before this.
    Reopen,
    /// Say when everything before this is written.
    Flush(SyncSender<()>),
}

/// What takes lines.
pub(super) trait Out {
    /// How long it may be left alone; nothing for as long as there are no lines.
    const LOOKED_AT_EVERY: Option<Duration>;

    /// Sees to it that lines go where they should by now. True where that is another file than
    /// before; `at_once`: somebody says so.
    fn look(&mut self, at_once: bool) -> bool;

    /// So many bytes of whole lines come next. True where they go to another file than before.
    fn begin(&mut self, bytes: usize) -> bool;

    /// Takes some of these bytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
}

/// Stdout, without the buffer that the standard library has before it.
#[derive(Debug)]
pub(super) struct Stdout(File);

impl Stdout {
    /// This process's.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self(io::stdout().as_fd().try_clone_to_owned()?.into()))
    }
}

impl Out for Stdout {
    const LOOKED_AT_EVERY: Option<Duration> = None;

    fn look(&mut self, _: bool) -> bool {
        false
    }

    fn begin(&mut self, _: usize) -> bool {
        false
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
}

/// Writes until the last sender is gone.
pub(super) fn write_lines<O: Out>(messages: &Receiver<Message>, out: O, counts: &LineCounts) {
    let mut writer = Writer { out, counts, is_torn: false, is_failing: false };
    let mut buffer = Vec::with_capacity(WRITE_BYTES);
    let mut flushes = Vec::new();
    loop {
        let mut next = match O::LOOKED_AT_EVERY.map(|pause| messages.recv_timeout(pause)) {
            Some(Err(RecvTimeoutError::Timeout)) => None,
            Some(Err(RecvTimeoutError::Disconnected)) => return,
            Some(Ok(message)) => Some(message),
            None => match messages.recv() {
                Ok(message) => Some(message),
                Err(_) => return,
            },
        };
        let mut at_once = false;
        while let Some(message) = next.take() {
            match message {
                Message::Line(line) => buffer.extend_from_slice(&line),
                Message::Flush(written) => flushes.push(written),
                Message::Reopen => at_once = true,
            }
            if buffer.len() < WRITE_BYTES && !at_once {
                next = messages.try_recv().ok();
            }
        }
        writer.write(&buffer);
        buffer.clear();
        // Behind the write: what came before is in the file that was meant.
        writer.look(at_once);
        for written in flushes.drain(..) {
            let _ = written.send(());
        }
    }
}

/// Lines on their way, and how that went so far.
struct Writer<'c, O> {
    out: O,
    counts: &'c LineCounts,
    /// Whether the last line is there in part.
    is_torn: bool,
    /// Whether the last write has failed.
    is_failing: bool,
}

impl<O: Out> Writer<'_, O> {
    fn look(&mut self, at_once: bool) {
        if self.out.look(at_once) {
            self.is_torn = false;
        }
    }

    /// Writes whole lines. What the system does not take (a full disk, a closed pipe) is lost: it
    /// must not stop the gateway.
    fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        if self.out.begin(lines.len()) {
            self.is_torn = false;
        }
        if self.is_torn && self.write_all(b"\n").1.is_none() {
            self.is_torn = false;
        }
        // What is torn would run into the next line.
        let (written, error) = if self.is_torn { (0, None) } else { self.write_all(lines) };
        let (taken, left) = lines.split_at(written.min(lines.len()));
        self.is_torn |= taken.last().is_some_and(|last| *last != b'\n');
        self.counts.written.inc_by(count(taken));
        self.counts.failed.inc_by(count(left));
        self.tell(error, !left.is_empty());
    }

    /// How many of the bytes were written, and why no more.
    fn write_all(&mut self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.out.write(rest) {
                Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Some(error)),
            }
        }
        (written, None)
    }

    /// Says once that lines are lost, and once that they are not any more.
    fn tell(&mut self, error: Option<io::Error>, is_failing: bool) {
        let was_failing = std::mem::replace(&mut self.is_failing, is_failing);
        match (was_failing, is_failing) {
            (false, true) => {
                let why = error.map(|error| error.to_string()).unwrap_or_default();
                tracing::error!("access lines cannot be written, and are lost: {why}");
            }
            (true, false) => tracing::info!("access lines are written again"),
            _ => {}
        }
    }
}

/// How many lines end in these bytes.
fn count(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    /// Takes so many bytes, then none until somebody looks at once.
    struct Full<'t> {
        room: usize,
        taken: &'t mut Vec<u8>,
    }

    impl Out for Full<'_> {
        const LOOKED_AT_EVERY: Option<Duration> = None;

        fn look(&mut self, at_once: bool) -> bool {
            if at_once {
                self.room = usize::MAX;
            }
            false
        }

        fn begin(&mut self, _: usize) -> bool {
            false
        }

        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room).min(3);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.taken.extend(&bytes[..taken]);
            Ok(taken)
        }
    }

    #[test]
    fn a_full_disk_tears_one_line_and_every_line_is_counted() {
        let (lines, messages) = sync_channel(16);
        let line = |text: &str| lines.send(Message::Line(format!("{text}\n").into_bytes()));
        for text in ["one", "two", "three"] {
            line(text).unwrap();
        }
        lines.send(Message::Reopen).unwrap();
        line("four").unwrap();
        drop(lines);
        let (mut taken, counts) = (Vec::new(), LineCounts::default());
        write_lines(&messages, Full { room: 6, taken: &mut taken }, &counts);
        assert_eq!(String::from_utf8_lossy(&taken), "one\ntw\nfour\n");
        assert_eq!((counts.written.get(), counts.failed.get()), (2, 2));
    }
}
