//! `[log]`: access lines on stdout, diagnostics on stderr.

use super::reader::Section;
use super::value::choice;

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

/// Reads `[log]`.
pub(super) fn read(log: &mut Section<'_>) -> Log {
    let default = Log::default();
    let formats = [("json", AccessLog::Json), ("off", AccessLog::Off)];
    let levels = [
        ("error", Level::Error),
        ("warn", Level::Warn),
        ("info", Level::Info),
        ("debug", Level::Debug),
    ];
    Log {
        access: log.or("access", default.access, choice(&formats)),
        level: log.or("level", default.level, choice(&levels)),
    }
}
