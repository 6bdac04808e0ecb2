//! The scripts of the request path, and what to send again where the server has forgotten one.

use redis::{Arg, Cmd, Pipeline, Value};

use super::call::start;

/// A script and its name in the server's cache.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) code: &'static str,
    pub(super) sha: String,
}

impl Script {
    fn new(code: &'static str) -> Self {
        Self { code, sha: redis::Script::new(code).get_hash().to_owned() }
    }
}

/// The scripts of queues. The rare ones travel with their calls.
#[derive(Debug)]
pub(super) struct QueueScripts {
    pub(super) accept: Script,
    pub(super) take: Script,
    pub(super) settle: Script,
    pub(super) renew: Script,
    pub(super) cancel: &'static str,
    pub(super) requeue: &'static str,
    pub(super) list: &'static str,
    pub(super) drop_dead: &'static str,
    pub(super) repair: &'static str,
}

/// A script of queues that puts ids into the stream.
macro_rules! with_entry {
    ($file:literal) => {
        concat!(include_str!("../scripts/q_entry.lua"), include_str!($file))
    };
}

/// A script of queues that puts items into lines.
macro_rules! with_lines {
    ($file:literal) => {
        concat!(with_entry!("../scripts/q_unblock.lua"), include_str!($file))
    };
}

/// A script of queues behind what it shares with others.
macro_rules! with_common {
    ($file:literal) => {
        concat!(with_lines!("../scripts/q_common.lua"), include_str!($file))
    };
}

impl QueueScripts {
    fn new() -> Self {
        Self {
            accept: Script::new(with_lines!("../scripts/q_accept.lua")),
            take: Script::new(with_entry!("../scripts/q_take.lua")),
            settle: Script::new(concat!(
                with_common!("../scripts/q_follow.lua"),
                include_str!("../scripts/q_settle.lua")
            )),
            renew: Script::new(include_str!("../scripts/q_renew.lua")),
            cancel: with_common!("../scripts/q_cancel.lua"),
            requeue: with_common!("../scripts/q_requeue.lua"),
            list: include_str!("../scripts/q_list.lua"),
            drop_dead: with_common!("../scripts/q_drop_dead.lua"),
            repair: with_entry!("../scripts/q_repair.lua"),
        }
    }

    fn named(&self) -> [&Script; 4] {
        [&self.accept, &self.take, &self.settle, &self.renew]
    }
}

/// The scripts of the request path.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) take: Script,
    pub(super) refund: Script,
    pub(super) lease: Script,
    pub(super) release: Script,
    pub(super) session: Script,
    pub(super) renew: Script,
    pub(super) remember: Script,
    pub(super) relock: Script,
    pub(super) queues: QueueScripts,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            take: Script::new(include_str!("../scripts/take.lua")),
            refund: Script::new(include_str!("../scripts/refund.lua")),
            lease: Script::new(include_str!("../scripts/lease.lua")),
            release: Script::new(include_str!("../scripts/release.lua")),
            session: Script::new(include_str!("../scripts/session.lua")),
            renew: Script::new(include_str!("../scripts/session_renew.lua")),
            remember: Script::new(include_str!("../scripts/remember.lua")),
            relock: Script::new(include_str!("../scripts/relock.lua")),
            queues: QueueScripts::new(),
        }
    }

    /// Those that are called by name, which a server must know before it serves. The others are
    /// rare, and travel with their calls; those of queues are loaded when they are called first.
    pub(super) fn named(&self) -> [&Script; 6] {
        let Self { take, lease, session, renew, remember, relock, .. } = self;
        [take, lease, session, renew, remember, relock]
    }

    /// A call by name once more, behind the loading of its script and with its text: the server may
    /// forget it once more in between.
    fn again(&self, pipeline: &mut Pipeline, call: &Cmd) {
        let mut arguments = call.args_iter().filter_map(|argument| match argument {
            Arg::Simple(bytes) => Some(bytes),
            _ => None,
        });
        let sha = arguments.nth(1).unwrap_or_default();
        let Some(script) = self
            .named()
            .into_iter()
            .chain(self.queues.named())
            .find(|script| script.sha.as_bytes() == sha)
        else {
            return;
        };
        pipeline.cmd("SCRIPT").arg("LOAD").arg(script.code);
        let again = pipeline.add_command(start("EVAL")).arg(script.code);
        for argument in arguments {
            again.arg(argument);
        }
    }
}

