//! Knows when: looks at each certificate from time to time, orders it where it is due and nobody
//! else does, and follows what the other gateways get.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use instant_acme::{CertificateIdentifier, Error};
use rustls::ServerConfig;
use rustls::pki_types::Der;
use tokio::sync::Notify;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer as _;

use super::account::{ACCOUNT_TTL, Accounts};
use super::answers::Answers;
use super::failure::Failure;
use super::lease::{Lease, nonce};
use super::order::{Desk, Obtained};
use super::proofs::Proofs;
use super::records;
use super::schedule::{due_at, pause, within};
use super::served::{Held, Served, State};
use super::vault::{Vault, bytes};
use crate::base::units::Secret;
use crate::config::{self, Challenge};
use crate::observe::Metrics;
use crate::store::Store;
use crate::store::keys::Keys;
use crate::tls::{self, Issued};

/// How long a certificate is kept in the store past its end.
const PAST_END: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long the version of all certificates is kept; each certificate begins it anew.
const VERSION_TTL: Duration = ACCOUNT_TTL;
/// How long an authority that says nothing of renewal, or does not answer, is not asked again.
const RENEWAL_SILENT: Duration = Duration::from_secs(24 * 3600);
const RENEWAL_FAILED: Duration = Duration::from_secs(3600);
/// Shortest and longest time between two questions about one renewal (RFC 9773 §4.3).
const RENEWAL_ASKED: (Duration, Duration) =
    (Duration::from_secs(60), Duration::from_secs(24 * 3600));
/// Longest version, in bytes.
const VERSION_BYTES_MAX: usize = 64;

/// The certificates of one configuration.
#[derive(Debug)]
pub struct Acme {
    settings: config::Acme,
    secret: Option<Secret>,
    challenges: Vec<Challenge>,
    vault: Vault,
    answers: Answers,
    proofs: Proofs,
    served: Served,
    accounts: Accounts,
    metrics: Arc<Metrics>,
    /// Rings when another gateway has a new certificate.
    news: Arc<Notify>,
}

/// What a set of names needs.
enum Need {
    /// To be ordered, and why.
    Order(String),
    /// To be put into the store again, which has lost it.
    PutBack,
    /// Nothing until then, in Unix seconds.
    Nothing(i64),
}

/// What the store has of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    /// One that is shown now.
    Shown,
    /// One that this gateway cannot read, such as one of another secret.
    Unreadable,
    Nothing,
}

impl Acme {
    /// What `[server.tls.acme]` says; nothing where it says nothing. Does nothing yet.
    pub fn new(
        server: &config::Server,
        store: &Arc<Store>,
        keys: &Keys,
        metrics: &Arc<Metrics>,
    ) -> Option<Self> {
        let written = server.tls.as_ref()?;
        let settings = (**written.acme.as_ref()?).clone();
        let has_clear = !written.listen.is_empty() && !server.listen.is_empty();
        let can_answer = |challenge: &Challenge| has_clear || *challenge != Challenge::Http;
        let challenges = settings.challenges.iter().copied().filter(can_answer).collect();
        let secret = written.secret.clone();
        Some(Self {
            vault: Vault::new(store, keys, secret.as_ref(), settings.folder.as_ref()),
            answers: Answers::new(store, keys),
            proofs: Proofs::default(),
            served: Served::new(&settings.names),
            accounts: Accounts::default(),
            metrics: Arc::clone(metrics),
            news: Arc::default(),
            secret,
            challenges,
            settings,
        })
    }

    /// Whether another configuration means the same.
    pub fn is_described_by(&self, written: &config::Tls) -> bool {
        written.acme.as_deref() == Some(&self.settings) && written.secret == self.secret
    }

    /// Takes the certificates of the same names from who ordered before.
    pub fn inherit(&self, former: &Self) {
        self.served.inherit(&former.served);
    }

    /// Shows its certificates in the handshakes of `live` from now on.
    pub fn show_in(&self, live: &Arc<tls::Live>) {
        self.served.show_in(live);
    }

    /// Takes what the store has, within the store's time, so that a gateway which begins anew shows
    /// its certificates from the first handshake on.
    pub async fn load(&self) {
        self.load_all().await;
    }

