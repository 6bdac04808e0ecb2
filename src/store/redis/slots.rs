//! The slots of a Redis Cluster: by which key a command is sent, and which server has what. Pure.
//!
//! Source: <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>.

use std::collections::{HashMap, HashSet};

use redis::{Arg, Cmd, Value};

use crate::config::AddressMap;
use crate::store::keys::SLOTS;

/// Most servers of a cluster: beyond that an answer is a mistake, or no cluster's. Redis advises
/// against more than half as many.
pub(super) const SERVERS_MAX: usize = 2000;

/// Host and port.
pub(super) type Address = (String, u16);

/// The first key that a command of ours names; nothing where it names none. All its keys lie in one
/// slot.
pub(super) fn key_of(command: &Cmd) -> Option<&[u8]> {
    let mut arguments = command.args_iter().map(|argument| match argument {
        Arg::Simple(bytes) => bytes,
        _ => b"",
    });
    match arguments.next()? {
        b"MULTI" | b"EXEC" | b"PING" | b"TIME" | b"SCRIPT" => None,
        // Behind the script and the number of its keys, which is never zero.
        b"EVAL" | b"EVALSHA" => arguments.nth(2),
        b"XINFO" | b"XGROUP" => arguments.nth(1),
        b"XREAD" => arguments.skip_while(|word| *word != b"STREAMS").nth(1),
        _ => arguments.next(),
    }
}

/// Where a server sent a command on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Redirect {
    /// The slot has moved for good.
    Moved(u16, Address),
    /// The slot is moving, and its keys may be there already; nothing is learned of it.
    Ask(Address),
    /// The slot is moving, and the keys of this command are not all on one side.
    TryAgain,
}

impl Redirect {
    /// What `reply` says, if it is that. `host` is that of the server which said it: an address
    /// without a host means the same one.
    pub(super) fn of(reply: &Value, host: &str) -> Option<Self> {
        let Value::ServerError(error) = reply else { return None };
        let place = || {
            let (slot, address) = error.details()?.split_once(' ')?;
            let (name, port) = address.rsplit_once(':')?;
            let name =
                if name.is_empty() { host } else { Some(name).filter(|name| *name != "?")? };
            let slot = slot.parse().ok().filter(|slot| *slot < SLOTS)?;
            Some((slot, (name.to_owned(), port.parse().ok()?)))
        };
        match error.code() {
            "MOVED" => place().map(|(slot, address)| Self::Moved(slot, address)),
            "ASK" => place().map(|(_, address)| Self::Ask(address)),
            "TRYAGAIN" => Some(Self::TryAgain),
            _ => None,
        }
    }
}

/// A server as the cluster calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Where it is reached from here.
    pub(super) address: Address,
    /// Where redirects may say that it is, beside that.
    pub(super) aliases: Vec<Address>,
    /// Its id, which no other server has.
    pub(super) id: Option<String>,
    /// The place of its primary, where it is a replica.
    pub(super) of: Option<u16>,
}

impl Member {
    /// One of which nothing is known but where it is.
    pub(super) fn at(address: Address) -> Self {
        Self { address, aliases: Vec::new(), id: None, of: None }
    }

    /// Whether it is called so.
    pub(super) fn is_at(&self, address: &Address) -> bool {
        self.address == *address || self.aliases.contains(address)
    }
}

/// How servers are called by who asks for them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calling<'a> {
    /// Who is asked: an address without a host means the same one.
    pub(super) asked: &'a Address,
    /// Whether a server that has the name of a host is called by it, whatever the cluster prefers.
    pub(super) by_name: bool,
    /// Addresses that cannot be reached as they are.
    pub(super) map: &'a AddressMap,
}

