//! Who is calling: the peer, or the client that trusted proxies name.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::FORWARDED;
use ipnet::IpNet;

use crate::base::facts::{Client, ClientAddr, ForwardingFields, Peer, Via};
use crate::base::forwarded::{self, address, element, elements};
use crate::base::http::authority::Authority;

/// Most hops that are read from a forwarding header; a longer chain is taken from its end.
const HOPS_MAX: usize = 32;

/// Whose forwarding headers are believed.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// `server.trusted_proxies`
    pub trusted: Vec<IpNet>,
    /// `server.forwarded`
    pub fields: ForwardingFields,
}

impl Policy {
    /// Whether an address belongs to a trusted proxy.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&address))
    }
}

/// Names the client: the right-most address of the forwarding chain that no trusted proxy added
/// about itself, and the scheme and the host that stand beside it.
pub fn identify(policy: &Policy, peer: &Peer, headers: &HeaderMap) -> Client {
    if policy.trusted.is_empty() || !policy.trusts(peer.address.ip()) {
        return Client { address: peer.address, scheme: peer.scheme(), via: None };
    }
    let chain = match policy.fields {
        ForwardingFields::XForwarded => x_forwarded(policy, peer, headers),
        ForwardingFields::Forwarded => forwarded(policy, peer, headers),
    };
    let Chain { address, scheme, host, proxies } = chain;
    let via = Via { fields: policy.fields, host, proxies };
    Client { address, scheme: scheme.unwrap_or(peer.scheme()), via: Some(Box::new(via)) }
}

/// The way of a request through trusted proxies, as far as it is known.
struct Chain {
    /// Who the last of them that is known says is its client; the peer before it said anything.
    address: ClientAddr,
    scheme: Option<&'static str>,
    host: Option<Authority>,
    proxies: Vec<ClientAddr>,
}

impl Chain {
    fn of(peer: &Peer) -> Self {
        Self { address: peer.address, scheme: None, host: None, proxies: Vec::new() }
    }

    /// One step away from the gateway. Whether the step leads to another trusted proxy, so that its
    /// word counts too. What is no address leads nowhere: nothing beyond it can be believed.
    fn steps_to(&mut self, policy: &Policy, node: Option<IpAddr>) -> bool {
        let Some(node) = node.map(ClientAddr::new) else { return false };
        self.proxies.push(self.address);
        self.address = node;
        policy.trusts(node.ip())
    }
}

fn x_forwarded(policy: &Policy, peer: &Peer, headers: &HeaderMap) -> Chain {
    const FOR: &str = "x-forwarded-for";
    let mut chain = Chain::of(peer);
    let mut steps = 0;
    for node in elements(headers, FOR).take(HOPS_MAX) {
        let node = std::str::from_utf8(node).ok().and_then(address);
        steps += 1;
        if !chain.steps_to(policy, node) {
            break;
        }
    }
    // A proxy appends to all of these lists, or it sets one value for the whole chain. Of any other
    // list the last value is the one that the peer vouches for.
    let beside = |name: &str| match elements(headers, name).count() {
        count if count == elements(headers, FOR).count() => {
            elements(headers, name).nth(steps.max(1) - 1)
        }
        _ => elements(headers, name).next(),
    };
    chain.scheme = beside("x-forwarded-proto").and_then(forwarded::scheme);
    chain.host = beside("x-forwarded-host").and_then(Authority::parse);
    chain
}

