//! `require = [ … ]` of a route: clauses about who calls, where and when, that combine.

use toml::de::DeValue;

use super::reader::Section;
use super::value::{Mistake, Read, check_text, claim_name, echo, flag, string, text};

/// Deepest nesting of `all`, `any` and `none`.
pub const CLAUSE_DEPTH_MAX: usize = 4;
/// Most clauses of one route, nested ones among them.
pub const CLAUSES_MAX: usize = 64;
/// Most values of one clause.
const VALUES_MAX: usize = 64;
/// Most members that a claim's pointer walks through.
const POINTER_MEMBERS_MAX: usize = 16;
/// Minutes of one day.
pub const DAY_MINUTES: u16 = 24 * 60;
/// Furthest from UTC, in minutes.
const OFFSET_MINUTES_MAX: i16 = 14 * 60;

/// What must hold of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clause {
    /// All of these.
    All(Vec<Clause>),
    /// At least one of these.
    Any(Vec<Clause>),
    /// Not one of these.
    None(Vec<Clause>),
    /// A claim passes this test.
    Claim(ClaimClause),
    /// The request comes within these hours.
    Hours(Hours),
}

/// A claim, and what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimClause {
    /// As it is written.
    pub name: String,
    /// The members that lead to it, the claim first.
    pub members: Vec<String>,
    /// What is asked.
    pub test: Test,
}

/// What is asked of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// `exists = true`: there is one that is not null.
    Exists,
    /// `is`: one of these, in type too.
    Is(Vec<Plain>),
    /// `has`: a list with one of these, or a text with one of these words.
    Has(Vec<Plain>),
    /// `is_path`: the text that stands for this placeholder of the route's path.
    IsPath(String),
    /// `has_path`: a list with that text, or a text with that word.
    HasPath(String),
}

/// A value that claims are compared with; no type is taken for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plain {
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// A flag.
    Flag(bool),
}

/// Hours of some days, on a clock that is so far from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// The first minute of the day.
    pub begin: u16,
    /// The first one that is too late; not after `begin` where it is of the next day.
    pub end: u16,
    /// The days on which they begin, Monday at the lowest bit.
    pub days: u8,
    /// Minutes east of UTC.
    pub offset: i16,
}

impl Clause {
    /// How many clauses it is, with those in it.
    fn count(&self) -> usize {
        match self {
            Self::All(inner) | Self::Any(inner) | Self::None(inner) => {
                1 + inner.iter().map(Self::count).sum::<usize>()
            }
            Self::Claim(_) | Self::Hours(_) => 1,
        }
    }

    /// The placeholders that it names.
    pub fn placeholders(&self) -> Vec<&str> {
        match self {
            Self::All(inner) | Self::Any(inner) | Self::None(inner) => {
                inner.iter().flat_map(Self::placeholders).collect()
            }
            Self::Claim(ClaimClause { test: Test::IsPath(name) | Test::HasPath(name), .. }) => {
                vec![name]
            }
            Self::Claim(_) | Self::Hours(_) => Vec::new(),
        }
    }
}

/// Reads the list; nothing where the key has something else.
pub(super) fn read_all(route: &mut Section<'_>, key: &'static str) -> Vec<Clause> {
    if !route.has_list(key) {
        return Vec::new();
    }
    let clauses = route.tables(key, |clause| read(clause, 1)).unwrap_or_default();
    if clauses.iter().map(Clause::count).sum::<usize>() > CLAUSES_MAX {
        let what = format!("has more than {CLAUSES_MAX} clauses");
        route.problem(key, what, "write fewer: each is looked at with every request");
    }
    clauses
}

