//! Whether the clauses of a route hold: what is asked of the caller's claims, of the path and of
//! the time. Each holds, fails, or cannot be told, where a value is of another type than is asked
//! for; what cannot be told permits nothing, also within `none`. It must not know routes.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::Value;

use super::challenge::{Denied, Unmet};
use crate::base::claim::Found;
use crate::base::facts::Identity;
use crate::config::{ClaimClause, Clause, DAY_MINUTES, Hours, Plain, Test};

/// Seconds of one minute.
const MINUTE: i64 = 60;
/// The day of the week of 1 January 1970, Monday being 0.
const FIRST_WEEKDAY: i64 = 3;

/// What clauses are about; `parameter` says what stands for a placeholder of the route's path, and
/// nothing where two readers could take it for different texts.
#[derive(Debug)]
pub struct Circumstances<'a, F> {
    /// Who calls.
    pub identity: &'a Identity,
    /// Unix seconds.
    pub now: i64,
    /// See above.
    pub parameter: F,
}

/// What can be said of a clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truth {
    Holds,
    Fails,
    Untold,
}

use Truth::{Fails, Holds, Untold};

/// Whether all clauses hold.
///
/// # Errors
/// One does not: the refusal names the innermost one that is to blame.
pub fn fulfil<'p, F: Fn(&str) -> Option<Cow<'p, str>>>(
    clauses: &[Clause],
    circumstances: &Circumstances<'_, F>,
) -> Result<(), Denied> {
    for (at, clause) in clauses.iter().enumerate() {
        let truth = circumstances.truth(clause);
        if truth != Holds {
            return Err(circumstances.refusal(clause, truth, format!("require[{at}]")));
        }
    }
    Ok(())
}

impl<'p, F: Fn(&str) -> Option<Cow<'p, str>>> Circumstances<'_, F> {
    /// Kleene's logic: one that decides decides, whatever cannot be told beside it.
    fn truth(&self, clause: &Clause) -> Truth {
        match clause {
            Clause::All(inner) => self.find(inner, Fails, Holds),
            Clause::Any(inner) => self.find(inner, Holds, Fails),
            Clause::None(inner) => match self.find(inner, Holds, Fails) {
                Holds => Fails,
                Fails => Holds,
                Untold => Untold,
            },
            Clause::Claim(clause) => self.claim(clause),
            Clause::Hours(hours) => {
                if is_within(*hours, self.now) {
                    Holds
                } else {
                    Fails
                }
            }
        }
    }

    /// `decides` where one of the clauses is so, `otherwise` where all can be told.
    fn find(&self, clauses: &[Clause], decides: Truth, otherwise: Truth) -> Truth {
        let mut found = otherwise;
        for clause in clauses {
            match self.truth(clause) {
                truth if truth == decides => return decides,
                Untold => found = Untold,
                _ => {}
            }
        }
        found
    }

    fn claim(&self, clause: &ClaimClause) -> Truth {
        let found = match walk(self.identity, &clause.members) {
            Walked::Found(found) => found,
            Walked::Missing => return Fails,
            Walked::Untold => return Untold,
        };
        match &clause.test {
            Test::Exists if found.value.is_null() => Fails,
            Test::Exists => Holds,
            Test::Is(values) => is_one(found, values),
            Test::Has(values) => has_one(found, values),
            Test::IsPath(name) => match ((self.parameter)(name), found.value.as_str()) {
                (Some(text), Some(claim)) => told(*text == *claim),
                _ => Untold,
            },
            Test::HasPath(name) => match (self.parameter)(name) {
                Some(text) => has_one(found, &[Plain::Text(text.into_owned())]),
                None => Untold,
            },
        }
    }

    /// The refusal by a clause that does not hold, which stands at `place`.
    fn refusal(&self, clause: &Clause, truth: Truth, mut place: String) -> Denied {
        // Writing to a String cannot fail.
        let inner = match clause {
            Clause::All(inner) => Some(("all", inner, Holds)),
            Clause::None(inner) => Some(("none", inner, Fails)),
            Clause::Any(_) | Clause::Claim(_) | Clause::Hours(_) => None,
        };
        if let Some((word, inner, wanted)) = inner {
            let judged = inner.iter().map(|clause| (clause, self.truth(clause))).enumerate();
            let blamed = judged.into_iter().find(|(_, (_, truth))| *truth != wanted);
            if let Some((at, (clause, truth))) = blamed {
                let _ = write!(place, ".{word}[{at}]");
                return self.refusal(clause, truth, place);
            }
        }
        let mut claim = String::new();
        match clause {
            Clause::Any(_) => place.push_str(".any"),
            Clause::Claim(clause) => claim.clone_from(&clause.name),
            Clause::All(_) | Clause::None(_) | Clause::Hours(_) => {}
        }
        let is_untold = truth == Untold;
        let subject = self.identity.subject.clone();
        let unmet = Unmet { subject, claim, wanted: Vec::new(), clause: Some(place), is_untold };
        Denied::Insufficient { scope: None, unmet: Box::new(unmet) }
    }
}

