//! Of which history of a server's data an answer is.
//!
//! A server that takes over, or comes back with what it had saved, may have lost the last writes:
//! an epoch is what it was before a purge then, and what was stored before that purge would look
//! valid. So each epoch is mixed with the lineage of the server that answered, a hash of its
//! replication id, which no other history has. What was stored under one lineage is never valid
//! under another one, and all gateways agree, because the id is the server's.

use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_128;

use super::Epoch;

/// See the module. That of the embedded store, which has one history, changes nothing. Bytes, and
/// no number: all that holds one would have to lie at sixteen bytes, for which the allocator has no
/// quick way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lineage([u8; 16]);

impl Lineage {
    /// Of the history with this id.
    pub(crate) fn of(id: &str) -> Self {
        Self::from_bits(xxh3_128(id.as_bytes()))
    }

    pub(crate) fn from_bits(bits: u128) -> Self {
        Self(bits.to_le_bytes())
    }

    pub(crate) fn to_bits(self) -> u128 {
        u128::from_le_bytes(self.0)
    }

    /// An epoch of the store as it is used; and of one that is used, the store's.
    pub(crate) fn mix(self, epoch: Epoch) -> Epoch {
        Epoch::of_bits(epoch.to_bits() ^ self.to_bits())
    }
}

/// An epoch as it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Mixed with the lineage.
    pub epoch: Epoch,
    /// Of the server that answered.
    pub lineage: Lineage,
}

/// The lineages of several epochs, in their order: one, where all came from one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lineages {
    first: Lineage,
    /// From which position on another one holds.
    others: Vec<(usize, Lineage)>,
}

impl Lineages {
    /// All are of this one.
    pub(crate) fn all(first: Lineage) -> Self {
        Self { first, others: Vec::new() }
    }

    /// That of the epoch at this position.
    pub(crate) fn at(&self, position: usize) -> Lineage {
        let other = self.others.iter().rev().find(|(from, _)| *from <= position);
        other.map_or(self.first, |(_, lineage)| *lineage)
    }

    /// Those of more epochs, which stand from this position on.
    pub(crate) fn join(&mut self, from: usize, more: Self) {
        self.others.push((from, more.first));
        self.others.extend(more.others.into_iter().map(|(at, lineage)| (from + at, lineage)));
    }
}

/// What became of a server's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Another server goes on with it, or the same one after it was another one's replica: what it
    /// had not received is lost.
    FailOver,
    /// It has another history: all may be lost.
    Data,
}

/// A server has another lineage than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineageChange {
    /// What was lost.
    pub loss: Loss,
    /// Host and port of the server, where there are several.
    pub server: String,
}

/// Tells of lineages that change, each once.
#[derive(Debug)]
pub struct LineageChanges {
    pub(crate) told: watch::Receiver<Vec<(u64, LineageChange)>>,
    pub(crate) heard: u64,
}

impl LineageChanges {
    /// Waits for some; nothing when there will be none any more.
    pub async fn next(&mut self) -> Option<Vec<LineageChange>> {
        loop {
            let mut new = Vec::new();
            for (number, change) in &*self.told.borrow_and_update() {
                if *number > self.heard {
                    self.heard = *number;
                    new.push(change.clone());
                }
            }
            if !new.is_empty() {
                return Some(new);
            }
            self.told.changed().await.ok()?;
        }
    }
}

/// By what the lineages of the store are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineageSource {
    /// `master_replid` of its servers.
    ReplicationId,
    /// `run_id`, where they do not tell the former: a fail-over is seen, and so is a restart.
    RunId,
    /// A key that gateways replace when they connect again. What was lost without that is not
    /// seen.
    Key,
    /// Nothing.
    Nothing,
}

impl LineageSource {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReplicationId => "replication_id",
            Self::RunId => "run_id",
            Self::Key => "key",
            Self::Nothing => "none",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mixed_twice_is_what_it_was() {
        let (one, other) = (Lineage::of("a"), Lineage::of("b"));
        let epoch = Epoch { hard: [1; 8], soft: [2; 8] };
        assert_eq!(one.mix(one.mix(epoch)), epoch);
        assert_eq!(Lineage::default().mix(epoch), epoch);
        for epoch in [epoch, Epoch::default()] {
            let (one, other) = (one.mix(epoch), other.mix(epoch));
            assert!(one.hard != other.hard && one.soft != other.soft);
            assert!(one.hard != epoch.hard && one.soft != epoch.soft);
        }
    }

    #[test]
    fn each_epoch_has_its_own() {
        let [a, b, c] = ["a", "b", "c"].map(Lineage::of);
        let mut all = Lineages::all(a);
        let mut more = Lineages::all(b);
        more.join(2, Lineages::all(c));
        all.join(3, more);
        let found: Vec<Lineage> = (0..7).map(|at| all.at(at)).collect();
        assert_eq!(found, [a, a, a, b, b, c, c]);
    }

    #[tokio::test]
    async fn each_change_is_told_once() {
        let change = |server: &str| LineageChange { loss: Loss::Data, server: server.to_owned() };
        let (tell, told) = watch::channel(vec![(1, change("old"))]);
        let mut changes = LineageChanges { told, heard: 1 };
        tell.send_modify(|all| all.extend([(2, change("a")), (3, change("b"))]));
        assert_eq!(changes.next().await, Some(vec![change("a"), change("b")]));
        tell.send_modify(|all| all.push((4, change("c"))));
        drop(tell);
        assert_eq!(changes.next().await, Some(vec![change("c")]));
        assert_eq!(changes.next().await, None);
    }
}
