//! The bound that several gateways keep together while their store is away, whatever comes.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::{Instant, advance};

use super::*;
use crate::store::MemoryStore;

const SPAN: Duration = Duration::from_secs(60);

/// Gateways that share a store, and every admission so far.
struct Model {
    limit: u32,
    store: MemoryStore,
    gateways: Vec<StandIn>,
    admitted: VecDeque<Instant>,
    is_away: bool,
}

impl Model {
    fn new(limit: u32, gateways: usize) -> Self {
        Self {
            limit,
            store: MemoryStore::new(100),
            gateways: (0..gateways).map(|_| StandIn::new(100)).collect(),
            admitted: VecDeque::new(),
            is_away: false,
        }
    }

    fn set(&self) -> (WindowSet, [String; 1]) {
        (WindowSet::new(vec![Window::new(self.limit, SPAN)]), ["k".to_owned()])
    }

    /// A request at one gateway, which first tells the store what it owes.
    fn ask(&mut self, at: usize) -> bool {
        let (set, keys) = self.set();
        let (charges, gateway) = (Charges { set: &set, keys: &keys }, &self.gateways[at]);
        let allowed = if self.is_away {
            gateway.take(charges, self.gateways.len() as u32, true).1.allowed
        } else {
            self.pay(at);
            let reply = self.store.take(charges).unwrap();
            self.gateways[at].note(charges, &reply, true);
            reply.allowed
        };
        if allowed {
            self.admitted.push_back(Instant::now());
        }
        allowed
    }

    fn pay(&self, at: usize) {
        if let Some(debt) = any_debt(&self.gateways[at]) {
            assert!(self.store.take(debt.charges()).unwrap().allowed, "nobody may refuse a debt");
        }
    }

    fn is_back(&mut self) {
        self.is_away = false;
        self.gateways.iter().for_each(StandIn::hear);
        (0..self.gateways.len()).for_each(|at| self.pay(at));
    }

    /// How many were admitted in the window that ends now.
    fn in_window(&mut self) -> usize {
        while self.admitted.front().is_some_and(|at| at.elapsed() >= SPAN) {
            self.admitted.pop_front();
        }
        self.admitted.len()
    }
}

fn any_debt(here: &StandIn) -> Option<Debt> {
    here.debt(&here.debtors(100))
}

#[derive(Debug, Clone)]
enum Step {
    Ask { gateway: usize, times: usize },
    Pass(u64),
    Switch,
}

