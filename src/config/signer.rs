//! `[signers.NAME]`: the keys with which the gateway signs tokens of its own, and how long those
//! live. `assertion` of a route is what its upstream is told by one.

use std::time::Duration;

use http::HeaderName;
use toml::de::DeValue;

use super::reader::Section;
use super::value::{Mistake, Read, duration, duration_or_zero, header_name, string, text};
use crate::base::units::Secret;

/// Most keys of one signer: the one of now, those of before, those to come.
const KEYS_MAX: usize = 8;
/// Longest life of an assertion: whoever gets hold of one is its caller for so long.
const ASSERTION_TTL_MAX: Duration = Duration::from_secs(60 * 60);
/// Longest time in which an old refresh token is answered once more.
const GRACE_MAX: Duration = Duration::from_secs(5 * 60);
/// Longest life of an access token: what is not revoked is good for so long.
const ACCESS_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest life of refresh tokens, and of all that descend from one log-in.
const FAMILY_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// `[signers.NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// What its tokens have as `iss`.
    pub issuer: String,
    /// Private keys in PEM; the first one signs, all are published.
    pub keys: Vec<Secret>,
    /// How access and refresh tokens of it are; `None`: it issues none.
    pub tokens: Option<Tokens>,
}

/// `tokens = { … }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// What access tokens have as `aud`.
    pub audience: Vec<String>,
    /// How long an access token lives.
    pub access: Duration,
    /// How long a refresh token may wait to be used.
    pub refresh: Duration,
    /// How long all that descends from one log-in lives.
    pub family: Duration,
    /// For how long a refresh token that was used is answered with what it was answered before.
    pub grace: Duration,
}

/// `assertion = { … }` of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// The name of the signer.
    pub signer: String,
    /// The field that carries it.
    pub header: HeaderName,
    /// Its `aud`.
    pub audience: String,
    /// How long it is good.
    pub ttl: Duration,
    /// For how long the same one is sent again; zero: each request has its own, with a `jti`.
    pub reuse: Duration,
    /// The caller's claims that it repeats.
    pub claims: Vec<String>,
    /// The session's fields that it repeats.
    pub session: Vec<String>,
}

/// Reads `[signers.NAME]`.
pub(super) fn read(signer: &mut Section<'_>) -> Signer {
    let keys = signer.secrets_as("keys", key);
    let remedy = "write keys = [\"file:signing.pem\"]; `portcullis signing-key signing.pem` makes \
                  one";
    if !signer.has("keys") && !signer.is_survey() {
        signer.problem("keys", "is missing", remedy);
    }
    if keys.len() > KEYS_MAX {
        let what = format!("has more than {KEYS_MAX} keys");
        signer.problem("keys", what, "keep the one of now, the next one, and the one of before");
    }
    Signer {
        issuer: signer
            .need("issuer", "\"https://gateway.shop.example\", what tokens have as iss", text)
            .unwrap_or_default(),
        keys,
        tokens: signer.optional("tokens", read_tokens),
    }
}

fn read_tokens(tokens: &mut Section<'_>) -> Tokens {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let read = Tokens {
        audience: tokens.need_list("audience", "[\"shop\"], what access tokens have as aud", text),
        access: tokens.or("access", Duration::from_secs(15 * 60), up_to(ACCESS_MAX, "24h")),
        refresh: tokens.or("refresh", 7 * DAY, up_to(FAMILY_MAX, "365d")),
        family: tokens.or("family", 30 * DAY, up_to(FAMILY_MAX, "365d")),
        grace: tokens.or("grace", Duration::from_secs(10), grace),
    };
    if read.family < read.refresh {
        let what = "ends before a refresh token does that was not used";
        tokens.problem("family", what, "write at least as much as in refresh");
    }
    if read.refresh < read.access {
        let what = "ends before the access token that came with it";
        tokens.problem("refresh", what, "write more than in access");
    }
    read
}

/// Reads `assertion` of a route.
pub(super) fn read_assertion(assertion: &mut Section<'_>) -> Option<Assertion> {
    let signer = assertion.need("signer", "\"NAME\", one of [signers]", text);
    let audience = assertion.need("audience", "\"shop\", for whom it is", text);
    let ttl = assertion.or("ttl", Duration::from_secs(60), up_to(ASSERTION_TTL_MAX, "1h"));
    let reuse = assertion.get("reuse", duration_or_zero);
    assertion.holds("reuse", || Some(format!("{}s", ttl.as_secs() / 2).into()));
    if reuse.is_some_and(|reuse| reuse >= ttl) {
        let what = "is as long as ttl or longer: an assertion would be over when it is sent";
        assertion.problem("reuse", what, "write less, such as half of ttl");
    }
    Some(Assertion {
        header: assertion.or("header", HeaderName::from_static("x-identity-assertion"), |value| {
            header_name(string(value, "the name of a header in quotes")?)
        }),
        ttl,
        reuse: reuse.unwrap_or(ttl / 2),
        claims: assertion.list_or_empty("claims", text),
        session: assertion.list_or_empty("session", text),
        signer: signer?,
        audience: audience?,
    })
}

/// A private key as it is written: elsewhere, never in the file that is shown and compared.
fn key(written: &DeValue<'_>, secret: Secret) -> Read<Secret> {
    const ELSEWHERE: [&str; 2] = ["env:", "file:"];
    let text = written.as_str().unwrap_or_default();
    if ELSEWHERE.iter().any(|prefix| text.starts_with(prefix)) {
        return Ok(secret);
    }
    let remedy = "write \"file:PATH\" or \"env:NAME\", and the key there; `portcullis signing-key \
                  PATH` makes one";
    Err(Mistake::new("is a private key itself, or the name of a file without \"file:\"", remedy))
}

/// A whole number of seconds, as tokens have them, from one up to `max`, which is `shown` so.
fn up_to(max: Duration, shown: &'static str) -> impl Fn(&DeValue<'_>) -> Read<Duration> {
    move |value| {
        let read = duration(value)?;
        if (Duration::from_secs(1)..=max).contains(&read) && read.subsec_nanos() == 0 {
            return Ok(read);
        }
        Err(Mistake::new("is out of range", format!("write \"1s\" to \"{shown}\", whole seconds")))
    }
}

fn grace(value: &DeValue<'_>) -> Read<Duration> {
    let grace = duration_or_zero(value)?;
    if grace <= GRACE_MAX {
        return Ok(grace);
    }
    let what = "lets a stolen refresh token be used for longer than five minutes";
    Err(Mistake::new(what, "write \"0s\" to \"5m\"; 10s is enough for two tabs"))
}
