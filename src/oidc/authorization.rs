//! The authorization request (OpenID Connect Core 1.0 §3.1.2.1, RFC 7636 §4.3): the URL at which a
//! browser logs in.

use super::attempt::{Attempt, Secrets};
use super::metadata::Metadata;
use crate::base::http::form;
use crate::config::Provider;

/// The URL. `response_mode` is left to its default: the code comes in the query, and no form is
/// posted across sites, with which no cookie would come.
pub fn authorization_url(
    provider: &Provider,
    metadata: &Metadata,
    attempt: &Attempt,
    secrets: &Secrets,
) -> String {
    let (scope, challenge) = (provider.scopes.join(" "), attempt.challenge());
    let max_age = provider.max_age.map(|age| age.as_secs().to_string());
    let acr_values = provider.acr_values.join(" ");
    let mut pairs = vec![
        ("response_type", "code"),
        ("client_id", &*provider.client_id),
        ("redirect_uri", &*provider.redirect_uri.text),
        ("scope", &*scope),
        ("state", &*secrets.state),
        ("nonce", &*attempt.nonce),
        ("code_challenge", &*challenge),
        ("code_challenge_method", "S256"),
    ];
    pairs.extend(max_age.as_deref().map(|age| ("max_age", age)));
    pairs.extend(provider.prompt.map(|prompt| ("prompt", prompt)));
    pairs.extend((!acr_values.is_empty()).then_some(("acr_values", &*acr_values)));
    let endpoint = &metadata.authorization_endpoint;
    // RFC 6749 §3.1: a query that the endpoint has must be retained.
    let between = if endpoint.contains('?') { '&' } else { '?' };
    format!("{endpoint}{between}{}", form::write(&pairs))
}
