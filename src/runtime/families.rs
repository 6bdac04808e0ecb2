//! Families of refresh tokens: begun at a log-in, exchanged token by token, and ended. Before each
//! exchange it is asked whether the family or its user was revoked, as requests ask of their
//! tokens; so whatever revokes a `sid` or a `sub` ends families, too.
//!
//! A family that an operator ends is revoked first, which holds at every gateway for its access and
//! its refresh tokens alike, and deleted then: whatever fails in between, nothing of it is good any
//! more. One whose token was used twice is marked as ended by the exchange that finds it out, and
//! its access tokens are revoked behind that.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Gateway;
use crate::base::http::hex;
use crate::config::Tokens;
use crate::observe::RefreshOutcome;
use crate::plan::Plan;
use crate::signing::{Access, RefreshToken, Refused, Secret, Signer, random};
use crate::store::keys::{FamilyKeys, Keys, hex_digest};
use crate::store::{
    Family, FamilyWrite, Questions, Revocation, RevocationKeys, RevocationStatus, Rotated,
    Rotation, StoreError,
};

/// Added to how long a family stays revoked, for clocks that differ.
const MARGIN: Duration = Duration::from_secs(60 * 60);
/// Longest wait for the second in which a log-out everywhere ends: what is issued in it falls under
/// it. One second, and as much for clocks that differ.
const LOG_OUT_WAIT_MAX: Duration = Duration::from_secs(2);
/// Hexadecimal digits of a digest that the audit shows.
const DIGITS_SHOWN: usize = 32;

/// An access token and the refresh token that comes with it.
#[derive(Debug)]
pub struct Issued {
    /// The access token.
    pub access: String,
    /// What is left of its life, in seconds.
    pub expires_in: u64,
    /// The refresh token.
    pub refresh: String,
    /// The name of their family.
    pub family: String,
}

/// A family that is ended.
struct Ending<'a> {
    id: &'a str,
    subject: &'a str,
    /// When it would have ended by itself, Unix milliseconds.
    until_ms: u64,
}

impl Gateway {
    /// Begins a family for somebody who has just logged in. `claims` are as [`claims_text`] has
    /// them.
    ///
    /// # Errors
    /// The signer issues no tokens, or the store did not take the family.
    ///
    /// [`claims_text`]: crate::signing::claims_text
    pub async fn begin_family(
        &self,
        signer: &Signer,
        subject: &str,
        claims: &str,
    ) -> Result<Issued, Refused> {
        let terms = terms(signer)?;
        let running = self.running();
        let keys = &running.plan.keys;
        let revoking = revoking(&running.plan, Some(signer));
        let now = self.after_log_out(&revoking, subject).await?;
        let key = random().ok_or_else(no_random)?;
        let token = RefreshToken::first(&key).ok_or_else(no_random)?;
        let family = Family {
            subject: subject.to_owned(),
            created_s: now.as_secs(),
            until_ms: millis(now.saturating_add(terms.family)),
            claims: claims.to_owned(),
            key: hex::encode(&key),
            signer: signer.name.clone(),
            has_ended: false,
        };
        let issued = issued((signer, terms), &family, &token, now.as_secs())?;
        let write = FamilyWrite {
            keys: keys.family_keys(&token.family(), subject),
            around: keys.around_family(),
            family,
            digest: token.digest(),
            ttl: terms.refresh,
        };
        self.store.write_family(&write).await.map_err(away)?;
        self.count_refresh(RefreshOutcome::Begun);
        Ok(issued)
    }

    /// The time of now, once nothing that begins then falls under a log-out everywhere that was
    /// made before: it holds for all that is issued until its second is over. A not-before time
    /// that lies further ahead means what begins now, too.
    pub(super) async fn after_log_out(
        &self,
        revoking: &[Keys],
        subject: &str,
    ) -> Result<Duration, Refused> {
        // Before it is asked: what is begun is older than a revocation that comes in between.
        let now = unix_now();
        let mut good_from = Duration::ZERO;
        for keys in revoking {
            let not_before = self.revocation(&[], &keys.not_before(subject)).await?.not_before;
            let not_before = not_before.and_then(|at| u64::try_from(at).ok()).unwrap_or_default();
            good_from = good_from.max(Duration::from_secs(not_before));
        }
        if good_from.as_secs() <= now.as_secs() || good_from > now + LOG_OUT_WAIT_MAX {
            return Ok(now);
        }
        tokio::time::sleep(good_from.saturating_sub(unix_now())).await;
        Ok(unix_now().max(good_from))
    }

