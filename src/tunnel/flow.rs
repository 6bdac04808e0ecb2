//! The frames of one direction: where they end, how many messages they are, and whether they keep
//! to the rules. No byte of a frame passes before its header was judged.

use tokio::time::Instant;

use super::frame::Header;
use super::pace::{MessagePace, TooEarly};
use crate::config;

/// What the frames of one direction must keep to.
#[derive(Debug, Default)]
pub(super) struct FlowRules {
    /// Whether a frame must be masked (RFC 6455 §5.1).
    pub(super) masked: bool,
    /// Longest message, in bytes.
    message_bytes: Option<u64>,
    pace: Option<MessagePace>,
}

impl FlowRules {
    /// What a client must keep to.
    pub(super) fn of_client(tunnel: &config::Tunnel) -> Self {
        let pace = tunnel.messages.as_ref().map(MessagePace::new);
        Self { masked: true, message_bytes: tunnel.message_bytes, pace }
    }
}

/// Why a frame may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its message is longer than `message_bytes`.
    TooLarge,
    /// There were more than `messages` for too long.
    TooMany,
    /// It breaks the protocol.
    Malformed(&'static str),
}

/// What may pass of the bytes that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// So many.
    Pass(usize),
    /// None before there are more.
    More,
    /// None before then.
    Wait(Instant),
    /// None; they are the beginning of a frame that was refused.
    Refuse(Refusal),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Flow {
    rules: FlowRules,
    /// Bytes of the current frame that are to come.
    left: u64,
    /// Bytes of the current message.
    message: u64,
    /// Bytes of the headers of its frames but the first: pieces without content are not free.
    pieces: u64,
    /// Messages that were begun.
    messages: u64,
    is_closing: bool,
}

impl Flow {
    pub(super) fn new(rules: FlowRules) -> Self {
        Self { rules, left: 0, message: 0, pieces: 0, messages: 0, is_closing: false }
    }

