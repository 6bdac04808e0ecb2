//! Fetches the keys of one place again and again, for every verifier that uses them. Who is missing
//! a key rings a bell and waits; what comes of it is put into the verifiers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::fetch::{Fault, Sought, Why};
use super::place::{Discovered, Place};
use crate::auth::{Flaw, Verifier};
use crate::config::RemoteKeys;
use crate::observe::{IssuerMeter, Metrics};
use crate::oidc::Metadata;

/// Pause after the first failed fetch; it doubles up to `jwks.cooldown`.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Most doublings that are counted; the bound is reached long before.
const DOUBLINGS_MAX: u32 = 16;
/// Most fetches for missing keys at once; then one for each such part of `jwks.cooldown`. One
/// forged key id must not use up what a new key needs.
const ASKS_MAX: u32 = 3;
/// How many flaws of a set are told.
const FLAWS_TOLD_MAX: usize = 8;

/// One place, and who uses its keys.
#[derive(Debug)]
pub(super) struct Fetcher {
    source: RemoteKeys,
    place: Place,
    users: Mutex<Users>,
    progress: Mutex<Progress>,
    /// Wakes the task: a key is missing, or nobody needs the fetcher any more.
    bell: Arc<Notify>,
    /// How many flights have ended.
    landed: watch::Sender<u64>,
    meter: Arc<IssuerMeter>,
}

/// What is known of the keys of one place.
#[derive(Debug)]
pub struct State {
    /// The place, or that of the document that names it, without a query.
    pub url: String,
    /// The place that the document names, where there is one.
    pub discovered: Option<Discovered>,
    /// Since when the keys are in force as they are; nothing before the first fetch.
    pub age: Option<Duration>,
    /// Longest time between two fetches.
    pub refresh: Duration,
    /// Why the last fetch failed; nothing when it did not.
    pub failure: Option<String>,
    /// What a person can do about that; empty where it is said already.
    pub remedy: String,
    /// Whether there are keys at all, fetched by this fetcher or by one before it.
    pub has_keys: bool,
}

/// Who is given what was fetched. The lock is held while keys are parsed, so that nobody who comes
/// in the meantime misses them; requests never take it.
#[derive(Debug, Default)]
struct Users {
    verifiers: Vec<Weak<Verifier>>,
    /// The set that was fetched last and was of use to somebody.
    document: Option<Arc<str>>,
}

