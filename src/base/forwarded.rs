//! Lists of forwarding fields, read from their end.
//!
//! Each proxy appends to what it was given, so trust ends somewhere on the way from the last
//! element to the first, and what a client wrote itself stands further left. Reading from the
//! right, nothing that stands there can hide what a proxy appended: a quotation mark that is never
//! closed takes its own element along, and no other.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::header::{AsHeaderName, HeaderMap};

/// The elements of a list field, the last one first. Several lines are one list (RFC 9110 §5.3),
/// and empty elements are none (§5.6.1).
pub fn elements(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(name).iter().rev();
    let elements = lines.flat_map(|line| parts(line.as_bytes(), b','));
    elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// The parts of `text` between separators that stand in no quoted string, the last one first.
fn parts(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let mut is_quoted = false;
        for (at, byte) in text.iter().enumerate().rev() {
            let (before, from) = text.split_at(at);
            if *byte == b'"' && !ends_in_escape(before) {
                is_quoted = !is_quoted;
            } else if *byte == separator && !is_quoted {
                rest = Some(before);
                return from.get(1..);
            }
        }
        Some(text)
    })
}

/// Whether what follows `text` is escaped (RFC 9110 §5.6.4).
fn ends_in_escape(text: &[u8]) -> bool {
    text.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// What one element of `Forwarded` says (RFC 7239 §4).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Element<'h> {
    /// `for`: who sent the request to the proxy that wrote this.
    pub node: Option<Cow<'h, str>>,
    /// `host`: the `Host` that the proxy got.
    pub host: Option<Cow<'h, str>>,
    /// `proto`: the scheme in which it got it.
    pub scheme: Option<Cow<'h, str>>,
}

/// Reads one element; nothing when it is malformed or says one thing twice.
pub fn element(text: &[u8]) -> Option<Element<'_>> {
    let mut said = Element::default();
    for pair in parts(text, b';').map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()) {
        let pair = std::str::from_utf8(pair).ok()?;
        let (name, value) = pair.split_once('=')?;
        let (name, value) = (name.trim_end(), unquoted(value.trim_start())?);
        let slot = match name {
            _ if name.eq_ignore_ascii_case("for") => &mut said.node,
            _ if name.eq_ignore_ascii_case("host") => &mut said.host,
            _ if name.eq_ignore_ascii_case("proto") => &mut said.scheme,
            _ => continue,
        };
        if slot.replace(value).is_some() {
            return None;
        }
    }
    Some(said)
}

/// The value of a token or of a quoted string; nothing for half of one.
fn unquoted(text: &str) -> Option<Cow<'_, str>> {
    let Some(inner) = text.strip_prefix('"') else {
        return (!text.contains('"')).then_some(text.into());
    };
    let inner = inner.strip_suffix('"')?;
    if !inner.contains(['"', '\\']) {
        return Some(inner.into());
    }
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return None,
            '\\' => plain.push(characters.next()?),
            _ => plain.push(character),
        }
    }
    Some(plain.into())
}

/// The address of a node (RFC 7239 §6): `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`,
/// `[2001:db8::1]`, `[2001:db8::1]:80`; the port may be obfuscated. `unknown` and obfuscated
/// identifiers are none.
pub fn address(node: &str) -> Option<IpAddr> {
    let node = node.trim();
    if let Ok(address) = node.parse() {
        return Some(address);
    }
    let (address, port): (IpAddr, _) = match node.strip_prefix('[') {
        Some(inner) => {
            let (address, rest) = inner.split_once(']')?;
            let address: Ipv6Addr = address.parse().ok()?;
            if rest.is_empty() {
                return Some(address.into());
            }
            (address.into(), rest.strip_prefix(':')?)
        }
        None => {
            let (address, port) = node.split_once(':')?;
            (address.parse::<Ipv4Addr>().ok()?.into(), port)
        }
    };
    let is_obfuscated = |name: &str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        !name.is_empty() && name.bytes().all(known)
    };
    let digits = (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
    (digits || port.strip_prefix('_').is_some_and(is_obfuscated)).then_some(address)
}

