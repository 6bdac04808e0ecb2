//! Items of queues, and claims on them.

use bytes::Bytes;

use super::DeliveryId;

/// Where an item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ItemState {
    /// Its turn has come, or comes after a delay that was asked for.
    Waiting,
    /// Waits behind another one with the same order key.
    Behind,
    /// Somebody has claimed it.
    Delivering,
    /// Waits to be tried again.
    Retrying,
    /// Done.
    Done,
    /// Given up; kept for somebody to look at.
    Dead,
    /// Cancelled before it was done.
    Cancelled,
}

impl ItemState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Behind,
        Self::Delivering,
        Self::Retrying,
        Self::Done,
        Self::Dead,
        Self::Cancelled,
    ];

    /// The word for people and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Behind => "behind",
            Self::Delivering => "delivering",
            Self::Retrying => "retrying",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of a word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }

    /// The letter in a record.
    pub(in crate::store) fn letter(self) -> &'static str {
        match self {
            Self::Waiting => "w",
            Self::Behind => "b",
            Self::Delivering => "d",
            Self::Retrying => "r",
            Self::Done => "k",
            Self::Dead => "x",
            Self::Cancelled => "c",
        }
    }

    /// The state of a letter.
    pub(in crate::store) fn of_letter(letter: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.letter().as_bytes() == letter)
    }

    /// Whether nothing more will happen to it by itself.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Done | Self::Dead | Self::Cancelled)
    }
}

/// What tells one claim from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The entry of the stream.
    pub entry: String,
    /// The item.
    pub id: DeliveryId,
    /// The fencing token: how often the item has been claimed.
    pub token: u64,
}

/// An item that is the caller's for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What it is settled by.
    pub hold: Hold,
    /// How often a holder has gone without a word.
    pub stalls: u32,
    /// How often it failed in a way that counts.
    pub failures: u32,
    /// As it was accepted.
    pub head: Bytes,
    /// The body; nothing where the store has lost it.
    pub body: Option<Bytes>,
    /// Whose it is.
    pub owner: String,
    /// Unix ms.
    pub accepted_ms: u64,
    /// Unix ms after which it is not tried again.
    pub give_up_ms: u64,
    /// The digest of its order key.
    pub order: Option<String>,
}

/// The answer to a delivery, to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Opaque here.
    pub head: Bytes,
    /// As much as is kept.
    pub body: Bytes,
}

/// One item, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its id.
    pub id: DeliveryId,
    /// Where it stands.
    pub state: ItemState,
    /// Whose it is.
    pub owner: String,
    /// Unix ms.
    pub accepted_ms: u64,
    /// Unix ms when its turn came or comes.
    pub due_ms: u64,
    /// Unix ms when it ended; nothing while it is open.
    pub settled_ms: Option<u64>,
    /// Unix ms after which it is not tried again.
    pub give_up_ms: u64,
    /// How often it failed in a way that counts.
    pub failures: u32,
    /// How often a holder has gone.
    pub stalls: u32,
    /// How often it was claimed; the token of its newest claim.
    pub claims: u64,
    /// Who claimed it last; empty where nobody did.
    pub node: String,
    /// Status of the last answer; 0 where there was none.
    pub status: u16,
    /// What went wrong last; empty where nothing did.
    pub error: String,
    /// Bytes of its body.
    pub bytes: u64,
    /// What is needed to make the request again; empty once it is done or cancelled.
    pub head: Bytes,
    /// The digest of its order key.
    pub order: Option<String>,
}

/// One page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ItemPage {
    /// The oldest first; [`super::QUEUE_PAGE`] at most.
    pub items: Vec<Item>,
    /// What to ask for next; nothing at the end.
    pub next: Option<DeliveryId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_letter_and_a_word_of_its_own() {
        for state in ItemState::ALL {
            assert_eq!(ItemState::of_letter(state.letter().as_bytes()), Some(state));
            assert_eq!(ItemState::of_word(state.word()), Some(state));
        }
    }
}
