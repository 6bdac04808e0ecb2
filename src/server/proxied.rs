//! What a balancer says of a connection before its first byte: headers of the PROXY protocol,
//! versions 1 and 2 (its specification is HAProxy's `proxy-protocol.txt`, of 2020/03/05).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What a header of version 1 begins with (§2.1), and of version 2 (§2.2).
const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Most bytes of a header of version 1, with its CRLF (§2.1).
const V1_BYTES_MAX: usize = 107;
/// Bytes of version 2 before its addresses: signature, version and command, family, length (§2.2).
const V2_FIXED_BYTES: usize = 16;
/// Most bytes of a header of version 2. Balancers send some hundred; the format has 64 KiB.
const V2_BYTES_MAX: usize = 4 * 1024;
/// The type of the TLV that has a checksum of the whole header (§2.2.3).
const TLV_CRC32C: u8 = 0x03;

/// The client of a connection, as its balancer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) source: IpAddr,
    /// The port that the client connected to.
    pub(super) destination_port: u16,
}

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    /// Its bytes; whatever follows is no part of it.
    length: usize,
    /// Nothing where the balancer speaks for itself, or does not know.
    told: Option<Told>,
}

/// Why there is no header.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("the connection was closed before its first byte")]
    Closed,
    #[error("the connection was closed within the PROXY header")]
    CutOff,
    #[error("no whole PROXY header came within server.limits.header_timeout")]
    TimedOut,
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    #[error("the PROXY header is malformed: {0}")]
    Malformed(&'static str),
}

impl Failure {
    /// The name in the metrics; nothing for a connection that was only tried, as health checks do.
    pub(super) fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Closed => None,
            Self::CutOff => Some("proxy_header_cut_off"),
            Self::TimedOut => Some("proxy_header_timeout"),
            Self::Missing => Some("proxy_header_missing"),
            Self::Malformed(_) => Some("proxy_header_malformed"),
        }
    }
}

/// Reads the header that a connection begins with, and not one byte more. Nothing where the
/// socket's own addresses are the right ones.
///
/// # Errors
/// There is no header that is whole and well formed before `deadline`.
pub(super) async fn receive(
    stream: &mut TcpStream,
    deadline: Instant,
) -> Result<Option<Told>, Failure> {
    let received = tokio::time::timeout_at(deadline, read(stream)).await;
    received.unwrap_or(Err(Failure::TimedOut))
}

async fn read(stream: &mut TcpStream) -> Result<Option<Told>, Failure> {
    let mut buffer = vec![0; V2_BYTES_MAX];
    let mut taken = 0;
    loop {
        // A look leaves what follows the header in the kernel. What is part of it is taken at once:
        // otherwise the next look would find it again, and not wait for more.
        let more = match stream.peek(&mut buffer[taken..]).await {
            Ok(0) | Err(_) if taken == 0 => return Err(Failure::Closed),
            Ok(0) | Err(_) => return Err(Failure::CutOff),
            Ok(more) => more,
        };
        let header = parse(&buffer[..taken + more])?;
        let end = header.map_or(taken + more, |header| header.length);
        let took = stream.read_exact(&mut buffer[taken..end]).await;
        took.map_err(|_| Failure::CutOff)?;
        taken = end;
        if let Some(header) = header {
            return Ok(header.told);
        }
    }
}

/// The header that `seen` begins with; nothing while more of it must come.
fn parse(seen: &[u8]) -> Result<Option<Header>, Failure> {
    let begins_as = |signature: &[u8]| seen.iter().zip(signature).all(|(a, b)| a == b);
    if begins_as(V2_SIGNATURE) {
        parse_v2(seen)
    } else if begins_as(V1_SIGNATURE) {
        parse_v1(seen)
    } else {
        Err(Failure::Missing)
    }
}

