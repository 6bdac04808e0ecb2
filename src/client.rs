//! Who is calling: the peer, or the client that trusted proxies name.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderValue};
use ipnet::IpNet;

use crate::base::facts::{Client, ClientAddr, Peer};

/// Most hops that are read from a forwarding header; a longer chain is taken from its end.
const HOPS_MAX: usize = 32;

/// Whose forwarding headers are believed.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// `server.trusted_proxies`
    pub trusted: Vec<IpNet>,
}

impl Policy {
    /// Whether an address belongs to a trusted proxy.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&address))
    }
}

/// Names the client: the right-most address of the forwarding chain that no trusted proxy added
/// about itself.
pub fn identify(policy: &Policy, peer: &Peer, headers: &HeaderMap) -> Client {
    if policy.trusted.is_empty() || !policy.trusts(peer.address.ip()) {
        return Client { address: peer.address, via_trusted: false, scheme: "http" };
    }
    let mut address = peer.address.ip();
    for hop in chain(headers).into_iter().rev() {
        let Some(hop) = hop else { break };
        address = hop;
        if !policy.trusts(hop) {
            break;
        }
    }
    let proto = headers.get("x-forwarded-proto").map(HeaderValue::as_bytes);
    let scheme = if proto == Some(b"https") { "https" } else { "http" };
    Client { address: ClientAddr::new(address), via_trusted: true, scheme }
}

/// The hops of `X-Forwarded-For`, or of `Forwarded` (RFC 7239 §5.2) where there is none, oldest
/// first. `None` stands for a hop that is no address: nothing beyond it can be believed.
fn chain(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let mut hops: Vec<Option<IpAddr>> = Vec::new();
    for line in headers.get_all("x-forwarded-for") {
        hops.extend(line.to_str().unwrap_or("?").split(',').map(address));
    }
    if hops.is_empty() {
        for line in headers.get_all(FORWARDED) {
            for element in line.to_str().unwrap_or("?").split(',') {
                let node = element.split(';').find_map(|pair| {
                    let (name, value) = pair.trim().split_once('=')?;
                    name.eq_ignore_ascii_case("for").then_some(value)
                });
                hops.push(node.and_then(|node| address(node.trim().trim_matches('"'))));
            }
        }
    }
    let skip = hops.len().saturating_sub(HOPS_MAX);
    hops.split_off(skip)
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some(socket.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(peer: &str, headers: &[(&'static str, &str)], expected: &str) {
        let policy = Policy { trusted: vec!["10.0.0.0/8".parse().unwrap()] };
        let address = ClientAddr::new(peer.parse().unwrap());
        let peer = Peer::new(address, "127.0.0.1:80".parse().unwrap());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        assert_eq!(identify(&policy, &peer, &map).address.to_string(), expected, "{headers:?}");
    }

    #[test]
    fn a_stranger_cannot_name_itself() {
        check("192.0.2.9", &[("x-forwarded-for", "1.1.1.1")], "192.0.2.9");
        check("192.0.2.9", &[("forwarded", "for=1.1.1.1")], "192.0.2.9");
    }

    #[test]
    fn a_trusted_proxy_names_the_client() {
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &[("x-forwarded-for", "1.1.1.1")], "1.1.1.1");
        check("10.0.0.1", &[("x-forwarded-for", "6.6.6.6, 1.1.1.1, 10.0.0.2")], "1.1.1.1");
        check(
            "10.0.0.1",
            &[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.1.1.1")],
            "1.1.1.1",
        );
        check("10.0.0.1", &[("forwarded", "for=\"[2001:db8::7]:81\";proto=https")], "2001:db8::7");
        check("10.0.0.1", &[("x-forwarded-for", "6.6.6.6, unknown, 10.0.0.3")], "10.0.0.3");
        check("::ffff:10.0.0.1", &[("x-forwarded-for", "::ffff:1.1.1.1")], "1.1.1.1");
    }
}
