//! Text with fields of an event in it, such as `/products/{id}`.

use super::fields::Fields;
use crate::base::http::percent::{is_unreserved, push_escape};

/// Longest value of a field that is used, in bytes.
pub const VALUE_BYTES_MAX: usize = 128;

/// Why a pattern is left out for one event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Skipped {
    /// The event does not have the field.
    #[error("there is no field {0:?}")]
    Missing(String),
    /// The field says nothing.
    #[error("the field {0:?} is empty")]
    Empty(String),
    /// The field is longer than [`VALUE_BYTES_MAX`].
    #[error("the field {0:?} is longer than 128 bytes")]
    TooLong(String),
    /// It would name another path.
    #[error("the field {0:?} is a dot segment")]
    Dots(String),
    /// What came of it is no path or no tag.
    #[error("what comes of it is no {0}")]
    Unusable(&'static str),
    /// The field is no time in Unix seconds.
    #[error("the field {0:?} is no time in Unix seconds")]
    NoTime(String),
    /// The event is no JSON object.
    #[error("it is no JSON object")]
    NoObject,
    /// An upstream would read another path, which lies above.
    #[error("a field is a parameter of the path, which an upstream leaves out")]
    Parameter,
    /// It is too long to be read.
    #[error("it is longer than 1 MiB")]
    TooMuch,
    /// The store had dropped it before it was taken.
    #[error("it was deleted before it was taken")]
    Gone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

impl Template {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind.split_once('}').ok_or("has a { without its }")?;
            if name.is_empty() || name.contains('{') {
                return Err("has braces without the name of a field in them");
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Field(name.to_owned()));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let is_stray = |part: &Part| matches!(part, Part::Text(text) if text.contains('}'));
        if parts.iter().any(is_stray) {
            return Err("has a } without its {");
        }
        Ok(Self(parts))
    }

    /// What stands before the first field.
    pub fn literal(&self) -> &str {
        match self.0.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    /// Whether there is no field in it.
    pub fn is_literal(&self) -> bool {
        !self.0.iter().any(|part| matches!(part, Part::Field(_)))
    }

    /// The text with what these fields say, as it is.
    ///
    /// # Errors
    /// A field says nothing that can be used.
    pub fn plain(&self, fields: &Fields) -> Result<String, Skipped> {
        self.fill(fields, |out, value| out.push_str(value))
    }

    /// The same as a path, where each field stands within one segment.
    ///
    /// # Errors
    /// A field says nothing that can be used.
    pub fn path(&self, fields: &Fields) -> Result<String, Skipped> {
        let path = self.fill(fields, |out, value| {
            for byte in value.bytes() {
                if is_unreserved(byte) { out.push(byte.into()) } else { push_escape(out, byte) }
            }
        })?;
        // They would be resolved, and name what lies above.
        if path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(Skipped::Dots(self.first_field().to_owned()));
        }
        Ok(path)
    }

    fn first_field(&self) -> &str {
        let field = self.0.iter().find_map(|part| match part {
            Part::Field(name) => Some(name.as_str()),
            Part::Text(_) => None,
        });
        field.unwrap_or_default()
    }

    fn fill(&self, fields: &Fields, push: impl Fn(&mut String, &str)) -> Result<String, Skipped> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field(name) => push(&mut out, value(fields, name)?),
            }
        }
        Ok(out)
    }
}

/// What a field says.
///
/// # Errors
/// Nothing that can be used.
pub(super) fn value<'f>(fields: &'f Fields, name: &str) -> Result<&'f str, Skipped> {
    let value = fields.get(name).ok_or_else(|| Skipped::Missing(name.to_owned()))?;
    match value.len() {
        0 => Err(Skipped::Empty(name.to_owned())),
        length if length > VALUE_BYTES_MAX => Err(Skipped::TooLong(name.to_owned())),
        _ => Ok(value),
    }
}
