//! `[auth.NAME]`: who issues tokens and how they are verified.

use std::collections::BTreeMap;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use toml::de::DeValue;

use super::discovery;
use super::introspect::{self, Introspect};
use super::jwks::{self, Bounds, RemoteKeys};
use super::reader::Section;
use super::sender::{self, Sender};
use super::value::{
    Flaw, MIB, Mistake, Read, at_most, choice, claim_name, cookie_name, duration, duration_or_zero,
    echo, flag, header_name, parameter_name, size, string, text,
};
use crate::base::algorithm::by_name;
use crate::base::units::Secret;

/// `[auth.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    /// Required `iss`.
    pub issuer: Option<String>,
    /// Accepted `aud`.
    pub audience: Vec<String>,
    /// How many of `audience` a token must name.
    pub audience_match: AudienceMatch,
    /// Accepted algorithms.
    pub algorithms: Vec<Algorithm>,
    /// Where the keys come from; `None` when the file named none (a problem was reported).
    pub keys: Option<KeySource>,
    /// Where a token may stand.
    pub from: Vec<TokenSource>,
    /// Clock difference that is forgiven.
    pub leeway: Duration,
    /// Longest accepted life of a token (`exp - iat`).
    pub max_age: Option<Duration>,
    /// Largest accepted token, in bytes.
    pub token_bytes: usize,
    /// Whether the store is asked for revocations.
    pub revocation: bool,
    /// Whether the upstream sees the token.
    pub forward_token: bool,
    /// Header name to claim name.
    pub claims_to_headers: BTreeMap<String, String>,
    /// What the sender of a token must show beside it.
    pub sender: Sender,
}

/// `audience_match = "any" | "all"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudienceMatch {
    /// One is enough.
    Any,
    /// The token must name every one of them.
    All,
}

/// Key material as it was read, not yet parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// `secret`
    Secret(Secret),
    /// `public_key_file`, the PEM text.
    PublicKey(String),
    /// `jwks_file`, the JSON text; a `Secret` because it may hold `oct` keys.
    Jwks(Secret),
    /// `jwks_url`, or where the issuer says; to be fetched.
    Url(RemoteKeys),
    /// `introspect`: none at all; an authorization server says what each token is worth.
    Introspection(Introspect),
    /// `signer`: those of one of `[signers]`, by its name.
    Signer(String),
    /// `api_keys`: none at all; what is verified are API keys, whose records are in the store.
    ApiKeys,
    /// `certificate`: none at all; callers are clients with certificates, which TLS verifies.
    Certificates,
    /// `session`: none at all; callers have sessions that the gateway has made.
    Sessions,
}

/// One place where a token may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// `header:NAME`; in `authorization` after `Bearer `, elsewhere bare or after `Bearer `.
    Header(http::HeaderName),
    /// `cookie:NAME`
    Cookie(String),
    /// `query:NAME`, the name decoded.
    Query(String),
}

/// Where API keys stand unless `from` says otherwise.
const API_KEY_HEADER: http::HeaderName = http::HeaderName::from_static("x-api-key");
/// Most clock difference that can be forgiven: every second of it keeps expired tokens alive.
const LEEWAY_MAX: Duration = Duration::from_secs(60 * 60);

/// Reads `[auth.NAME]`.
pub(super) fn read(auth: &mut Section<'_>) -> Verifier {
    let takes = Takes::read(auth);
    takes.refuse_what_says_nothing(auth);
    auth.holds("from", || takes.places_by_default());
    auth.holds("token_bytes", || Some("8KiB".into()));
    let issuer = auth.get("issuer", text);
    let keys = read_keys(auth, takes, issuer.as_deref());
    Verifier {
        issuer,
        audience: auth.list("audience", text).unwrap_or_default(),
        audience_match: auth.or(
            "audience_match",
            AudienceMatch::Any,
            choice(&[("any", AudienceMatch::Any), ("all", AudienceMatch::All)]),
        ),
        algorithms: match takes {
            // A signer has no other.
            Takes::Tokens if auth.has("signer") && !auth.has("algorithms") => {
                vec![Algorithm::ES256]
            }
            Takes::Tokens if !auth.has("introspect") => {
                once_each(auth.need_list("algorithms", "[\"ES256\"]", algorithm))
            }
            _ => auth.list("algorithms", algorithm).unwrap_or_default(),
        },
        keys,
        from: auth.list("from", token_source).unwrap_or_else(|| match takes {
            Takes::Tokens => vec![TokenSource::Header(http::header::AUTHORIZATION)],
            Takes::ApiKeys => vec![TokenSource::Header(API_KEY_HEADER)],
            Takes::Certificates | Takes::Sessions => Vec::new(),
        }),
        leeway: auth.or("leeway", Duration::from_secs(30), leeway),
        max_age: auth.get("max_age", duration),
        token_bytes: auth
            .get("token_bytes", size(256..=MIB))
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(8 << 10),
        revocation: auth.or("revocation", true, flag),
        forward_token: auth.or("forward_token", false, flag),
        claims_to_headers: auth.map(
            "claims_to_headers",
            |name| Ok(header_name(name)?.as_str().to_owned()),
            |claim| claim.read(|value| claim_name(string(value, "it in quotes")?)),
        ),
        sender: sender::read(auth),
    }
}

