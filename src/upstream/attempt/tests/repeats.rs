//! What a repeat takes, and what it leaves.

use super::super::super::retry::Outcome;
use super::*;

/// Bound and not listening: it refuses, and nobody else gets its port.
fn refuses() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (socket.local_addr().unwrap(), socket)
}

fn outcomes(endpoints: &Endpoints) -> [u64; Outcome::WORDS.len()] {
    endpoints.retry().unwrap().outcomes()
}

/// No server has seen anything of it. Beyond `attempts` it takes from the budget: each request
/// would dial all of them otherwise, however many there are.
#[tokio::test]
async fn servers_that_refuse_cost_nothing_of_the_budget_but_beyond_attempts() {
    for (attempts, taken) in [(4, 0), (2, 2)] {
        let dead = [refuses(), refuses(), refuses()];
        let (alive, asked) = server("200 OK").await;
        let servers: Vec<_> = dead.iter().map(|(at, _)| *at).chain([alive]).collect();
        let endpoints = endpoints(&servers, attempts);
        let retry = endpoints.retry().unwrap();
        let left = retry.left();
        assert_eq!(get(&endpoints).await.unwrap().status(), 200);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert_eq!(retry.left(), left - taken, "{attempts} attempts");
        assert_eq!(outcomes(&endpoints).iter().sum::<u64>(), taken, "{attempts} attempts");
    }
}

/// A server that closes each connection with its second request.
async fn closing() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, asked) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            for is_last in [false, true] {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    if !socket.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                        break;
                    }
                }
                count.fetch_add(1, Ordering::Relaxed);
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                if is_last || socket.write_all(answer).await.is_err() {
                    break;
                }
            }
        }
    });
    (at, asked)
}

/// It may have been read, so it is a repeat like others: counted, and within the budget.
#[tokio::test]
async fn what_an_old_connection_loses_is_repeated_within_the_budget() {
    let ons = ["\"reset\"", "\"503\""];
    for (on, is_left) in ons.into_iter().flat_map(|on| [(on, true), (on, false)]) {
        let (at, asked) = closing().await;
        let more = format!("retry = {{ on = [{on}], backoff = \"1ms\" }}");
        let endpoints = chosen_by("round-robin", &[at], &more);
        assert_eq!(get(&endpoints).await.unwrap().status(), 200);
        let retry = endpoints.retry().unwrap();
        let left = retry.left();
        if !is_left {
            (0..left).for_each(|_| retry.spend(1_000).unwrap().ends(Outcome::Good));
        }
        let attempts = Arc::<crate::upstream::Attempts>::default();
        let sender = Sender { attempts: Some(Arc::clone(&attempts)), ..sender() };
        let answer = get_as(&endpoints, &sender).await;
        assert_eq!(answer.is_ok(), is_left, "{answer:?}");
        assert_eq!(asked.load(Ordering::Relaxed), if is_left { 3 } else { 2 });
        assert_eq!(attempts.count(), if is_left { 2 } else { 1 });
        assert_eq!(attempts.reason(), is_left.then_some("reset"));
        assert_eq!(retry.left(), if is_left { left - 1 } else { 0 });
    }
}

/// The answer that is kept holds its connection meanwhile.
#[tokio::test]
async fn an_answer_that_is_kept_takes_a_place_of_its_own() {
    for (places, expected) in [(1, 503), (2, 200)] {
        let (busy, _) = server("503 Service Unavailable").await;
        let (good, asked) = server("200 OK").await;
        let endpoints = endpoints(&[busy, good], 2);
        let capacity = Capacity::new(places, 0);
        let permit = capacity.try_take(sender().client).unwrap();
        let answer = get_with(&endpoints, &sender(), permit).await.unwrap();
        assert_eq!(answer.status(), expected);
        assert_eq!(asked.load(Ordering::Relaxed), places - 1);
        assert_eq!(outcomes(&endpoints)[Outcome::OverBudget as usize], 2 - places as u64);
        drop(answer);
        assert_eq!(capacity.count(), (0, 0), "all are given back");
    }
}

/// A deadline that passes during a repeat is no fault of the server that got the rest of the time.
#[tokio::test(start_paused = true)]
async fn the_first_server_answers_for_the_time_that_it_took() {
    let servers = ["192.0.2.1:80", "192.0.2.2:80"].map(|server| server.parse().unwrap());
    let endpoints = chosen_by("round-robin", &servers, "eject = {}");
    let sender = sender_within(Duration::from_secs(1));
    let mut first = endpoints.enter(Choice::again(0), &sender).unwrap();
    let next = enter(&endpoints, &sender, (0, &mut first), Choice::again(1)).unwrap();
    tokio::time::advance(Duration::from_secs(2)).await;
    drop((first, next));
    let failures = |at: usize| endpoints.all()[at].tally().failures().iter().sum::<u64>();
    assert_eq!([failures(0), failures(1)], [1, 0]);
}

/// What waits for its turn is nothing where nobody waits for it any more.
#[tokio::test]
async fn a_client_that_leaves_while_its_request_waits_leaves_nothing_behind() {
    let (busy, asked) = server("503 Service Unavailable").await;
    let endpoints = chosen_by("round-robin", &[busy], "retry = { backoff = \"24h\" }");
    let capacity = Capacity::new(9, 0);
    let sender = sender();
    {
        let permit = capacity.try_take(sender.client).unwrap();
        let mut waits = std::pin::pin!(get_with(&endpoints, &sender, permit));
        let begun = || endpoints.retry().unwrap().left() < 10;
        std::future::poll_fn(|cx| {
            assert!(waits.as_mut().poll(cx).is_pending());
            if begun() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        assert_eq!((endpoints.busy(), capacity.count().0), (1, 2));
    }
    assert_eq!((endpoints.busy(), capacity.count()), (0, (0, 0)));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    // As many may be in flight as if there had been none.
    let retry = endpoints.retry().unwrap();
    let all: Vec<_> = (0..9).filter_map(|_| retry.spend(1)).collect();
    assert_eq!(all.len(), 3);
}
