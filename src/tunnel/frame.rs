//! WebSocket frames (RFC 6455 §5.2), as far as somebody between two peers looks at them: where one
//! ends, and what it is. Payloads are neither read nor unmasked.

/// Longest close reason that fits in a control frame, in bytes (RFC 6455 §5.5).
const REASON_BYTES_MAX: usize = 123;

/// The header of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// 0 to 15.
    opcode: u8,
    is_final: bool,
    is_masked: bool,
    /// Bytes of the payload.
    payload: u64,
    /// Bytes of the header, the masking key included.
    length: u64,
}

impl Header {
    /// The header at the beginning of `bytes`; nothing while more of it is needed. The masking key
    /// need not be there.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (first, second) = (*bytes.first()?, *bytes.get(1)?);
        let (payload, length) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
            short => (u64::from(short), 2),
        };
        let is_masked = second & 0x80 != 0;
        let length = if is_masked { length + 4 } else { length };
        Some(Self { opcode: first & 0x0f, is_final: first & 0x80 != 0, is_masked, payload, length })
    }

    /// Bytes of the whole frame.
    pub(super) fn frame_bytes(&self) -> u64 {
        self.length.saturating_add(self.payload)
    }

    /// Bytes of the payload.
    pub(super) fn payload(&self) -> u64 {
        self.payload
    }

    /// Bytes of the header, the masking key included.
    pub(super) fn header_bytes(&self) -> u64 {
        self.length
    }

    /// Whether it is masked, as all of a client's are.
    pub(super) fn is_masked(&self) -> bool {
        self.is_masked
    }

    /// Whether it goes on with the message that was begun before.
    pub(super) fn is_continuation(&self) -> bool {
        self.opcode == 0
    }

    /// Close, Ping, Pong and those yet to be defined (RFC 6455 §5.5).
    pub(super) fn is_control(&self) -> bool {
        self.opcode & 0x8 != 0
    }

    /// Whether it ends the connection.
    pub(super) fn is_close(&self) -> bool {
        self.opcode == 0x8
    }

    /// What no peer may send, whatever was agreed on: a control frame in pieces or longer than 125
    /// bytes (RFC 6455 §5.5), a length beyond 63 bits (§5.2).
    pub(super) fn fault(&self) -> Option<&'static str> {
        if self.is_control() && !self.is_final {
            Some("a control frame in pieces")
        } else if self.is_control() && self.payload > 125 {
            Some("a control frame of more than 125 bytes")
        } else if self.payload >> 63 != 0 {
            Some("a length of more than 63 bits")
        } else {
            None
        }
    }
}

/// A Close frame (RFC 6455 §5.5.1), masked for a server.
pub(super) fn close(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let reason = reason.as_bytes();
    let reason = &reason[..reason.len().min(REASON_BYTES_MAX)];
    let payload = code.to_be_bytes().into_iter().chain(reason.iter().copied());
    let length = 2 + u8::try_from(reason.len()).unwrap_or_default();
    let mut frame = vec![0x88, length | if mask.is_some() { 0x80 } else { 0 }];
    match mask {
        None => frame.extend(payload),
        Some(mask) => {
            frame.extend(mask);
            frame.extend(payload.zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_when_it_is_whole() {
        for (bytes, payload, length) in [
            (&[0x81, 0x05][..], 5, 2),
            (&[0x81, 0x85], 5, 6),
            (&[0x82, 126, 1, 0], 256, 4),
            (&[0x82, 0xfe, 1, 0], 256, 8),
            (&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0], 65_536, 10),
            (&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0], 65_536, 14),
        ] {
            for end in 0..bytes.len() {
                assert_eq!(Header::read(&bytes[..end]), None, "{:?}", &bytes[..end]);
            }
            let header = Header::read(bytes).unwrap();
            assert_eq!((header.payload(), header.header_bytes()), (payload, length), "{bytes:?}");
            assert_eq!(header.frame_bytes(), payload + length);
            assert_eq!(header.is_masked(), bytes[1] & 0x80 != 0);
            assert_eq!(header.fault(), None);
        }
    }

    #[test]
    fn what_nobody_may_send_is_named() {
        for bytes in [
            &[0x09, 0][..],
            &[0x88, 126, 0, 126],
            &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0],
            &[0x8a, 127, 0, 0, 0, 0, 0, 0, 0, 1][..9],
        ] {
            let fault = Header::read(bytes).map(|header| header.fault());
            assert_ne!(fault, Some(None), "{bytes:?}");
        }
    }

    #[test]
    fn a_close_has_a_code_and_a_reason() {
        assert_eq!(close(1001, "bye", None), b"\x88\x05\x03\xe9bye");
        let masked = close(1001, "bye", Some([1, 2, 3, 4]));
        assert_eq!(masked, [0x88, 0x85, 1, 2, 3, 4, 3 ^ 1, 0xe9 ^ 2, b'b' ^ 3, b'y' ^ 4, b'e' ^ 1]);
        let header = Header::read(&close(1008, &"x".repeat(300), None)).unwrap();
        assert_eq!((header.payload(), header.fault(), header.is_close()), (125, None, true));
    }
}