    /// Whether the store has told of all of them.
    async fn load_all(&self) -> bool {
        let mut is_told = true;
        for at in 0..self.settings.names.len() {
            if let Err(failure) = self.adopt(at).await {
                is_told = false;
                self.served.note(at, "store", &failure.to_string());
            }
        }
        is_told
    }

    /// Begins to look after the certificates, until nobody needs this any more.
    pub fn begin(self: &Arc<Self>) {
        let retry = self.settings.retry;
        for at in 0..self.settings.names.len() {
            let (acme, news) = (Arc::downgrade(self), Arc::clone(&self.news));
            let begin = move || keep(Weak::clone(&acme), Arc::clone(&news), at);
            tokio::spawn(again_after_a_panic("looks after a certificate", retry, begin));
        }
        let (acme, follow_period) = (Arc::downgrade(self), self.settings.follow);
        let begin = move || follow(Weak::clone(&acme), follow_period);
        tokio::spawn(again_after_a_panic("follows the fleet's certificates", retry, begin));
    }

    /// What a token is answered over clear HTTP (RFC 8555 §8.3).
    pub async fn answer(&self, token: &str) -> Option<Bytes> {
        // What nobody orders so is nobody's token, and anybody can ask.
        if !self.challenges.contains(&Challenge::Http) {
            return None;
        }
        Some(Bytes::from(self.answers.to_token(token).await?))
    }

    /// The key authorization by which a handshake may prove a name, as it stands now; nothing
    /// where none is to be proved.
    pub async fn key_authorization(&self, name: &str) -> Option<String> {
        let name = name.to_ascii_lowercase();
        if !self.served.has_name(&name) {
            return None;
        }
        let found = self.answers.to_name(&name).await;
        if found.is_none() {
            self.proofs.forget(&name);
        }
        found
    }

    /// What a handshake shows that asks for the proof of a name (RFC 8737 §3). The first time it
    /// takes a signature.
    pub fn proof(&self, name: &str, key_authorization: &str) -> Option<Arc<ServerConfig>> {
        self.proofs.of(&name.to_ascii_lowercase(), key_authorization)
    }

    /// Whether a certificate for this name is ordered here.
    pub fn has_name(&self, name: &str) -> bool {
        self.served.has_name(name)
    }

    /// How the certificates are doing.
    pub fn states(&self) -> Vec<State> {
        self.served.states()
    }

    fn names(&self, at: usize) -> &[String] {
        self.settings.names.get(at).map_or(&[], Vec::as_slice)
    }

    fn name(&self, at: usize) -> &str {
        self.names(at).first().map_or("", String::as_str)
    }

    /// Takes the certificate that is stored.
    async fn adopt(&self, at: usize) -> Result<Stored, Failure> {
        let place = self.vault.keys.tls_certificate(self.name(at));
        let Some(record) = self.vault.read::<records::Certificate>(&place).await? else {
            return Ok(Stored::Nothing);
        };
        let version = record.version.clone();
        match self.served.adopt(at, record, (&self.vault, &place)) {
            Ok(()) => Ok(Stored::Shown),
            Err(failure) => {
                if self.served.is_first_refusal(at, version) {
                    tracing::warn!(
                        key = place,
                        "a stored certificate is not used, as if there were none: {failure}"
                    );
                }
                Ok(Stored::Unreadable)
            }
        }
    }

    /// Looks once; returns when to look again.
    async fn look(&self, at: usize) -> Duration {
        let looked = self.tend(at).await;
        match looked {
            Ok(next) => next,
            Err(Failure::LeaseLost) => {
                self.metrics.tls.ordered("lease_lost");
                self.served.note(at, "waiting", "the lease went to another gateway");
                let name = self.name(at);
                tracing::warn!(name, "an order by ACME was given up: {}", Failure::LeaseLost);
                self.settings.lease
            }
            Err(failure @ (Failure::Store(_) | Failure::Wrapped(_))) => {
                self.metrics.tls.ordered(failure.result());
                self.served.note(at, "store", &failure.to_string());
                self.settings.retry
            }
            Err(failure) => {
                self.metrics.tls.ordered(failure.result());
                self.served.note(at, "paused", &failure.to_string());
                let name = self.name(at);
                tracing::warn!(name, "a certificate by ACME was not issued: {failure}");
                self.settings.retry
            }
        }
    }

