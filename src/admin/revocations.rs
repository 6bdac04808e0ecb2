//! `/v1/revocations`: makes a revocation, and takes one back. `revocation_list` shows them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::reply::{Effect, Fault, Reply, json as reply_json, parse, with_confirmed};
use super::{api_keys, query, revocation_list};
use crate::auth::Verifier;
use crate::base::units::{DURATION_MAX, duration_text, parse_positive_duration};
use crate::plan::Plan;
use crate::runtime::Gateway;
use crate::store::Revocation;
use crate::store::keys::Keys;

/// Added to a revocation's life beyond the token's expiry, for clocks that differ.
const REVOCATION_MARGIN: Duration = Duration::from_secs(60 * 60);

/// Exactly one of `jti`, `token`, `sid`, `sub`, `key_id`, `cert`; `expires_in` where the token
/// itself does not say how long; `auth` names the verifier whose callers are meant. One that was
/// listed is taken back by its `id` alone.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevocationRequest {
    jti: Option<String>,
    token: Option<String>,
    sid: Option<String>,
    sub: Option<String>,
    key_id: Option<String>,
    cert: Option<String>,
    expires_in: Option<String>,
    auth: Option<String>,
    id: Option<String>,
}

/// What is revoked, or was.
struct Meant {
    /// One, or one for each verifier that a token could come from.
    keys: Vec<String>,
    /// Whether the keys hold a not-before time.
    is_user: bool,
    /// When the token expires by itself, in Unix seconds, when it says so.
    expires_at: Option<u64>,
}

impl RevocationRequest {
    /// What is named, in one word.
    fn kind(&self) -> &'static str {
        match self {
            Self { jti: Some(_), .. } => "jti",
            Self { token: Some(_), .. } => "token",
            Self { sid: Some(_), .. } => "sid",
            Self { key_id: Some(_), .. } => "key_id",
            Self { cert: Some(_), .. } => "cert",
            _ => "sub",
        }
    }

    /// The id of one that was listed, where that is all that is named.
    fn listed(&self) -> Option<&str> {
        let others = [&self.jti, &self.token, &self.sid, &self.sub, &self.key_id, &self.cert];
        let is_alone = others.into_iter().chain([&self.auth]).all(Option::is_none);
        self.id.as_deref().filter(|_| is_alone)
    }

    fn meant(&self, plan: &Plan, example: &str) -> Result<Meant, Fault> {
        if self.id.is_some() {
            let detail = "An id names a revocation that was listed: DELETE takes it back by that \
                          alone.";
            return Err(Fault::Invalid(detail.to_owned()));
        }
        let whose = |issuer| whose_keys(plan, self.auth.as_deref(), issuer);
        let of = |keys| Meant { keys, is_user: false, expires_at: None };
        if self.key_id.is_some() || self.cert.is_some() {
            return Ok(of(vec![self.unqualified(plan)?]));
        }
        match (&self.jti, &self.token, &self.sid, &self.sub) {
            (Some(jti), None, None, None) => {
                Ok(of(whose(Issuer::Unsaid)?.iter().map(|keys| keys.blacklist(jti)).collect()))
            }
            (None, None, Some(sid), None) => {
                let keys = whose(Issuer::Unsaid)?;
                Ok(of(keys.iter().map(|keys| keys.blacklist_session(sid)).collect()))
            }
            (None, None, None, Some(sub)) => {
                let keys = whose(Issuer::OfSubject)?;
                let keys = keys.iter().map(|keys| keys.not_before(sub)).collect();
                Ok(Meant { is_user: true, ..of(keys) })
            }
            (None, Some(token), None, None) => {
                let facts = token_facts(token)?;
                let whose = whose(Issuer::Said(facts.issuer.as_deref()))?;
                let keys = match facts.jti {
                    Some(jti) => whose.iter().map(|keys| keys.blacklist(&jti)).collect(),
                    None => {
                        let signing_input = token.rsplit_once('.').map_or("", |(input, _)| input);
                        vec![plan.keys.blacklist_digest(signing_input.as_bytes())]
                    }
                };
                Ok(Meant { expires_at: facts.expires_at, ..of(keys) })
            }
            _ => Err(Fault::Invalid(format!(
                "Name exactly one of the six kinds. Example: {example}"
            ))),
        }
    }

    /// The key of an API key or a certificate, which is the same for all verifiers.
    fn unqualified(&self, plan: &Plan) -> Result<String, Fault> {
        let others = [&self.jti, &self.token, &self.sid, &self.sub, &self.auth];
        let is_alone = others.into_iter().all(Option::is_none);
        match (&self.key_id, &self.cert) {
            (Some(id), None) if is_alone => Ok(plan.keys.blacklist_listed_key(id)),
            (None, Some(cert)) if is_alone => {
                let wrong = "cert: write the SHA-256 of the certificate, 64 hexadecimal digits, as \
                             `openssl x509 -noout -fingerprint -sha256 -in client.pem` tells it";
                let sha256 = fingerprint(cert).ok_or_else(|| Fault::Invalid(wrong.to_owned()))?;
                Ok(plan.keys.blacklist_certificate(&sha256))
            }
            (_, Some(_)) => {
                let detail = "Name the cert alone: no two certificates have the same digest.";
                Err(Fault::Invalid(detail.to_owned()))
            }
            _ => {
                let detail = "Name the key_id alone: no two API keys have the same.";
                Err(Fault::Invalid(detail.to_owned()))
            }
        }
    }
}

