//! Which route a request takes in the source and which one here. Where these differ, a guard of the
//! source must still hold: the guarded route is written once more where the other one would win.

use std::collections::{BTreeMap, BTreeSet};

use super::sheet::{FILL_IN, Left, Route, Sheet, Table};

/// Which routes a request may take: host, path and methods.
type Key = (Option<String>, String, Vec<String>);
/// How specific a host is here, and then a path.
type Specificity = ((u8, usize), (bool, usize, Vec<bool>));

/// A route with its rank in the source; the greater rank wins there.
pub(super) struct Ranked<R> {
    pub(super) rank: R,
    pub(super) route: Route,
    /// Whether it could not be carried over, so that its requests go where other routes say. Its
    /// path is then what surely covers it.
    pub(super) is_lost: bool,
    /// Whether paths that only begin like its own are its own in the source, and not here.
    pub(super) goes_on: bool,
}

/// What stands between a client and an upstream: verifiers, networks, and an answer without one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Guards {
    auth: Vec<String>,
    networks: Vec<String>,
    is_closed: bool,
}

/// Segments of a path, nothing for one of any text; and whether more may follow.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape {
    segments: Vec<Option<String>>,
    open: bool,
}

struct Known<'r, R> {
    of: &'r Ranked<R>,
    guards: Guards,
    shape: Shape,
    specificity: Specificity,
}

impl Guards {
    fn of(table: &Table) -> Self {
        let mut networks = table.list_of("limits");
        networks.retain(|name| name.starts_with("networks"));
        Self { auth: table.list_of("auth"), networks, is_closed: table.has("respond") }
    }

    fn is_some(&self) -> bool {
        self.is_closed || !self.auth.is_empty() || !self.networks.is_empty()
    }
}

impl Shape {
    fn of(path: &str) -> Self {
        let (base, open) = match path.strip_suffix("/*") {
            Some(base) => (base, true),
            None => (path, false),
        };
        let one = |text: &str| (!text.starts_with('{')).then(|| text.to_owned());
        let segments = base.strip_prefix('/').map(|rest| rest.split('/').map(one).collect());
        Self { segments: segments.unwrap_or_default(), open }
    }

    /// What both match.
    fn both(&self, other: &Self) -> Option<Self> {
        let (short, long) =
            if self.segments.len() <= other.segments.len() { (self, other) } else { (other, self) };
        let is_longer = short.segments.len() < long.segments.len();
        if is_longer && !short.open {
            return None;
        }
        let mut segments = Vec::new();
        for (at, one) in long.segments.iter().enumerate() {
            segments.push(match (one, short.segments.get(at)) {
                (one, None | Some(None)) => one.clone(),
                (None, Some(other)) => other.clone(),
                (Some(one), Some(Some(other))) if one == other => Some(one.clone()),
                _ => return None,
            });
        }
        Some(Self { segments, open: long.open && (is_longer || short.open) })
    }

    fn specificity(&self) -> (bool, usize, Vec<bool>) {
        let named = self.segments.iter().filter(|it| it.as_deref() != Some(""));
        let literal: Vec<bool> = named.map(Option::is_some).collect();
        (!self.open, literal.len(), literal)
    }

    fn render(&self) -> String {
        let mut path = String::new();
        for (at, segment) in self.segments.iter().enumerate() {
            path.push('/');
            path += &segment.clone().unwrap_or_else(|| format!("{{p{}}}", at + 1));
        }
        path + if self.open { "/*" } else { "" }
    }
}

/// The host that both are for.
fn both_hosts(a: Option<&str>, b: Option<&str>) -> Option<Option<String>> {
    let (Some(a), Some(b)) = (a, b) else { return Some(a.or(b).map(str::to_owned)) };
    let is_in = |inner: &str, outer: &str| {
        inner == outer || outer.strip_prefix('*').is_some_and(|end| inner.ends_with(end))
    };
    if is_in(a, b) { Some(Some(a.to_owned())) } else { is_in(b, a).then(|| Some(b.to_owned())) }
}

