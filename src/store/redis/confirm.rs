//! Waits until replicas have what was written: only where a person waits for the answer, and on a
//! connection of its own, because Redis answers nothing else on it meanwhile.
//!
//! WAIT is about what was written, by whomever, before the last write on its own connection. Redis
//! 7.0 took any command for that one; from 7.2 on, and in Valkey, a connection that has written
//! nothing waits for nothing, and is told that all replicas have it. So each wait begins with a
//! small write of its own: behind that it is about all that was acknowledged before.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Pipeline, Value};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::RedisStore;
use super::call::written;
use super::dial::Purpose;
use super::server::Server;
use super::topology::Topology;
use crate::store::keys::Keys;

/// Most connections of this process that wait at a time.
const WAITS_MAX: usize = 16;
/// How much later than `store.replica_timeout` the answer of Redis may come.
const MARGIN: Duration = Duration::from_millis(20);

static WAITS: Semaphore = Semaphore::const_new(WAITS_MAX);

impl RedisStore {
    /// See [`crate::store::Store::confirm_revocations`].
    pub async fn confirm_revocations(&self, keys: &[String]) -> Option<bool> {
        let stream = Keys::new(&self.topology.settings.prefix).revocations();
        self.confirm(&[keys, &[stream]].concat()).await
    }

    /// See [`crate::store::Store::confirm`].
    pub async fn confirm(&self, keys: &[String]) -> Option<bool> {
        self.confirm_at(self.topology.owners(keys)).await
    }

    /// See [`crate::store::Store::confirm_all`].
    pub async fn confirm_all(&self) -> Option<bool> {
        self.confirm_at(self.topology.all()).await
    }

    async fn confirm_at(&self, mut servers: Vec<Arc<Server>>) -> Option<bool> {
        let timeout = self.topology.settings.replica_timeout;
        servers.retain(|server| server.node.replicas() > 0);
        if servers.is_empty() || timeout.is_zero() {
            return None;
        }
        let until = Instant::now() + timeout;
        let asked = servers.iter().map(|server| async move {
            let asked = have_all(&self.topology, server, until);
            match tokio::time::timeout_at(until + MARGIN, asked).await {
                Ok(Some(answer)) => answer,
                Ok(None) | Err(_) => Some(false),
            }
        });
        let answers = join_all(asked).await;
        let confirmed = answers.iter().flatten().copied().reduce(|all, one| all && one);
        if confirmed == Some(false) {
            self.unconfirmed.fetch_add(1, Ordering::Relaxed);
        }
        confirmed
    }
}

/// Whether all replicas of a server have what it has, at last at `until`; nothing in place of an
/// answer where it has none. Nothing at all when it does not say.
async fn have_all(topology: &Topology, server: &Server, until: Instant) -> Option<Option<bool>> {
    let _permit = WAITS.acquire().await.ok()?;
    let connection = topology.dial_to(server, Purpose::Wait, |_| {}).await.ok()?;
    let replicas = replicas_in(&connection.run(&redis::cmd("ROLE")).await.ok()?)?;
    if replicas == 0 {
        return Some(None);
    }
    let left = until.saturating_duration_since(Instant::now()).as_millis();
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline.add_command(written(&server.node.own_key(&topology.settings.prefix, "waited")));
    pipeline.cmd("WAIT").arg(replicas).arg(u64::try_from(left).unwrap_or(u64::MAX).max(1));
    match connection.send(&pipeline).await.ok()?.as_slice() {
        [Value::Okay, Value::Int(have)] => {
            Some(Some(usize::try_from(*have).is_ok_and(|have| have >= replicas)))
        }
        _ => None,
    }
}

/// How many replicas a primary tells of in its answer to ROLE.
fn replicas_in(role: &Value) -> Option<usize> {
    match role {
        Value::Array(parts) => match parts.as_slice() {
            [Value::BulkString(role), _, Value::Array(replicas)] if role == b"master" => {
                Some(replicas.len())
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_tells_of_its_replicas() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let role = |role: &str, replicas| {
            Value::Array(vec![text(role), Value::Int(7), Value::Array(replicas)])
        };
        assert_eq!(replicas_in(&role("master", vec![])), Some(0));
        assert_eq!(replicas_in(&role("master", vec![Value::Nil, Value::Nil])), Some(2));
        assert_eq!(replicas_in(&role("slave", vec![])), None);
        assert_eq!(replicas_in(&Value::Array(vec![text("master")])), None);
        assert_eq!(replicas_in(&Value::Okay), None);
    }
}