    async fn tend(&self, at: usize) -> Result<Duration, Failure> {
        let why = match self.need(at).await? {
            Need::Nothing(due) => {
                self.served.note(at, "fresh", "it is good, and not due yet");
                let left = u64::try_from(due.saturating_sub(now())).unwrap_or_default();
                return Ok(self.settings.check.min(Duration::from_secs(left.max(1))));
            }
            Need::PutBack => "the store has lost it".to_owned(),
            Need::Order(why) => why,
        };
        if let Some(left) = self.paused(at).await? {
            return Ok(left.min(self.settings.check));
        }
        self.served.note(at, "due", &why);
        let key = self.vault.keys.tls_lease(self.name(at));
        let Some(lease) = Lease::take(&self.vault.store, key, self.settings.lease).await? else {
            self.served.note(at, "waiting", "another gateway orders it");
            return Ok(self.settings.lease.min(self.settings.check));
        };
        let leads = self.metrics.tls.leads();
        let work = tokio::time::timeout(self.settings.order_timeout, self.order(at, &lease));
        let done = lease.during(async { work.await.unwrap_or(Err(Failure::TimedOut)) }).await;
        drop(leads);
        if let Err(failure) = &done {
            self.failed(at, failure).await;
        }
        lease.release().await;
        done.map(|()| Duration::ZERO)
    }

    /// What a set of names needs now.
    async fn need(&self, at: usize) -> Result<Need, Failure> {
        let stored = self.adopt(at).await?;
        let Some(held) = self.served.held(at) else {
            return Ok(Need::Order("there is none yet".to_owned()));
        };
        let mut had = held.record.names.clone();
        let mut wanted = self.names(at).to_vec();
        had.sort_unstable();
        wanted.sort_unstable();
        if had != wanted {
            return Ok(Need::Order("its names have changed".to_owned()));
        }
        if held.record.directory != self.settings.directory {
            return Ok(Need::Order("another authority issued it".to_owned()));
        }
        let due = due_at(held.issued.dates(), self.renewal(at, &held).await);
        let left = held.issued.dates().1.saturating_sub(now());
        Ok(if due <= now() {
            Need::Order(format!("it is to be renewed: it ends in {left} s"))
        } else if stored == Stored::Nothing {
            Need::PutBack
        } else {
            // What others have written is not written over while there is no need: they may be
            // those with the new secret.
            Need::Nothing(due)
        })
    }

    /// Until when nobody orders, after a failure.
    async fn paused(&self, at: usize) -> Result<Option<Duration>, Failure> {
        let key = self.vault.keys.tls_pause(self.name(at));
        let Some(pause) = self.vault.read::<records::Pause>(&key).await? else { return Ok(None) };
        let left = u64::try_from(pause.until.saturating_sub(now())).unwrap_or_default();
        if left == 0 {
            return Ok(None);
        }
        self.served.note(at, "paused", &pause.why);
        Ok(Some(Duration::from_secs(left)))
    }

    /// Tells all gateways to wait after a failed order.
    async fn failed(&self, at: usize, failure: &Failure) {
        if matches!(failure, Failure::LeaseLost | Failure::Store(_) | Failure::Wrapped(_)) {
            return;
        }
        let key = self.vault.keys.tls_pause(self.name(at));
        let known: Option<records::Pause> = self.vault.read(&key).await.unwrap_or_default();
        let failures = known.map_or(0, |pause| pause.failures).saturating_add(1);
        let length = pause(failures, self.settings.retry);
        let seconds = i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
        let until = now().saturating_add(seconds);
        let record = records::Pause { failures, until, why: failure.to_string() };
        let _ = self.vault.put(&key, &record, length.saturating_mul(2).max(PAST_END)).await;
    }

