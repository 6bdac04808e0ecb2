//! Whose trace a piece of work belongs to, as W3C Trace Context (Level 2) writes it in
//! `traceparent`.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};

use super::http::hex;

/// `traceparent`
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Bytes of a `traceparent` of version 00, and of what is read of later ones (§3.2.2, §4).
const TRACEPARENT_BYTES: usize = 55;
/// The flags that version 00 knows: sampled, and random trace id (§3.2.2.5). Others are sent as 0.
const FLAGS_KNOWN: u8 = 0b11;

/// A piece of work within a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// `trace-id`, never all zeros.
    pub id: [u8; 16],
    /// `parent-id`: the piece itself, as those that it causes name it. Never all zeros.
    pub span: [u8; 8],
    /// `trace-flags`, those that are known.
    pub flags: u8,
}

impl Trace {
    /// A trace that begins here. Its flags say that nothing is recorded: who samples as its parent
    /// does would take all.
    pub fn begin() -> Self {
        Self { id: fastrand::u128(1..).to_be_bytes(), span: fresh_span(), flags: 0 }
    }

    /// What a `traceparent` says. Of a later version, what this one knows (§4.3).
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (known, more) = text.split_at_checked(TRACEPARENT_BYTES)?;
        let mut parts = known.split(|byte| *byte == b'-');
        let mut part = || parts.next().filter(|part| is_lower_hex(part));
        let ([version], id) = (hex::decode(part()?)?, hex::decode(part()?)?);
        let (span, [flags]) = (hex::decode(part()?)?, hex::decode(part()?)?);
        // A later version may have more to say, behind another dash.
        let fits = more.is_empty() || (version != 0 && more.starts_with(b"-"));
        let is_something = id != [0; 16] && span != [0; 8];
        (fits && is_something && version != 0xff).then_some(Self {
            id,
            span,
            flags: flags & FLAGS_KNOWN,
        })
    }

    /// Another piece of the same trace, which this one causes.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span: fresh_span(), ..self }
    }

    /// `traceparent`, of version 00.
    pub fn to_header(self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        hex::write(&mut text[3..35], &self.id);
        hex::write(&mut text[36..52], &self.span);
        hex::write(&mut text[53..], &[self.flags]);
        let text = Bytes::copy_from_slice(&text);
        HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static("none"))
    }

    /// The digits of the trace's id.
    pub fn id_digits(self) -> [u8; 32] {
        let mut digits = [0; 32];
        hex::write(&mut digits, &self.id);
        digits
    }
}

/// A share of all traces: by their ids, so that it is the same ones on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio(u64);

impl Ratio {
    /// So many ten-thousandths of all.
    pub fn of(share: u16) -> Self {
        // The last 7 bytes are the random part of an id (Level 2, §3.2.2.3).
        Self((u128::from(share) * (1 << 56) / 10_000) as u64)
    }

    /// Whether a trace is among them.
    pub fn takes(self, trace: Trace) -> bool {
        let [.., a, b, c, d, e, f, g] = trace.id;
        u64::from_be_bytes([0, a, b, c, d, e, f, g]) < self.0
    }
}

fn fresh_span() -> [u8; 8] {
    fastrand::u64(1..).to_be_bytes()
}

/// In lower case, which is the only one (§3.2.2.1).
fn is_lower_hex(part: &[u8]) -> bool {
    part.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_and_a_child_is_of_the_same_trace() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Trace::parse(text.as_bytes()).unwrap();
        assert_eq!((trace.id[0], trace.span[1], trace.flags), (0x4b, 0xf0, 1));
        assert_eq!(trace.to_header(), text);
        assert_eq!(&trace.id_digits()[..], &text.as_bytes()[3..35]);
        let child = trace.child();
        assert_eq!((child.id, child.flags), (trace.id, 1));
        assert_ne!(child.span, trace.span);
        let begun = Trace::begin();
        assert_eq!(Trace::parse(begun.to_header().as_bytes()), Some(begun));
        assert_eq!(begun.flags, 0);
    }

    #[test]
    fn a_ratio_takes_its_share_by_the_last_seven_bytes() {
        let trace = |byte: u8, rest: u8| {
            let mut id = [rest; 16];
            id[..9].fill(0xff);
            id[9] = byte;
            Trace { id, span: [1; 8], flags: 0 }
        };
        for (share, taken) in [(0, 0), (1, 1), (2500, 64), (5000, 128), (10_000, 256)] {
            let is_taken = |byte: &u8| Ratio::of(share).takes(trace(*byte, 0));
            assert_eq!((0..=255).filter(is_taken).count(), taken, "{share}");
        }
        assert!(Ratio::of(10_000).takes(trace(0xff, 0xff)));
    }
}
