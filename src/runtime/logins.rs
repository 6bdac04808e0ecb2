//! Log-ins at OpenID providers: begun, ended by the browser that began them, and undone when the
//! provider says that a session there has ended.
//!
//! A log-in that is on its way when the provider tells of its end is met by what is written first
//! then: sessions are noted under the provider's names before that is looked for, and it is written
//! before they are.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::value::to_raw_value;

use super::made::{LogIn, MadeSession, NotMade};
use super::{Gateway, Running};
use crate::auth::{self, NotVerified};
use crate::base::claim::{Object, Texts};
use crate::base::facts::Identity;
use crate::issuer::Calls;
use crate::oidc::{
    self, Attempt, Callback, Expected, Fault, Grant, Header, LoggedOut, Metadata, Outcome, Secrets,
    Tokens,
};
use crate::plan::Provider;
use crate::session::Shown;
use crate::store::keys::{Keys, hex_digest};
use crate::store::{Noted, StoreError};

/// Largest log-in in the store, in bytes.
const ATTEMPT_BYTES_MAX: usize = 4096;
/// Longest note that a session at a provider has ended, in bytes.
const ENDED_BYTES_MAX: usize = 64;
/// Most rounds in which all sessions of one user end, a thousand in each.
const ROUNDS_MAX: usize = 1000;
/// Added to how long a `logout_token` is remembered, for clocks that differ.
const MARGIN: Duration = Duration::from_secs(10 * 60);

/// A log-in that was begun.
#[derive(Debug)]
pub struct Begun {
    /// Where the browser goes.
    pub location: String,
    /// What it must bring back.
    pub secrets: Secrets,
}

/// A log-in that was ended well.
#[derive(Debug)]
pub struct LoggedIn {
    /// The session that was made.
    pub session: MadeSession,
    /// Where the browser goes: a path of this origin.
    pub return_to: String,
}

/// Why a log-in comes to nothing.
#[derive(Debug, thiserror::Error)]
pub enum NotLoggedIn {
    /// Nobody is known.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Somebody is, and has no session.
    #[error(transparent)]
    NotMade(#[from] NotMade),
}

/// Who has logged in, as the provider calls him, and what it says of him.
struct Known {
    user: oidc::LoggedIn,
    /// The claims that the session gets.
    claims: Texts,
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn unix_seconds() -> i64 {
    i64::try_from(unix_now().as_secs()).unwrap_or(i64::MAX)
}

impl Gateway {
    /// Begins a log-in.
    ///
    /// # Errors
    /// Nothing is known of the provider, or the store does not take the log-in.
    pub async fn begin_login(
        &self,
        running: &Running,
        provider: &Provider,
        return_to: &str,
    ) -> Result<Begun, Fault> {
        let metadata = running.metadata(provider).await?;
        let (attempt, secrets) = Attempt::begin(&provider.name, return_to)?;
        let key = running.plan.keys.login(&oidc::digest_of(&secrets.state));
        let (text, ttl) = (attempt.text(), provider.login_timeout());
        if !self.store.put_new(&key, text.as_bytes(), ttl).await? {
            return Err(Fault::Store("a log-in of this state is there".to_owned()));
        }
        let location = oidc::authorization_url(&provider.written, &metadata, &attempt, &secrets);
        Ok(Begun { location, secrets })
    }

    /// Ends a log-in: exchanges the code that a browser brings back, and makes a session for whom
    /// the provider says. `cookie` is what the browser has kept of it.
    ///
    /// # Errors
    /// There is no session. What was begun is over.
    pub async fn end_login(
        &self,
        running: &Running,
        provider: &Provider,
        (callback, cookie): (&Callback, &str),
        shown: Option<&Shown>,
    ) -> Result<LoggedIn, NotLoggedIn> {
        let key = running.plan.keys.login(&oidc::digest_of(&callback.state));
        let stored = self.store.read_and_delete(&key).await.map_err(Fault::from)?;
        let stored = stored.filter(|stored| stored.len() <= ATTEMPT_BYTES_MAX);
        let attempt = Attempt::parse(&stored.ok_or(Fault::StateUnknown)?)?;
        attempt.belongs_to(&provider.name, cookie)?;
        let metadata = running.metadata(provider).await?;
        callback.is_of(&provider.written.issuer, metadata.sends_issuer)?;
        let code = match &callback.outcome {
            Outcome::Code(code) => code,
            Outcome::Error(error) => return Err(Fault::Refused(error.clone()).into()),
        };
        let grant = Grant::Code { code, verifier: &attempt.verifier };
        let tokens = running.tokens(provider, &metadata, grant).await?;
        let known = running.known((provider, &metadata), &attempt, &tokens).await?;
        let fields = fields(provider, &known)?;
        let subject = provider.subject(&known.user.subject);
        let login = LogIn { subject: &subject, fields, shown };
        let session = self.make_session(&running.plan, login).await?;
        if let Err(fault) = self.note_login(&running.plan.keys, provider, (&known, &session)).await
        {
            // Nobody could end it from there: better none.
            let _ = self.end_made(&running.plan, &session.id).await;
            return Err(fault.into());
        }
        if provider.keeps_tokens {
            let (at, of) = ((&*session.id, session.ends_s), (&*known.user.subject, tokens));
            if let Err(fault) = self.keep_tokens(&running.plan, provider, at, of).await {
                let _ = self.end_made(&running.plan, &session.id).await;
                return Err(fault.into());
            }
        }
        Ok(LoggedIn { session, return_to: attempt.return_to })
    }