fn parse_v1(seen: &[u8]) -> Result<Option<Header>, Failure> {
    const ODD: Failure = Failure::Malformed("not `PROXY`, a family, two addresses, two ports");
    let line = &seen[..seen.len().min(V1_BYTES_MAX)];
    let Some(end) = line.windows(2).position(|two| two == b"\r\n") else {
        let is_over = line.len() == V1_BYTES_MAX;
        let long = Failure::Malformed("no end of the line within 107 bytes");
        return if is_over { Err(long) } else { Ok(None) };
    };
    let (length, line) = (end + 2, &line[..end]);
    let rest = line.strip_prefix(V1_SIGNATURE).ok_or(ODD)?;
    // What else stands there must be ignored.
    if rest == b"UNKNOWN" || rest.starts_with(b"UNKNOWN ") {
        return Ok(Some(Header { length, told: None }));
    }
    let words = std::str::from_utf8(rest).map_err(|_| ODD)?;
    let mut words = words.split(' ');
    let mut word = || words.next().ok_or(ODD);
    let (family, source, destination) = (word()?, word()?, word()?);
    let (source_port, destination_port) = (word()?, word()?);
    if words.next().is_some() {
        return Err(ODD);
    }
    let source = match family {
        "TCP4" => both::<Ipv4Addr>(source, destination)?.into(),
        "TCP6" => both::<Ipv6Addr>(source, destination)?.into(),
        _ => return Err(Failure::Malformed("an unknown family")),
    };
    port(source_port)?;
    let told = Told { source, destination_port: port(destination_port)? };
    Ok(Some(Header { length, told: Some(told) }))
}

/// The first of two addresses of the same family.
fn both<A: FromStr>(source: &str, destination: &str) -> Result<A, Failure> {
    const ODD: Failure = Failure::Malformed("what is no address of its family");
    destination.parse::<A>().map_err(|_| ODD)?;
    source.parse().map_err(|_| ODD)
}

/// Decimal, without zeros in front.
fn port(text: &str) -> Result<u16, Failure> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = is_number && (text == "0" || !text.starts_with('0'));
    let port = text.parse().ok().filter(|_| is_plain);
    port.ok_or(Failure::Malformed("what is no port"))
}

fn parse_v2(seen: &[u8]) -> Result<Option<Header>, Failure> {
    let Some(fixed) = seen.first_chunk::<V2_FIXED_BYTES>() else { return Ok(None) };
    let [.., version_and_command, family, high, low] = *fixed;
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    let speaks_for_itself = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Failure::Malformed("an unknown version or command")),
    };
    if length > V2_BYTES_MAX {
        return Err(Failure::Malformed("more than 4 KiB"));
    }
    let Some(whole) = seen.get(..length) else { return Ok(None) };
    // LOCAL: whatever else stands there must be discarded.
    let told = if speaks_for_itself { None } else { parse_v2_block(whole, family)? };
    Ok(Some(Header { length, told }))
}

/// What follows the length: addresses as `family` has them, and TLVs.
fn parse_v2_block(whole: &[u8], family: u8) -> Result<Option<Told>, Failure> {
    const SHORT: Failure = Failure::Malformed("shorter than its addresses");
    let block = &whole[V2_FIXED_BYTES..];
    match family {
        // Unspecified: the length of its addresses, and so the place of TLVs, is not known.
        0x00 => Ok(None),
        // TCP, and UDP: a balancer that speaks HTTP/3 to clients.
        0x11 | 0x12 => {
            let (addresses, tlvs) = block.split_first_chunk::<12>().ok_or(SHORT)?;
            check_tlvs(whole, tlvs)?;
            let [a, b, c, d, .., high, low] = *addresses;
            let source = Ipv4Addr::new(a, b, c, d).into();
            Ok(Some(Told { source, destination_port: u16::from_be_bytes([high, low]) }))
        }
        0x21 | 0x22 => {
            let (addresses, tlvs) = block.split_first_chunk::<36>().ok_or(SHORT)?;
            check_tlvs(whole, tlvs)?;
            let source = addresses.first_chunk::<16>().ok_or(SHORT)?;
            let [.., high, low] = *addresses;
            let source = Ipv6Addr::from(*source).into();
            Ok(Some(Told { source, destination_port: u16::from_be_bytes([high, low]) }))
        }
        // Of UNIX: two paths, which name nobody that could be counted.
        0x31 | 0x32 => {
            let (_, tlvs) = block.split_first_chunk::<216>().ok_or(SHORT)?;
            check_tlvs(whole, tlvs)?;
            Ok(None)
        }
        _ => Err(Failure::Malformed("an unknown family")),
    }
}

