//! Tickets by which clients resume sessions (RFC 5077, RFC 8446 §4.6.1), under keys that a fleet
//! may share. Each key is one epoch's; the key of the epoch before opens tickets too. A ticket is
//! bound to what was asked of its client, so that no other policy opens it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use rustls::server::ProducesTickets;

/// How long tickets are made with one key.
const EPOCH: Duration = Duration::from_secs(12 * 3600);
/// The key itself, and what tickets call it by, in bytes.
const KEY_BYTES: usize = 32;
const NAME_BYTES: usize = 16;
/// Most keys beside the present one: this gateway's own and the fleet's, of this epoch and the one
/// before, and one to spare.
const FORMER_MAX: usize = 4;
/// Longest ticket that is opened, in bytes: a session with a client's chain of certificates.
const TICKET_BYTES_MAX: usize = 64 * 1024;

/// One epoch's key.
pub struct TicketKey {
    epoch: u64,
    /// A digest, which tells nothing of the key.
    name: [u8; NAME_BYTES],
    bytes: [u8; KEY_BYTES],
    cipher: RandomizedNonceKey,
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl TicketKey {
    /// A random one; nothing where cryptography fails.
    pub fn random(epoch: u64) -> Option<Self> {
        let mut bytes = [0; KEY_BYTES];
        aws_lc_rs::rand::fill(&mut bytes).ok()?;
        Self::read(epoch, &bytes)
    }

    /// One whose bytes are known; nothing where there are too many or too few.
    pub fn read(epoch: u64, bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; KEY_BYTES] = bytes.try_into().ok()?;
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &bytes).ok()?;
        let mut name = [0; NAME_BYTES];
        let digest = digest(&SHA256, &[b"the name of a ticket's key", &bytes[..]].concat());
        name.copy_from_slice(digest.as_ref().get(..NAME_BYTES)?);
        Some(Self { epoch, name, bytes, cipher })
    }

    /// The secret bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The number of the epoch in which a moment lies, in milliseconds since 1970.
pub fn epoch_at(unix_ms: u64) -> u64 {
    unix_ms / u64::try_from(EPOCH.as_millis()).unwrap_or(u64::MAX)
}

/// How long an epoch's key opens tickets, from a moment of that epoch in milliseconds since 1970:
/// until the next epoch ends.
pub fn key_ttl(unix_ms: u64) -> Duration {
    let length = u64::try_from(EPOCH.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(2 * length - unix_ms % length)
}

/// The keys of a gateway's tickets: its own until it is told those of its fleet.
#[derive(Debug)]
pub struct TicketKeys(ArcSwap<Ring>);

#[derive(Debug, Clone)]
struct Ring {
    /// Makes tickets, and opens them.
    present: Arc<TicketKey>,
    /// Open them too.
    former: Vec<Arc<TicketKey>>,
}

impl Ring {
    fn all(&self) -> impl Iterator<Item = &Arc<TicketKey>> {
        std::iter::once(&self.present).chain(&self.former)
    }

    fn has(&self, key: &TicketKey) -> bool {
        self.all().any(|known| known.name == key.name)
    }
}

impl TicketKeys {
    /// A random key of the gateway's own; nothing where cryptography fails.
    pub fn new() -> Option<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = epoch_at(u64::try_from(now.as_millis()).unwrap_or_default());
        let (present, former) = (Arc::new(TicketKey::random(epoch)?), Vec::new());
        Some(Self(ArcSwap::from_pointee(Ring { present, former })))
    }

    /// Takes the keys of another configuration, so that its tickets go on being opened.
    pub fn inherit(&self, other: &Self) {
        self.0.store(other.0.load_full());
    }

    /// The key that makes tickets now.
    pub fn present(&self) -> Arc<TicketKey> {
        Arc::clone(&self.0.load().present)
    }

    /// Sees to it that tickets are made with a key of this epoch: where there is none yet, with a
    /// random one of the gateway's own.
    pub fn turn(&self, epoch: u64) {
        if self.0.load().present.epoch != epoch
            && let Some(key) = TicketKey::random(epoch)
        {
            self.make_with(key);
        }
    }

    /// Makes tickets with this key from now on. That of before opens them until the end of the
    /// epoch after its own.
    pub fn make_with(&self, key: TicketKey) {
        let ring = self.0.load();
        if ring.present.name == key.name {
            return;
        }
        let is_open = |known: &&Arc<TicketKey>| {
            known.name != key.name && known.epoch.abs_diff(key.epoch) <= 1
        };
        let former = ring.all().filter(is_open).take(FORMER_MAX).map(Arc::clone).collect();
        self.0.store(Arc::new(Ring { present: Arc::new(key), former }));
    }

    /// Whether tickets of the key with these bytes are opened.
    #[cfg(test)]
    pub fn opens(&self, bytes: &[u8]) -> bool {
        self.0.load().all().any(|known| known.bytes == bytes)
    }

    /// Opens the tickets of this key too.
    pub fn open_with(&self, key: TicketKey) {
        let ring = self.0.load();
        if !ring.has(&key) {
            let mut ring = Ring::clone(&ring);
            ring.former.insert(0, Arc::new(key));
            ring.former.truncate(FORMER_MAX);
            self.0.store(Arc::new(ring));
        }
    }
}

