//! What each part of a question reads, and which slots of a Redis Cluster its keys lie in.

use std::time::Duration;

use redis::Arg;

use super::super::signature::sign_values;
use super::*;
use crate::store::keys::{Keys, slot};
use crate::store::lineage::Lineage;
use crate::store::{
    Cached, ConcurrencyLimit, HeldLock, MarkKeys, Mode, RevocationKeys, WantedLock, Window,
    WindowSet,
};

/// One server.
const HERE: Origin = Origin { now_ms: 0, place: None };
const SECOND: Duration = Duration::from_secs(1);

/// The keys that a command names.
fn keys(command: &redis::Cmd) -> Vec<Vec<u8>> {
    let arguments: Vec<Vec<u8>> = command
        .args_iter()
        .filter_map(|argument| match argument {
            Arg::Simple(bytes) => Some(bytes.to_vec()),
            _ => None,
        })
        .collect();
    let number = |at: usize| std::str::from_utf8(&arguments[at]).unwrap().parse::<usize>().unwrap();
    match arguments[0].as_slice() {
        b"MULTI" | b"EXEC" => Vec::new(),
        b"EVAL" | b"EVALSHA" => arguments[3..3 + number(2)].to_vec(),
        b"EXISTS" | b"MGET" => arguments[1..].to_vec(),
        _ => arguments[1..2].to_vec(),
    }
}

fn texts(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

/// All that a question can ask, under the keys of the contract.
struct Asked {
    purges: Vec<String>,
    blacklist: Vec<String>,
    not_before: String,
    record: String,
    session: [String; 2],
    windows: WindowSet,
    charged: Vec<String>,
    limits: Vec<ConcurrencyLimit>,
    leased: Vec<String>,
    marked: Vec<String>,
    anybody: String,
    claimed: String,
    proof: ProofKey,
    epochs: Vec<String>,
    entry: String,
    variants: Vec<String>,
    lock: HeldLock,
}

impl Asked {
    /// The limits count by this one and that one.
    fn of(principals: [&str; 2]) -> Self {
        let keys = Keys::new("app");
        let limit = |principal: &&str| {
            let mut key = String::new();
            keys.limit_into(&mut key, "api", "15m", principal);
            key
        };
        let window = Window::new(10, Duration::from_secs(60));
        let bound =
            ConcurrencyLimit { most: 1, lease: Duration::from_secs(1), mode: Mode::Enforce };
        let entry = keys.cache_entry("h", "/p", "r");
        Self {
            purges: vec![keys.cache_path("h", "/p"), keys.cache_prefix("/p")],
            blacklist: vec![keys.blacklist("j1"), keys.blacklist_session("s1")],
            not_before: keys.not_before("42"),
            record: keys.api_key("0f"),
            session: [keys.session("s1"), keys.session_end("s1")],
            windows: WindowSet::new(vec![window; 2]),
            charged: principals.iter().map(limit).collect(),
            limits: vec![bound; 2],
            leased: principals.iter().map(|principal| keys.in_flight("slow", principal)).collect(),
            marked: ['a', 'b'].map(|who| keys.wrote(&[&who.to_string()])).to_vec(),
            anybody: keys.wrote(&["anybody"]),
            claimed: keys.idempotency("0f"),
            proof: ProofKey { key: keys.proof("0f"), mark: [7; 16], ttl: SECOND },
            epochs: vec![keys.cache_base(), keys.cache_route("r"), keys.cache_path("h", "/p")],
            variants: texts(&["v"]),
            lock: HeldLock { key: Keys::cache_lock(&entry, 7), token: "t".to_owned() },
            entry,
        }
    }

    fn questions(&self) -> Questions<'_> {
        let [key, end] = &self.session;
        let lock = WantedLock { lock: &self.lock, ttl: Duration::from_secs(1) };
        Questions {
            revocation: Some(RevocationKeys {
                blacklist: &self.blacklist,
                not_before: Some(&self.not_before),
                record: Some(&self.record),
                proof: Some(&self.proof),
            }),
            session: Some(SessionKey { key, ttl: true, bytes_max: 99, end: Some(end) }),
            charges: Some(Charges { set: &self.windows, keys: &self.charged }),
            leases: Some(Leases { limits: &self.limits, keys: &self.leased, holder: "me" }),
            marks: Some(MarkKeys { caller: &self.marked, anybody: Some(&self.anybody) }),
            cached: Some(Cached {
                epochs: &self.epochs,
                entry: Some(CachedEntry {
                    key: &self.entry,
                    variants: &self.variants,
                    lock: Some(lock),
                }),
            }),
            claim: Some(ClaimKey { key: &self.claimed, value: b"p me 7", ttl: SECOND }),
            pending_purges: &self.purges,
        }
    }
}

/// The commands of one part.
fn commands(part: &Part<'_>) -> Vec<redis::Cmd> {
    let mut pipeline = Pipeline::new();
    part.write(&mut pipeline, &Scripts::new()).unwrap();
    pipeline.cmd_iter().cloned().collect()
}