/// Whether `tlvs`, the end of `whole`, are well formed, and the checksum is right if there is one.
fn check_tlvs(whole: &[u8], tlvs: &[u8]) -> Result<(), Failure> {
    const OVERRUN: Failure = Failure::Malformed("a TLV beyond the end");
    let mut rest = tlvs;
    while !rest.is_empty() {
        let [kind, high, low, after @ ..] = rest else { return Err(OVERRUN) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, after) = after.split_at_checked(length).ok_or(OVERRUN)?;
        if *kind == TLV_CRC32C {
            let end = whole.len() - after.len();
            let sum = <[u8; 4]>::try_from(value).map(u32::from_be_bytes);
            // The four bytes of the sum itself count as zeros.
            let zeroed = whole.iter().enumerate().map(|(at, byte)| {
                let is_sum = (end - length..end).contains(&at);
                if is_sum { 0 } else { *byte }
            });
            if sum.ok() != Some(crc32c(zeroed)) {
                return Err(Failure::Malformed("a wrong checksum"));
            }
        }
        rest = after;
    }
    Ok(())
}

/// CRC32c (RFC 4960, appendix B). Bit by bit: a header is short, and read once for a connection.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            if sum & 1 == 1 { (sum >> 1) ^ POLYNOMIAL } else { sum >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn told(source: &str, destination_port: u16) -> Option<Told> {
        Some(Told { source: source.parse().unwrap(), destination_port })
    }

    /// A header of version 2.
    fn v2(version_and_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[version_and_command, family], &length, block].concat()
    }

    /// From 192.0.2.1 port 1 to 192.0.2.2 port 443, with these TLVs.
    fn ipv4(tlvs: &[u8]) -> Vec<u8> {
        let addresses = [192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 443_u16.to_be_bytes()[0], 187];
        v2(0x21, 0x11, &[&addresses[..], tlvs].concat())
    }

    /// The same with a right checksum, which is followed by an empty TLV.
    fn ipv4_with_checksum() -> Vec<u8> {
        let mut header = ipv4(&[TLV_CRC32C, 0, 4, 0, 0, 0, 0, 4, 0, 0]);
        let sum = crc32c(header.iter().copied());
        let at = header.len() - 7;
        header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn ipv6() -> Vec<u8> {
        let source: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let block = [&source.octets()[..], &[0; 16], &[0, 1, 31, 144], &[0xee, 0, 1, 7]].concat();
        v2(0x21, 0x21, &block)
    }

    /// Headers, and whom they name.
    fn good() -> Vec<(Vec<u8>, Option<Told>)> {
        let v1 = |line: &str| format!("PROXY {line}\r\n").into_bytes();
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let longest = format!("UNKNOWN {longest} {longest} 65535 65535");
        assert_eq!(v1(&longest).len(), V1_BYTES_MAX);
        vec![
            (v1("TCP4 192.0.2.1 10.0.0.1 56324 443"), told("192.0.2.1", 443)),
            (v1("TCP4 255.255.255.255 0.0.0.0 0 65535"), told("255.255.255.255", 65535)),
            (v1("TCP6 2001:db8::1 2001:DB8::A 1 8080"), told("2001:db8::1", 8080)),
            (v1("TCP6 2001:0db8:0:0:0:0:0:0001 ::ffff:1.2.3.4 1 1"), told("2001:db8::1", 1)),
            (v1("UNKNOWN"), None),
            (v1("UNKNOWN \u{ff}\r anything  at all \n"), None),
            (v1(&longest), None),
            (ipv4(b""), told("192.0.2.1", 443)),
            (ipv4_with_checksum(), told("192.0.2.1", 443)),
            (ipv6(), told("2001:db8::1", 8080)),
            (v2(0x21, 0x12, &[1; 12]), told("1.1.1.1", 0x0101)),
            (v2(0x21, 0x22, &[0; 36]), told("::", 0)),
            (v2(0x21, 0x31, &[b'/'; 216]), None),
            (v2(0x21, 0x00, b""), None),
            (v2(0x21, 0x00, b"whatever"), None),
            (v2(0x20, 0x00, b""), None),
            (v2(0x20, 0xff, b"whatever"), None),
            (v2(0x20, 0x11, &[0xff; V2_BYTES_MAX - V2_FIXED_BYTES]), None),
        ]
    }

    #[test]
    fn a_header_is_whole_at_its_last_byte() {
        for (header, told) in good() {
            for end in 0..header.len() {
                assert_eq!(parse(&header[..end]), Ok(None), "{end} of {header:?}");
            }
            let whole = Ok(Some(Header { length: header.len(), told }));
            assert_eq!(parse(&header), whole, "{header:?}");
            for rest in [&b"GET / HTTP/1.1\r\n"[..], &header, b"\x16\x03\x01"] {
                assert_eq!(parse(&[&header[..], rest].concat()), whole, "{header:?}");
            }
        }
    }

    #[test]
    fn odd_lines_of_version_1_are_refused() {
        for line in [
            "TCP4 192.0.2.1 10.0.0.1 1",
            "TCP4 192.0.2.1 10.0.0.1 1 2 ",
            "TCP4 192.0.2.1 10.0.0.1 1 2 3",
            "TCP4  192.0.2.1 10.0.0.1 1 2",
            " TCP4 192.0.2.1 10.0.0.1 1 2",
            "TCP4\t192.0.2.1 10.0.0.1 1 2",
            "tcp4 192.0.2.1 10.0.0.1 1 2",
            "TCP5 192.0.2.1 10.0.0.1 1 2",
            "TCP4 192.0.2.01 10.0.0.1 1 2",
            "TCP4 192.0.2.256 10.0.0.1 1 2",
            "TCP4 192.0.2 10.0.0.1 1 2",
            "TCP4 192.0.2.1 ::1 1 2",
            "TCP4 ::1 ::1 1 2",
            "TCP4 0xc0.0.2.1 10.0.0.1 1 2",
            "TCP6 192.0.2.1 10.0.0.1 1 2",
            "TCP6 ::1 10.0.0.1 1 2",
            "TCP6 ::1%eth0 ::1 1 2",
            "TCP6 [::1] ::1 1 2",
            "TCP6 12345::1 ::1 1 2",
            "TCP4 192.0.2.1 10.0.0.1 01 2",
            "TCP4 192.0.2.1 10.0.0.1 1 00",
            "TCP4 192.0.2.1 10.0.0.1 1 +2",
            "TCP4 192.0.2.1 10.0.0.1 -1 2",
            "TCP4 192.0.2.1 10.0.0.1 1 65536",
            "TCP4 192.0.2.1 10.0.0.1 1 f",
            "TCP4 192.0.2.1 10.0.0.1 1 2\n",
            "TCP4 192.0.2.1 10.0.0.1 1 2\0",
            "TCP4 192.0.2.\u{661} 10.0.0.1 1 2",
            "UNKNOWNS",
            "unknown",
            "",
        ] {
            let parsed = parse(format!("PROXY {line}\r\n").as_bytes());
            assert!(matches!(parsed, Err(Failure::Malformed(_))), "{line:?}: {parsed:?}");
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let mut wrong_sum = ipv4_with_checksum();
        wrong_sum[16] ^= 1;
        let long = (V2_BYTES_MAX - V2_FIXED_BYTES + 1).to_be_bytes();
        for header in [
            [b"PROXY UNKNOWN ", &[b' '; 93][..]].concat(),
            wrong_sum,
            ipv4(&[TLV_CRC32C, 0, 3, 0, 0, 0]),
            ipv4(&[TLV_CRC32C, 0, 0]),
            ipv4(&[1]),
            ipv4(&[1, 0]),
            ipv4(&[1, 0, 1]),
            ipv4(&[1, 0, 1, 7, 1, 0xff, 0xff]),
            v2(0x21, 0x11, b""),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x31, &[0; 215]),
            v2(0x21, 0x10, &[0; 12]),
            v2(0x21, 0x13, &[0; 12]),
            v2(0x21, 0x41, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x11, 0x11, &[0; 12]),
            v2(0x31, 0x11, &[0; 12]),
            // Refused by its length alone.
            [V2_SIGNATURE, &[0x20, 0], &long[6..]].concat(),
        ] {
            let parsed = parse(&header);
            assert!(matches!(parsed, Err(Failure::Malformed(_))), "{header:?}: {parsed:?}");
        }
        for other in
            [&b"GET / HTTP/1.1\r\n"[..], b"PROXY\t", b"proxy ", b"PRI", b"\x16\x03", b"\r\nG"]
        {
            assert_eq!(parse(other), Err(Failure::Missing), "{other:?}");
        }
    }

    #[test]
    fn the_checksum_is_the_standards() {
        // The check value of CRC-32C, and RFC 3720 B.4.
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
        assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
    }

    /// Bytes that begin like a header, or are one with some of them changed.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let begun = prop_oneof![
            Just(V1_SIGNATURE.to_vec()),
            Just(b"PROXY TCP4 ".to_vec()),
            Just([V2_SIGNATURE, &[0x21, 0x11, 0]].concat()),
            Just(V2_SIGNATURE.to_vec()),
        ];
        let more = prop_oneof![
            vec(any::<u8>(), 0..300),
            vec(prop::sample::select(b"01: .\r\nT".to_vec()), 0..120)
        ];
        let random = (begun, more).prop_map(|(begun, more)| [begun, more].concat());
        let headers: Vec<Vec<u8>> = good().into_iter().map(|(header, _)| header).collect();
        let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
        let changed = (prop::sample::select(headers), changes).prop_map(|(mut header, changes)| {
            for (at, byte) in changes {
                let at = at.index(header.len());
                header[at] = byte;
            }
            header
        });
        prop_oneof![random, changed]
    }

    proptest! {
        #[test]
        fn what_is_decided_stays_so(bytes in hostile()) {
            let mut decided = None;
            for end in 0..=bytes.len() {
                let parsed = parse(&bytes[..end]);
                if let Ok(Some(header)) = &parsed {
                    prop_assert!(header.length <= end && header.length <= V2_BYTES_MAX);
                }
                match &decided {
                    Some(decided) => prop_assert_eq!(decided, &parsed),
                    None if parsed == Ok(None) => prop_assert!(end < V2_BYTES_MAX),
                    None => {
                        // A whole header is known at its last byte, so nothing behind it is read.
                        if let Ok(Some(header)) = &parsed {
                            prop_assert_eq!(header.length, end);
                        }
                        decided = Some(parsed);
                    }
                }
            }
        }

        #[test]
        fn every_client_is_read(
            v4: u32, v6: u128, from: u16, to: u16, tlv in vec(any::<u8>(), 0..40),
        ) {
            for source in [IpAddr::from(Ipv4Addr::from(v4)), IpAddr::from(Ipv6Addr::from(v6))] {
                let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
                let line = format!("PROXY {family} {source} {source} {from} {to}\r\n");
                let octets = match source {
                    IpAddr::V4(v4) => v4.octets().to_vec(),
                    IpAddr::V6(v6) => v6.octets().to_vec(),
                };
                let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
                let mut block = [&octets[..], &octets, &ports].concat();
                block.extend([0xe0, 0, u8::try_from(tlv.len()).unwrap()]);
                block.extend(&tlv);
                let family = if source.is_ipv4() { 0x11 } else { 0x21 };
                for header in [line.into_bytes(), v2(0x21, family, &block)] {
                    let told = Some(Told { source, destination_port: to });
                    let whole = Header { length: header.len(), told };
                    prop_assert_eq!(parse(&header), Ok(Some(whole)));
                }
            }
        }
    }
}