    /// Notes a session where its provider will look for it.
    async fn note_login(
        &self,
        keys: &Keys,
        provider: &Provider,
        (known, session): (&Known, &MadeSession),
    ) -> Result<(), Fault> {
        let now = unix_now();
        let [family, _] = keys.session_families();
        let part = Keys::session_part(&session.id);
        let indexes = indexes(keys, provider, &known.user);
        for index in &indexes {
            let noted = Noted {
                index,
                part: &part,
                created_s: now.as_secs(),
                ttl: Duration::from_secs(session.ends_s).saturating_sub(now),
                family: &family,
            };
            self.store.note_session(noted).await?;
        }
        for index in &indexes {
            let ended = self.ended_at(index).await?;
            // What was issued in the same second may be older.
            if ended.is_some_and(|ended| known.user.issued_at <= ended) {
                return Err(Fault::Refused("logged_out".to_owned()));
            }
        }
        Ok(())
    }

    /// When a provider said last that what stands in an index ended, Unix seconds.
    async fn ended_at(&self, index: &str) -> Result<Option<i64>, StoreError> {
        let ended = self.store.read(&Keys::provider_ended(index), ENDED_BYTES_MAX).await?;
        Ok(ended.and_then(|it| std::str::from_utf8(&it).ok()?.parse().ok()))
    }

    /// Ends the sessions of which a provider says so (OpenID Connect Back-Channel Logout 1.0 §2.7);
    /// how many there were.
    ///
    /// # Errors
    /// It is not the provider who says so, or the store did not answer: some may have ended then,
    /// and the provider may say it again.
    pub async fn hear_logout(
        &self,
        running: &Running,
        provider: &Provider,
        logout_token: &str,
    ) -> Result<usize, Fault> {
        let (header, identity) = match running.verified(provider, logout_token).await {
            Err(Fault::Answer(why)) => return Err(Fault::LogoutToken(why)),
            verified => verified?,
        };
        let told = oidc::logged_out(&header, &identity.claims)?;
        let keys = &running.plan.keys;
        let once = format!("{}\n{}", provider.written.issuer, told.id);
        let once = keys.logout_token(&hex_digest(once.as_bytes()));
        if self.store.read(&once, ENDED_BYTES_MAX).await?.is_some() {
            return Err(Fault::LogoutToken("it was used before".to_owned()));
        }
        let ended = self.end_sessions_of(running, provider, &told).await?;
        // Behind what it is for: where that fails, the provider says it again.
        let left = told.expires_at.saturating_sub(unix_seconds());
        let left = Duration::from_secs(u64::try_from(left).unwrap_or_default());
        self.store.put(&once, b"1", left.saturating_add(MARGIN)).await?;
        const OPERATION: &str = "end sessions: provider log-out";
        let (provider, count) = (&*provider.name, ended.to_string());
        let of = if told.sid.is_some() { "session" } else { "user" };
        let object = [("provider", provider), ("of", of), ("sessions", &count)];
        self.looking.operated_itself(OPERATION, &object);
        Ok(ended)
    }

    async fn end_sessions_of(
        &self,
        running: &Running,
        provider: &Provider,
        told: &LoggedOut,
    ) -> Result<usize, Fault> {
        let keys = &running.plan.keys;
        let index = match (&told.sid, &told.subject) {
            (Some(sid), _) => keys.provider_sid(&provider.name, sid),
            (None, Some(sub)) => keys.provider_sub(&provider.name, sub),
            (None, None) => return Ok(0),
        };
        let ttl = provider.login_timeout().saturating_add(MARGIN);
        // A token may come late, behind a newer one.
        let at = self.ended_at(&index).await?.unwrap_or_default().max(told.issued_at).to_string();
        self.store.put(&Keys::provider_ended(&index), at.as_bytes(), ttl).await?;
        let mut ended = 0;
        for _ in 0..ROUNDS_MAX {
            let places = self.store.noted(&index).await?;
            if places.is_empty() {
                return Ok(ended);
            }
            for place in &places {
                ended += usize::from(self.end_made(&running.plan, &place.part).await?);
                self.forget_tokens(keys, &place.part).await?;
            }
            self.store.forget_noted(&index, &places).await?;
        }
        Err(Fault::Store("sessions of this user are made faster than ended".to_owned()))
    }

    /// Where browsers log out of a provider; nothing where it has no such place.
    pub fn end_session_endpoint(&self, running: &Running, provider: &Provider) -> Option<String> {
        let metadata = running.issuers.metadata(provider.verifier.name()).ok()?;
        metadata.end_session_endpoint.clone()
    }

