//! `Prefer: wait=N` (RFC 7240 §4.3): how long a client would rather wait for the real answer.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

/// The field.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");

/// How long the client wants to wait, `most` at most; nothing where it does not want to.
pub fn wait_of(fields: &HeaderMap, most: Duration) -> Option<Duration> {
    let lines = fields.get_all(PREFER).iter().filter_map(|line| line.to_str().ok());
    let preferences = lines.flat_map(|line| line.split([',', ';']));
    let mut waits = preferences.filter_map(|preference| {
        let (name, seconds) = preference.split_once('=')?;
        let seconds = seconds.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("wait").then(|| seconds.parse::<u64>().ok())?
    });
    let wait = Duration::from_secs(waits.next()?).min(most);
    (!wait.is_zero()).then_some(wait)
}