/// A cluster as one of its nodes sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    /// Whether it says that the cluster serves.
    pub(super) is_ok: bool,
    /// How new what it knows is.
    pub(super) epoch: u64,
    /// First slot, last slot, and the place of their primary.
    pub(super) ranges: Vec<(u16, u16, u16)>,
    /// The primaries, each once.
    pub(super) primaries: Vec<Member>,
    /// The replicas.
    pub(super) replicas: Vec<Member>,
}

impl View {
    /// Of the answers to CLUSTER INFO and CLUSTER SLOTS.
    pub(super) fn read(info: &Value, slots: &Value, calling: Calling<'_>) -> Option<Self> {
        let info = text(info)?;
        let field = |name: &str| {
            info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let mut view = Self {
            is_ok: field("cluster_state") == Some("ok"),
            epoch: field("cluster_current_epoch")?.parse().ok()?,
            ranges: Vec::new(),
            primaries: Vec::new(),
            replicas: Vec::new(),
        };
        let Value::Array(ranges) = slots else { return None };
        let (mut primaries, mut others) = (HashMap::new(), HashSet::new());
        for range in ranges {
            let Value::Array(parts) = range else { return None };
            let [Value::Int(first), Value::Int(last), primary, replicas @ ..] = parts.as_slice()
            else {
                return None;
            };
            let number = |slot: i64| u16::try_from(slot).ok().filter(|slot| *slot < SLOTS);
            let (first, last) = (number(*first)?, number(*last)?);
            // One of which the node does not know where it is.
            let mut of = None;
            if let Some(member) = member(primary, calling) {
                let at = *primaries.entry(member.address.clone()).or_insert_with(|| {
                    view.primaries.push(member);
                    view.primaries.len() - 1
                });
                let at = u16::try_from(at).ok()?;
                view.ranges.push((first, last, at));
                of = Some(at);
            }
            for replica in replicas.iter().filter_map(|replica| member(replica, calling)) {
                if others.insert(replica.address.clone()) {
                    view.replicas.push(Member { of, ..replica });
                }
            }
            if primaries.len() + others.len() > SERVERS_MAX {
                return None;
            }
        }
        Some(view)
    }

    /// Whether this view is to be believed rather than the other one: a side that is cut off from
    /// the rest answers with what was.
    pub(super) fn beats(&self, other: &Self) -> bool {
        (self.is_ok, self.epoch) > (other.is_ok, other.epoch)
    }
}

/// A node of the answer to CLUSTER SLOTS: where it is by the cluster's choice, its port, its id,
/// and its other names.
fn member(node: &Value, calling: Calling<'_>) -> Option<Member> {
    let Value::Array(parts) = node else { return None };
    let (host, port, more) = match parts.as_slice() {
        [host, Value::Int(port), more @ ..] => {
            (host, u16::try_from(*port).ok().filter(|it| *it != 0)?, more)
        }
        _ => return None,
    };
    let host = match host {
        Value::Nil => &calling.asked.0,
        host => match text(host)? {
            "?" => return None,
            "" => &calling.asked.0,
            host => host,
        },
    };
    let mut names = vec![(host.to_owned(), port)];
    for (what, name) in more.get(1).into_iter().flat_map(pairs) {
        let name = (name.to_owned(), port);
        if names.contains(&name) {
            continue;
        }
        match what {
            "hostname" if calling.by_name => names.insert(0, name),
            "hostname" | "ip" => names.push(name),
            _ => {}
        }
    }
    let address = names.iter().find_map(|name| calling.map.get(name)).or(names.first())?.clone();
    names.retain(|name| *name != address);
    let id = more.first().and_then(text).filter(|id| !id.is_empty()).map(str::to_owned);
    Some(Member { address, aliases: names, id, of: None })
}

/// Names and values of a map, or of a list that stands for one; those that are there.
fn pairs(map: &Value) -> Vec<(&str, &str)> {
    let pair =
        |name, value| Some((text(name)?, text(value).filter(|it| !matches!(*it, "" | "?"))?));
    match map {
        Value::Map(fields) => fields.iter().filter_map(|(name, it)| pair(name, it)).collect(),
        Value::Array(parts) => {
            let (both, _) = parts.as_chunks::<2>();
            both.iter().filter_map(|[name, it]| pair(name, it)).collect()
        }
        _ => Vec::new(),
    }
}

/// A text, in whatever form it is sent.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> Value {
        redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).expect("an error in RESP")
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn node(host: Value, port: i64) -> Value {
        Value::Array(vec![host, Value::Int(port), bulk("id"), Value::Array(vec![])])
    }

    fn at(host: &str, port: u16) -> Address {
        (host.to_owned(), port)
    }

    fn read(info: &Value, slots: &Value) -> Option<View> {
        let (asked, map) = (&at("asked", 9), &AddressMap::default());
        View::read(info, slots, Calling { asked, by_name: false, map })
    }

    fn addresses(members: &[Member]) -> Vec<Address> {
        members.iter().map(|member| member.address.clone()).collect()
    }

    #[test]
    fn a_command_is_sent_by_its_key_and_not_by_another_argument() {
        for (command, key) in [
            ("GET k v", Some("k")),
            ("EVALSHA s 2 a b c", Some("a")),
            ("EVAL s 1 a b", Some("a")),
            ("XINFO STREAM s", Some("s")),
            ("XREAD COUNT 9 BLOCK 1 STREAMS s 0-1", Some("s")),
            ("MULTI", None),
            ("EXEC", None),
            ("SCRIPT LOAD x", None),
        ] {
            let mut words = command.split(' ');
            let mut cmd = redis::cmd(words.next().unwrap());
            words.for_each(|word| {
                cmd.arg(word);
            });
            assert_eq!(key_of(&cmd), key.map(str::as_bytes), "{command}");
        }
    }

    #[test]
    fn redirects_are_read_and_nothing_else_is_one() {
        let of = |text: &str| Redirect::of(&error(text), "10.0.0.1");
        assert_eq!(of("MOVED 7 h:1"), Some(Redirect::Moved(7, at("h", 1))));
        assert_eq!(of("MOVED 7 :1"), Some(Redirect::Moved(7, at("10.0.0.1", 1))));
        assert_eq!(of("MOVED 7 ::1:6379"), Some(Redirect::Moved(7, at("::1", 6379))));
        assert_eq!(of("ASK 7 h:1"), Some(Redirect::Ask(at("h", 1))));
        assert_eq!(of("TRYAGAIN Multiple keys"), Some(Redirect::TryAgain));
        for odd in [
            "MOVED",
            "MOVED 7",
            "MOVED 16384 h:1",
            "MOVED 7 h:99999",
            "MOVED 7 ?:1",
            "ASK x h:1",
            "ERR a",
        ] {
            assert_eq!(of(odd), None, "{odd}");
        }
        assert_eq!(Redirect::of(&bulk("MOVED 7 h:1"), "h"), None);
    }

    #[test]
    fn a_view_names_who_has_which_slots() {
        let info = bulk("cluster_state:ok\r\ncluster_current_epoch:6\r\n");
        let slots = Value::Array(vec![
            Value::Array(vec![
                Value::Int(0),
                Value::Int(99),
                node(bulk("a"), 1),
                node(bulk("r"), 2),
                node(bulk("?"), 2),
            ]),
            Value::Array(vec![Value::Int(100), Value::Int(199), node(bulk(""), 3)]),
            Value::Array(vec![Value::Int(200), Value::Int(299), node(Value::Nil, 4)]),
            Value::Array(vec![Value::Int(300), Value::Int(399), node(bulk("a"), 1)]),
        ]);
        let view = read(&info, &slots).unwrap();
        assert_eq!((view.is_ok, view.epoch), (true, 6));
        let (a, me, too) = (at("a", 1), at("asked", 3), at("asked", 4));
        assert_eq!(addresses(&view.primaries), [a, me, too]);
        assert_eq!(view.ranges[3], (300, 399, 0));
        assert_eq!(addresses(&view.replicas), [at("r", 2)]);
        assert_eq!(view.replicas[0].of, Some(0));
        assert_eq!(view.primaries[0].id.as_deref(), Some("id"));
        for odd in [Value::Nil, Value::Array(vec![Value::Int(1)]), bulk("x")] {
            assert_eq!(read(&info, &odd), None, "{odd:?}");
        }
        assert_eq!(read(&bulk("x"), &slots), None);
    }

    #[test]
    fn a_server_is_called_as_it_can_be_reached_and_known_by_its_other_names() {
        let info = bulk("cluster_state:ok\r\ncluster_current_epoch:6\r\n");
        let named = |metadata: Value| {
            let node = Value::Array(vec![bulk("10.0.0.5"), Value::Int(1), bulk("id"), metadata]);
            Value::Array(vec![Value::Array(vec![Value::Int(0), Value::Int(9), node])])
        };
        let member = |metadata: Value, by_name, map: &AddressMap| {
            let (asked, slots) = (&at("asked", 9), named(metadata));
            let view = View::read(&info, &slots, Calling { asked, by_name, map });
            view.expect("a view").primaries.remove(0)
        };
        let (ip, host) = (at("10.0.0.5", 1), at("redis-a", 1));
        let none = &AddressMap::default();
        let flat = || Value::Array(vec![bulk("hostname"), bulk("redis-a")]);
        let map = || Value::Map(vec![(bulk("hostname"), bulk("redis-a"))]);
        for metadata in [flat(), map()] {
            let called = member(metadata.clone(), true, none);
            assert_eq!((&called.address, &called.aliases[..]), (&host, &[ip.clone()][..]));
            assert!(called.is_at(&ip) && called.is_at(&host) && !called.is_at(&at("10.0.0.5", 2)));
            let called = member(metadata, false, none);
            assert_eq!((&called.address, &called.aliases[..]), (&ip, &[host.clone()][..]));
        }
        for odd in ["", "?", "10.0.0.5"] {
            let odd = Value::Map(vec![(bulk("hostname"), bulk(odd)), (bulk("x"), bulk("y"))]);
            let called = member(odd, true, none);
            assert_eq!((called.address, called.aliases), (ip.clone(), vec![]));
        }
        let there = at("nat.example", 7);
        for name in [&ip, &host] {
            let given = [(name.clone(), there.clone())].into_iter().collect();
            let called = member(map(), false, &given);
            assert_eq!(called.address, there);
            assert!(called.is_at(&ip) && called.is_at(&host) && called.is_at(&there));
        }
    }

    #[test]
    fn a_view_of_more_servers_than_a_cluster_has_is_none() {
        let info = bulk("cluster_state:ok\r\ncluster_current_epoch:6\r\n");
        let of = |servers: usize| {
            let range = |at: usize| {
                let (slot, port) = (Value::Int(at as i64), (at % servers) as i64 + 1);
                Value::Array(vec![slot.clone(), slot, node(bulk("h"), port)])
            };
            let slots = Value::Array((0..usize::from(SLOTS)).map(range).collect());
            read(&info, &slots)
        };
        let view = of(SERVERS_MAX).expect("a cluster in as many pieces as can be");
        assert_eq!((view.primaries.len(), view.ranges.len()), (SERVERS_MAX, usize::from(SLOTS)));
        assert_eq!(of(SERVERS_MAX + 1), None);
    }

    #[test]
    fn who_is_cut_off_is_not_believed() {
        let view = |is_ok, epoch| {
            let (primaries, replicas) = (vec![], vec![]);
            View { is_ok, epoch, ranges: vec![], primaries, replicas }
        };
        assert!(view(true, 1).beats(&view(false, 9)));
        assert!(view(true, 2).beats(&view(true, 1)));
        assert!(!view(true, 1).beats(&view(true, 1)));
    }
}
