//! A question whose keys lie in several places: parts that name several keys are cut into parts of
//! one place each, and what those read is put together again. Purges are not among them: they are
//! carried out before the question.

use std::iter;

use super::part::Part;
use crate::store::{Answers, Charges, ConcurrencyLimit, Leases, Questions, WindowSet};

/// A part whose keys lie in one place, and which.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'a> {
    pub(super) part: Part<'a>,
    pub(super) place: u16,
}

/// Keys of one place, and where they stood in the question.
#[derive(Debug)]
struct Group<T> {
    positions: Vec<usize>,
    keys: Vec<String>,
    with: T,
}

/// What the parts of a cut question borrow. There are no groups of what lies in one place already:
/// that is asked as it stands.
#[derive(Debug, Default)]
pub(super) struct Cut {
    charges: Vec<Group<WindowSet>>,
    leases: Vec<Group<Vec<ConcurrencyLimit>>>,
    /// Whether lists are cut into single keys.
    is_by_key: bool,
}

impl Cut {
    /// Of a question; `place` says where a key lies.
    pub(super) fn of(questions: &Questions<'_>, place: &impl Fn(&str) -> u16) -> Self {
        let mut cut = Self::default();
        if let Some(Charges { set, keys }) = questions.charges
            && is_spread(keys, place)
        {
            let windows = groups(keys, &set.windows, place).into_iter();
            let set = |Group { positions, keys, with }| Group {
                positions,
                keys,
                with: WindowSet::new(with),
            };
            cut.charges = windows.map(set).collect();
        }
        if let Some(asked) = questions.leases
            && is_spread(asked.keys, place)
        {
            cut.leases = groups(asked.keys, asked.limits, place);
        }
        cut
    }

    /// Of a part of several keys, each of which is one part then; nothing where it cannot be.
    pub(super) fn by_key(part: &Part<'_>) -> Option<Self> {
        let (questions, keys) = match *part {
            Part::Charges(asked) => {
                (Questions { charges: Some(asked), ..Questions::default() }, asked.keys)
            }
            Part::Leases(asked) => {
                (Questions { leases: Some(asked), ..Questions::default() }, asked.keys)
            }
            Part::Epochs(keys) => {
                return (keys.len() > 1).then(|| Self { is_by_key: true, ..Self::default() });
            }
            _ => return None,
        };
        let place = |key: &str| {
            let at = keys.iter().position(|known| known == key);
            at.and_then(|at| u16::try_from(at).ok()).unwrap_or(u16::MAX)
        };
        (keys.len() > 1).then(|| Self::of(&questions, &place))
    }

    /// The parts, each of one place, in the order of those that they were cut from.
    pub(super) fn parts<'a>(
        &'a self,
        whole: &[Part<'a>],
        place: &impl Fn(&str) -> u16,
    ) -> Vec<Placed<'a>> {
        // With room for what is cut, as a rule.
        let mut parts = Vec::with_capacity(whole.len() + 6);
        for part in whole {
            let mut push = |part: Part<'a>| parts.push(Placed { part, place: place(part.key()) });
            match *part {
                Part::Blacklist(keys) => {
                    parts.extend(runs(keys, place, Part::Blacklist));
                }
                Part::Epochs(keys) if self.is_by_key => {
                    keys.chunks(1).for_each(|key| push(Part::Epochs(key)));
                }
                Part::Epochs(keys) => parts.extend(runs(keys, place, Part::Epochs)),
                Part::Charges(_) if !self.charges.is_empty() => {
                    self.charges.iter().for_each(|group| push(Part::Charges(group.charges())));
                }
                Part::Leases(asked) if !self.leases.is_empty() => {
                    for Group { keys, with, .. } in &self.leases {
                        push(Part::Leases(Leases { limits: with, keys, ..asked }));
                    }
                }
                other => push(other),
            }
        }
        parts
    }

    /// The charges of each place; those that it was made of, where they lie in one.
    pub(super) fn charges<'a>(&'a self, whole: Charges<'a>) -> impl Iterator<Item = Charges<'a>> {
        let whole = self.charges.is_empty().then_some(whole);
        self.charges.iter().map(Group::charges).chain(whole)
    }

    /// Puts what groups read back into the order of the question.
    pub(super) fn restore(&self, answers: &mut Answers) {
        if let Some(Ok(reply)) = &mut answers.charges {
            restore(&self.charges, &mut reply.windows);
        }
        if let Some(Ok(reply)) = &mut answers.leases {
            restore(&self.leases, &mut reply.held);
        }
    }
}

impl Group<WindowSet> {
    fn charges(&self) -> Charges<'_> {
        Charges { set: &self.with, keys: &self.keys }
    }
}

/// Whether keys lie in several places.
fn is_spread(keys: &[String], place: &impl Fn(&str) -> u16) -> bool {
    match keys {
        [first, rest @ ..] if !rest.is_empty() => {
            let here = place(first);
            rest.iter().any(|key| place(key) != here)
        }
        _ => false,
    }
}