/// Makes the tickets of one policy.
#[derive(Debug)]
pub(super) struct Ticketer {
    keys: Arc<TicketKeys>,
    /// A digest of what is asked of clients.
    policy: [u8; 32],
}

impl Ticketer {
    /// With these keys.
    pub(super) fn new(keys: &Arc<TicketKeys>, policy: [u8; 32]) -> Self {
        Self { keys: Arc::clone(keys), policy }
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(EPOCH.as_secs()).unwrap_or(u32::MAX)
    }

    /// The key's name, a nonce, and the session under AES-256-GCM with its tag.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.present();
        let mut sealed = plain.to_vec();
        let aad = Aad::from(self.policy);
        let nonce = key.cipher.seal_in_place_append_tag(aad, &mut sealed).ok()?;
        Some([&key.name[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (name, rest) = ticket.split_at_checked(NAME_BYTES)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let ring = self.keys.0.load();
        let key = ring.all().find(|key| key.name == name)?;
        let (nonce, mut sealed) = (Nonce::try_assume_unique_for_key(nonce).ok()?, sealed.to_vec());
        let opened = key.cipher.open_in_place(nonce, Aad::from(self.policy), &mut sealed).ok()?;
        Some(opened.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(epoch: u64) -> Arc<TicketKeys> {
        let keys = TicketKeys::new().unwrap();
        keys.turn(epoch);
        Arc::new(keys)
    }

    fn shared(from: &TicketKeys) -> TicketKey {
        let key = from.present();
        TicketKey::read(key.epoch, key.bytes()).unwrap()
    }

    #[test]
    fn a_ticket_is_opened_by_its_policy_under_its_key_alone() {
        let (here, there) = (ring(7), ring(7));
        let ticket = Ticketer::new(&here, [1; 32]).encrypt(b"a session").unwrap();
        let opened = |keys: &Arc<TicketKeys>, policy, ticket: &[u8]| {
            Ticketer::new(keys, policy).decrypt(ticket)
        };
        assert_eq!(opened(&here, [1; 32], &ticket).unwrap(), b"a session");
        assert_eq!(opened(&here, [2; 32], &ticket), None, "another policy");
        assert_eq!(opened(&there, [1; 32], &ticket), None, "another gateway");
        there.make_with(shared(&here));
        assert_eq!(opened(&there, [1; 32], &ticket).unwrap(), b"a session");
        for at in 0..ticket.len() {
            let mut other = ticket.clone();
            other[at] ^= 1;
            assert_eq!(opened(&here, [1; 32], &other), None, "byte {at}");
            assert_eq!(opened(&here, [1; 32], &ticket[..at]), None, "{at} bytes");
        }
        let long = [&ticket[..], &[0; TICKET_BYTES_MAX]].concat();
        assert_eq!(opened(&here, [1; 32], &long), None);
        assert_ne!(ticket, Ticketer::new(&here, [1; 32]).encrypt(b"a session").unwrap());
        assert!(!format!("{here:?}").contains("bytes"), "{here:?}");
    }

    #[test]
    fn a_key_opens_tickets_until_the_end_of_the_next_epoch() {
        let keys = ring(7);
        let ticketer = Ticketer::new(&keys, [1; 32]);
        let tickets = [7, 8, 9].map(|epoch| {
            keys.turn(epoch);
            ticketer.encrypt(b"a session").unwrap()
        });
        let are_open = tickets.map(|ticket| ticketer.decrypt(&ticket).is_some());
        assert_eq!(are_open, [false, true, true]);
        // The same epoch again changes nothing.
        let ticket = ticketer.encrypt(b"a session").unwrap();
        keys.turn(9);
        assert_eq!(keys.present().name, ticket[..NAME_BYTES]);
    }

    #[test]
    fn a_gateways_own_tickets_stay_good_when_the_fleets_key_comes() {
        let (here, fleet, before) = (ring(7), ring(7), ring(6));
        let ticketer = Ticketer::new(&here, [1; 32]);
        let own = ticketer.encrypt(b"own").unwrap();
        let theirs = Ticketer::new(&fleet, [1; 32]).encrypt(b"theirs").unwrap();
        let older = Ticketer::new(&before, [1; 32]).encrypt(b"older").unwrap();
        for _ in 0..2 * FORMER_MAX {
            here.make_with(shared(&fleet));
            here.open_with(shared(&before));
        }
        for (ticket, session) in [(own, "own"), (theirs, "theirs"), (older, "older")] {
            assert_eq!(ticketer.decrypt(&ticket).as_deref(), Some(session.as_bytes()));
        }
        assert_eq!(here.present().name, fleet.present().name);
        assert_eq!(here.0.load().all().count(), 3);
        for epoch in 0..20 {
            here.turn(7 + epoch % 2);
        }
        assert!(here.0.load().former.len() <= FORMER_MAX);
    }

    #[test]
    fn a_key_is_kept_until_it_opens_nothing() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let ms = |life: Duration| u64::try_from(life.as_millis()).unwrap();
        assert_eq!([0, 11, 12, 23, 24].map(|hour| epoch_at(ms(hours(hour)))), [0, 0, 1, 1, 2]);
        assert_eq!(
            [0, 1, 11, 12].map(|hour| key_ttl(ms(hours(hour)))),
            [24, 23, 13, 24].map(hours)
        );
    }
}
