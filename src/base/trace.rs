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

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;
/// All values of the part of a trace's id that is random in any case (§2.3.1): its last 7 bytes.
const RANDOM_PART: u64 = 1 << 56;
/// A whole, in ten-thousandths.
const WHOLE: u64 = 10_000;

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

    /// Whether whoever began the trace records it.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same trace, recorded.
    #[must_use]
    pub fn sampled(self) -> Self {
        Self { flags: self.flags | SAMPLED, ..self }
    }

    /// Whether the trace is within this [share](Share) of all: whoever asks of the same trace
    /// hears the same, and what is within a share is within a larger one, too.
    pub fn is_within(self, share: Share) -> bool {
        let [.., b1, b2, b3, b4, b5, b6, b7] = self.id;
        u64::from_be_bytes([0, b1, b2, b3, b4, b5, b6, b7]) >= share.0
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

    /// The digits of the span's id.
    pub fn span_digits(self) -> [u8; 16] {
        let mut digits = [0; 16];
        hex::write(&mut digits, &self.span);
        digits
    }

    /// The digits of the trace's id.
    pub fn id_digits(self) -> [u8; 32] {
        let mut digits = [0; 32];
        hex::write(&mut digits, &self.id);
        digits
    }
}

/// A share of all traces: those whose random part is this or more (the rejection threshold of
/// OpenTelemetry's consistent probability sampling).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    /// So many of ten thousand traces.
    pub fn of(ten_thousandths: u16) -> Self {
        let left_out = WHOLE.saturating_sub(ten_thousandths.into());
        Self(RANDOM_PART / WHOLE * left_out + RANDOM_PART % WHOLE * left_out / WHOLE)
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
        assert!(trace.is_sampled() && !Trace::begin().is_sampled());
        assert_eq!(Trace { flags: 0b10, ..trace }.sampled().flags, 0b11);
        let begun = Trace::begin();
        assert_eq!(Trace::parse(begun.to_header().as_bytes()), Some(begun));
        assert_eq!(begun.flags, 0);
    }

    #[test]
    fn the_last_seven_bytes_of_an_id_decide() {
        let trace = |part: u64| Trace {
            id: (u128::from(u64::MAX) << 64 | u128::from(part)).to_be_bytes(),
            ..Trace::begin()
        };
        for (ten_thousandths, least) in
            [(10_000, 0), (5_000, 1 << 55), (500, 0xf3_3333_3333_3333), (1, 0xff_f972_4745_38ef)]
        {
            let share = Share::of(ten_thousandths);
            assert!(trace(least).is_within(share), "{ten_thousandths}");
            assert!(least == 0 || !trace(least - 1).is_within(share), "{ten_thousandths}");
            // The byte before does not count.
            assert!(trace(least | 0x5a << 56).is_within(share), "{ten_thousandths}");
        }
        assert!(!trace(u64::MAX).is_within(Share::of(0)));
    }
}
