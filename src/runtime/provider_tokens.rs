//! The tokens of a provider behind a session: kept sealed in the store, renewed there before the
//! access token ends, and never shown to the browser.
//!
//! A refresh token may be good for one use (RFC 9700 §4.14), so that one gateway of the fleet uses
//! it at a time, in a task that goes on when the request that began it has gone. Where the gateway
//! dies between the provider's answer and what it writes, the token is lost: the session ends with
//! the next renewal, and its user logs in again.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::token_memory::Held;
use super::{Gateway, Running};
use crate::oidc::{Expected, Fault, Grant, LoggedIn, Tokens};
use crate::plan::{Plan, Provider};
use crate::session::{open, seal};
use crate::store::{HeldLock, SessionValue, StoreError};

/// Largest record in the store, in bytes.
const RECORD_BYTES_MAX: usize = 256 * 1024;
/// How long an access token is used whose provider does not say how long it lives.
const LIFE_UNSAID: Duration = Duration::from_secs(5 * 60);
/// How long nothing is asked after a renewal that came to nothing.
const PAUSE: Duration = Duration::from_secs(5);
/// Between two looks at what another gateway is doing.
const LOOK: Duration = Duration::from_millis(50);
/// Added to how long one call to the provider takes: for what is read and written around it.
const MARGIN: Duration = Duration::from_secs(5);

/// What the store has, sealed.
#[derive(Serialize, Deserialize)]
struct Record {
    /// `sub`: a token of another user is not taken.
    subject: String,
    access: String,
    refresh: Option<String>,
    id: Option<String>,
    renew_at: u64,
    ends_at: u64,
    /// When the session ends, and this with it.
    until: u64,
}

/// A session, and where its tokens are.
struct Place {
    id: String,
    key: String,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Record {
    fn of(provider: &Provider, tokens: Tokens, (subject, until): (&str, u64)) -> Self {
        let life = tokens.expires_in.unwrap_or(LIFE_UNSAID.as_secs());
        let now = now();
        let ends_at = now.saturating_add(life);
        // A short life is used to its half at least.
        let early = provider.written.renew_before.as_secs().min(life / 2);
        Self {
            subject: subject.to_owned(),
            access: tokens.access,
            refresh: tokens.refresh,
            id: tokens.id,
            renew_at: ends_at.saturating_sub(early),
            ends_at,
            until,
        }
    }

    fn held(&self) -> Held {
        let Self { access, renew_at, ends_at, .. } = self;
        // Where there is nothing to renew by, it is used to its end.
        let renew_at = if self.refresh.is_some() { *renew_at } else { *ends_at };
        Held { access: access.clone(), renew_at, ends_at: *ends_at }
    }
}

impl Gateway {
    /// Keeps the tokens of a log-in beside its session.
    pub(super) async fn keep_tokens(
        &self,
        plan: &Plan,
        provider: &Provider,
        (session, until): (&str, u64),
        (subject, tokens): (&str, Tokens),
    ) -> Result<(), Fault> {
        let place = Place { id: session.to_owned(), key: plan.keys.provider_tokens(session) };
        let record = Record::of(provider, tokens, (subject, until));
        self.write_tokens(plan, &place, &record).await
    }

    async fn write_tokens(&self, plan: &Plan, at: &Place, record: &Record) -> Result<(), Fault> {
        let left = Duration::from_secs(record.until.saturating_sub(now()));
        let keys = plan.made.as_ref().map_or(&[][..], |made| &made.seal);
        let text = Bytes::from(serde_json::to_vec(record).unwrap_or_default());
        let sealed = match keys.is_empty() {
            true => Err(Fault::Store("there is no key to seal tokens with".to_owned())),
            false => seal(keys, &at.key, text).map_err(|error| Fault::Store(error.to_string())),
        }?;
        if sealed.len() > RECORD_BYTES_MAX {
            return Err(Fault::answer("the tokens are too large to be kept"));
        }
        self.store.put(&at.key, &sealed, left.max(Duration::from_secs(1))).await?;
        self.provider_tokens.insert(at.id.clone(), record.held());
        Ok(())
    }

    async fn read_tokens(&self, plan: &Plan, at: &Place) -> Result<Option<Record>, StoreError> {
        let Some(sealed) = self.store.read(&at.key, RECORD_BYTES_MAX).await? else {
            return Ok(None);
        };
        let keys = plan.made.as_ref().map_or(&[][..], |made| &made.seal);
        let value = SessionValue::Text(sealed);
        // What no key opens any more is as good as nothing.
        let Ok(opened) = open(keys, &at.key, &value) else { return Ok(None) };
        match &*opened {
            SessionValue::Text(text) => Ok(serde_json::from_slice(text).ok()),
            SessionValue::Fields(_) => Ok(None),
        }
    }

    /// The `id_token` of a session, for the provider's own log-out; nothing where none is kept.
    ///
    /// # Errors
    /// The store did not answer.
    pub async fn id_token(&self, plan: &Plan, session: &str) -> Result<Option<String>, StoreError> {
        let at = Place { id: session.to_owned(), key: plan.keys.provider_tokens(session) };
        Ok(self.read_tokens(plan, &at).await?.and_then(|record| record.id))
    }