fn step(gateways: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..gateways, 1..40_usize).prop_map(|(gateway, times)| Step::Ask { gateway, times }),
        3 => (1..40_000_u64).prop_map(Step::Pass),
        1 => Just(Step::Switch),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whenever the store goes and returns: (2 - 1/n) L within any window, those over the return
    /// included.
    #[test]
    fn together_they_stay_within_the_bound(
        (limit, gateways, steps) in (1..40_u32, 1..5_usize).prop_flat_map(|(limit, gateways)| {
            (Just(limit), Just(gateways), prop::collection::vec(step(gateways), 1..60))
        }),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut model = Model::new(limit, gateways);
            let (limit, n) = (limit as usize, gateways);
            // Of a limit below n each gateway admits one.
            let bound = (2 * limit - limit / n).max(limit + n);
            let mut was_away = false;
            for step in steps {
                match step {
                    Step::Ask { gateway, times } => {
                        for _ in 0..times {
                            model.ask(gateway);
                        }
                        let admitted = model.in_window();
                        let most = if was_away { bound } else { limit };
                        prop_assert!(admitted <= most, "{admitted} of {most}");
                    }
                    Step::Pass(ms) => advance(Duration::from_millis(ms)).await,
                    Step::Switch if model.is_away => model.is_back(),
                    Step::Switch => {
                        was_away = true;
                        model.is_away = true;
                    }
                }
            }
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn even_traffic_stays_within_the_limit() {
    let mut model = Model::new(100, 4);
    (0..40).for_each(|turn| assert!(model.ask(turn % 4)));
    model.is_away = true;
    let admitted = (0..400).filter(|turn| model.ask(turn % 4)).count();
    assert_eq!(admitted, 60);
    // It is as exact as ever when the store is back.
    model.is_back();
    assert!(!model.ask(0));
    advance(SPAN).await;
    assert_eq!((0..400).filter(|turn| model.ask(turn % 4)).count(), 100);
}

#[tokio::test(start_paused = true)]
async fn who_had_more_than_his_share_keeps_it_and_another_gets_his() {
    let mut model = Model::new(100, 4);
    (0..80).for_each(|_| assert!(model.ask(0)));
    model.is_away = true;
    assert!(!model.ask(0), "80 of 80");
    assert_eq!((0..100).filter(|_| model.ask(1)).count(), 25);
    advance(SPAN).await;
    // For the whole outage.
    assert_eq!((0..100).filter(|_| model.ask(0)).count(), 80);
    model.is_back();
    advance(SPAN).await;
    // Between two outages the store has granted nothing here, and was not even asked.
    assert_eq!((0..100).filter(|_| model.ask(2)).count(), 100);
    model.is_away = true;
    assert_eq!((0..100).filter(|_| model.ask(0)).count(), 25);
}

#[tokio::test(start_paused = true)]
async fn a_share_is_of_one_limit() {
    let here = StandIn::new(100);
    let takes = |limit: u32, cost: u32| {
        let window = Window { cost, ..Window::new(limit, SPAN) };
        let (set, keys) = (WindowSet::new(vec![window]), ["k".to_owned()]);
        let take = |_: &u32| here.take(Charges { set: &set, keys: &keys }, 4, true).1.allowed;
        (0..1000).filter(take).count()
    };
    // A caller of a lower tier, and one of a higher tier with the same key.
    assert_eq!([takes(8, 1), takes(100, 1), takes(8, 1)], [2, 23, 0]);
    // What an answer costs on top makes no larger share.
    let dear = WindowSet::new(vec![Window { cost: 90, ..Window::new(100, SPAN) }]);
    here.charge(Charges { set: &dear, keys: &["k".to_owned()] }, true);
    advance(SPAN).await;
    assert_eq!(takes(100, 1), 25);
}

#[tokio::test(start_paused = true)]
async fn a_share_is_at_least_what_is_asked_for_once_and_at_most_the_limit() {
    let share = |limit: u32, cost: u32, nodes: u32| {
        let here = StandIn::new(100);
        let window = Window { cost, ..Window::new(limit, SPAN) };
        let (set, keys) = (WindowSet::new(vec![window]), ["k".to_owned()]);
        here.take(Charges { set: &set, keys: &keys }, nodes, true).0.windows[0].limit
    };
    assert_eq!([share(100, 1, 3), share(2, 1, 3), share(100, 1, 0)], [33, 1, 100]);
    assert_eq!([share(10, 5, 4), share(10, 50, 4)], [5, 10]);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_back_is_neither_counted_nor_owed() {
    let here = StandIn::new(100);
    let (set, keys) = (WindowSet::new(vec![Window::new(4, SPAN)]), ["k".to_owned()]);
    let charges = Charges { set: &set, keys: &keys };
    let granted = ChargeReply {
        allowed: true,
        at: ChargedAt::of(1),
        windows: vec![WindowLog::default().state(&set.windows[0], 0, 1)],
    };
    // Counted by the store, and given back.
    let at_us = here.note(charges, &granted, true);
    here.refund(charges, at_us, false);
    let takes = |here: &StandIn| (0..9).filter(|_| here.take(charges, 2, true).1.allowed).count();
    assert_eq!(takes(&here), 2);
    advance(SPAN).await;
    assert_eq!(takes(&here), 2);
    // Counted here, and given back: the rest is owed, once.
    advance(Duration::from_millis(1)).await;
    let spent = here.debt(&keys).expect("what was counted within the window");
    assert_eq!((spent.units(), spent.set.windows[0].mode), (2, Mode::Force));
    assert!(here.debt(&keys).is_none() && any_debt(&here).is_none());
    here.owe(spent.charges());
    advance(SPAN).await;
    assert!(any_debt(&here).is_none(), "what counts no more is not owed");
    let at = here.take(charges, 2, true).1.at;
    here.refund(charges, at.micros(), true);
    assert!(here.debt(&keys).is_none());
    // And not at all where nobody is to be told.
    assert!(here.take(charges, 2, false).1.allowed);
    assert!(here.debt(&keys).is_none());
}

#[tokio::test(start_paused = true)]
async fn its_memory_is_bounded_and_who_gives_way_owes_nothing() {
    let here = StandIn::new(10);
    let set = WindowSet::new(vec![Window::new(5, SPAN)]);
    for number in 0..100 {
        let keys = [format!("k{number}")];
        assert!(here.take(Charges { set: &set, keys: &keys }, 1, true).1.allowed);
        let counters = here.lock();
        assert!(counters.room.len() <= 10 && counters.owed.len() <= counters.room.len());
    }
    assert_eq!(here.evicted(), 90);
    let mut units = 0;
    while here.owes() {
        let debtors = here.debtors(3);
        assert!((1..=3).contains(&debtors.len()));
        units += here.debt(&debtors).expect("what they owe").units();
    }
    assert_eq!(units, 10);
    here.forget("k99");
}