/// What a verifier knows its callers by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Tokens,
    ApiKeys,
    Certificates,
    Sessions,
}

impl Takes {
    fn read(auth: &mut Section<'_>) -> Self {
        let api_keys = auth.or("api_keys", false, flag);
        let certificates = auth.or("certificate", false, flag);
        if api_keys && certificates {
            let what = "a verifier takes API keys or certificates, not both";
            auth.problem("certificate", what, "write a table of its own for the certificates");
        }
        let sessions = auth.or("session", false, flag);
        if sessions && (api_keys || certificates) {
            let what = "a verifier takes sessions or something else, not both";
            auth.problem("session", what, "write a table of its own for the sessions");
        }
        match (sessions, certificates, api_keys) {
            (true, ..) => Self::Sessions,
            (false, true, _) => Self::Certificates,
            (false, false, true) => Self::ApiKeys,
            (false, false, false) => Self::Tokens,
        }
    }

    /// Where they stand unless `from` says otherwise, as the file would say it.
    fn places_by_default(self) -> Option<Value> {
        match self {
            Self::Tokens => Some(json!(["header:authorization"])),
            Self::ApiKeys => Some(json!([format!("header:{API_KEY_HEADER}")])),
            Self::Certificates | Self::Sessions => None,
        }
    }

    /// What is said of tokens says nothing of API keys or certificates, and its writer would think
    /// that it does.
    fn refuse_what_says_nothing(self, auth: &Section<'_>) {
        const OF_TOKENS: [&str; 15] = [
            "issuer",
            "audience",
            "audience_match",
            "algorithms",
            "leeway",
            "max_age",
            "secret",
            "public_key_file",
            "jwks_file",
            "jwks_url",
            "jwks",
            "introspect",
            "bound",
            "dpop",
            "signer",
        ];
        /// A certificate stands in no request.
        const OF_REQUESTS: [&str; 3] = ["from", "token_bytes", "forward_token"];
        const REMEDY: &str = "remove it, or write a table of its own for the tokens";
        let meaningless = |keys: &'static [&'static str], what: &str| {
            for key in keys.iter().filter(|key| auth.has(key)) {
                auth.problem(key, what, REMEDY);
            }
        };
        match self {
            Self::Tokens => {}
            Self::ApiKeys => {
                meaningless(&OF_TOKENS, "is about tokens, and this verifier takes API keys");
            }
            Self::Certificates => {
                let what = "is about tokens, and this verifier takes client certificates";
                meaningless(&OF_TOKENS, what);
                meaningless(&OF_REQUESTS, what);
            }
            Self::Sessions => {
                let what = "is about tokens, and this verifier takes sessions";
                meaningless(&OF_TOKENS, what);
                meaningless(&OF_REQUESTS, what);
            }
        }
    }
}

