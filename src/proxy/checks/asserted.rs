//! What the upstream is told of the caller by a token of the gateway's own.

use std::time::SystemTime;

use super::{Checks, Mode};
use crate::proxy::dispatch::Fields;
use crate::proxy::rejection::Rejection;
use crate::session::Attached;

impl Checks<'_, '_> {
    /// The fields of a session that was attached, and the token beside them. A caller who is nobody
    /// has none: the client's own was dropped, so that its absence says so.
    ///
    /// # Errors
    /// It cannot be made, and the upstream must not be asked without.
    pub(super) fn assert_identity(&self, session: Attached) -> Result<Fields, Rejection> {
        let Attached { mut headers, asserted, .. } = session;
        let signed = self.request.route.edge.as_ref().and_then(|edge| edge.signed.as_ref());
        if let Some(assertion) = signed.and_then(|signed| signed.assertion.as_ref())
            && let Some(identity) = self.request.caller
            && self.mode == Mode::Charge
        {
            let value = assertion.of(identity, asserted.as_deref(), SystemTime::now());
            let value = value.map_err(Rejection::NotAsserted)?;
            headers.push((assertion.header.clone(), value));
        }
        Ok(headers)
    }
}
