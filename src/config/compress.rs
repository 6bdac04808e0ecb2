//! `compress = …` of a route: which responses are compressed.

use toml::de::DeValue;

use super::reader::Section;
use super::value::{Flaw, GIB, KIB, Mistake, Read, echo, flag, size, string};

/// Types that become shorter by a half or more, where the route names no others.
const TYPES: [&str; 14] = [
    "text/*",
    "*+json",
    "*+xml",
    "application/javascript",
    "application/json",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/xml",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/x-icon",
];
/// Shorter content stays as it is, in bytes: what is saved is less than what it costs.
const MIN_BYTES: u64 = KIB;

/// `compress = true`, `compress = "private"` or `compress = { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compress {
    /// Also where the request says who calls.
    pub private: bool,
    /// Types of content: `text/html`, `text/*`, `*+json`; lower case.
    pub types: Vec<String>,
    /// Shortest content, in bytes.
    pub min_bytes: u64,
}

/// Reads `compress`; nothing where it is off.
pub(super) fn read(route: &mut Section<'_>) -> Option<Compress> {
    route.either("compress", short, |table| Some(Some(read_table(table)))).flatten()
}

fn read_table(table: &mut Section<'_>) -> Compress {
    let default = Compress::new(false);
    table.holds("types", || Some(default.types.clone().into()));
    Compress {
        private: table.or("private", false, flag),
        types: table.list("types", content_type).unwrap_or(default.types),
        min_bytes: table.or("min_bytes", MIN_BYTES, size(0..=GIB)),
    }
}

impl Compress {
    fn new(private: bool) -> Self {
        Self { private, types: TYPES.map(str::to_owned).to_vec(), min_bytes: MIN_BYTES }
    }
}

fn short(value: &DeValue<'_>) -> Read<Option<Compress>> {
    const EXAMPLE: &str = "true, false, \"private\" or a table";
    match value {
        DeValue::Boolean(is_on) => Ok(is_on.then(|| Compress::new(false))),
        DeValue::String(text) if text == "private" => Ok(Some(Compress::new(true))),
        DeValue::String(text) => {
            let what = format!("{} is not a choice here", echo(text));
            let flaw = Flaw::Choice(vec!["private".to_owned()]);
            Err(Mistake::new(what, format!("write {EXAMPLE}")).of(flaw))
        }
        other => Err(Mistake::wrong_type(other, EXAMPLE, EXAMPLE)),
    }
}

fn content_type(value: &DeValue<'_>) -> Read<String> {
    let text = string(value, "a type of content in quotes")?.to_ascii_lowercase();
    let is_word = |word: &str| {
        let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
        !word.is_empty() && word.bytes().all(is_known)
    };
    let is_one = match (text.strip_prefix("*+"), text.split_once('/')) {
        (Some(end), _) => is_word(end),
        (None, Some((kind, rest))) => is_word(kind) && (rest == "*" || is_word(rest)),
        (None, None) => false,
    };
    if !is_one {
        let what = format!("{} is no type of content", echo(&text));
        return Err(Mistake::new(what, "write \"text/html\", \"text/*\" or \"*+json\""));
    }
    Ok(text)
}
