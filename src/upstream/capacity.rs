//! Who may use an upstream now: `max_requests` requests in all, and of these a share that one
//! client cannot take from the others.
//!
//! The last share of the permits is for clients that hold less than a share. Whoever comes first
//! and alone gets the others too, and gets no more of them while others want theirs: he never has
//! to give back what he holds, however slow he is. Nor do a few such clients together take all:
//! whoever reaches into the last share leaves a part of it to those who hold less than he does.
//!
//! While there are plenty, nobody asks how many a client holds: each permit notes its client, and
//! the sums are made of these notes when permits become scarce (`Ledger`).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::base::facts::ClientAddr;

/// How many times as much as is left one client may hold who reaches into the last share: the next
/// two who take all they can leave a sixteenth of it.
const TIMES_THE_REST: usize = 3;

/// The permits of one upstream.
#[derive(Debug)]
pub(super) struct Capacity {
    max: usize,
    /// How many one client holds before the last ones are for others; at least one.
    share: usize,
    /// How many are kept for clients below their share.
    reserve: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The clients of the permits in use, each at its permit's index; none where one was given
    /// back.
    holders: Vec<Option<IpAddr>>,
    /// Where in `holders` there is none.
    vacant: Vec<usize>,
    /// The number of the last turn or of the last one who waits. It outlives the ledger: one who
    /// waited may still leave by a number of an earlier one.
    number: u64,
    /// Only while permits are scarce.
    ledger: Option<Box<Ledger>>,
}

/// What each client holds and wants.
#[derive(Debug, Default)]
struct Ledger {
    accounts: HashMap<IpAddr, Account, foldhash::fast::RandomState>,
    /// The clients that wait, by turns.
    turns: BTreeMap<u64, IpAddr>,
}

#[derive(Debug, Default)]
struct Account {
    held: usize,
    turn: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Permit>>,
}

/// A request in progress; dropping it lets the next one begin.
#[derive(Debug)]
pub(super) struct Permit {
    capacity: Arc<Capacity>,
    /// Its index in `holders`.
    at: usize,
}

/// One who waits; dropping it ends that.
struct Waiting<'a> {
    capacity: &'a Capacity,
    client: IpAddr,
    number: u64,
}

impl Capacity {
    /// `max` permits; `share` of them are one client's, which is rounded to one where it is none.
    pub(super) fn new(max: usize, share: usize) -> Arc<Self> {
        let state = Mutex::default();
        Arc::new(Self { max, share: share.max(1), reserve: share, state })
    }

    /// Whether it gives out as many permits as another one, by the same shares.
    pub(super) fn has_bounds_of(&self, other: &Self) -> bool {
        (self.max, self.share, self.reserve) == (other.max, other.share, other.reserve)
    }

    /// A permit for this client, if there is one.
    pub(super) fn try_take(self: &Arc<Self>, client: ClientAddr) -> Option<Permit> {
        let client = client.principal();
        let mut state = self.lock();
        let may_take = if self.has_plenty(state.taken()) {
            state.taken() < self.max
        } else {
            let taken = state.taken();
            self.may_take(taken, state.ledger().held(client))
        };
        may_take.then(|| self.grant(&mut state, client))
    }

    /// The next permit that this client may have.
    pub(super) async fn take(self: &Arc<Self>, client: ClientAddr) -> Option<Permit> {
        let (sender, receiver) = oneshot::channel();
        let waiting = self.queue(client.principal(), sender);
        // What was freed since nobody saw that somebody waits.
        self.serve();
        let permit = receiver.await.ok();
        drop(waiting);
        permit
    }

    /// How many requests are in progress, and how many wait.
    pub(super) fn count(&self) -> (usize, usize) {
        let state = self.lock();
        (state.taken(), state.ledger.as_ref().map_or(0, |ledger| ledger.waiting()))
    }