fn host_specificity(host: Option<&str>) -> (u8, usize) {
    match host {
        None => (0, 0),
        Some(host) if host.starts_with('*') => (1, host.len()),
        Some(_) => (2, 0),
    }
}

impl<'r, R> Known<'r, R> {
    fn of(ranked: &'r Ranked<R>) -> Self {
        let shape = Shape::of(&ranked.route.path);
        let host = host_specificity(ranked.route.host.as_deref());
        let specificity = (host, shape.specificity());
        Self { of: ranked, guards: Guards::of(&ranked.route.table), shape, specificity }
    }

    fn key(&self) -> Key {
        key(&self.of.route)
    }

    /// Host and path that both are for, where some method is, too.
    fn both(&self, other: &Self) -> Option<(Option<String>, Shape)> {
        let (a, b) = (&self.of.route, &other.of.route);
        if !a.methods.is_empty()
            && !b.methods.is_empty()
            && !a.methods.iter().any(|method| b.methods.contains(method))
        {
            return None;
        }
        let host = both_hosts(a.host.as_deref(), b.host.as_deref())?;
        Some((host, self.shape.both(&other.shape)?))
    }

    /// Whether the other one leads to an upstream past this one's guards.
    fn is_passed_by(&self, other: &Self) -> bool {
        !other.guards.is_closed && other.guards != self.guards
    }
}

fn key(route: &Route) -> Key {
    let mut methods = route.methods.clone();
    methods.sort_unstable();
    (route.host.clone(), route.path.clone(), methods)
}

/// Writes all routes, so that what was guarded in the source is guarded here.
pub(super) fn put<R: Ord>(routes: &[Ranked<R>], sheet: &mut Sheet) {
    let known: Vec<Known<'_, R>> = routes.iter().map(Known::of).collect();
    let (lost, kept): (Vec<_>, Vec<_>) = known.iter().partition(|it| it.of.is_lost);
    let mut ranks: BTreeMap<Key, &R> = BTreeMap::new();
    for it in &kept {
        let rank = ranks.entry(it.key()).or_insert(&it.of.rank);
        *rank = (*rank).max(&it.of.rank);
    }
    let mut guarded: Vec<&Known<'_, R>> =
        kept.iter().copied().filter(|it| it.guards.is_some()).collect();
    guarded.sort_by(|a, b| b.of.rank.cmp(&a.of.rank));
    let mut written: BTreeSet<Key> = BTreeSet::new();
    for guard in guarded {
        for other in kept.iter().filter(|other| other.of.rank <= guard.of.rank) {
            if !guard.is_passed_by(other) || guard.specificity > other.specificity {
                continue;
            }
            let Some(made) = again(guard, other) else { continue };
            let made_key = key(&made);
            let is_taken = ranks.get(&made_key).is_some_and(|rank| **rank > guard.of.rank);
            if !is_taken && written.insert(made_key) {
                if made.path != guard.of.route.path {
                    let why = format!(
                        "it came before {} in the source: {} answers 403 here",
                        other.of.route.name, made.path
                    );
                    left(&guard.of.route, &why, "write a route with its guard for it", sheet);
                }
                sheet.route(made);
            }
        }
    }
    for it in &kept {
        if !written.contains(&it.key()) {
            sheet.route(it.of.route.clone());
        } else {
            let why = "a guarded route that came first in the source has its host and path";
            left(&it.of.route, why, "see whether its guard is the one that is meant", sheet);
        }
    }
    for it in lost.iter().filter(|it| it.guards.is_some()) {
        close_lost(it, &kept, &ranks, sheet);
    }
    for it in kept.iter().filter(|it| it.of.goes_on && it.guards.is_some()) {
        tell_shrunk(it, &kept, sheet);
    }
}

