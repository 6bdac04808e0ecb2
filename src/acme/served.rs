//! The certificates that this gateway has, and how each of them is doing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::failure::Failure;
use super::records;
use super::vault::Vault;
use crate::tls::{Issued, Live};

/// How one certificate is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Its names.
    pub names: Vec<String>,
    /// `due`, `leased`, `ordered`, `answered`, `issued`, `fresh`, or what it waits for: `waiting`
    /// (for another gateway), `paused` (after a failure), `store`.
    pub state: &'static str,
    /// Why.
    pub why: String,
    /// The certificate's dates, in Unix seconds; nothing while there is none.
    pub dates: Option<(i64, i64)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Served {
    /// Whose handshakes show them.
    live: Mutex<Option<Arc<Live>>>,
    slots: Mutex<Vec<Slot>>,
}

#[derive(Debug)]
struct Slot {
    names: Vec<String>,
    state: &'static str,
    why: String,
    held: Option<Held>,
    /// The version that could not be read.
    refused: Option<String>,
}

/// A certificate as it is stored and as it is shown.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) record: records::Certificate,
    pub(super) issued: Issued,
}

impl Served {
    pub(super) fn new(sets: &[Vec<String>]) -> Self {
        let slot = |names: &Vec<String>| Slot {
            names: names.clone(),
            state: "starting",
            why: String::new(),
            held: None,
            refused: None,
        };
        let slots = Mutex::new(sets.iter().map(slot).collect());
        Self { live: Mutex::default(), slots }
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what another one has of the same names, so that nothing is missing in between.
    pub(super) fn inherit(&self, other: &Self) {
        let others = other.slots();
        for slot in self.slots().iter_mut() {
            let known = others.iter().find(|it| it.names.first() == slot.names.first());
            slot.held = known.and_then(|known| known.held.clone());
        }
    }

    /// Shows them in the handshakes of `live` from now on.
    pub(super) fn show_in(&self, live: &Arc<Live>) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(live));
        self.show();
    }

    fn show(&self) {
        // Held until they are installed, so that an older list never follows a newer one.
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(live) = &*live else { return };
        let slots = self.slots();
        let held = slots.iter().filter_map(|slot| slot.held.as_ref());
        let issued = held.map(|held| held.issued.clone()).collect();
        drop(slots);
        live.install(issued);
    }

    /// The certificate that is shown for a set of names.
    pub(super) fn held(&self, at: usize) -> Option<Held> {
        self.slots().get(at)?.held.clone()
    }

    /// Shows a stored certificate, unless it is shown already. `place` is where it is stored.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn adopt(
        &self,
        at: usize,
        record: records::Certificate,
        (vault, place): (&Vault, &str),
    ) -> Result<(), Failure> {
        let is_known = |held: &Held| held.record.version == record.version;
        if self.held(at).as_ref().is_some_and(is_known) {
            return Ok(());
        }
        let key = vault.wrapping.unwrap(place, &record.key)?;
        let issued = Issued::read(record.chain.as_bytes(), &key).map_err(Failure::Unusable)?;
        if let Some(slot) = self.slots().get_mut(at) {
            slot.held = Some(Held { record, issued });
        }
        self.show();
        Ok(())
    }

    /// Whether it is the first time that this stored version could not be read.
    pub(super) fn is_first_refusal(&self, at: usize, version: String) -> bool {
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(at) else { return false };
        let is_first = slot.refused.as_ref() != Some(&version);
        slot.refused = Some(version);
        is_first
    }

    /// Says how a certificate is doing, once for each change.
    pub(super) fn note(&self, at: usize, state: &'static str, why: &str) {
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(at) else { return };
        let is_news = slot.state != state;
        (slot.state, slot.why) = (state, why.to_owned());
        let name = slot.names.first().cloned().unwrap_or_default();
        drop(slots);
        if is_news {
            tracing::info!(name, state, why, "a certificate by ACME");
        }
    }

    /// Whether some set has this name, in any case.
    pub(super) fn has_name(&self, name: &str) -> bool {
        let is_it = |own: &String| own.eq_ignore_ascii_case(name);
        self.slots().iter().any(|slot| slot.names.iter().any(is_it))
    }

    /// How all of them are doing.
    pub(super) fn states(&self) -> Vec<State> {
        let state = |slot: &Slot| State {
            names: slot.names.clone(),
            state: slot.state,
            why: slot.why.clone(),
            dates: slot.held.as_ref().map(|held| held.issued.dates()),
        };
        self.slots().iter().map(state).collect()
    }
}
