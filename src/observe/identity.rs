//! What the credentials of requests turned out to be, and what became of sessions.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;

use super::series::{Described, family};
use crate::base::shard::Counters;

/// What a token turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenResult {
    /// Good, by its signature.
    Verified,
    /// Good, as it was before.
    Remembered,
    /// Over.
    Expired,
    /// Signed by nobody who may.
    Signature,
    /// Not what it must say, or no token at all.
    Claims,
    /// Good, and revoked.
    Revoked,
    /// Signed with a key that is not known.
    UnknownKey,
}

/// What an API key turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKeyResult {
    /// Good, by its record.
    Verified,
    /// Good, as it was less than a minute ago, or before the store went away.
    Remembered,
    /// Nobody's.
    Unknown,
    /// Over.
    Expired,
    /// Revoked or deleted.
    Revoked,
    /// No text that can be a key.
    Mistyped,
    /// The store did not say.
    Unread,
}

/// What became of the session of a request on a route that uses sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionOutcome {
    /// The upstream was told of it.
    Attached,
    /// The request names none.
    Missing,
    /// It names one that is not there.
    Ended,
    /// Nobody used it for too long.
    Idle,
    /// It is too old.
    Expired,
    /// The application did not renew it.
    NotRenewed,
    /// The application has suspended it.
    Suspended,
    /// What is stored is not what a session must be.
    Unreadable,
    /// The store did not say.
    Unknown,
}

/// What became of a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// It is the first one of a family.
    Begun,
    /// It was exchanged.
    Exchanged,
    /// It was exchanged before, within the grace.
    Repeated,
    /// It was exchanged before, and its family has ended.
    Reused,
    /// Its family or its user was revoked.
    Revoked,
    /// Nobody's, or over.
    Invalid,
    /// The store did not say.
    Away,
}

/// What became of a log-in or log-out at the gateway, or of what might have been another site's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginOutcome {
    /// The caller has a session, or tokens.
    LoggedIn,
    /// A session was ended by its own browser.
    LoggedOut,
    /// What the upstream has answered cannot be used.
    Unusable,
    /// The store did not take it.
    Away,
    /// Another site may have sent a request with the cookie of a session, or one that logs in.
    CrossSite,
}

const TOKEN_WORDS: [&str; 7] =
    ["verified", "remembered", "expired", "signature", "claims", "revoked", "unknown_key"];
const API_KEY_WORDS: [&str; 7] =
    ["verified", "remembered", "unknown", "expired", "revoked", "mistyped", "unread"];
const REFRESH_WORDS: [&str; 7] =
    ["begun", "exchanged", "repeated", "reused", "revoked", "invalid", "away"];
const LOGIN_WORDS: [&str; 5] = ["logged_in", "logged_out", "unusable", "away", "cross_site"];
const SESSION_WORDS: [&str; 9] = [
    "attached",
    "missing",
    "ended",
    "idle",
    "expired",
    "not_renewed",
    "suspended",
    "unreadable",
    "unknown",
];

/// The tokens of one verifier.
#[derive(Debug)]
pub struct TokenMeter {
    auth: String,
    results: Counters<7>,
}

impl TokenMeter {
    pub(super) fn new(auth: &str) -> Self {
        Self { auth: auth.to_owned(), results: Counters::default() }
    }

    /// The name of the verifier.
    pub(super) fn auth(&self) -> &str {
        &self.auth
    }

    /// One of its tokens was judged.
    pub fn count(&self, result: TokenResult) {
        self.results.add(result as usize, 1);
    }
}

/// API keys and sessions, and tokens that no verifier could be found for.
#[derive(Debug)]
pub struct IdentityMeter {
    pub(super) unknown: Arc<TokenMeter>,
    api_keys: Counters<7>,
    sessions: Counters<9>,
    refreshes: Counters<7>,
    logins: Counters<5>,
}

impl Default for IdentityMeter {
    fn default() -> Self {
        let unknown = Arc::new(TokenMeter::new("unknown"));
        let (api_keys, sessions) = (Counters::default(), Counters::default());
        let (refreshes, logins) = (Counters::default(), Counters::default());
        Self { unknown, api_keys, sessions, refreshes, logins }
    }
}