    fn queue(&self, client: IpAddr, sender: oneshot::Sender<Permit>) -> Waiting<'_> {
        let mut state = self.lock();
        let (number, turn) = (state.number(), state.number());
        state.ledger().queue(client, (number, sender), turn);
        Waiting { capacity: self, client, number }
    }

    /// Whether one more may be taken, or all are, whoever asks.
    fn has_plenty(&self, taken: usize) -> bool {
        self.max.saturating_sub(taken) > self.reserve || self.reserve == self.max
    }

    /// Whether a client that holds `held` may take one more.
    fn may_take(&self, taken: usize, held: usize) -> bool {
        let free = self.max.saturating_sub(taken);
        if self.has_plenty(taken) {
            return free > 0;
        }
        held < self.share && held < free.saturating_mul(TIMES_THE_REST)
    }

    /// Notes who holds one more.
    fn grant(self: &Arc<Self>, state: &mut State, client: IpAddr) -> Permit {
        let at = if let Some(at) = state.vacant.pop() {
            state.holders[at] = Some(client);
            at
        } else {
            state.holders.push(Some(client));
            state.holders.len() - 1
        };
        if let Some(ledger) = &mut state.ledger {
            ledger.accounts.entry(client).or_default().held += 1;
        }
        Permit { capacity: Arc::clone(self), at }
    }

    /// Takes one back. True where somebody waits.
    fn give_back(&self, at: usize) -> bool {
        let mut state = self.lock();
        let client = state.holders[at].take();
        state.vacant.push(at);
        let taken = state.taken();
        let (Some(ledger), Some(client)) = (&mut state.ledger, client) else { return false };
        if let Some(account) = ledger.accounts.get_mut(&client) {
            account.held -= 1;
        }
        ledger.forget_if_idle(client);
        let is_awaited = !ledger.turns.is_empty();
        // Not as soon as there are plenty: making the sums costs as much as there are permits.
        if !is_awaited && taken <= self.max.saturating_sub(self.reserve) / 2 {
            state.ledger = None;
        }
        is_awaited
    }

    /// Hands permits to those who wait and may have one now.
    fn serve(self: &Arc<Self>) {
        // One that came too late is dropped, and so freed, out of the lock.
        while let Some((permit, sender)) = self.next() {
            let _ = sender.send(permit);
        }
    }

    /// A permit for whose turn it is, among the clients that may take one more: each gets one in
    /// turn. Passed over are only those who hold more than is free, and of these there are few.
    fn next(self: &Arc<Self>) -> Option<(Permit, oneshot::Sender<Permit>)> {
        let mut state = self.lock();
        let taken = state.taken();
        if taken >= self.max {
            return None;
        }
        let new_turn = state.number();
        let ledger = state.ledger.as_mut()?;
        let (client, sender) = ledger.next(|held| self.may_take(taken, held), new_turn)?;
        Some((self.grant(&mut state, client), sender))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn taken(&self) -> usize {
        self.holders.len() - self.vacant.len()
    }

    fn number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// The sums, which are made where there are none.
    fn ledger(&mut self) -> &mut Ledger {
        self.ledger.get_or_insert_with(|| {
            let mut ledger = Box::<Ledger>::default();
            for client in self.holders.iter().flatten() {
                ledger.accounts.entry(*client).or_default().held += 1;
            }
            ledger
        })
    }
}

impl Ledger {
    fn held(&self, client: IpAddr) -> usize {
        self.accounts.get(&client).map_or(0, |account| account.held)
    }

    fn waiting(&self) -> usize {
        let waiting = self.turns.values().filter_map(|client| self.accounts.get(client));
        waiting.map(|account| account.waiting.len()).sum()
    }

    /// Lets one more wait, by this number; his client's turn comes after all others, if it waits
    /// for none yet.
    fn queue(
        &mut self,
        client: IpAddr,
        (number, sender): (u64, oneshot::Sender<Permit>),
        turn: u64,
    ) {
        let account = self.accounts.entry(client).or_default();
        if account.waiting.is_empty() {
            account.turn = turn;
            self.turns.insert(turn, client);
        }
        account.waiting.insert(number, sender);
    }

    /// The first in turn who `may_take` one more with what he holds; his next turn is `new_turn`,
    /// the last.
    fn next(
        &mut self,
        may_take: impl Fn(usize) -> bool,
        new_turn: u64,
    ) -> Option<(IpAddr, oneshot::Sender<Permit>)> {
        let mut turns = self.turns.iter();
        let (turn, client) =
            turns.find(|(_, client)| may_take(self.held(**client))).map(|(t, c)| (*t, *c))?;
        self.turns.remove(&turn);
        let account = self.accounts.get_mut(&client)?;
        let (_, sender) = account.waiting.pop_first()?;
        if !account.waiting.is_empty() {
            account.turn = new_turn;
            self.turns.insert(new_turn, client);
        }
        Some((client, sender))
    }

