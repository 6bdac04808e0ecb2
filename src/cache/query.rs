//! Parameters of a query that make no difference on a route.
//!
//! Left out of the key alone, a parameter that the upstream does look at would let one client
//! choose what all others get. So the rule changes the target itself: what is keyed is what is
//! forwarded.

use std::borrow::Cow;

use http::Method;
use http::uri::PathAndQuery;

use crate::base::facts::Target;
use crate::config::{self, Parameters};

/// The parameters that remain of a query, in their order. An empty query is not the same as none,
/// and remains. Nothing is decoded, and `;` separates nothing: a parameter that is written in
/// another way than the rule names it is one that matters to it.
fn remaining<'q>(rule: &config::Query, query: &'q str) -> Vec<&'q str> {
    if query.is_empty() {
        return vec![query];
    }
    let is_kept = |parameter: &&str| matters(rule, name(parameter));
    let mut parameters: Vec<&str> = query.split('&').filter(is_kept).collect();
    if rule.sort {
        // Those of one name keep their order.
        parameters.sort_by_key(|parameter| name(parameter));
    }
    parameters
}

/// Whether a parameter of this name makes a difference.
fn matters(rule: &config::Query, name: &str) -> bool {
    match &rule.parameters {
        Parameters::AllBut(names) => !is_among(names, name),
        Parameters::Only(names) => is_among(names, name),
    }
}

/// Whether one of `names` is this name; one that ends in `*` stands for all that begin so.
fn is_among(names: &[String], name: &str) -> bool {
    names.iter().any(|known| match known.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => name == known,
    })
}

/// What stands before the first `=`.
fn name(parameter: &str) -> &str {
    parameter.split_once('=').map_or(parameter, |(name, _)| name)
}

/// Longest name of a parameter that is shown, in bytes. What is longer may be a token.
const NAME_BYTES_MAX: usize = 32;

/// A query with the names of its parameters alone: values may be tokens.
#[must_use]
pub fn without_values(query: &str) -> String {
    let shown = |parameter: &str| match parameter.split_once('=') {
        // What ends in `=` may be all value: base64 does.
        Some((name, value)) if value.bytes().any(|it| it != b'=') => match shortened(name) {
            Some(short) => format!("{short}…=…"),
            None => format!("{name}=…"),
        },
        // What has no name may be a value.
        _ => "…".to_owned(),
    };
    query.split('&').map(shown).collect::<Vec<_>>().join("&")
}

/// What is shown of a name that is too long.
fn shortened(name: &str) -> Option<&str> {
    let fits = |end: &usize| name.is_char_boundary(*end);
    let end = (name.len() > NAME_BYTES_MAX).then(|| (0..=NAME_BYTES_MAX).rev().find(fits))??;
    name.get(..end)
}

