//! What sentinels say, and which of it is believed. Pure.
//!
//! Source: <https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/>.

use redis::Value;

use super::slots::Address;
use crate::config::{AddressMap, SENTINELS_MAX};

/// A sentinel knows the primary at a new address.
pub(super) const SWITCHED: &str = "+switch-master";
/// A sentinel has promoted a replica; what it answers is still the former address.
pub(super) const PROMOTED: &str = "+promoted-slave";
/// Longest name of a host, in bytes.
const HOST_BYTES_MAX: usize = 253;
/// Length of a sentinel's id, in bytes.
const ID_BYTES: usize = 40;

/// What one sentinel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    /// Its own id; nothing where it may not be asked for it.
    pub(super) id: Option<String>,
    /// Where it says that the primary is.
    pub(super) primary: Address,
    /// Of which fail-over that is: it grows with each.
    pub(super) epoch: u64,
    /// The other sentinels that it knows, with their ids.
    pub(super) others: Vec<(Address, Option<String>)>,
}

impl View {
    /// Of the answers to SENTINEL MASTER, SENTINEL SENTINELS and SENTINEL MYID.
    pub(super) fn read(primary: &Value, others: &Value, id: &Value) -> Option<Self> {
        let epoch = text(field(primary, "config-epoch")?)?.parse().ok()?;
        // They are of use, and can be done without.
        let others = match others {
            Value::Array(others) => others.as_slice(),
            _ => &[],
        };
        let id_of = |entry: &Value| field(entry, "runid").and_then(id_in);
        let others = others.iter().filter_map(|it| Some((address(it)?, id_of(it))));
        Some(Self {
            id: id_in(id),
            primary: address(primary)?,
            epoch,
            others: others.take(SENTINELS_MAX).collect(),
        })
    }
}

impl View {
    /// The same with addresses as they can be reached.
    pub(super) fn called_by(self, map: &AddressMap) -> Self {
        let others = self.others.into_iter().map(|(address, id)| (map.of(address), id)).collect();
        Self { primary: map.of(self.primary), others, ..self }
    }
}

/// Where a sentinel has moved the primary to, before all others know.
pub(super) fn promoted(event: &str, watched: &str) -> Option<Address> {
    let words: Vec<&str> = event.split(' ').collect();
    match words.as_slice() {
        [_, _, host, port, "@", name, ..] if *name == watched => {
            Some((host_in(host)?, port.parse().ok().filter(|port| *port != 0)?))
        }
        _ => None,
    }
}

/// Where the primary is, and of which fail-over that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) primary: Address,
    pub(super) epoch: u64,
    /// Whether more than half of all sentinels say so.
    pub(super) is_of_most: bool,
}

/// What is to be believed of these views, of `known` sentinels, when what was believed last is of
/// the fail-over `floor`. `refuted` said of themselves that they are replicas.
///
/// More than half of all that are known are right. Without so many, the newest is: whoever is cut
/// off from the others, or was away, says what was. And nothing is that is older than what was
/// believed already.
pub(super) fn choose(
    views: &[&View],
    known: usize,
    floor: u64,
    refuted: &[Address],
) -> Option<Claim> {
    let majority = known / 2 + 1;
    let mut claims: Vec<(&Address, Vec<u64>)> = Vec::new();
    for view in views {
        match claims.iter_mut().find(|(primary, _)| **primary == view.primary) {
            Some((_, epochs)) => epochs.push(view.epoch),
            None => claims.push((&view.primary, vec![view.epoch])),
        }
    }
    for (_, epochs) in &mut claims {
        epochs.sort_unstable_by(|a, b| b.cmp(a));
    }
    let is_refuted = |primary: &Address| refuted.contains(primary);
    let claim = |primary: &Address, epoch, is_of_most| {
        let primary = primary.clone();
        Claim { primary, epoch, is_of_most }
    };
    for (primary, epochs) in &claims {
        // So many of them say that it is of this fail-over or of a later one.
        if let Some(epoch) = epochs.get(majority - 1) {
            return (!is_refuted(primary)).then(|| claim(primary, *epoch, true));
        }
    }
    let newest = claims.iter().filter_map(|(primary, epochs)| {
        let epoch = epochs.first().filter(|epoch| **epoch >= floor)?;
        (!is_refuted(primary)).then_some((*epoch, epochs.len(), primary))
    });
    newest.max().map(|(epoch, _, primary)| claim(primary, epoch, false))
}

/// A field of an answer that is a map, or was one before RESP3.
fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Map(fields) => {
            fields.iter().find(|(key, _)| text(key) == Some(name)).map(|(_, value)| value)
        }
        Value::Array(parts) => {
            let pairs = parts.chunks_exact(2);
            pairs.filter(|pair| text(&pair[0]) == Some(name)).map(|pair| &pair[1]).next()
        }
        _ => None,
    }
}

/// Where a server is that a sentinel lists.
pub(super) fn address(entry: &Value) -> Option<Address> {
    let host = host_in(text(field(entry, "ip")?)?)?;
    let port = text(field(entry, "port")?)?.parse().ok().filter(|port| *port != 0)?;
    Some((host, port))
}

fn host_in(text: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".:_-".contains(&b);
    let is_host = (1..=HOST_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain);
    is_host.then(|| text.to_owned())
}

