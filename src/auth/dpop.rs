//! Proofs of possession (RFC 9449): whether the sender of a token has the key that it is bound to,
//! and made the proof for this very request. That a proof comes once is asked of the store, with
//! what revokes the token. Nonces are not asked for (RFC 9449 §8 leaves that to the server). It
//! must not know routes, nor how the store is asked.

use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::carrier::{DPOP, Form};
use super::challenge::Denied;
use super::claims::time;
use super::jwk::{self, PublicKey};
use super::key::Key;
use super::proof_fault::ProofFault;
use super::rules::{Rules, unix_seconds};
use super::token;
use super::verifier::Verifier;
use crate::base::algorithm::by_name;
use crate::base::facts::{Credential, Identity};
use crate::base::http::authority::Authority;
use crate::base::http::hex;
use crate::base::http::path::canonical;
use crate::base::json;
use crate::store::ProofKey;

/// Largest proof that is looked at, in bytes: one with the longest accepted key has less.
const PROOF_BYTES_MAX: usize = 8 * 1024;
/// Longest `jti`, in bytes.
const JTI_BYTES_MAX: usize = 256;
/// Random bytes that tell who wrote the key of a proof.
const MARK_BYTES: usize = 16;

/// The request that a proof must be made for.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'r> {
    /// Its fields.
    pub headers: &'r HeaderMap,
    /// Its method.
    pub method: &'r Method,
    /// `http` or `https`, as the client used it.
    pub scheme: &'r str,
    /// The authority that the client named.
    pub authority: &'r Authority,
    /// The canonical path.
    pub path: &'r str,
}

/// Whether whoever sends a token has the key that it is bound to. Nothing where it is bound to
/// none; else what the store must not have seen yet.
///
/// # Errors
/// There is no proof of it, or it is none of this.
pub fn prove(
    verifier: &Verifier,
    identity: &Identity,
    sent: &Sent<'_>,
    now: SystemTime,
) -> Result<Option<Box<ProofKey>>, Denied> {
    let Credential::Token { proven_by: Some(thumbprint), .. } = &identity.credential else {
        return Ok(None);
    };
    let rules = &verifier.rules;
    let proof = check(rules, thumbprint, sent, unix_seconds(now));
    let proof = proof.map_err(|fault| rules.unproven(fault))?;
    Ok(Some(Box::new(proof)))
}

fn check(
    rules: &Rules,
    thumbprint: &str,
    sent: &Sent<'_>,
    now: i64,
) -> Result<ProofKey, ProofFault> {
    let mut lines = sent.headers.get_all(DPOP).iter();
    let line = lines.next().ok_or(ProofFault::Missing)?;
    if lines.next().is_some() {
        return Err(ProofFault::Several);
    }
    if line.len() > PROOF_BYTES_MAX {
        return Err(ProofFault::TooLarge);
    }
    let text = std::str::from_utf8(line.as_bytes()).map_err(|_| ProofFault::Form)?;
    let parts = token::split(text).map_err(|_| ProofFault::Form)?;
    let (algorithm, key) = read_header(&members(parts.header)?, &rules.proof_algorithms)?;
    // The cheap comparison comes before the signature.
    if key.thumbprint != *thumbprint {
        return Err(ProofFault::OtherKey);
    }
    let key = Key::new(None, vec![algorithm], &key.material);
    if !key.verify(algorithm, parts.signing_input, parts.signature) {
        return Err(ProofFault::Signature);
    }
    let claims = members(parts.payload)?;
    check_request(&claims, sent)?;
    check_time(&claims, rules, now)?;
    check_token(&claims, sent)?;
    let id = match claims.get("jti") {
        Some(Value::String(id)) if (1..=JTI_BYTES_MAX).contains(&id.len()) => id,
        _ => return Err(ProofFault::Id),
    };
    proof_key(rules, thumbprint, id)
}

/// A part as a JSON object that names nothing twice.
fn members(part: &str) -> Result<Map<String, Value>, ProofFault> {
    let bytes = token::decode(part).map_err(|_| ProofFault::Form)?;
    json::exact_object(&bytes).map(|(members, _)| members).map_err(|_| ProofFault::Form)
}

