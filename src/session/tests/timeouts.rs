//! When a session is in force: every timeout to the second, and what is told of one that is gone.

use serde_json::json;

use super::*;

const HOUR: u64 = 3600;

/// Twelve hours since creation, one since the last renewal, a minute since the last use.
fn strict() -> Policy {
    let session = Session {
        absolute_timeout: Some(Duration::from_secs(12 * HOUR)),
        rolling_timeout: Some(Duration::from_secs(HOUR)),
        suspended_field: Some("suspended".to_owned()),
        max_bytes: 1024,
        ..session()
    };
    Policy::compile(&session, SessionUse::Required, Outage::Refuse).unwrap()
}

fn judge(session: &Value) -> Result<Attached, NoSession> {
    attach(Some(&strict()), stored(text(&session.to_string()), Some(60)))
}

fn said(reply: Option<Reply<Option<SessionReply>>>, end: Option<SessionEnd>) -> Said<'static> {
    Said { reply, keeps_end: end.is_some(), end, ..Said::default() }
}

fn undated(field: &str) -> Result<(), NoSession> {
    Err(NoSession::Undated { field: field.to_owned() })
}

fn verdict(session: &Value) -> Result<(), NoSession> {
    judge(session).map(|_| ())
}

#[test]
fn each_timeout_ends_a_session_to_the_second() {
    let dated = |created: u64, renewed: u64| {
        verdict(&json!({"created_at": NOW - created, "renewed_at": NOW - renewed}))
    };
    assert_eq!(dated(12 * HOUR - 1, HOUR - 1), Ok(()));
    assert_eq!(dated(12 * HOUR, 0), Err(NoSession::Expired));
    assert_eq!(dated(12 * HOUR + 1, 0), Err(NoSession::Expired));
    assert_eq!(dated(2 * HOUR, HOUR), Err(NoSession::NotRenewed));
    assert_eq!(dated(13 * HOUR, 2 * HOUR), Err(NoSession::Expired), "the final one is told");
}

#[test]
fn a_session_that_was_never_renewed_counts_from_its_creation() {
    assert_eq!(verdict(&json!({"created_at": NOW - HOUR + 1})), Ok(()));
    assert_eq!(verdict(&json!({"created_at": NOW - HOUR})), Err(NoSession::NotRenewed));
}

#[test]
fn times_may_be_text_as_hashes_have_it() {
    let text = |ago: u64| Bytes::from((NOW - ago).to_string());
    let hash = |created: u64, renewed: u64| {
        let fields = vec![
            ("created_at".into(), text(created)),
            ("renewed_at".into(), text(renewed)),
            ("suspended".into(), Bytes::from_static(b"0")),
        ];
        attach(Some(&strict()), stored(SessionValue::Fields(fields), Some(60))).map(|_| ())
    };
    assert_eq!(hash(60, 60), Ok(()));
    assert_eq!(hash(12 * HOUR, 60), Err(NoSession::Expired));
    assert_eq!(hash(60, HOUR), Err(NoSession::NotRenewed));
}

#[test]
fn without_a_time_that_can_be_read_a_session_is_refused() {
    assert_eq!(verdict(&json!({})), undated("created_at"));
    assert_eq!(verdict(&json!({"renewed_at": NOW})), undated("created_at"));
    for odd in [
        json!(null),
        json!(""),
        json!("yesterday"),
        json!("1e9"),
        json!(-5),
        json!(1.5),
        json!(true),
        json!([NOW]),
        json!(NOW + 61),
        // Milliseconds: the session would last for fifty thousand years.
        json!(NOW * 1000),
        json!((NOW * 1000).to_string()),
    ] {
        assert_eq!(verdict(&json!({"created_at": odd})), undated("created_at"), "{odd}");
        let renewed = json!({"created_at": NOW, "renewed_at": odd});
        assert_eq!(verdict(&renewed), undated("renewed_at"), "{odd}");
    }
    // Clocks differ a little.
    assert_eq!(verdict(&json!({"created_at": NOW + 60})), Ok(()));
}

