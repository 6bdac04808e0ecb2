//! Sessions as they are stored, and the headers they become.

use bytes::Bytes;
use http::header::COOKIE;
use proptest::prelude::*;

use super::*;
use crate::store::StoreError;

mod timeouts;

/// The moment at which all is judged.
const NOW: u64 = 1_700_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn session() -> Session {
    Session {
        make: None,
        id_from: vec![
            SessionId::Cookie("sid".into()),
            SessionId::Header(HeaderName::from_static("x-sid")),
        ],
        header: Some("x-session".into()),
        fields_to_headers: [("x-email".to_owned(), "email".to_owned())].into(),
        idle_timeout: Some(Duration::from_secs(60)),
        ended_for: Duration::from_secs(3600),
        absolute_timeout: None,
        rolling_timeout: None,
        created_field: "created_at".to_owned(),
        renewed_field: "renewed_at".to_owned(),
        suspended_field: None,
        max_per_user: None,
        max_bytes: 64,
    }
}

fn policy(required: bool, outage: Outage) -> Policy {
    let session = session();
    let usage = if required { SessionUse::Required } else { SessionUse::Attach };
    Policy::compile(&session, usage, outage).unwrap()
}

/// Judges without knowing of an end.
fn attach(
    policy: Option<&Policy>,
    reply: Option<Reply<Option<SessionReply>>>,
) -> Result<Attached, NoSession> {
    super::attach(policy, Said { reply, ..Said::default() }, now)
}

fn stored(value: SessionValue, ttl: Option<u64>) -> Option<Reply<Option<SessionReply>>> {
    Some(Ok(Some(SessionReply { value, ttl: ttl.map(Duration::from_secs) })))
}

fn text(json: &str) -> SessionValue {
    SessionValue::Text(Bytes::copy_from_slice(json.as_bytes()))
}

#[test]
fn json_and_hash_are_attached_whole_and_by_field() {
    let policy = policy(false, Outage::Refuse);
    let hash = SessionValue::Fields(vec![("email".into(), "a@b".into())]);
    for value in [text(r#"{"email":"a@b"}"#), hash] {
        let attached = attach(Some(&policy), stored(value, Some(60))).unwrap();
        let session = URL_SAFE_NO_PAD.decode(&attached.headers[0].1).unwrap();
        assert_eq!(session, br#"{"email":"a@b"}"#);
        assert_eq!(
            (attached.headers[1].0.as_str(), attached.headers[1].1.as_bytes()),
            ("x-email", &b"a@b"[..])
        );
        assert_eq!(attached.renew, None);
    }
}

#[test]
fn what_is_no_session_is_refused() {
    let policy = policy(false, Outage::Refuse);
    for json in ["[1]", "\"x\"", "{", "", "{} x"] {
        assert_eq!(
            attach(Some(&policy), stored(text(json), None)),
            Err(NoSession::Unreadable),
            "{json}"
        );
    }
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(60));
    assert_eq!(attach(Some(&policy), stored(text(&long), None)), Err(NoSession::TooLarge));
}

#[test]
fn absence_and_outage_do_what_the_route_says() {
    let lost = || Some(Err(StoreError::Timeout));
    assert_eq!(
        attach(Some(&policy(false, Outage::Refuse)), Some(Ok(None))),
        Ok(Attached::default())
    );
    assert_eq!(
        attach(Some(&policy(true, Outage::Refuse)), Some(Ok(None))),
        Err(NoSession::Required)
    );
    assert_eq!(attach(Some(&policy(true, Outage::Refuse)), None), Err(NoSession::Required));
    let unknown = Err(NoSession::Unknown(StoreError::Timeout));
    assert_eq!(attach(Some(&policy(false, Outage::Refuse)), lost()), unknown);
    assert_eq!(attach(Some(&policy(true, Outage::Allow)), lost()), Ok(Attached::default()));
}

#[test]
fn an_expiry_is_only_ever_moved_out() {
    let renew =
        |ttl| attach(Some(&policy(false, Outage::Refuse)), stored(text("{}"), ttl)).unwrap().renew;
    let kept = Duration::from_secs(3600);
    let renewal = Renewal { ttl: Duration::from_secs(60), until_ms: None, kept };
    assert_eq!(renew(Some(30)), Some(renewal));
    assert_eq!(renew(None), Some(renewal));
    assert_eq!(renew(Some(60)), None);
    assert_eq!(renew(Some(600)), None);
}

#[test]
fn two_different_cookies_are_no_session() {
    let id_of = |lines: &[&str]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, line.parse().unwrap());
        }
        id(&policy(false, Outage::Refuse), &None, &headers, None).map(Cow::into_owned)
    };
    assert_eq!(id_of(&["a=1; sid=s1; b=2"]).as_deref(), Some("s1"));
    assert_eq!(id_of(&["sid=s1", "sid=s1"]).as_deref(), Some("s1"));
    assert_eq!(id_of(&["sid=s1; sid=s2"]), None);
    assert_eq!(id_of(&["sid="]), None);
    assert_eq!(id_of(&["xsid=s1"]), None);
}

#[test]
fn a_header_names_a_session_and_is_not_passed_on() {
    let policy = policy(false, Outage::Refuse);
    let headers = |lines: &[&str]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-sid", line.parse().unwrap());
        }
        headers
    };
    let id_of =
        |lines: &[&str]| id(&policy, &None, &headers(lines), None).map(|found| found.into_owned());
    assert_eq!(id_of(&["s1"]).as_deref(), Some("s1"));
    assert_eq!(id_of(&["s1", "s1"]).as_deref(), Some("s1"));
    assert_eq!(id_of(&["s1", "s2"]), None, "nobody can say which");
    assert_eq!(id_of(&[""]), None);
    assert_eq!(id_of(&[&"x".repeat(ID_BYTES_MAX + 1)]), None);
    let mut head = headers(&["s1", "s1"]);
    head.insert("x-other", "stays".parse().unwrap());
    strip(&policy, &mut head);
    assert_eq!(head.len(), 1);
}

#[test]
fn two_values_of_a_field_never_look_the_same() {
    let policy = policy(false, Outage::Refuse);
    let sent = |value: SessionValue| {
        let attached = attach(Some(&policy), stored(value, None)).unwrap();
        attached.headers[1].1.to_str().unwrap().to_owned()
    };
    for number in ["123456789012345678901", "123456789012345678902", "-0", "0.1000000000000000001"]
    {
        assert_eq!(sent(text(&format!("{{\"email\": {number} }}"))), number);
    }
    let of_hash = |value: &'static [u8]| {
        sent(SessionValue::Fields(vec![("email".into(), Bytes::from_static(value))]))
    };
    assert_eq!(of_hash(b"M\xFCller"), "M%FCller");
    assert_eq!(of_hash(b"M\xF6ller"), "M%F6ller");
    assert_eq!(of_hash("M\u{FC}".as_bytes()), "M%C3%BC");
    assert_eq!(of_hash(b"M%C3%BC"), "M%25C3%25BC");
    assert_eq!(of_hash(b"100% of 5%"), "100% of 5%");
}

proptest! {
    #[test]
    fn no_value_puts_a_control_character_into_a_header(value in any::<String>()) {
        let fields = vec![("email".into(), Bytes::from(value.clone().into_bytes()))];
        let policy = policy(false, Outage::Refuse);
        if let Ok(attached) = attach(Some(&policy), stored(SessionValue::Fields(fields), None)) {
            for (_, header) in attached.headers {
                let visible = header.as_bytes().iter().all(|b| (0x20..=0x7E).contains(b));
                prop_assert!(visible, "{:?}", value);
            }
        }
    }
}
