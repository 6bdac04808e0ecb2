//! Commands that name several keys of a slot that is moving. While some of the keys are on one side
//! and some on the other, or none is anywhere, no server carries such a command out (TRYAGAIN): for
//! moments as a rule, and for ever where the move was broken off. Key by key they are carried out.

use redis::{Arg, Cmd, Value};

/// Whether a server did not carry a command out because its slot is moving.
pub(super) fn is_torn(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if matches!(error.code(), "TRYAGAIN" | "ASK"))
}

/// A command that says of several keys what it says of each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The replies are a list.
    List,
    /// The replies are a number.
    Sum,
}

impl Kind {
    /// Of a command of several keys, if it is one.
    pub(super) fn of(command: &Cmd) -> Option<Self> {
        let mut arguments = command.args_iter();
        let kind = match arguments.next()? {
            Arg::Simple(b"MGET") => Self::List,
            Arg::Simple(b"EXISTS" | b"DEL") => Self::Sum,
            _ => return None,
        };
        (arguments.count() > 1).then_some(kind)
    }

    /// The reply to all of it, of the replies to the commands of its keys; the first error is one.
    pub(super) fn join(self, replies: Vec<Value>) -> Value {
        if let Some(at) = replies.iter().position(|it| matches!(it, Value::ServerError(_))) {
            return replies.into_iter().nth(at).unwrap_or_default();
        }
        match self {
            Self::List => Value::Array(
                replies
                    .into_iter()
                    .map(|reply| match reply {
                        Value::Array(mut one) => one.pop().unwrap_or_default(),
                        other => other,
                    })
                    .collect(),
            ),
            Self::Sum => Value::Int(
                replies
                    .iter()
                    .map(|it| if let Value::Int(number) = it { *number } else { 0 })
                    .sum(),
            ),
        }
    }
}

/// The command for each of its keys.
pub(super) fn by_key(command: &Cmd) -> impl Iterator<Item = Cmd> {
    let mut words = command.args_iter().filter_map(|argument| match argument {
        Arg::Simple(word) => Some(word),
        _ => None,
    });
    let verb = words.next().unwrap_or_default();
    words.map(move |key| {
        let mut one = Cmd::new();
        one.arg(verb).arg(key);
        one
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> Cmd {
        let mut words = text.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        command
    }

    fn error(text: &str) -> Value {
        redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).expect("an error in RESP")
    }

    #[test]
    fn what_says_the_same_of_each_key_is_taken_apart_and_put_together() {
        for (text, kind) in [
            ("MGET a b", Some(Kind::List)),
            ("EXISTS a b", Some(Kind::Sum)),
            ("DEL a b c", Some(Kind::Sum)),
            ("MGET a", None),
            ("SET a b", None),
            ("EVALSHA s 2 a b", None),
        ] {
            assert_eq!(Kind::of(&command(text)), kind, "{text}");
        }
        let parts: Vec<Vec<u8>> =
            by_key(&command("MGET a b")).map(|it| it.get_packed_command()).collect();
        let expected = ["MGET a", "MGET b"].map(|text| command(text).get_packed_command());
        assert_eq!(parts, expected);
        let one = |text: &str| Value::Array(vec![Value::BulkString(text.into())]);
        let both = Value::Array(vec![Value::BulkString("x".into()), Value::Nil]);
        assert_eq!(Kind::List.join(vec![one("x"), Value::Array(vec![Value::Nil])]), both);
        assert_eq!(Kind::Sum.join(vec![Value::Int(1), Value::Int(0)]), Value::Int(1));
        for kind in [Kind::List, Kind::Sum] {
            let joined = kind.join(vec![Value::Int(1), error("TRYAGAIN x"), error("ERR y")]);
            assert_eq!(joined, error("TRYAGAIN x"));
        }
    }

    #[test]
    fn what_a_moving_slot_answers_is_known() {
        assert!(is_torn(&error("TRYAGAIN Multiple keys")) && is_torn(&error("ASK 7 h:1")));
        assert!(!is_torn(&error("MOVED 7 h:1")) && !is_torn(&Value::Nil));
    }
}