fn forwarded(policy: &Policy, peer: &Peer, headers: &HeaderMap) -> Chain {
    let mut chain = Chain::of(peer);
    for text in elements(headers, FORWARDED).take(HOPS_MAX) {
        let said = element(text).unwrap_or_default();
        chain.scheme = said.scheme.and_then(|scheme| forwarded::scheme(scheme.as_bytes()));
        chain.host = said.host.and_then(|host| Authority::parse(host.as_bytes()));
        if !chain.steps_to(policy, said.node.as_deref().and_then(address)) {
            break;
        }
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Address, scheme and host of the client behind `peer`.
    fn named(fields: ForwardingFields, peer: &str, headers: &[(&'static str, &str)]) -> String {
        let policy = Policy { trusted: vec!["10.0.0.0/8".parse().unwrap()], fields };
        let address = ClientAddr::new(peer.parse().unwrap());
        let peer = Peer::new(address, "127.0.0.1:80".parse().unwrap(), None);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let client = identify(&policy, &peer, &map);
        let host = client.via.as_ref().and_then(|via| via.host.as_ref());
        format!("{} {} {}", client.address, client.scheme, host.map_or("-", Authority::as_str))
    }

    fn x(peer: &str, headers: &[(&'static str, &str)], expected: &str) {
        assert_eq!(named(ForwardingFields::XForwarded, peer, headers), expected, "{headers:?}");
    }

    fn f(peer: &str, headers: &[(&'static str, &str)], expected: &str) {
        assert_eq!(named(ForwardingFields::Forwarded, peer, headers), expected, "{headers:?}");
    }

    #[test]
    fn a_stranger_cannot_name_itself() {
        for family in [x, f] {
            family("192.0.2.9", &[("x-forwarded-for", "1.1.1.1")], "192.0.2.9 http -");
            family("192.0.2.9", &[("x-forwarded-proto", "https")], "192.0.2.9 http -");
            let told = "for=1.1.1.1;proto=https;host=a";
            family("192.0.2.9", &[("forwarded", told)], "192.0.2.9 http -");
            family("10.0.0.1", &[], "10.0.0.1 http -");
        }
    }

    #[test]
    fn one_family_is_believed_and_the_other_is_nothing() {
        let (plain, fancy) = ("1.1.1.1", "for=2.2.2.2;proto=https;host=two");
        let both = [("x-forwarded-for", plain), ("forwarded", fancy), ("x-forwarded-host", "one")];
        x("10.0.0.1", &both, "1.1.1.1 http one");
        f("10.0.0.1", &both, "2.2.2.2 https two");
        x("10.0.0.1", &[("forwarded", fancy)], "10.0.0.1 http -");
        let plain = [("x-forwarded-for", plain), ("x-forwarded-proto", "https")];
        f("10.0.0.1", &plain, "10.0.0.1 http -");
    }

    #[test]
    fn x_forwarded_of_a_trusted_proxy() {
        let chain = |chain: &str, expected: &str| {
            x("10.0.0.1", &[("x-forwarded-for", chain)], &format!("{expected} http -"));
        };
        chain("1.1.1.1", "1.1.1.1");
        chain("6.6.6.6, 1.1.1.1, 10.0.0.2", "1.1.1.1");
        chain("6.6.6.6, unknown, 10.0.0.3", "10.0.0.3");
        chain(", 1.1.1.1 ,", "1.1.1.1");
        chain(",,", "10.0.0.1");
        chain("10.0.0.3, 10.0.0.2", "10.0.0.3");
        chain("1.1.1.1:4711", "1.1.1.1");
        let lines = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.1.1.1, ")];
        x("10.0.0.1", &lines, "1.1.1.1 http -");
        x("::ffff:10.0.0.1", &[("x-forwarded-for", "::ffff:1.1.1.1")], "1.1.1.1 http -");
        let beside = |chain: &str, proto: &str, expected: &str| {
            let fields = [("x-forwarded-for", chain), ("x-forwarded-proto", proto)];
            x("10.0.0.1", &fields, &format!("{expected} -"));
        };
        beside("1.1.1.1", "HTTPS", "1.1.1.1 https");
        beside("1.1.1.1, 10.0.0.2", ", Https ,", "1.1.1.1 https");
        // One value for each hop: the one beside the client counts.
        beside("1.1.1.1, 10.0.0.2", "https, http", "1.1.1.1 https");
        beside("6.6.6.6, 1.1.1.1", "https, http", "1.1.1.1 http");
        // More values than hops: the first may be the client's own.
        beside("1.1.1.1", "https, http", "1.1.1.1 http");
        for unknown in ["wss", "javascript", "https:", "\"https\"", "https http", ""] {
            beside("1.1.1.1", unknown, "1.1.1.1 http");
        }
        x("10.0.0.1", &[("x-forwarded-proto", "https")], "10.0.0.1 https -");
        let odd = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-host", "a/b")];
        x("10.0.0.1", &odd, "1.1.1.1 http -");
        let host = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-host", "Shop.Test.:")];
        x("10.0.0.1", &host, "1.1.1.1 http shop.test");
    }

    #[test]
    fn forwarded_of_a_trusted_proxy() {
        let told = |value: &str, expected: &str| f("10.0.0.1", &[("forwarded", value)], expected);
        told("for=1.2.3.4;proto=https", "1.2.3.4 https -");
        told(
            "For=\"[2001:db8::7]:81\" ;PROTO=\"HTTPS\"; host=\"A.test:81\"",
            "2001:db8::7 https a.test:81",
        );
        // All three come from the element that names the client.
        told(
            "for=6.6.6.6;proto=http;host=six, for=1.1.1.1;proto=https;host=one",
            "1.1.1.1 https one",
        );
        told(
            "for=1.1.1.1;proto=https;host=one, for=10.0.0.2;proto=http;host=two",
            "1.1.1.1 https one",
        );
        told("for=1.1.1.1, for=10.0.0.2;proto=https", "1.1.1.1 http -");
        told(", for=1.1.1.1;proto=https ,,", "1.1.1.1 https -");
        // No address: the proxy that says so is all that is known, and its word on the rest counts.
        told("for=6.6.6.6, for=unknown;proto=https", "10.0.0.1 https -");
        told("for=6.6.6.6, for=\"_a,b\";host=one", "10.0.0.1 http one");
        told("proto=https", "10.0.0.1 https -");
        // What a client wrote hides nothing.
        told("for=\", for=1.1.1.1;proto=https", "1.1.1.1 https -");
        told("for=\"a, for=\"[::1]\";proto=https", "::1 https -");
        told("for=1.1.1.1;for=6.6.6.6;proto=https", "10.0.0.1 http -");
        told("for=1.1.1.1;proto=wss", "1.1.1.1 http -");
        let lines = [("forwarded", "for=6.6.6.6"), ("forwarded", "for=1.1.1.1;proto=https")];
        f("10.0.0.1", &lines, "1.1.1.1 https -");
    }
}
