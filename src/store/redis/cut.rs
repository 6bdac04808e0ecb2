//! A question whose keys lie in several places: parts that name several keys are cut into parts of
//! one place each, and what those read is put together again. Purges are not among them: they are
//! carried out before the question.

use super::part::Part;
use crate::store::{Answers, Charges, ConcurrencyLimit, Leases, Questions, WindowSet};

/// Keys of one place, and where they stood in the question.
#[derive(Debug)]
struct Group<T> {
    positions: Vec<usize>,
    keys: Vec<String>,
    with: T,
}

/// What the parts of a cut question borrow.
#[derive(Debug)]
pub(super) struct Cut {
    charges: Vec<Group<WindowSet>>,
    leases: Vec<Group<Vec<ConcurrencyLimit>>>,
}

impl Cut {
    /// Of a question; `place` says where a key lies.
    pub(super) fn of(questions: &Questions<'_>, place: &impl Fn(&str) -> u16) -> Self {
        let charges = questions.charges.map(|Charges { set, keys }| {
            let windows = groups(keys, &set.windows, place).into_iter();
            let set = |group: Group<Vec<_>>| Group {
                positions: group.positions,
                keys: group.keys,
                with: WindowSet::new(group.with),
            };
            windows.map(set).collect()
        });
        let leases = questions.leases.map(|asked| groups(asked.keys, asked.limits, place));
        Self { charges: charges.unwrap_or_default(), leases: leases.unwrap_or_default() }
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
    ) -> Vec<Part<'a>> {
        let mut parts = Vec::with_capacity(whole.len() + 4);
        for part in whole {
            match *part {
                Part::Blacklist(keys) => parts.extend(runs(keys, place).map(Part::Blacklist)),
                Part::Epochs(keys) => parts.extend(runs(keys, place).map(Part::Epochs)),
                Part::Charges(_) => {
                    parts.extend(self.charges().map(Part::Charges));
                }
                Part::Leases(asked) => parts.extend(self.leases.iter().map(|group| {
                    Part::Leases(Leases { limits: &group.with, keys: &group.keys, ..asked })
                })),
                other => parts.push(other),
            }
        }
        parts
    }

    /// The charges of each place.
    pub(super) fn charges(&self) -> impl Iterator<Item = Charges<'_>> {
        self.charges.iter().map(|group| Charges { set: &group.with, keys: &group.keys })
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

/// Keys that stand together and lie in one place.
fn runs<'a>(
    keys: &'a [String],
    place: &impl Fn(&str) -> u16,
) -> impl Iterator<Item = &'a [String]> {
    keys.chunk_by(|one, next| place(one) == place(next))
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
            .filter_map(|part| match part {
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
            .map(|part| match part {
                Part::Epochs(keys) => keys.len(),
                _ => 0,
            })
            .collect();
        assert_eq!(lengths, [2, 1, 1]);
    }
}
