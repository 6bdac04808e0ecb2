//! The access log: one line per request on stdout or in a file, written by a thread of its own.
//!
//! A request never waits for the writer. When the writer is `LINES_MAX` lines behind (a full disk,
//! a blocked pipe), lines are dropped and counted.

mod counts;
mod file;
mod format;
mod line;
mod shown;
mod slow;
mod writer;

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

pub use self::counts::LineCounts;
pub use self::line::Line;
pub use self::shown::{Fields, Shown};
pub use self::slow::Slow;

use self::file::LogFile;
use self::writer::{Message, Stdout, write_lines};
use crate::base::trace::{Share, Trace};
use crate::config::{AccessFormat, AccessTo, Log};

/// Most lines that wait for the writer.
const LINES_MAX: usize = 8192;

/// Where lines go, and what they show.
#[derive(Debug)]
pub struct AccessLog {
    lines: Option<SyncSender<Message>>,
    format: AccessFormat,
    /// Whether it has a file that can be opened anew.
    is_file: bool,
    sample: Share,
    counts: LineCounts,
    /// What lines show of their requests.
    pub shown: Shown,
    /// Which requests are slow.
    pub slow: Slow,
}

impl AccessLog {
    /// Lines as the configuration wants them.
    pub fn open(log: &Log, counts: LineCounts) -> Self {
        let mut access = Self {
            lines: None,
            format: log.access,
            is_file: log.access_to != AccessTo::Stdout,
            sample: Share::of(log.sample),
            counts,
            shown: Shown::new(log),
            slow: Slow::new(log.slow),
        };
        if log.access == AccessFormat::Off {
            return access;
        }
        let (lines, receiver) = sync_channel(LINES_MAX);
        match access.spawn(receiver, log) {
            Ok(()) => access.lines = Some(lines),
            Err(error) => {
                tracing::error!(%error, "the access log has no thread; no lines will be written");
            }
        }
        access
    }

    /// Starts the thread that writes.
    fn spawn(&self, messages: Receiver<Message>, log: &Log) -> std::io::Result<()> {
        let (counts, rotate) = (self.counts.clone(), log.rotate);
        let writer = std::thread::Builder::new().name("access-log".to_owned());
        match log.access_to.clone() {
            AccessTo::Stdout => {
                let out = Stdout::open()?;
                writer.spawn(move || write_lines(&messages, out, &counts))?;
            }
            AccessTo::File(path) => {
                // Opened by its thread: a pipe without a reader would hold up everything else.
                writer.spawn(move || {
                    write_lines(&messages, LogFile::open(path, rotate), &counts);
                })?;
            }
        }
        Ok(())
    }

    /// Whether lines are written at all.
    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Whether a request of this trace, with which nothing is the matter, has a line.
    pub fn samples(&self, trace: Trace) -> bool {
        let is_taken = trace.is_within(self.sample);
        if !is_taken {
            self.counts.sampled.inc();
        }
        is_taken
    }

    /// Hands a line to the writer.
    pub fn write(&self, line: &Line<'_>) {
        let Some(lines) = &self.lines else { return };
        let Some(mut text) = format::format(line, self.format) else { return };
        text.push(b'\n');
        if lines.try_send(Message::Line(text)).is_err() {
            self.counts.dropped.inc();
        }
    }

    /// Has the file opened anew. False where there is none.
    pub fn reopen(&self) -> bool {
        let Some(lines) = self.lines.as_ref().filter(|_| self.is_file) else { return false };
        // Where the writer is that far behind, it looks by itself when it comes to it.
        let _ = lines.try_send(Message::Reopen);
        true
    }

    /// Waits until the lines so far are written, for `limit` at most.
    pub fn flush(&self, limit: Duration) {
        let Some(lines) = &self.lines else { return };
        let (written, wait) = sync_channel(1);
        if lines.try_send(Message::Flush(written)).is_ok() {
            // A writer that is stuck on a blocked pipe must not keep the process alive.
            let _ = wait.recv_timeout(limit);
        }
    }
}