/// A guarded route once more, where another one is chosen here in its place.
fn again<R>(guard: &Known<'_, R>, other: &Known<'_, R>) -> Option<Route> {
    let (host, shape) = guard.both(other)?;
    let (from, of) = (&guard.of.route, &other.of.route);
    let is_same = host == of.host && shape == other.shape;
    if is_same && guard.specificity == other.specificity {
        // Of one host and path, more methods named come first.
        let (mine, its) = (from.methods.len(), of.methods.len());
        if mine > its || (mine == its && key(from) == key(of)) {
            return None;
        }
    }
    let mut made = from.clone();
    made.host = host;
    if shape != guard.shape {
        made.path = if shape == other.shape { of.path.clone() } else { shape.render() };
        made.table = closed(&format!("route {} guards this, {}.", from.name, from.at));
    }
    if is_same && !of.methods.is_empty() {
        made.methods.clone_from(&of.methods);
    }
    Some(made)
}

fn closed(why: &str) -> Table {
    let mut made = Table::new(format!("{FILL_IN}: closed, because {why}"));
    made.set("respond", "{ status = 403 }");
    made
}

/// Closes what a guarded route that is left out was for, and says what is open nevertheless.
fn close_lost<R: Ord>(
    lost: &Known<'_, R>,
    kept: &[&Known<'_, R>],
    ranks: &BTreeMap<Key, &R>,
    sheet: &mut Sheet,
) {
    let passing = kept.iter().filter(|it| {
        it.of.rank <= lost.of.rank && lost.is_passed_by(it) && lost.both(it).is_some()
    });
    let passing: Vec<_> = passing.collect();
    if passing.is_empty() {
        return;
    }
    let mut made = lost.of.route.clone();
    let is_within = |it: &Known<'_, R>| {
        lost.both(it).is_some_and(|(host, shape)| {
            let specificity = (host_specificity(host.as_deref()), shape.specificity());
            host == it.of.route.host && specificity == it.specificity
                || it.specificity > lost.specificity
        })
    };
    if let Some(open) = passing.iter().find(|it| is_within(it)) {
        sheet.opened(Left {
            at: made.at.clone(),
            what: made.name.clone(),
            why: format!(
                "its guard is left out with it, and route {} answers its requests",
                open.of.route.name
            ),
            instead: "write a route with this guard before you serve this file".to_owned(),
        });
    }
    if !ranks.contains_key(&key(&made)) {
        made.table = closed("a guarded route that is not carried over was for a part of this.");
        let why = format!("a guarded route that is left out: {} answers 403", made.path);
        left(&made, &why, "write a route with this guard, then remove the closed one", sheet);
        sheet.route(made);
    }
}

/// Lists paths that a guard was for because they begin like its own, and that are open here.
fn tell_shrunk<R: Ord>(guard: &Known<'_, R>, kept: &[&Known<'_, R>], sheet: &mut Sheet) {
    let route = &guard.of.route;
    let base = route.path.trim_end_matches("/*");
    let like = Shape::of(&format!("{base}.php"));
    let has_them = kept.iter().find(|other| {
        other.of.rank <= guard.of.rank
            && guard.is_passed_by(other)
            && both_hosts(route.host.as_deref(), other.of.route.host.as_deref()).is_some()
            && other.shape.both(&like).is_some()
    });
    if let Some(other) = has_them {
        sheet.opened(Left {
            at: route.at.clone(),
            what: format!("{base}.php and the like"),
            why: format!(
                "a route covers whole segments, and not what only begins like it; route {} has \
                 them now",
                other.of.route.name
            ),
            instead: "write routes with this guard for the paths that it was for".to_owned(),
        });
    }
}

fn left(route: &Route, why: &str, instead: &str, sheet: &mut Sheet) {
    sheet.left(Left {
        at: route.at.clone(),
        what: route.name.clone(),
        why: why.to_owned(),
        instead: instead.to_owned(),
    });
}
