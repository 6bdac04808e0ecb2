//! What is the matter with Redis, said once by name and with what to do, for all threads together:
//! a condition that holds is said when it begins, and again only after it was over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

/// How long a condition is not met with before it is over.
const OVER_AFTER: Duration = Duration::from_secs(60);

/// What may be the matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    ReadOnly,
    OutOfMemory,
    NoPermission,
    NoReplicas,
    CannotSave,
    ClusterDown,
    IsCluster,
    Busy,
    Loading,
    PrimaryDown,
    NotLoggedIn,
    WrongPassword,
    Evicts,
    NotToldOfEviction,
    ReplyTooLong,
    ForeignReply,
    WantsTls,
    NoTls,
    UnknownAuthority,
    OtherName,
    OutOfDate,
    BadCertificate,
    RefusesClient,
}

use Condition::{
    BadCertificate, Busy, CannotSave, ClusterDown, Evicts, ForeignReply, IsCluster, Loading,
    NoPermission, NoReplicas, NoTls, NotLoggedIn, NotToldOfEviction, OtherName, OutOfDate,
    OutOfMemory, PrimaryDown, ReadOnly, RefusesClient, ReplyTooLong, UnknownAuthority, WantsTls,
    WrongPassword,
};

/// Each with what is the matter, and what to do; `{store}` stands for the table of the store.
const TEXTS: [(Condition, &str, &str); 23] = [
    (
        ReadOnly,
        "Redis is a replica and takes no writes (READONLY)",
        "name the primary, or an address that follows it, in {store}.url",
    ),
    (
        OutOfMemory,
        "Redis has no memory for writes (OOM)",
        "raise its maxmemory, or find what fills it",
    ),
    (
        NoPermission,
        "the Redis user lacks a right (NOPERM)",
        "give it those that docs/redis.md lists (ACL SETUSER); ACL LOG names what was refused",
    ),
    (
        NoReplicas,
        "Redis refuses writes because too few replicas follow it (NOREPLICAS)",
        "bring its replicas back, or lower min-replicas-to-write",
    ),
    (
        CannotSave,
        "Redis refuses writes because it cannot save to its disk (MISCONF)",
        "look into its log and make room on the disk, or set stop-writes-on-bgsave-error no",
    ),
    (
        ClusterDown,
        "the Redis Cluster is down (CLUSTERDOWN)",
        "bring back the nodes of the slots that nobody serves",
    ),
    (
        IsCluster,
        "Redis is a node of a Redis Cluster, which sends clients on (MOVED, CROSSSLOT)",
        "write redis-cluster:// in {store}.url",
    ),
    (
        Busy,
        "Redis is held up by a script of somebody (BUSY)",
        "end it with SCRIPT KILL, or FUNCTION KILL, and find whose it is",
    ),
    (Loading, "Redis is loading its data (LOADING)", "wait until it is done"),
    (
        PrimaryDown,
        "Redis is a replica that has lost its primary (MASTERDOWN)",
        "name the primary in {store}.url",
    ),
    (NotLoggedIn, "Redis wants a password (NOAUTH)", "set {store}.username and {store}.password"),
    (
        WrongPassword,
        "Redis does not know this user or password (WRONGPASS)",
        "correct {store}.username and {store}.password, or ACL SETUSER in Redis",
    ),
    (
        Evicts,
        "Redis evicts keys when its memory is full: limits forget what they counted, revocations \
         and sessions end early, stale responses come back",
        "set maxmemory-policy noeviction",
    ),
    (
        NotToldOfEviction,
        "this Redis user may not read maxmemory-policy, so a Redis that evicts keys goes unnoticed",
        "add +info to its rights, or see to it that maxmemory-policy is noeviction",
    ),
    (
        ReplyTooLong,
        "Redis sent a reply longer than {store}.reply_bytes; that connection was ended",
        "look for a giant value under the keys of store.prefix (redis-cli --bigkeys)",
    ),
    (
        ForeignReply,
        "Redis sent what is no reply to what was asked; that connection was ended",
        "look at what stands between the gateway and Redis: {store}.url must lead to Redis itself",
    ),
    (
        WantsTls,
        "Redis speaks TLS at this address, and {store}.url says that it does not",
        "write rediss:// in {store}.url, or name Redis's port without TLS",
    ),
    (
        NoTls,
        "what answers at this address does not speak TLS, and {store}.url says that it does",
        "name Redis's tls-port in {store}.url, or write redis:// in a network of your own",
    ),
    (
        UnknownAuthority,
        "Redis's certificate was signed by nobody that is believed here",
        "name the certificate of who signed it as {store}.tls.ca_file",
    ),
    (
        OtherName,
        "Redis's certificate is for another name than the one in {store}.url",
        "write a name of the certificate in {store}.url, or as {store}.tls.server_name",
    ),
    (
        OutOfDate,
        "Redis's certificate has expired, or is not valid yet",
        "renew it, and have Redis load it (CONFIG SET tls-cert-file); look at this machine's clock",
    ),
    (
        BadCertificate,
        "Redis could not prove who it is: its certificate, or its part of the handshake, is wrong",
        "look at the tls-cert-file, tls-key-file and tls-protocols of Redis",
    ),
    (
        RefusesClient,
        "Redis ended the TLS handshake: it wants a certificate, or does not believe this one",
        "name one that its tls-ca-cert-file vouches for as {store}.tls.client_cert and client_key",
    ),
];