fn name(part: &Part<'_>) -> String {
    let text = format!("{part:?}");
    text.split('(').next().unwrap_or_default().to_owned()
}

/// Which parts a Redis Cluster could be asked as they are, and which would have to be cut. What is
/// said of this in ARCHITECTURE.md is said here.
#[test]
fn parts_that_lie_in_one_slot_and_parts_that_must_be_cut() {
    let spread = |principals| -> Vec<String> {
        let asked = Asked::of(principals);
        let parts = Part::of(&asked.questions(), false);
        assert_eq!(parts.len(), 15);
        let is_spread = |part: &&Part<'_>| {
            let keys: Vec<_> = commands(part).iter().flat_map(keys).collect();
            assert!(keys.contains(&part.key().as_bytes().to_vec()), "{part:?}");
            keys.iter().any(|key| slot(key) != slot(&keys[0]))
        };
        parts.iter().filter(is_spread).map(name).collect()
    };
    assert_eq!(spread(["claim:sub=42"; 2]), ["Purges", "Blacklist", "Epochs"]);
    assert_eq!(
        spread(["claim:sub=42", "route=r"]),
        ["Purges", "Blacklist", "Charges", "Leases", "Epochs"]
    );
}

fn text(text: &[u8]) -> Value {
    Value::BulkString(text.to_vec())
}

/// Epochs as a connection hands them on.
fn signed(mut epochs: Vec<Value>) -> Value {
    sign_values(Lineage::of("id"), &mut epochs);
    Value::Array(epochs)
}

/// A reply for each command of a part.
fn replies(part: &Part<'_>) -> Vec<Value> {
    match part {
        Part::Purges(_) => {
            let queued = || Value::SimpleString("QUEUED".to_owned());
            let done = Value::Array(vec![Value::Okay, Value::Okay]);
            vec![Value::Okay, queued(), queued(), done]
        }
        Part::Blacklist(_) => vec![Value::Int(1)],
        Part::NotBefore(_) => vec![text(b"17")],
        Part::Record(_) => vec![Value::Int(0)],
        Part::Session(_) => vec![text(b"{}"), Value::Int(9000)],
        Part::AnySession(_) => vec![Value::Array(vec![text(b"{}"), Value::Int(9000)])],
        Part::EndLength(_) => vec![Value::Int(20)],
        Part::End(_) => vec![Value::Nil],
        Part::Charges(_) => vec![text(&[[1; 7].as_slice(), &[0; 56]].concat())],
        Part::Leases(_) => vec![Value::Array(vec![Value::Int(1), Value::Int(0), Value::Int(3)])],
        Part::Mark(_) => vec![text(b"12")],
        Part::Anybody(_) => vec![text(b"-")],
        Part::Epochs(_) => vec![signed(vec![text(&[7; 16]), Value::Nil, text(&[9; 16])])],
        Part::Claim(_) => vec![text(b"p you 9")],
        Part::Proof(_) => vec![text(b"another request")],
        Part::Entry(_) => vec![Value::Nil, Value::Array(vec![text(b"accept"), Value::Nil])],
    }
}

#[test]
fn each_part_reads_its_own_replies_and_nothing_else() {
    let asked = Asked::of(["claim:sub=42", "route=r"]);
    let parts = Part::of(&asked.questions(), false);
    let mut answers = Answers::default();
    for part in &parts {
        let mut own = replies(part);
        assert_eq!(own.len(), commands(part).len(), "{part:?}");
        assert_eq!(own.len(), part.commands(), "{part:?}");
        assert!(part.fits(&own), "{part:?}");
        part.read(&mut own, HERE, &mut answers);
    }
    assert!(answers.settled);
    let status =
        RevocationStatus { listed: true, not_before: Some(17), gone: true, replayed: true };
    assert_eq!(answers.revocation, Some(Ok(status)));
    let session = answers.session.as_ref().unwrap().as_ref().unwrap().as_ref().unwrap();
    assert_eq!(session.ttl, Some(Duration::from_secs(9)));
    let charges = answers.charges.as_ref().unwrap().as_ref().unwrap();
    assert!(charges.allowed && charges.windows.len() == 2);
    let leases = answers.leases.as_ref().unwrap().as_ref().unwrap();
    assert_eq!(leases.held, [0, 3]);
    let marks = MarksReply { caller: Mark::At("12".into()), anybody: true };
    assert_eq!(answers.marks, Some(Ok(marks)));
    assert_eq!(answers.claim, Some(Ok(Some("p you 9".into()))));
    let cached = answers.cached.as_ref().unwrap().as_ref().unwrap();
    assert!(cached.based && cached.epochs.len() == 3);
    assert_eq!(cached.holder.as_deref(), Some(b"t".as_slice()));
    assert_eq!(cached.vary.as_deref(), Some(b"accept".as_slice()));
}

