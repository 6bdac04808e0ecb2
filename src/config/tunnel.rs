//! `upgrade` and `tunnel` of `[routes.NAME]`: connections that change to another protocol.

use std::time::Duration;

use super::origin::{Origin, origin};
use super::reader::Section;
use super::value::{GIB, choice, duration, rate, size};
use crate::base::units::Rate;

/// What a route's tunnels are bounded by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Longest time without a byte in either direction.
    pub idle_timeout: Duration,
    /// Longest life.
    pub max_age: Duration,
    /// Longest message of a client, in bytes; `None`: any.
    pub message_bytes: Option<u64>,
    /// How many messages a client may send; `None`: any number.
    pub messages: Option<Rate>,
    /// What ends one before that.
    pub end_on: EndOn,
    /// The pages that may open one; empty: all.
    pub origins: Vec<Origin>,
}

/// What about the caller ends a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndOn {
    /// The token expires.
    pub expiry: bool,
    /// The token, or the API key, is revoked by itself.
    pub jti: bool,
    /// All tokens with its `sid` are.
    pub sid: bool,
    /// All tokens of its subject are.
    pub sub: bool,
}

impl Default for EndOn {
    fn default() -> Self {
        Self { expiry: true, jti: true, sid: true, sub: true }
    }
}

impl Default for Tunnel {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(5 * 60),
            max_age: Duration::from_secs(24 * 60 * 60),
            message_bytes: None,
            messages: None,
            end_on: EndOn::default(),
            origins: Vec::new(),
        }
    }
}

/// Reads `upgrade` and `tunnel`; nothing where no upgrade is allowed.
pub(super) fn read(route: &mut Section<'_>) -> Option<Tunnel> {
    let protocols = route.list("upgrade", choice(&[("websocket", ())]));
    let tunnel = route.optional("tunnel", read_tunnel);
    if protocols.is_none() && route.has("tunnel") && !route.has("upgrade") {
        let what = "has no effect on a route without upgrade";
        route.problem("tunnel", what, "add upgrade = [\"websocket\"], or remove it");
    }
    protocols.map(|_| tunnel.unwrap_or_default())
}

fn read_tunnel(tunnel: &mut Section<'_>) -> Tunnel {
    let default = Tunnel::default();
    Tunnel {
        idle_timeout: tunnel.or("idle_timeout", default.idle_timeout, duration),
        max_age: tunnel.or("max_age", default.max_age, duration),
        message_bytes: tunnel.get("message_bytes", size(1..=GIB)),
        messages: tunnel.get("messages", rate),
        end_on: read_end_on(tunnel),
        origins: tunnel.list_or_empty("origins", origin),
    }
}

/// `end_on = ["expiry", "jti", "sid", "sub"]`; an empty list is written as such.
fn read_end_on(tunnel: &mut Section<'_>) -> EndOn {
    let is_written = tunnel.has("end_on");
    let words = [("expiry", 0), ("jti", 1), ("sid", 2), ("sub", 3)];
    let named = tunnel.list_or_empty("end_on", choice(&words));
    if !is_written {
        return EndOn::default();
    }
    let has = |word| named.contains(&word);
    EndOn { expiry: has(0), jti: has(1), sid: has(2), sub: has(3) }
}
