//! What the source closes and routes by path would open: an expression comes before prefixes in
//! nginx, and one that cannot be written sends its requests to another location.

use super::super::pattern::Simple;
use super::super::sheet::{FILL_IN, Left, Sheet, Table};
use super::place::{Kind, Location};

/// The location that a path belongs to, as nginx finds it.
pub(super) fn find<'l, 'd>(path: &str, all: &'l [Location<'d>]) -> Option<&'l Location<'d>> {
    let exact = all.iter().find(|it| matches!(&it.kind, Kind::Exact(exact) if exact == path));
    if exact.is_some() {
        return exact;
    }
    let longest = longest(path, all);
    if longest.is_some_and(|it| it.firm) {
        return longest;
    }
    let fits = |it: &&Location<'d>| matches!(&it.kind, Kind::Pattern(simple) if simple.fits(path));
    all.iter().find(fits).or(longest)
}

/// The one with the longest prefix of a path.
fn longest<'l, 'd>(path: &str, all: &'l [Location<'d>]) -> Option<&'l Location<'d>> {
    let fits = |it: &&Location<'d>| it.prefix().is_some_and(|prefix| path.starts_with(prefix));
    all.iter().filter(fits).max_by_key(|it| it.prefix().map_or(0, str::len))
}

/// Whether a location refuses what the other one would let through.
pub(super) fn is_stricter(one: &Location<'_>, other: &Location<'_>) -> bool {
    if other.refuses() {
        return false;
    }
    let (own, others) = (&one.scope, &other.scope);
    let networks = |it: &Location<'_>| -> Vec<(String, String)> {
        it.scope.all("allow").iter().map(|it| (it.name.clone(), it.arg(0).to_owned())).collect()
    };
    let token = |it: &Location<'_>| it.scope.value("auth_jwt").is_some_and(|it| it != "off");
    one.refuses()
        || !own.guards().is_subset(others.guards())
        || (networks(one) != networks(other) && networks(one).iter().any(|it| it.0 == "deny"))
        || (token(one) && !token(other))
}

/// The expressions that have requests of a location before it has, and that a route by path would
/// not ask.
fn before<'l, 'd>(
    of: &'l Location<'d>,
    all: &'l [Location<'d>],
) -> impl Iterator<Item = &'l Location<'d>> {
    let is_expression = of.prefix().is_none();
    all.iter()
        // Expressions are asked in their order, prefixes after all of them.
        .take_while(move |it| !(is_expression && std::ptr::eq(*it, of)))
        .filter(move |it| has_some(it, of))
}

fn has_some(expression: &Location<'_>, of: &Location<'_>) -> bool {
    if matches!(of.kind, Kind::Exact(_) | Kind::Blind(_))
        || (of.firm && expression.within.is_none())
    {
        return false;
    }
    let fold = |text: &str| {
        if expression.ignores_case { text.to_ascii_lowercase() } else { text.to_owned() }
    };
    let within = expression.within.as_deref().unwrap_or_default();
    let own = fold(of.begin());
    let meets = |begin: &str| own.starts_with(begin) || begin.starts_with(&own);
    let around = |begin: &str| fold(if begin.len() < within.len() { within } else { begin });
    match &expression.kind {
        Kind::Blind(begin) => meets(&around(begin)),
        Kind::Pattern(simple) if simple.is_tree() => own.starts_with(&around(simple.begin())),
        Kind::Pattern(simple) if simple.path.contains('{') => {
            let begin = around(simple.begin());
            own.starts_with(&begin) && own.len() > begin.len()
        }
        _ => false,
    }
}

