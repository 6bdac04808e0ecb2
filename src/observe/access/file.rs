//! A file of access lines. Others may move it away at any time: then the path is opened anew, and
//! what was written before is where they have put it.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::writer::Out;
use crate::config::Rotate;

/// How often it is looked whether the path leads to another file.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Who may read a file that is made here: its group too, as what collects logs mostly is.
const MODE: u32 = 0o640;

/// See the module.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    rotate: Option<Rotate>,
    /// None while there was none that could be opened.
    open: Option<Opened>,
    looked_at: Instant,
    /// Whether it was said that it cannot be opened.
    is_told: bool,
    /// When it was last tried to move it, and failed. It was said the first time.
    stuck: Option<Instant>,
}

#[derive(Debug)]
struct Opened {
    file: File,
    id: Id,
}

/// Which file it is: its device and its inode.
type Id = (u64, u64);

fn id(of: &Metadata) -> Id {
    (of.dev(), of.ino())
}

impl LogFile {
    /// The file at this path, which is made where there is none.
    pub(super) fn open(path: PathBuf, rotate: Option<Rotate>) -> Self {
        let looked_at = Instant::now();
        let mut log = Self { path, rotate, open: None, looked_at, is_told: false, stuck: None };
        log.reopen();
        log
    }

    /// Opens the path. What was open stays open where that fails: lines are better there than lost.
    fn reopen(&mut self) -> bool {
        let opened = OpenOptions::new().append(true).create(true).mode(MODE).open(&self.path);
        let opened = opened.and_then(|file| {
            let id = id(&file.metadata()?);
            Ok(Opened { file, id })
        });
        match opened {
            Ok(opened) => {
                let is_other = self.open.as_ref().is_none_or(|open| open.id != opened.id);
                self.open = Some(opened);
                self.is_told = false;
                is_other
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_told, true) {
                    tracing::error!(
                        "the access log {} cannot be opened: {error}\n    help: make its folder, \
                         and let the gateway write there; it is tried again once a second",
                        self.path.display()
                    );
                }
                false
            }
        }
    }

    /// Whether the path leads to the file that is open.
    fn is_current(&self) -> bool {
        let here = fs::metadata(&self.path).ok().map(|there| id(&there));
        here.is_some() && here == self.open.as_ref().map(|open| open.id)
    }

    /// Lets a file that is full give way. After a hand-over two processes write here: the one that
    /// has the file's lock, and still finds it at the path, moves it.
    fn make_room(&mut self, wanted: usize) -> bool {
        let (Some(rotate), Some(open)) = (self.rotate, &self.open) else { return false };
        if self.stuck.is_some_and(|tried| tried.elapsed() < LOOK_INTERVAL) {
            return false;
        }
        let Ok(now) = open.file.metadata() else { return false };
        let is_full = now.len() > 0 && now.len().saturating_add(wanted as u64) > rotate.size;
        if !now.is_file() || !is_full || open.file.try_lock().is_err() {
            return false;
        }
        if self.is_current() {
            let numbered = |number: u32| {
                let mut name = self.path.clone().into_os_string();
                name.push(format!(".{number}"));
                name
            };
            for number in (1..rotate.keep).rev() {
                // Those that are not there yet need not move.
                let _ = fs::rename(numbered(number), numbered(number + 1));
            }
            let moved = fs::rename(&self.path, numbered(1));
            let tried = moved.is_err().then(Instant::now);
            let was_stuck = std::mem::replace(&mut self.stuck, tried).is_some();
            if let Err(error) = moved
                && !was_stuck
            {
                tracing::error!("the access log cannot be rotated, and grows: {error}");
            }
        }
        // It keeps its lock where it has not moved: nobody else could move it either.
        self.reopen()
    }
}

impl Out for LogFile {
    const LOOKED_AT_EVERY: Option<Duration> = Some(LOOK_INTERVAL);

    fn look(&mut self, at_once: bool) -> bool {
        if !at_once && self.looked_at.elapsed() < LOOK_INTERVAL {
            return false;
        }
        self.looked_at = Instant::now();
        (at_once || !self.is_current()) && self.reopen()
    }

    fn begin(&mut self, bytes: usize) -> bool {
        self.make_room(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.open {
            Some(open) => open.file.write(bytes),
            None => Err(io::Error::other("there is no file")),
        }
    }
}