    /// Forgets what is kept beside a session of a provider's.
    pub async fn forget_tokens(&self, keys: &Keys, session: &str) -> Result<(), StoreError> {
        self.store.delete(&keys.provider_tokens(session)).await.map(|_| ())
    }
}

/// Where a session is noted that a provider may end: by its session there, and by its user.
fn indexes(keys: &Keys, provider: &Provider, user: &oidc::LoggedIn) -> Vec<String> {
    let by_sub = keys.provider_sub(&provider.name, &user.subject);
    let by_sid = user.sid.as_ref().map(|sid| keys.provider_sid(&provider.name, sid));
    by_sid.into_iter().chain([by_sub]).collect()
}

/// What the session has of the log-in.
fn fields(provider: &Provider, known: &Known) -> Result<Texts, Fault> {
    let mut fields = known.claims.clone();
    let said = [("provider", Some(&provider.name)), ("provider_sid", known.user.sid.as_ref())];
    for (name, text) in said {
        let Some(text) = text else { continue };
        let text = to_raw_value(text).map_err(|error| Fault::answer(error.to_string()))?;
        fields.insert(name.to_owned(), text);
    }
    Ok(fields)
}

impl Running {
    fn calls(&self, provider: &Provider) -> Result<&Calls, Fault> {
        let calls = self.calls.get(&provider.name);
        calls.ok_or_else(|| Fault::Away("it is not configured any more".to_owned()))
    }

    /// What is known of a provider, which is asked where nothing is.
    pub(super) async fn metadata(&self, provider: &Provider) -> Result<Arc<Metadata>, Fault> {
        let name = provider.verifier.name();
        if let Ok(metadata) = self.issuers.metadata(name) {
            return Ok(metadata);
        }
        self.issuers.ask(name).await;
        self.issuers.metadata(name).map_err(Fault::Away)
    }

    /// Who has logged in, once everything that is said of him fits together.
    async fn known(
        &self,
        (provider, metadata): (&Provider, &Metadata),
        attempt: &Attempt,
        tokens: &Tokens,
    ) -> Result<Known, Fault> {
        let id_token = tokens.id.as_deref().ok_or(Fault::answer("it has issued no id_token"))?;
        let (header, identity) = self.verified(provider, id_token).await?;
        let expected = Expected {
            provider: &provider.written,
            nonce: Some(&attempt.nonce),
            access_token: &tokens.access,
            now: unix_seconds(),
        };
        let user = oidc::LoggedIn::of(&header, &identity.claims, &expected)?;
        // What is signed counts, and then what is said beside it.
        let mut told = vec![Object { members: identity.claims, exact: identity.exact }];
        if provider.written.userinfo {
            let url = metadata.userinfo_endpoint.as_ref();
            let url = url.ok_or(Fault::answer("it names no userinfo_endpoint"))?;
            let asked = self.calls(provider)?.get(url, &tokens.access).await;
            let (status, body) = asked.map_err(Fault::Away)?;
            told.push(oidc::userinfo(status, &body, &user.subject)?);
        }
        let claim = |name: &String| {
            let found = told.iter().find_map(|object| object.get(name))?;
            Some((name.clone(), found.json()))
        };
        Ok(Known { user, claims: provider.written.claims.iter().filter_map(claim).collect() })
    }

    /// Asks the token endpoint.
    pub(super) async fn tokens(
        &self,
        provider: &Provider,
        metadata: &Metadata,
        grant: Grant<'_>,
    ) -> Result<Tokens, Fault> {
        let form = oidc::form(&provider.written, grant);
        let credentials = provider.credentials.clone();
        let asked = self.calls(provider)?.post(&metadata.token_endpoint, form, credentials).await;
        let (status, body) = asked.map_err(Fault::Away)?;
        oidc::tokens(status, &body)
    }

    /// What a token of a provider's says, and its header. A key that is not known here may have
    /// been published since: then it is fetched, once.
    pub(super) async fn verified(
        &self,
        provider: &Provider,
        token: &str,
    ) -> Result<(Header, Identity), Fault> {
        let verifier = &provider.verifier;
        let refused = |reason: auth::Reason| Fault::answer(reason.to_string());
        let identity = match verifier.read(token, unix_seconds()) {
            Ok(identity) => identity,
            Err(NotVerified::Refused(reason)) => return Err(refused(reason)),
            Err(NotVerified::KeyUnknown(_)) => {
                let is_failing = self.issuers.ask(verifier.name()).await;
                match verifier.read(token, unix_seconds()) {
                    Ok(identity) => identity,
                    Err(NotVerified::Refused(reason)) => return Err(refused(reason)),
                    Err(NotVerified::KeyUnknown(_)) if is_failing => {
                        return Err(Fault::Away("its keys cannot be fetched".to_owned()));
                    }
                    Err(NotVerified::KeyUnknown(_)) => {
                        return Err(refused(auth::Reason::KeyUnknown));
                    }
                }
            }
        };
        let header = auth::header_of(token).ok_or(Fault::answer("the token has no header"))?;
        let (kind, algorithm) = header;
        Ok((Header { kind, algorithm }, identity))
    }
}