/// The SHA-256 of a certificate as keys have it; tools write it in capitals and with colons.
pub(super) fn fingerprint(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|it| *it != ':').collect();
    let is_digest = digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_digest.then(|| digits.to_ascii_lowercase())
}

const EXAMPLE: &str = "{\"jti\": \"…\"}, or token, sid, sub, key_id, cert in place of jti; with \
                       \"auth\": \"users\", \"expires_in\": \"24h\"";

/// What a revocation did.
struct Done {
    keys: Vec<String>,
    ttl: Duration,
    logged_out: Option<LoggedOut>,
    /// Whether all replicas have it, where there are some.
    confirmed: Option<bool>,
}

/// What a log-out everywhere did.
pub(super) struct LoggedOut {
    /// Unix seconds: the user's tokens that were issued before are revoked.
    pub(super) not_before: i64,
    /// How many sessions ended.
    pub(super) sessions_ended: usize,
    /// Whether all replicas have it, where there are some.
    pub(super) confirmed: Option<bool>,
}

/// `POST`
pub(super) async fn revoke(gateway: &Gateway, body: &[u8]) -> Result<Reply, Fault> {
    let Done { keys, ttl, logged_out, confirmed } =
        carry_out(gateway, &parse(body, EXAMPLE)?).await?;
    let mut answer = json!({ "key": keys.first(), "expires_in_seconds": ttl.as_secs() });
    if keys.len() > 1 {
        answer["keys"] = json!(keys);
    }
    if let Some(LoggedOut { not_before, sessions_ended, .. }) = logged_out {
        answer["not_before"] = json!(not_before);
        answer["sessions_ended"] = json!(sessions_ended);
    }
    Ok(reply_json(StatusCode::CREATED, &with_confirmed(answer, confirmed)))
}

/// Ends a user's tokens and sessions, by whatever path that is asked for.
pub(super) async fn log_out_everywhere(
    gateway: &Gateway,
    sub: &str,
    auth: Option<String>,
) -> Result<Option<LoggedOut>, Fault> {
    let asked =
        RevocationRequest { sub: Some(sub.to_owned()), auth, ..RevocationRequest::default() };
    Ok(carry_out(gateway, &asked).await?.logged_out)
}