impl IdentityMeter {
    /// A token was judged; without a verifier, it is nobody's.
    pub fn token(&self, verifier: Option<&TokenMeter>, result: TokenResult) {
        verifier.unwrap_or(&self.unknown).count(result);
    }

    /// An API key was judged.
    pub fn api_key(&self, result: ApiKeyResult) {
        self.api_keys.add(result as usize, 1);
    }

    /// A session was looked for.
    pub fn session(&self, outcome: SessionOutcome) {
        self.sessions.add(outcome as usize, 1);
    }

    /// A refresh token was issued or shown.
    pub fn refresh(&self, outcome: RefreshOutcome) {
        self.refreshes.add(outcome as usize, 1);
    }

    /// Somebody has logged in or out, or was not let.
    pub fn login(&self, outcome: LoginOutcome) {
        self.logins.add(outcome as usize, 1);
    }

    /// Writes its families; `tokens` has those of the verifiers in force.
    pub(super) fn encode(
        &self,
        tokens: &[Arc<TokenMeter>],
        encoder: &mut DescriptorEncoder<'_>,
    ) -> fmt::Result {
        let tokens = tokens.iter().flat_map(|meter| {
            let told = told(&TOKEN_WORDS, &meter.results);
            told.map(|(word, sum)| ([("auth", meter.auth()), ("result", word)], sum))
        });
        let help = "Tokens that were judged, by verifier and result.";
        family(encoder, &Described::new("tokens", help), tokens)?;
        let api_keys = told(&API_KEY_WORDS, &self.api_keys);
        let api_keys = api_keys.map(|(word, sum)| ([("result", word)], sum));
        let help = "API keys that were judged, by result.";
        family(encoder, &Described::new("api_keys", help), api_keys)?;
        let sessions = told(&SESSION_WORDS, &self.sessions);
        let sessions = sessions.map(|(word, sum)| ([("outcome", word)], sum));
        let help = "Requests on routes that use sessions, by what became of the session.";
        family(encoder, &Described::new("sessions", help), sessions)?;
        let refreshes = told(&REFRESH_WORDS, &self.refreshes);
        let refreshes = refreshes.map(|(word, sum)| ([("outcome", word)], sum));
        let help = "Refresh tokens that were issued at a log-in or shown, by what became of them.";
        family(encoder, &Described::new("refreshes", help), refreshes)?;
        let logins = told(&LOGIN_WORDS, &self.logins);
        let logins = logins.map(|(word, sum)| ([("outcome", word)], sum));
        let help = "Log-ins and log-outs at the gateway, by what became of them.";
        family(encoder, &Described::new("logins", help), logins)
    }
}

/// All words, once one was counted: nobody sees the first of something in a series that begins
/// with it.
fn told<'c, const N: usize>(
    words: &'static [&'static str; N],
    counts: &'c Counters<N>,
) -> impl Iterator<Item = (&'static str, ConstCounter<u64>)> + use<'c, N> {
    let is_used = (0..N).any(|index| counts.sum(index) > 0);
    let words = words.iter().enumerate().filter(move |_| is_used);
    words.map(|(index, word)| (*word, ConstCounter::new(counts.sum(index))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_word() {
        for (outcome, word) in [
            (TokenResult::Verified as usize, "verified"),
            (TokenResult::Claims as usize, "claims"),
            (TokenResult::UnknownKey as usize, "unknown_key"),
        ] {
            assert_eq!(TOKEN_WORDS[outcome], word);
        }
        assert_eq!(API_KEY_WORDS[ApiKeyResult::Mistyped as usize], "mistyped");
        assert_eq!(API_KEY_WORDS[ApiKeyResult::Unread as usize], "unread");
        assert_eq!(SESSION_WORDS[SessionOutcome::NotRenewed as usize], "not_renewed");
        assert_eq!(SESSION_WORDS[SessionOutcome::Unknown as usize], "unknown");
        assert_eq!(REFRESH_WORDS[RefreshOutcome::Reused as usize], "reused");
        assert_eq!(REFRESH_WORDS[RefreshOutcome::Away as usize], "away");
        assert_eq!(LOGIN_WORDS[LoginOutcome::Unusable as usize], "unusable");
        assert_eq!(LOGIN_WORDS[LoginOutcome::CrossSite as usize], "cross_site");
    }
}
