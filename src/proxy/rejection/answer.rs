//! What others ask of a refusal: its code, and the response that it is.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::kind::Rejection;
use super::row::{Bound, Fault, Public, whole_seconds};
use crate::base::grpc::{self, GRPC_MESSAGE, GRPC_STATUS};

impl Rejection {
    pub(in crate::proxy) fn status(&self) -> StatusCode {
        self.row().status
    }

    /// A stable name: part of the body, of the access line and of a metric's label.
    pub(in crate::proxy) fn code(&self) -> &'static str {
        self.row().code
    }

    /// The key of `gateway.toml` that decided it, where one did.
    pub(in crate::proxy) fn bound(&self) -> Option<Bound<'_>> {
        self.row().bound
    }

    /// Whether what follows on the connection cannot be trusted or is not worth reading.
    pub(in crate::proxy) fn spoils_connection(&self) -> bool {
        self.row().spoils_connection
    }

    /// Whether it comes behind a wait for an upstream, where there was one: not where no server was
    /// asked, nor where the client's own body is the reason.
    pub(in crate::proxy) fn has_waited(&self) -> bool {
        match self {
            Self::Upstream(failure) => failure.has_waited(),
            Self::Upload(_) => false,
            _ => true,
        }
    }

    /// What a stranger reads of it.
    fn public(&self, public: &Public<'_>) -> Cow<'static, str> {
        match public {
            Public::Text(text) => (*text).into(),
            Public::Itself => self.to_string().into(),
            Public::Accepts(allow) => format!("This path accepts {allow}.").into(),
            Public::RetryIn(limit, wait) => {
                let wait = whole_seconds(*wait);
                format!("The limit `{limit}` is exhausted. Retry in {wait} s.").into()
            }
        }
    }

    /// What the log tells of it and nobody else: why credentials were refused, and what went wrong
    /// where the client is not to blame.
    pub(in crate::proxy) fn internal(&self) -> Option<String> {
        let has_cause = match self {
            Self::Denied(denied) => denied.cause().is_some(),
            other => matches!(other, Self::CrossSite(_)),
        };
        (has_cause || self.row().fault != Fault::Client).then(|| with_sources(self))
    }

    /// The same in the trailers of a gRPC call whose head has gone.
    pub(in crate::proxy) fn trailers(&self) -> HeaderMap {
        let row = self.row();
        let mut fields = HeaderMap::new();
        fields.insert(GRPC_STATUS, HeaderValue::from(row.grpc_status()));
        fields.insert(GRPC_MESSAGE, grpc::encode_message(&self.public(&row.public)));
        fields
    }

    /// The response. `request_id` is where its reader finds it in the log.
    pub(in crate::proxy) fn response(&self, is_grpc: bool, request_id: &str) -> Response<Bytes> {
        let row = self.row();
        let public = self.public(&row.public);
        let mut response =
            if is_grpc { row.grpc(&public) } else { row.problem(&public, request_id) };
        row.add_headers(response.headers_mut());
        response
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let told = cause.to_string();
        // Some errors tell their cause themselves.
        if !text.ends_with(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Denied, Reason};

    #[test]
    fn a_cause_that_an_error_tells_itself_is_told_once() {
        let refused = Rejection::from(Denied::from(Reason::Signature));
        assert_eq!(refused.internal().as_deref(), Some("token refused: bad signature"));
    }
}
