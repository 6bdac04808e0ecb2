//! `store.address_map`: where servers are reached that Redis names by addresses of its own side of
//! a NAT, a bridge or a tunnel.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::reader::Section;
use super::value::{Mistake, Read, echo, host_and_port, string};

/// Most addresses that are mapped: as many as a Redis Cluster has servers.
const ADDRESSES_MAX: usize = 2000;

/// Addresses as Redis names them, and those that are called instead. Hosts and ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressMap(BTreeMap<String, (String, u16)>);

impl AddressMap {
    /// Where the server is reached that Redis names so, if the map says so.
    pub fn get(&self, (host, port): &(String, u16)) -> Option<&(String, u16)> {
        if self.0.is_empty() { None } else { self.0.get(&written(host, *port)) }
    }

    /// The same, and the address itself where the map says nothing of it.
    pub fn of(&self, address: (String, u16)) -> (String, u16) {
        self.get(&address).cloned().unwrap_or(address)
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<((String, u16), (String, u16))> for AddressMap {
    fn from_iter<I: IntoIterator<Item = ((String, u16), (String, u16))>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|((host, port), to)| (written(&host, port), to)).collect())
    }
}

/// Hosts differ in nothing but their names: case is none of it (RFC 4343).
fn written(host: &str, port: u16) -> String {
    format!("{}:{port}", host.to_ascii_lowercase())
}

/// Reads `address_map`.
pub(super) fn read(store: &mut Section<'_>) -> AddressMap {
    let name = |text: &str| {
        let (host, port) = both(text)?;
        Ok(written(&host, port))
    };
    let map = store.map("address_map", name, |value| value.read(reached));
    if map.len() > ADDRESSES_MAX {
        let what = format!("has more than {ADDRESSES_MAX} addresses");
        store.problem("address_map", what, "map those alone that cannot be reached as they are");
    }
    AddressMap(map)
}

fn reached(value: &DeValue<'_>) -> Read<(String, u16)> {
    both(string(value, "it in quotes, such as \"redis-a:6379\"")?)
}

/// A host and a port, none of which may be left out: a server is one of several on its host.
fn both(text: &str) -> Read<(String, u16)> {
    let wrong = || {
        let what = format!("{} is no host and port", echo(text));
        Mistake::new(what, "write both, such as \"10.0.0.5:6379\" or \"[2001:db8::5]:6379\"")
    };
    let has_port = text.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    if !has_port { Err(wrong()) } else { host_and_port(text, 0).ok_or_else(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_called_by_the_one_that_stands_for_it() {
        let at = |host: &str, port| (host.to_owned(), port);
        let map: AddressMap = [(at("10.0.0.5", 6379), at("redis-a", 7000))].into_iter().collect();
        assert_eq!(map.of(at("10.0.0.5", 6379)), at("redis-a", 7000));
        assert_eq!(map.of(at("10.0.0.5", 6380)), at("10.0.0.5", 6380));
        assert!(AddressMap::default().is_empty() && !map.is_empty());
        let named: AddressMap = [(at("Redis-A", 1), at("b", 2))].into_iter().collect();
        assert_eq!(named.of(at("redis-a", 1)), at("b", 2));
    }

    #[test]
    fn a_host_and_a_port_are_both_needed() {
        let at = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(both("redis-a:6379").ok(), at("redis-a", 6379));
        assert_eq!(both("[::1]:7").ok(), at("::1", 7));
        for odd in ["redis-a", "[::1]", "::1:7", ":7", "a:", "a:0", "a:65536", "a:7/0", "a b:7", ""]
        {
            assert!(both(odd).is_err(), "{odd}");
        }
    }
}
