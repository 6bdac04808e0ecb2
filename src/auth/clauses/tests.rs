//! Clauses of every kind, held against claims of every type.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{Circumstances, Truth, fulfil, is_within};
use crate::auth::Denied;
use crate::base::claim::Exact;
use crate::base::facts::{Credential, Identity};
use crate::config::{self, Clause, Hours};

fn identity(claims: &Value) -> Identity {
    Identity {
        claims: claims.as_object().unwrap().clone(),
        exact: Exact::default(),
        subject: Some("42".to_owned()),
        issued_at: None,
        expires_at: 0,
        credential: Credential::Token { bound_to: None, proven_by: None },
        blacklist_keys: Vec::new(),
        not_before_key: None,
        verifier: "users".into(),
        qualifier: None,
        headers: Vec::new(),
    }
}

/// The clauses of a route that is written so.
fn clauses(require: &str) -> Vec<Clause> {
    let text = format!(
        "[auth.users]\nsecret = \"0123456789abcdef0123456789abcdef\"\nalgorithms = [\"HS256\"]\n\
         [upstreams.u]\nservers = [\"http://127.0.0.1:1\"]\n\
         [routes.r]\npath = \"/{{user}}\"\nupstream = \"u\"\nauth = \"users\"\n\
         require = [{require}]\n"
    );
    let loaded = config::parse("t.toml", "/nonexistent".as_ref(), &text, &|_| None).unwrap();
    let report = loaded.source.render(&loaded.problems);
    assert!(loaded.problems.is_empty(), "{require}: {report}");
    loaded.config.routes["r"].clauses.clone()
}

fn judge(require: &str, claims: &Value, user: Option<&'static str>) -> Result<(), Denied> {
    judge_at(0, require, claims, user)
}

fn judge_at(
    now: i64,
    require: &str,
    claims: &Value,
    user: Option<&'static str>,
) -> Result<(), Denied> {
    let identity = identity(claims);
    let parameter = |_: &str| user.map(Cow::Borrowed);
    let circumstances = Circumstances { identity: &identity, now, parameter };
    fulfil(&clauses(require), &circumstances)
}

/// Of one clause, both as it is and within `none`: whether it holds, fails, or cannot be told.
fn truth(clause: &str, claims: &Value, user: Option<&'static str>) -> Truth {
    let is_so = judge(clause, claims, user).is_ok();
    let is_not_so = judge(&format!("{{ none = [{clause}] }}"), claims, user).is_ok();
    match (is_so, is_not_so) {
        (true, false) => Truth::Holds,
        (false, true) => Truth::Fails,
        (false, false) => Truth::Untold,
        (true, true) => panic!("{clause} {claims}"),
    }
}