fn id_in(value: &Value) -> Option<String> {
    text(value).filter(|id| id.len() == ID_BYTES).map(str::to_owned)
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn map(fields: &[(&str, &str)]) -> Value {
        Value::Map(fields.iter().map(|(name, value)| (bulk(name), bulk(value))).collect())
    }

    fn at(port: u16) -> Address {
        ("h".to_owned(), port)
    }

    #[test]
    fn a_view_is_read_in_both_forms_and_garbage_is_none() {
        let id = "0123456789012345678901234567890123456789";
        let primary = [("name", "main"), ("ip", "h"), ("port", "1"), ("config-epoch", "7")];
        let others = Value::Array(vec![
            map(&[("ip", "::1"), ("port", "2"), ("runid", id)]),
            map(&[("ip", "s"), ("port", "0")]),
            map(&[("ip", "a b"), ("port", "3")]),
            map(&[("ip", "s"), ("port", "3"), ("runid", "short")]),
        ]);
        let flat = primary.iter().flat_map(|(name, value)| [bulk(name), bulk(value)]);
        let expected = View {
            id: Some(id.to_owned()),
            primary: at(1),
            epoch: 7,
            others: vec![(("::1".to_owned(), 2), Some(id.to_owned())), (("s".to_owned(), 3), None)],
        };
        for primary in [map(&primary), Value::Array(flat.collect())] {
            assert_eq!(View::read(&primary, &others, &bulk(id)), Some(expected.clone()));
        }
        let alone = View::read(&map(&primary), &Value::Nil, &Value::Nil).expect("a view");
        assert_eq!((alone.id, alone.others), (None, vec![]));
        for odd in [
            Value::Nil,
            bulk("x"),
            map(&[]),
            map(&[("ip", ""), ("port", "1"), ("config-epoch", "7")]),
            map(&[("ip", "h"), ("port", "65536"), ("config-epoch", "7")]),
            map(&[("ip", "h"), ("port", "1"), ("config-epoch", "-1")]),
            map(&[("ip", "h\r\n"), ("port", "1"), ("config-epoch", "7")]),
        ] {
            assert_eq!(View::read(&odd, &others, &Value::Nil), None, "{odd:?}");
        }
        let many: Vec<Value> =
            (1..99).map(|port| map(&[("ip", "h"), ("port", &format!("{port}"))])).collect();
        let view = View::read(&map(&primary), &Value::Array(many), &Value::Nil).expect("a view");
        assert_eq!(view.others.len(), SENTINELS_MAX);
    }

    #[test]
    fn a_promotion_is_that_of_the_watched_primary() {
        let event = "slave h:2 h 2 @ main h 1";
        assert_eq!(promoted(event, "main"), Some(at(2)));
        for odd in ["", "slave", "slave h:0 h 0 @ main h 1", "slave h:2 h 2 main @ h 1"] {
            assert_eq!(promoted(odd, "main"), None, "{odd}");
        }
        assert_eq!(promoted(event, "other"), None);
    }

    /// What is believed when sentinels say this, as port and epoch.
    fn believed(
        said: &[(u16, u64)],
        known: usize,
        floor: u64,
        refuted: &[u16],
    ) -> Option<(u16, u64)> {
        let view = |&(port, epoch): &(u16, u64)| View {
            id: None,
            primary: at(port),
            epoch,
            others: vec![],
        };
        let views: Vec<View> = said.iter().map(view).collect();
        let views: Vec<&View> = views.iter().collect();
        let refuted: Vec<Address> = refuted.iter().map(|port| at(*port)).collect();
        choose(&views, known, floor, &refuted).map(|claim| (claim.primary.1, claim.epoch))
    }

    #[test]
    fn most_are_right_and_without_most_the_newest_is() {
        for (said, known, expected) in [
            (&[][..], 3, None),
            (&[(1, 0)], 1, Some((1, 0))),
            (&[(1, 5), (1, 5), (1, 5)], 3, Some((1, 5))),
            // The first one that knows of a fail-over, and then the second.
            (&[(2, 6), (1, 5), (1, 5)], 3, Some((1, 5))),
            (&[(2, 6), (2, 6), (1, 5)], 3, Some((2, 6))),
            // Whoever lies is alone.
            (&[(9, 999), (1, 5), (1, 5)], 3, Some((1, 5))),
            (&[(1, 999), (2, 6), (2, 6)], 3, Some((2, 6))),
            // Who was away says what was.
            (&[(1, 5), (2, 6)], 3, Some((2, 6))),
            (&[(1, 5), (1, 5), (2, 6)], 7, Some((2, 6))),
            (&[(2, 6)], 5, Some((2, 6))),
        ] {
            assert_eq!(believed(said, known, 0, &[]), expected, "{said:?} of {known}");
        }
    }

    #[test]
    fn what_is_older_needs_most_of_them() {
        assert_eq!(believed(&[(1, 5)], 3, 6, &[]), None);
        assert_eq!(believed(&[(1, 5), (2, 6)], 5, 6, &[]), Some((2, 6)));
        assert_eq!(believed(&[(1, 5), (1, 5)], 3, 6, &[]), Some((1, 5)), "they were set up anew");
        // One that says a great epoch of the right address does not raise the floor.
        assert_eq!(believed(&[(1, 5), (1, 5), (1, 999)], 3, 0, &[]), Some((1, 5)));
    }

    #[test]
    fn who_says_that_it_is_a_replica_is_no_primary() {
        assert_eq!(believed(&[(9, 999), (1, 5)], 3, 0, &[9]), Some((1, 5)));
        assert_eq!(believed(&[(9, 999), (1, 5)], 3, 6, &[9]), None, "and the other is old");
        // What most of them say is about to be true; what another one says is not.
        assert_eq!(believed(&[(2, 6), (2, 6), (1, 5)], 3, 0, &[2]), None);
    }
}