    /// One who waited is gone.
    fn leave(&mut self, client: IpAddr, number: u64) {
        if let Some(account) = self.accounts.get_mut(&client)
            && account.waiting.remove(&number).is_some()
            && account.waiting.is_empty()
        {
            self.turns.remove(&account.turn);
        }
        self.forget_if_idle(client);
    }

    /// Nothing is kept of a client that neither holds nor wants anything.
    fn forget_if_idle(&mut self, client: IpAddr) {
        let is_idle = |account: &Account| account.held == 0 && account.waiting.is_empty();
        if self.accounts.get(&client).is_some_and(is_idle) {
            self.accounts.remove(&client);
        }
    }
}

impl Permit {
    /// A place for a second exchange of the same request, where there is one now: nobody waits for
    /// what is only wanted in case.
    pub(super) fn another(&self, client: ClientAddr) -> Option<Self> {
        self.capacity.try_take(client)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.capacity.give_back(self.at) {
            self.capacity.serve();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(ledger) = &mut self.capacity.lock().ledger {
            ledger.leave(self.client, self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn client(text: &str) -> ClientAddr {
        ClientAddr::new(text.parse().unwrap())
    }

    /// Who holds this permit.
    fn holder(permits: &Capacity, permit: &Permit) -> String {
        permits.lock().holders[permit.at].unwrap().to_string()
    }

    type Pending<'a> = Pin<Box<dyn Future<Output = Option<Permit>> + 'a>>;

    fn once(pending: &mut Pending<'_>) -> Option<Permit> {
        match pending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => permit,
            Poll::Pending => None,
        }
    }

    fn all(permits: &Arc<Capacity>, who: ClientAddr) -> Vec<Permit> {
        std::iter::from_fn(|| permits.try_take(who)).collect()
    }

    #[test]
    fn who_is_first_and_alone_leaves_a_share() {
        for (max, share, each) in [
            (1, 0, [1, 0, 0, 0]),
            (2, 0, [2, 0, 0, 0]),
            (3, 0, [3, 0, 0, 0]),
            (4, 1, [3, 1, 0, 0]),
            (8, 2, [6, 2, 0, 0]),
            // Nor do several of them take all.
            (16, 4, [12, 3, 1, 0]),
            (256, 64, [192, 48, 12, 3]),
            (100, 75, [75, 19, 5, 1]),
            (8, 8, [8, 0, 0, 0]),
        ] {
            let permits = Capacity::new(max, share);
            let held = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]
                .map(|who| all(&permits, client(who)));
            assert_eq!(held.each_ref().map(Vec::len), each, "{max} {share}");
            drop(held);
            let state = permits.lock();
            assert_eq!((state.taken(), state.ledger.is_none()), (0, true));
        }
    }

    #[test]
    fn the_addresses_of_one_subscriber_are_one_client() {
        let permits = Capacity::new(4, 1);
        let _held = [client("2001:db8::1"), client("2001:db8::2"), client("2001:db8::3")]
            .map(|who| permits.try_take(who).unwrap());
        assert!(permits.try_take(client("2001:db8::4")).is_none());
        assert!(permits.try_take(client("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn what_is_freed_goes_to_who_may_have_it() {
        let permits = Capacity::new(4, 1);
        let (greedy, other) = (client("192.0.2.1"), client("192.0.2.2"));
        let mut held = all(&permits, greedy);
        let others = permits.try_take(other).unwrap();
        let mut more: Vec<Pending<'_>> =
            (0..3).map(|_| Box::pin(permits.take(greedy)) as Pending<'_>).collect();
        assert!(more.iter_mut().all(|pending| once(pending).is_none()));
        let mut late: Pending<'_> = Box::pin(permits.take(client("192.0.2.3")));
        assert!(once(&mut late).is_none());
        // The greedy one waited first, and one of his own ends: it is the newcomer's.
        held.pop();
        let new = once(&mut late).unwrap();
        assert!(more.iter_mut().all(|pending| once(pending).is_none()));
        // What the others leave is their reserve; only below it there is more for him.
        drop(others);
        assert!(more.iter_mut().all(|pending| once(pending).is_none()));
        drop(new);
        let handed: Vec<Permit> = more.iter_mut().filter_map(once).collect();
        assert_eq!(handed.len(), 1);
    }

    #[test]
    fn one_who_left_swallows_nothing() {
        let permits = Capacity::new(1, 0);
        let held = permits.try_take(client("192.0.2.1")).unwrap();
        let mut gone: Pending<'_> = Box::pin(permits.take(client("192.0.2.2")));
        let mut handed: Pending<'_> = Box::pin(permits.take(client("192.0.2.3")));
        let mut waits: Pending<'_> = Box::pin(permits.take(client("192.0.2.4")));
        for pending in [&mut gone, &mut handed, &mut waits] {
            assert!(once(pending).is_none());
        }
        drop(gone);
        drop(held);
        // It was handed a permit and leaves before it looks.
        drop(handed);
        drop(once(&mut waits).unwrap());
        drop(waits);
        let state = permits.lock();
        assert_eq!((state.taken(), state.ledger.is_none()), (0, true));
    }

    #[test]
    fn one_who_looks_late_takes_nobodys_place() {
        let permits = Capacity::new(2, 0);
        let (a, b) = (client("192.0.2.1"), client("192.0.2.2"));
        let held = all(&permits, b);
        let mut late: Pending<'_> = Box::pin(permits.take(a));
        assert!(once(&mut late).is_none());
        // It was handed a permit and has not looked; the sums are forgotten, and made again.
        drop(held);
        assert!(permits.lock().ledger.is_none());
        let held = permits.try_take(b).unwrap();
        let mut waits: Pending<'_> = Box::pin(permits.take(a));
        assert!(once(&mut waits).is_none());
        let granted = once(&mut late).expect("what it was handed");
        drop(held);
        drop(once(&mut waits).expect("it still waits"));
        drop(granted);
    }

    #[test]
    fn clients_take_turns() {
        let permits = Capacity::new(1, 0);
        let mut held = permits.try_take(client("192.0.2.9"));
        let order: Vec<ClientAddr> =
            ["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"].map(client).into();
        let mut waits: Vec<Pending<'_>> =
            order.iter().map(|who| Box::pin(permits.take(*who)) as Pending<'_>).collect();
        assert!(waits.iter_mut().all(|pending| once(pending).is_none()));
        let mut served = Vec::new();
        for _ in 0..4 {
            drop(held.take());
            let found = waits.iter_mut().enumerate().find_map(|(at, w)| Some((at, once(w)?)));
            let (at, permit) = found.unwrap();
            drop(waits.remove(at));
            served.push(holder(&permits, &permit));
            held = Some(permit);
        }
        assert_eq!(served, ["192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.1"]);
    }

    /// What a client may take, by the rule alone.
    fn may_take(capacity: &Capacity, held: &HashMap<ClientAddr, usize>, who: ClientAddr) -> bool {
        let free = capacity.max - held.values().sum::<usize>();
        let own = held.get(&who).copied().unwrap_or_default();
        let is_scarce = free <= capacity.reserve && capacity.reserve < capacity.max;
        free > 0 && (!is_scarce || (own < capacity.share && own < free * TIMES_THE_REST))
    }

    #[test]
    fn shares_are_exact_whenever_the_sums_are_made() {
        for (max, share) in [(1, 0), (2, 1), (3, 0), (8, 2), (16, 4), (20, 15), (8, 8)] {
            let permits = Capacity::new(max, share);
            let clients: Vec<ClientAddr> =
                (0..4).map(|n| client(&format!("192.0.2.{n}"))).collect();
            let mut random = fastrand::Rng::with_seed(7);
            let mut taken: Vec<(ClientAddr, Permit)> = Vec::new();
            let mut held: HashMap<ClientAddr, usize> = HashMap::new();
            for step in 0..5_000 {
                // It fills and empties by turns.
                let fills = step / 50 % 2 == 0;
                if random.u8(..10) < if fills { 8 } else { 2 } {
                    // Most often the first, who so gets beyond his share.
                    let who = clients[random.usize(..4).min(random.usize(..4))];
                    let expected = may_take(&permits, &held, who);
                    let permit = permits.try_take(who);
                    assert_eq!(permit.is_some(), expected, "{max} {share} at {step}: {held:?}");
                    if let Some(permit) = permit {
                        *held.entry(who).or_default() += 1;
                        taken.push((who, permit));
                    }
                } else if !taken.is_empty() {
                    let (who, permit) = taken.swap_remove(random.usize(..taken.len()));
                    *held.get_mut(&who).unwrap() -= 1;
                    drop(permit);
                }
                assert_eq!(permits.count(), (taken.len(), 0));
            }
            drop(taken);
            assert!(permits.lock().ledger.is_none());
        }
    }
}
