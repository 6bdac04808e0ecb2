//! `[log]`: access lines on stdout or in a file, diagnostics on stderr.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use toml::de::DeValue;

use super::reader::Section;
use super::value::{
    GIB, KIB, MIB, Mistake, Read, choice, count, duration_or_zero, echo, header_name, share, size,
    string, text,
};
use crate::base::http::fields::bears_credentials;
use crate::base::units::Secret;

/// Most request fields that a line shows.
const HEADERS_MAX: usize = 16;
/// Fewest bytes of what hashes subjects.
const SECRET_BYTES_MIN: usize = 16;

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Whether each request writes a line, and how.
    pub access: AccessFormat,
    /// Where lines go.
    pub access_to: AccessTo,
    /// When a file of lines gives way to the next one; nothing where others see to that.
    pub rotate: Option<Rotate>,
    /// The share of what succeeded that has lines, in ten-thousandths.
    pub sample: u16,
    /// From when on a request is slow; zero for never.
    pub slow: Duration,
    /// What lines show of a query.
    pub query: QueryShown,
    /// What they show of the client's address.
    pub client: ClientShown,
    /// What they show of who calls.
    pub subject: SubjectShown,
    /// What subjects are hashed with; nothing for a secret of this process alone.
    pub subject_secret: Option<Secret>,
    /// The request fields that they show.
    pub headers: Vec<HeaderName>,
    /// The least severe diagnostic that is written.
    pub level: Level,
    /// The format of diagnostics.
    pub format: DiagnosticFormat,
}

/// The format of access lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessFormat {
    /// One JSON object per line.
    Json,
    /// The same in the names of the Elastic Common Schema.
    Ecs,
    /// The common format with referer and user agent.
    Combined,
    /// The common format of web servers.
    Common,
    /// None.
    Off,
}

/// Where access lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessTo {
    /// `stdout`
    Stdout,
    /// A file.
    File(PathBuf),
}

/// `rotate = { … }`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotate {
    /// The size at which a file gives way, in bytes.
    pub size: u64,
    /// How many of those before it are kept.
    pub keep: u32,
}

/// What lines show of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryShown {
    /// Nothing.
    Off,
    /// The names of its parameters.
    Names,
    /// All but what may open something.
    All,
}

/// What lines show of the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientShown {
    /// All of it.
    Full,
    /// The network: /24 of IPv4, /48 of IPv6.
    Prefix,
}

/// What lines show of who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectShown {
    /// The subject itself.
    Plain,
    /// An HMAC of it: equal ones are told apart from others, and nobody is named.
    Hash,
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

impl Level {
    /// As the configuration has them.
    const WORDS: [(&'static str, Self); 4] = [
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
    ];

    /// Its word in the configuration.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, it)| *it == self).map_or("", |(word, _)| word)
    }

    /// The level of a word.
    pub fn of(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(it, _)| *it == word).map(|(_, level)| *level)
    }
}

/// The format of diagnostics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiagnosticFormat {
    /// One line of text for each.
    Text,
    /// One JSON object for each.
    Json,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            access: AccessFormat::Json,
            access_to: AccessTo::Stdout,
            rotate: None,
            sample: 10_000,
            slow: Duration::from_secs(1),
            query: QueryShown::Off,
            client: ClientShown::Full,
            subject: SubjectShown::Plain,
            subject_secret: None,
            headers: Vec::new(),
            level: Level::Info,
            format: DiagnosticFormat::Text,
        }
    }
}

const FORMATS: [(&str, AccessFormat); 5] = [
    ("json", AccessFormat::Json),
    ("ecs", AccessFormat::Ecs),
    ("combined", AccessFormat::Combined),
    ("common", AccessFormat::Common),
    ("off", AccessFormat::Off),
];
const QUERIES: [(&str, QueryShown); 3] =
    [("off", QueryShown::Off), ("names", QueryShown::Names), ("all", QueryShown::All)];
const CLIENTS: [(&str, ClientShown); 2] =
    [("full", ClientShown::Full), ("prefix", ClientShown::Prefix)];
const SUBJECTS: [(&str, SubjectShown); 2] =
    [("plain", SubjectShown::Plain), ("hash", SubjectShown::Hash)];
const DIAGNOSTICS: [(&str, DiagnosticFormat); 2] =
    [("text", DiagnosticFormat::Text), ("json", DiagnosticFormat::Json)];

/// Reads `[log]`.
pub(super) fn read(log: &mut Section<'_>) -> Log {
    let default = Log::default();
    log.holds("access_to", || Some("stdout".into()));
    let access_to = match log.get("access_to", text) {
        Some(name) if name != "stdout" => AccessTo::File(log.beside("access_to", &name)),
        _ => AccessTo::Stdout,
    };
    let read = Log {
        access: log.or("access", default.access, choice(&FORMATS)),
        access_to,
        rotate: log.optional("rotate", rotate),
        sample: log.or("sample", default.sample, share),
        slow: log.or("slow", default.slow, duration_or_zero),
        query: log.or("query", default.query, choice(&QUERIES)),
        client: log.or("client", default.client, choice(&CLIENTS)),
        subject: log.or("subject", default.subject, choice(&SUBJECTS)),
        subject_secret: log.secret("subject_secret"),
        headers: log.list_or_empty("headers", shown_field),
        level: log.or("level", default.level, choice(&Level::WORDS)),
        format: log.or("format", default.format, choice(&DIAGNOSTICS)),
    };
    together(log, &read);
    read
}

/// What the keys say together.
fn together(log: &Section<'_>, read: &Log) {
    if log.is_survey() {
        return;
    }
    if read.rotate.is_some() && read.access_to == AccessTo::Stdout {
        let remedy = "name a file in access_to, or remove rotate";
        log.problem("rotate", "lines that go to stdout are in no file", remedy);
    }
    if read.subject_secret.is_some() && read.subject == SubjectShown::Plain {
        let remedy = "say subject = \"hash\", or remove subject_secret";
        log.problem("subject_secret", "no subject is hashed", remedy);
    }
    let short = |secret: &&Secret| secret.expose().len() < SECRET_BYTES_MIN;
    if read.subject_secret.as_ref().is_some_and(|secret| short(&secret)) {
        let what = format!("is shorter than {SECRET_BYTES_MIN} bytes, so it can be guessed");
        log.problem("subject_secret", what, "make one with `openssl rand -hex 32`");
    }
    if read.headers.len() > HEADERS_MAX {
        let what = format!("names more than {HEADERS_MAX} fields");
        log.problem("headers", what, "keep those that somebody reads");
    }
}

fn rotate(rotate: &mut Section<'_>) -> Rotate {
    Rotate {
        size: rotate.or("size", 100 * MIB, size(KIB..=1024 * GIB)),
        keep: rotate.or("keep", 5, count(1..=1000)),
    }
}

/// The name of a field whose values may be shown.
fn shown_field(value: &DeValue<'_>) -> Read<HeaderName> {
    let name = header_name(string(value, "one in quotes, such as \"referer\"")?)?;
    if bears_credentials(name.as_str()) {
        let what = format!("{} carries credentials", echo(name.as_str()));
        return Err(Mistake::new(what, "remove it: whoever reads the log could use them"));
    }
    Ok(name)
}
