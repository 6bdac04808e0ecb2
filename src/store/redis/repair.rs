//! Writes again what Redis has lost of revocations and a member of the fleet still knows.
//!
//! Each key is the affair of one member of those that follow revocations: of who has the highest
//! hash with it. One that was made just before is that of all who know it, because not all do. A
//! member that is gone stays in the set of members for some time, so that there is a second round
//! behind the first.

use std::collections::HashSet;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::follow::Follower;
use super::reply::server_error;
use super::stream::{self, End, Look, Place, Told, millis};
use super::topology::Topology;
use crate::store::keys::{Keys, REVOKED_KEY};
use crate::store::lineage::{LineageChange, LineageChanges};
use crate::store::revoked::Known;
use crate::store::{Reply, StoreError};

/// When the second round begins: members that are gone are out of the set of members by then.
const SECOND_ROUND: Duration = Duration::from_secs(12);
/// How old a revocation is that may not have reached all members, in seconds.
const NEWS_S: u64 = 600;
/// Pause before what failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Most rounds that fail before the loss is left as it is.
const ROUNDS_MAX: usize = 60;
/// How many keys are written at once.
const AT_ONCE: usize = 100;
/// What the key of a token holds that was written again: any value revokes, and this one tells it
/// from what is revoked anew.
const AGAIN: &str = "again";
/// Behind the name of a member that follows revocations.
pub(super) const FOLLOWS: &str = ",revocations";

/// Repairs after each change of a lineage. Ends when the follower is dropped, or the store.
pub(super) async fn keep(
    follower: Weak<Follower>,
    topology: Weak<Topology>,
    mut changes: LineageChanges,
) {
    while let Some(changes) = changes.next().await {
        let Some(held) = topology.upgrade() else { return };
        let stream = Keys::new(&held.settings.prefix).revocations();
        let is_on = |change: &LineageChange| held.lies_on(&stream, &change.server);
        let is_stream_hit = changes.iter().any(is_on);
        drop(held);
        for round in 0..2 {
            if round > 0 {
                tokio::time::sleep(SECOND_ROUND).await;
            }
            let mut done = Done::default();
            for _ in 0..ROUNDS_MAX {
                let (Some(follower), Some(topology)) = (follower.upgrade(), topology.upgrade())
                else {
                    return;
                };
                let repair = Repair { follower: &follower, topology: &topology, stream: &stream };
                let looks = is_stream_hit && round > 0 && topology.is_spread();
                match repair.round(looks, &mut done).await {
                    Ok(()) => break,
                    Err(error) => {
                        tracing::debug!(%error, "revocations are not written again yet");
                    }
                }
                drop((follower, topology));
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            if done.count > 0 {
                tracing::warn!(
                    count = done.count,
                    "revocations that Redis had lost are written again"
                );
            }
        }
    }
}

/// What rounds have done.
#[derive(Debug, Default)]
struct Done {
    /// How many were written.
    count: u64,
    /// Those of them that nobody was told of yet: the next round finds them there. They are told
    /// once it is known whether they were taken back before they were written.
    untold: Vec<Known>,
}

/// One round.
struct Repair<'a> {
    follower: &'a Follower,
    topology: &'a Topology,
    stream: &'a str,
}