/// Those of which nothing is left once a connection stands.
pub(super) const ENDED_BY_A_CONNECTION: [Condition; 12] = [
    ReadOnly,
    Loading,
    PrimaryDown,
    NotLoggedIn,
    WrongPassword,
    WantsTls,
    NoTls,
    UnknownAuthority,
    OtherName,
    OutOfDate,
    BadCertificate,
    RefusesClient,
];

impl Condition {
    /// What a code of an error stands for.
    pub(super) fn of_code(code: &str) -> Option<Self> {
        Some(match code {
            "READONLY" => ReadOnly,
            "OOM" => OutOfMemory,
            "NOPERM" => NoPermission,
            "NOREPLICAS" => NoReplicas,
            "MISCONF" => CannotSave,
            "CLUSTERDOWN" => ClusterDown,
            "MOVED" | "ASK" | "CROSSSLOT" | "TRYAGAIN" => IsCluster,
            "BUSY" => Busy,
            "LOADING" => Loading,
            "MASTERDOWN" => PrimaryDown,
            "NOAUTH" => NotLoggedIn,
            "WRONGPASS" => WrongPassword,
            _ => return None,
        })
    }

    /// Whether it is looked at from time to time, so that it is over when a look says so.
    fn is_looked_at(self) -> bool {
        matches!(self, Evicts | NotToldOfEviction)
    }

    /// What is the matter, and what to do, of the store with this table.
    pub(super) fn text(self, table: &str) -> (String, String) {
        let (_, what, remedy) = TEXTS[self as usize];
        (what.replace("{store}", table), remedy.replace("{store}", table))
    }
}

/// Which conditions hold, as far as this process has seen.
#[derive(Debug)]
pub(super) struct Says {
    started: Instant,
    /// By condition: the milliseconds from the start to when it was last met with, and one more; 0
    /// while it does not hold.
    seen_ms: [AtomicU64; TEXTS.len()],
    /// What is no news of this server.
    expected: Option<Condition>,
    /// The server's name.
    server: Option<String>,
    /// The table of its store in the configuration.
    table: &'static str,
}

impl Says {
    /// Of a server of the store with this table.
    pub(super) fn of(server: Option<String>, table: &'static str) -> Self {
        let (started, seen_ms) = (Instant::now(), Default::default());
        Self { started, seen_ms, expected: None, server, table }
    }

    /// The same of one that may be in this condition, as one of a Redis Cluster sends on, and
    /// others know what to do then.
    pub(super) fn expecting(self, condition: Condition) -> Self {
        Self { expected: Some(condition), ..self }
    }

    /// A condition was met with.
    pub(super) fn note(&self, condition: Condition) {
        self.note_with(condition, "");
    }

    /// The same, with a detail that holds nothing of a user's.
    pub(super) fn note_with(&self, condition: Condition, detail: &str) {
        if self.expected != Some(condition) && self.is_news(condition) {
            let (what, remedy) = condition.text(self.table);
            let detail = (!detail.is_empty()).then_some(detail);
            tracing::warn!(remedy, detail, server = self.server, "{what}");
        }
    }

