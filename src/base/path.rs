//! The canonical path: one spelling for matching, authorisation, limits, cache and upstream (RFC
//! 3986 §6.2.2).
//!
//! Unreserved characters are decoded, other escapes get upper-case digits, dot segments are
//! resolved, slashes merged. An escape that some upstream would read as a separator or an end (`%2F
//! %5C %00 %0A %0D`) is refused, like a raw backslash or control character, and like a dot segment
//! with a parameter (`..;x`): servlet containers take the parameter away first, and then climb. The
//! query is kept byte for byte. What is canonical is its own canonical spelling.

use http::uri::PathAndQuery;

/// The canonical spelling, or what was wrong. `encoded_slash` keeps `%2F`.
pub fn canonical(given: &PathAndQuery, encoded_slash: bool) -> Result<PathAndQuery, &'static str> {
    if is_canonical(given.path().as_bytes()) {
        return Ok(given.clone());
    }
    let decoded = decode(given.path().as_bytes(), encoded_slash)?;
    decoded.split('/').try_for_each(check_dots)?;
    let mut text = resolve(&decoded);
    if let Some(query) = given.query() {
        text.push('?');
        text.push_str(query);
    }
    PathAndQuery::try_from(text).map_err(|_| "a character that no path may hold")
}

/// Whether a path is plain enough that there is nothing to do; the common case, without an
/// allocation.
fn is_canonical(path: &[u8]) -> bool {
    let mut previous = 0u8;
    for &byte in path {
        let plain = is_unreserved(byte) || is_plain_delimiter(byte);
        let dot_segment = previous == b'/' && byte == b'.';
        let slash = byte == b'/' && previous != b'/';
        if !(plain && !dot_segment || slash) {
            return false;
        }
        previous = byte;
    }
    path.first() == Some(&b'/')
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Sub-delimiters and the two others that a path segment may hold (RFC 3986 §3.3).
fn is_plain_delimiter(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
    )
}

/// Makes every escape canonical; escapes what must not stand raw.
fn decode(path: &[u8], encoded_slash: bool) -> Result<String, &'static str> {
    let mut out = String::with_capacity(path.len() + 8);
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        at += 1;
        if byte != b'%' {
            match byte {
                b'\\' => return Err("a backslash"),
                0..=0x1F | 0x7F => return Err("a control character"),
                b'/' => out.push('/'),
                _ if is_unreserved(byte) || is_plain_delimiter(byte) => out.push(char::from(byte)),
                _ => push_escape(&mut out, byte),
            }
            continue;
        }
        let digits = path.get(at..at + 2).and_then(|two| {
            let text = std::str::from_utf8(two).ok()?;
            // from_str_radix would accept a sign.
            if text.bytes().all(|b| b.is_ascii_hexdigit()) {
                u8::from_str_radix(text, 16).ok()
            } else {
                None
            }
        });
        let decoded = digits.ok_or("a percent sign without two hexadecimal digits")?;
        at += 2;
        match decoded {
            0 => return Err("%00"),
            b'\n' => return Err("%0A"),
            b'\r' => return Err("%0D"),
            b'\\' => return Err("%5C"),
            b'/' if !encoded_slash => return Err("%2F (server.limits.encoded_slash allows it)"),
            _ if is_unreserved(decoded) => out.push(char::from(decoded)),
            _ => push_escape(&mut out, decoded),
        }
    }
    Ok(out)
}

/// Refuses a dot segment with a parameter, also behind an encoded slash: who takes the parameter
/// away reads a dot segment, which [`resolve`] does not.
fn check_dots(segment: &str) -> Result<(), &'static str> {
    for piece in segment.split("%2F") {
        let rest = piece.strip_prefix("..").or_else(|| piece.strip_prefix('.')).unwrap_or(piece);
        if rest.len() < piece.len() && (rest.starts_with(';') || rest.starts_with("%3B")) {
            return Err("a dot segment with a parameter (`..;`)");
        }
    }
    Ok(())
}

fn push_escape(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

/// Removes dot segments (RFC 3986 §5.2.4) and merges slashes. A path cannot climb above its root.
fn resolve(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_directory = false;
    for segment in path.split('/') {
        ends_in_directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len() + 1);
    for segment in &segments {
        out.push('/');
        out.push_str(segment);
    }
    if ends_in_directory || out.is_empty() {
        out.push('/');
    }
    out
}
