//! What events say and mean, and who may send them.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;
use crate::base::units::Secret;

fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn json_says_what_its_members_say_and_an_entrys_own_fields_come_first() {
    let said = of_body(br#"{"id": 7, "on": true, "after": {"id": "x"}, "list": [1], "no": null}"#);
    assert_eq!(said, Some(fields(&[("after.id", "x"), ("id", "7"), ("on", "true")])));
    assert_eq!(of_body(b"[1]"), None);
    assert_eq!(of_body(b"\xFF"), None);
    let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let said = of_entry(vec![pair("id", "1"), pair("data", r#"{"id": 2, "table": "t"}"#)]);
    assert_eq!((&*said["id"], &*said["table"]), ("1", "t"));
    assert!(of_entry(vec![(b"id".to_vec(), vec![0xFF])]).is_empty());
}

#[test]
fn patterns_that_mean_nothing_are_refused() {
    let mut rule = Rule::new(&BTreeMap::new());
    for wrong in ["products", "/a?x", "/a/*/b", "/a#b", "/{", "/}", "/{}", "tag:", "/{a{b}}"] {
        assert!(rule.purge(wrong).is_err(), "{wrong}");
    }
    for wrong in ["sub", "user:{id}", "sub:42", "sub:{"] {
        assert!(rule.revoke(wrong, None).is_err(), "{wrong}");
    }
}

#[test]
fn an_event_changes_what_its_patterns_say() {
    let when = BTreeMap::from([("table".to_owned(), "products".to_owned())]);
    let mut rule = Rule::new(&when);
    for pattern in ["/products/{id}", "/shops/{shop}/*", "/*", "tag:p-{id}"] {
        rule.purge(pattern).unwrap();
    }
    rule.revoke("sid:{session}", Some("until")).unwrap();
    assert_eq!(rule.effects(&fields(&[("table", "orders"), ("id", "1")])), None);
    let said = [("table", "products"), ("id", "a b"), ("session", "s"), ("until", "9")];
    let effects = rule.effects(&fields(&said)).unwrap();
    let path = |path: &str, and_below| PathPurge { path: path.to_owned(), and_below };
    assert_eq!(effects.paths, [path("/products/a%20b", false), path("/", true)]);
    assert_eq!(effects.tags, ["p-a b"]);
    let revoke = Revoke { kind: RevokeKind::Sid, value: "s".to_owned(), until: Some(9) };
    assert_eq!(effects.revoke, Some(revoke));
    assert_eq!(effects.skipped, Some(Skipped::Missing("shop".to_owned())));
    assert_eq!(rule.reach().collect::<Vec<_>>(), ["/products", "/shops", "/"]);
    let late = fields(&[("table", "products"), ("session", "s"), ("until", "soon")]);
    let effects = rule.effects(&late).unwrap();
    assert_eq!(effects.revoke.map(|it| it.until), Some(None), "nobody knows until when");
    let said = [("table", "products"), ("id", "1"), ("shop", "s"), ("session", "s")];
    let effects = rule.effects(&fields(&said)).unwrap();
    assert_eq!(effects.skipped, Some(Skipped::Missing("until".to_owned())));
    assert_eq!(effects.revoke.map(|it| it.until), Some(None));
}

proptest! {
    /// Whatever a value holds, what comes of it is one segment below the pattern's own.
    #[test]
    fn a_value_fills_one_segment(value in ".{0,140}") {
        let template = Template::parse("/products/{id}/x").unwrap();
        if let Ok(path) = template.path(&fields(&[("id", &value)])) {
            let segments: Vec<&str> = path.split('/').collect();
            prop_assert_eq!(segments.len(), 4);
            prop_assert_eq!((segments[1], segments[3]), ("products", "x"));
            prop_assert!(!matches!(segments[2], "" | "." | ".."));
            let is_odd = path.contains(['?', '#', '*', '{', '}']);
            prop_assert!(!is_odd, "{}", path);
        }
    }
}

#[test]
fn a_webhook_is_known_by_any_right_signature_of_any_secret() {
    let bytes = b"0123456789abcdef01234567";
    let written = format!("whsec_{}", STANDARD.encode(bytes));
    let signer = |secrets: &[&str]| {
        let secrets: Vec<Secret> = secrets.iter().map(|it| Secret::new(*it)).collect();
        Signer::new(&secrets)
    };
    assert!(signer(&["whsec_?"]).is_err());
    assert!(signer(&["short"]).is_err());
    let (one, other) = (
        signer(&["some-other-secret", &written]).unwrap(),
        signer(&["0123456789abcdefX"]).unwrap(),
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, bytes);
    let right = STANDARD.encode(hmac::sign(&key, b"m.1000.body").as_ref());
    let both = format!("v1,AAAA v1,{right}");
    let signed = |signatures| Signed {
        id: Some(b"m"),
        timestamp: Some(b"1000"),
        signatures: Some(signatures),
    };
    let check = |signed, now| verify(&[&one, &other], signed, b"body", now);
    assert_eq!(check(signed(both.as_bytes()), 1300), Ok(vec![true, false]));
    assert_eq!(check(signed(both.as_bytes()), 1301), Err(Refused::Stale(301)));
    assert_eq!(check(signed(both.as_bytes()), 699), Err(Refused::Stale(301)));
    let wrongs = [format!("v1a,{right}"), right.clone(), String::new(), "v1,".to_owned()];
    for wrong in &wrongs {
        assert_eq!(check(signed(wrong.as_bytes()), 1000), Err(Refused::Signature), "{wrong}");
    }
    let behind = |count| [vec!["v1,AAAA"; count].join(" "), format!("v1,{right}")].join(" ");
    let (eighth, ninth) = (behind(7), behind(8));
    assert_eq!(check(signed(eighth.as_bytes()), 1000), Ok(vec![true, false]));
    assert_eq!(check(signed(ninth.as_bytes()), 1000), Err(Refused::Signature));
    let no_time = Signed { timestamp: Some(b"+1000"), ..signed(both.as_bytes()) };
    assert_eq!(check(no_time, 1000), Err(Refused::Incomplete("webhook-timestamp")));
    let no_id = Signed { id: Some(b""), ..signed(both.as_bytes()) };
    assert_eq!(check(no_id, 1000), Err(Refused::Incomplete("webhook-id")));
}
