//! What an upstream is told by a provider's access token, where the session that says who calls
//! comes from there; and the end of a session that the provider renews no more.

use http::HeaderValue;

use super::checks::Admitted;
use super::rejection::Rejection;
use super::request::Request;
use crate::base::facts::Credential;
use crate::oidc::Fault;
use crate::plan::Provider;
use crate::session::{NoSession, id_of};
use std::sync::Arc;

/// The provider of the caller's session and the session's id, where tokens are kept beside it.
fn of_caller<'a>(request: &Request<'a>) -> Option<(&'a Arc<Provider>, String)> {
    let providers = &request.plan().providers;
    let identity = request.caller.as_deref()?;
    let Credential::Session { digest } = identity.credential else { return None };
    let provider = providers.get(identity.claims.get("provider")?.as_str()?)?;
    provider.written.refresh.then(|| (provider, id_of(&digest)))
}

/// Whether something is to be done for a request.
pub(super) fn concerns(request: &Request<'_>) -> bool {
    !request.plan().providers.is_empty() && of_caller(request).is_some()
}

/// Adds the access token for the upstream, renewed where that was due.
///
/// # Errors
/// The provider has ended what the session rests on; or the upstream is to have a token, and there
/// is none that is good.
pub(super) async fn add(
    request: &Request<'_>,
    admitted: &mut Admitted<'_>,
) -> Result<(), Rejection> {
    let Some((provider, session)) = of_caller(request) else { return Ok(()) };
    let gateway = request.gateway();
    let access = match gateway.access_token(request.plan(), provider, &session).await {
        Ok(access) => access,
        Err(Fault::Code(_)) => {
            let why = NoSession::Required;
            return Err(Rejection::NoSession { why, takes_credentials: false });
        }
        // The session is good for what it says itself.
        Err(_) if provider.written.forward_access_token.is_none() => None,
        Err(fault) => return Err(fault.into()),
    };
    if let (Some(header), Some(access)) = (&provider.written.forward_access_token, access)
        && let Ok(mut value) = HeaderValue::try_from(access)
    {
        value.set_sensitive(true);
        admitted.added.push((header.clone(), value));
    }
    Ok(())
}
