//! `GET /v1/cache/entry?url=…`: whether a URL is stored, where, for how long, and whether it would
//! answer.

use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{StatusCode, Uri};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::query;
use super::reply::{Fault, Reply, json as reply_json};
use crate::base::http::authority::Authority;
use crate::base::http::credentials::REDACTED;
use crate::base::http::fields;
use crate::cache::Withdrawn;
use crate::caching::Invalid;
use crate::proxy::{self, Held, NotLooked, StoredUrl, StoredVariant};
use crate::runtime::Gateway;
use crate::store::StoreError;

const EXAMPLE: &str = "/v1/cache/entry?url=http://shop.example/products/1";
/// Most claims that one question names.
const CLAIMS_MAX: usize = 16;
/// A look asks Redis some dozens of times, on the connection of requests: so there is one at a
/// time, and others wait for it.
static PLACE: Semaphore = Semaphore::const_new(1);

/// Every variant of one URL.
pub(super) async fn show(gateway: &Arc<Gateway>, uri: &Uri) -> Result<Reply, Fault> {
    let url = read(uri)?;
    // Whoever leaves makes room for the next.
    let _place = PLACE.acquire().await.map_err(|_| Fault::Store(StoreError::Unavailable))?;
    let held = proxy::stored(gateway, &url).await.map_err(|not_looked| match not_looked {
        NotLooked::Store(error) => Fault::Store(error),
        other => wrong(&other.text()),
    })?;
    if held.variants.is_empty() {
        return Err(Fault::Problem {
            status: StatusCode::NOT_FOUND,
            code: "entry_not_stored",
            detail: format!("Nothing is stored for {} on the route {}.", held.url, held.route),
        });
    }
    Ok(reply_json(StatusCode::OK, &told(&held)))
}

fn wrong(what: &str) -> Fault {
    Fault::Invalid(format!("{what} Example: {EXAMPLE}"))
}