#[test]
fn without_a_timeout_times_do_not_matter() {
    let policy = policy(true, Outage::Refuse);
    let value = text(r#"{"created_at":"long ago","suspended":true}"#);
    assert!(attach(Some(&policy), stored(value, Some(60))).is_ok());
}

#[test]
fn a_session_is_suspended_by_all_but_a_plain_no() {
    let flagged = |flag: Value| verdict(&json!({"created_at": NOW, "suspended": flag}));
    for yes in [
        json!(true),
        json!(1),
        json!("true"),
        json!("1"),
        json!("since noon"),
        json!({"by": "ops"}),
        json!([]),
    ] {
        assert_eq!(flagged(yes.clone()), Err(NoSession::Suspended), "{yes}");
    }
    for no in
        [json!(false), json!(0), json!("false"), json!("False"), json!("0"), json!(""), json!(null)]
    {
        assert_eq!(flagged(no.clone()), Ok(()), "{no}");
    }
    let old = json!({"created_at": 0, "suspended": true});
    assert_eq!(verdict(&old), Err(NoSession::Suspended), "whatever its age");
}

#[test]
fn what_is_not_in_force_is_refused_where_none_is_required_too() {
    let session = Session {
        absolute_timeout: Some(Duration::from_secs(HOUR)),
        suspended_field: Some("suspended".to_owned()),
        ..session()
    };
    let policy = Policy::compile(&session, SessionUse::Attach, Outage::Refuse).unwrap();
    let judge = |json: &str| attach(Some(&policy), stored(text(json), None)).map(|_| ());
    assert_eq!(judge(r#"{"created_at":0}"#), Err(NoSession::Expired));
    assert_eq!(judge("{}"), undated("created_at"));
    assert_eq!(judge(r#"{"created_at":0,"suspended":1}"#), Err(NoSession::Suspended));
    assert_eq!(attach(Some(&policy), Some(Ok(None))), Ok(Attached::default()));
}

#[test]
fn a_renewal_ends_with_the_absolute_timeout() {
    let end_ms = |created: u64| (created + 12 * HOUR) * 1000;
    let renew = |created: u64, left: u64| {
        let value = text(&json!({"created_at": created, "renewed_at": NOW}).to_string());
        let end = SessionEnd { at_ms: (NOW + left) * 1000, why: Ending::Idle };
        let reply = stored(value, Some(left));
        super::super::attach(Some(&strict()), said(reply, Some(end)), now).unwrap().renew
    };
    let created = NOW - 12 * HOUR + 30;
    let renewal = renew(created, 10).expect("twenty seconds are to be won");
    assert_eq!(renewal.until_ms, Some(end_ms(created)));
    assert_eq!(renew(created, 30), None, "there is nothing to win");
    assert_eq!(renew(created, 40), None, "nor is it shortened");
    let renewal = renew(NOW, 10).expect("a renewal");
    assert_eq!((renewal.ttl.as_secs(), renewal.until_ms), (60, Some(end_ms(NOW))));
}

#[test]
fn a_required_session_that_is_gone_says_why() {
    let gone = |required: bool, end: Option<SessionEnd>| {
        let policy = policy(required, Outage::Refuse);
        super::super::attach(Some(&policy), said(Some(Ok(None)), end), now)
    };
    let end = |why, at: u64| Some(SessionEnd { at_ms: at * 1000, why });
    assert_eq!(gone(true, None), Err(NoSession::Required));
    assert_eq!(gone(true, end(Ending::Idle, NOW - 5)), Err(NoSession::Idle));
    assert_eq!(gone(true, end(Ending::Idle, NOW + 1)), Err(NoSession::Idle), "clocks differ");
    assert_eq!(gone(true, end(Ending::Expired, NOW - 5)), Err(NoSession::Expired));
    // It ended before its time: a log-out.
    assert_eq!(gone(true, end(Ending::Idle, NOW + 20)), Err(NoSession::Required));
    assert_eq!(gone(false, end(Ending::Idle, NOW - 5)), Ok(Attached::default()));
}

#[test]
fn a_session_without_its_end_beside_it_gets_one() {
    let renew = |required: bool, keeps_end: bool| {
        let policy = policy(required, Outage::Refuse);
        // Of a session that lives, nobody reads when it ends.
        let said = Said { keeps_end, ..said(stored(text("{}"), Some(600)), None) };
        super::super::attach(Some(&policy), said, now).unwrap().renew
    };
    assert!(renew(true, false).is_some());
    assert_eq!(renew(true, true), None);
    assert_eq!(renew(false, false), None, "where it is not asked for, nobody knows");
}
