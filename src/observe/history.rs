//! The rates of the last hour: each second of the last five minutes while somebody looks, and each
//! ten seconds of the last hour always. Bounded in bytes. Pure: it is told what time it is.

use std::collections::VecDeque;
use std::sync::Arc;

use super::rates::Rates;

/// Seconds between two points, and most points.
const FINE: (u32, usize) = (1, 300);
const COARSE: (u32, usize) = (COARSE_S, 360);
/// The seconds of a period that is always counted.
pub const COARSE_S: u32 = 10;
/// Most routes of one point: with those of all points, less than 2 MiB.
const ROUTES_MAX: usize = 72;

/// How far apart points are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A second.
    Fine,
    /// Ten seconds.
    Coarse,
}

/// One period, by its end.
#[derive(Debug)]
struct Point {
    at_ms: i64,
    all: Rates,
    /// The busiest routes, by their place in the names. One that had no request is left out.
    routes: Box<[(u16, Rates)]>,
}

#[derive(Debug)]
struct Ring {
    step_s: u32,
    most: usize,
    points: VecDeque<Point>,
}

impl Ring {
    fn new((step_s, most): (u32, usize)) -> Self {
        Self { step_s, most, points: VecDeque::new() }
    }
}

/// See the module.
#[derive(Debug)]
pub struct History {
    names: Vec<Arc<str>>,
    fine: Ring,
    coarse: Ring,
}

/// Points at even distances; there is nothing of what was not counted.
#[derive(Debug)]
pub struct Series {
    /// Seconds between two points.
    pub step_s: u32,
    /// The end of the first one's period, in milliseconds since 1970.
    pub from_ms: i64,
    /// All of them, the oldest first.
    pub points: Vec<Option<Rates>>,
}

/// One period.
#[derive(Debug)]
pub struct Last {
    /// Of all requests.
    pub all: Rates,
    /// Of routes, the busiest first; one that had no request is left out.
    pub routes: Vec<(Arc<str>, Rates)>,
}

impl Default for History {
    fn default() -> Self {
        Self { names: Vec::new(), fine: Ring::new(FINE), coarse: Ring::new(COARSE) }
    }
}

