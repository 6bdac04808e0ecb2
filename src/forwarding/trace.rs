//! What a request says of its trace, as W3C Trace Context (Level 2) and W3C Baggage write it. It
//! must not know who is trusted.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::base::trace::{Share, TRACEPARENT, Trace};
use crate::config::{Traces, TrustParent};

/// `tracestate`
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// `baggage`
pub(super) const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// Longest `tracestate` that is sent on, in bytes, its lines combined (§3.3.1.5).
const TRACESTATE_BYTES_MAX: usize = 512;
/// Most members of a `tracestate` (§3.3.1.1).
const TRACESTATE_MEMBERS_MAX: usize = 32;
/// Longest key of a member, and longest value, in bytes (§3.3.1.3).
const TRACESTATE_PART_BYTES_MAX: usize = 256;
/// Longest baggage that is sent on, in bytes, its lines combined (W3C Baggage §3.3.2).
const BAGGAGE_BYTES_MAX: usize = 8192;
/// Most members of it.
const BAGGAGE_MEMBERS_MAX: usize = 64;

/// Which traces are recorded, and whose a request may go on with.
#[derive(Debug, Clone, Copy)]
pub struct Sampling {
    share: Share,
    trust: TrustParent,
}

impl Sampling {
    /// As `[telemetry.traces]` says.
    pub fn new(traces: &Traces) -> Self {
        Self { share: Share::of(traces.sample), trust: traces.trust_parent }
    }

    /// Whether the trace that a request came with is kept; `is_trusted`: whether a trusted proxy
    /// sends it. Anybody else could have all that he asks for recorded.
    pub(super) fn keeps_parent(self, is_trusted: impl FnOnce() -> bool) -> bool {
        match self.trust {
            TrustParent::TrustedProxies => is_trusted(),
            TrustParent::Never => false,
            TrustParent::Always => true,
        }
    }

    /// Whether a trace is recorded that begins here.
    pub(super) fn takes(self, trace: Trace) -> bool {
        trace.is_within(self.share)
    }
}

/// The trace that a request came with; nothing where it came with none that is well formed. Two of
/// them are none: nobody could say which is meant.
pub(super) fn parent(headers: &HeaderMap) -> Option<Trace> {
    let mut lines = headers.get_all(TRACEPARENT).iter();
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    Trace::parse(line.as_bytes())
}

/// The `tracestate` beside a trace that came with the request, its lines combined; nothing where it
/// is not well formed, which costs the trace nothing (§3.3.1, §4.2).
pub(super) fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    let lines = || headers.get_all(TRACESTATE).iter();
    let mut members = 0;
    let mut length = 0;
    for line in lines() {
        length += line.len() + 1;
        for member in line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if member.is_empty() {
                continue;
            }
            members += 1;
            if !is_member(member) {
                return None;
            }
        }
    }
    let fits = length <= TRACESTATE_BYTES_MAX + 1 && members <= TRACESTATE_MEMBERS_MAX;
    if members == 0 || !fits {
        return None;
    }
    let mut several = lines();
    if let (Some(line), None) = (several.next(), several.next()) {
        return Some(line.clone());
    }
    let lines: Vec<&[u8]> = lines().map(HeaderValue::as_bytes).collect();
    HeaderValue::from_maybe_shared(Bytes::from(lines.join(&b','))).ok()
}

/// `key=value` (§3.3.1.3).
fn is_member(member: &[u8]) -> bool {
    let Some(equals) = member.iter().position(|byte| *byte == b'=') else { return false };
    let (key, value) = (&member[..equals], &member[equals + 1..]);
    let begins = |part: &[u8]| part.first().is_some_and(u8::is_ascii_lowercase);
    let of_key =
        |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(byte);
    let is_key = match key.iter().position(|byte| *byte == b'@') {
        // `tenant@system`: a tenant may begin with a digit.
        Some(at) => {
            let (tenant, system) = (&key[..at], &key[at + 1..]);
            tenant.first().is_some_and(|byte| begins(tenant) || byte.is_ascii_digit())
                && tenant.iter().all(of_key)
                && begins(system)
                && system.iter().all(of_key)
        }
        None => begins(key) && key.iter().all(of_key),
    };
    let fit = |part: &[u8]| (1..=TRACESTATE_PART_BYTES_MAX).contains(&part.len());
    let of_value = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    is_key && fit(key) && fit(value) && value.iter().all(of_value)
}