fn read(clause: &mut Section<'_>, depth: usize) -> Option<Clause> {
    const KINDS: [&str; 6] = ["all", "any", "none", "claim", "hours", "days"];
    const ONE: &str = "write one of all, any, none, claim, or hours and days";
    let named: Vec<&str> = KINDS.into_iter().filter(|kind| clause.has(kind)).collect();
    let is_of_time = |kind: &&&str| matches!(**kind, "hours" | "days");
    let kinds = named.len() - named.iter().filter(is_of_time).count().saturating_sub(1);
    if kinds != 1 {
        let what = if kinds == 0 { "says nothing" } else { "says several things" };
        clause.problem("", what, format!("{ONE}; several clauses stand in all or any"));
    }
    let test = read_test(clause);
    let (all, any, none) =
        (inner(clause, "all", depth), inner(clause, "any", depth), inner(clause, "none", depth));
    let name = clause.get("claim", claim);
    let hours = read_hours(clause);
    match (all, any, none, name) {
        (Some(inner), ..) => Some(Clause::All(inner)),
        (_, Some(inner), ..) => Some(Clause::Any(inner)),
        (_, _, Some(inner), _) => Some(Clause::None(inner)),
        (_, _, _, Some((name, members))) => {
            Some(Clause::Claim(ClaimClause { name, members, test: test? }))
        }
        _ => hours.map(Clause::Hours),
    }
}

fn inner(clause: &mut Section<'_>, key: &'static str, depth: usize) -> Option<Vec<Clause>> {
    if clause.has(key) && depth == CLAUSE_DEPTH_MAX {
        let what = format!("lies deeper than {CLAUSE_DEPTH_MAX}");
        clause.problem(key, what, "write the clauses less deep");
        clause.skip(key);
        return None;
    }
    clause.tables(key, |inner| read(inner, depth + 1))
}

/// What is asked of a claim; a clause about one asks one thing.
fn read_test(clause: &mut Section<'_>) -> Option<Test> {
    const TESTS: [&str; 5] = ["is", "has", "exists", "is_path", "has_path"];
    const ONE: &str = "write one of is, has, exists, is_path, has_path";
    let named = TESTS.into_iter().filter(|test| clause.has(test)).collect::<Vec<_>>();
    match (named.as_slice(), clause.has("claim")) {
        ([], true) => clause.problem("claim", "nothing is asked of it", ONE),
        ([_, second, ..], true) => clause.problem(second, "is one of several questions", ONE),
        ([first, ..], false) => {
            clause.problem(first, "is about a claim, and none is named", "add claim = \"NAME\"");
        }
        _ => {}
    }
    let is = values(clause, "is").map(Test::Is);
    let has = values(clause, "has").map(Test::Has);
    let exists = clause.get("exists", |value| match flag(value)? {
        true => Ok(Test::Exists),
        false => Err(Mistake::new("is false", "write exists = true, within none for the contrary")),
    });
    let is_path = clause.get("is_path", text).map(Test::IsPath);
    let has_path = clause.get("has_path", text).map(Test::HasPath);
    is.or(has).or(exists).or(is_path).or(has_path)
}

fn values(clause: &mut Section<'_>, key: &'static str) -> Option<Vec<Plain>> {
    let values = clause.list(key, plain)?;
    if values.len() > VALUES_MAX {
        clause.problem(key, format!("has more than {VALUES_MAX} values"), "write fewer");
    }
    Some(values)
}

fn plain(value: &DeValue<'_>) -> Read<Plain> {
    match value {
        DeValue::Boolean(flag) => Ok(Plain::Flag(*flag)),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(Plain::Number)
            .map_err(|_| Mistake::new("is out of range", "write a number of 64 bits")),
        _ => {
            let text = string(value, "a text in quotes, a whole number, true or false")?;
            check_text(text).map(|()| Plain::Text(text.to_owned()))
        }
    }
}

/// A claim by its name, or by a JSON Pointer (RFC 6901) from `/` on; what a name has dots in is one
/// name.
fn claim(value: &DeValue<'_>) -> Read<(String, Vec<String>)> {
    let name = claim_name(&text(value)?)?;
    let Some(pointer) = name.strip_prefix('/') else {
        return Ok((name.clone(), vec![name]));
    };
    let members: Option<Vec<String>> = pointer.split('/').map(unescape).collect();
    match members {
        Some(members) if members.len() <= POINTER_MEMBERS_MAX => Ok((name, members)),
        Some(_) => {
            let what = format!("{} names more than {POINTER_MEMBERS_MAX} members", echo(&name));
            Err(Mistake::new(what, "name a claim that lies less deep"))
        }
        None => {
            let what = format!("{} is not a JSON Pointer", echo(&name));
            Err(Mistake::new(what, "write ~0 for a ~ and ~1 for a / in a name"))
        }
    }
}