impl History {
    /// The routes in force. What is known of others is forgotten.
    pub fn keep_routes<'n>(&mut self, names: impl Iterator<Item = &'n str> + Clone) {
        if names.clone().eq(self.names.iter().map(|name| &**name)) {
            return;
        }
        let former = std::mem::take(&mut self.names);
        self.names = names.map(Arc::from).collect();
        let moved: Vec<Option<u16>> = former.iter().map(|name| self.place(name)).collect();
        for point in self.fine.points.iter_mut().chain(&mut self.coarse.points) {
            let kept = point.routes.iter().filter_map(|(place, rates)| {
                Some((moved.get(usize::from(*place)).copied().flatten()?, *rates))
            });
            point.routes = kept.collect();
        }
    }

    /// The last period that ended after this time: all of it, and its busiest routes, the busiest
    /// first.
    pub fn last(&self, since_ms: i64) -> Option<Last> {
        let newest = |ring: &Ring| ring.points.back().map(|point| point.at_ms);
        let ring =
            if newest(&self.fine) > newest(&self.coarse) { &self.fine } else { &self.coarse };
        let point = ring.points.back().filter(|point| point.at_ms > since_ms)?;
        let named = |(place, rates): &(u16, Rates)| {
            Some((Arc::clone(self.names.get(usize::from(*place))?), *rates))
        };
        Some(Last { all: point.all, routes: point.routes.iter().filter_map(named).collect() })
    }

    /// What all requests came to in the last ten seconds that ended after this time, whoever looks.
    pub fn last_coarse(&self, since_ms: i64) -> Option<Rates> {
        self.coarse.points.back().filter(|point| point.at_ms > since_ms).map(|point| point.all)
    }

    fn place(&self, name: &str) -> Option<u16> {
        let place = self.names.iter().position(|known| **known == *name)?;
        u16::try_from(place).ok()
    }

    /// Adds a period that has ended at `at_ms`, with those of its routes in their order.
    pub fn push(&mut self, step: Step, at_ms: i64, all: Rates, routes: &[Rates]) {
        let mut routes: Vec<(u16, Rates)> = (0..=u16::MAX)
            .zip(routes.iter().copied())
            .filter(|(_, rates)| rates.rps > 0.0 || rates.refused_ps > 0.0)
            .collect();
        routes.sort_by(|(_, one), (_, other)| other.rps.total_cmp(&one.rps));
        routes.truncate(ROUTES_MAX);
        let ring = match step {
            Step::Fine => &mut self.fine,
            Step::Coarse => &mut self.coarse,
        };
        if ring.points.len() >= ring.most {
            ring.points.pop_front();
        }
        ring.points.push_back(Point { at_ms, all, routes: routes.into_boxed_slice() });
    }

    /// Nobody looks any more: seconds are not counted on.
    pub fn forget_fine(&mut self) {
        self.fine = Ring::new(FINE);
    }

    /// What is known since this time, of all or of one route: by seconds where these reach back so
    /// far. Nothing where there is no such route.
    pub fn series(&self, since_ms: i64, route: Option<&str>) -> Option<Series> {
        let place = match route {
            Some(name) => Some(self.place(name)?),
            None => None,
        };
        let step_ms = i64::from(self.fine.step_s) * 1000;
        let first = self.fine.points.front();
        let reaches = first.is_some_and(|point| point.at_ms - step_ms <= since_ms + step_ms / 2);
        let ring = if reaches { &self.fine } else { &self.coarse };
        let step_ms = i64::from(ring.step_s) * 1000;
        let points = ring.points.iter().filter(|point| point.at_ms > since_ms);
        let from_ms = points.clone().next().map_or(since_ms, |point| point.at_ms);
        let mut series = Series { step_s: ring.step_s, from_ms, points: Vec::new() };
        for point in points {
            let rates = match place {
                None => Some(point.all),
                Some(place) => {
                    let mut routes = point.routes.iter();
                    routes.find(|(known, _)| *known == place).map(|(_, rates)| *rates)
                }
            };
            // Rounded: no period is quite as long as another.
            let slot = (point.at_ms - from_ms + step_ms / 2) / step_ms;
            let slot = usize::try_from(slot).unwrap_or(0).min(ring.most);
            if series.points.len() <= slot {
                series.points.resize(slot + 1, None);
            }
            if let Some(kept) = series.points.get_mut(slot) {
                *kept = rates;
            }
        }
        Some(series)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::rates::RouteTotals;
    use super::*;

    fn rates(requests: u64) -> Rates {
        let totals = RouteTotals { requests, ..RouteTotals::default() };
        totals.rates(Duration::from_secs(1))
    }

    fn told(series: &Series) -> Vec<Option<u32>> {
        series.points.iter().map(|it| it.map(|rates| rates.rps as u32)).collect()
    }

    #[test]
    fn the_last_hour_is_known_and_no_more() {
        let mut history = History::default();
        history.keep_routes(["a", "b"].into_iter());
        for number in 1..=400_u32 {
            let routes = [rates(number.into()), rates(0)];
            history.push(Step::Coarse, i64::from(number) * 10_000, rates(7), &routes);
        }
        let series = history.series(0, Some("a")).unwrap();
        assert_eq!((series.step_s, series.from_ms, series.points.len()), (10, 410_000, 360));
        assert_eq!((told(&series)[0], told(&series)[359]), (Some(41), Some(400)));
        let recent = history.series(3_970_000, Some("a")).unwrap();
        assert_eq!(
            (recent.from_ms, told(&recent)),
            (3_980_000, vec![Some(398), Some(399), Some(400)])
        );
        assert_eq!(told(&history.series(3_990_000, None).unwrap()), [Some(7)]);
        assert_eq!(told(&history.series(3_990_000, Some("b")).unwrap()), [None]);
        assert!(history.series(0, Some("c")).is_none());
        let future = history.series(9_000_000, None).unwrap();
        assert_eq!((future.from_ms, future.points.len()), (9_000_000, 0));
    }

    #[test]
    fn seconds_are_told_where_they_reach_back_far_enough() {
        let mut history = History::default();
        history.push(Step::Coarse, 10_000, rates(1), &[]);
        for second in [11, 12, 14_i64] {
            history.push(Step::Fine, second * 1000 + second % 3, rates(2), &[]);
        }
        let fine = history.series(10_400, None).unwrap();
        assert_eq!((fine.step_s, told(&fine)), (1, vec![Some(2), Some(2), None, Some(2)]));
        let coarse = history.series(5_000, None).unwrap();
        assert_eq!((coarse.step_s, told(&coarse)), (10, vec![Some(1)]));
        history.forget_fine();
        assert_eq!(history.series(10_400, None).unwrap().step_s, 10);
        for second in 0..400_i64 {
            history.push(Step::Fine, second * 1000, rates(2), &[]);
        }
        assert_eq!(history.series(99_000, None).unwrap().points.len(), 300);
    }

    #[test]
    fn the_last_period_is_the_newest_of_either_kind() {
        let mut history = History::default();
        history.keep_routes(["a", "b", "c"].into_iter());
        assert!(history.last(0).is_none());
        history.push(Step::Coarse, 10_000, rates(6), &[rates(1), rates(3), rates(0)]);
        let told = |since_ms| {
            let last = history.last(since_ms)?;
            let routes = last.routes.iter().map(|(name, it)| format!("{name} {}", it.rps));
            Some((last.all.rps, routes.collect::<Vec<_>>()))
        };
        assert_eq!(told(9_999), Some((6.0, vec!["b 3".to_owned(), "a 1".to_owned()])));
        assert_eq!(told(10_000), None, "it is too old");
        history.push(Step::Fine, 11_000, rates(9), &[]);
        let newest = history.last(0).map(|last| (last.all.rps, last.routes.len()));
        assert_eq!(newest, Some((9.0, 0)));
        let coarse = |since_ms| history.last_coarse(since_ms).map(|all| all.rps);
        assert_eq!((coarse(9_999), coarse(10_000)), (Some(6.0), None), "a second is no ten");
    }

    #[test]
    fn a_reload_moves_routes_and_forgets_those_that_are_gone() {
        let mut history = History::default();
        history.keep_routes(["a", "b", "c"].into_iter());
        history.push(Step::Coarse, 10_000, rates(6), &[rates(1), rates(2), rates(3)]);
        history.keep_routes(["c", "new", "a"].into_iter());
        let of = |history: &History, name: &str| {
            history.series(0, Some(name)).map(|series| told(&series))
        };
        assert_eq!(of(&history, "a"), Some(vec![Some(1)]));
        assert_eq!(of(&history, "c"), Some(vec![Some(3)]));
        assert_eq!(of(&history, "new"), Some(vec![None]));
        assert_eq!(of(&history, "b"), None);
        history.keep_routes(["b"].into_iter());
        assert_eq!(of(&history, "b"), Some(vec![None]), "what is gone does not come back");
    }

    #[test]
    fn thousands_of_routes_take_no_more_than_two_mebibytes() {
        let mut history = History::default();
        let names: Vec<String> = (0..2000).map(|number| number.to_string()).collect();
        history.keep_routes(names.iter().map(String::as_str));
        let routes: Vec<Rates> = (0..2000).map(|number| rates(number + 1)).collect();
        for number in 1..=400_i64 {
            history.push(Step::Fine, 3_600_000 + number * 1000, rates(1), &routes);
            history.push(Step::Coarse, number * 10_000, rates(1), &routes);
        }
        let points = history.fine.points.iter().chain(&history.coarse.points);
        let bytes = |point: &Point| size_of::<Point>() + size_of_val(&*point.routes);
        assert!(points.map(bytes).sum::<usize>() <= 2 << 20);
        // The busiest are kept.
        let busiest = history.series(3_999_000, Some("1999")).unwrap();
        assert_eq!(told(&busiest), [Some(2000)]);
    }
}
