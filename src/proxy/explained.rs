//! What an explanation tells of a caller beside his name: which claims reach the upstream, and in
//! what his token is not as it must be.

use http::request::Parts;
use serde_json::{Value, json};

use super::request::Request;
use crate::auth::{self, Denied, Places, Reason};
use crate::config::Verifier;

/// Longest value of a token that is told, in characters.
const VALUE_CHARS_MAX: usize = 200;

/// The headers that claims are written to, and whether the caller has what they carry; nothing
/// where nobody is identified.
pub(super) fn claim_headers(request: &Request<'_>) -> Option<Value> {
    let caller = request.caller.as_ref()?;
    let verifier = request.plan().config.auth.get(&*caller.verifier)?;
    let told = verifier.claims_to_headers.iter().map(|(header, claim)| {
        let is_sent = caller.headers.iter().any(|(name, _)| name.as_str() == header);
        json!({ "header": header, "claim": claim, "sent": is_sent })
    });
    Some(told.collect())
}

/// The claim for which a token is refused that is another one's: what it says, and what is wanted.
pub(super) fn unlike(request: &Request<'_>, head: &Parts, denied: &Denied) -> Option<Value> {
    let claim = match denied {
        Denied::Invalid(Reason::Issuer) => "iss",
        Denied::Invalid(Reason::Audience) => "aud",
        _ => return None,
    };
    let places = Places { headers: &head.headers, query: head.uri.query(), certificate: None };
    let policy = request.route.auth.as_ref()?;
    let said = |name: &str| auth::claimed(policy, places, name);
    let issuer = said("iss");
    // Of several verifiers the issuer has chosen one.
    let issuer = issuer.as_ref().and_then(Value::as_str);
    let is_meant =
        |it: &&Verifier| claim == "iss" || it.issuer.is_none() || it.issuer.as_deref() == issuer;
    let names = request.route.written.auth.iter().flat_map(|it| &it.by);
    let verifiers = names.filter_map(|name| request.plan().config.auth.get(name));
    let wanted: Vec<&str> = verifiers
        .filter(is_meant)
        .flat_map(|it| if claim == "iss" { it.issuer.as_slice() } else { &it.audience })
        .map(String::as_str)
        .collect();
    Some(json!({ "claim": claim, "said": said(claim), "wanted": wanted }))
}

/// The same in words, behind the reason; nothing where there is nothing to say.
pub(super) fn unlike_text(unlike: Option<&Value>) -> String {
    let Some(unlike) = unlike else { return String::new() };
    let claim = unlike["claim"].as_str().unwrap_or_default();
    let said = match &unlike["said"] {
        Value::Null => format!("it names no {claim}"),
        said => {
            let said: String = said.to_string().chars().take(VALUE_CHARS_MAX).collect();
            format!("its {claim} is {said}")
        }
    };
    let wanted = unlike["wanted"].as_array().into_iter().flatten();
    let wanted: Vec<String> = wanted.map(Value::to_string).collect();
    format!(": {said}, and {} is wanted", wanted.join(" or "))
}