#[test]
fn no_type_is_taken_for_another() {
    use Truth::{Fails, Holds, Untold};
    for (test, value, expected) in [
        ("is = [\"a\"]", json!("a"), Holds),
        ("is = [\"b\", \"a\"]", json!("a"), Holds),
        ("is = [\"a\"]", json!("A"), Fails),
        ("is = [\"a\"]", json!("a "), Fails),
        ("is = [\"a\"]", json!(["a"]), Untold),
        ("is = [\"a\"]", json!({"a": true}), Untold),
        ("is = [\"a\"]", json!(null), Untold),
        ("is = [\"3\"]", json!(3), Untold),
        ("is = [3]", json!("3"), Untold),
        ("is = [3]", json!(3), Holds),
        ("is = [3]", json!(4), Fails),
        ("is = [3]", json!(3.0), Untold),
        ("is = [3]", json!(u64::MAX), Fails),
        ("is = [true]", json!(true), Holds),
        ("is = [true]", json!(false), Fails),
        ("is = [true]", json!("true"), Untold),
        ("is = [true]", json!(1), Untold),
        ("is = [true, 1]", json!(1), Holds),
        ("has = [\"a\"]", json!("b a"), Holds),
        ("has = [\"a\"]", json!("ba"), Fails),
        ("has = [\"a\"]", json!("b\ta"), Fails),
        ("has = [\"a\"]", json!(""), Fails),
        ("has = [\"a\"]", json!(["b", "a"]), Holds),
        ("has = [\"a\"]", json!(["b", "a b"]), Fails),
        ("has = [\"a\"]", json!([]), Fails),
        ("has = [\"a\"]", json!(["b", {"a": 1}]), Untold),
        ("has = [\"a\"]", json!(["a", {"a": 1}]), Holds),
        ("has = [\"a\"]", json!([["a"]]), Untold),
        ("has = [\"a\"]", json!({"a": true}), Untold),
        ("has = [\"a\"]", json!(7), Untold),
        ("has = [7]", json!([7]), Holds),
        ("has = [7]", json!(["7"]), Untold),
        ("has = [7]", json!("7"), Untold),
        ("exists = true", json!(""), Holds),
        ("exists = true", json!(null), Fails),
    ] {
        let claims = json!({ "c": value });
        let clause = format!("{{ claim = \"c\", {test} }}");
        assert_eq!(truth(&clause, &claims, None), expected, "{test} {claims}");
        assert_eq!(truth(&clause, &json!({}), None), Fails, "missing: {test}");
    }
}

#[test]
fn a_claim_has_one_name() {
    use Truth::{Fails, Holds, Untold};
    for (name, claims, expected) in [
        ("https://x.test/roles", json!({"https://x.test/roles": ["a"]}), Holds),
        ("a.b", json!({"a.b": ["a"]}), Holds),
        ("a.b", json!({"a": {"b": ["a"]}}), Fails),
        ("/a/b", json!({"a": {"b": ["a"]}}), Holds),
        ("/a/b", json!({"a.b": ["a"], "a": {}}), Fails),
        ("/a/b", json!({"a": [["a"]]}), Untold),
        ("/a/0", json!({"a": ["a"]}), Untold),
        ("/a/b", json!({"a": "b"}), Untold),
        ("/a/b", json!({}), Fails),
        ("/a~1b~0/c.d", json!({"a/b~": {"c.d": "a"}}), Holds),
        ("/a~01", json!({"a~1": "a"}), Holds),
        ("/", json!({"": "a"}), Holds),
    ] {
        let clause = format!("{{ claim = \"{name}\", has = [\"a\"] }}");
        assert_eq!(truth(&clause, &claims, None), expected, "{name} {claims}");
    }
}

#[test]
fn a_placeholder_is_compared_as_it_is() {
    use Truth::{Fails, Holds, Untold};
    let (is, has) = ("is_path = \"user\"", "has_path = \"user\"");
    for (test, value, user, expected) in [
        (is, json!("42"), Some("42"), Holds),
        (is, json!("42"), Some("43"), Fails),
        (is, json!("Ann"), Some("ann"), Fails),
        (is, json!(42), Some("42"), Untold),
        (is, json!(["42"]), Some("42"), Untold),
        (is, json!("42"), None, Untold),
        (is, json!(""), None, Untold),
        (has, json!(["1", "42"]), Some("42"), Holds),
        (has, json!("1 42"), Some("42"), Holds),
        (has, json!("1 42"), Some("1 42"), Fails),
        (has, json!([42]), Some("42"), Untold),
        (has, json!(["42"]), None, Untold),
    ] {
        let clause = format!("{{ claim = \"c\", {test} }}");
        let claims = json!({ "c": value });
        assert_eq!(truth(&clause, &claims, user), expected, "{test} {claims} {user:?}");
    }
}

