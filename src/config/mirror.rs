//! `mirror = { … }` and `faults = { … }` of a route: requests that are sent a second time, and
//! those that fail or wait on purpose.

use std::time::Duration;

use http::StatusCode;
use ipnet::IpNet;
use toml::de::DeValue;

use super::reader::Section;
use super::server::network;
use super::split::WHOLE;
use super::value::{KIB, MIB, Mistake, Read, count, duration, flag, share, size, text};

/// Longest time that a request waits on purpose.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// `mirror = { … }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Name of the upstream that gets the copies.
    pub upstream: String,
    /// How many requests are copied, in ten-thousandths of all.
    pub share: u16,
    /// Copies in progress; what finds no place is not copied.
    pub places: usize,
    /// Longest body that is copied, in bytes; requests with longer ones are not.
    pub body: u64,
    /// Whether copies say who calls.
    pub identity: bool,
    /// Whether requests are copied that change something.
    pub unsafe_methods: bool,
}

/// `faults = { … }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// Whose requests may be chosen.
    pub allow_from: Vec<IpNet>,
    /// How many are refused, in ten-thousandths of those.
    pub abort: u16,
    /// The status of these.
    pub status: StatusCode,
    /// How many wait, in ten-thousandths of those.
    pub delay: u16,
    /// How long.
    pub delay_time: Duration,
}

/// Reads `mirror = { … }`.
pub(super) fn read_mirror(mirror: &mut Section<'_>) -> Option<Mirror> {
    let upstream = mirror.need("upstream", "\"NAME\", one of [upstreams]", text);
    let (share, places) =
        (mirror.or("share", WHOLE, share), mirror.or("places", 32, count(1..=10_000)));
    let (body, identity, unsafe_methods) = (
        mirror.or("body", 64 * KIB, size(0..=MIB)),
        mirror.or("identity", false, flag),
        mirror.or("unsafe_methods", false, flag),
    );
    upstream.map(|upstream| Mirror { upstream, share, places, body, identity, unsafe_methods })
}

/// Reads `faults = { … }`.
pub(super) fn read_faults(faults: &mut Section<'_>) -> Faults {
    let read = Faults {
        allow_from: faults.need_list("allow_from", "[\"127.0.0.1/32\"]", network),
        abort: faults.or("abort", 0, share),
        status: faults.or("status", StatusCode::SERVICE_UNAVAILABLE, status),
        delay: faults.or("delay", 0, share),
        delay_time: faults.or("delay_time", Duration::from_secs(1), duration),
    };
    if !faults.is_survey() && read.abort == 0 && read.delay == 0 {
        faults.problem("", "does nothing", "write abort = \"10%\" or delay = \"10%\"");
    }
    if read.delay_time > DELAY_MAX {
        faults.problem("delay_time", "is too long", "write at most \"1m\"");
    }
    read
}

fn status(value: &DeValue<'_>) -> Read<StatusCode> {
    let code: u16 = count(400..=599)(value)?;
    StatusCode::from_u16(code).map_err(|_| Mistake::new("is no status", "write 503, for example"))
}