/// Whether the baggage of a request is small enough to be sent on, in as many lines as it came.
pub(super) fn is_fit_baggage(headers: &HeaderMap) -> bool {
    let lines = || headers.get_all(BAGGAGE).iter();
    let members = lines().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let bytes: usize = lines().map(|line| line.len() + 1).sum();
    bytes <= BAGGAGE_BYTES_MAX + 1 && members.count() <= BAGGAGE_MEMBERS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn map(name: &HeaderName, lines: &[impl AsRef<[u8]>]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name.clone(), HeaderValue::from_bytes(line.as_ref()).unwrap());
        }
        headers
    }

    fn sent(line: &str) -> Option<String> {
        let trace = parent(&map(&TRACEPARENT, &[line]));
        trace.map(|trace| trace.to_header().to_str().unwrap().to_owned())
    }

    #[test]
    fn a_parent_is_read_by_its_first_55_bytes_and_sent_as_version_00() {
        for (given, flags) in [
            (format!("00-{TRACE}-{SPAN}-01"), "01"),
            (format!("00-{TRACE}-{SPAN}-00"), "00"),
            (format!("00-{TRACE}-{SPAN}-03"), "03"),
            (format!("00-{TRACE}-{SPAN}-ff"), "03"),
            (format!("00-{TRACE}-{SPAN}-08"), "00"),
            (format!("01-{TRACE}-{SPAN}-01"), "01"),
            (format!("cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"), "01"),
            (format!("fe-{TRACE}-{SPAN}-00-"), "00"),
        ] {
            assert_eq!(sent(&given), Some(format!("00-{TRACE}-{SPAN}-{flags}")), "{given}");
        }
    }

    #[test]
    fn what_is_no_parent_is_none() {
        let good = format!("00-{TRACE}-{SPAN}-01");
        for given in [
            String::new(),
            good[..54].to_owned(),
            format!("{good}-"),
            format!("{good}-00"),
            format!("{good}0"),
            format!("01-{TRACE}-{SPAN}-01.x"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-001"),
            good.to_uppercase(),
            good.replace('4', "g"),
            good.replace(SPAN, &SPAN.to_uppercase()),
            good.replace(TRACE, &"0".repeat(32)),
            good.replace(SPAN, &"0".repeat(16)),
            good.replace("-01", "-+1"),
            good.replace('-', "_"),
            format!("{TRACE}-{SPAN}-00-01"),
        ] {
            assert_eq!(sent(&given), None, "{given}");
        }
        assert_eq!(parent(&map(&TRACEPARENT, &[&good, &good])), None);
        assert_eq!(parent(&HeaderMap::new()), None);
    }

    #[test]
    fn a_state_is_combined_and_bounded() {
        let state = |lines: &[&str]| {
            state(&map(&TRACESTATE, lines)).map(|value| value.to_str().unwrap().to_owned())
        };
        let many = |count: usize| vec!["a=1"; count].join(",");
        let long = |length: usize| format!("a={},b=1", "x".repeat(length - 6));
        for (lines, expected) in [
            (&["congo=t61rcWkgMzE"][..], Some("congo=t61rcWkgMzE")),
            (&["a=1", "b=2, c=3"], Some("a=1,b=2, c=3")),
            (&["a=1,,b=2", ""], Some("a=1,,b=2,")),
            (&["1a-_*/@z9=! ~"], Some("1a-_*/@z9=! ~")),
            (&[&many(32)], Some(&*many(32))),
            (&[&many(33)], None),
            (&[&many(20), &many(20)], None),
            (&[&long(200)], Some(&*long(200))),
            (&[&long(200), &long(200), &long(200)], None),
            (&[&format!("a={}", "x".repeat(257))], None),
            (&[""], None),
            (&[], None),
            (&["a"], None),
            (&["a="], None),
            (&["=1"], None),
            (&["A=1"], None),
            (&["1=1"], None),
            (&["a@=1"], None),
            (&["@a=1"], None),
            (&["a@b@c=1"], None),
            (&["a=b=c"], None),
            (&["a=1", "b c=2"], None),
        ] {
            assert_eq!(state(lines).as_deref(), expected, "{lines:?}");
        }
        assert_eq!(super::state(&map(&TRACESTATE, &[b"a=\xfc"])), None);
    }

    #[test]
    fn baggage_is_bounded() {
        let fits = |lines: &[&str]| is_fit_baggage(&map(&BAGGAGE, lines));
        assert!(fits(&["a=1;p, b=%20"]) && fits(&[]));
        assert!(fits(&[&vec!["a=1"; 64].join(",")]) && !fits(&[&vec!["a=1"; 65].join(",")]));
        assert!(!fits(&[&vec!["a=1"; 33].join(","), &vec!["a=1"; 33].join(",")]));
        let half = "x".repeat(4096);
        assert!(fits(&[&"x".repeat(8192)]) && !fits(&[&half, &half]));
    }
}
