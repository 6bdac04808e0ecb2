//! Two servers that are asked at a time.

use tokio::sync::Notify;

use super::super::super::retry::Outcome;
use super::*;

/// What a server does with one request.
enum Does {
    /// Answers with this status.
    Answers(&'static str),
    /// Reads it, and closes the connection.
    HangsUp,
    /// Reads it, and says nothing more.
    Hangs,
}

/// A server that does with its requests what `does` says of each, by its number.
async fn acting<F: Future<Output = Does> + Send>(
    does: impl Fn(usize) -> F + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, asked) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let (count, does) = (Arc::clone(&asked), Arc::new(does));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (count, does) = (Arc::clone(&count), Arc::clone(&does));
            tokio::spawn(async move {
                let mut head = Vec::new();
                while socket.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    head.clear();
                    match does(count.fetch_add(1, Ordering::SeqCst)).await {
                        Does::Answers(status) => {
                            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                            socket.write_all(answer.as_bytes()).await.unwrap();
                        }
                        Does::HangsUp => return,
                        Does::Hangs => {}
                    }
                }
            });
        }
    });
    (at, asked)
}

/// Always the same.
async fn always(does: fn() -> Does) -> (SocketAddr, Arc<AtomicUsize>) {
    acting(move |_| std::future::ready(does())).await
}

/// Of two servers, the first of which is asked first, and the second after 5 ms.
fn hedging(servers: [SocketAddr; 2], more: &str) -> Endpoints {
    let endpoints = chosen_by("round-robin", &servers, &format!("hedge = \"p50\"\n{more}"));
    hedging_at_once(&endpoints);
    endpoints
}

fn outcomes(endpoints: &Endpoints) -> [u64; Outcome::WORDS.len()] {
    endpoints.retry().unwrap().outcomes()
}

/// A listener whose queue is full drops what comes, so that dials take all their time.
async fn full() -> (SocketAddr, impl Sized) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let at = listener.local_addr().unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(tokio::net::TcpStream::connect(at).await.unwrap());
    }
    (at, (listener, held))
}

