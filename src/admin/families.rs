//! `/v1/families`: begins a family of refresh tokens for a user whom the application has logged in,
//! lists those of a user, and ends one. Tokens are shown once, when they are made.

use http::{StatusCode, Uri};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::masked::digest;
use super::query;
use super::reply::{Effect, Fault, Reply, json as reply_json, parse, with_confirmed};
use crate::plan::Plan;
use crate::runtime::{Gateway, Issued};
use crate::signing::{Refused, Signer, claims_text};
use crate::store::keys::Keys;

/// Longest name of a user, in bytes.
const SUBJECT_BYTES_MAX: usize = 512;

/// For whom.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FamilyRequest<'b> {
    sub: String,
    signer: Option<String>,
    #[serde(borrow, default)]
    claims: Option<&'b RawValue>,
}

/// `POST /v1/families`: begins one.
pub(super) async fn begin(gateway: &Gateway, body: &[u8]) -> Result<Reply, Fault> {
    const EXAMPLE: &str =
        "{\"sub\": \"42\"}, with \"claims\": {\"role\": \"user\"}, \"signer\": \"main\"";
    let asked: FamilyRequest<'_> = parse(body, EXAMPLE)?;
    let is_name = (1..=SUBJECT_BYTES_MAX).contains(&asked.sub.len());
    if !is_name || asked.sub.contains(char::is_control) {
        let detail = format!("sub has 1 to {SUBJECT_BYTES_MAX} visible bytes. Example: {EXAMPLE}");
        return Err(Fault::Invalid(detail));
    }
    let claims = claims_text(asked.claims.map_or("{}", RawValue::get));
    let claims = claims.map_err(|what| Fault::Invalid(format!("{what}. Example: {EXAMPLE}")))?;
    let running = gateway.running();
    let signer = signer(&running.plan, asked.signer.as_deref())?;
    let begun = gateway.begin_family(signer, &asked.sub, &claims).await;
    let Issued { access, expires_in, refresh, family } = begun.map_err(failed)?;
    let body = json!({
        "access_token": access,
        "token_type": "Bearer",
        "expires_in": expires_in,
        "refresh_token": refresh,
        "sid": family,
    });
    let mut reply = reply_json(StatusCode::CREATED, &body);
    reply.extensions_mut().insert(Effect("sid", digest(&family)));
    Ok(reply)
}

/// `GET /v1/families?sub=SUB`: those of a user.
pub(super) async fn list(gateway: &Gateway, uri: &Uri) -> Result<Reply, Fault> {
    let sub = match query::pairs(uri.query())?.as_slice() {
        [(name, sub)] if name == "sub" && !sub.is_empty() => sub.clone(),
        _ => return Err(Fault::Invalid("Name the user alone. Example: ?sub=42".to_owned())),
    };
    let running = gateway.running();
    let keys = &running.plan.keys;
    let index = keys.token_families_of(&sub);
    let list = gateway.store.list_families(&index, &keys.around_family()).await?;
    let not_listed = list.count.saturating_sub(list.families.len());
    let listed: Vec<Value> = list
        .families
        .into_iter()
        .map(|(sid, family)| {
            json!({
                "sid": sid,
                "created": family.created_s,
                "ends": family.until_ms / 1000,
                "signer": family.signer,
            })
        })
        .collect();
    let body = json!({ "sub": sub, "families": listed, "not_listed": not_listed });
    Ok(reply_json(StatusCode::OK, &body))
}

/// `DELETE /v1/families/{sid}`: ends one for good.
pub(super) async fn end(gateway: &Gateway, uri: &Uri, sid: &str) -> Result<Reply, Fault> {
    if uri.query().is_some() {
        return Err(Fault::Invalid("/v1/families/{sid} takes no query.".to_owned()));
    }
    let sid = query::percent_decoded(sid)?;
    let ended = match Keys::is_family_id(&sid) {
        true => gateway.end_family(&sid).await?,
        false => (false, None),
    };
    let (true, confirmed) = ended else {
        return Err(Fault::Problem {
            status: StatusCode::NOT_FOUND,
            code: "family_not_found",
            detail: "There is no family of this sid: it was ended, or is over.".to_owned(),
        });
    };
    gateway.observer.metrics.operations().revoked("sid");
    let answer = with_confirmed(json!({ "sid": sid, "ended": true }), confirmed);
    Ok(reply_json(StatusCode::OK, &answer))
}

/// The signer that is named, or the only one that issues tokens.
fn signer<'p>(plan: &'p Plan, name: Option<&str>) -> Result<&'p Signer, Fault> {
    let issuing = || plan.signers.values().filter(|signer| signer.tokens.is_some());
    let mut found = issuing().filter(|signer| name.is_none_or(|name| signer.name == name));
    match (found.next(), found.next()) {
        (Some(signer), None) => Ok(&**signer),
        _ => {
            let names: Vec<&str> = issuing().map(|signer| &*signer.name).collect();
            let detail = match names.as_slice() {
                [] => "No signer issues tokens: add tokens = { … } to one of [signers].".to_owned(),
                names => format!("Name as signer one of: {}.", names.join(", ")),
            };
            Err(Fault::Invalid(detail))
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn failed(refused: Refused) -> Fault {
    Fault::Problem {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "store_unreachable",
        detail: format!("Nothing is promised to have been issued: {refused}. Repeat the request."),
    }
}
