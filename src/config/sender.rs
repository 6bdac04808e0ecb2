//! `bound` and `[auth.NAME.dpop]`: what the sender of a token must show beside it (RFC 8705, RFC
//! 9449).

use std::time::Duration;

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde_json::json;
use toml::de::DeValue;

use super::reader::Section;
use super::value::{Flaw, Mistake, Read, choice, duration, echo, string};
use crate::base::algorithm::by_name;

/// Longest time for which a proof is good.
const WINDOW_MAX: Duration = Duration::from_secs(10 * 60);
/// What proofs are signed with unless the file says otherwise.
const ALGORITHMS: [&str; 2] = ["ES256", "EdDSA"];

/// What the sender of a token must show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// What every token must be bound to; nothing where it may be good for whoever has it.
    pub bound: Option<BoundTo>,
    /// The accepted algorithms of proofs, none of which has a shared secret.
    pub algorithms: Vec<Algorithm>,
    /// How old a proof may be.
    pub window: Duration,
}

/// `bound = "certificate" | "dpop"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundTo {
    /// The certificate of the client's connection.
    Certificate,
    /// A key, with which the client signs each request.
    Dpop,
}

impl Default for Sender {
    fn default() -> Self {
        let algorithms = vec![Algorithm::ES256, Algorithm::EdDSA];
        Self { bound: None, algorithms, window: Duration::from_secs(60) }
    }
}

/// Reads both.
pub(super) fn read(auth: &mut Section<'_>) -> Sender {
    let default = Sender::default();
    let words = [("certificate", BoundTo::Certificate), ("dpop", BoundTo::Dpop)];
    let bound = auth.get("bound", choice(&words));
    auth.section("dpop", |dpop| {
        dpop.holds("algorithms", || Some(json!(ALGORITHMS)));
        Sender {
            bound,
            algorithms: dpop.list("algorithms", algorithm).unwrap_or(default.algorithms),
            window: dpop.or("window", default.window, window),
        }
    })
}

/// An algorithm of two keys: whoever checks a proof must not be able to make one.
fn algorithm(value: &DeValue<'_>) -> Read<Algorithm> {
    const NAMES: [&str; 9] =
        ["ES256", "ES384", "EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
    let text = string(value, "its name in quotes, such as \"ES256\"")?;
    let found = by_name(text).filter(|it| it.family() != AlgorithmFamily::Hmac);
    found.ok_or_else(|| {
        let what = format!("{} is not an algorithm of proofs", echo(text));
        let remedy = format!("write one of {}, in quotes", NAMES.join(" "));
        Mistake::new(what, remedy).of(Flaw::Choice(NAMES.map(str::to_owned).to_vec()))
    })
}

fn window(value: &DeValue<'_>) -> Read<Duration> {
    let window = duration(value)?;
    if window > WINDOW_MAX || window < Duration::from_secs(1) {
        let what = "is not from 1s to 10m";
        return Err(Mistake::new(what, "write 60s: a proof is made for one request of now"));
    }
    Ok(window)
}
