//! `GET /v1/series`: the rates of the last hour, of all requests or of one route.

use std::time::Duration;

use http::{StatusCode, Uri};
use serde_json::{Value, json};

use super::query;
use super::reply::{Fault, Reply, json as reply_json};
use crate::base::units::parse_positive_duration;
use crate::observe::Rates;
use crate::runtime::{Gateway, time_of};

/// How far a series goes back when nobody says it.
const WINDOW: Duration = Duration::from_secs(15 * 60);
const EXAMPLE: &str = "/v1/series?window=15m&route=products, or ?since=2026-12-01T09:10:00Z";

/// A member of an answer, and what it is of a period.
pub(super) type Member = (&'static str, fn(&Rates) -> f32);
/// What is told of any period.
pub(super) const RATES: [Member; 6] = [
    ("rps", |it| it.rps),
    ("error_ratio", |it| it.error_ratio),
    ("p50_s", |it| it.p50_s),
    ("p99_s", |it| it.p99_s),
    ("hit_ratio", |it| it.hit_ratio),
    ("refused_ps", |it| it.refused_ps),
];
/// What only a series tells beside them.
const CLASSES: [Member; 3] =
    [("s2xx_ps", |it| it.s2xx_ps), ("s4xx_ps", |it| it.s4xx_ps), ("s5xx_ps", |it| it.s5xx_ps)];

/// What is asked for.
#[derive(Default)]
struct Wanted {
    window: Option<Duration>,
    since_ms: Option<i64>,
    route: Option<String>,
}

impl Wanted {
    fn read(uri: &Uri) -> Result<Self, Fault> {
        let wrong = |what: String| Fault::Invalid(format!("{what} Example: {EXAMPLE}"));
        let mut wanted = Self::default();
        for (name, value) in query::pairs(uri.query())? {
            match &*name {
                "window" if wanted.window.is_none() && wanted.since_ms.is_none() => {
                    let window = parse_positive_duration(&value);
                    wanted.window = Some(window.map_err(|help| wrong(format!("window: {help}.")))?);
                }
                "since" if wanted.window.is_none() && wanted.since_ms.is_none() => {
                    let time = value.parse::<jiff::Timestamp>();
                    let time = time.map_err(|_| wrong(format!("{value:?} is no time.")))?;
                    wanted.since_ms = Some(time.as_millisecond());
                }
                "route" if wanted.route.is_none() => wanted.route = Some(value),
                _ => return Err(wrong(format!("{name:?} is unknown, or one too many."))),
            }
        }
        Ok(wanted)
    }

    fn since_ms(&self, now_ms: i64) -> i64 {
        let window = self.window.unwrap_or(WINDOW).as_millis();
        let window = i64::try_from(window).unwrap_or(i64::MAX);
        self.since_ms.unwrap_or_else(|| now_ms.saturating_sub(window))
    }
}

/// The series that a query names.
pub(super) fn show(gateway: &Gateway, uri: &Uri) -> Result<Reply, Fault> {
    let wanted = Wanted::read(uri)?;
    let since_ms = wanted.since_ms(jiff::Timestamp::now().as_millisecond());
    let route = wanted.route.as_deref();
    let series = gateway.looking.series(since_ms, route).ok_or_else(|| {
        Fault::Invalid(format!("No route is named {:?}. Example: {EXAMPLE}", route.unwrap_or("")))
    })?;
    let mut answer = json!({ "step_s": series.step_s, "from": time_of(series.from_ms) });
    for (name, of) in RATES.into_iter().chain(CLASSES) {
        let values = series
            .points
            .iter()
            .map(|point| point.as_ref().map_or(Value::Null, |it| number(of(it))));
        answer[name] = values.collect();
    }
    Ok(reply_json(StatusCode::OK, &answer))
}

/// As short as it was counted; what is no number is null.
pub(super) fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, |value| json!(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_what_is_none_is_null() {
        assert_eq!(number(0.1).to_string(), "0.1");
        assert_eq!(number(f32::NAN), Value::Null);
        assert_eq!(number(2.0).to_string(), "2.0");
    }

    #[test]
    fn a_series_begins_where_its_query_says() {
        let of = |query: &str| {
            let uri: Uri = format!("/v1/series{query}").parse().unwrap();
            Wanted::read(&uri).ok().map(|wanted| (wanted.since_ms(1_000_000), wanted.route))
        };
        assert_eq!(of(""), Some((100_000, None)));
        assert_eq!(of("?window=5m&route=a%2Fb"), Some((700_000, Some("a/b".to_owned()))));
        assert_eq!(of("?since=1970-01-01T00:10:00Z"), Some((600_000, None)));
        for wrong in [
            "?window=0s",
            "?window=5",
            "?since=now",
            "?window=5m&since=1970-01-01T00:10:00Z",
            "?a=b",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