/// A scheme that clients use, in the one spelling; schemes are case-insensitive (RFC 3986 §3.1).
pub fn scheme(text: &[u8]) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|known| text.eq_ignore_ascii_case(known.as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn list(lines: &[&str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("forwarded", HeaderValue::from_str(line).unwrap());
        }
        let text = |element: &[u8]| String::from_utf8_lossy(element).into_owned();
        elements(&headers, "forwarded").map(text).collect()
    }

    #[test]
    fn a_list_is_read_from_its_end() {
        assert_eq!(list(&["a, b ,c", "", " , d,,"]), ["d", "c", "b", "a"]);
        assert_eq!(list(&[r#"for="_a,b;c\", d", for=e"#]), ["for=e", r#"for="_a,b;c\", d""#]);
        // Whatever a client wrote on the left, it swallows nothing that was appended.
        for written in ["for=\"", "for=\"a", "for=\\", "\"", "\\\"", "for=\"\\\\\\\""] {
            for appended in ["for=1.2.3.4", "for=\"[2001:db8::1]:80\";proto=https"] {
                let found = list(&[&format!("{written}, {appended}")]);
                assert_eq!(found[0], appended, "{written}");
            }
        }
    }

    #[test]
    fn an_element_says_each_thing_once() {
        let said = |text: &str| {
            let said = element(text.as_bytes())?;
            let show = |part: Option<Cow<'_, str>>| part.unwrap_or("-".into()).into_owned();
            Some([show(said.node), show(said.host), show(said.scheme)].join(" "))
        };
        for (text, expected) in [
            ("for=1.2.3.4;proto=https", Some("1.2.3.4 - https")),
            ("FOR=\"[::1]:80\" ; Host=\"a:81\"; pRoto=HTTPS;by=x", Some("[::1]:80 a:81 HTTPS")),
            (r#"for="_a,b;c\"d\\";host=a"#, Some(r#"_a,b;c"d\ a -"#)),
            (";;for=a;", Some("a - -")),
            ("proto=http", Some("- - http")),
            ("for=a;for=b", None),
            ("proto=http;for=a;Proto=https", None),
            ("for=\"a", None),
            ("for=a\"", None),
            ("for=\"a\"b\"", None),
            ("for", None),
        ] {
            assert_eq!(said(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_node_is_an_address_or_none() {
        for (node, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            (" 192.0.2.1:8080 ", Some("192.0.2.1")),
            ("192.0.2.1:_hidden", Some("192.0.2.1")),
            ("2001:DB8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:80", Some("2001:db8::1")),
            ("[2001:db8::1]:_p.1", Some("2001:db8::1")),
            ("unknown", None),
            ("_hidden", None),
            ("_1.2.3.4", None),
            ("192.0.2.1:", None),
            ("192.0.2.1:x", None),
            ("192.0.2.1:123456", None),
            ("192.0.2", None),
            ("0300.0.2.1", None),
            ("[192.0.2.1]", None),
            ("[2001:db8::1", None),
            ("[2001:db8::1]80", None),
            ("[fe80::1%eth0]", None),
            ("", None),
        ] {
            assert_eq!(address(node).map(|a| a.to_string()).as_deref(), expected, "{node}");
        }
    }

    proptest! {
        #[test]
        fn nothing_hides_what_was_appended(written in r#"[ -~]{0,24}"#, quoted in any::<bool>()) {
            let appended = if quoted { "for=\"[::1]\";proto=https" } else { "for=1.2.3.4" };
            let found = list(&[&format!("{written}, {appended}")]);
            prop_assert_eq!(&found[0], appended);
            for text in found {
                let _ = element(text.as_bytes());
            }
        }
    }
}
