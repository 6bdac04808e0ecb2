//! Looks from time to time whether Redis would evict keys, on the connection that no request waits
//! for.

use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::{InfoDict, RedisError};
use tokio::time::Instant;

use super::common::Memory;
use super::findings::Report;
use super::link::Link;
use super::node::Node;
use super::published::Published;
use super::says::{Condition, Says};
use super::selftest;
use super::set_up;
use crate::config::StoreUse;

/// What is looked at, as far as findings go.
const CHECKS: [&str; 2] = ["eviction", "memory"];
/// Pause between two looks at the same connection.
const LOOK_PAUSE: Duration = Duration::from_secs(15);
/// How often it is seen whether there is a new connection.
const TICK: Duration = Duration::from_secs(1);
/// The first version of Redis, or the one that Valkey names itself, that has WAITAOF.
const WAITAOF_SINCE: (u32, u32) = (7, 2);
/// Longest wait for one look.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks at each new connection, and then again and again. Ends when the link is dropped.
pub(super) async fn watch(link: Weak<Link>, says: Arc<Says>) {
    let mut last: Option<(Weak<Published>, Instant)> = None;
    loop {
        let Some(strong) = link.upgrade() else { return };
        let (published, node) = (strong.get(), Arc::clone(strong.node()));
        drop(strong);
        if let Some(published) = published {
            let is_same = |known: &Weak<Published>| known.as_ptr() == Arc::as_ptr(&published);
            let is_due = last
                .as_ref()
                .is_none_or(|(known, at)| !is_same(known) || at.elapsed() >= LOOK_PAUSE);
            if is_due {
                last = Some((Arc::downgrade(&published), Instant::now()));
                look(&published, &node, &says).await;
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

async fn look(published: &Published, node: &Node, says: &Says) {
    let asked = async {
        let memory = published.connection.run(redis::cmd("INFO").arg("memory")).await?;
        let info: InfoDict = redis::from_redis_value(memory)?;
        let mut disk = Disk::default();
        if node.common.is_for(StoreUse::Queue) {
            let persistence =
                published.connection.run(redis::cmd("INFO").arg("persistence")).await?;
            let server = published.connection.run(redis::cmd("INFO").arg("server")).await?;
            disk =
                Disk::of(&redis::from_redis_value(persistence)?, &redis::from_redis_value(server)?);
        }
        Ok::<_, RedisError>((info, disk))
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok((info, disk))) => {
            note(node, &info, &disk);
            says.is_over(Condition::NotToldOfEviction);
            // It may have been set since the server was looked at.
            let (checks, findings) = (CHECKS.into_iter().collect(), set_up::findings(&info));
            node.common.tell(node.name().unwrap_or_default(), Report { checks, findings });
            match info.get::<String>("maxmemory_policy") {
                Some(policy) if policy != "noeviction" => {
                    says.note_with(Condition::Evicts, &format!("maxmemory-policy {policy}"));
                }
                _ => says.is_over(Condition::Evicts),
            }
        }
        Ok(Err(error)) if is_denied(&error) => says.note(Condition::NotToldOfEviction),
        // Others look after the connection.
        Ok(Err(_)) | Err(_) => {}
    }
}

/// Whether work may be kept there.
fn note(node: &Node, info: &InfoDict, disk: &Disk) {
    let Some(policy) = info.get::<String>("maxmemory_policy") else { return };
    let bound: u64 = info.get("maxmemory").unwrap_or_default();
    let evicts = bound > 0 && policy != "noeviction";
    let Disk { appends, fsyncs } = *disk;
    let memory = Memory { policy, evicts, appends, fsyncs };
    node.common.note_memory(node.name().unwrap_or_default(), memory);
}

/// What becomes of writes on the disk of a server, as far as it says. The fields are those of
/// [`Memory`].
#[derive(Debug, Default)]
struct Disk {
    appends: Option<bool>,
    fsyncs: Option<bool>,
}

impl Disk {
    /// From the parts `persistence` and `server` of INFO.
    fn of(persistence: &InfoDict, server: &InfoDict) -> Self {
        let appends = persistence.get::<u8>("aof_enabled").map(|enabled| enabled == 1);
        let version = server.get::<String>("redis_version");
        let has_command = version.map(|version| selftest::number(&version) >= WAITAOF_SINCE);
        let fsyncs = match (appends, has_command) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            (None, _) | (_, None) => None,
        };
        Self { appends, fsyncs }
    }
}

fn is_denied(error: &RedisError) -> bool {
    error.code() == Some("NOPERM")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_the_disk_is_known_of_a_file_and_by_a_command() {
        let info = |text: &str| InfoDict::new(text);
        for (persistence, server, expected) in [
            ("aof_enabled:1\r\n", "redis_version:7.2.4\r\n", (Some(true), Some(true))),
            ("aof_enabled:1\r\n", "redis_version:10.0.0\r\n", (Some(true), Some(true))),
            ("aof_enabled:1\r\n", "redis_version:7.0.15\r\n", (Some(true), Some(false))),
            ("aof_enabled:0\r\n", "redis_version:8.0.0\r\n", (Some(false), Some(false))),
            ("aof_enabled:0\r\n", "", (Some(false), Some(false))),
            ("aof_enabled:1\r\n", "", (Some(true), None)),
            ("", "redis_version:7.2.4\r\n", (None, None)),
            ("", "redis_version:6.2.0\r\n", (None, Some(false))),
        ] {
            let Disk { appends, fsyncs } = Disk::of(&info(persistence), &info(server));
            assert_eq!((appends, fsyncs), expected, "{persistence:?} {server:?}");
        }
    }
}