async fn carry_out(gateway: &Gateway, asked: &RevocationRequest) -> Result<Done, Fault> {
    let running = gateway.running();
    let stream_ttl = running.plan.config.admin.revocation_ttl;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut ttl = match &asked.expires_in {
        Some(text) => parse_positive_duration(text)
            .map_err(|remedy| Fault::Invalid(format!("expires_in: {remedy}")))?,
        None => stream_ttl,
    };
    let meant = asked.meant(&running.plan, EXAMPLE)?;
    if let (Some(id), None) = (&asked.key_id, &asked.expires_in) {
        // A key may outlive every token: its revocation must not end before it.
        let life = api_keys::life(gateway, id).await?;
        ttl = life.map_or(DURATION_MAX, |left| left.saturating_add(REVOCATION_MARGIN));
        ttl = ttl.min(DURATION_MAX);
    }
    if asked.cert.is_some() && asked.expires_in.is_none() {
        // Nobody here knows when it ends, and its revocation must not end before it.
        ttl = DURATION_MAX;
    }
    if let Some(at) = meant.expires_at {
        let left = Duration::from_secs(at.saturating_sub(now));
        let own = left.saturating_add(REVOCATION_MARGIN).min(DURATION_MAX);
        ttl = match &asked.expires_in {
            None => own,
            Some(_) if ttl >= left => ttl,
            Some(text) => {
                let detail = format!(
                    "expires_in: the token itself lives for another {}, and after {text} it would \
                     be good again. Leave expires_in out, or write a longer one.",
                    duration_text(left)
                );
                return Err(Fault::Invalid(detail));
            }
        };
    }
    // Whole seconds, as `iat` has them, and the next one: a token of the very second of a log-out
    // is revoked too, and a log-in waits for a second at most.
    let next = i64::try_from(now.saturating_add(1)).unwrap_or(i64::MAX);
    let not_before = meant.is_user.then_some(next);
    for key in &meant.keys {
        gateway.store.revoke(Revocation { key, not_before, ttl, stream_ttl }).await?;
    }
    gateway.observer.metrics.operations().revoked(asked.kind());
    let logged_out = match (not_before, &asked.sub) {
        (Some(not_before), Some(sub)) => {
            let sessions_ended = end_sessions(gateway, sub).await?;
            // The sessions lie anywhere.
            let confirmed = gateway.store.confirm_all().await;
            Some(LoggedOut { not_before, sessions_ended, confirmed })
        }
        _ => None,
    };
    let confirmed = match &logged_out {
        Some(done) => done.confirmed,
        None => gateway.store.confirm_revocations(&meant.keys).await,
    };
    Ok(Done { keys: meant.keys, ttl, logged_out, confirmed })
}

/// Ends the sessions in a user's index. The tokens are revoked before: who has none and loses the
/// session logs in anew, and that one lasts.
async fn end_sessions(gateway: &Gateway, sub: &str) -> Result<usize, Fault> {
    let running = gateway.running();
    let keys = &running.plan.keys;
    let ended = gateway.store.end_sessions(&keys.sessions_of(sub), &keys.session_families()).await;
    gateway.sessions.end_all(Instant::now());
    ended.map_err(|error| Fault::Problem {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "log_out_incomplete",
        detail: format!(
            "The user's tokens are revoked, but not all sessions may have ended: {error}. Repeat \
             the request; it ends what is left."
        ),
    })
}