/// Closes what is made of a location where an expression before it refuses some of its requests.
pub(super) fn keep_closed(
    made: &mut Table,
    of: &Location<'_>,
    all: &[Location<'_>],
    sheet: &mut Sheet,
) {
    let mut before = before(of, all).peekable();
    if before.peek().is_none() || !made.is_open() {
        return;
    }
    let mut first = None;
    for other in before {
        first = first.or(Some(other));
        if is_stricter(other, of) {
            if lies_anywhere(other) {
                tell_unsaid(other, of, sheet);
                continue;
            }
            if has_nearer(of, other, all) {
                continue;
            }
            made.close(format!(
                "{FILL_IN}: closed, because location {} of {} refuses some of these paths, and no \
                 route can say which. Guard them, then remove this line.",
                other.label(),
                other.at
            ));
            return sheet.left(Left {
                at: of.at.clone(),
                what: format!("location {}", of.label()),
                why: format!("{} refuses some of its paths: the route answers 403", other.at),
                instead: "write routes for the paths that are refused, then open it".to_owned(),
            });
        }
    }
    let Some(other) = first.filter(|it| matches!(it.kind, Kind::Pattern(_))) else { return };
    sheet.left(Left {
        at: of.at.clone(),
        what: format!("location {}", of.label()),
        why: format!("the expression of {} came first; here the longer path does", other.at),
        instead: "write the route of the expression for these paths, too".to_owned(),
    });
}

/// Whether the paths of an expression that no pattern can say lie anywhere: to close a location for
/// its sake would close all that was open. One whose paths have a beginning closes what has these.
fn lies_anywhere(expression: &Location<'_>) -> bool {
    let Kind::Blind(begin) = &expression.kind else { return false };
    begin.len() < 2 && expression.within.as_deref().unwrap_or_default().len() < 2
}

/// Whether another location has the paths of an expression, which is closed for them instead.
fn has_nearer(of: &Location<'_>, expression: &Location<'_>, all: &[Location<'_>]) -> bool {
    let Kind::Blind(begin) = &expression.kind else { return false };
    all.iter().filter_map(Location::prefix).any(|prefix| {
        prefix.len() > of.begin().len() && begin.starts_with(prefix) && prefix.ends_with('/')
    })
}

/// Lists the paths that an expression refuses, and that a route of a wider location has now.
fn tell_unsaid(expression: &Location<'_>, of: &Location<'_>, sheet: &mut Sheet) {
    sheet.opened(Left {
        at: expression.at.clone(),
        what: format!("location {}", expression.expression),
        why: format!("no pattern says this; location {} has its paths now", of.label()),
        instead: "have the upstream refuse them".to_owned(),
    });
}

/// Lists the paths that a location closes and its route does not, where they are open elsewhere:
/// `is_open` says of a location whether its own route is.
pub(super) fn tell_opened(
    of: &Location<'_>,
    all: &[Location<'_>],
    is_open: &dyn Fn(&Location<'_>) -> bool,
    sheet: &mut Sheet,
) {
    let shrinks = match &of.kind {
        Kind::Prefix(prefix) => prefix.len() > 1 && !prefix.ends_with('/'),
        Kind::Pattern(Simple { note, .. }) => note.is_some(),
        _ => false,
    };
    let loses_case = of.ignores_case && matches!(of.kind, Kind::Pattern(_));
    let shorter = of.begin().get(..of.begin().len().saturating_sub(1)).unwrap_or_default();
    let like = format!("{}.php", of.begin());
    // An expression may have them, too.
    let mut under = longest(shorter, all).into_iter().chain(all.iter().filter(|it| {
        matches!(&it.kind, Kind::Pattern(simple) if !std::ptr::eq(*it, of) && simple.fits(&like))
    }));
    let Some(under) = under.find(|under| is_stricter(of, under)) else { return };
    if !is_open(under) {
        return;
    }
    let mut tell = |what: String, why: &str| {
        sheet.opened(Left {
            at: of.at.clone(),
            what,
            why: format!("{why}; location {} has them now", under.label()),
            instead: "write routes for the paths that were refused".to_owned(),
        });
    };
    if shrinks {
        tell(
            format!("{}.php and the like", of.begin()),
            "a route covers whole segments, and not what only begins like it",
        );
    }
    if loses_case {
        tell(format!("{} in capital letters", of.begin()), "paths have one spelling of letters");
    }
}