#[test]
fn parts_that_are_cut_add_up_to_the_same_answer() {
    let asked = Asked::of(["claim:sub=42", "route=r"]);
    let questions = asked.questions();
    let (leases, set) = (questions.leases.unwrap(), WindowSet::new(vec![asked.windows.windows[0]]));
    let (mine, others) = asked.charged.split_at(1);
    let parts = [
        (Part::Blacklist(&asked.blacklist[..1]), Value::Int(1)),
        (Part::Blacklist(&asked.blacklist[1..]), Value::Int(0)),
        (
            Part::Charges(Charges { set: &set, keys: mine }),
            text(&[[1; 7].as_slice(), &[1; 28]].concat()),
        ),
        (
            Part::Charges(Charges { set: &set, keys: others }),
            text(&[[0; 7].as_slice(), &[0; 28]].concat()),
        ),
        (
            Part::Leases(Leases { keys: &leases.keys[..1], limits: &leases.limits[..1], ..leases }),
            Value::Array(vec![Value::Int(1), Value::Int(5)]),
        ),
        (
            Part::Leases(Leases { keys: &leases.keys[1..], limits: &leases.limits[1..], ..leases }),
            Value::Array(vec![Value::Int(1), Value::Int(6)]),
        ),
        (Part::Epochs(&asked.epochs[..2]), signed(vec![text(&[7; 16]), Value::Nil])),
        (Part::Epochs(&asked.epochs[2..]), signed(vec![text(&[9; 16])])),
    ];
    let mut answers = Answers::default();
    for (part, reply) in parts {
        assert!(part.fits(std::slice::from_ref(&reply)), "{part:?}");
        part.read(&mut [reply], HERE, &mut answers);
    }
    assert!(answers.revocation.unwrap().unwrap().listed);
    let charges = answers.charges.unwrap().unwrap();
    assert!(!charges.allowed && charges.windows.len() == 2);
    assert_ne!(charges.windows[0], charges.windows[1]);
    let leases = answers.leases.unwrap().unwrap();
    assert_eq!((leases.allowed, leases.held), (true, vec![5, 6]));
    let whole = epochs(signed(vec![text(&[7; 16]), Value::Nil, text(&[9; 16])]), 3).unwrap();
    let cut = answers.cached.unwrap().unwrap();
    assert_eq!((cut.epochs, cut.path_epoch), (whole.epochs, whole.path_epoch));
    let unsigned = Value::Array(vec![text(&[7; 16])]);
    assert_eq!(epochs(unsigned, 1), Err(StoreError::Timeout), "of which history?");
}

#[test]
fn a_part_that_fails_fails_its_own_answer_alone() {
    let asked = Asked::of(["claim:sub=42"; 2]);
    let parts = Part::of(&asked.questions(), false);
    for failing in 0..parts.len() {
        let mut answers = Answers::default();
        for (at, part) in parts.iter().enumerate() {
            if at == failing {
                part.fail(&StoreError::Timeout, &mut answers);
            } else {
                part.read(&mut replies(part), HERE, &mut answers);
            }
        }
        let failed = [
            ("Blacklist NotBefore Record", answers.revocation.map(|it| it.is_err())),
            ("Proof", Some(answers.unproven.is_some())),
            ("Session", answers.session.map(|it| it.is_err())),
            ("Charges", answers.charges.map(|it| it.is_err())),
            ("Leases", answers.leases.map(|it| it.is_err())),
            ("Mark Anybody", answers.marks.map(|it| it.is_err())),
            ("Epochs Entry", answers.cached.map(|it| it.is_err())),
            ("Claim", answers.claim.map(|it| it.is_err())),
        ];
        let part = name(&parts[failing]);
        for (of, has_failed) in failed {
            let is_own = of.split(' ').any(|name| name == part);
            assert_eq!(has_failed, Some(is_own), "{of} without {part}");
        }
        assert_eq!(answers.settled, part != "Purges");
    }
}

#[test]
fn what_its_replies_leave_open_is_asked_behind_a_part() {
    let asked = Asked::of(["claim:sub=42"; 2]);
    let parts = Part::of(&asked.questions(), false);
    let find = |wanted: &str| parts.iter().find(|part| name(part) == wanted).unwrap();
    let wrong_type = redis::parse_redis_value(b"-WRONGTYPE no string\r\n").unwrap();
    let next = |part: &Part<'_>, reply: Value| part.next(&[reply]).map(|next| name(&next));
    assert_eq!(next(find("Session"), wrong_type).as_deref(), Some("AnySession"));
    assert_eq!(next(find("Session"), text(b"{}")), None);
    assert_eq!(next(find("EndLength"), Value::Int(64)).as_deref(), Some("End"));
    for bytes in [0, 65] {
        assert_eq!(next(find("EndLength"), Value::Int(bytes)), None);
    }
    let end = Part::End("e");
    let mut answers = Answers { session: Some(Ok(None)), ..Answers::default() };
    assert!(end.is_open(&answers));
    answers.session = Some(Err(StoreError::Timeout));
    assert!(!end.is_open(&answers) && find("Session").is_open(&answers));
}
