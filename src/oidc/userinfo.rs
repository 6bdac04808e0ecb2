//! Claims that a provider tells beside the token (OpenID Connect Core 1.0 §5.3).

use http::StatusCode;
use serde_json::{Map, Value};

use super::fault::Fault;

/// The claims of an answer, if they are of the user who has logged in.
///
/// # Errors
/// There are none, or they are another's (§5.3.2).
pub fn userinfo(
    status: StatusCode,
    body: &[u8],
    subject: &str,
) -> Result<Map<String, Value>, Fault> {
    if status != StatusCode::OK {
        return Err(Fault::answer(format!("userinfo answered {status}")));
    }
    let claims = match serde_json::from_slice(body) {
        Ok(Value::Object(claims)) => claims,
        _ => return Err(Fault::answer("userinfo answered no JSON object")),
    };
    if claims.get("sub").and_then(Value::as_str) != Some(subject) {
        return Err(Fault::answer("userinfo is of another user than the id_token"));
    }
    Ok(claims)
}