/// The first one took nothing, and the second may have done what was asked for.
#[tokio::test]
async fn a_race_that_nobody_wins_ends_with_what_may_have_had_consequences() {
    let (full, _held) = full().await;
    let (loses, asked) = always(|| Does::HangsUp).await;
    let more = "connect_timeout = \"100ms\"\nretry = { on = [\"500\"] }";
    let endpoints = hedging([full, loses], more);
    let failure = get(&endpoints).await.unwrap_err();
    assert!(failure.may_have_acted(), "{failure:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// The second one has hung up when the first one answers that nothing was done.
#[tokio::test]
async fn an_answer_of_one_says_nothing_of_what_another_has_done() {
    let has_hung_up = Arc::new(Notify::new());
    let told = Arc::clone(&has_hung_up);
    let (slow, _) = acting(move |_| {
        let told = Arc::clone(&told);
        async move {
            told.notified().await;
            Does::Answers("404 Not Found")
        }
    })
    .await;
    let (loses, _) = acting(move |_| {
        has_hung_up.notify_one();
        std::future::ready(Does::HangsUp)
    })
    .await;
    let response = get(&hedging([slow, loses], "retry = {}")).await.unwrap();
    assert_eq!(response.status(), 404);
    assert!(response.body().is_in_doubt());
    let (sound, _) = server("404 Not Found").await;
    let response = get(&endpoints(&[sound], 2)).await.unwrap();
    assert!(!response.body().is_in_doubt());
}

/// The first one fails when it hears that the second one was asked, which answers then.
#[tokio::test]
async fn a_failure_waits_for_the_other_answer() {
    let (was_asked, has_failed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (asked, failed) = (Arc::clone(&was_asked), Arc::clone(&has_failed));
    let (bad, _) = acting(move |_| {
        let (asked, failed) = (Arc::clone(&asked), Arc::clone(&failed));
        async move {
            asked.notified().await;
            // Its answer is written before anybody else runs.
            failed.notify_one();
            Does::Answers("500 Internal Server Error")
        }
    })
    .await;
    let (good, _) = acting(move |_| {
        let (was_asked, has_failed) = (Arc::clone(&was_asked), Arc::clone(&has_failed));
        async move {
            was_asked.notify_one();
            has_failed.notified().await;
            Does::Answers("200 OK")
        }
    })
    .await;
    let endpoints = hedging([bad, good], "retry = {}");
    assert_eq!(get(&endpoints).await.unwrap().status(), 200);
    assert_eq!(endpoints.retry().unwrap().hedges(), Some([0, 1]));
    assert_eq!(outcomes(&endpoints)[Outcome::Good as usize], 1);
}

/// It is one of the attempts, and takes from the budget.
#[tokio::test]
async fn a_second_server_is_an_attempt_like_others() {
    for (attempts, expected) in [(2, 2), (3, 3)] {
        let (one, asked) = always(|| Does::Hangs).await;
        let (other, too) = always(|| Does::Answers("503 Service Unavailable")).await;
        let more = format!(
            "response_timeout = \"100ms\"\n\
             retry = {{ attempts = {attempts}, on = [\"503\", \"timeout\"], backoff = \"1ms\" }}"
        );
        let endpoints = hedging([one, other], &more);
        let left = endpoints.retry().unwrap().left();
        let attempts = Arc::<crate::upstream::Attempts>::default();
        let sender = Sender { attempts: Some(Arc::clone(&attempts)), ..sender() };
        let failed = get_as(&endpoints, &sender).await;
        assert!(failed.map_or(true, |response| response.status() == 503));
        let seen = asked.load(Ordering::SeqCst) + too.load(Ordering::SeqCst);
        assert_eq!((seen, attempts.count()), (expected, u32::try_from(expected).unwrap()));
        let spent = u64::try_from(expected).unwrap() - 1;
        assert_eq!(endpoints.retry().unwrap().left(), left - spent);
        assert_eq!(outcomes(&endpoints)[Outcome::Failed as usize], spent);
    }
}

/// Over HTTP/1.1 each exchange takes a connection.
#[tokio::test]
async fn a_second_server_takes_a_place_of_its_own() {
    for (places, expected) in [(1, 0), (2, 1)] {
        let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (other, asked) = server("200 OK").await;
        let more = "response_timeout = \"100ms\"\nretry = {}";
        let endpoints = hedging([hangs.local_addr().unwrap(), other], more);
        let capacity = Capacity::new(places, 0);
        let permit = capacity.try_take(sender().client).unwrap();
        let answered = get_with(&endpoints, &sender(), permit).await;
        assert_eq!((answered.is_ok(), asked.load(Ordering::SeqCst)), (places == 2, expected));
        drop(answered);
        assert_eq!(capacity.count(), (0, 0), "all are given back");
    }
}

/// Where slow answers were left out, there would be more and more second servers.
#[tokio::test]
async fn who_loses_a_race_takes_longer_than_most() {
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (quick, _) = server("200 OK").await;
    let endpoints = hedging([hangs.local_addr().unwrap(), quick], "retry = {}");
    let retry = endpoints.retry().unwrap();
    assert_eq!(retry.percentile().unwrap().counted(), 20);
    assert_eq!(get(&endpoints).await.unwrap().status(), 200);
    assert_eq!(retry.hedges(), Some([0, 1]));
    assert_eq!(retry.percentile().unwrap().counted(), 22);
}

/// Whoever tries an ejected server finds out whether it hangs.
#[tokio::test]
async fn a_server_that_is_tried_is_tried_to_the_end() {
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (good, asked) = server("200 OK").await;
    let more = "response_timeout = \"100ms\"\neject = { time = \"1h\" }\n\
                retry = { on = [\"timeout\"], backoff = \"1ms\" }";
    let endpoints = hedging([hangs.local_addr().unwrap(), good], more);
    let care = endpoints.care().unwrap();
    assert!(endpoints.all()[0].verdict().eject(|_| Duration::ZERO));
    assert_eq!(care.ejections().iter().sum::<u64>(), 0);
    assert_eq!(get(&endpoints).await.unwrap().status(), 200);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(care.ejections(), [0, 0, 1, 0], "what tried it has failed");
    assert_eq!(endpoints.retry().unwrap().hedges(), Some([0, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_loses_all_races_is_found_out() {
    let more = "response_timeout = \"2s\"\neject = { failures = 2, time = \"1h\" }";
    let servers = ["192.0.2.1:80", "192.0.2.2:80"].map(|server| server.parse().unwrap());
    let endpoints = chosen_by("round-robin", &servers, more);
    let hung = &endpoints.all()[0];
    let lose = || {
        let mut visit = endpoints.enter(Choice::again(0), &sender()).unwrap();
        visit.lost_race();
    };
    let (second, is_out) = (Duration::from_secs(1), || hung.verdict().word().is_ejected());
    for _ in 0..2 {
        for _ in 0..5 {
            lose();
        }
        tokio::time::advance(second).await;
    }
    // It has answered somebody else meanwhile, slow as it is.
    let mut visit = endpoints.enter(Choice::again(0), &sender()).unwrap();
    visit.answered(StatusCode::OK, &HeaderMap::new(), None);
    visit.ended();
    for _ in 0..5 {
        lose();
    }
    assert!(!is_out());
    tokio::time::advance(second * 2).await;
    lose();
    assert!(!is_out());
    lose();
    assert!(is_out(), "nobody has heard of it for as long as an answer may take");
}

/// Its clients are answered by another server all the while.
#[tokio::test]
async fn a_server_that_hangs_is_ejected_though_nobody_waits_for_it() {
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (good, _) = server("200 OK").await;
    let more = "response_timeout = \"200ms\"\neject = { failures = 2, time = \"1h\" }\n\
                retry = { budget = \"100%\" }";
    let endpoints = hedging([hangs.local_addr().unwrap(), good], more);
    let retry = endpoints.retry().unwrap();
    for _ in 0..1_000 {
        // So that there is always a budget.
        (0..20).for_each(|_| retry.note_request());
        retry.tick();
        assert_eq!(get(&endpoints).await.unwrap().status(), 200);
        if endpoints.all()[0].verdict().word().is_ejected() {
            return;
        }
    }
    panic!("it is not ejected");
}
