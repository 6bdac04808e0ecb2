//! Who is to blame that the time of a request has passed.

use std::future::poll_fn;
use std::pin::Pin;

use http::Request;
use http_body::Body as _;
use tokio::net::TcpListener;
use tokio::time::{timeout, timeout_at};

use super::*;
use crate::base::body::{Inbound, Upload, UploadLimits};
use crate::upstream::outgoing::TimeLimit;
use crate::upstream::{Ahead, Upstream};

/// One that gives its request up after this time.
fn sender_within(time: Duration) -> Sender {
    let deadline = Some(TimeLimit::until(Instant::now() + time, time));
    Sender { deadline, ..sender() }
}

#[tokio::test(start_paused = true)]
async fn a_server_is_late_where_the_gateway_gives_its_request_up() {
    let endpoints = endpoints(2, FIVE);
    let sender = sender_within(Duration::from_secs(1));
    let visits: Vec<Visit> =
        (0..5).map(|_| endpoints.enter(Choice::again(0), &sender).unwrap()).collect();
    drop(endpoints.enter(Choice::again(0), &sender));
    pass(Duration::from_secs(1)).await;
    drop(visits);
    assert_eq!(usable(&endpoints), [1]);
    assert_eq!(endpoints.all()[0].tally().failures()[Kind::Silent as usize], 5);
}

/// Its client has taken the rest, or still owes a part of the body.
#[tokio::test(start_paused = true)]
async fn who_had_the_whole_body_for_half_of_the_time_is_to_blame() {
    let limits = UploadLimits { bytes_max: 9, progress_timeout: Duration::MAX, progress_bytes: 1 };
    let second = Duration::from_secs(1);
    let late = second / 2 + Duration::from_millis(1);
    for (sent_after, failed) in [(Some(second / 2), 1), (Some(late), 0), (None, 0)] {
        let endpoints = endpoints(2, "breaker = { requests = 1 }");
        let (care, mut sender) = (care(&endpoints), sender_within(second));
        let (mut upload, _) = Upload::new(Inbound::Bytes("abc".into()), limits, false);
        sender.deadline.as_mut().unwrap().begins_behind(upload.timed());
        let Some(Entry::Closed(round)) = care.admit().unwrap() else { panic!("it is open") };
        let mut charge = Charge::new(care, round, false);
        let blame = sender.begins();
        charge.is_asked_until(blame);
        let visit = endpoints.enter(Choice::again(0), &sender).unwrap();
        if let Some(time) = sent_after {
            pass(time).await;
            let mut body = Pin::new(&mut upload);
            assert!(poll_fn(|cx| body.as_mut().poll_frame(cx)).await.is_some());
        }
        pass(second).await;
        drop((visit, charge));
        let failures: u64 = endpoints.all()[0].tally().failures().iter().sum();
        let told = (failures, sender.blames_upstream());
        assert_eq!(told, (failed, failed == 1), "{sent_after:?}");
        care.tick();
        let state = if failed == 1 { "open" } else { "closed" };
        assert_eq!(care.breaker_state(), Some(state), "{sent_after:?}");
    }
}

/// The gateway has used up the rest: it has waited for a place, for the store, or for readers.
#[tokio::test(start_paused = true)]
async fn who_is_asked_with_less_than_half_of_the_time_left_is_not_to_blame() {
    let second = Duration::from_secs(1);
    for (waited, failed) in [(second / 2, 1), (second / 2 + Duration::from_millis(1), 0)] {
        let endpoints = endpoints(2, "breaker = { requests = 1 }");
        let (care, sender) = (care(&endpoints), sender_within(second));
        let Some(Entry::Closed(round)) = care.admit().unwrap() else { panic!("it is open") };
        let mut charge = Charge::new(care, round, false);
        pass(waited).await;
        let blame = sender.begins();
        charge.is_asked_until(blame);
        let visit = endpoints.enter(Choice::again(0), &sender).unwrap();
        pass(second).await;
        drop((visit, charge));
        let failures: u64 = endpoints.all()[0].tally().failures().iter().sum();
        assert_eq!((failures, sender.blames_upstream()), (failed, failed == 1), "{waited:?}");
        care.tick();
        let state = if failed == 1 { "open" } else { "closed" };
        assert_eq!(care.breaker_state(), Some(state), "{waited:?}");
    }
}

/// Clients who read slowly hold the places of an upstream that answers at once.
#[tokio::test(start_paused = true)]
async fn no_upstream_is_to_blame_for_what_a_queue_has_taken() {
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let more = "max_requests = 1\nclient_share = \"100%\"\nconnect_timeout = \"9s\"";
    let mut settings = settings(1, &format!("{more}\nbreaker = {{ requests = 1 }}"));
    settings.servers[0].port = hangs.local_addr().unwrap().port();
    let second = Duration::from_secs(1);
    let (early, late) = (second * 2 / 10, second * 6 / 10);
    // Of the time: what is over before the upstream is reached, and then what the queue takes.
    for (over, queue, is_blamed) in [
        (early, early, true),
        (late, Duration::ZERO, false),
        (early, late, false),
        (Duration::ZERO, second, false),
    ] {
        let upstream = Upstream::new("a", &settings, None, &Ahead::default());
        let (began, sender) = (Instant::now(), sender_within(second));
        // Readers were asked before.
        sender.begins();
        let held = upstream.admission.admit(&sender, upstream.meter()).await.unwrap();
        pass(over).await;
        let head = || Request::get("/").header("Host", "a").body(()).unwrap();
        let nobody = None::<fn(StatusCode, &HeaderMap)>;
        let mut outgoing = upstream.outgoing(&sender, head, Upload::none(), nobody);
        let mut sent = Box::pin(upstream.send(&mut outgoing));
        assert!(timeout(queue, &mut sent).await.is_err());
        if queue < second {
            drop(held);
        }
        assert!(timeout_at(began + second, &mut sent).await.is_err());
        drop(sent);
        let endpoints = upstream.servers.now();
        let care = care(&endpoints);
        care.tick();
        let state = if is_blamed { "open" } else { "closed" };
        assert_eq!(care.breaker_state(), Some(state), "{over:?} {queue:?}");
        assert_eq!(sender.blames_upstream(), is_blamed, "{over:?} {queue:?}");
    }
}
