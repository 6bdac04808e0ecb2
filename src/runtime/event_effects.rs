//! What events withdraw and revoke, whoever brought them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::events::{Event, EventsSeen, Poison};
use super::{Gateway, Wrote};
use crate::base::units::DURATION_MAX;
use crate::config::OnGap;
use crate::events::{Revoke, RevokeKind, Skipped};
use crate::plan::EventRule;
use crate::store::{Revocation, StoreError};

/// Added to a revocation's life beyond what an event says, for clocks that differ.
const REVOCATION_MARGIN: Duration = Duration::from_secs(60 * 60);
/// How many epochs are changed in one step.
const EPOCHS_AT_ONCE: usize = 256;
/// Longest part of an event that is shown to operators, in characters.
const SHOWN_CHARS_MAX: usize = 80;

impl Gateway {
    /// Does what events say: what they withdraw is withdrawn and what they revoke is revoked when
    /// this returns, at every gateway. To do it again changes nothing.
    ///
    /// # Errors
    /// The store has not taken all of it: they are to be brought again.
    pub async fn take_events(&self, name: &str, events: &[Event]) -> Result<(), StoreError> {
        let running = self.running();
        let Some(rule) = running.plan.events.get(name) else { return Ok(()) };
        let seen = self.events.of(name);
        let (mut epochs, mut revocations, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for event in events {
            let effects = match &event.said {
                Ok(fields) => match rule.rule.effects(fields) {
                    Some(effects) => effects,
                    None => {
                        ends.push((event, "ignored", None));
                        continue;
                    }
                },
                Err(skipped) => {
                    ends.push((event, "poison", Some(skipped.clone())));
                    continue;
                }
            };
            let withdrawal = running.plan.withdrawal(rule, effects);
            epochs.extend(withdrawal.epochs);
            revocations.extend(withdrawal.revoke.map(|it| (event.told_ms, it)));
            let outcome = if withdrawal.skipped.is_some() { "poison" } else { "taken" };
            ends.push((event, outcome, withdrawal.skipped));
        }
        // First: whoever is out is not served what he might have seen.
        for (told_ms, (key, revoke)) in &revocations {
            self.revoke_by_event(*told_ms, key, revoke).await?;
        }
        self.withdraw(rule, crate::plan::distinct(epochs)).await?;
        for (event, outcome, skipped) in ends {
            seen.meter.count(outcome);
            if let Some(why) = skipped {
                note_poison(name, &seen, event, &why);
            }
        }
        Ok(())
    }

    /// Events were missed, or may have been: all goes that one of them could have named.
    ///
    /// # Errors
    /// The store has not taken it.
    pub async fn events_missed(&self, name: &str) -> Result<(), StoreError> {
        let running = self.running();
        let Some(rule) = running.plan.events.get(name) else { return Ok(()) };
        if rule.on_gap == OnGap::Purge {
            self.withdraw(rule, running.plan.withdrawn_by_gap(rule)).await?;
        }
        self.events.of(name).meter.gaps.inc();
        tracing::warn!(
            events = name,
            purged = rule.on_gap == OnGap::Purge,
            revokes = rule.rule.revokes(),
            "events may have been missed\n    help: what they could have purged is purged, unless \
             on_gap says otherwise; what they could have revoked is not"
        );
        Ok(())
    }

    /// Purges once more what is due for that.
    pub fn purge_again(&self) {
        let due = self.events.due();
        if !due.is_empty() {
            self.cache.invalidate_later(crate::plan::distinct(due));
        }
    }

    async fn withdraw(&self, rule: &EventRule, epochs: Vec<String>) -> Result<(), StoreError> {
        if epochs.is_empty() {
            return Ok(());
        }
        // Readers may be behind what has changed, and are not to say anew what is withdrawn.
        if let Some(wrote) = Wrote::by_anybody(&self.running().plan)
            && self.pools.mark(&wrote).await.is_err()
        {
            self.pools.invalidate_again(&epochs);
        }
        // What is done of it is done, and to do it again changes nothing.
        for some in epochs.chunks(EPOCHS_AT_ONCE) {
            self.cache.purge_now(some).await?;
        }
        if !rule.again.is_zero() {
            self.events.again(rule.again, epochs, self.cache.base_epoch());
        }
        Ok(())
    }

    async fn revoke_by_event(
        &self,
        told_ms: u64,
        key: &str,
        revoke: &Revoke,
    ) -> Result<(), StoreError> {
        let stream_ttl = self.running().plan.config.admin.revocation_ttl;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let left = |until: u64| {
            Duration::from_secs(until.saturating_sub(now)).saturating_add(REVOCATION_MARGIN)
        };
        let ttl = revoke.until.map_or(stream_ttl, left).min(DURATION_MAX);
        // As of when it was told, and never later than now: who logs in after that stays in.
        let next = (told_ms / 1000).min(now).saturating_add(1);
        let is_sub = revoke.kind == RevokeKind::Sub;
        let not_before = is_sub.then(|| i64::try_from(next).unwrap_or(i64::MAX));
        // An old event may come behind a newer revocation.
        self.store.revoke_more(Revocation { key, not_before, ttl, stream_ttl }).await
    }
}

fn note_poison(name: &str, seen: &EventsSeen, event: &Event, why: &Skipped) {
    let id: String = event.id.chars().take(SHOWN_CHARS_MAX).collect();
    let why = why.to_string();
    tracing::warn!(events = name, id, why, "an event could not be carried out, or not all of it");
    seen.is_poisoned(Poison { id, told_ms: event.told_ms, why });
}