fn groups<T: Copy>(
    keys: &[String],
    with: &[T],
    place: &impl Fn(&str) -> u16,
) -> Vec<Group<Vec<T>>> {
    let mut groups: Vec<(u16, Group<Vec<T>>)> = Vec::new();
    for (position, (key, with)) in keys.iter().zip(with).enumerate() {
        let here = place(key);
        let at = groups.iter().position(|(place, _)| *place == here).unwrap_or_else(|| {
            groups.push((here, Group { positions: vec![], keys: vec![], with: vec![] }));
            groups.len() - 1
        });
        if let Some((_, group)) = groups.get_mut(at) {
            group.positions.push(position);
            group.keys.push(key.clone());
            group.with.push(*with);
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// Parts of keys that stand together and lie in one place.
fn runs<'a>(
    mut keys: &'a [String],
    place: &impl Fn(&str) -> u16,
    part: fn(&'a [String]) -> Part<'a>,
) -> impl Iterator<Item = Placed<'a>> {
    // Each key is looked at once.
    let mut next = keys.first().map(|key| place(key));
    iter::from_fn(move || {
        let here = next.take()?;
        let others = keys.iter().enumerate().skip(1).map(|(at, key)| (at, place(key)));
        let change = others.into_iter().find(|(_, there)| *there != here);
        let end = change.map_or(keys.len(), |(at, _)| at);
        next = change.map(|(_, there)| there);
        let (run, rest) = keys.split_at(end);
        keys = rest;
        Some(Placed { part: part(run), place: here })
    })
}

fn restore<T: Copy, W>(groups: &[Group<W>], read: &mut [T]) {
    let positions = groups.iter().flat_map(|group| &group.positions);
    let pairs: Vec<(usize, T)> = positions.copied().zip(read.iter().copied()).collect();
    // Another number is no answer to all of them, which its reader finds.
    if pairs.len() == read.len() {
        for (position, value) in pairs {
            if let Some(place) = read.get_mut(position) {
                *place = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Cached, ChargeReply, ChargedAt, Mode, Window, WindowState};
    use std::time::Duration;

    fn texts(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    /// Keys lie where their first letter says.
    fn place(key: &str) -> u16 {
        key.bytes().next().map_or(0, u16::from)
    }

    #[test]
    fn each_part_has_keys_of_one_place_and_the_answers_come_back_in_order() {
        let keys = texts(&["a1", "b1", "a2", "c1"]);
        let window = |limit| Window::new(limit, Duration::from_secs(1));
        let set = WindowSet::new((1..=4).map(window).collect());
        let bound = ConcurrencyLimit { most: 1, lease: Duration::ZERO, mode: Mode::Enforce };
        let limits = [bound; 4];
        let questions = Questions {
            charges: Some(Charges { set: &set, keys: &keys }),
            leases: Some(Leases { limits: &limits, keys: &keys, holder: "me" }),
            ..Questions::default()
        };
        let cut = Cut::of(&questions, &place);
        let parts = cut.parts(&Part::of(&questions, false), &place);
        let asked: Vec<(Vec<String>, Vec<u32>)> = parts
            .iter()
            .filter_map(|placed| match placed.part {
                Part::Charges(asked) => {
                    let limits = asked.set.windows.iter().map(|window| window.limit);
                    Some((asked.keys.to_vec(), limits.collect()))
                }
                _ => None,
            })
            .collect();
        let expected = [
            (texts(&["a1", "a2"]), vec![1, 3]),
            (texts(&["b1"]), vec![2]),
            (texts(&["c1"]), vec![4]),
        ];
        assert_eq!(asked, expected);
        assert_eq!(parts.len(), 6, "the leases are cut alike");

        let state = |free| WindowState { free, retry_ms: 0, next_ms: 0, full_ms: 0 };
        let windows = [1, 3, 2, 4].map(state).to_vec();
        let charges = Ok(ChargeReply { allowed: true, at: ChargedAt::default(), windows });
        let mut answers = Answers { charges: Some(charges), ..Answers::default() };
        cut.restore(&mut answers);
        let windows = answers.charges.unwrap().unwrap().windows;
        assert_eq!(windows, [1, 2, 3, 4].map(state));
    }

    #[test]
    fn lists_are_cut_into_runs() {
        let keys = texts(&["a1", "a2", "b1", "a3"]);
        let cached = Cached { epochs: &keys, entry: None };
        let questions = Questions { cached: Some(cached), ..Questions::default() };
        let cut = Cut::of(&questions, &place);
        let parts = cut.parts(&Part::of(&questions, false), &place);
        let lengths: Vec<usize> = parts
            .iter()
            .map(|placed| match placed.part {
                Part::Epochs(keys) => keys.len(),
                _ => 0,
            })
            .collect();
        assert_eq!(lengths, [2, 1, 1]);
        let whole = Part::Epochs(&keys);
        let cut = Cut::by_key(&whole).expect("several keys");
        let parts = cut.parts(&[whole], &|_| 0);
        let alone = |placed: &Placed<'_>| matches!(placed.part, Part::Epochs([_]));
        assert!(parts.len() == 4 && parts.iter().all(alone), "{parts:?}");
    }
}