#[derive(Debug)]
struct Progress {
    /// A fetch is on its way or about to begin.
    in_flight: bool,
    /// When the allowance of fetches for missing keys is whole again.
    whole_at: Option<Instant>,
    /// When a fetch begins for keys that were missing while there was no allowance.
    owed_at: Option<Instant>,
    /// When the last good fetch ended.
    fetched: Option<Instant>,
    failures: u32,
    failure: Option<String>,
    remedy: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fetcher {
    /// A fetcher that waits for [`Self::take_off`]. `document` is what is known already.
    pub(super) fn new(
        source: &RemoteKeys,
        document: Option<Arc<str>>,
        metrics: &Metrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            source: source.clone(),
            place: Place::default(),
            users: Mutex::new(Users { verifiers: Vec::new(), document }),
            progress: Mutex::new(Progress {
                in_flight: true,
                whole_at: None,
                owed_at: None,
                fetched: None,
                failures: 0,
                failure: None,
                remedy: String::new(),
            }),
            bell: Arc::default(),
            landed: watch::Sender::new(0),
            meter: metrics.issuer(&source.url.to_string()),
        })
    }

    /// Begins the first fetch, now that everybody is there who will use its keys: what is wrong
    /// with a set is told when it comes.
    pub(super) fn take_off(self: &Arc<Self>) {
        tokio::spawn(go_on(Arc::downgrade(self), Arc::clone(&self.bell)));
    }

    pub(super) fn source(&self) -> &RemoteKeys {
        &self.source
    }

    /// Whether its keys are those that would come from `source`, be it in another way: what was
    /// found where more was allowed is not what another one may find.
    pub(super) fn fetches_for(&self, source: &RemoteKeys) -> bool {
        self.source.are_those_of(source) && self.source.discovery == source.discovery
    }

    pub(super) fn document(&self) -> Option<Arc<str>> {
        lock(&self.users).document.clone()
    }

    /// Gives a verifier the keys of now and of all times to come.
    pub(super) fn serve(&self, verifier: &Arc<Verifier>) {
        let mut users = lock(&self.users);
        users.verifiers.retain(|known| known.strong_count() > 0);
        users.verifiers.push(Arc::downgrade(verifier));
        if let Some(document) = &users.document {
            // What is wrong with the set was told when it came; what is wrong with it for this
            // verifier alone will be told when it comes again.
            let _ = verifier.renew_keys(document);
        }
    }

    /// Returns when the first flight has ended.
    pub(super) async fn first_flight(&self) {
        // The sender is here, so there is no error.
        let _ = self.landed.subscribe().wait_for(|landed| *landed > 0).await;
    }

    /// See [`super::Issuers::ask`].
    pub(super) async fn ask(&self) -> bool {
        let mut landed = {
            let mut progress = lock(&self.progress);
            if !progress.in_flight {
                if let Err(at) = progress.allow(self.source.cooldown) {
                    if progress.owed_at.is_none() {
                        progress.owed_at = Some(at);
                        self.bell.notify_one();
                    }
                    return progress.failure.is_some();
                }
                progress.in_flight = true;
                self.bell.notify_one();
            }
            // Under the lock, so that the flight it sees landing is the one in progress.
            self.landed.subscribe()
        };
        let waited = tokio::time::timeout(self.source.timeout, landed.changed()).await;
        waited.is_err() || lock(&self.progress).failure.is_some()
    }

    /// See [`Place::metadata`].
    pub(super) fn metadata(&self) -> Result<Arc<Metadata>, String> {
        self.place.metadata()
    }

    pub(super) fn state(&self) -> State {
        let has_keys = self.document().is_some();
        let progress = lock(&self.progress);
        State {
            url: self.source.url.to_string(),
            discovered: self.place.state(&self.source),
            age: progress.fetched.map(|at| at.elapsed()),
            refresh: self.source.refresh,
            failure: progress.failure.clone(),
            remedy: progress.remedy.clone(),
            has_keys,
        }
    }

    /// When the next fetch begins that nobody asks for: at `due`, or for keys that were missing.
    fn next(&self, due: Instant) -> Instant {
        lock(&self.progress).owed_at.map_or(due, |at| at.min(due))
    }

    /// One fetch and what comes of it. Returns how long to rest.
    async fn fly(&self) -> Duration {
        let is_failing = lock(&self.progress).failures > 0;
        let fetched = self.place.fetch(&self.source, is_failing, Some(&*self.meter)).await;
        let outcome = fetched.and_then(|document| self.hand_out(&document));
        self.meter.fetched(outcome.as_ref().map_or_else(Fault::code, |()| "ok"));
        let url = &self.source.url;
        let mut progress = lock(&self.progress);
        let rest = match outcome {
            Ok(()) => {
                if progress.failures > 0 || progress.fetched.is_none() {
                    tracing::info!(%url, "the issuer's keys were fetched");
                }
                progress.fetched = Some(Instant::now());
                progress.failures = 0;
                progress.failure = None;
                // Early rather than late, and not with all other gateways at once.
                self.source.refresh.mul_f64(0.8 + 0.2 * fastrand::f64())
            }
            Err(fault) => {
                if progress.failures == 0 {
                    let kept = if progress.fetched.is_some() {
                        "the last known keys stay in force"
                    } else {
                        "requests with its tokens are answered with 503"
                    };
                    tracing::warn!(%url, "the issuer's keys could not be fetched: {fault}; {kept}");
                }
                let doublings = progress.failures.min(DOUBLINGS_MAX);
                progress.failures = progress.failures.saturating_add(1);
                progress.failure = Some(fault.to_string());
                progress.remedy = fault.remedy();
                let pause = BACKOFF_MIN.saturating_mul(1 << doublings).min(self.source.cooldown);
                pause.mul_f64(0.5 + 0.5 * fastrand::f64())
            }
        };
        progress.in_flight = false;
        self.landed.send_modify(|landed| *landed += 1);
        rest
    }

    /// Gives the set to everybody. It is a failure when it is of no use to one of them.
    fn hand_out(&self, document: &[u8]) -> Result<(), Fault> {
        let sought = match self.source.discovery {
            None => Sought::Keys,
            Some(_) => Sought::NamedKeys,
        };
        let unusable = |what: String| Fault::new(sought, Why::Unusable(what, String::new()));
        let document = std::str::from_utf8(document)
            .map_err(|_| unusable("the set is not UTF-8".to_owned()))?;
        let mut users = lock(&self.users);
        let mut faults = Vec::new();
        let mut of_use = false;
        for verifier in users.verifiers.iter().filter_map(Weak::upgrade) {
            match verifier.renew_keys(document) {
                Ok(ignored) => {
                    of_use = true;
                    if !ignored.is_empty() {
                        let (url, path) = (&self.source.url, verifier.path());
                        let ignored = told(&ignored);
                        tracing::warn!(%url, "{path} leaves keys of the set out: {ignored}");
                    }
                }
                Err(flaws) => {
                    let path = verifier.path();
                    faults.push(format!("no key of the set serves {path}: {}", told(&flaws)));
                }
            }
        }
        if of_use {
            users.document = Some(document.into());
        }
        if faults.is_empty() { Ok(()) } else { Err(unusable(faults.join("; "))) }
    }

    /// Takes up a flight that was asked for, or begins one that is due or owed.
    fn is_due(&self, time_is_up: bool) -> bool {
        let mut progress = lock(&self.progress);
        let owed = progress.owed_at.is_some_and(|at| at <= Instant::now());
        let is_paid = owed && progress.allow(self.source.cooldown).is_ok();
        progress.in_flight |= time_is_up || is_paid;
        if progress.in_flight {
            // Whatever causes it, it brings what was missing.
            progress.owed_at = None;
        }
        progress.in_flight
    }
}

