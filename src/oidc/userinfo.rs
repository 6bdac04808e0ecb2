//! Claims that a provider tells beside the token (OpenID Connect Core 1.0 §5.3).

use http::StatusCode;
use serde_json::Value;

use super::fault::Fault;
use crate::base::claim::Object;
use crate::base::json::read_object;

/// The claims of an answer, if they are of the user who has logged in.
///
/// # Errors
/// There are none, or they are another's (§5.3.2).
pub fn userinfo(status: StatusCode, body: &[u8], subject: &str) -> Result<Object, Fault> {
    if status != StatusCode::OK {
        return Err(Fault::answer(format!("userinfo answered {status}")));
    }
    let claims = read_object(body)
        .ok_or(Fault::answer("userinfo answered no JSON object that names each member once"))?;
    if claims.members.get("sub").and_then(Value::as_str) != Some(subject) {
        return Err(Fault::answer("userinfo is of another user than the id_token"));
    }
    Ok(claims)
}