    /// Whether everything that passed was whole frames.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.left == 0
    }

    /// Whether a Close has passed, or its beginning.
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Messages that were begun.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// The rest of the current frame, as far as it is here.
    pub(super) fn rest(&mut self, bytes: &[u8]) -> usize {
        let rest = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.left -= rest as u64;
        rest
    }

    /// How many of `bytes`, which follow those that passed, may pass too.
    pub(super) fn judge(&mut self, bytes: &[u8], now: Instant) -> Verdict {
        let mut passed = 0;
        loop {
            passed += self.rest(&bytes[passed..]);
            let verdict = match Header::read(&bytes[passed..]) {
                None => Verdict::More,
                Some(header) => match self.admit(&header, now) {
                    Ok(()) => {
                        self.left = header.frame_bytes();
                        continue;
                    }
                    Err(verdict) => verdict,
                },
            };
            return if passed > 0 { Verdict::Pass(passed) } else { verdict };
        }
    }

    /// Lets everything go that is a frame, and looks for a Close alone.
    pub(super) fn skip(&mut self, bytes: &[u8]) -> usize {
        let mut skipped = 0;
        loop {
            skipped += self.rest(&bytes[skipped..]);
            let Some(header) = Header::read(&bytes[skipped..]) else { return skipped };
            self.is_closing |= header.is_close();
            self.left = header.frame_bytes();
        }
    }

    /// May this frame pass? It is counted then.
    fn admit(&mut self, header: &Header, now: Instant) -> Result<(), Verdict> {
        let Self { rules, .. } = self;
        if rules.masked {
            let unmasked = (!header.is_masked()).then_some("a client's frame without a mask");
            if let Some(fault) = header.fault().or(unmasked) {
                return Err(Verdict::Refuse(Refusal::Malformed(fault)));
            }
        }
        let (message, pieces) = if header.is_continuation() {
            (self.message.saturating_add(header.payload()), self.pieces + header.header_bytes())
        } else {
            (header.payload(), 0)
        };
        if rules.message_bytes.is_some_and(|max| message > max || pieces > max) {
            return Err(Verdict::Refuse(Refusal::TooLarge));
        }
        if let Some(pace) = rules.pace.as_mut().filter(|_| !header.is_continuation()) {
            pace.pass(now).map_err(|early| match early {
                TooEarly::Until(until) => Verdict::Wait(until),
                TooEarly::TooOften => Verdict::Refuse(Refusal::TooMany),
            })?;
        }
        if !header.is_control() {
            (self.message, self.pieces) = (message, pieces);
            self.messages += u64::from(!header.is_continuation());
        }
        self.is_closing |= header.is_close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::base::units::Rate;

    fn client(message_bytes: Option<u64>, messages: Option<Rate>) -> Flow {
        let tunnel = config::Tunnel { message_bytes, messages, ..config::Tunnel::default() };
        Flow::new(FlowRules::of_client(&tunnel))
    }

    /// A masked frame.
    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match payload {
            0..126 => frame.push(0x80 | payload as u8),
            126..65_536 => {
                frame.push(0xfe);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(0xff);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.extend([7; 4]);
        frame.resize(frame.len() + payload, 0xa5);
        frame
    }

    /// Feeds `bytes` in pieces that end at `cuts`: what passed, and what ended it.
    fn feed(flow: &mut Flow, bytes: &[u8], cuts: &[usize]) -> (usize, Verdict) {
        let (now, mut passed) = (Instant::now(), 0);
        for end in cuts.iter().copied().chain([bytes.len()]) {
            loop {
                match flow.judge(&bytes[passed..end], now) {
                    Verdict::Pass(more) => passed += more,
                    Verdict::More => break,
                    other => return (passed, other),
                }
            }
        }
        (passed, Verdict::More)
    }

    fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let kind = prop_oneof![Just(0x81), Just(0x82), Just(0x01), Just(0x80), Just(0x00)];
        let data = (kind, prop_oneof![0usize..130, 65_530usize..65_540]);
        let control = (prop_oneof![Just(0x89), Just(0x8a), Just(0xc1)], 0usize..126);
        let frame = prop_oneof![data, control].prop_map(|(first, payload)| frame(first, payload));
        prop::collection::vec(frame, 0..6)
    }

    proptest! {
        #[test]
        fn whole_frames_pass_wherever_they_are_cut(
            frames in frames(),
            mut cuts in prop::collection::vec(0usize..140_000, 0..8),
        ) {
            let bytes = frames.concat();
            cuts.retain(|cut| *cut <= bytes.len());
            cuts.sort_unstable();
            let mut flow = client(None, None);
            prop_assert_eq!(feed(&mut flow, &bytes, &cuts), (bytes.len(), Verdict::More));
            prop_assert!(flow.is_at_boundary());
            let begun = frames.iter().filter(|frame| matches!(frame[0] & 0xf, 1 | 2)).count();
            prop_assert_eq!(flow.messages(), begun as u64);
        }
    }

    #[test]
    fn nothing_of_a_refused_frame_passes_wherever_it_is_cut() {
        let good = frame(0x81, 200);
        for (bad, refusal) in [
            (frame(0x81, 1001), Refusal::TooLarge),
            (b"\x81\x05hello".to_vec(), Refusal::Malformed("a client's frame without a mask")),
            (frame(0x09, 3), Refusal::Malformed("a control frame in pieces")),
            (frame(0x89, 126), Refusal::Malformed("a control frame of more than 125 bytes")),
        ] {
            let bytes = [good.clone(), bad].concat();
            for cut in 0..bytes.len() {
                let ended = feed(&mut client(Some(1000), None), &bytes, &[cut]);
                assert_eq!(ended, (good.len(), Verdict::Refuse(refusal)), "{cut}");
            }
        }
    }

    #[test]
    fn a_message_is_as_long_as_its_pieces() {
        let whole = [frame(0x01, 600), frame(0x89, 10), frame(0x80, 400)].concat();
        let ended = feed(&mut client(Some(1000), None), &whole, &[]);
        assert_eq!(ended, (whole.len(), Verdict::More));
        let longer = [frame(0x01, 600), frame(0x00, 400), frame(0x80, 1)].concat();
        let ended = feed(&mut client(Some(1000), None), &longer, &[]);
        assert_eq!(ended.1, Verdict::Refuse(Refusal::TooLarge));
        let endless: Vec<u8> = std::iter::once(frame(0x01, 0))
            .chain((0..10_000).map(|_| frame(0x00, 0)))
            .flatten()
            .collect();
        let (passed, verdict) = feed(&mut client(Some(1000), None), &endless, &[]);
        assert_eq!(verdict, Verdict::Refuse(Refusal::TooLarge));
        assert!(passed < 1010, "{passed}");
    }

    #[test]
    fn messages_too_early_wait_at_a_boundary() {
        let rate = Rate { limit: 2, window: Duration::from_secs(10) };
        let bytes = [frame(0x01, 5), frame(0x80, 5), frame(0x81, 5), frame(0x81, 5)].concat();
        let (passed, verdict) = feed(&mut client(None, Some(rate)), &bytes, &[]);
        assert_eq!(passed, bytes.len() - frame(0x81, 5).len());
        assert!(matches!(verdict, Verdict::Wait(_)), "{verdict:?}");
    }

    #[test]
    fn a_close_is_seen_also_in_what_is_skipped() {
        let bytes = [frame(0x81, 5), frame(0x88, 2)].concat();
        let mut flow = client(None, None);
        assert_eq!(flow.skip(&bytes[..12]), 11);
        assert!(!flow.is_closing());
        assert_eq!(flow.skip(&bytes[11..]), bytes.len() - 11);
        assert!(flow.is_closing() && flow.is_at_boundary());
    }
}
