//! What of a session an upstream is told by a token: fields by choice, as they are stored.

use std::collections::HashMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::no_session::NoSession;
use crate::store::SessionValue;

/// These fields as the text of a JSON object; what the session does not have is left out. Of a hash
/// all are strings.
///
/// # Errors
/// What is stored is no JSON object.
pub(super) fn object(fields: &[String], session: &SessionValue) -> Result<String, NoSession> {
    let mut members: Vec<(&str, String)> = Vec::with_capacity(fields.len());
    match session {
        SessionValue::Text(text) => {
            let stored: HashMap<String, &RawValue> =
                serde_json::from_slice(text).map_err(|_| NoSession::Unreadable)?;
            let found = fields.iter().filter_map(|name| Some((&**name, stored.get(name)?)));
            members.extend(found.map(|(name, value)| (name, value.get().to_owned())));
        }
        SessionValue::Fields(stored) => {
            for name in fields {
                let of_name =
                    |(stored, _): &&(bytes::Bytes, bytes::Bytes)| stored == name.as_bytes();
                let Some((_, value)) = stored.iter().find(of_name) else { continue };
                let text = std::str::from_utf8(value).map_err(|_| NoSession::Unreadable)?;
                members.push((name, Value::from(text).to_string()));
            }
        }
    }
    let members: Vec<String> =
        members.iter().map(|(name, value)| format!("{}:{value}", Value::from(*name))).collect();
    Ok(format!("{{{}}}", members.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_as_they_are_stored() {
        let names = ["cart", "big", "none"].map(str::to_owned);
        let text = SessionValue::Text(r#"{"cart":[1],"big":12345678901234567890123,"x":1}"#.into());
        let told = object(&names, &text).ok();
        assert_eq!(told.as_deref(), Some(r#"{"cart":[1],"big":12345678901234567890123}"#));
        let hash = SessionValue::Fields(vec![("cart".into(), "a\"b".into())]);
        assert_eq!(object(&names, &hash).ok().as_deref(), Some(r#"{"cart":"a\"b"}"#));
        for wrong in [
            SessionValue::Text("[]".into()),
            SessionValue::Fields(vec![("cart".into(), bytes::Bytes::from_static(b"\xff"))]),
        ] {
            assert!(matches!(object(&names, &wrong), Err(NoSession::Unreadable)));
        }
    }
}
