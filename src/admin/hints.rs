//! What to change where the cache of a route answers little: by what is met most often there.

use crate::observe::CacheCounts;

/// Of the requests that were no hits, the part from which on one cause is the one to speak of.
const MAIN: f64 = 0.5;
/// Lifetimes below this are short, in seconds.
const TTL_SHORT_S: u64 = 10;

/// Why responses are not stored, and which key, or which field of the upstream, changes that.
const REASONS: [(&str, &str); 20] = [
    (
        "no_store",
        "the upstream forbids it: have it send Cache-Control: s-maxage=60 in place of no-store",
    ),
    (
        "no_freshness",
        "the upstream states no lifetime: set cache.ttl, or have it send Cache-Control: s-maxage",
    ),
    ("private", "the upstream says private: set cache.partition = [\"claim:sub\"], if it is meant"),
    (
        "no_cache",
        "the upstream says no-cache: have it send an ETag, so that copies can be confirmed",
    ),
    ("authenticated", "nothing says who may see the answers: set cache.shared or cache.partition"),
    ("set_cookie", "the answers set cookies: have the upstream stop that, or see cache.set_cookie"),
    ("vary", "the answers vary on what cannot be compared: have the upstream narrow Vary"),
    ("too_long", "the bodies are longer than cache.max_bytes: raise it"),
    ("status", "of these statuses none is stored: see cache.negative and cache.error_ttl"),
    ("expired", "the answers arrive stale: have the upstream send a longer lifetime"),
    ("partial", "the upstream answers with parts (206): have it send the whole"),
    ("tags", "a tag was purged meanwhile, or there are too many: purge fewer answers by tags"),
    ("outdated", "they were purged while they were fetched: purge less at a time"),
    ("overtaken", "another gateway was quicker: raise store.cache_wait"),
    ("backlog", "too many bytes wait for Redis: raise store.backlog_bytes, or look at Redis"),
    ("store", "Redis did not take them: look at it on the page Store"),
    ("room", "there was no memory for them: raise store.backlog_bytes"),
    ("cut_off", "the answers broke off: look at the upstream"),
    ("deserted", "the clients left before the end: look at how long the answers take"),
    ("request", "the requests forbid it: set cache.ignore_request_directives"),
];

/// What to do about the misses of a route with these counts.
pub(super) fn remedy(counts: &CacheCounts) -> String {
    let is_main = |count: u64| count as f64 >= counts.others as f64 * MAIN && count > 0;
    if let Some((reason, count)) = counts.main_reason()
        && is_main(count)
    {
        let known = REASONS.iter().find(|(known, _)| *known == reason);
        let text = known.map_or("docs/cache.md has what is stored", |(_, text)| text);
        return format!("{count} were not stored ({reason}): {text}.");
    }
    if is_main(counts.vary_misses) {
        let count = counts.vary_misses;
        return format!(
            "{count} found another variant (vary-miss): have the upstream name fewer fields in \
             Vary, or the clients send the same values."
        );
    }
    if let Some(ttl) = counts.mean_ttl_s()
        && is_main(counts.stored)
        && ttl < TTL_SHORT_S
    {
        return format!(
            "They live for {ttl} s: have the upstream send a longer lifetime, or set \
             cache.stale_while_revalidate."
        );
    }
    if is_main(counts.stored) && counts.stored > counts.hits {
        return "Most of what is stored is asked for once: leave out parameters that make no \
                difference (cache.query.ignore); else a cache does not pay here."
            .to_owned();
    }
    "A longer lifetime (cache.ttl, s-maxage) or cache.stale_while_revalidate saves waiting."
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (stored(100, 6000, 900), "A longer lifetime"),
            (not_kept(&[]), "A longer lifetime"),
        ] {
            let told = remedy(&counts);
            assert!(told.contains(words), "{words:?} is not in {told:?}");
            assert!(told.ends_with('.'), "{told}");
        }
    }
}