/// `DELETE`: by the same body, or by the query.
pub(super) async fn take_back(
    gateway: &Gateway,
    query: Option<&str>,
    body: &[u8],
) -> Result<Reply, Fault> {
    const EXAMPLE: &str =
        r#"the body {"jti": "…"} or the query ?jti=…, or token, sid, sub, key_id, cert, id"#;
    let asked = match query {
        Some(query) if body.is_empty() => by_query(query, EXAMPLE)?,
        Some(_) => {
            let detail = format!("Send a query or a body, not both. Example: {EXAMPLE}");
            return Err(Fault::Invalid(detail));
        }
        None => parse(body, EXAMPLE)?,
    };
    if asked.expires_in.is_some() {
        let detail = "A revocation is taken back at once and as a whole: leave expires_in out.";
        return Err(Fault::Invalid(detail.to_owned()));
    }
    let running = gateway.running();
    let stream_ttl = running.plan.config.admin.revocation_ttl;
    let (keys, listed) = match asked.listed() {
        Some(id) => {
            let (key, what) = revocation_list::find(gateway, id).await?;
            (vec![key], Some(what))
        }
        None => (asked.meant(&running.plan, EXAMPLE)?.keys, None),
    };
    let mut taken_back = Vec::with_capacity(keys.len());
    for key in &keys {
        if gateway.store.unrevoke(key, stream_ttl).await? {
            taken_back.push(key);
        }
    }
    if let Some(key) = taken_back.first() {
        let mut answer = json!({ "key": key });
        if taken_back.len() > 1 {
            answer["keys"] = json!(taken_back);
        }
        if let Some((member, value)) = listed {
            // The key of a session's tokens says how the session is called.
            let what = format!("{member} {value}");
            let mut reply = reply_json(StatusCode::OK, &json!({ "id": asked.id, "what": what }));
            reply.extensions_mut().insert(Effect(member, value));
            return Ok(reply);
        }
        return Ok(reply_json(StatusCode::OK, &answer));
    }
    Err(not_revoked(&keys, listed.as_ref()))
}

/// What was listed is told as it was there: its key may say how a session is called.
fn not_revoked(keys: &[String], listed: Option<&revocation_list::What>) -> Fault {
    let detail = match listed {
        Some((member, value)) => {
            format!("The {member} {value} is not revoked any more: it has ended or was taken back.")
        }
        None => format!(
            "Nothing is revoked under {}: it has ended or was taken back, or it was made by \
             another of jti, token, sid, sub, key_id and cert.",
            keys.join(" or ")
        ),
    };
    Fault::Problem { status: StatusCode::NOT_FOUND, code: "revocation_not_found", detail }
}

fn by_query(text: &str, example: &str) -> Result<RevocationRequest, Fault> {
    let wrong = || Fault::Invalid(format!("The query is not understood. Example: {example}"));
    let mut asked = RevocationRequest::default();
    for (name, value) in query::pairs(Some(text))? {
        let field = match &*name {
            "jti" => &mut asked.jti,
            "token" => &mut asked.token,
            "sid" => &mut asked.sid,
            "sub" => &mut asked.sub,
            "key_id" => &mut asked.key_id,
            "cert" => &mut asked.cert,
            "auth" => &mut asked.auth,
            "id" => &mut asked.id,
            _ => return Err(wrong()),
        };
        if value.is_empty() || field.replace(value).is_some() {
            return Err(wrong());
        }
    }
    Ok(asked)
}

/// What a revocation says about who issued what it revokes.
#[derive(Clone, Copy)]
enum Issuer<'t> {
    /// Nothing, of a token.
    Unsaid,
    /// Nothing, of whatever has this `sub`: tokens, certificates or sessions.
    OfSubject,
    /// The token's own `iss`.
    Said(Option<&'t str>),
}

