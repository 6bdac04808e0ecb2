//! `[log]`: access lines on stdout, diagnostics on stderr.

use super::reader::Section;
use super::value::{Mistake, choice};

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Whether each request writes a line.
    pub access: AccessLog,
    /// The least severe diagnostic that is written.
    pub level: Level,
}

/// The format of access lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    /// One JSON object per line.
    Json,
    /// None.
    Off,
}

/// The severities of diagnostics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A human must look.
    Error,
    /// Something is degraded.
    Warn,
    /// What an operator expects to see.
    Info,
    /// For finding a fault.
    Debug,
}

impl Default for Log {
    fn default() -> Self {
        Self { access: AccessLog::Json, level: Level::Info }
    }
}

/// Keys that are planned, and what would silently not happen.
const PLANNED: [(&str, &str); 9] = [
    ("access_to", "lines would go to stdout"),
    ("rotate", "no file would be rotated"),
    ("sample", "every request would leave a line"),
    ("slow", "slow requests would not be marked"),
    ("query", "no query would be logged"),
    ("client", "addresses would be logged whole"),
    ("subject", "subjects would be logged in clear"),
    ("headers", "no field would be logged"),
    ("format", "diagnostics would be text"),
];

/// Reads `[log]`.
pub(super) fn read(log: &mut Section<'_>) -> Log {
    let default = Log::default();
    for (key, without) in PLANNED {
        log.not_built(key, without);
    }
    let formats = [("json", AccessLog::Json), ("off", AccessLog::Off)];
    let levels = [
        ("error", Level::Error),
        ("warn", Level::Warn),
        ("info", Level::Info),
        ("debug", Level::Debug),
    ];
    let planned = ["ecs", "combined", "common"];
    Log {
        access: log.or("access", default.access, |value| match value.as_str() {
            Some(format) if planned.contains(&format) => {
                let what = format!("the format {format:?}");
                Err(Mistake::not_built(&what, "write \"json\" or \"off\""))
            }
            _ => choice(&formats)(value),
        }),
        level: log.or("level", default.level, choice(&levels)),
    }
}