/// Exactly one source of keys: several could disagree about who may sign.
fn read_keys(auth: &mut Section<'_>, takes: Takes, issuer: Option<&str>) -> Option<KeySource> {
    const SOURCES: [&str; 6] =
        ["secret", "public_key_file", "jwks_file", "jwks_url", "introspect", "signer"];
    let asked = auth.optional("introspect", introspect::read);
    if auth.has("introspect") && auth.has("algorithms") {
        let what = "is about signatures, and these tokens have none that is looked at";
        auth.problem("algorithms", what, "remove it");
    }
    let secret = auth.secret("secret").map(KeySource::Secret);
    let public_key = auth.file("public_key_file").map(KeySource::PublicKey);
    let jwks = auth.file("jwks_file").map(|text| KeySource::Jwks(Secret::new(text)));
    let signer = auth.get("signer", text).map(KeySource::Signer);
    let bounds = auth.section("jwks", jwks::read);
    let url = auth.get("jwks_url", |value| jwks::keys_url(value, bounds.allow_http));
    match takes {
        Takes::Tokens => {}
        Takes::ApiKeys => return Some(KeySource::ApiKeys),
        Takes::Certificates => return Some(KeySource::Certificates),
        Takes::Sessions => return Some(KeySource::Sessions),
    }
    let named: Vec<&str> = SOURCES.into_iter().filter(|key| auth.has(key)).collect();
    match named.as_slice() {
        [] => return discovered(auth, issuer, bounds),
        [_] => {}
        [_, second, ..] => {
            let what = format!("is one of several sources of keys: {}", named.join(", "));
            auth.problem(second, what, "keep exactly one of them");
        }
    }
    if auth.has("jwks") && !auth.has("jwks_url") {
        let what = "is about keys that are fetched, and nothing says from where";
        auth.problem("jwks", what, "add jwks_url, or remove this table");
    }
    let asked = asked.flatten().map(KeySource::Introspection);
    let url = url.map(|url| KeySource::Url(bounds.of(url, None)));
    secret.or(public_key).or(jwks).or(asked).or(url).or(signer)
}

/// Keys whose place an issuer names itself, in the document that its URL leads to.
fn discovered(auth: &mut Section<'_>, issuer: Option<&str>, bounds: Bounds) -> Option<KeySource> {
    match issuer.and_then(|issuer| discovery::of(issuer, bounds.allow_http)) {
        Some(Ok((document, discovery))) => {
            return Some(KeySource::Url(bounds.of(document, Some(discovery))));
        }
        Some(Err(mistake)) => auth.problem("issuer", mistake.what, mistake.remedy),
        // What is wrong with an issuer that cannot be read was said.
        None if auth.has("issuer") && issuer.is_none() => {}
        None => auth.problem(
            "",
            "has no key to verify with",
            "write one of secret, public_key_file, jwks_file, jwks_url, signer, or as issuer the \
             https:// URL that its tokens name, which says where its keys are; or api_keys or \
             certificate = true or session = true; for opaque tokens, introspect",
        ),
    }
    None
}

fn algorithm(value: &DeValue<'_>) -> Read<Algorithm> {
    // The last two are the same.
    const NAMES: [&str; 13] = [
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
        "ES384", "EdDSA", "Ed25519",
    ];
    let text = string(value, "its name in quotes, such as \"ES256\"")?;
    by_name(text).ok_or_else(|| {
        let what = format!("{} is not an accepted algorithm", echo(text));
        let remedy = format!("write one of {}, in quotes", NAMES.join(" "));
        Mistake::new(what, remedy).of(Flaw::Choice(NAMES.map(str::to_owned).to_vec()))
    })
}

/// One algorithm may be written under both of its names.
fn once_each(written: Vec<Algorithm>) -> Vec<Algorithm> {
    let mut algorithms = Vec::with_capacity(written.len());
    for algorithm in written {
        if !algorithms.contains(&algorithm) {
            algorithms.push(algorithm);
        }
    }
    algorithms
}

fn token_source(value: &DeValue<'_>) -> Read<TokenSource> {
    const EXAMPLE: &str = "\"header:authorization\", \"cookie:NAME\" or \"query:NAME\"";
    let text = string(value, EXAMPLE)?;
    match text.split_once(':') {
        Some(("header", name)) => header_name(name).map(TokenSource::Header),
        Some(("cookie", name)) => cookie_name(name).map(TokenSource::Cookie),
        Some(("query", name)) => parameter_name(name).map(TokenSource::Query),
        _ => {
            let what = format!("{} is not a place for tokens", echo(text));
            Err(Mistake::new(what, format!("write {EXAMPLE}")))
        }
    }
}

fn leeway(value: &DeValue<'_>) -> Read<Duration> {
    const SAID: (&str, &str) = (
        "lets expired tokens live for more than an hour",
        "write at most 1h; 30s is enough for synchronised clocks",
    );
    at_most(duration_or_zero, LEEWAY_MAX, SAID)(value)
}
