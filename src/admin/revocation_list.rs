//! `GET /v1/revocations`: what is revoked now, the newest first.

use std::cmp::Reverse;

use http::{StatusCode, Uri};
use serde_json::{Map, Value, json};

use super::reply::{Fault, Reply, json as reply_json};
use super::{masked, query};
use crate::plan::Plan;
use crate::runtime::{Gateway, time_of};
use crate::store::RevocationList;
use crate::store::keys::{Keys, RevokedKind, RevokedParts, hex_digest};
use crate::store::revoked::Known;

/// Revocations of one answer, unless its sender says otherwise.
const PAGE: usize = 100;
/// Most of them.
const PAGE_MAX: usize = 1000;

/// Where a page ends: the time and the name of its last one.
type Place = (u64, String);

/// One that is told of.
type Row<'k> = (&'k Known, RevokedParts<'k>);

/// What a query asks for.
#[derive(Debug)]
struct Wanted {
    kind: Option<RevokedKind>,
    sub: Option<String>,
    before: Option<Place>,
    limit: usize,
}

impl Wanted {
    fn read(uri: &Uri) -> Result<Self, Fault> {
        let mut wanted = Self { kind: None, sub: None, before: None, limit: PAGE };
        for (name, value) in query::pairs(uri.query())? {
            let wrong = || {
                let kinds = RevokedKind::ALL.map(RevokedKind::word).join(", ");
                Fault::Invalid(format!(
                    "{name:?} is unknown or has no such value. Example: ?kind=sub&limit=100, with \
                     kind one of {kinds}, sub, before=NEXT of the last answer, and limit up to \
                     {PAGE_MAX}."
                ))
            };
            match &*name {
                "kind" => wanted.kind = Some(kind(&value).ok_or_else(wrong)?),
                "sub" if !value.is_empty() => wanted.sub = Some(value),
                "before" => wanted.before = Some(place(&value).ok_or_else(wrong)?),
                "limit" => {
                    let limit = value.parse().ok().filter(|it| (1..=PAGE_MAX).contains(it));
                    wanted.limit = limit.ok_or_else(wrong)?;
                }
                _ => return Err(wrong()),
            }
        }
        Ok(wanted)
    }

    /// The keys of what `sub` names: under no verifier, and under each that has its own.
    fn keys(&self, plan: &Plan) -> Option<Vec<String>> {
        let sub = self.sub.as_ref()?;
        let of_tokens = plan.verifiers.values().map(|it| it.store_keys());
        let of_certificates = plan.certificate_verifiers.values().map(|it| it.store_keys());
        let all = std::iter::once(&plan.keys).chain(of_tokens).chain(of_certificates);
        Some(all.map(|keys| keys.not_before(sub)).collect())
    }
}

fn kind(word: &str) -> Option<RevokedKind> {
    RevokedKind::ALL.into_iter().find(|kind| kind.word() == word)
}

fn place(text: &str) -> Option<Place> {
    let (told_ms, id) = text.split_once('.')?;
    Some((told_ms.parse().ok()?, id.to_owned()))
}

/// Those that a query names, the newest first.
///
/// # Errors
/// The query is not understood, or the store had to be asked and did not answer.
pub(super) async fn list(gateway: &Gateway, uri: &Uri) -> Result<Reply, Fault> {
    let wanted = Wanted::read(uri)?;
    let running = gateway.running();
    let plan = &running.plan;
    let known = gateway.store.revocations(plan.config.admin.revocation_ttl).await?;
    let keys = wanted.keys(plan);
    let takes = |(known, parts): &Row<'_>| {
        wanted.kind.is_none_or(|kind| parts.kind == kind)
            && keys.as_ref().is_none_or(|keys| keys.contains(&known.key))
    };
    let all = known.revocations.iter();
    let all = all.filter_map(|it| Some((it, plan.keys.revoked_parts(&it.key)?)));
    let all: Vec<Row<'_>> = all.filter(takes).collect();
    let total = all.len();
    let (page, is_more) = page(all, wanted.before.as_ref(), wanted.limit);
    let next = page.last().filter(|_| is_more).map(|((told_ms, id), _)| format!("{told_ms}.{id}"));
    let shown: Vec<Value> = page.iter().map(tell).collect();
    let mut answer = json!({ "revocations": shown, "total": total, "next": next });
    tell_source(&mut answer, &known);
    Ok(reply_json(StatusCode::OK, &answer))
}