impl Progress {
    /// Whether a missing key may cause a fetch now, which is then counted; else when it may.
    fn allow(&mut self, cooldown: Duration) -> Result<(), Instant> {
        let now = Instant::now();
        let step = cooldown / ASKS_MAX;
        let whole_at = self.whole_at.map_or(now, |at| at.max(now)) + step;
        let allowed_at = whole_at.checked_sub(cooldown).unwrap_or(now);
        if allowed_at > now {
            return Err(allowed_at);
        }
        self.whole_at = Some(whole_at);
        Ok(())
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.bell.notify_one();
    }
}

/// What is wrong with a set, as far as it is worth telling.
pub(super) fn told(flaws: &[Flaw]) -> String {
    let told: Vec<String> = flaws
        .iter()
        .take(FLAWS_TOLD_MAX)
        .map(|flaw| format!("{} ({})", flaw.what, flaw.remedy))
        .collect();
    let more = flaws.len().saturating_sub(FLAWS_TOLD_MAX);
    if more > 0 { format!("{}; and {more} more", told.join("; ")) } else { told.join("; ") }
}

/// Flies, rests, and flies again when the time has come or the bell rings, until nobody needs the
/// fetcher any more.
async fn go_on(fetcher: Weak<Fetcher>, bell: Arc<Notify>) {
    loop {
        let Some(flying) = fetcher.upgrade() else { return };
        let due = Instant::now() + flying.fly().await;
        let mut next = flying.next(due);
        drop(flying);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = bell.notified() => {}
            }
            let Some(fetcher) = fetcher.upgrade() else { return };
            // A bell that rang for the flight that has just ended calls for no other.
            if fetcher.is_due(due <= Instant::now()) {
                break;
            }
            next = fetcher.next(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(bounds: &str) -> RemoteKeys {
        let text = format!(
            "[auth.v]\nalgorithms = ['ES256']\nissuer = 'https://a.example'\n\
             [auth.v.jwks]\n{bounds}"
        );
        let folder = std::path::Path::new("");
        let loaded = crate::config::parse("g.toml", folder, &text, &|_| None).expect("TOML");
        match &loaded.config.auth["v"].keys {
            Some(crate::config::KeySource::Url(source)) => source.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_found_where_more_was_allowed_is_not_handed_over() {
        let loose = Fetcher::new(&source("allow_http = true"), None, &Metrics::default());
        assert!(loose.fetches_for(&source("allow_http = true\nrefresh = '1h'")));
        assert!(!loose.fetches_for(&source("refresh = '1h'")));
    }
}
