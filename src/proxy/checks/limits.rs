//! What the limits ask of the store, and what its answers mean for them: whom they count, what is
//! given back, and what they would say to a request that is only looked at.

use super::{Checks, Mode};
use crate::limit::{self, Exceeded, Receipt, SlotGuard, Taken};
use crate::proxy::asking::of_limits;
use crate::proxy::forecast::Forecasts;
use crate::proxy::record::Record;

impl<'a> Checks<'a, '_> {
    /// A slot that was given or refused comes no more.
    pub(super) fn on_leases(&mut self) {
        if let (Some(Ok(_)), Some(guard)) = (&self.answers.leases, &mut self.guard) {
            guard.on_reply();
        }
    }

    /// Whether the charges were made for another principal than the answer says: an id that the
    /// store does not have counts for the address, one that it has for the session.
    pub(super) fn is_miscounted(&mut self) -> bool {
        let (Some(id), Some(Ok(found))) = (&self.named, &self.answers.session) else {
            return false;
        };
        let is_there = found.is_some();
        if self.mode == Mode::Charge {
            self.request.gateway().limits.state.sessions.note(id, is_there);
        }
        let was_wrong = self.counts_session != is_there;
        self.counts_session = is_there;
        was_wrong && self.request.route.limits.asks_by_session()
    }

    /// Gives back what was charged for the wrong principal, and asks again for the right one. It
    /// comes to that once for each session and node, and when a session has ended.
    pub(super) async fn recount(&mut self, record: &mut Record) {
        let Self { request, head, mode, .. } = *self;
        let (gateway, keys) = (request.gateway(), &request.plan().keys);
        if mode == Mode::Charge
            && let (Some(charges), Some(Ok(taken))) = (&self.charges, &self.answers.charges)
            && let Some(undo) = charges.undo(&Taken::by_store(taken))
        {
            gateway.limits.correct_now(undo).await;
        }
        // The slots too, before others are asked for: the request must not stand in its own way.
        if let Some(guard) = self.guard.take() {
            guard.give_back().await;
        }
        let policy = &request.route.limits;
        let facts = request.facts(head, counted(&self.named, self.counts_session));
        self.charges = limit::RateCheck::of(policy, keys, &facts, true);
        self.slots = limit::SlotCheck::of(policy, &gateway.limits.state, keys, &facts);
        self.hold();
        let second = if mode == Mode::Charge {
            let questions = of_limits(self.questions(None));
            let (answers, took) = gateway.ask(&questions).await;
            record.note_store_time(took, self.request.received);
            if let (Some(charges), Some(took)) = (&mut self.charges, took) {
                charges.were_asked_at(took.began);
            }
            answers
        } else {
            let peek = self.peek();
            gateway.store.ask(&of_limits(self.questions(peek.as_ref()))).await
        };
        (self.answers.charges, self.answers.leases) = (second.charges, second.leases);
        self.on_leases();
    }

    /// Do this node's own limits by session allow it?
    pub(super) fn charge_by_session(&mut self) -> Result<(), Exceeded> {
        let Self { request, head, mode, .. } = *self;
        let policy = &request.route.limits;
        if mode == Mode::Peek || !policy.uses_session() {
            return Ok(());
        }
        let (state, keys) = (&request.gateway().limits.state, &request.plan().keys);
        let facts = request.facts(head, counted(&self.named, self.counts_session));
        let charged = limit::charge_by_session(policy, state, keys, &facts, &mut self.notes);
        if charged.is_err() {
            self.undo(self.taken());
        }
        charged
    }

    /// What the store charged.
    pub(super) fn taken(&self) -> Option<Taken<'_>> {
        let reply = self.answers.charges.as_ref()?.as_ref().ok()?;
        Some(Taken::by_store(reply))
    }

    /// Gives back what was charged for a request that ends here.
    pub(super) fn undo(&self, taken: Option<Taken<'_>>) {
        if self.mode == Mode::Charge
            && let (Some(charges), Some(taken)) = (&self.charges, taken)
        {
            self.request.gateway().limits.correct(charges.undo(&taken));
        }
    }

    /// Do the limits allow it? What they charged may change with the answer, and its slots are held
    /// until the response has ended.
    pub(super) fn admit(&mut self) -> Result<(Option<Receipt<'a>>, Option<SlotGuard>), Exceeded> {
        let outage = self.request.plan().on_outage.limits;
        if let Some(forecasts) = &self.forecasts {
            forecasts.admit(outage)?;
            return Ok((None, None));
        }
        let state = &self.request.gateway().limits.state;
        let taken = match (&self.charges, &self.answers.charges) {
            (Some(charges), Some(reply)) => charges.admit(reply, outage, state, &mut self.notes)?,
            _ => None,
        };
        let mut guard = self.guard.take();
        if let (Some(slots), Some(guard)) = (&self.slots, &mut guard) {
            let reply = self.answers.leases.as_ref();
            let admitted = guard.admit(slots, reply, outage, &mut self.notes);
            if let Err(exceeded) = admitted {
                self.undo(taken);
                return Err(exceeded);
            }
        }
        let receipt = self.charges.as_ref().zip(taken);
        Ok((receipt.and_then(|(charges, taken)| charges.receipt(&taken)), guard))
    }

    /// What the answers of a store that only looked mean.
    pub(super) fn forecast(&mut self) -> Forecasts<'a> {
        let Self { request, head, is_identified, .. } = *self;
        let windows = self.charges.as_ref().zip(self.answers.charges.take());
        let slots = self.slots.as_ref().map(|slots| (slots, self.answers.leases.take()));
        let facts = request.facts(head, counted(&self.named, self.counts_session));
        Forecasts::of(&request, &facts, is_identified, windows, slots)
    }
}

/// The id by which limits count a session.
fn counted(named: &Option<String>, counts_session: bool) -> Option<&str> {
    named.as_deref().filter(|_| counts_session)
}
