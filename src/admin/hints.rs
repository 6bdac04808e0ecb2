//! What to change where the cache of a route answers little, or costs more than it must: by what is
//! met most often there. One table; a hint names the reason, and the key that changes it.

use serde::Serialize;

use crate::observe::CacheCounts;

/// Hits of fewer requests say nothing.
pub(super) const HITS_OF_MIN: u64 = 100;
/// Below this share of hits a cache is worth a look, and below that it is poor.
pub(super) const HITS: (f64, f64) = (0.9, 0.5);
/// Of the requests that were no hits, the part from which on one cause is the one to speak of.
const MAIN: f64 = 0.5;
/// Lifetimes below this are short, in seconds.
const TTL_SHORT_S: u64 = 10;
/// The lifetimes of fewer responses say nothing.
const STORED_MIN: u64 = 100;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Hint {
    /// What it is known by: a reason of `cache_not_kept_total`, a verdict, or a word of its own.
    pub(super) reason: &'static str,
    /// The key of a route that changes it; nothing where others are to do it.
    #[serde(rename = "setting")]
    pub(super) key: Option<&'static str>,
    /// What is seen.
    pub(super) what: String,
    /// What to do.
    #[serde(rename = "do")]
    pub(super) remedy: &'static str,
}

impl Hint {
    /// All of it, as one sentence.
    pub(super) fn text(&self) -> String {
        format!("{}: {}.", self.what, self.remedy)
    }
}

/// A reason, the key of the route that changes it, and what to do.
type Row = (&'static str, Option<&'static str>, &'static str);

/// Why responses are not stored, and which key, or which field of the upstream, changes that.
const REASONS: [Row; 20] = [
    (
        "no_store",
        None,
        "the upstream forbids it: have it send Cache-Control: s-maxage=60 in place of no-store",
    ),
    (
        "no_freshness",
        Some("cache.ttl"),
        "the upstream states no lifetime: set cache.ttl, or have it send Cache-Control: s-maxage",
    ),
    (
        "private",
        Some("cache.partition"),
        "the upstream says private: set cache.partition = [\"claim:sub\"], if it is meant",
    ),
    (
        "no_cache",
        None,
        "the upstream says no-cache: have it send an ETag, so that copies can be confirmed",
    ),
    (
        "authenticated",
        Some("cache.shared"),
        "nothing says who may see the answers: set cache.shared or cache.partition",
    ),
    (
        "set_cookie",
        Some("cache.set_cookie"),
        "the answers set cookies: have the upstream stop that, or see cache.set_cookie",
    ),
    ("vary", None, "the answers vary on what cannot be compared: have the upstream narrow Vary"),
    ("too_long", Some("cache.max_bytes"), "the bodies are longer than cache.max_bytes: raise it"),
    (
        "status",
        Some("cache.error_ttl"),
        "of these statuses none is stored: see cache.negative and cache.error_ttl",
    ),
    ("expired", None, "the answers arrive stale: have the upstream send a longer lifetime"),
    ("partial", None, "the upstream answers with parts (206): have it send the whole"),
    (
        "tags",
        None,
        "a tag was purged meanwhile, or there are too many: purge fewer answers by tags",
    ),
    (
        "outdated",
        Some("invalidates"),
        "they were purged while they were fetched: purge less at a time",
    ),
    ("overtaken", None, "another gateway was quicker: raise store.cache_wait"),
    ("backlog", None, "too many bytes wait for Redis: raise store.backlog_bytes, or look at Redis"),
    ("store", None, "Redis did not take them: look at it on the page Store"),
    ("room", None, "there was no memory for them: raise store.backlog_bytes"),
    ("cut_off", None, "the answers broke off: look at the upstream"),
    ("deserted", None, "the clients left before the end: look at how long the answers take"),
    (
        "request",
        Some("cache.ignore_request_directives"),
        "the requests forbid it: set cache.ignore_request_directives",
    ),
];

/// The level of a route's hits, of so many requests; nothing of too few.
pub(super) fn hits_level(requests: u64, ratio: f64) -> Option<&'static str> {
    (requests >= HITS_OF_MIN).then_some(match ratio {
        ratio if ratio >= HITS.0 => "good",
        ratio if ratio >= HITS.1 => "watch",
        _ => "poor",
    })
}

