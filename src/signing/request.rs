//! Requests for new tokens (RFC 6749 §6), and why they are refused (§5.2).

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::Deserialize;

use crate::base::http::form::{self, Misread};

/// Why no tokens are issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The request is not understood.
    #[error("{0}")]
    Malformed(&'static str),
    /// It asks by another grant.
    #[error("the grant type is another one than refresh_token")]
    GrantType,
    /// Nobody's token, or one whose time is over.
    #[error("the refresh token is unknown, or its time is over")]
    Invalid,
    /// It was used before, and longer ago than the grace.
    #[error("the refresh token was used before: its family has ended")]
    Reused,
    /// Its user or its family was revoked.
    #[error("the refresh token was revoked")]
    Revoked,
    /// The store did not answer, or the random source failed.
    #[error("{0}")]
    Away(String),
}

impl Refused {
    /// The code of RFC 6749 §5.2; nothing where that has none.
    pub fn oauth(&self) -> Option<&'static str> {
        match self {
            Self::Malformed(_) => Some("invalid_request"),
            Self::GrantType => Some("unsupported_grant_type"),
            Self::Invalid | Self::Reused | Self::Revoked => Some("invalid_grant"),
            Self::Away(_) => None,
        }
    }
}

#[derive(Deserialize)]
struct Asked {
    grant_type: Option<String>,
    refresh_token: Option<String>,
}

/// The refresh token of a request, in a form or in JSON.
///
/// # Errors
/// There is not exactly one, or another grant is asked for.
pub fn refresh_token(fields: &HeaderMap, body: &[u8]) -> Result<String, Refused> {
    const KIND: Refused =
        Refused::Malformed("Send application/x-www-form-urlencoded, or application/json.");
    let mut kinds = fields.get_all(CONTENT_TYPE).iter();
    let (Some(kind), None) = (kinds.next(), kinds.next()) else { return Err(KIND) };
    let kind = kind.to_str().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match &*kind {
        "application/x-www-form-urlencoded" => of_form(body),
        "application/json" => of_json(body),
        _ => Err(KIND),
    }
}

const NO_TOKEN: Refused = Refused::Malformed("Send one refresh_token.");

fn of_form(body: &[u8]) -> Result<String, Refused> {
    // RFC 6749 §3.2: none may be included more than once, and what is not known is ignored.
    let [grant_type, token] =
        form::read(body, ["grant_type", "refresh_token"]).map_err(|misread| match misread {
            Misread::Repeated => Refused::Malformed("Send each parameter once."),
            Misread::Escape => Refused::Malformed("The form has an escape that is none."),
        })?;
    let grant_type = grant_type.ok_or(Refused::Malformed("Send grant_type=refresh_token."))?;
    of_parts(Some(&grant_type), token)
}

fn of_json(body: &[u8]) -> Result<String, Refused> {
    const WRONG: Refused = Refused::Malformed("Send a JSON object with one refresh_token.");
    // An array would be taken for the members in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(WRONG);
    }
    let asked: Asked = serde_json::from_slice(body).map_err(|_| WRONG)?;
    of_parts(asked.grant_type.as_deref(), asked.refresh_token)
}

/// In JSON the grant need not be named.
fn of_parts(grant_type: Option<&str>, token: Option<String>) -> Result<String, Refused> {
    if grant_type.is_some_and(|grant| grant != "refresh_token") {
        return Err(Refused::GrantType);
    }
    token.filter(|token| !token.is_empty()).ok_or(NO_TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(kind: &str, body: &str) -> Result<String, Refused> {
        let mut fields = HeaderMap::new();
        fields.insert(CONTENT_TYPE, kind.parse().unwrap());
        refresh_token(&fields, body.as_bytes())
    }

    #[test]
    fn one_token_is_read_of_either_form() {
        let form = "application/x-www-form-urlencoded";
        for (kind, body) in [
            (form, "grant_type=refresh_token&refresh_token=pcr_a"),
            (
                "Application/X-WWW-Form-Urlencoded; charset=utf-8",
                "refresh_token=pcr%5Fa&x=1&grant_type=refresh%5ftoken",
            ),
            ("application/json", r#"{"refresh_token":"pcr_a"}"#),
            (
                "application/json; charset=utf-8",
                r#" {"grant_type":"refresh_token","refresh_token":"pcr_a","client_id":"c"}"#,
            ),
        ] {
            assert_eq!(ask(kind, body).as_deref(), Ok("pcr_a"), "{kind} {body}");
        }
        for (kind, body) in [
            (form, ""),
            (form, "refresh_token=a"),
            (form, "grant_type=refresh_token"),
            (form, "grant_type=refresh_token&refresh_token="),
            (form, "grant_type=refresh_token&refresh_token=a&refresh_token=a"),
            (form, "grant_type=refresh_token&refresh_token=a%2"),
            (form, "grant_type=refresh_token&refresh_token=%ff"),
            ("application/json", r#"["refresh_token","a"]"#),
            ("application/json", r#"{"refresh_token":1}"#),
            ("application/json", r#"{"refresh_token":"a","refresh_token":"b"}"#),
            ("text/plain", "grant_type=refresh_token&refresh_token=a"),
        ] {
            let refused = ask(kind, body).unwrap_err();
            assert_eq!(refused.oauth(), Some("invalid_request"), "{kind} {body}");
        }
        for (kind, body) in [
            (form, "grant_type=password&refresh_token=a"),
            ("application/json", r#"{"grant_type":"password","refresh_token":"a"}"#),
        ] {
            assert_eq!(ask(kind, body), Err(Refused::GrantType));
        }
    }
}
