//! What is known of epochs in a Redis Cluster without asking: of each primary what it tells of
//! itself (`ear`).

use std::sync::Arc;

use tokio::time::Instant;

use super::cluster::Cluster;
use super::ear::Ear;
use super::map::Map;
use crate::store::CachedReply;
use crate::store::keys::slot;
use crate::store::known::Mark;
use crate::store::lineage::Known;

/// Moments of servers, before they are asked.
pub(super) type Marks = Vec<(Arc<Ear>, Mark)>;

impl Cluster {
    /// All of these, if all are known now.
    pub(super) fn known_epochs(&self, keys: &[String], now: Instant) -> Option<Vec<Known>> {
        let map = self.map.load();
        let mut all = Vec::with_capacity(keys.len());
        for together in by_server(&map, keys) {
            let ear = ear(&map, together.first()?)?;
            all.extend(ear.get(together, now)?);
        }
        Some(all)
    }

    /// How many are known, and whether all servers tell of changes.
    pub(super) fn followed_epochs(&self, now: Instant) -> (usize, bool) {
        let map = self.map.load();
        let ears = map.servers.iter().map(|known| known.server.ear().map(|ear| ear.state(now)));
        ears.fold((0, !map.servers.is_empty()), |(count, told), ear| {
            let (more, tells) = ear.unwrap_or_default();
            (count + more, told && tells)
        })
    }

    /// Before these are asked for: of each server that is asked and tells of changes.
    pub(super) fn mark_epochs(&self, keys: &[String]) -> Marks {
        let map = self.map.load();
        let mut marks: Marks = Vec::new();
        for ear in by_server(&map, keys).filter_map(|together| ear(&map, together.first()?)) {
            if !marks.iter().any(|(known, _)| Arc::ptr_eq(known, &ear))
                && let Some(mark) = ear.mark()
            {
                marks.push((ear, mark));
            }
        }
        marks
    }

    /// Keeps what was read since these moments, of each server unless something changed there
    /// since. What lies elsewhere now was not read where it lies.
    pub(super) fn learn_epochs(&self, marks: &Marks, keys: &[String], read: &CachedReply) {
        let map = self.map.load();
        let mut read_here = 0;
        for together in by_server(&map, keys) {
            let own = read.each().skip(read_here).take(together.len());
            read_here += together.len();
            let ear = together.first().and_then(|key| ear(&map, key));
            let mark = marks
                .iter()
                .find(|(known, _)| ear.as_ref().is_some_and(|ear| Arc::ptr_eq(ear, known)));
            if let Some((ear, mark)) = mark {
                ear.learn(*mark, together, own);
            }
        }
    }

    /// These changed, or may have.
    pub(super) fn forget_epochs<'a>(&self, keys: impl Iterator<Item = &'a str>) {
        let map = self.map.load();
        for key in keys {
            if let Some(ear) = ear(&map, key) {
                ear.forget(std::iter::once(key));
            }
        }
    }
}

/// Keys that stand together and lie on one server.
fn by_server<'a>(map: &Map, keys: &'a [String]) -> impl Iterator<Item = &'a [String]> {
    keys.chunk_by(|one, next| map.at(slot(one.as_bytes())) == map.at(slot(next.as_bytes())))
}

/// Who hears of the key.
fn ear(map: &Map, key: &str) -> Option<Arc<Ear>> {
    map.owner(slot(key.as_bytes()))?.ear()
}
