//! `GET /v1/cache/top?by=hits|misses|bytes`: the URLs that cached routes are asked for most at this
//! gateway, while somebody looks.

use std::time::Duration;

use http::{StatusCode, Uri};
use serde_json::json;
use tokio::time::Instant;

use super::query;
use super::reply::{Fault, Reply, json as reply_json};
use crate::observe::{TopNow, URLS_MAX, UrlCounts};
use crate::runtime::Gateway;

/// Most URLs of one answer.
const SHOWN_MAX: usize = 50;

/// The most by what the query names, hits where it names nothing.
pub(super) fn show(gateway: &Gateway, uri: &Uri) -> Result<Reply, Fault> {
    let mut by = "hits".to_owned();
    for (name, value) in query::pairs(uri.query())? {
        if name != "by" || !matches!(&*value, "hits" | "misses" | "bytes") {
            let detail = "by is hits, misses or bytes. Example: /v1/cache/top?by=misses";
            return Err(Fault::Invalid(detail.to_owned()));
        }
        by = value;
    }
    let counted = |counts: &UrlCounts| match &*by {
        "misses" => counts.misses,
        "bytes" => counts.bytes,
        _ => counts.hits,
    };
    let TopNow { since, skipped, mut urls } = gateway.observer.top_urls.look(Instant::now());
    urls.sort_by(|(a, one), (b, other)| counted(other).cmp(&counted(one)).then_with(|| a.cmp(b)));
    urls.truncate(SHOWN_MAX);
    let now = jiff::Timestamp::now();
    let ago = |span: Duration| {
        let at = jiff::SignedDuration::try_from(span).ok().and_then(|it| now.checked_sub(it).ok());
        at.map(|at| format!("{at:.3}"))
    };
    let urls = urls.iter().map(|(url, counts)| {
        json!({
            "url": url,
            "route": counts.route,
            "hits": counts.hits,
            "misses": counts.misses,
            "bytes": counts.bytes,
            "since": ago(counts.counted_for(since)),
        })
    });
    let answer = json!({
        "by": by,
        "since": ago(since),
        "bound": URLS_MAX,
        "skipped": skipped,
        "urls": urls.collect::<Vec<_>>(),
    });
    Ok(reply_json(StatusCode::OK, &answer))
}
