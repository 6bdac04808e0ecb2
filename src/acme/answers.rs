//! What the authority is answered: whichever gateway it asks, and whichever has ordered. Of an
//! answer to a handshake the key authorization's digest is what is shown.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::failure::Failure;
use crate::store::keys::Keys;
use crate::store::{FencedWrite, HeldLock, Store};

/// Questions to the store at a time, of each kind: anybody can ask for a token, or shake hands for
/// a name.
const LOOKS_MAX: usize = 16;
/// How long one waits for its turn, so that a crowd delays the authority and does not hide the
/// answer from it.
const LOOK_WAIT: Duration = Duration::from_secs(5);
/// Tokens that are known to be nobody's, and how long that is believed.
const MISSES_MAX: usize = 256;
const MISS_LIFE: Duration = Duration::from_secs(10);
/// Longest answer, in bytes: a token of 128 and a digest.
const ANSWER_BYTES_MAX: usize = 512;
/// What stands for a moment where an answer was taken away: a fenced write can hit no answer of
/// another gateway, a delete could.
const TAKEN_AWAY: &str = "";
const TAKEN_AWAY_LIFE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Answers {
    store: Arc<Store>,
    keys: Keys,
    /// Who waits for one kind keeps nobody from the other.
    tokens: Semaphore,
    names: Semaphore,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// What this gateway has put there itself, and until when.
    own: HashMap<String, (String, Instant)>,
    misses: VecDeque<(String, Instant)>,
}