    /// Exchanges the text of a refresh token of this signer.
    ///
    /// # Errors
    /// It is not exchanged. Where the store did not answer, it may have been, and is answered with
    /// the same within the grace.
    pub async fn refresh(
        self: &Arc<Self>,
        signer: &Arc<Signer>,
        text: &str,
    ) -> Result<Issued, Refused> {
        let refreshed = self.exchange(signer, text).await;
        self.count_refresh(match &refreshed {
            Ok((_, false)) => RefreshOutcome::Exchanged,
            Ok((_, true)) => RefreshOutcome::Repeated,
            Err(Refused::Reused) => RefreshOutcome::Reused,
            Err(Refused::Revoked) => RefreshOutcome::Revoked,
            Err(Refused::Away(_)) => RefreshOutcome::Away,
            Err(_) => RefreshOutcome::Invalid,
        });
        refreshed.map(|(issued, _)| issued)
    }

    async fn exchange(
        self: &Arc<Self>,
        signer: &Arc<Signer>,
        text: &str,
    ) -> Result<(Issued, bool), Refused> {
        let terms = terms(signer)?;
        let token = RefreshToken::parse(text).ok_or(Refused::Invalid)?;
        // Before it is asked what was revoked: what is issued is older than a revocation that comes
        // in between, and falls under it.
        let issued_s = unix_now().as_secs();
        let running = self.running();
        let at = running.plan.keys.token_family(&token.family());
        let family = self.store.find_family(&at).await.map_err(away)?;
        let family = family.filter(|it| it.signer == signer.name).ok_or(Refused::Invalid)?;
        let key: Secret = hex::decode(family.key.as_bytes()).ok_or(Refused::Invalid)?;
        // Who has made up a token must not be able to end the family by it.
        if !token.is_of(&key) {
            return Err(Refused::Invalid);
        }
        if self.is_revoked(&running.plan, signer, (&token.family(), &family)).await? {
            let _ = self.store.end_family(&self.family_at(&token.family(), &family)).await;
            return Err(Refused::Revoked);
        }
        let next = token.next(&key).ok_or_else(no_random)?;
        let rotation = Rotation {
            digest: token.digest(),
            number: token.number(),
            successor: next.digest(),
            sealed: hex::encode(&token.seal(&next)),
            issued_s,
            grace: terms.grace,
            ttl: terms.refresh,
        };
        let (gateway, of) = (Arc::clone(self), Arc::clone(signer));
        let (id, terms_of) = (token.family(), family.clone());
        let rotating = async move { gateway.rotate(&of, (&id, &terms_of), (&at, &rotation)).await };
        let rotated = tokio::spawn(rotating).await.unwrap_or(Err(StoreError::Unavailable));
        match rotated.map_err(away)? {
            Rotated::For { sealed, issued_s, again } => {
                let sealed: Secret = hex::decode(sealed.as_bytes()).ok_or(Refused::Invalid)?;
                let next = token.successor(&sealed, &key).ok_or(Refused::Invalid)?;
                Ok((issued((signer, terms), &family, &next, issued_s)?, again))
            }
            Rotated::Unknown => Err(Refused::Invalid),
            Rotated::Reused | Rotated::Ended => Err(Refused::Reused),
        }
    }

    /// Exchanges a token, and ends the family of one that was used before. It is a task of its own:
    /// done to its end, whether the sender waits for it or leaves at once.
    async fn rotate(
        &self,
        signer: &Signer,
        (id, family): (&str, &Family),
        (at, rotation): (&str, &Rotation),
    ) -> Result<Rotated, StoreError> {
        let rotated = self.store.rotate_family(at, rotation).await?;
        if matches!(rotated, Rotated::Reused | Rotated::Ended) {
            let Family { subject, until_ms, .. } = family;
            let ending = Ending { id, subject, until_ms: *until_ms };
            self.end_of(Some(signer), &ending).await?;
            self.tell_of_reuse(id, subject);
        }
        Ok(rotated)
    }

