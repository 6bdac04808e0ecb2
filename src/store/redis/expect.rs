//! Whether the replies to a pipeline are replies to it. A connection through a broken proxy may
//! have one too many or too few; everything that comes later would then be somebody else's.
//!
//! Each pipeline ends with a PING of its own words, which must come back last: that alone shows any
//! shift. Beside it, each reply must be of a type that its command can answer with.

use redis::{Arg, Pipeline, Value};

use super::call::start;

/// What a pipeline ends with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seal([u8; 8]);

impl Seal {
    /// Puts the last command to a pipeline.
    pub(super) fn put(pipeline: &mut Pipeline) -> Self {
        let seal = Self(fastrand::u64(..).to_le_bytes());
        pipeline.add_command(start("PING")).arg(&seal.0[..]);
        seal
    }

    /// Whether this is its reply.
    pub(super) fn is_whole(self, reply: &Value) -> bool {
        matches!(reply, Value::BulkString(words) if *words == self.0)
    }
}

/// Whether the replies are of types that the commands can answer with. Any command may answer with
/// an error.
pub(super) fn possible(pipeline: &Pipeline, replies: &[Value]) -> bool {
    let mut is_queued = false;
    pipeline.cmd_iter().zip(replies).all(|(command, reply)| {
        let mut arguments = command.args_iter();
        let Some(Arg::Simple(verb)) = arguments.next() else { return true };
        match (verb, reply) {
            // First, because a transaction that was refused is over too.
            (b"EXEC", reply) => {
                is_queued = false;
                matches!(reply, Value::Array(_) | Value::Nil | Value::ServerError(_))
            }
            (_, Value::ServerError(_)) => true,
            (b"MULTI", Value::Okay) => {
                is_queued = true;
                true
            }
            (_, Value::SimpleString(text)) if is_queued => text == "QUEUED",
            _ if is_queued => false,
            (verb, reply) => answers(verb, arguments.len(), reply),
        }
    })
}

fn answers(verb: &[u8], arguments: usize, reply: &Value) -> bool {
    let is_value = |reply: &Value| matches!(reply, Value::BulkString(_) | Value::Nil);
    let values = |keys: usize| match reply {
        Value::Array(parts) => parts.len() == keys && parts.iter().all(is_value),
        _ => false,
    };
    match verb {
        b"EXISTS" | b"DEL" | b"PTTL" | b"PEXPIRE" | b"ZREM" | b"HSTRLEN" => {
            matches!(reply, Value::Int(_))
        }
        b"GETRANGE" | b"SCRIPT" => matches!(reply, Value::BulkString(_)),
        b"GET" | b"HGET" => is_value(reply),
        b"MGET" => values(arguments),
        b"HMGET" => values(arguments.saturating_sub(1)),
        b"SET" => matches!(reply, Value::Okay) || is_value(reply),
        b"EVAL" | b"EVALSHA" => {
            matches!(reply, Value::Int(_) | Value::Array(_) | Value::Okay) || is_value(reply)
        }
        b"MULTI" => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn pipeline(commands: &[&str]) -> Pipeline {
        let mut pipeline = Pipeline::new();
        for command in commands {
            let mut words = command.split(' ');
            let cmd = pipeline.cmd(words.next().unwrap());
            words.for_each(|word| {
                cmd.arg(word);
            });
        }
        pipeline
    }

    #[test]
    fn each_command_has_its_types() {
        let (one, ok) = (Value::Int(1), Value::Okay);
        let pair = Value::Array(vec![text("a"), Value::Nil]);
        let all =
            [one.clone(), ok.clone(), text("a"), Value::Nil, pair.clone(), Value::Boolean(true)];
        for (command, fitting) in [
            ("EXISTS k", vec![&one]),
            ("GETRANGE k 0 1", vec![&all[2]]),
            ("HGET k f", vec![&all[2], &all[3]]),
            ("MGET a b", vec![&pair]),
            ("MGET a", vec![]),
            ("HMGET k a b", vec![&pair]),
            ("SET k v GET", vec![&ok, &all[2], &all[3]]),
            ("EVALSHA s 0", vec![&one, &ok, &all[2], &all[3], &pair]),
            ("MULTI", vec![&ok]),
        ] {
            let pipeline = pipeline(&[command]);
            for reply in &all {
                let fits = fitting.contains(&reply);
                assert_eq!(
                    possible(&pipeline, std::slice::from_ref(reply)),
                    fits,
                    "{command} {reply:?}"
                );
            }
        }
    }

    #[test]
    fn a_transaction_queues() {
        let whole = pipeline(&["MULTI", "SET a b", "EXEC", "EXISTS a"]);
        let queued = || Value::SimpleString("QUEUED".to_owned());
        let done = || Value::Array(vec![Value::Okay]);
        assert!(possible(&whole, &[Value::Okay, queued(), done(), Value::Int(1)]));
        assert!(!possible(&whole, &[Value::Okay, Value::Okay, done(), Value::Int(1)]));
        assert!(!possible(&whole, &[Value::Okay, queued(), queued(), Value::Int(1)]));
        assert!(!possible(&whole, &[Value::Okay, queued(), done(), queued()]));
        // Refused while it was queued, as for want of memory; what follows is answered as ever.
        let refused = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            bytes.extend(b"\r\n");
            redis::parse_redis_value(&bytes).expect("an error in RESP")
        };
        let (oom, abort) = (refused("-OOM no memory"), refused("-EXECABORT discarded"));
        assert!(possible(&whole, &[Value::Okay, oom.clone(), abort.clone(), Value::Int(1)]));
        assert!(!possible(&whole, &[Value::Okay, oom, abort, queued()]));
    }

    #[test]
    fn only_its_own_words_seal_a_pipeline() {
        let mut first = Pipeline::new();
        let (seal, other) = (Seal::put(&mut first), Seal::put(&mut Pipeline::new()));
        assert_eq!(first.len(), 1);
        assert!(seal.is_whole(&Value::BulkString(seal.0.to_vec())));
        for foreign in [text("PONG"), Value::BulkString(other.0.to_vec()), Value::Nil, Value::Okay]
        {
            assert!(!seal.is_whole(&foreign));
        }
    }
}
