//! The slots of a Redis Cluster: by which key a command is sent, and which server has what. Pure.
//!
//! Source: <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>.

use std::collections::{HashMap, HashSet};

use redis::{Arg, Cmd, Value};

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
        b"XINFO" => arguments.nth(1),
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
    pub(super) primaries: Vec<Address>,
    /// The replicas.
    pub(super) replicas: Vec<Address>,
}

impl View {
    /// Of the answers to CLUSTER INFO and CLUSTER SLOTS; `asked` is who gave them.
    pub(super) fn read(info: &Value, slots: &Value, asked: &Address) -> Option<Self> {
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
            if let Some(address) = address(primary, asked) {
                let at = *primaries.entry(address).or_insert_with_key(|address| {
                    view.primaries.push(address.clone());
                    view.primaries.len() - 1
                });
                view.ranges.push((first, last, u16::try_from(at).ok()?));
            }
            for replica in replicas.iter().filter_map(|replica| address(replica, asked)) {
                if others.insert(replica.clone()) {
                    view.replicas.push(replica);
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

/// A node of the answer to CLUSTER SLOTS. Without a host it is the one that was asked.
fn address(node: &Value, asked: &Address) -> Option<Address> {
    let Value::Array(parts) = node else { return None };
    let (host, port) = match parts.as_slice() {
        [host, Value::Int(port), ..] => (host, u16::try_from(*port).ok().filter(|it| *it != 0)?),
        _ => return None,
    };
    match host {
        Value::Nil => Some((asked.0.clone(), port)),
        host => match text(host)? {
            "?" => None,
            "" => Some((asked.0.clone(), port)),
            host => Some((host.to_owned(), port)),
        },
    }
}

fn text(value: &Value) -> Option<&str> {
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
        let view = View::read(&info, &slots, &at("asked", 9)).unwrap();
        assert_eq!((view.is_ok, view.epoch), (true, 6));
        let (a, me, too) = (at("a", 1), at("asked", 3), at("asked", 4));
        assert_eq!(view.primaries, [a, me, too]);
        assert_eq!(view.ranges[3], (300, 399, 0));
        assert_eq!(view.replicas, [at("r", 2)]);
        for odd in [Value::Nil, Value::Array(vec![Value::Int(1)]), bulk("x")] {
            assert_eq!(View::read(&info, &odd, &at("asked", 9)), None, "{odd:?}");
        }
        assert_eq!(View::read(&bulk("x"), &slots, &at("asked", 9)), None);
    }

    #[test]
    fn a_view_of_more_servers_than_a_cluster_has_is_none() {
        let info = bulk("cluster_state:ok\r\ncluster_current_epoch:6\r\n");
        let read = |servers: usize| {
            let range = |at: usize| {
                let (slot, port) = (Value::Int(at as i64), (at % servers) as i64 + 1);
                Value::Array(vec![slot.clone(), slot, node(bulk("h"), port)])
            };
            let slots = Value::Array((0..usize::from(SLOTS)).map(range).collect());
            View::read(&info, &slots, &at("asked", 9))
        };
        let view = read(SERVERS_MAX).expect("a cluster in as many pieces as can be");
        assert_eq!((view.primaries.len(), view.ranges.len()), (SERVERS_MAX, usize::from(SLOTS)));
        assert_eq!(read(SERVERS_MAX + 1), None);
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