/// The target as it is keyed and sent: without the parameters that make no difference on the route.
/// Only reads are changed: what another method's query means is between client and upstream.
#[must_use]
pub fn forwarded<'t>(
    policy: Option<&config::Cache>,
    method: &Method,
    target: Cow<'t, Target>,
) -> Cow<'t, Target> {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let rule = policy.filter(|_| is_read).and_then(|policy| policy.query.as_ref());
    let (Some(rule), Some(query)) = (rule, target.query()) else { return target };
    let parameters = remaining(rule, query);
    let mut text = target.path().to_owned();
    if !parameters.is_empty() {
        text.extend(["?", &parameters.join("&")]);
    }
    if text == target.path_and_query.as_str() {
        return target;
    }
    // What is left of a good target is one.
    let Ok(path_and_query) = PathAndQuery::try_from(text) else { return target };
    Cow::Owned(Target { authority: target.authority.clone(), path_and_query })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::http::authority::Authority;
    use crate::config::{Cache, Query};

    fn rule(keeps: bool, names: &[&str], sort: bool) -> Query {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let parameters = if keeps { Parameters::Only(names) } else { Parameters::AllBut(names) };
        Query { parameters, sort }
    }

    /// What becomes of the path and query of a request.
    fn sent(rule: &Query, method: &Method, text: &str) -> String {
        let policy = Cache { query: Some(rule.clone()), ..Cache::default() };
        let target = Target {
            authority: Authority::parse(b"h").unwrap(),
            path_and_query: text.parse().unwrap(),
        };
        let target = forwarded(Some(&policy), method, Cow::Owned(target));
        target.path_and_query.as_str().to_owned()
    }

    #[test]
    fn what_is_named_makes_no_difference_or_is_all_that_does() {
        let ignores = rule(false, &["utm_*", "fbclid"], false);
        let keeps = rule(true, &["page", "f*"], false);
        let keeps_none = rule(true, &[], false);
        for (rule, given, expected) in [
            (&ignores, "/p", "/p"),
            (&ignores, "/p?", "/p?"),
            (&ignores, "/p?a=1&b", "/p?a=1&b"),
            (&ignores, "/p?utm_source=x", "/p"),
            (&ignores, "/p?utm_=&fbclid&utm_x=1=2", "/p"),
            (&ignores, "/p?b=2&fbclid=y&a=1&b=1&utm_source=x", "/p?b=2&a=1&b=1"),
            // Not by its value, its case, another spelling, or what it begins with.
            (&ignores, "/p?a=fbclid&fbclid2=1&Fbclid&utm", "/p?a=fbclid&fbclid2=1&Fbclid&utm"),
            (&ignores, "/p?utm%5Fx=1&fbclid%3D=1", "/p?utm%5Fx=1&fbclid%3D=1"),
            // A semicolon belongs to the name or the value that it stands in.
            (&ignores, "/p?a=1;fbclid=2", "/p?a=1;fbclid=2"),
            (&ignores, "/p?fbclid=1;a=2", "/p"),
            (&ignores, "/p?fbclid;a=2", "/p?fbclid;a=2"),
            (&ignores, "/p?&&a&", "/p?&&a&"),
            (&ignores, "/p?&fbclid", "/p?"),
            (&keeps, "/p?x=1&page=2&f=3&foo&page=1", "/p?page=2&f=3&foo&page=1"),
            (&keeps, "/p?x=page", "/p"),
            (&keeps, "/p?&&page&", "/p?page"),
            (&keeps, "/p?", "/p?"),
            (&keeps_none, "/p?a=1&b", "/p"),
            (&keeps_none, "/p?", "/p?"),
        ] {
            assert_eq!(sent(rule, &Method::GET, given), expected, "{rule:?}");
        }
    }

    #[test]
    fn no_value_is_shown() {
        let (longest, long) = ("x".repeat(NAME_BYTES_MAX), "é".repeat(NAME_BYTES_MAX));
        for (query, expected) in [
            ("q=tea&page=2", "q=…&page=…"),
            ("s3cret", "…"),
            ("a=b=c&", "a=…&…"),
            ("", "…"),
            ("c2VjcmV0==", "…"),
            ("c2VjcmV0=&a=1", "…&a=…"),
            ("a==b", "a=…"),
            (&format!("{longest}=1"), &format!("{longest}=…")),
            (&format!("x{long}=1"), &format!("x{}…=…", "é".repeat(15))),
        ] {
            assert_eq!(without_values(query), expected);
        }
    }

    #[test]
    fn sorting_keeps_the_order_of_repeats() {
        let sorts = rule(false, &["u"], true);
        for (given, expected) in [
            ("/p?b=1&a=2&b=0&a", "/p?a=2&a&b=1&b=0"),
            ("/p?a=2&a=1", "/p?a=2&a=1"),
            ("/p?a=1", "/p?a=1"),
            // By the bytes of the names alone: a name is before those that it begins.
            ("/p?ab=1&a=9&B&%61=1", "/p?%61=1&B&a=9&ab=1"),
            ("/p?z&u=1&&y", "/p?&y&z"),
            ("/p?", "/p?"),
            ("/p", "/p"),
        ] {
            assert_eq!(sent(&sorts, &Method::GET, given), expected);
        }
    }

    #[test]
    fn only_reads_are_changed() {
        let ignores = rule(false, &["fbclid"], true);
        let given = "/p?fbclid=1&b&a";
        assert_eq!(sent(&ignores, &Method::HEAD, given), "/p?a&b");
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert_eq!(sent(&ignores, &method, given), given, "{method}");
        }
    }

    #[test]
    fn without_a_rule_a_query_stays_byte_for_byte() {
        let target = Target {
            authority: Authority::parse(b"h").unwrap(),
            path_and_query: PathAndQuery::from_static("/p?b&&a=%7e&utm_x"),
        };
        for policy in [None, Some(Cache::default())] {
            let sent = forwarded(policy.as_ref(), &Method::GET, Cow::Borrowed(&target));
            assert!(matches!(sent, Cow::Borrowed(_)));
            assert_eq!(sent.path_and_query, target.path_and_query);
        }
    }

    fn any_rule() -> impl Strategy<Value = Query> {
        let names = proptest::collection::vec("[ab%]{1,2}\\*?", 0..3);
        (any::<bool>(), names, any::<bool>()).prop_map(|(keeps, names, sort)| Query {
            parameters: if keeps { Parameters::Only(names) } else { Parameters::AllBut(names) },
            sort,
        })
    }

    proptest! {
        #[test]
        fn what_remains_is_what_matters_and_stays_so(
            rule in any_rule(), query in "[ab=&;%1]{0,24}",
        ) {
            let once = sent(&rule, &Method::GET, &format!("/p?{query}"));
            prop_assert_eq!(sent(&rule, &Method::GET, &once), once.clone(), "idempotent");
            let rest = once.strip_prefix("/p").unwrap();
            let given: Vec<&str> = query.split('&').collect();
            let left: Vec<&str> =
                rest.strip_prefix('?').map_or(Vec::new(), |query| query.split('&').collect());
            let of = |name_of: &str, all: &[&str]| -> Vec<String> {
                let same = all.iter().filter(|parameter| name(parameter) == name_of);
                same.map(|parameter| (*parameter).to_owned()).collect()
            };
            for parameter in &given {
                // All of a name are there in their order, or none is.
                let name = name(parameter);
                let kept = matters(&rule, name) || query.is_empty();
                let expected = if kept { of(name, &given) } else { Vec::new() };
                prop_assert_eq!(of(name, &left), expected, "{}", name);
            }
            prop_assert!(left.iter().all(|parameter| given.contains(parameter)));
            if !rule.sort {
                let mut rest = given.iter();
                prop_assert!(left.iter().all(|parameter| rest.any(|it| it == parameter)), "order");
            }
        }

        #[test]
        fn in_any_order_it_is_one_key_where_names_are_sorted(
            mut names in proptest::collection::hash_set("[a-c]{1,3}", 1..6)
                .prop_map(|set| set.into_iter().collect::<Vec<_>>()),
            seed in any::<u64>(),
        ) {
            let rule = rule(false, &["b*"], true);
            let before = sent(&rule, &Method::GET, &format!("/p?{}", names.join("&")));
            fastrand::Rng::with_seed(seed).shuffle(&mut names);
            prop_assert_eq!(sent(&rule, &Method::GET, &format!("/p?{}", names.join("&"))), before);
        }
    }
}