impl Repair<'_> {
    /// `looks`: also at what the stream has lost alone, as it can where it lies elsewhere.
    async fn round(&self, looks: bool, done: &mut Done) -> Result<(), StoreError> {
        let Some((gateways, name)) = self.follower.member.get() else { return Ok(()) };
        let members = self.members(gateways, name).await?;
        let mut own = self.follower.known();
        let now = super::follow::now_s();
        let is_new = |known: &Known| known.since.saturating_add(NEWS_S) >= now;
        own.retain(|known| is_new(known) || is_mine(&known.key, name, &members));
        let mut failed = self.tell_untold(done).await.err();
        for some in own.chunks(AT_ONCE) {
            let at = Instant::now();
            // A round takes its time, and what was taken back meanwhile is not to come back.
            let some = self.follower.still_known(some);
            match self.write_again(&some, done).await {
                Ok(()) => {}
                Err(error) => failed = Some(error),
            }
            let rate = self.topology.settings.republish_per_second;
            let pause = Duration::from_secs(1).mul_f64(some.len() as f64 / rate as f64);
            tokio::time::sleep_until(at + pause).await;
        }
        if let Err(error) = self.tell_untold(done).await {
            failed = Some(error);
        }
        if looks {
            self.tell_again(&own).await?;
        }
        failed.map_or(Ok(()), Err)
    }

    /// The members that follow revocations, this one among them.
    async fn members(&self, gateways: &str, name: &str) -> Result<Vec<String>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("ZRANGE").arg(gateways).arg(0).arg(-1);
        let members = self.run(&mut pipeline).await?.pop().unwrap_or_default();
        let members: Vec<String> = redis::from_redis_value(members).unwrap_or_default();
        let mut members: Vec<String> =
            members.into_iter().filter(|member| member.ends_with(FOLLOWS)).collect();
        if !members.iter().any(|member| member == name) {
            members.push(name.to_owned());
        }
        Ok(members)
    }

    /// Writes what is not there. It is told of later.
    async fn write_again(&self, some: &[Known], done: &mut Done) -> Result<(), StoreError> {
        if some.is_empty() {
            return Ok(());
        }
        let now = super::follow::now_s();
        let mut pipeline = Pipeline::with_capacity(some.len() + 1);
        for known in some {
            pipeline.add_command(written(known, now));
        }
        let replies = self.topology.run_apart(&mut pipeline, self.deadline()).await;
        let is_written = |reply: &Value| matches!(reply, Value::Okay | Value::Int(1));
        let lost = some.iter().zip(&replies);
        let lost: Vec<Known> = lost
            .filter(|(_, reply)| reply.as_ref().is_ok_and(is_written))
            .map(|(known, _)| known.clone())
            .collect();
        done.count += lost.len() as u64;
        self.follower.republished.fetch_add(lost.len() as u64, Ordering::Relaxed);
        done.untold.extend(lost);
        // A server that has just come back may not take it yet.
        let fault = |reply: Reply<Value>| reply.map_or_else(Some, |reply| server_error(&reply));
        match replies.into_iter().find_map(fault) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Tells of what was written. What was taken back before that goes again: whoever took it back
    /// has told of that before it was written, so that it is known here by now.
    async fn tell_untold(&self, done: &mut Done) -> Result<(), StoreError> {
        if !done.untold.is_empty() && !self.follower.has_heard().await {
            return Err(StoreError::Unavailable);
        }
        while !done.untold.is_empty() {
            let some = done.untold.split_off(done.untold.len().saturating_sub(AT_ONCE));
            if let Err(error) = self.settle(&some).await {
                done.untold.extend(some);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn settle(&self, some: &[Known]) -> Result<(), StoreError> {
        let back = self.follower.taken_back(some);
        if !back.is_empty() {
            let mut pipeline = Pipeline::with_capacity(back.len() + 1);
            for known in &back {
                pipeline.add_command(self.unwritten(known));
            }
            self.run(&mut pipeline).await?;
        }
        self.tell(some).await
    }

    /// The command that takes away what [`written`] wrote, and nothing that stands there by now.
    fn unwritten(&self, known: &Known) -> Cmd {
        let value = known.not_before.map_or_else(|| AGAIN.to_owned(), |at| at.to_string());
        let mut delete = redis::cmd("EVAL");
        // Rare, so the script travels with the call.
        delete.arg(self.topology.scripts.relock.code).arg(1).arg(&known.key).arg(value).arg(0);
        delete
    }

    /// Tells of those that still hold.
    async fn tell(&self, some: &[Known]) -> Result<(), StoreError> {
        let lost = self.follower.still_known(some);
        if lost.is_empty() {
            return Ok(());
        }
        let now = super::follow::now_s();
        let most = self.topology.settings.revocations;
        let mut pipeline = Pipeline::new();
        for known in &lost {
            let left = Duration::from_secs(known.until.saturating_sub(now));
            let ttl = left.max(self.follower.lifetime);
            let told = Told::again(&known.key, known.not_before, known.until);
            let mut commands = stream::write(self.stream, most, Vec::new(), told, ttl);
            stream::be_late(&mut commands);
            for command in commands {
                pipeline.add_command(command);
            }
        }
        self.run(&mut pipeline).await.map(|_| ())
    }

    /// Tells of what the stream does not tell any more.
    async fn tell_again(&self, own: &[Known]) -> Result<(), StoreError> {
        let told = self.told().await?;
        // What it says was taken back is not lost, though this node may be about to hear of it.
        let is_lost = |known: &&Known| !told.contains(&known.key);
        let lost: Vec<Known> = own.iter().filter(is_lost).cloned().collect();
        for some in lost.chunks(AT_ONCE) {
            self.tell(some).await?;
        }
        Ok(())
    }

    /// The keys that the stream tells of.
    async fn told(&self) -> Result<HashSet<String>, StoreError> {
        let (mut place, mut told) = (Place::default(), HashSet::new());
        loop {
            let mut look = place.look(self.stream);
            let replies = self.topology.run(&mut look, self.deadline()).await?;
            let look = Look::read(replies).map_err(StoreError::Refused)?;
            for entry in &look.entries {
                let key = entry.fields.iter().find(|(name, _)| name == REVOKED_KEY.as_bytes());
                told.extend(key.and_then(|(_, key)| String::from_utf8(key.clone()).ok()));
            }
            match place.advance(&look) {
                End::More => {}
                End::Again => told.clear(),
                End::Reached | End::Missed { .. } => return Ok(told),
            }
        }
    }

    async fn run(&self, pipeline: &mut Pipeline) -> Result<Vec<Value>, StoreError> {
        let replies = self.topology.run(pipeline, self.deadline()).await?;
        match replies.iter().find_map(server_error) {
            Some(error) => Err(error),
            None => Ok(replies),
        }
    }

    /// No request waits for it.
    fn deadline(&self) -> Instant {
        Instant::now() + self.topology.settings.connect_timeout
    }
}

/// The command that writes a revocation, unless one is there.
fn written(known: &Known, now: u64) -> Cmd {
    let left = millis(Duration::from_secs(known.until.saturating_sub(now)));
    let Some(not_before) = known.not_before else {
        let mut set = redis::cmd("SET");
        set.arg(&known.key).arg(AGAIN).arg("NX").arg("PX").arg(left);
        return set;
    };
    let mut raise = redis::cmd("EVAL");
    raise.arg(include_str!("../scripts/raise.lua")).arg(1).arg(&known.key);
    raise.arg(not_before).arg(left);
    raise
}

/// Whether no other member has a higher hash with this key.
fn is_mine(key: &str, name: &str, members: &[String]) -> bool {
    let rank = |member: &str| xxh3_64([member, " ", key].concat().as_bytes());
    members.iter().all(|other| other == name || rank(other) < rank(name))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{self, StoreUrl};

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_dropped_is_held_by_nobody() {
        // Nobody listens there.
        let url = StoreUrl::Redis { host: "127.0.0.1".to_owned(), port: 1, db: 0 };
        let topology = Topology::open(&config::Store { url, ..config::Store::default() });
        let follower = Follower::start(&topology, SECOND_ROUND, &Arc::default());
        let (store, changes) = (Arc::downgrade(&topology), topology.common.histories.changes());
        tokio::spawn(keep(Arc::downgrade(&follower), Weak::clone(&store), changes));
        tokio::time::sleep(Duration::from_secs(100)).await;
        drop((topology, follower));
        tokio::time::sleep(Duration::from_secs(1000)).await;
        assert!(store.upgrade().is_none());
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    }

    #[test]
    fn each_key_is_the_affair_of_one_member() {
        let members: Vec<String> = (0..5).map(|number| format!("gateway-{number}")).collect();
        let mut counts = [0; 5];
        for number in 0..1000 {
            let key = format!("app:auth:blacklist:{number}");
            let mine: Vec<usize> =
                (0..5).filter(|at| is_mine(&key, &members[*at], &members)).collect();
            assert_eq!(mine.len(), 1, "{key}");
            counts[mine[0]] += 1;
            // Whoever leaves changes nothing for the others.
            let rest: Vec<String> = members
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != mine[0])
                .map(|it| it.1.clone())
                .collect();
            assert_eq!(rest.iter().filter(|it| is_mine(&key, it, &rest)).count(), 1);
        }
        assert!(counts.iter().all(|count| (100..300).contains(count)), "{counts:?}");
    }
}
