//! A map in which something gives way for what is new. Who gives way is chosen among a few that
//! are drawn at random, so that the price of a place does not grow with their number: the lowest of
//! 16 is, with great likelihood, among the lowest fifth of all.

use std::collections::HashMap;
use std::sync::Arc;

/// How many are compared when one must go.
const SAMPLE: usize = 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct Room<V> {
    places: HashMap<Arc<str>, usize, foldhash::fast::RandomState>,
    items: Vec<(Arc<str>, V)>,
}

impl<V> Default for Room<V> {
    fn default() -> Self {
        Self { places: HashMap::default(), items: Vec::new() }
    }
}

impl<V> Room<V> {
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&V> {
        self.items.get(*self.places.get(key)?).map(|(_, item)| item)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        self.at_mut(self.place(key)?)
    }

    /// Where an item is, until one is removed.
    pub(crate) fn place(&self, key: &str) -> Option<usize> {
        self.places.get(key).copied()
    }

    /// The item at a place.
    pub(crate) fn at_mut(&mut self, place: usize) -> Option<&mut V> {
        self.items.get_mut(place).map(|(_, item)| item)
    }

    /// Puts an item under a key, in place of the one that was there. Returns its place.
    pub(crate) fn insert(&mut self, key: &str, item: V) -> usize {
        if let Some(place) = self.place(key) {
            if let Some(known) = self.at_mut(place) {
                *known = item;
            }
            return place;
        }
        let (key, place) = (Arc::<str>::from(key), self.items.len());
        self.places.insert(Arc::clone(&key), place);
        self.items.push((key, item));
        place
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<V> {
        let place = *self.places.get(key)?;
        self.remove_at(place).map(|(_, item)| item)
    }

    /// Removes the item at a place that [`Self::lowest`] or [`Self::any`] named.
    pub(crate) fn remove_at(&mut self, place: usize) -> Option<(Arc<str>, V)> {
        if place >= self.items.len() {
            return None;
        }
        let (key, item) = self.items.swap_remove(place);
        self.places.remove(&key);
        // The last one has taken its place.
        if let Some((moved, _)) = self.items.get(place)
            && let Some(known) = self.places.get_mut(moved)
        {
            *known = place;
        }
        Some((key, item))
    }

    /// The place of the item with the lowest rank among [`SAMPLE`] drawn at random, or among all
    /// where there are no more. What has no rank stays.
    pub(crate) fn lowest<R: Ord>(&self, rank: impl Fn(&str, &V) -> Option<R>) -> Option<usize> {
        let all = self.items.len();
        let drawn = |turn: usize| if all <= SAMPLE { turn } else { fastrand::usize(..all) };
        let ranked = |place: usize| {
            let (key, item) = self.items.get(place)?;
            Some((rank(key, item)?, place))
        };
        (0..all.min(SAMPLE)).filter_map(|turn| ranked(drawn(turn))).min().map(|(_, place)| place)
    }

    /// The place of any item for which `is_over` holds, if the first draw finds one.
    pub(crate) fn any(&self, is_over: impl Fn(&V) -> bool) -> Option<usize> {
        if self.items.is_empty() {
            return None;
        }
        let place = fastrand::usize(..self.items.len());
        self.items.get(place).filter(|(_, item)| is_over(item)).map(|_| place)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Arc<str>, V)> {
        debug_assert_eq!(self.places.len(), self.items.len());
        self.items.iter()
    }

    /// Keeps what `stays`, by key and item.
    pub(crate) fn retain(&mut self, mut stays: impl FnMut(&str, &V) -> bool) {
        // From the end: whatever takes the place of one that goes was looked at before.
        for place in (0..self.items.len()).rev() {
            if self.items.get(place).is_some_and(|(key, item)| !stays(key, item)) {
                self.remove_at(place);
            }
        }
    }

    /// At most so many items right below a place, and the place where those begin. Who walks so
    /// from the end to the first place meets all that stay meanwhile, some of them twice: what is
    /// removed gives its place to the last one.
    pub(crate) fn below(&self, end: usize, most: usize) -> (usize, &[(Arc<str>, V)]) {
        let end = end.min(self.items.len());
        let begin = end.saturating_sub(most);
        (begin, self.items.get(begin..end).unwrap_or_default())
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_is_a_map_whatever_is_taken_out_of_it() {
        let (mut room, mut model) = (Room::default(), BTreeMap::new());
        for step in 0..5000_u32 {
            let key = format!("k{}", fastrand::u32(..64));
            if fastrand::bool() {
                room.insert(&key, step);
                model.insert(key, step);
            } else {
                assert_eq!(room.remove(&key), model.remove(&key));
            }
            assert_eq!(room.len(), model.len());
            for number in 0..64 {
                let key = format!("k{number}");
                assert_eq!(room.get(&key), model.get(&key));
            }
        }
    }

    #[test]
    fn a_walk_meets_all_that_stay_whatever_comes_and_goes_meanwhile() {
        for _ in 0..50 {
            let mut room = Room::default();
            for number in 0..200_u32 {
                room.insert(&number.to_string(), number);
            }
            let (mut seen, mut end) = (std::collections::BTreeSet::new(), usize::MAX);
            while end > 0 {
                let (begin, items) = room.below(end, 7);
                assert!(items.len() <= 7);
                seen.extend(items.iter().map(|(_, item)| *item));
                end = begin;
                for _ in 0..fastrand::u32(..9) {
                    // The even ones stay.
                    room.remove(&(fastrand::u32(..100) * 2 + 1).to_string());
                    room.insert(&format!("new {}", fastrand::u32(..)), 1000);
                    room.retain(|_, item| *item < 1000 || fastrand::bool());
                }
            }
            assert!((0..200).step_by(2).all(|number| seen.contains(&number)), "{seen:?}");
        }
    }

    #[test]
    fn the_lowest_goes_and_what_has_no_rank_stays() {
        let mut room = Room::default();
        (0..10_u32).for_each(|number| {
            room.insert(&number.to_string(), number);
        });
        let lowest = |room: &Room<u32>| room.lowest(|key, item| (key != "0").then_some(*item));
        let gone = lowest(&room).and_then(|place| room.remove_at(place));
        assert_eq!(gone.map(|(_, item)| item), Some(1));
        assert_eq!(lowest(&Room::default()), None);
        let mut large = Room::default();
        (0..10_000_u32).for_each(|number| {
            large.insert(&number.to_string(), number);
        });
        let mean = (0..1000)
            .filter_map(|_| large.lowest(|_, item| Some(*item)).and_then(|at| large.items.get(at)))
            .map(|(_, item)| u64::from(*item))
            .sum::<u64>()
            / 1000;
        assert!(mean < 2000, "of ten thousand, {mean} is the mean of the lowest of 16");
    }
}