    /// Does what a set of names needs, under the lease.
    async fn order(&self, at: usize, lease: &Lease) -> Result<(), Failure> {
        // Somebody may have done it between the look and the lease.
        match self.need(at).await? {
            Need::Nothing(_) => return Ok(()),
            Need::PutBack => {
                if let Some(held) = self.served.held(at) {
                    self.put(at, lease, held.record).await?;
                    self.metrics.tls.ordered("put_back");
                }
                return Ok(());
            }
            Need::Order(why) => self.served.note(at, "leased", &why),
        }
        let account = self.accounts.get(&self.settings, &self.vault).await?;
        let pause = self.vault.keys.tls_pause(self.name(at));
        let pause: Option<records::Pause> = self.vault.read(&pause).await?;
        let mut challenges = self.challenges.clone();
        // What did not succeed once may do so in another way.
        let turn = pause.map_or(0, |pause| pause.failures as usize);
        challenges.rotate_left(turn % self.challenges.len().max(1));
        let held = self.served.held(at);
        let desk = Desk {
            settings: &self.settings,
            vault: &self.vault,
            answers: &self.answers,
            served: &self.served,
            at,
            names: self.names(at),
            lease: &lease.lock,
            account: &account,
            challenges: &challenges,
            replaces: self.replaced(at, held.as_ref()).await,
        };
        let obtained = desk.obtain().await;
        if obtained.as_ref().is_err_and(Failure::is_of_no_account) {
            self.accounts.forget(&self.vault, account.id()).await;
        }
        let Obtained { chain, key } = obtained?;
        self.store_issued(at, lease, (chain, &key)).await?;
        self.metrics.tls.ordered("issued");
        Ok(())
    }

    /// Stores what was issued, and shows it.
    async fn store_issued(
        &self,
        at: usize,
        lease: &Lease,
        (chain, key): (String, &[u8]),
    ) -> Result<(), Failure> {
        let issued = Issued::read(chain.as_bytes(), key).map_err(Failure::Unusable)?;
        let (not_before, not_after) = issued.dates();
        let place = self.vault.keys.tls_certificate(self.name(at));
        let record = records::Certificate {
            names: self.names(at).to_vec(),
            directory: self.settings.directory.clone(),
            key: self.vault.wrapping.wrap(&place, key)?,
            chain,
            not_before,
            not_after,
            version: nonce()?,
        };
        self.put(at, lease, record.clone()).await?;
        let name = self.name(at);
        for key in [self.vault.keys.tls_order(name), self.vault.keys.tls_pause(name)] {
            let _ = self.vault.store.delete(&key).await;
        }
        self.served.adopt(at, record, (&self.vault, &place))
    }

    /// Writes a certificate, if the lease is still ours, and lets the others know.
    async fn put(
        &self,
        at: usize,
        lease: &Lease,
        record: records::Certificate,
    ) -> Result<(), Failure> {
        let keys = &self.vault.keys;
        let left = u64::try_from(record.not_after.saturating_sub(now())).unwrap_or_default();
        let ttl = PAST_END.saturating_add(Duration::from_secs(left));
        let place = keys.tls_certificate(self.name(at));
        let writes = [
            (place, bytes(&record), ttl),
            (keys.tls_version(), nonce()?.into_bytes(), VERSION_TTL),
        ];
        self.vault.put_fenced(&lease.lock, &writes).await?;
        // Its life alone: another gateway may have made a new one.
        let _ = self.vault.store.expire(&keys.tls_account(), ACCOUNT_TTL).await;
        Ok(())
    }

    /// When the authority wants a certificate renewed, in Unix seconds, where it says so (RFC
    /// 9773). All gateways take the moment that one of them has chosen.
    async fn renewal(&self, at: usize, held: &Held) -> Option<i64> {
        let key = self.vault.keys.tls_renewal(self.name(at));
        let known: Option<records::Renewal> = self.vault.read(&key).await.ok()?;
        let known = known.filter(|known| known.version == held.record.version);
        let chosen = known.as_ref().and_then(|known| known.at);
        if known.is_some_and(|known| known.ask_at > now()) {
            return chosen;
        }
        let (wanted, ask_in) = match self.ask_renewal(held).await {
            Ok((window, ask_in)) => {
                // The moment stays the same while it lies in the window.
                let is_in = |at: &i64| (window.0..=window.1).contains(at);
                let at = chosen.filter(is_in).unwrap_or_else(|| within(window, fastrand::f64()));
                (Some(at), ask_in.clamp(RENEWAL_ASKED.0, RENEWAL_ASKED.1))
            }
            Err(Failure::Authority(Error::Unsupported(_))) => (None, RENEWAL_SILENT),
            Err(_) => (chosen, RENEWAL_FAILED),
        };
        let ask_at = now().saturating_add(i64::try_from(ask_in.as_secs()).unwrap_or(i64::MAX));
        let record = records::Renewal { version: held.record.version.clone(), at: wanted, ask_at };
        let _ = self.vault.put(&key, &record, RENEWAL_SILENT.saturating_mul(2)).await;
        wanted
    }

