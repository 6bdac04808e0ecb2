//! What a session says to the pages of its own browser, which cannot read its cookie.

use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use crate::base::claim::Texts;
use crate::proxy::accept;
use crate::proxy::content::Content;
use crate::proxy::rejection::Rejection;
use crate::proxy::request::Request;
use crate::runtime::NotMade;
use crate::session::{NoSession, Shown};

/// The answer.
#[derive(Serialize)]
struct Told<'a> {
    sub: Option<&'a Value>,
    created_at: Option<u64>,
    /// When it ends at the latest.
    ends_at: Option<u64>,
    /// What unsafe requests show where their client says neither `Sec-Fetch-Site` nor `Origin`.
    csrf_token: String,
    fields: Texts,
}

/// Tells what the session says.
///
/// # Errors
/// There is none, or the store does not answer.
pub(super) async fn tell(request: &Request<'_>) -> Result<Response<Content>, Rejection> {
    let missing = || Rejection::NoSession { why: NoSession::Required, takes_credentials: false };
    let shown = request.received.shown().and_then(Shown::one).ok_or_else(missing)?;
    let plan = request.plan();
    let read = request.gateway().read_made(plan, shown).await.map_err(NotMade::from)?;
    let session = read.ok_or_else(missing)?;
    let settings = plan.config.session.as_ref().ok_or_else(missing)?;
    let created = session.members.get(&settings.created_field).and_then(Value::as_u64);
    let ends = created.zip(settings.absolute_timeout);
    let wanted = &request.route.written.login.fields;
    let fields = wanted.iter().filter_map(|name| Some((name.clone(), session.get(name)?.json())));
    let told = Told {
        sub: session.members.get("sub"),
        created_at: created,
        ends_at: ends.map(|(created, left)| created.saturating_add(left.as_secs())),
        csrf_token: shown.csrf_token(),
        fields: fields.collect(),
    };
    Ok(accept::json(StatusCode::OK, &told))
}