impl Answers {
    pub(super) fn new(store: &Arc<Store>, keys: &Keys) -> Self {
        let (store, keys) = (Arc::clone(store), keys.clone());
        let [tokens, names] = [(); 2].map(|()| Semaphore::new(LOOKS_MAX));
        Self { store, keys, tokens, names, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an answer where all gateways find it. Only then may the authority be told.
    ///
    /// # Errors
    /// The lease is somebody else's now, or the store did not answer.
    pub(super) async fn put(
        &self,
        lease: &HeldLock,
        of: &str,
        answer: &str,
        ttl: Duration,
    ) -> Result<(), Failure> {
        self.write(lease, of, answer, ttl).await?;
        let (now, mut known) = (Instant::now(), self.known());
        // Of orders that were given up.
        known.own.retain(|_, (_, until)| *until > now);
        known.own.insert(of.to_owned(), (answer.to_owned(), now + ttl));
        Ok(())
    }

    /// Takes an answer away, as far as that can be done: it ends by itself.
    pub(super) async fn take_away(&self, lease: &HeldLock, of: &str) {
        self.known().own.remove(of);
        let _ = self.write(lease, of, TAKEN_AWAY, TAKEN_AWAY_LIFE).await;
    }

    /// Fenced: a gateway that was stopped for a while must not spoil what another one answers now.
    async fn write(
        &self,
        lease: &HeldLock,
        of: &str,
        answer: &str,
        ttl: Duration,
    ) -> Result<(), Failure> {
        let values = [(self.keys.tls_answer(of), answer.as_bytes().to_vec(), ttl)];
        let is_ours = self.store.write_fenced(&FencedWrite { lease, values: &values }).await?;
        if is_ours { Ok(()) } else { Err(Failure::LeaseLost) }
    }

    /// The answer to a token, which may be anything that a client sends.
    pub(super) async fn to_token(&self, token: &str) -> Option<String> {
        if let Some(own) = self.own(token) {
            return Some(own);
        }
        {
            let (now, mut known) = (Instant::now(), self.known());
            known.misses.retain(|(_, at)| now.duration_since(*at) < MISS_LIFE);
            if known.misses.iter().any(|(missed, _)| missed == token) {
                return None;
            }
        }
        let found = self.look(token, &self.tokens).await;
        if matches!(found, Ok(None)) {
            let mut known = self.known();
            if known.misses.len() >= MISSES_MAX {
                known.misses.pop_front();
            }
            known.misses.push_back((token.to_owned(), Instant::now()));
        }
        // The answer to a token begins with it (RFC 8555 §8.1); that of a name does not.
        found.ok().flatten().filter(|it| it.split('.').next() == Some(token))
    }

    /// The answer for a name, which must be a configured one. A miss is not remembered: whoever
    /// asked just before the authority could spoil the order.
    pub(super) async fn to_name(&self, name: &str) -> Option<String> {
        // Another gateway may have answered for a newer order, so the store goes first.
        match self.look(name, &self.names).await {
            Ok(found) => found,
            Err(()) => self.own(name),
        }
    }

    /// What this gateway has answered itself, while that holds.
    fn own(&self, of: &str) -> Option<String> {
        let known = self.known();
        let (own, until) = known.own.get(of)?;
        (*until > Instant::now()).then(|| own.clone())
    }

    /// One question to the store; an error where its turn does not come, or no answer.
    async fn look(&self, of: &str, turns: &Semaphore) -> Result<Option<String>, ()> {
        let turn = tokio::time::timeout(LOOK_WAIT, turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(()) };
        let found = self.store.read(&self.keys.tls_answer(of), ANSWER_BYTES_MAX).await;
        Ok(found
            .map_err(|_| ())?
            .and_then(|it| String::from_utf8(it.to_vec()).ok())
            .filter(|it| it != TAKEN_AWAY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    /// Whoever has it may answer; each has a number of its own.
    async fn lease(store: &Store) -> HeldLock {
        let token = super::super::lease::nonce().unwrap();
        let lease = HeldLock { key: Keys::new("app").tls_lease(&token), token };
        assert!(store.lock(&lease, Duration::from_secs(3600)).await.unwrap());
        lease
    }

    #[tokio::test(start_paused = true)]
    async fn a_miss_is_believed_for_ten_seconds_and_bounded() {
        let store = Arc::new(Store::Memory(Box::new(MemoryStore::new(1000))));
        let keys = Keys::new("app");
        let (answers, elsewhere) = (Answers::new(&store, &keys), Answers::new(&store, &keys));
        assert_eq!(answers.to_token("t0").await, None);
        elsewhere
            .put(&lease(&store).await, "t0", "t0.print", Duration::from_secs(600))
            .await
            .unwrap();
        assert_eq!(answers.to_token("t0").await, None, "remembered");
        tokio::time::advance(MISS_LIFE).await;
        assert_eq!(answers.to_token("t0").await.as_deref(), Some("t0.print"));
        for number in 0..2 * MISSES_MAX {
            assert_eq!(answers.to_token(&format!("x{number}")).await, None);
        }
        assert_eq!(answers.known().misses.len(), MISSES_MAX);
        // A name's answer is not given away as a token's, and its miss is not remembered.
        assert_eq!(answers.to_name("a.test").await, None);
        elsewhere
            .put(&lease(&store).await, "a.test", "t1.print", Duration::from_secs(600))
            .await
            .unwrap();
        assert_eq!(answers.to_name("a.test").await.as_deref(), Some("t1.print"));
        assert_eq!(answers.to_token("a.test").await, None);
        elsewhere.take_away(&lease(&store).await, "a.test").await;
        assert_eq!(elsewhere.to_name("a.test").await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_and_a_newer_one_of_another_gateway_goes_first() {
        let store = Arc::new(Store::Memory(Box::new(MemoryStore::new(1000))));
        let keys = Keys::new("app");
        let (here, there) = (Answers::new(&store, &keys), Answers::new(&store, &keys));
        let life = Duration::from_secs(60);
        let mine = lease(&store).await;
        here.put(&mine, "a.test", "old", life).await.unwrap();
        store.unlock(&mine).await.unwrap();
        let theirs = lease(&store).await;
        there.put(&theirs, "a.test", "new", life).await.unwrap();
        // Too late.
        assert!(matches!(here.put(&mine, "a.test", "old", life).await, Err(Failure::LeaseLost)));
        assert_eq!(here.to_name("a.test").await.as_deref(), Some("new"));
        here.take_away(&mine, "a.test").await;
        assert_eq!(there.to_name("a.test").await.as_deref(), Some("new"));
        here.put(&theirs, "t0", "t0.print", life).await.unwrap();
        tokio::time::advance(life).await;
        store.delete(&keys.tls_answer("t0")).await.unwrap();
        assert_eq!(here.to_token("t0").await, None);
        assert_eq!(here.own("a.test"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_delays_the_authority_and_hides_nothing_from_it() {
        let store = Arc::new(Store::Memory(Box::new(MemoryStore::new(1000))));
        let keys = Keys::new("app");
        let (answers, elsewhere) = (Answers::new(&store, &keys), Answers::new(&store, &keys));
        let (lease, life) = (lease(&store).await, Duration::from_secs(60));
        elsewhere.put(&lease, "a.test", "t1.print", life).await.unwrap();
        elsewhere.put(&lease, "t0", "t0.print", life).await.unwrap();
        let crowd = answers.tokens.acquire_many(LOOKS_MAX.try_into().unwrap()).await.unwrap();
        assert_eq!(answers.to_name("a.test").await.as_deref(), Some("t1.print"));
        let asked = answers.to_token("t0");
        let mut asked = std::pin::pin!(asked);
        tokio::select! {
            biased;
            found = &mut asked => panic!("{found:?} out of turn"),
            () = std::future::ready(()) => {}
        }
        drop(crowd);
        assert_eq!(asked.await.as_deref(), Some("t0.print"));
        let _crowd = answers.tokens.acquire_many(LOOKS_MAX.try_into().unwrap()).await.unwrap();
        // A turn that does not come is no miss.
        assert_eq!(answers.to_token("t0").await, None);
        assert!(answers.known().misses.is_empty());
    }
}
