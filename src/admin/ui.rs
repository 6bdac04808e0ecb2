//! The dashboard: plain files, compiled in, as a browser gets them under `/ui/`. What they show
//! comes from `/v1/`, by rules of its own; nothing here knows the gateway.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};

use super::reply::{Reply, not_allowed, problem, text};
use crate::base::http::hex;

/// One file, by its path below `/ui/`.
struct Asset {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of the folder `ui`.
macro_rules! asset {
    ($kind:expr, $path:literal) => {
        Asset { path: $path, kind: $kind, bytes: include_bytes!(concat!("ui/", $path)) }
    };
}

static ASSETS: &[Asset] = &[
    asset!(HTML, "index.html"),
    asset!(STYLE, "app.css"),
    asset!(IMAGE, "icon.svg"),
    asset!(SCRIPT, "js/api.js"),
    asset!(SCRIPT, "js/cache_purge.js"),
    asset!(SCRIPT, "js/cache_walk.js"),
    asset!(SCRIPT, "js/chart.js"),
    asset!(SCRIPT, "js/dialog.js"),
    asset!(SCRIPT, "js/dom.js"),
    asset!(SCRIPT, "js/format.js"),
    asset!(SCRIPT, "js/history.js"),
    asset!(SCRIPT, "js/keys.js"),
    asset!(SCRIPT, "js/live.js"),
    asset!(SCRIPT, "js/login.js"),
    asset!(SCRIPT, "js/lookup.js"),
    asset!(SCRIPT, "js/main.js"),
    asset!(SCRIPT, "js/request.js"),
    asset!(SCRIPT, "js/router.js"),
    asset!(SCRIPT, "js/routes_table.js"),
    asset!(SCRIPT, "js/search.js"),
    asset!(SCRIPT, "js/table.js"),
    asset!(SCRIPT, "js/theme.js"),
    asset!(SCRIPT, "js/pages/audit.js"),
    asset!(SCRIPT, "js/pages/cache.js"),
    asset!(SCRIPT, "js/pages/config.js"),
    asset!(SCRIPT, "js/pages/identity.js"),
    asset!(SCRIPT, "js/pages/index.js"),
    asset!(SCRIPT, "js/pages/limits.js"),
    asset!(SCRIPT, "js/pages/overview.js"),
    asset!(SCRIPT, "js/pages/queues.js"),
    asset!(SCRIPT, "js/pages/refusals.js"),
    asset!(SCRIPT, "js/pages/store.js"),
    asset!(SCRIPT, "js/pages/traffic.js"),
    asset!(SCRIPT, "js/pages/upstreams.js"),
];

/// One file of the dashboard.
pub(super) fn serve(head: &Parts) -> Reply {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return not_allowed("GET, HEAD");
    }
    let Some(path) = head.uri.path().strip_prefix("/ui/") else {
        // Links in the page are relative to its folder.
        let mut reply = text(StatusCode::PERMANENT_REDIRECT, Bytes::from_static(b"/ui/\n"));
        reply.headers_mut().insert(LOCATION, HeaderValue::from_static("/ui/"));
        return reply;
    };
    let path = if path.is_empty() { "index.html" } else { path };
    let Some(asset) = ASSETS.iter().find(|asset| asset.path == path) else {
        return problem(StatusCode::NOT_FOUND, "not_found", "The dashboard has no such file.");
    };
    let tag = tag(asset.bytes);
    let is_known = head.headers.get(IF_NONE_MATCH).is_some_and(|known| known == tag.as_str());
    let mut reply = if is_known {
        text(StatusCode::NOT_MODIFIED, Bytes::new())
    } else {
        text(StatusCode::OK, Bytes::from_static(asset.bytes))
    };
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    // Kept, but asked for each time: another version's page must not meet this one's scripts.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.extend(HeaderValue::from_str(&tag).ok().map(|tag| (ETAG, tag)));
    reply
}

fn tag(bytes: &[u8]) -> String {
    let sum = digest(&SHA256, bytes);
    let first = sum.as_ref().get(..8).unwrap_or_default();
    format!("\"{}\"", hex::encode(first))
}
