//! What a provider says of itself in its discovery document, beside where its keys are (OpenID
//! Connect Discovery 1.0 §3, RFC 8414 §2, RFC 9207 §3).

use serde::Deserialize;

use crate::config::{Discovery, KeysUrl};

/// Where a provider is asked for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Where browsers log in.
    pub authorization_endpoint: String,
    /// Where codes are exchanged.
    pub token_endpoint: KeysUrl,
    /// Where more is told of users.
    pub userinfo_endpoint: Option<KeysUrl>,
    /// Where browsers log out.
    pub end_session_endpoint: Option<String>,
    /// Whether each answer of its says whose it is.
    pub sends_issuer: bool,
}

/// What is read of a document. None of these may stand twice.
#[derive(Deserialize)]
struct Document {
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    userinfo_endpoint: Option<String>,
    end_session_endpoint: Option<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    code_challenge_methods_supported: Option<Vec<String>>,
}

impl Metadata {
    /// Of the document at this place, which was found to be the issuer's own.
    ///
    /// # Errors
    /// Why nobody can log in by it.
    pub fn parse(document: &KeysUrl, discovery: &Discovery, text: &[u8]) -> Result<Self, String> {
        let read: Document = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        type Found = Result<Option<(KeysUrl, String)>, String>;
        let place = |name: &str, uri: Option<String>| -> Found {
            uri.map(|uri| Ok((discovery.endpoint_at(document, name, &uri)?, uri))).transpose()
        };
        let need = |name: &str, uri: Option<String>| {
            place(name, uri)?.ok_or_else(|| format!("the discovery document names no {name}"))
        };
        // RFC 9700 §2.1.1: who says which challenges it knows and does not know this one would take
        // codes without.
        let challenges = read.code_challenge_methods_supported.as_deref();
        if challenges.is_some_and(|known| known.iter().all(|it| it != "S256")) {
            return Err("it does not take challenges of codes by S256 (PKCE)".to_owned());
        }
        Ok(Self {
            authorization_endpoint: need("authorization_endpoint", read.authorization_endpoint)?.1,
            token_endpoint: need("token_endpoint", read.token_endpoint)?.0,
            userinfo_endpoint: place("userinfo_endpoint", read.userinfo_endpoint)?.map(|it| it.0),
            end_session_endpoint: place("end_session_endpoint", read.end_session_endpoint)?
                .map(|it| it.1),
            sends_issuer: read.authorization_response_iss_parameter_supported,
        })
    }
}