/// What to do about the misses of a route with these counts.
pub(super) fn remedy(counts: &CacheCounts) -> String {
    of_misses(counts).first().map(Hint::text).unwrap_or_default()
}

/// The hints for what the cache of a route has counted, in the order of what they would change.
pub(super) fn find(counts: &CacheCounts) -> Vec<Hint> {
    let is_low = counts.hit_ratio().is_some_and(|ratio| ratio < HITS.0);
    let mut found = match counts.requests() >= HITS_OF_MIN && is_low {
        true => of_misses(counts),
        false => Vec::new(),
    };
    let is_known = found.iter().any(|hint| hint.reason == SHORT_TTL);
    found.extend(of_ttl(counts).filter(|_| !is_known && counts.stored >= STORED_MIN));
    let drops = counts.not_kept.get(BACKLOG).copied().unwrap_or_default();
    let is_known = found.iter().any(|hint| hint.reason == BACKLOG);
    if !is_known && drops > 0 {
        found.push(not_kept(BACKLOG, drops));
    }
    found
}

const SHORT_TTL: &str = "short_ttl";
const BACKLOG: &str = "backlog";

/// Why the requests were no hits that were none: at least one hint, the main one first.
fn of_misses(counts: &CacheCounts) -> Vec<Hint> {
    let is_main = |count: u64| count as f64 >= counts.others as f64 * MAIN && count > 0;
    let mut found = Vec::new();
    if let Some((reason, count)) = counts.main_reason().filter(|(_, count)| is_main(*count)) {
        found.push(not_kept(reason, count));
    }
    if is_main(counts.vary_misses) {
        found.push(Hint {
            reason: "vary-miss",
            key: None,
            what: format!("{} found another variant (vary-miss)", counts.vary_misses),
            remedy: "have the upstream name fewer fields in Vary, or the clients send the same \
                     values",
        });
    }
    found.extend(of_ttl(counts).filter(|_| is_main(counts.stored)));
    if is_main(counts.stored) && counts.stored > counts.hits {
        found.push(Hint {
            reason: "asked_once",
            key: Some("cache.query"),
            what: "Most of what is stored is asked for once".to_owned(),
            remedy: "leave out parameters that make no difference (cache.query.ignore); else a \
                     cache does not pay here",
        });
    }
    if found.is_empty() {
        let percent = (counts.hit_ratio().unwrap_or_default() * 100.0).floor();
        found.push(Hint {
            reason: "few_hits",
            key: Some("cache.ttl"),
            what: format!("{percent} % of {} requests were hits", counts.requests()),
            remedy: "a longer lifetime (cache.ttl, s-maxage) or cache.stale_while_revalidate saves \
                     waiting",
        });
    }
    found
}

fn not_kept(reason: &'static str, count: u64) -> Hint {
    let known = REASONS.iter().find(|(known, _, _)| *known == reason);
    let (_, key, remedy) = known.copied().unwrap_or((reason, None, "see docs/cache.md"));
    Hint { reason, key, what: format!("{count} were not stored ({reason})"), remedy }
}

fn of_ttl(counts: &CacheCounts) -> Option<Hint> {
    let ttl = counts.mean_ttl_s().filter(|ttl| *ttl < TTL_SHORT_S)?;
    Some(Hint {
        reason: SHORT_TTL,
        key: Some("cache.stale_while_revalidate"),
        what: format!("They live for {ttl} s"),
        remedy: "have the upstream send a longer lifetime, or set cache.stale_while_revalidate",
    })
}

