//! Who may use an upstream now: `max_connections` requests in all, and of these a share that one
//! client cannot take from the others.
//!
//! The last share of the permits is for clients that hold less than a share. Whoever comes first
//! and alone gets the others too, and gets no more of them while others want theirs: he never has
//! to give back what he holds, however slow he is. Nor do a few such clients together take all:
//! whoever reaches into the last share leaves a part of it to those who hold less than he does.

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
pub(super) struct Permits {
    max: usize,
    /// How many one client holds before the last ones are for others; at least one.
    share: usize,
    /// How many are kept for clients below their share.
    reserve: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    taken: usize,
    accounts: HashMap<IpAddr, Account, foldhash::fast::RandomState>,
    /// The clients that wait, by turns.
    turns: BTreeMap<u64, IpAddr>,
    /// The next number of a turn or of one who waits.
    next: u64,
}

/// What one client holds and wants.
#[derive(Debug, Default)]
struct Account {
    held: usize,
    turn: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Permit>>,
}

/// A request in progress; dropping it lets the next one begin.
#[derive(Debug)]
pub(super) struct Permit {
    permits: Arc<Permits>,
    client: IpAddr,
}

/// One who waits; dropping it ends that.
struct Waiting<'a> {
    permits: &'a Permits,
    client: IpAddr,
    number: u64,
}

impl Permits {
    /// `max` permits; `share` of them are one client's, which is rounded to one where it is none.
    pub(super) fn new(max: usize, share: usize) -> Arc<Self> {
        let counts = Mutex::default();
        Arc::new(Self { max, share: share.max(1), reserve: share, counts })
    }

    /// A permit for this client, if there is one.
    pub(super) fn try_take(self: &Arc<Self>, client: ClientAddr) -> Option<Permit> {
        let client = client.principal();
        let mut counts = self.lock();
        let counts = &mut *counts;
        let taken = counts.taken;
        let account = counts.accounts.entry(client).or_default();
        if self.may_take(taken, account.held) {
            account.held += 1;
            counts.taken += 1;
            return Some(Permit { permits: Arc::clone(self), client });
        }
        counts.forget_if_idle(client);
        None
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
        let counts = self.lock();
        let waiting = counts.turns.values().filter_map(|client| counts.accounts.get(client));
        (counts.taken, waiting.map(|account| account.waiting.len()).sum())
    }

    fn queue(&self, client: IpAddr, sender: oneshot::Sender<Permit>) -> Waiting<'_> {
        let mut counts = self.lock();
        let counts = &mut *counts;
        let number = counts.number();
        let turn = counts.number();
        let account = counts.accounts.entry(client).or_default();
        if account.waiting.is_empty() {
            account.turn = turn;
            counts.turns.insert(turn, client);
        }
        account.waiting.insert(number, sender);
        Waiting { permits: self, client, number }
    }

    /// Whether a client that holds `held` may take one more.
    fn may_take(&self, taken: usize, held: usize) -> bool {
        let free = self.max.saturating_sub(taken);
        if free > self.reserve || self.reserve == self.max {
            return free > 0;
        }
        held < self.share && held < free.saturating_mul(TIMES_THE_REST)
    }

    /// Hands permits to those who wait and may have one now.
    fn serve(self: &Arc<Self>) {
        // One that came too late is dropped, and so freed, out of the lock.
        while let Some((client, sender)) = self.next() {
            let _ = sender.send(Permit { permits: Arc::clone(self), client });
        }
    }

    /// Whose turn it is, among the clients that may take one more: each gets one in turn. Passed
    /// over are only those who hold more than is free, and of these there are few.
    fn next(&self) -> Option<(IpAddr, oneshot::Sender<Permit>)> {
        let mut counts = self.lock();
        let counts = &mut *counts;
        if counts.taken >= self.max {
            return None;
        }
        let fits = |client: &IpAddr| {
            let held = counts.accounts.get(client).map_or(0, |account| account.held);
            self.may_take(counts.taken, held)
        };
        let (turn, client) =
            counts.turns.iter().find(|(_, client)| fits(client)).map(|(t, c)| (*t, *c))?;
        counts.turns.remove(&turn);
        let new_turn = counts.number();
        let account = counts.accounts.get_mut(&client)?;
        let (_, sender) = account.waiting.pop_first()?;
        account.held += 1;
        counts.taken += 1;
        if !account.waiting.is_empty() {
            account.turn = new_turn;
            counts.turns.insert(new_turn, client);
        }
        Some((client, sender))
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Nothing is kept of a client that neither holds nor wants anything.
    fn forget_if_idle(&mut self, client: IpAddr) {
        let is_idle = |account: &Account| account.held == 0 && account.waiting.is_empty();
        if self.accounts.get(&client).is_some_and(is_idle) {
            self.accounts.remove(&client);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.permits.lock();
        counts.taken -= 1;
        if let Some(account) = counts.accounts.get_mut(&self.client) {
            account.held -= 1;
        }
        counts.forget_if_idle(self.client);
        let is_awaited = !counts.turns.is_empty();
        drop(counts);
        if is_awaited {
            self.permits.serve();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut counts = self.permits.lock();
        let counts = &mut *counts;
        if let Some(account) = counts.accounts.get_mut(&self.client)
            && account.waiting.remove(&self.number).is_some()
            && account.waiting.is_empty()
        {
            counts.turns.remove(&account.turn);
        }
        counts.forget_if_idle(self.client);
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

    type Pending<'a> = Pin<Box<dyn Future<Output = Option<Permit>> + 'a>>;

    fn once(pending: &mut Pending<'_>) -> Option<Permit> {
        match pending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => permit,
            Poll::Pending => None,
        }
    }

    fn all(permits: &Arc<Permits>, who: ClientAddr) -> Vec<Permit> {
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
            let permits = Permits::new(max, share);
            let held = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]
                .map(|who| all(&permits, client(who)));
            assert_eq!(held.each_ref().map(Vec::len), each, "{max} {share}");
            drop(held);
            assert!(permits.lock().accounts.is_empty());
        }
    }

    #[test]
    fn the_addresses_of_one_subscriber_are_one_client() {
        let permits = Permits::new(4, 1);
        let _held = [client("2001:db8::1"), client("2001:db8::2"), client("2001:db8::3")]
            .map(|who| permits.try_take(who).unwrap());
        assert!(permits.try_take(client("2001:db8::4")).is_none());
        assert!(permits.try_take(client("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn what_is_freed_goes_to_who_may_have_it() {
        let permits = Permits::new(4, 1);
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
        let permits = Permits::new(1, 0);
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
        let counts = permits.lock();
        assert_eq!((counts.taken, counts.accounts.len(), counts.turns.len()), (0, 0, 0));
    }

    #[test]
    fn clients_take_turns() {
        let permits = Permits::new(1, 0);
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
            served.push(permit.client.to_string());
            held = Some(permit);
        }
        assert_eq!(served, ["192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.1"]);
    }
}