/// The keys under which a revocation is written: those of the verifier that it names, or of all
/// that a token could come from; never of one that was guessed.
fn whose_keys(plan: &Plan, auth: Option<&str>, issuer: Issuer<'_>) -> Result<Vec<Keys>, Fault> {
    let (certificates, sessions) = match issuer {
        Issuer::OfSubject => (Some(&plan.certificate_verifiers), Some(&plan.session_verifiers)),
        Issuer::Unsaid | Issuer::Said(_) => (None, None),
    };
    let of_tokens = plan.verifiers.iter().map(|(name, it)| (name, it.store_keys()));
    let of_certificates = certificates.into_iter().flatten();
    let of_certificates = of_certificates.map(|(name, it)| (name, it.store_keys()));
    let of_sessions = sessions.into_iter().flatten().map(|(name, it)| (name, it.store_keys()));
    let known: BTreeMap<&String, &Keys> =
        of_tokens.chain(of_certificates).chain(of_sessions).collect();
    let names = || known.keys().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(name) = auth {
        let keys = known.iter().find(|(known, _)| known.as_str() == name).map(|(_, keys)| *keys);
        let keys = keys.ok_or_else(|| {
            Fault::Invalid(format!("No verifier is named {name:?}. Name one of: {}.", names()))
        })?;
        return Ok(vec![keys.clone()]);
    }
    if known.values().all(|keys| **keys == plan.keys) {
        return Ok(vec![plan.keys.clone()]);
    }
    let Issuer::Said(issuer) = issuer else {
        return Err(Fault::Invalid(format!(
            "Several verifiers share a route here, so say whose callers are meant: \
             add \"auth\": \"NAME\", one of: {}.",
            names()
        )));
    };
    let could_verify =
        |verifier: &&Arc<Verifier>| verifier.issuer().is_none() || verifier.issuer() == issuer;
    let mut keys = Vec::new();
    for verifier in plan.verifiers.values().filter(could_verify) {
        // Verifiers that are not qualified have the same keys.
        if !keys.contains(verifier.store_keys()) {
            keys.push(verifier.store_keys().clone());
        }
    }
    if keys.is_empty() {
        return Err(Fault::Invalid(format!(
            "No verifier accepts tokens of the issuer {:?}. Name one of these as auth: {}.",
            issuer.unwrap_or_default(),
            names()
        )));
    }
    Ok(keys)
}

/// What a token says about itself.
struct TokenFacts {
    jti: Option<String>,
    issuer: Option<String>,
    /// Unix seconds.
    expires_at: Option<u64>,
}

/// What is read of a token's claims. The others are not looked at: a number among them may be one
/// that `Value` cannot hold, and the token is good with it.
#[derive(Deserialize)]
struct Claims {
    jti: Option<Value>,
    iss: Option<Value>,
    exp: Option<Value>,
}

/// `jti`, `iss` and `exp` of a token whose signature nobody needs to check: who may revoke may
/// revoke anything.
fn token_facts(token: &str) -> Result<TokenFacts, Fault> {
    let wrong = || {
        Fault::Invalid("The token is no JWT: three parts, of which the second is JSON.".to_owned())
    };
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong());
    };
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| wrong())?;
    let claims: Claims = serde_json::from_slice(&claims).map_err(|_| wrong())?;
    let text = |claim: Option<Value>| claim.as_ref().and_then(Value::as_str).map(str::to_owned);
    let expires_at = claims.exp.and_then(|at| at.as_f64()).map(|at| at.max(0.0) as u64);
    Ok(TokenFacts { jti: text(claims.jti), issuer: text(claims.iss), expires_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificates_digest_is_taken_as_tools_write_it() {
        let plain = "0f".repeat(32);
        let with_colons = ["0F"; 32].join(":");
        for text in [&plain, &with_colons, &plain.to_ascii_uppercase()] {
            assert_eq!(fingerprint(text).as_ref(), Some(&plain));
        }
        for bad in ["", "0f", &plain[1..], &"0g".repeat(32), &format!("{plain}00")] {
            assert_eq!(fingerprint(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_was_listed_is_told_by_no_key() {
        let key = Keys::new("app").blacklist_session("s-1");
        let detail = |listed: Option<&revocation_list::What>| match not_revoked(
            std::slice::from_ref(&key),
            listed,
        ) {
            Fault::Problem { detail, .. } => detail,
            _ => String::new(),
        };
        let told = detail(Some(&("sid", "sha256:0f".to_owned())));
        assert!(told.contains("sid sha256:0f") && !told.contains("s-1"), "{told}");
        assert!(detail(None).contains(&key), "who names it knows it");
    }

    #[test]
    fn a_token_is_read_whatever_numbers_it_holds() {
        let claims = r#"{"jti":"t1","iss":"i","exp":1700000000.5,"big":1e400,"deep":[-1e999]}"#;
        let facts = token_facts(&format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))).ok();
        let facts = facts.map(|it| (it.jti, it.issuer, it.expires_at));
        assert_eq!(facts, Some((Some("t1".into()), Some("i".into()), Some(1_700_000_000))));
    }
}