/// The hint where so many parts of stored bodies were gone.
pub(super) fn of_lost_parts(lost: u64) -> Option<Hint> {
    (lost > 0).then(|| Hint {
        reason: "lost_parts",
        key: Some("cache.max_bytes"),
        what: format!("{lost} parts of stored bodies were gone before their time"),
        remedy: "Redis evicts what the cache needs; give it more memory (maxmemory), or lower \
                 cache.max_bytes",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(seen: &CacheCounts) -> Vec<&'static str> {
        find(seen).into_iter().map(|hint| hint.reason).collect()
    }

    #[test]
    fn hints_come_with_enough_to_judge_by() {
        let of = |hits, others| CacheCounts { hits, others, ..CacheCounts::default() };
        let stored = |counts: CacheCounts, stored, stored_ttl_s| CacheCounts {
            stored,
            stored_ttl_s,
            ..counts
        };
        let not_kept = |reason, count| CacheCounts {
            not_kept: [(reason, count)].into_iter().collect(),
            ..of(49, 51)
        };
        let vary = |vary_misses| CacheCounts { vary_misses, ..of(49, 51) };
        let backlog = CacheCounts { hits: 99, others: 1, ..not_kept("backlog", 3) };
        for (seen, expected) in [
            (CacheCounts::default(), &[][..]),
            (of(90, 10), &[]),
            (of(89, 11), &["few_hits"]),
            (of(0, 99), &[]),
            (not_kept("no_store", 26), &["no_store"]),
            (not_kept("no_store", 25), &["few_hits"]),
            (not_kept("new_word", 51), &["new_word"]),
            (vary(26), &["vary-miss"]),
            (vary(25), &["few_hits"]),
            (stored(of(50, 150), 100, 6000), &["asked_once"]),
            (stored(of(100, 150), 100, 6000), &["few_hits"]),
            (stored(of(90, 10), 100, 950), &["short_ttl"]),
            (stored(of(20, 80), 100, 950), &["short_ttl", "asked_once"]),
            (stored(of(90, 10), 99, 99), &[]),
            (backlog, &["backlog"]),
            (not_kept("backlog", 51), &["backlog"]),
        ] {
            assert_eq!(reasons(&seen), expected, "{seen:?}");
        }
        let hint = &find(&not_kept("too_long", 40))[0];
        assert_eq!((hint.reason, hint.key), ("too_long", Some("cache.max_bytes")));
        let text = "40 were not stored (too_long): the bodies are longer than cache.max_bytes: \
                    raise it.";
        assert_eq!(hint.text(), text);
        assert!(of_lost_parts(0).is_none() && of_lost_parts(1).is_some());
    }

    #[test]
    fn a_key_that_a_hint_names_is_one() {
        let known = crate::config::known_keys();
        for (reason, key, _) in &REASONS {
            let Some(key) = key else { continue };
            let path = format!("routes.NAME.{key}");
            assert!(known.iter().any(|it| it.as_str() == path), "{reason}: {path}");
        }
    }

    #[test]
    fn the_most_frequent_cause_is_the_one_that_is_told() {
        let not_kept = |all: &[(&'static str, u64)]| CacheCounts {
            others: 100,
            not_kept: all.iter().copied().collect(),
            ..CacheCounts::default()
        };
        let stored = |stored, stored_ttl_s, hits| CacheCounts {
            others: 100,
            hits,
            stored,
            stored_ttl_s,
            ..CacheCounts::default()
        };
        for (counts, words) in [
            (not_kept(&[("no_store", 60), ("vary", 40)]), "60 were not stored (no_store): "),
            (not_kept(&[("no_store", 60)]), "s-maxage"),
            (not_kept(&[("no_freshness", 50)]), "cache.ttl"),
            (not_kept(&[("authenticated", 99)]), "cache.shared or cache.partition"),
            (not_kept(&[("new_word", 99)]), "(new_word)"),
            (CacheCounts { vary_misses: 70, ..not_kept(&[("vary", 9)]) }, "Vary"),
            (stored(100, 500, 90), "They live for 5 s"),
            (stored(100, 6000, 9), "cache.query.ignore"),
            (stored(100, 6000, 900), "a longer lifetime"),
            (not_kept(&[]), "a longer lifetime"),
        ] {
            let told = remedy(&counts);
            assert!(told.contains(words), "{words:?} is not in {told:?}");
            assert!(told.ends_with('.'), "{told}");
        }
    }
}
