//! Events as they are meant: their rules, and who signs them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::names::names;
use super::own_answer;
use crate::base::http::authority::Authority;
use crate::config::{self, Config, EventSource, OnGap, Problems, StoreUrl, StoreUse};
use crate::events::{Rule, Signer};

/// One `[events.NAME]`.
#[derive(Debug, Clone)]
pub struct EventRule {
    /// Where they are heard.
    pub from: EventSource,
    /// The upstream whose servers tell of them, where these are of NATS.
    pub upstream: Option<String>,
    /// Which count, and what they change.
    pub rule: Rule,
    /// Who may sign them.
    pub signer: Signer,
    /// The host whose paths are meant; all, where there is none.
    pub(super) host: Option<Authority>,
    /// The verifier whose callers are meant.
    pub(super) auth: Option<String>,
    /// When the same is purged once more; zero: never.
    pub again: Duration,
    /// What a gap means.
    pub on_gap: OnGap,
}

/// Compiles all of them. `qualified`: callers of several verifiers may have the same names.
pub(super) fn compile(
    config: &Config,
    qualified: bool,
    problems: &mut Problems,
) -> BTreeMap<String, EventRule> {
    let store = config.store.used_for(StoreUse::Main);
    let mut rules = BTreeMap::new();
    for (name, written) in &config.events {
        let mut problem = |key: &str, what: String, remedy: &str| {
            let at = if key.is_empty() { String::new() } else { format!(".{key}") };
            problems.push(format!("events.{name}{at}"), what, remedy.to_owned());
        };
        match (&written.from, &store.url) {
            (EventSource::Webhook | EventSource::Nats(_) | EventSource::Jetstream { .. }, _) => {}
            (_, StoreUrl::Memory) => {
                let what = "there is no Redis to hear them from: the store is embedded".to_owned();
                problem("from", what, "name a Redis in store.url, or write \"webhook\"");
            }
            (EventSource::Keyspace(_), StoreUrl::Cluster { .. }) => {
                let what = "each server of a Redis Cluster tells of its own keys only".to_owned();
                problem("from", what, "have the application write to a stream");
            }
            _ => {}
        }
        if let Some(auth) = &written.auth
            && !config.auth.contains_key(auth)
        {
            let known = names(config.auth.keys(), "[auth.NAME]");
            problem(
                "auth",
                format!("no verifier is named {auth:?}"),
                &format!("name one of {known}"),
            );
        }
        if written.revoke.is_some() && written.auth.is_none() && qualified {
            let what = "several verifiers share a route, and may give the same names".to_owned();
            problem("revoke", what, "add auth = \"NAME\", the verifier whose callers are meant");
        }
        over_nats(config, written, &mut problem);
        let host = host(written, &mut problem);
        let signer = signer(written, &mut problem);
        let rule = rule(written, &mut problem);
        let (again, on_gap) = (written.again, written.on_gap);
        let (from, auth) = (written.from.clone(), written.auth.clone());
        let upstream = written.upstream.clone();
        let rule = EventRule { from, upstream, rule, signer, host, auth, again, on_gap };
        rules.insert(name.clone(), rule);
    }
    rules
}

type Report<'a> = dyn FnMut(&str, String, &str) + 'a;

/// Whose servers tell of them, where these are of NATS.
fn over_nats(config: &Config, written: &config::Events, problem: &mut Report<'_>) {
    let over_nats = || config.upstreams.iter().filter(|(_, upstream)| upstream.nats.is_some());
    match &written.upstream {
        None if written.from.is_nats() => {
            let what = "it does not say whose servers tell of them".to_owned();
            problem("upstream", what, "add upstream = \"NAME\", one of those with nats");
        }
        Some(_) if !written.from.is_nats() => {
            let what = "only events over NATS have an upstream".to_owned();
            problem("upstream", what, "remove it, or write from = \"nats:SUBJECT\"");
        }
        Some(name) if !over_nats().any(|(known, _)| known == name) => {
            let known = names(over_nats().map(|(name, _)| name), "[upstreams.NAME] with nats");
            let what = format!("no upstream over NATS is named {name:?}");
            problem("upstream", what, &format!("name one of {known}"));
        }
        _ => {}
    }
}

fn host(written: &config::Events, problem: &mut Report<'_>) -> Option<Authority> {
    let text = written.host.as_ref()?;
    let host = Authority::parse(text.as_bytes());
    if host.is_none() {
        problem("host", format!("{text:?} is no host"), "write one like \"shop.example.com\"");
    }
    host
}

fn signer(written: &config::Events, problem: &mut Report<'_>) -> Signer {
    let is_webhook = written.from == EventSource::Webhook;
    if is_webhook && !written.names_secrets {
        let what = "anybody could send webhooks that nobody signs".to_owned();
        problem("secrets", what, "add secrets = [\"env:WEBHOOK_SECRET\"]");
    }
    if !is_webhook && !written.secrets.is_empty() {
        let what = "only webhooks are signed".to_owned();
        problem("secrets", what, "remove it, or write from = \"webhook\"");
    }
    Signer::new(&written.secrets).unwrap_or_else(|what| {
        problem("secrets", what.to_owned(), "write one like \"whsec_\" and 24 bytes in base64");
        Signer::default()
    })
}

fn rule(written: &config::Events, problem: &mut Report<'_>) -> Rule {
    let mut rule = Rule::new(&written.when);
    for text in &written.purge {
        if let Err(what) = rule.purge(text) {
            let what = format!("{text:?} {what}");
            problem("purge", what, "write one like \"/products/{id}\" or \"tag:product-{id}\"");
        }
    }
    if let Some(text) = &written.revoke
        && let Err(what) = rule.revoke(text, written.until.as_deref())
    {
        let what = format!("{text:?} {what}");
        problem("revoke", what, "write one like \"sub:{user_id}\", \"sid:{id}\" or \"jti:{id}\"");
    }
    if written.until.is_some() && written.revoke.is_none() {
        problem("until", "nothing is revoked".to_owned(), "remove it, or add revoke");
    }
    rule
}

/// Routes whose requests bring events.
pub(super) fn check_route(
    config: &Config,
    written: &config::Route,
    at: &impl Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<Box<[String]>> {
    if written.answers_events() {
        own_answer::alone(written, at, problems);
    }
    let mut problem = |key: &str, what: String, remedy: &str| {
        problems.push(at(key), what, remedy.to_owned());
    };
    if !written.answers_events() {
        if !written.events.is_empty() {
            let what = "its requests bring no events".to_owned();
            problem("events", what, "add answers = \"events\", or remove it");
        }
        return None;
    }
    if written.methods.iter().any(|method| *method != http::Method::POST) {
        let what = "webhooks come by POST".to_owned();
        problem("methods", what, "write methods = [\"POST\"], or leave it out");
    }
    if written.events.is_empty() {
        let what = "it does not say which events its requests bring".to_owned();
        problem("events", what, "add events = [\"NAME\"], one of [events]");
    }
    for name in &written.events {
        let is_webhook =
            config.events.get(name).is_some_and(|events| events.from == EventSource::Webhook);
        if !is_webhook {
            let webhooks = config.events.iter().filter(|(_, it)| it.from == EventSource::Webhook);
            let known =
                names(webhooks.map(|(name, _)| name), "[events.NAME] with from = \"webhook\"");
            let what = format!("no events by webhook are named {name:?}");
            problem("events", what, &format!("name one of {known}"));
        }
    }
    Some(written.events.clone().into())
}