/// The URL, and the claims `claim=NAME=VALUE`, whose values may be JSON.
fn read(uri: &Uri) -> Result<StoredUrl, Fault> {
    let (mut url, mut claims) = (None, Map::new());
    for (name, value) in query::pairs(uri.query())? {
        match &*name {
            "url" if url.is_none() => url = Some(value),
            "claim" if claims.len() < CLAIMS_MAX => {
                let (name, value) = value
                    .split_once('=')
                    .ok_or_else(|| wrong("A claim is written claim=NAME=VALUE."))?;
                let json = serde_json::from_str(value).ok().filter(|it| !Value::is_null(it));
                claims.insert(name.to_owned(), json.unwrap_or_else(|| value.into()));
            }
            _ => return Err(wrong("The query names one url, and the claims of its caller.")),
        }
    }
    let url = url.ok_or_else(|| wrong("Name the URL."))?;
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
        None => (None, &*url),
    };
    let schemes = match scheme.as_deref() {
        None => vec!["http", "https"],
        Some("http") => vec!["http"],
        Some("https") => vec!["https"],
        Some(_) => return Err(wrong(&format!("{url:?} is no http URL."))),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let not_one = || wrong(&format!("{url:?} is no http URL: it wants a host and a path."));
    let authority = Authority::parse(host.as_bytes()).ok_or_else(not_one)?;
    if path.contains('#') {
        return Err(wrong(&format!("{url:?} has a #: no server sees what follows it.")));
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let path: PathAndQuery = path.parse().map_err(|_| not_one())?;
    Ok(StoredUrl { schemes, authority, path, claims })
}

fn told(held: &Held) -> Value {
    let Held { route, url, variants, has_more, now_ms } = held;
    json!({
        "url": url,
        "route": route,
        "variants": variants.iter().map(|it| variant(it, url, *now_ms)).collect::<Vec<_>>(),
        "more": has_more,
    })
}

fn variant(variant: &StoredVariant, url: &str, now_ms: u64) -> Value {
    let StoredVariant { scheme, upstream, inspected } = variant;
    let response = &inspected.response;
    let places = [(inspected.is_near, "near"), (inspected.is_in_store, "store")];
    let places = places.into_iter().filter(|(is_there, _)| *is_there).map(|(_, place)| place);
    let vary = response.vary.iter().map(|(name, value)| {
        let value = value.as_ref().map(|value| match fields::bears_credentials(name.as_str()) {
            // A client's key is nothing that an operator needs.
            true => REDACTED.to_owned(),
            false => String::from_utf8_lossy(value).into_owned(),
        });
        (name.to_string(), json!(value))
    });
    json!({
        "where": places.collect::<Vec<_>>(),
        "scheme": scheme,
        "url": format!("{scheme}://{url}"),
        "upstream": upstream,
        "status": response.status.as_u16(),
        "age_s": response.age_ms(now_ms) / 1000,
        "ttl_s": response.ttl_s(now_ms),
        "lifetime_s": response.lifetime_s,
        "bytes": response.body.len(),
        "tags": response.tags,
        "groups": response.groups,
        "vary": vary.collect::<Map<String, Value>>(),
        "valid": inspected.invalid.is_none(),
        "why": inspected.invalid.map(why),
    })
}

fn why(invalid: Invalid) -> String {
    let what = |withdrawn| match withdrawn {
        Withdrawn::All => "everything was purged, or the store has begun anew",
        Withdrawn::Route => "its route was purged",
        Withdrawn::Host => "its host was purged",
        Withdrawn::Below => "its path or one above it was purged",
        Withdrawn::Path => "its path was purged, or written to",
        Withdrawn::Tag => "one of its tags or groups was purged",
    };
    match invalid {
        Invalid::Withdrawn(by) => what(by).to_owned(),
        Invalid::Softened(by) => format!("{}, softly: it is confirmed first", what(by)),
        Invalid::TagsUnknown => "the store does not say whether its tags were purged".to_owned(),
        Invalid::BodyGone => "a part of its body is gone".to_owned(),
        Invalid::BodyUnknown => "the store does not say whether its body is whole".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_url(query: &str) -> Option<(Vec<&'static str>, String, String)> {
        let uri: Uri = format!("/v1/cache/entry?{query}").parse().unwrap();
        let StoredUrl { schemes, authority, path, .. } = read(&uri).ok()?;
        Some((schemes, authority.as_str().to_owned(), path.to_string()))
    }

    #[test]
    fn a_url_has_a_host_and_needs_no_scheme() {
        for (query, expected) in [
            ("url=http://Shop.test/a", Some((vec!["http"], "shop.test", "/a"))),
            ("url=https://shop.test:81", Some((vec!["https"], "shop.test:81", "/"))),
            ("url=shop.test/a%3Fb=1%26c", Some((vec!["http", "https"], "shop.test", "/a?b=1&c"))),
            ("url=shop.test?b", Some((vec!["http", "https"], "shop.test", "/?b"))),
            ("url=ftp://shop.test/", None),
            ("url=/a", None),
            ("url=shop.test/a%23b", None),
            ("url=shop.test/a b", None),
            ("url=a/&url=b/", None),
            ("url=a/&claim=plan", None),
            ("other=a", None),
            ("", None),
        ] {
            let expected = expected.map(|(schemes, host, path): (Vec<&str>, &str, &str)| {
                (schemes, host.to_owned(), path.to_owned())
            });
            let query = query.replace(' ', "%20");
            assert_eq!(read_url(&query), expected, "{query}");
        }
        let uri = "/v1/cache/entry?url=a/&claim=plan=free&claim=n=3&claim=s=%223%22&claim=e=a=b";
        let claims = read(&uri.parse().unwrap()).ok().unwrap().claims;
        let expected = json!({ "plan": "free", "n": 3, "s": "3", "e": "a=b" });
        assert_eq!(Value::Object(claims), expected);
    }
}
