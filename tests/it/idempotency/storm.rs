//! Many at once, over several gateways of which some die.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Redis, Session, gateway, shop};
use crate::support::Gateway;

/// A hundred clients send one request at once. Whoever is killed meanwhile, the upstream gets it
/// once at most, and all who are answered are answered alike.
#[test]
fn a_hundred_equal_requests_over_dying_gateways_take_effect_once() {
    const CLIENTS: usize = 100;
    let redis = Redis::start();
    let (mut answered, mut acted) = (0, 0);
    for round in 0..3 {
        let upstream = shop();
        let gateways: Vec<Gateway> =
            (0..3).map(|_| gateway(&upstream, &redis.url(), "", "")).collect();
        let key = format!("round-{round}");
        let begun = AtomicUsize::new(0);
        // Nobody comes to a gateway that is gone.
        let connected = Barrier::new(CLIENTS + 1);
        let client = |number: usize| {
            let mut session = Session::open(gateways[number % 3].public);
            connected.wait();
            begun.fetch_add(1, Ordering::SeqCst);
            let request = session.request("POST", "/orders").body("a book");
            request.header("Idempotency-Key", &key).try_send().ok()
        };
        let client = &client;
        let replies: Vec<_> = std::thread::scope(|scope| {
            let clients: Vec<_> =
                (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
            connected.wait();
            // Some are on their way by now, whatever they have come to.
            while begun.load(Ordering::SeqCst) < CLIENTS / 2 {
                std::thread::yield_now();
            }
            gateways[round].signal("KILL");
            clients.into_iter().filter_map(|it| it.join().unwrap()).collect()
        });
        assert!(upstream.seen() <= 1, "{} executions", upstream.seen());
        for reply in &replies {
            match reply.status {
                201 => assert_eq!(reply.text(), "order 1 of a book"),
                409 => assert_eq!(super::code(reply), "idempotency_in_progress"),
                other => panic!("{other}: {reply:?}"),
            }
        }
        answered += replies.iter().filter(|it| it.status == 201).count();
        acted += upstream.seen();
    }
    // Whom the dead gateway had asked for is lost with it, but not each time.
    assert!(acted > 0 && answered > 0, "{acted} {answered}");
}