    /// Ends a family, whose name it is: its access tokens and its refresh tokens, everywhere. False
    /// where there is none. The other value says whether all replicas have it, where there are
    /// some.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn end_family(&self, id: &str) -> Result<(bool, Option<bool>), StoreError> {
        let running = self.running();
        let at = running.plan.keys.token_family(id);
        let Some(family) = self.store.find_family(&at).await? else { return Ok((false, None)) };
        let signer = running.plan.signers.get(&family.signer);
        let Family { subject, until_ms, .. } = &family;
        let ending = Ending { id, subject, until_ms: *until_ms };
        let confirmed = self.end_of(signer.map(|it| &**it), &ending).await?;
        Ok((true, confirmed))
    }

    async fn end_of(
        &self,
        signer: Option<&Signer>,
        ending: &Ending<'_>,
    ) -> Result<Option<bool>, StoreError> {
        let running = self.running();
        let plan = &running.plan;
        let left = Duration::from_millis(ending.until_ms).saturating_sub(unix_now());
        let stream_ttl = plan.config.admin.revocation_ttl;
        let ttl = left.saturating_add(MARGIN);
        let keys = revoking(plan, signer);
        let keys: Vec<String> = keys.iter().map(|it| it.blacklist_session(ending.id)).collect();
        for key in &keys {
            self.store.revoke(Revocation { key, not_before: None, ttl, stream_ttl }).await?;
        }
        self.store.end_family(&plan.keys.family_keys(ending.id, ending.subject)).await?;
        Ok(self.store.confirm_revocations(&keys).await)
    }

    /// Whether the family, or its user since it began, was revoked.
    async fn is_revoked(
        &self,
        plan: &Plan,
        signer: &Signer,
        (id, family): (&str, &Family),
    ) -> Result<bool, Refused> {
        for keys in revoking(plan, Some(signer)) {
            let blacklist = [keys.blacklist_session(id)];
            let status = self.revocation(&blacklist, &keys.not_before(&family.subject)).await?;
            if status.revokes(i64::try_from(family.created_s).ok()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What the store says of these keys.
    async fn revocation(
        &self,
        blacklist: &[String],
        not_before: &str,
    ) -> Result<RevocationStatus, Refused> {
        let revocation =
            RevocationKeys { blacklist, not_before: Some(not_before), record: None, proof: None };
        let questions = Questions { revocation: Some(revocation), ..Questions::default() };
        let reply = self.store.ask(&questions).await.revocation;
        reply.unwrap_or(Err(StoreError::Unavailable)).map_err(away)
    }

    fn family_at(&self, id: &str, family: &Family) -> FamilyKeys {
        self.running().plan.keys.family_keys(id, &family.subject)
    }

    fn count_refresh(&self, outcome: RefreshOutcome) {
        self.observer.metrics.identity().refresh(outcome);
    }

    /// Somebody has a token that he should not have. The name of a session is told as its digest.
    fn tell_of_reuse(&self, id: &str, subject: &str) {
        const OPERATION: &str = "end family: refresh token reused";
        let digest = hex_digest(id.as_bytes());
        let sid = format!("sha256:{}", digest.get(..DIGITS_SHOWN).unwrap_or_default());
        self.looking.operated_itself(OPERATION, &[("sid", &sid), ("sub", subject)]);
    }
}

/// How tokens of a signer are.
fn terms(signer: &Signer) -> Result<&Tokens, Refused> {
    signer.tokens.as_ref().ok_or(Refused::Invalid)
}

fn issued(
    of: (&Signer, &Tokens),
    family: &Family,
    refresh: &RefreshToken,
    issued_s: u64,
) -> Result<Issued, Refused> {
    let access = Access {
        subject: &family.subject,
        claims: &family.claims,
        issued_s,
        until_s: family.until_ms / 1000,
    };
    let (access, ends_s) = access.token(of, refresh).ok_or_else(no_random)?;
    Ok(Issued {
        access,
        expires_in: ends_s.saturating_sub(unix_now().as_secs()),
        refresh: refresh.text(),
        family: refresh.family(),
    })
}

/// The keys that revoke what a signer issues: those of the verifiers that take it, each once.
fn revoking(plan: &Plan, signer: Option<&Signer>) -> Vec<Keys> {
    let mut all: Vec<Keys> = Vec::new();
    for verifier in plan.verifiers.values() {
        let is_of_it =
            signer.is_none_or(|it| verifier.issuer().is_none_or(|issuer| issuer == it.issuer));
        if is_of_it && !all.contains(verifier.store_keys()) {
            all.push(verifier.store_keys().clone());
        }
    }
    if all.is_empty() {
        all.push(plan.keys.clone());
    }
    all
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn away(error: StoreError) -> Refused {
    Refused::Away(error.to_string())
}

fn no_random() -> Refused {
    Refused::Away("the system's random source failed".to_owned())
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