/// RFC 6901 §3: `~1` is a slash and `~0` a tilde, and no other tilde stands.
fn unescape(member: &str) -> Option<String> {
    let mut plain = String::with_capacity(member.len());
    let mut letters = member.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '~' => match letters.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return None,
            },
            other => other,
        });
    }
    Some(plain)
}

/// `hours`, `days` and `utc_offset`: either of the first two makes a clause, and the third says on
/// which clock.
fn read_hours(clause: &mut Section<'_>) -> Option<Hours> {
    let is_of_time = clause.has("hours") || clause.has("days");
    match (is_of_time, clause.has("utc_offset")) {
        (true, false) => {
            let what = "is missing: hours and days are of some clock";
            clause.problem("utc_offset", what, "write utc_offset = \"+00:00\", or your own");
        }
        (false, true) => {
            clause.problem("utc_offset", "is about hours, and none are named", "remove it");
        }
        _ => {}
    }
    let whole_day = (0, DAY_MINUTES);
    let hours = clause.get("hours", hours);
    let days = clause.list("days", day);
    let offset = clause.get("utc_offset", utc_offset)?;
    let (begin, end) = hours.unwrap_or(whole_day);
    let days = days.map_or(0x7F, |days| days.into_iter().fold(0, |all, day| all | 1 << day));
    is_of_time.then_some(Hours { begin, end, days, offset })
}

/// `"08:00-18:00"`
fn hours(value: &DeValue<'_>) -> Read<(u16, u16)> {
    const EXAMPLE: &str = "hours as \"08:00-18:00\"";
    let text = string(value, EXAMPLE)?;
    let parts = text.split_once('-').and_then(|(begin, end)| Some((time(begin)?, time(end)?)));
    match parts {
        Some((begin, end)) if begin != end && begin < DAY_MINUTES => Ok((begin, end)),
        Some(_) => {
            let what = format!("{} has no begin before its end", echo(text));
            Err(Mistake::new(what, "a whole day is \"00:00-24:00\""))
        }
        None => {
            let what = format!("{} are no hours", echo(text));
            Err(Mistake::new(what, format!("write {EXAMPLE}")))
        }
    }
}

/// `HH:MM` as minutes, up to 24:00.
fn time(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |text: &str| {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { text.parse::<u16>().ok() } else { None }
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let all = hours * 60 + minutes;
    (minutes < 60 && all <= DAY_MINUTES).then_some(all)
}

fn day(value: &DeValue<'_>) -> Read<u8> {
    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let text = string(value, "\"mon\", \"tue\" and so on")?;
    let found = (0..7).zip(DAYS).find(|(_, name)| *name == text);
    found.map(|(day, _)| day).ok_or_else(|| {
        let what = format!("{} is no day", echo(text));
        Mistake::new(what, format!("write one of {}", DAYS.join(", ")))
    })
}

/// `"+02:00"`: daylight saving time is not known here.
fn utc_offset(value: &DeValue<'_>) -> Read<i16> {
    const EXAMPLE: &str = "\"+02:00\", \"-05:30\" or \"+00:00\"";
    let text = string(value, EXAMPLE)?;
    let minutes = match text.split_at_checked(1) {
        Some(("+", rest)) => time(rest).map(u16::cast_signed),
        Some(("-", rest)) => time(rest).map(|minutes| -minutes.cast_signed()),
        _ => None,
    };
    minutes.filter(|minutes| minutes.abs() <= OFFSET_MINUTES_MAX).ok_or_else(|| {
        let what = format!("{} is no distance from UTC", echo(text));
        Mistake::new(what, format!("write {EXAMPLE}; at most 14 hours"))
    })
}
