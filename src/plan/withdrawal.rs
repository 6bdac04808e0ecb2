//! What an event withdraws and revokes, in the store's keys.

use std::borrow::Cow;

use http::uri::PathAndQuery;

use super::Plan;
use super::events::EventRule;
use super::purging::{distinct, sites};
use crate::base::http::path::{Reading, canonical};
use crate::cache::{Scope, is_tag};
use crate::events::{Effects, Revoke, RevokeKind, Skipped};
use crate::store::keys::Keys;

/// What an event withdraws and revokes, as the store has it.
#[derive(Debug, Default)]
pub struct Withdrawal {
    /// The epochs to change.
    pub epochs: Vec<String>,
    /// What is revoked, and under which key.
    pub revoke: Option<(String, Revoke)>,
    /// Why something of it was left out.
    pub skipped: Option<Skipped>,
}

impl Plan {
    /// What these effects of an event withdraw and revoke.
    pub fn withdrawal(&self, rule: &EventRule, mut effects: Effects) -> Withdrawal {
        let mut epochs = Vec::new();
        for purge in std::mem::take(&mut effects.paths) {
            match self.canonical_to_purge(&purge.path) {
                Some(path) if self.is_read_wider(&path) => {
                    effects.note(Some(Skipped::Parameter));
                }
                Some(path) => epochs.extend(self.epochs_of_path(rule, &path, purge.and_below)),
                None => effects.note(Some(Skipped::Unusable("path"))),
            }
        }
        for tag in std::mem::take(&mut effects.tags) {
            if is_tag(&tag) {
                epochs.extend(
                    self.config.upstreams.keys().flat_map(|site| {
                        Scope::Tag { site, tag: tag.as_bytes() }.epochs(&self.keys)
                    }),
                );
            } else {
                effects.note(Some(Skipped::Unusable("tag")));
            }
        }
        let revoke = effects.revoke.map(|revoke| {
            let keys = rule.auth.as_ref().and_then(|name| self.store_keys(name));
            (revoked_by(keys.unwrap_or(&self.keys), &revoke), revoke)
        });
        Withdrawal { epochs: distinct(epochs), revoke, skipped: effects.skipped }
    }

    /// What goes where events were missed: all that one of them could have named.
    pub fn withdrawn_by_gap(&self, rule: &EventRule) -> Vec<String> {
        if rule.rule.has_tags() {
            return Scope::All.epochs(&self.keys);
        }
        let names = rule.rule.reach().flat_map(|path| match self.canonical_to_purge(path) {
            Some(path) => self.names_to_purge(&path),
            None => vec!["/".to_owned()],
        });
        distinct(names.map(|name| Scope::Below(&name).epoch(&self.keys)))
    }

    fn canonical_to_purge(&self, path: &str) -> Option<String> {
        let given: PathAndQuery = path.parse().ok()?;
        let path = canonical(&given, self.guard.encoded_slash).ok()?;
        Some(path.path().to_owned())
    }

    /// Whether an upstream that leaves parameters out reads a path above this one.
    fn is_read_wider(&self, path: &str) -> bool {
        let exact = Reading::default();
        let count = exact.segments(path).count();
        self.upstreams.iter().map(|(_, upstream)| upstream.paths).any(|reading| {
            reading.segments(path).count() < count
                || (reading.ends_in_slash(path) && !exact.ends_in_slash(path))
        })
    }

    /// Whether any event purges one path on every host.
    pub fn purges_paths_alone(&self) -> bool {
        self.events.values().any(|rule| rule.host.is_none() && rule.rule.has_paths_alone())
    }

    fn epochs_of_path(&self, rule: &EventRule, path: &str, and_below: bool) -> Vec<String> {
        let names = self.names_to_purge(path);
        let names = names.iter().map(String::as_str);
        match &rule.host {
            _ if and_below => names.map(|name| Scope::Below(name).epoch(&self.keys)).collect(),
            None => names.map(|name| Scope::Alone(name).epoch(&self.keys)).collect(),
            Some(host) => {
                let sites = sites(host);
                let of = |path| {
                    let at = |site: &Cow<'_, str>| Scope::Path { site, path }.epoch(&self.keys);
                    sites.iter().map(at).collect::<Vec<_>>()
                };
                names.flat_map(of).collect()
            }
        }
    }
}

fn revoked_by(keys: &Keys, revoke: &Revoke) -> String {
    match revoke.kind {
        RevokeKind::Jti => keys.blacklist(&revoke.value),
        RevokeKind::Sid => keys.blacklist_session(&revoke.value),
        RevokeKind::Sub => keys.not_before(&revoke.value),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;
    use crate::events::Fields;

    #[test]
    fn a_parameter_that_an_upstream_leaves_out_purges_nothing_above() {
        let text = "[store]\nurl = \"redis://127.0.0.1:1\"\n\
                    [upstreams.shop]\nservers = [\"http://127.0.0.1:1\"]\n\
                    paths = [\"parameters\"]\n\
                    [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n\
                    [events.products]\nfrom = \"stream:s\"\npurge = [\"/products/{id}/*\"]\n";
        let loaded = config::parse("t.toml", Path::new("."), text, &|_| None).unwrap();
        let plan = Plan::compile(loaded.config).unwrap();
        let rule = &plan.events["products"];
        for (id, is_left_out) in [("1", false), ("1;x", false), (";", true), (";x", true)] {
            let fields = Fields::from([("id".to_owned(), id.to_owned())]);
            let withdrawal = plan.withdrawal(rule, rule.rule.effects(&fields).unwrap());
            assert_eq!(withdrawal.epochs.is_empty(), is_left_out, "{id}");
            assert_eq!(withdrawal.skipped.is_some(), is_left_out, "{id}");
        }
    }
}