    /// Takes note of every error among the replies, in transactions too.
    pub(super) fn note_replies(&self, replies: &[Value]) {
        for reply in replies {
            match reply {
                Value::ServerError(error) => self.note_error(error.code(), error.details()),
                Value::Array(parts) if parts.iter().any(is_error) => self.note_replies(parts),
                _ => {}
            }
        }
    }

    /// Takes note of an error by its code.
    pub(super) fn note_error(&self, code: &str, details: Option<&str>) {
        if let Some(condition) = Condition::of_code(code) {
            let command = details.filter(|_| condition == NoPermission).and_then(denied_command);
            self.note_with(condition, command.unwrap_or_default());
        }
    }

    /// Whether a condition holds, as far as is known.
    pub(super) fn holds(&self, condition: Condition) -> bool {
        self.place(condition).load(Ordering::Relaxed) != 0
    }

    /// A condition does not hold any more.
    pub(super) fn is_over(&self, condition: Condition) {
        self.place(condition).store(0, Ordering::Relaxed);
    }

    fn is_news(&self, condition: Condition) -> bool {
        let now_ms = millis(self.started.elapsed()).saturating_add(1);
        let before_ms = self.place(condition).swap(now_ms, Ordering::Relaxed);
        let quiet_ms = now_ms.saturating_sub(before_ms);
        before_ms == 0 || (!condition.is_looked_at() && quiet_ms > millis(OVER_AFTER))
    }

    fn place(&self, condition: Condition) -> &AtomicU64 {
        &self.seen_ms[condition as usize]
    }
}

fn is_error(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(_))
}

/// The command that a user may not run, from Redis's own words.
fn denied_command(details: &str) -> Option<&str> {
    let (_, rest) = details.split_once("run the '")?;
    let (command, _) = rest.split_once('\'')?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'|' | b'-' | b'_' | b'.');
    (command.len() <= 64 && command.bytes().all(plain)).then_some(command)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[test]
    fn every_condition_has_its_own_words_and_a_place() {
        for (place, (condition, what, remedy)) in TEXTS.iter().enumerate() {
            assert_eq!(*condition as usize, place);
            assert!(!what.is_empty() && !remedy.is_empty());
            let (what, remedy) = condition.text("store.cache");
            let said = format!("{what} {remedy}").replace("store.prefix", "");
            assert!(!said.contains('{') && !said.replace("store.cache.", "").contains("store."));
        }
        for code in [
            "READONLY",
            "OOM",
            "NOPERM",
            "NOREPLICAS",
            "MISCONF",
            "CLUSTERDOWN",
            "BUSY",
            "LOADING",
            "MASTERDOWN",
            "NOAUTH",
            "WRONGPASS",
            "MOVED",
            "CROSSSLOT",
        ] {
            let condition = Condition::of_code(code).expect(code);
            assert!(condition.text("store").0.contains(code), "{code} is not named");
        }
        for fine in ["NOSCRIPT", "WRONGTYPE", "ERR", "EXECABORT", ""] {
            assert_eq!(Condition::of_code(fine), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_condition_is_news_once_and_again_after_it_was_over() {
        let says = Says::of(None, "store");
        assert!(says.is_news(OutOfMemory) && !says.is_news(OutOfMemory));
        assert!(says.is_news(Busy), "another one is other news");
        for _ in 0..10 {
            advance(OVER_AFTER).await;
            assert!(!says.is_news(OutOfMemory), "it went on");
        }
        advance(OVER_AFTER + Duration::from_millis(1)).await;
        assert!(says.is_news(OutOfMemory), "it was over");
        says.is_over(OutOfMemory);
        assert!(says.is_news(OutOfMemory));
        assert!(says.is_news(Evicts));
        advance(100 * OVER_AFTER).await;
        assert!(!says.is_news(Evicts), "nobody looked");
        says.is_over(Evicts);
        assert!(says.is_news(Evicts));
    }

    #[test]
    fn a_denied_command_is_named_and_nothing_else() {
        let words = "User gateway has no permissions to run the 'client|tracking' command";
        assert_eq!(denied_command(words), Some("client|tracking"));
        for odd in ["no permissions to access a key 'app:session:x'", "run the 'a b' command", ""] {
            assert_eq!(denied_command(odd), None);
        }
    }
}