#[test]
fn clauses_combine_and_the_innermost_is_blamed() {
    let a = "{ claim = \"a\", is = [1] }";
    let b = "{ claim = \"b\", is = [1] }";
    let none = format!("{{ none = [{b}, {a}] }}");
    let any = format!("{{ any = [{a}, {b}] }}");
    let all = format!("{{ all = [{a}, {{ any = [{b}] }}] }}");
    for (require, claims, blamed) in [
        (any.clone(), json!({"a": 2, "b": 1}), None),
        (any.clone(), json!({"a": "1", "b": 1}), None),
        (any.clone(), json!({"a": 2, "b": 2}), Some("require[0].any")),
        (any, json!({"a": "1", "b": 2}), Some("require[0].any")),
        (all.clone(), json!({"a": 1, "b": 1}), None),
        (all.clone(), json!({"a": 2, "b": 1}), Some("require[0].all[0]")),
        (all, json!({"a": 1, "b": 2}), Some("require[0].all[1].any")),
        (none.clone(), json!({}), None),
        (none.clone(), json!({"a": 1}), Some("require[0].none[1]")),
        (none.clone(), json!({"a": "1"}), Some("require[0].none[1]")),
        (format!("{{ none = [{none}] }}"), json!({"a": 1}), None),
        (format!("{{ none = [{none}] }}"), json!({"a": "1"}), Some("require[0].none[0].none[1]")),
        (format!("{a}, {b}"), json!({"a": 1}), Some("require[1]")),
    ] {
        let found = match judge(&require, &claims, None) {
            Ok(()) => None,
            Err(Denied::Insufficient { scope: None, unmet }) => unmet.clause,
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(found.as_deref(), blamed, "{require} {claims}");
    }
}

#[test]
fn hours_begin_at_their_first_minute_and_end_before_their_last() {
    let at = |hours: Hours, day: i64, hour: i64, minute: i64, second: i64| {
        // 2026-11-30 is a Monday.
        is_within(hours, 1_795_996_800 + ((day * 24 + hour) * 60 + minute) * 60 + second)
    };
    let work = Hours { begin: 8 * 60, end: 18 * 60, days: 0b001_1111, offset: 0 };
    assert!(!at(work, 0, 7, 59, 59) && at(work, 0, 8, 0, 0), "the begin is within");
    assert!(at(work, 4, 17, 59, 59) && !at(work, 4, 18, 0, 0), "the end is not");
    assert!(!at(work, 5, 12, 0, 0) && !at(work, 6, 12, 0, 0) && at(work, 7, 12, 0, 0));
    let east = Hours { offset: 120, ..work };
    assert!(at(east, 0, 6, 0, 0) && !at(east, 0, 16, 0, 0));
    let night = Hours { begin: 22 * 60, end: 6 * 60, days: 0b001_0000, offset: -60 };
    assert!(!at(night, 4, 22, 59, 59) && at(night, 4, 23, 0, 0), "of Friday");
    assert!(at(night, 5, 6, 59, 59) && !at(night, 5, 7, 0, 0), "the morning after is Friday's");
    assert!(!at(night, 4, 3, 0, 0) && !at(night, 5, 23, 0, 0), "those of other days");
    let sunday = Hours { begin: 0, end: 24 * 60, days: 0b100_0000, offset: 0 };
    assert!(at(sunday, 6, 0, 0, 0) && at(sunday, 6, 23, 59, 59) && !at(sunday, 7, 0, 0, 0));
    assert!(at(sunday, -1, 12, 0, 0) && !is_within(sunday, 0), "1970 began on a Thursday");
}

#[test]
fn hours_are_those_of_the_clock() {
    const MONDAY: i64 = 1_795_996_800;
    let work = "{ hours = \"08:00-18:00\", days = [\"mon\"], utc_offset = \"+00:00\" }";
    let at = |now: i64, require: &str| judge_at(now, require, &json!({}), None).is_ok();
    for (hour, expected) in [(7, false), (8, true), (17, true), (18, false), (32, false)] {
        let now = MONDAY + hour * 3600;
        assert_eq!(at(now, work), expected, "{hour}");
        assert_eq!(at(now, &format!("{{ none = [{work}] }}")), !expected, "none, {hour}");
    }
}