/// Where the members of a pointer lead.
enum Walked<'a> {
    Found(Found<'a>),
    Missing,
    /// Through something that is no object.
    Untold,
}

fn walk<'a>(identity: &'a Identity, members: &[String]) -> Walked<'a> {
    let Some((first, rest)) = members.split_first() else { return Walked::Missing };
    let Some(value) = identity.claims.get(first) else { return Walked::Missing };
    let mut found = Found::new(value, identity.exact.within.get(first));
    for name in rest {
        if !found.value.is_object() {
            return Walked::Untold;
        }
        let Some(member) = found.member(name) else { return Walked::Missing };
        found = member;
    }
    Walked::Found(found)
}

fn told(holds: bool) -> Truth {
    if holds { Holds } else { Fails }
}

/// Whether a value is one of these. Of another type than all of them it cannot be told.
fn is_one(found: Found<'_>, values: &[Plain]) -> Truth {
    let mut is_of_their_type = false;
    for value in values {
        let is_same = match (value, found.value) {
            (Plain::Text(text), Value::String(claim)) => text == claim,
            (Plain::Flag(flag), Value::Bool(claim)) => flag == claim,
            // Only what is a whole number as it is written is one.
            (Plain::Number(number), Value::Number(claim)) => match claim.as_i64() {
                Some(claim) if found.text() == claim.to_string() => *number == claim,
                None if claim.is_u64() && found.text() == claim.to_string() => false,
                _ => continue,
            },
            _ => continue,
        };
        if is_same {
            return Holds;
        }
        is_of_their_type = true;
    }
    if is_of_their_type { Fails } else { Untold }
}

/// Whether a list has one of these among its items, or a text among its words.
fn has_one(found: Found<'_>, values: &[Plain]) -> Truth {
    if let Some(words) = found.value.as_str() {
        let mut texts = values.iter().filter_map(|value| match value {
            Plain::Text(text) => Some(text),
            Plain::Number(_) | Plain::Flag(_) => None,
        });
        let is_listed = |text: &String| words.split(' ').any(|word| word == text);
        return match texts.clone().next() {
            Some(_) => told(texts.any(is_listed)),
            None => Untold,
        };
    }
    let Some(items) = found.items() else { return Untold };
    let mut truth = Fails;
    for item in items {
        match is_one(item, values) {
            Holds => return Holds,
            Untold => truth = Untold,
            Fails => {}
        }
    }
    truth
}

/// Whether a moment lies within these hours. Those that end no later than they begin end on the
/// next day, and belong to the day on which they begin.
fn is_within(hours: Hours, now: i64) -> bool {
    let Hours { begin, end, days, offset } = hours;
    let minutes = now.div_euclid(MINUTE).saturating_add(offset.into());
    let of_day = i64::from(DAY_MINUTES);
    let (day, minute) = (minutes.div_euclid(of_day), minutes.rem_euclid(of_day));
    let (begin, end) = (i64::from(begin), i64::from(end));
    let is_on = |day: i64| days >> (day + FIRST_WEEKDAY).rem_euclid(7) & 1 == 1;
    if begin < end {
        return is_on(day) && (begin..end).contains(&minute);
    }
    (is_on(day) && minute >= begin) || (is_on(day - 1) && minute < end)
}

#[cfg(test)]
mod tests;