/// Calls of scripts that the server did not know (SCRIPT FLUSH, or a promoted replica). They did
/// not run, so that sending them again does nothing twice.
#[derive(Debug)]
pub(super) struct Forgotten {
    /// Where they stand among the commands.
    positions: Vec<usize>,
}

impl Forgotten {
    /// Those among the commands of a pipeline; none, as a rule.
    pub(super) fn among(replies: &[Value]) -> Option<Self> {
        let is_unknown = |reply: &Value| match reply {
            Value::ServerError(error) => error.code() == "NOSCRIPT",
            _ => false,
        };
        let unknown = replies.iter().enumerate().filter(|(_, reply)| is_unknown(reply));
        let positions: Vec<usize> = unknown.map(|(at, _)| at).collect();
        (!positions.is_empty()).then_some(Self { positions })
    }

    /// What to send again.
    pub(super) fn again(&self, sent: &Pipeline, scripts: &Scripts) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(2 * self.positions.len() + 1);
        for &at in &self.positions {
            if let Some(call) = sent.cmd_iter().nth(at) {
                scripts.again(&mut pipeline, call);
            }
        }
        pipeline
    }

    /// Puts the second replies where the first ones failed.
    pub(super) fn merge(self, replies: &mut [Value], again: Vec<Value>) {
        let second = again.into_iter().skip(1).step_by(2);
        for (at, value) in self.positions.into_iter().zip(second) {
            if let Some(reply) = replies.get_mut(at) {
                *reply = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> Value {
        redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).expect("an error in RESP")
    }

    #[test]
    fn only_what_did_not_run_is_sent_again_and_its_reply_takes_its_place() {
        let scripts = Scripts::new();
        let mut sent = Pipeline::new();
        sent.cmd("EXISTS").arg("k");
        sent.cmd("EVALSHA").arg(&scripts.take.sha).arg(1).arg("a").arg("x");
        sent.cmd("EVALSHA").arg(&scripts.lease.sha).arg(1).arg("b").arg("y");
        let mut replies = vec![Value::Int(1), Value::Okay, error("NOSCRIPT none such")];
        assert!(Forgotten::among(&replies[..2]).is_none());
        let forgotten = Forgotten::among(&replies).unwrap();
        let mut expected = Pipeline::new();
        expected.cmd("SCRIPT").arg("LOAD").arg(scripts.lease.code);
        expected.cmd("EVAL").arg(scripts.lease.code).arg(1).arg("b").arg("y");
        let again = forgotten.again(&sent, &scripts);
        assert_eq!(again.get_packed_pipeline(), expected.get_packed_pipeline());
        forgotten.merge(&mut replies, vec![Value::Okay, Value::Int(7)]);
        assert_eq!(replies, [Value::Int(1), Value::Okay, Value::Int(7)]);
    }

    /// In a Redis Cluster a script may touch what it is given as a key and nothing else.
    #[test]
    fn no_script_makes_a_key() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/scripts");
        let (mut calls, mut wrong) = (0, Vec::new());
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            // What stands between a command and its key.
            let text = text.replace("'GROUP', 'g', 'gw', 'COUNT', free, 'STREAMS', ", "");
            let text = text.replace("'GROUP', name, ARGV[2], 'COUNT', ARGV[3], 'STREAMS', ", "");
            let named = [
                "for i, key in ipairs(KEYS)",
                "local key, most = KEYS[1]",
                "local key, name = KEYS[1]",
            ];
            // Those of queues make keys of what is given as one, in the same slot.
            let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
            let is_of_queues = name.starts_with("q_");
            let items = text.matches("local item = ").count();
            let made = text.matches("local item = KEYS[").count()
                + text.matches("local item = redis.call('HMGET', KEYS[").count();
            assert!(!is_of_queues || items == made, "{name}");
            for call in text.split("call(").skip(1) {
                let mut words = call.split([',', ')']).map(str::trim);
                let verb = words.next().unwrap();
                let is_of_two = matches!(verb, "'XINFO'" | "'XGROUP'");
                let key = words.nth(usize::from(is_of_two)).unwrap_or_default();
                let is_derived = key.starts_with("KEYS[") || matches!(key, "item" | "line");
                let is_given = is_of_queues && is_derived
                    || key.starts_with("KEYS[") && !key.contains("..")
                    || key == "key" && named.iter().any(|it| text.contains(it));
                calls += 1;
                if verb != "'TIME'" && !is_given {
                    wrong.push(format!("{}: {verb} {key}", path.display()));
                }
            }
        }
        assert!(calls > 50 && wrong.is_empty(), "{calls}, {wrong:#?}");
    }
}