    /// The access token of a session, renewed where that is due; nothing where it has none. One
    /// that is still good is given at once, and renewed behind that.
    ///
    /// # Errors
    /// [`Fault::Code`]: the provider has ended it, and the session with it. Others: there is none
    /// that is good, for now.
    pub async fn access_token(
        self: &Arc<Self>,
        plan: &Plan,
        provider: &Arc<Provider>,
        session: &str,
    ) -> Result<Option<String>, Fault> {
        let held = self.provider_tokens.get(session);
        if let Some(held) = held.as_ref().filter(|held| now() < held.renew_at) {
            return Ok(Some(held.access.clone()));
        }
        let at = Place { id: session.to_owned(), key: plan.keys.provider_tokens(session) };
        let record = match self.read_tokens(plan, &at).await {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(None),
            Err(error) => {
                let good = held.filter(|held| now() < held.ends_at);
                return good.map(|held| Some(held.access.clone())).ok_or(error.into());
            }
        };
        let current = record.held();
        if now() < current.renew_at {
            self.provider_tokens.insert(at.id, current.clone());
            return Ok(Some(current.access));
        }
        if record.refresh.is_none() {
            // It is over, and nothing renews it.
            return Ok(None);
        }
        let is_good = now() < current.ends_at;
        if is_good {
            // Until that has ended well or not, others use what there is.
            let rested = Held { renew_at: now() + PAUSE.as_secs(), ..current.clone() };
            self.provider_tokens.insert(at.id.clone(), rested);
        }
        let (gateway, provider) = (Arc::clone(self), Arc::clone(provider));
        let renewing = tokio::spawn(async move { gateway.renew_tokens(&provider, at).await });
        if is_good {
            return Ok(Some(current.access));
        }
        renewing.await.unwrap_or_else(|_| Err(Fault::Store("the renewal ended".to_owned())))
    }

    /// Renews the tokens of a session, or waits for who does.
    async fn renew_tokens(&self, provider: &Provider, at: Place) -> Result<Option<String>, Fault> {
        let running = self.running();
        let plan = &running.plan;
        // The document and the keys may have to be fetched before and after the call.
        let fetches = provider.written.keys.as_ref().map_or(Duration::ZERO, |it| it.timeout * 2);
        let within = provider.written.timeout.saturating_add(fetches).saturating_add(MARGIN);
        let token = crate::base::http::hex::encode(&fastrand::u128(..).to_le_bytes());
        let lock = HeldLock { key: plan.keys.provider_renewal(&at.id), token };
        let begun = tokio::time::Instant::now();
        while !self.store.lock(&lock, within).await? {
            tokio::time::sleep(LOOK).await;
            let record = self.read_tokens(plan, &at).await?;
            match record.filter(|record| now() < record.renew_at) {
                Some(record) => return Ok(Some(self.remember(&at, &record))),
                None if begun.elapsed() < within => {}
                None => return Err(Fault::Away("another gateway asks it".to_owned())),
            }
        }
        let renewed = self.renew_locked(&running, provider, &at).await;
        let _ = self.store.unlock(&lock).await;
        if let Err(fault) = &renewed {
            let provider = &provider.name;
            tracing::warn!(%provider, "tokens of a session are not renewed: {fault}");
        }
        renewed
    }

    fn remember(&self, at: &Place, record: &Record) -> String {
        self.provider_tokens.insert(at.id.clone(), record.held());
        record.access.clone()
    }

    async fn renew_locked(
        &self,
        running: &Running,
        provider: &Provider,
        at: &Place,
    ) -> Result<Option<String>, Fault> {
        let plan = &running.plan;
        // Who had the lock before may have renewed them.
        let Some(record) = self.read_tokens(plan, at).await? else { return Ok(None) };
        if now() < record.renew_at {
            return Ok(Some(self.remember(at, &record)));
        }
        let Some(refresh) = &record.refresh else { return Ok(None) };
        let metadata = running.metadata(provider).await?;
        let tokens = match running.tokens(provider, &metadata, Grant::Refresh(refresh)).await {
            Err(fault @ Fault::Code(_)) => {
                // RFC 6749 §5.2: revoked, over, or used by somebody else.
                self.provider_tokens.forget(&at.id);
                self.end_made(plan, &at.id).await?;
                self.forget_tokens(&plan.keys, &at.id).await?;
                return Err(fault);
            }
            asked => asked?,
        };
        if let Some(id_token) = &tokens.id {
            running.is_of(provider, (id_token, &tokens.access), &record.subject).await?;
        }
        let tokens = Tokens {
            refresh: tokens.refresh.or(record.refresh),
            id: tokens.id.or(record.id),
            ..tokens
        };
        let next = Record::of(provider, tokens, (&record.subject, record.until));
        self.write_tokens(plan, at, &next).await?;
        Ok(Some(next.access))
    }
}

impl Running {
    /// Whether a token that came with a renewal is of this user (OpenID Connect Core 1.0 §12.2).
    async fn is_of(
        &self,
        provider: &Provider,
        (id_token, access_token): (&str, &str),
        subject: &str,
    ) -> Result<(), Fault> {
        let (header, identity) = self.verified(provider, id_token).await?;
        let now = i64::try_from(now()).unwrap_or(i64::MAX);
        let provider = &provider.written;
        let expected = Expected { provider, nonce: None, access_token, now };
        let user = LoggedIn::of(&header, &identity.claims, &expected)?;
        match user.subject == subject {
            true => Ok(()),
            false => Err(Fault::answer("the renewed tokens are of another user")),
        }
    }
}