    /// The window in which the authority wants a certificate renewed, in Unix seconds, and when to
    /// ask again.
    async fn ask_renewal(&self, held: &Held) -> Result<((i64, i64), Duration), Failure> {
        let id = identifier(&held.issued).ok_or(Failure::Crypto("naming the certificate"))?;
        let account = self.accounts.get(&self.settings, &self.vault);
        // A look must not wait for an account that another gateway makes.
        let account = tokio::time::timeout(self.settings.timeout, account).await;
        let account = account.unwrap_or(Err(Failure::TimedOut))?;
        let (info, ask_in) = account.renewal_info(&id).await?;
        let window = info.suggested_window;
        Ok(((window.start.unix_timestamp(), window.end.unix_timestamp()), ask_in))
    }

    /// The certificate that an order replaces, where the authority wants to know (RFC 9773 §5).
    async fn replaced(
        &self,
        at: usize,
        held: Option<&Held>,
    ) -> Option<CertificateIdentifier<'static>> {
        let held = held.filter(|held| held.record.directory == self.settings.directory)?;
        // An authority that says when to renew understands what is replaced.
        self.renewal(at, held).await?;
        identifier(&held.issued)
    }
}

/// What a certificate is called in questions about its renewal (RFC 9773 §4.1).
fn identifier(issued: &Issued) -> Option<CertificateIdentifier<'static>> {
    let (_, parsed) = X509Certificate::from_der(issued.own()?).ok()?;
    let authority = parsed.iter_extensions().find_map(|it| match it.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(key) => key.key_identifier.as_ref(),
        _ => None,
    })?;
    let (authority, serial) = (Der::from_slice(authority.0), Der::from_slice(parsed.raw_serial()));
    Some(CertificateIdentifier::new(authority, serial).into_owned())
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Looks after one set of names until nobody needs it any more.
async fn keep(acme: Weak<Acme>, news: Arc<Notify>, at: usize) {
    loop {
        let Some(keeper) = acme.upgrade() else { return };
        let next = keeper.look(at).await;
        drop(keeper);
        // Gateways that began together do not look together.
        let next = next.mul_f64(0.9 + 0.1 * fastrand::f64());
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            () = news.notified() => {}
        }
    }
}

/// Asks again and again whether another gateway has a new certificate, and takes it.
async fn follow(acme: Weak<Acme>, period: Duration) {
    let mut seen = None;
    loop {
        tokio::time::sleep(period).await;
        let Some(keeper) = acme.upgrade() else { return };
        let key = keeper.vault.keys.tls_version();
        let Ok(version) = keeper.vault.store.read(&key, VERSION_BYTES_MAX).await else { continue };
        if version.is_none() || version == seen {
            continue;
        }
        if !keeper.load_all().await {
            continue;
        }
        seen = version;
        keeper.news.notify_waiters();
    }
}

/// Does what `begin` begins until that ends by itself. What panics begins again after a pause: it
/// must not stand still for as long as the process lives.
async fn again_after_a_panic<F>(what: &'static str, pause: Duration, mut begin: impl FnMut() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    while let Err(error) = tokio::spawn(begin()).await
        && error.is_panic()
    {
        tracing::error!("the task that {what} has panicked, and begins again in {pause:?}");
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn what_has_panicked_begins_again_after_a_pause() {
        let (mut turns, began) = (0, Instant::now());
        let pause = Duration::from_secs(60);
        let begin = || {
            turns += 1;
            let turn = turns;
            async move { assert!(turn > 2, "as it was to be shown") }
        };
        again_after_a_panic("is tried out", pause, begin).await;
        assert_eq!((turns, began.elapsed()), (3, 2 * pause));
    }
}
