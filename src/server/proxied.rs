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

/// Reads the header that a connection begins with, and not one byte more. Nothing where the socket's
/// own addresses are the right ones.
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
