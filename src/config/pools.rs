//! `stick` and `position` of an upstream with `readers`: whose reads go to the writers, and how far
//! readers must be.

use std::time::Duration;

use http::HeaderName;
use toml::de::DeValue;

use super::reader::Section;
use super::value::{Mistake, Read, duration_or_zero, header_name, string};
use crate::base::units::duration_text;

/// How long a caller's reads follow his writes, unless it is written.
const STICK_DEFAULT: Duration = Duration::from_secs(3);
/// For how long they may at most.
const STICK_MAX: Duration = Duration::from_secs(60 * 60);

/// What holds between the servers of an upstream and its readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pools {
    /// For how long a caller who wrote reads what the writers say; zero: he never does.
    pub stick: Duration,
    /// How servers tell how far they are; nothing where they do not.
    pub position: Option<Position>,
}

/// `position = { from = "x-position", to = "x-min-position" }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The field of an answer to a write that says where in the log it stands.
    pub from: HeaderName,
    /// The field of a read that says how far its reader must be.
    pub to: HeaderName,
}

/// Reads the keys beside `readers`.
pub(super) fn read(upstream: &mut Section<'_>) -> Pools {
    let stick = upstream.or("stick", STICK_DEFAULT, stick);
    let position = upstream.optional("position", read_position).flatten();
    for key in ["stick", "position"] {
        if upstream.has(key) && !upstream.has("readers") {
            let remedy = "add readers = [\"http://127.0.0.1:3002\"], or remove it";
            upstream.problem(key, "there are no readers that it could be about", remedy);
        }
    }
    if position.is_some() && stick.is_zero() {
        let what = "is of no use with stick = \"0s\": nobody's reads follow his writes";
        upstream.problem("position", what, "write a time for stick, or remove position");
    }
    Pools { stick, position }
}

fn read_position(position: &mut Section<'_>) -> Option<Position> {
    let from = position.need("from", "\"x-position\"", field);
    let to = position.need("to", "\"x-min-position\"", field);
    Some(Position { from: from?, to: to? })
}

fn field(value: &DeValue<'_>) -> Read<HeaderName> {
    header_name(string(value, "the name of a field in quotes")?)
}

fn stick(value: &DeValue<'_>) -> Read<Duration> {
    let stick = duration_or_zero(value)?;
    if stick <= STICK_MAX {
        return Ok(stick);
    }
    let what = format!("{} is out of range", duration_text(stick));
    Err(Mistake::new(what, "write a time of at most \"1h\""))
}
