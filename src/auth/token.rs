//! One token in compact form: from its text to an [`Identity`] (RFC 7515 §5.2, RFC 7519 §7.2, RFC
//! 8725). Everything is strict, since what one parser forgives another may read differently. It
//! must not know the request that carries it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::challenge::Reason;
use super::claims;
use super::keys::KeySet;
use super::rules::Rules;
use crate::base::algorithm::by_name;
use crate::base::facts::Identity;
use crate::base::json;

/// Longest `kid`, in bytes.
const KID_BYTES_MAX: usize = 256;

/// The parts of a compact JWS (RFC 7515 §7.1), not yet decoded.
pub(super) struct Parts<'t> {
    pub(super) header: &'t str,
    pub(super) payload: &'t str,
    pub(super) signature: &'t str,
    /// `header.payload`, what the signature covers. It also names the token for revocation: an
    /// ECDSA signature has a second valid spelling, this text has not.
    pub(super) signing_input: &'t str,
}

/// What the header says about the key; everything else in it is either refused or ignored. `jwk`,
/// `jku`, `x5u`, `x5c` and `iss` are ignored: a token does not get to bring its own key.
struct Header {
    algorithm: Algorithm,
    kid: Option<String>,
}

/// Verifies `token` with one of `keys` at `now` (Unix seconds). The claims are not looked at before
/// the signature has been found good, but for one use: where the key may have been published since,
/// a token that its own claims condemn is not worth asking for it.
pub(super) fn verify(
    rules: &Rules,
    keys: &KeySet,
    token: &str,
    now: i64,
) -> Result<Identity, Reason> {
    if token.len() > rules.token_bytes {
        return Err(Reason::TooLarge);
    }
    let parts = split(token)?;
    let header = read_header(parts.header)?;
    if !rules.algorithms.contains(&header.algorithm) {
        return Err(Reason::Algorithm);
    }
    let signed = check_signature(keys, &header, &parts);
    if signed.is_err_and(|reason| reason != Reason::KeyUnknown) {
        signed?;
    }
    let (claims, exact) =
        json::exact_object(&decode(parts.payload)?).map_err(|_| Reason::Claims)?;
    let identity = claims::identity(rules, claims, exact, parts.signing_input, now);
    match signed {
        Ok(()) => identity,
        Err(_) if identity.is_err() => Err(Reason::Key),
        Err(reason) => Err(reason),
    }
}

/// The issuer that the token claims to be from, which nothing vouches for: good for choosing who
/// verifies it, and for nothing else.
pub(super) fn claimed_issuer(token: &str) -> Result<String, Reason> {
    let payload = decode(split(token)?.payload)?;
    let (claims, _) = json::exact_object(&payload).map_err(|_| Reason::Claims)?;
    match claims.get("iss") {
        Some(Value::String(issuer)) => Ok(issuer.clone()),
        Some(other) => Err(claims::not_a_text("iss", other)),
        None => Err(Reason::Issuer),
    }
}

/// What the token says of itself in this claim, which nothing vouches for: for whoever is told why
/// it is refused.
pub(super) fn claimed(token: &str, name: &str) -> Option<Value> {
    let payload = decode(split(token).ok()?.payload).ok()?;
    let (mut claims, _) = json::exact_object(&payload).ok()?;
    claims.remove(name)
}

/// What the header of a token says of it: `typ` in lower case, without `application/`, and its
/// algorithm. Who has verified the token can believe it.
pub(super) fn header(token: &str) -> Option<(Option<String>, Algorithm)> {
    let bytes = decode(split(token).ok()?.header).ok()?;
    let members = json::object(&bytes).ok()?;
    let algorithm = members.get("alg").and_then(Value::as_str).and_then(by_name)?;
    let kind = members.get("typ").and_then(Value::as_str).map(str::to_ascii_lowercase);
    let kind = kind.map(|kind| kind.strip_prefix("application/").unwrap_or(&kind).to_owned());
    Some((kind, algorithm))
}

pub(super) fn split(token: &str) -> Result<Parts<'_>, Reason> {
    let (signing_input, signature) = token.rsplit_once('.').ok_or(Reason::Parts)?;
    let (header, payload) = signing_input.split_once('.').ok_or(Reason::Parts)?;
    if payload.contains('.') {
        return Err(Reason::Parts);
    }
    Ok(Parts { header, payload, signature, signing_input })
}

/// Unpadded base64url whose unused bits are zero, so that each value has one spelling.
pub(super) fn decode(part: &str) -> Result<Vec<u8>, Reason> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Reason::Encoding)
}

fn read_header(part: &str) -> Result<Header, Reason> {
    let members = json::object(&decode(part)?).map_err(|_| Reason::Header)?;
    // RFC 7515 §4.1.11: an extension that is critical and not understood makes the token invalid.
    // None is understood.
    if ["crit", "b64", "zip"].iter().any(|member| members.contains_key(*member)) {
        return Err(Reason::Extension);
    }
    check_type(&members)?;
    let algorithm = match members.get("alg") {
        // The comparison is exact: neither `none` in any spelling nor `hs256` is an algorithm.
        Some(Value::String(name)) => by_name(name).ok_or(Reason::Algorithm)?,
        _ => return Err(Reason::Algorithm),
    };
    let kid = match members.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= KID_BYTES_MAX => Some(kid.clone()),
        Some(_) => return Err(Reason::Header),
    };
    Ok(Header { algorithm, kid })
}

/// `typ` (RFC 7519 §5.1, RFC 9068 §2.1), where it is given, must be a JWT's; `cty` must not
/// announce a nested token.
fn check_type(members: &Map<String, Value>) -> Result<(), Reason> {
    if let Some(value) = members.get("typ") {
        let typ = value.as_str().ok_or(Reason::Header)?.to_ascii_lowercase();
        let typ = typ.strip_prefix("application/").unwrap_or(&typ);
        if typ != "jwt" && typ.strip_suffix("+jwt").is_none_or(str::is_empty) {
            return Err(Reason::Type);
        }
    }
    if let Some(value) = members.get("cty") {
        let cty = value.as_str().ok_or(Reason::Header)?.to_ascii_lowercase();
        if cty.strip_prefix("application/").unwrap_or(&cty) == "jwt" {
            return Err(Reason::Extension);
        }
    }
    Ok(())
}

fn check_signature(keys: &KeySet, header: &Header, parts: &Parts<'_>) -> Result<(), Reason> {
    let kid = header.kid.as_deref();
    let mut candidates = keys.candidates(kid, header.algorithm).peekable();
    let some = candidates.peek().is_some();
    if some {
        let length = decode(parts.signature)?.len();
        if signature_bytes(header.algorithm).is_some_and(|expected| length != expected) {
            return Err(Reason::Signature);
        }
    }
    if candidates.any(|key| key.verify(header.algorithm, parts.signing_input, parts.signature)) {
        return Ok(());
    }
    // A key without a name was tried, but the one that the token names may have come since.
    Err(match (keys.may_be_outdated_for(kid), some) {
        (true, _) => Reason::KeyUnknown,
        (false, true) => Reason::Signature,
        (false, false) => Reason::Key,
    })
}

/// Bytes of a signature (RFC 7518 §3.2 and §3.4, RFC 8037 §3.1); nothing where the key decides.
fn signature_bytes(algorithm: Algorithm) -> Option<usize> {
    match algorithm {
        Algorithm::HS256 => Some(32),
        Algorithm::HS384 => Some(48),
        Algorithm::HS512 | Algorithm::ES256 | Algorithm::EdDSA => Some(64),
        Algorithm::ES384 => Some(96),
        _ => None,
    }
}