/// What the header of a proof must say (RFC 9449 §4.2 and §4.3).
fn read_header(
    members: &Map<String, Value>,
    accepted: &[Algorithm],
) -> Result<(Algorithm, PublicKey), ProofFault> {
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    if !text("typ").is_some_and(|typ| typ.eq_ignore_ascii_case("dpop+jwt")) {
        return Err(ProofFault::Type);
    }
    if ["crit", "b64", "zip"].iter().any(|member| members.contains_key(*member)) {
        return Err(ProofFault::Form);
    }
    let algorithm = text("alg").and_then(by_name).filter(|it| accepted.contains(it));
    let algorithm = algorithm.ok_or(ProofFault::Algorithm)?;
    let jwk = members.get("jwk").and_then(Value::as_object).ok_or(ProofFault::Key)?;
    let key = jwk::read_public(jwk).map_err(|_| ProofFault::Key)?;
    if !key.material.is_kind_for(algorithm) {
        return Err(ProofFault::Key);
    }
    Ok((algorithm, key))
}

/// `htm` and `htu`.
fn check_request(claims: &Map<String, Value>, sent: &Sent<'_>) -> Result<(), ProofFault> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    // Methods are case-sensitive (RFC 9110 §9.1).
    if text("htm") != Some(sent.method.as_str()) {
        return Err(ProofFault::Method);
    }
    let is_target = text("htu").is_some_and(|uri| is_same_target(uri, sent));
    if is_target { Ok(()) } else { Err(ProofFault::Target) }
}

/// Whether a URI names the target of the request, its query and fragment aside, by the rules of RFC
/// 3986 §6.2.2 and §6.2.3.
fn is_same_target(uri: &str, sent: &Sent<'_>) -> bool {
    let Some((scheme, rest)) = uri.split_once("://") else { return false };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let is_same_path = PathAndQuery::try_from(path)
        .is_ok_and(|path| canonical(&path, true).is_ok_and(|path| path.path() == sent.path));
    let port = |of: &Authority| of.port().unwrap_or(if sent.scheme == "https" { 443 } else { 80 });
    let is_same_authority = Authority::parse(authority.as_bytes()).is_some_and(|named| {
        !named.is_none()
            && named.host() == sent.authority.host()
            && port(&named) == port(sent.authority)
    });
    scheme.eq_ignore_ascii_case(sent.scheme) && is_same_authority && is_same_path
}

/// `iat` lies within the window; a fraction counts against the proof.
fn check_time(claims: &Map<String, Value>, rules: &Rules, now: i64) -> Result<(), ProofFault> {
    let at = |round| time(claims, "iat", round).ok().flatten().ok_or(ProofFault::Time);
    let (earliest, latest) = (at(f64::floor)?, at(f64::ceil)?);
    let is_old = earliest < now.saturating_sub(rules.proof_window);
    let is_of_the_future = latest > now.saturating_add(rules.leeway);
    if is_old || is_of_the_future { Err(ProofFault::Time) } else { Ok(()) }
}

/// `ath` is the digest of the token that comes along (RFC 9449 §4.3).
fn check_token(claims: &Map<String, Value>, sent: &Sent<'_>) -> Result<(), ProofFault> {
    let line = sent.headers.get(AUTHORIZATION).map(|line| line.as_bytes().trim_ascii());
    let token = line.and_then(|line| Form::Token.credential(&AUTHORIZATION, line));
    let digest = URL_SAFE_NO_PAD.encode(digest(&SHA256, token.unwrap_or_default()));
    let is_same = claims.get("ath").and_then(Value::as_str) == Some(&*digest);
    if is_same { Ok(()) } else { Err(ProofFault::Token) }
}

/// What the store must not have: the key's owner chooses the `jti`, so that nobody else uses it up.
/// It is kept until the proof is too old on every clock that differs by no more than the leeway.
/// Times are whole seconds here, so two more are added.
fn proof_key(rules: &Rules, thumbprint: &str, id: &str) -> Result<ProofKey, ProofFault> {
    let digest = digest(&SHA256, [thumbprint, id].join(" ").as_bytes());
    let mut digest_bytes = [0; SHA256_OUTPUT_LEN];
    digest_bytes.copy_from_slice(digest.as_ref());
    let mut mark = [0; MARK_BYTES];
    aws_lc_rs::rand::fill(&mut mark).map_err(|_| ProofFault::NoRandomness)?;
    let seconds =
        rules.proof_window.saturating_add(rules.leeway.saturating_mul(2)).saturating_add(2);
    let seconds = u64::try_from(seconds).unwrap_or_default().max(1);
    Ok(ProofKey {
        key: rules.store_keys.proof(&hex::encode(&digest_bytes)),
        mark,
        ttl: std::time::Duration::from_secs(seconds),
    })
}

#[cfg(test)]
mod tests;
