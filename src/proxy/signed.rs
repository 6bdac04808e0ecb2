//! What the gateway itself answers by its signers: the keys that others verify its tokens by, and
//! new tokens for a refresh token (RFC 6749 §6).

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, PRAGMA};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::accept;
use super::content::Content;
use super::rejection::Rejection;
use super::request::Request;
use crate::base::body::Inbound;
use crate::deliver;
use crate::plan::Signed;
use crate::runtime::Issued;
use crate::signing::{Refused, Signer, refresh_token};

/// For how long verifiers may keep the keys. A new key is published for longer than that before it
/// signs.
const KEYS_FRESH: &str = "public, max-age=300";
/// Longest body with a refresh token, in bytes.
const BODY_BYTES_MAX: u64 = 8 * 1024;

/// RFC 6749 §5.1.
#[derive(Serialize)]
struct Tokens<'a> {
    access_token: &'a str,
    token_type: &'a str,
    expires_in: u64,
    refresh_token: &'a str,
}

/// Answers a request on a route that answers by a signer.
///
/// # Errors
/// There is nothing to answer, or the token is not exchanged.
pub(super) async fn answer(
    request: &Request<'_>,
    signed: &Signed,
    message: (&Parts, Inbound),
) -> Result<Response<Content>, Rejection> {
    if let Some(signer) = &signed.refresh {
        return exchanged(request, signer, message).await;
    }
    let keys = signed.key_set.clone().ok_or(deliver::Refused::NotFound)?;
    Ok(published(keys))
}

/// A JWK set (RFC 7517 §8.5).
fn published(keys: Bytes) -> Response<Content> {
    let mut response = Response::new(Content::Bytes(keys));
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static(KEYS_FRESH));
    response
}

async fn exchanged(
    request: &Request<'_>,
    signer: &Arc<Signer>,
    (head, body): (&Parts, Inbound),
) -> Result<Response<Content>, Rejection> {
    let full = || Refused::Away("too many bodies are being read".to_owned());
    let held = accept::read(request, (head, body), BODY_BYTES_MAX, full).await?;
    let token = refresh_token(&head.headers, &held.body)?;
    let pair = request.gateway().refresh(signer, &token).await?;
    Ok(issued(&pair))
}

/// A new pair of tokens (RFC 6749 §5.1).
pub(super) fn issued(issued: &Issued) -> Response<Content> {
    let Issued { access, expires_in, refresh, .. } = issued;
    let tokens = Tokens {
        access_token: access,
        token_type: "Bearer",
        expires_in: *expires_in,
        refresh_token: refresh,
    };
    let mut response = accept::json(StatusCode::OK, &tokens);
    response.headers_mut().insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}
