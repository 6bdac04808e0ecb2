//! The clauses of a route, held against a request whose caller is known.

use std::time::{SystemTime, UNIX_EPOCH};

use super::request::Request;
use crate::auth::{Circumstances, Denied, fulfil};
use crate::base::facts::Caller;
use crate::plan::Clauses;

/// The caller, where all clauses of the route hold.
///
/// # Errors
/// One does not, or nobody is known to call.
pub(super) fn judge(request: &Request<'_>, caller: Caller) -> Result<Caller, Denied> {
    match &request.route.clauses {
        None => Ok(caller),
        Some(clauses) => judge_by(request, clauses, caller),
    }
}

#[cold]
fn judge_by(request: &Request<'_>, clauses: &Clauses, caller: Caller) -> Result<Caller, Denied> {
    let policy = request.route.auth.as_ref();
    let Some(identity) = &caller else {
        return Err(policy.map_or(Denied::NoToken, |policy| policy.missing()));
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.ok().and_then(|it| i64::try_from(it.as_secs()).ok()).unwrap_or_default();
    let path = request.asked.path();
    let parameter = |name: &str| clauses.parameters.value(name, path);
    fulfil(&clauses.all, &Circumstances { identity, now, parameter })?;
    Ok(caller)
}
