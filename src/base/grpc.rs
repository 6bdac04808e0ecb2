//! What gRPC asks of whoever stands between a client and a server (PROTOCOL-HTTP2.md of the gRPC
//! project).

use std::fmt::Write as _;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};

/// The field with the status of a call.
pub const GRPC_STATUS: &str = "grpc-status";
/// The field that explains it.
pub const GRPC_MESSAGE: &str = "grpc-message";
/// The field with the time that a client gives a call.
pub const GRPC_TIMEOUT: &str = "grpc-timeout";
/// The field that says when a call may be made again, in milliseconds (A6 of the gRPC project).
pub const GRPC_RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Length of what stands before each message: a flag and the message's length, in bytes.
const PREFIX_BYTES: u8 = 5;
/// Most digits of a `grpc-timeout`.
const TIMEOUT_DIGITS: usize = 8;
/// The largest number with so many digits.
const TIMEOUT_MAX: u128 = 99_999_999;
/// A longer time is as good as this one.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Whether a message is of a gRPC call: those need trailers, may rest, and get their errors as
/// `grpc-status`. gRPC-Web is another protocol.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(is_type)
}

/// Whether a `Content-Type` is that of a gRPC call.
pub fn is_type(content_type: &HeaderValue) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    let value = content_type.as_bytes();
    value.len() >= TYPE.len()
        && value[..TYPE.len()].eq_ignore_ascii_case(TYPE)
        && matches!(value.get(TYPE.len()), None | Some(b'+' | b';' | b' ' | b'\t'))
}

/// Removes from the trailers of a call what is no metadata: fields of the connection, of framing
/// and of the content (RFC 9110 §6.5.1), and cookies.
pub fn keep_metadata(fields: &mut HeaderMap) {
    const REFUSED: [&str; 14] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "set-cookie",
        "set-cookie2",
    ];
    for name in REFUSED {
        fields.remove(name);
    }
}

/// A text as `grpc-message` carries it: percent-encoded UTF-8.
pub fn encode_message(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    HeaderValue::try_from(encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The status of a call, where a head or trailers tell it.
pub fn status(fields: &HeaderMap) -> Option<u16> {
    fields.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// The status of a call whose answer was none of gRPC (http-grpc-status-mapping.md of the gRPC
/// project).
pub fn status_of_http(status: StatusCode) -> u16 {
    match status {
        StatusCode::UNAUTHORIZED => 16,
        StatusCode::FORBIDDEN => 7,
        StatusCode::NOT_FOUND => 12,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => 14,
        _ => 2,
    }
}

/// The status of a call whose HTTP/2 stream was reset with this code (PROTOCOL-HTTP2.md of the gRPC
/// project; RFC 9113 §7).
pub fn status_of_reset(code: u32) -> u16 {
    const REFUSED_STREAM: u32 = 7;
    const CANCEL: u32 = 8;
    const ENHANCE_YOUR_CALM: u32 = 11;
    const INADEQUATE_SECURITY: u32 = 12;
    match code {
        REFUSED_STREAM => 14,
        CANCEL => 1,
        ENHANCE_YOUR_CALM => 8,
        INADEQUATE_SECURITY => 7,
        _ => 13,
    }
}

/// The time that a client gives a call: 1 to 8 digits and a unit. What is malformed is none.
pub fn parse_timeout(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    let is_number = (1..=TIMEOUT_DIGITS).contains(&digits.len());
    if !is_number || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let timeout = match unit {
        b'H' => Duration::from_secs(number * 60 * 60),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    };
    Some(timeout.min(LONGEST))
}

/// What is left of a call's time, rounded down: a server that gives up is to do so before its
/// client. At least 1 ms, as zero means nothing.
pub fn write_timeout(left: Duration) -> HeaderValue {
    let ms = left.as_millis().max(1);
    let text = if ms <= TIMEOUT_MAX { format!("{ms}m") } else { format!("{}S", ms / 1000) };
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("1m"))
}

/// A message is longer than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageTooLarge;

/// Follows the messages of a body by what stands before each: a flag and the length.
#[derive(Debug)]
pub struct Messages {
    bytes_max: u64,
    /// How much of a prefix is read.
    at: u8,
    length: u32,
    /// How much of a message is still to come.
    left: u32,
}

impl Messages {
    /// Messages of at most so many bytes each, compressed or not.
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max, at: 0, length: 0, left: 0 }
    }

    /// Reads the next part of the body.
    ///
    /// # Errors
    /// A message in it is too long.
    pub fn read(&mut self, mut data: &[u8]) -> Result<(), MessageTooLarge> {
        while let Some((&byte, rest)) = data.split_first() {
            if self.left > 0 {
                let here = data.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= u32::try_from(here).unwrap_or(self.left);
                data = &data[here..];
                continue;
            }
            if self.at > 0 {
                self.length = self.length << 8 | u32::from(byte);
            }
            self.at += 1;
            data = rest;
            if self.at == PREFIX_BYTES {
                if u64::from(self.length) > self.bytes_max {
                    return Err(MessageTooLarge);
                }
                (self.left, self.length, self.at) = (self.length, 0, 0);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
