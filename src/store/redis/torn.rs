//! Commands that name several keys of a slot that is moving. While some of the keys are on one side
//! and some on the other, or none is anywhere, no server carries such a command out (TRYAGAIN): for
//! moments as a rule, and for ever where the move was broken off. Key by key they are carried out.

use redis::{Arg, Cmd, Value};

/// Whether a server did not carry a command out because its slot is moving.
pub(super) fn is_torn(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if matches!(error.code(), "TRYAGAIN" | "ASK"))
}

/// Whether a command says of several keys how many of them there are. A list of values is none: the
/// keys are asked for apart, as each server's epochs have a lineage of their own.
pub(super) fn is_sum(command: &Cmd) -> bool {
    let mut arguments = command.args_iter();
    let is_sum = matches!(arguments.next(), Some(Arg::Simple(b"EXISTS" | b"DEL")));
    is_sum && arguments.count() > 1
}

/// The reply to all of it, of the replies to the commands of its keys; the first error is one.
pub(super) fn sum(replies: Vec<Value>) -> Value {
    if let Some(at) = replies.iter().position(|it| matches!(it, Value::ServerError(_))) {
        return replies.into_iter().nth(at).unwrap_or_default();
    }
    let numbers = replies.iter().map(|it| if let Value::Int(number) = it { *number } else { 0 });
    Value::Int(numbers.sum())
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
    fn what_counts_keys_is_taken_apart_and_put_together() {
        for (text, expected) in [
            ("EXISTS a b", true),
            ("DEL a b c", true),
            ("EXISTS a", false),
            ("MGET a b", false),
            ("EVALSHA s 2 a b", false),
        ] {
            assert_eq!(is_sum(&command(text)), expected, "{text}");
        }
        let parts: Vec<Vec<u8>> =
            by_key(&command("DEL a b")).map(|it| it.get_packed_command()).collect();
        let expected = ["DEL a", "DEL b"].map(|text| command(text).get_packed_command());
        assert_eq!(parts, expected);
        assert_eq!(sum(vec![Value::Int(1), Value::Int(0)]), Value::Int(1));
        let failed = sum(vec![Value::Int(1), error("TRYAGAIN x"), error("ERR y")]);
        assert_eq!(failed, error("TRYAGAIN x"));
    }

    #[test]
    fn what_a_moving_slot_answers_is_known() {
        assert!(is_torn(&error("TRYAGAIN Multiple keys")) && is_torn(&error("ASK 7 h:1")));
        assert!(!is_torn(&error("MOVED 7 h:1")) && !is_torn(&Value::Nil));
    }
}
