//! The answer of an upstream that logs somebody in: who it is, is read from it, and the caller gets
//! a session or tokens.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, TRAILER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::Value;

use crate::base::claim::Texts;
use crate::base::json::read_object;
use crate::observe::LoginOutcome;
use crate::plan::{Given, Issue};
use crate::proxy::content::Content;
use crate::proxy::deliver::Answer;
use crate::proxy::own_cookie::OwnCookie;
use crate::proxy::rejection::Rejection;
use crate::proxy::request::Request;
use crate::proxy::signed;
use crate::runtime::{LogIn, NotMade};
use crate::signing::{Refused, Signer, claims_text};

/// What an answer says of who logs in.
struct Told {
    subject: String,
    claims: Texts,
}

/// Logs the caller in, where the answer of the upstream says so: it is a 200 or 201. Any other one
/// is passed on.
///
/// # Errors
/// The upstream's, or its answer cannot be used, or the store does not take what it gives.
pub(in crate::proxy) async fn issue(
    request: &Request<'_>,
    issue: &Issue,
    sent: Result<Response<Content>, Rejection>,
) -> Result<Answer, Rejection> {
    let response = sent?;
    if !matches!(response.status(), StatusCode::OK | StatusCode::CREATED) {
        return Ok(Answer::fetched(response));
    }
    let given = give(request, issue, response).await;
    request.gateway().observer.metrics.identity().login(match &given {
        Ok(_) => LoginOutcome::LoggedIn,
        Err(NotMade::Unusable(_)) => LoginOutcome::Unusable,
        Err(NotMade::Away(_)) => LoginOutcome::Away,
    });
    Ok(Answer::fetched(given?))
}

async fn give(
    request: &Request<'_>,
    issue: &Issue,
    response: Response<Content>,
) -> Result<Response<Content>, NotMade> {
    let (mut head, content) = response.into_parts();
    is_json(&head.headers)?;
    let body = whole(content, issue.bytes_max).await?;
    let told = Told::of(issue, &body)?;
    match &issue.given {
        Given::Session => {
            let set_cookie = session(request, told).await?;
            head.headers.remove(TRAILER);
            head.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            let mut response = Response::from_parts(head, Content::Bytes(body));
            response.extensions_mut().insert(OwnCookie(set_cookie));
            Ok(response)
        }
        Given::Tokens(signer) => tokens(request, signer, told).await,
    }
}

async fn session(request: &Request<'_>, told: Told) -> Result<HeaderValue, NotMade> {
    let (subject, fields) = (&*told.subject, told.claims);
    let shown = request.received.shown();
    let login = LogIn { subject, fields, shown };
    let made = request.gateway().make_session(request.plan(), login).await?;
    Ok(made.set_cookie)
}

async fn tokens(
    request: &Request<'_>,
    signer: &Signer,
    told: Told,
) -> Result<Response<Content>, NotMade> {
    let text = serde_json::to_string(&told.claims).unwrap_or_default();
    let claims = claims_text(&text).map_err(|_| NotMade::Unusable("its claims are too long"))?;
    let issued = request.gateway().begin_family(signer, &told.subject, &claims).await;
    let issued = issued.map_err(|refused| match refused {
        Refused::Away(why) => NotMade::Away(why),
        _ => NotMade::Unusable("the signer issues no tokens"),
    })?;
    Ok(signed::issued(&issued))
}

impl Told {
    fn of(issue: &Issue, body: &[u8]) -> Result<Self, NotMade> {
        let answer = read_object(body)
            .ok_or(NotMade::Unusable("it is no JSON object that names each member once"))?;
        let subject = match answer.pointer(&issue.sub).map(|found| found.value) {
            Some(Value::String(text)) => text.clone(),
            // A whole number, which no reader rounds.
            Some(Value::Number(number)) if number.is_u64() || number.is_i64() => number.to_string(),
            Some(_) => return Err(NotMade::Unusable("its sub is neither text nor a whole number")),
            None => return Err(NotMade::Unusable("it does not say who it is")),
        };
        if subject.is_empty() || subject.contains(char::is_control) {
            return Err(NotMade::Unusable("its sub is empty, or has control characters"));
        }
        let claim = |(name, at): &(String, String)| {
            let found = answer.pointer(at).filter(|found| !found.value.is_null())?;
            Some((name.clone(), found.json()))
        };
        let claims = issue.claims.iter().filter_map(claim).collect();
        Ok(Self { subject, claims })
    }
}

/// An answer in a coding is not looked into; none was asked for.
fn is_json(headers: &HeaderMap) -> Result<(), NotMade> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json =
        kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json");
    if !is_json || headers.contains_key(CONTENT_ENCODING) {
        return Err(NotMade::Unusable("it is no plain application/json"));
    }
    Ok(())
}

/// The whole body, if it has at most so many bytes.
async fn whole(mut content: Content, bytes_max: u64) -> Result<Bytes, NotMade> {
    const TOO_LONG: NotMade = NotMade::Unusable("it is longer than issues.max_bytes");
    if content.size_hint().lower() > bytes_max {
        return Err(TOO_LONG);
    }
    if !content.is_plain() {
        return Err(NotMade::Unusable("it is a stream"));
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| content.poll_plain(cx)).await {
        let frame = frame.map_err(|_| NotMade::Unusable("it was cut off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if (whole.len() + data.len()) as u64 > bytes_max {
            return Err(TOO_LONG);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests;