/// So many of them behind a place, the newest first, and whether there are more. A name costs a
/// digest, so only those around the page get one.
fn page<'k>(
    mut all: Vec<Row<'k>>,
    before: Option<&Place>,
    limit: usize,
) -> (Vec<(Place, Row<'k>)>, bool) {
    all.sort_unstable_by_key(|(known, _)| Reverse(known.told_ms));
    let newest = before.map_or(u64::MAX, |(told_ms, _)| *told_ms);
    let mut page: Vec<(Place, Row<'k>)> = Vec::new();
    let moments = all.chunk_by(|(one, _), (other, _)| one.told_ms == other.told_ms);
    for of_a_moment in moments.skip_while(|them| them.iter().any(|it| it.0.told_ms > newest)) {
        if page.len() > limit {
            break;
        }
        let named = of_a_moment.iter();
        let named = named.map(|row| ((row.0.told_ms, masked::name_of(&row.0.key)), *row));
        let mut named: Vec<(Place, Row<'k>)> =
            named.filter(|(place, _)| before.is_none_or(|before| place < before)).collect();
        named.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
        page.append(&mut named);
    }
    let is_more = page.len() > limit;
    page.truncate(limit);
    (page, is_more)
}

/// How much of the truth the list is.
fn tell_source(answer: &mut Value, list: &RevocationList) {
    answer["from"] = if list.is_from_stream { "stream" } else { "memory" }.into();
    answer["current"] = list.is_current.into();
    answer["complete"] = list.is_complete.into();
    answer["bound"] = list.bound.into();
}

fn tell(((told_ms, id), (known, parts)): &(Place, Row<'_>)) -> Value {
    let mut told = Map::new();
    told.insert("id".to_owned(), id.as_str().into());
    told.insert("kind".to_owned(), parts.kind.word().into());
    let (member, value) = what(parts);
    told.insert(member.to_owned(), value.into());
    told.insert("auth".to_owned(), parts.auth.into());
    told.insert("revoked_at".to_owned(), moment(*told_ms).into());
    told.insert("expires_at".to_owned(), moment(known.until.saturating_mul(1000)).into());
    if let Some(at) = known.not_before {
        told.insert("not_before".to_owned(), at.into());
    }
    Value::Object(told)
}

/// What is revoked: the member that says it, and its value.
pub(super) type What = (&'static str, String);

/// The member that says what is revoked. A `sid` may be what a browser shows to prove who it is.
fn what(parts: &RevokedParts<'_>) -> What {
    let member = match parts.kind {
        RevokedKind::Key => "key_id",
        kind => kind.word(),
    };
    if Keys::may_name_session(parts.kind, parts.part) {
        return (member, format!("sha256:{}", hex_digest(parts.part.as_bytes())));
    }
    (member, parts.part.to_owned())
}

/// A time for people; nothing where nobody knows it.
fn moment(ms: u64) -> Option<String> {
    let ms = i64::try_from(ms).ok().filter(|ms| *ms > 0)?;
    Some(time_of(ms)).filter(|text| !text.is_empty())
}

/// The key of the revocation that was listed with this `id`, and what it revokes.
///
/// # Errors
/// There is none, or the store had to be asked and did not answer.
pub(super) async fn find(gateway: &Gateway, id: &str) -> Result<(String, What), Fault> {
    let running = gateway.running();
    let plan = &running.plan;
    let known = gateway.store.revocations(plan.config.admin.revocation_ttl).await?;
    // Without a name no two are told apart.
    let is_meant = |it: &&Known| id.starts_with('#') && masked::name_of(&it.key) == id;
    let found = known.revocations.iter().find(is_meant);
    let found = found.and_then(|it| Some((it, plan.keys.revoked_parts(&it.key)?)));
    found.map(|(known, parts)| (known.key.clone(), what(&parts))).ok_or_else(|| Fault::Problem {
        status: StatusCode::NOT_FOUND,
        code: "revocation_not_found",
        detail: "No revocation is listed with this id here: it has ended or was taken back, or \
                     the gateway was started anew since. List them again."
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_which_and_how_many() {
        let read = |query: &str| {
            let uri: Uri = format!("/v1/revocations{query}").parse().unwrap();
            Wanted::read(&uri).ok().map(|it| (it.kind, it.sub, it.before, it.limit))
        };
        assert_eq!(read(""), Some((None, None, None, PAGE)));
        let whole = read("?kind=sub&sub=42&before=17.%230f&limit=1000");
        let place = Some((17, "#0f".to_owned()));
        assert_eq!(whole, Some((Some(RevokedKind::Subject), Some("42".into()), place, 1000)));
        for wrong in [
            "?kind=token",
            "?sub=",
            "?before=17",
            "?before=x.%230f",
            "?limit=0",
            "?limit=1001",
            "?limit=x",
            "?auth=users",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn pages_end_where_the_next_ones_begin() {
        let keys = Keys::new("app");
        let of = |at: u64| {
            let key = keys.blacklist(&format!("t-{at}"));
            // Three of each moment.
            Known { key, not_before: None, until: 0, since: 0, told_ms: at / 3 }
        };
        let known: Vec<Known> = (0..20).map(of).collect();
        let all = || known.iter().map(|it| (it, keys.revoked_parts(&it.key).unwrap())).collect();
        let (whole, is_more) = page(all(), None, 20);
        assert_eq!((whole.len(), is_more), (20, false));
        assert!(whole.windows(2).all(|two| two[0].0 > two[1].0));
        for limit in [1, 2, 3, 4, 19] {
            let (mut read, mut before) = (Vec::new(), None);
            loop {
                let (some, is_more) = page(all(), before.as_ref(), limit);
                assert_eq!(some.len(), limit.min(20 - read.len()), "{limit}");
                before = some.last().map(|(place, _)| place.clone());
                read.extend(some);
                if !is_more {
                    break;
                }
            }
            assert_eq!(read, whole, "{limit}");
        }
    }

    #[test]
    fn no_session_is_told_by_its_name_whoever_verified_its_tokens() {
        let (now, former) = (Keys::new("app"), Keys::new("app").qualified("users"));
        let of = |key: &str| what(&now.revoked_parts(key).unwrap());
        let told = of(&now.blacklist_session("s-1"));
        assert!(told.0 == "sid" && told.1.starts_with("sha256:"), "{told:?}");
        assert_eq!(of(&former.blacklist_session("s-1")), told, "it is not shared any more");
        for key in ["app:auth:blacklist:a:b:sid:s-1", "app:auth:blacklist:sid:sid:s-1"] {
            assert!(!of(key).1.contains("s-1"), "{key}");
        }
        assert_eq!(of(&former.blacklist("t-1")), ("jti", "users:t-1".to_owned()));
        assert_eq!(of(&now.blacklist_key("k-1")), ("key_id", "k-1".to_owned()));
    }

    #[test]
    fn a_time_that_nobody_knows_is_none() {
        assert_eq!(moment(1_700_000_000_123).as_deref(), Some("2023-11-14T22:13:20.123Z"));
        assert_eq!((moment(0), moment(u64::MAX)), (None, None));
    }
}
