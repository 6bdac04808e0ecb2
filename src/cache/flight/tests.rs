//! Collapsing: who asks, who waits, and what becomes of those who wait.

use super::*;

fn flight(answer: &str) -> Flight {
    Flight { answer: answer.to_owned(), epochs: Arc::from([]), unkept: None }
}

fn lead(flights: &Arc<Flights>, key: &str) -> Lead {
    match flights.board(flight(key)) {
        Boarding::Lead(lead) => lead,
        other => panic!("expected to lead, not {other:?}"),
    }
}

fn follow(flights: &Arc<Flights>, key: &str) -> Follow {
    match flights.board(flight(key)) {
        Boarding::Follow(follow) => follow,
        other => panic!("expected to follow, not {other:?}"),
    }
}

#[tokio::test]
async fn the_first_leads_and_the_others_follow() {
    let flights = Arc::new(Flights::default());
    let first = lead(&flights, "a");
    let second = follow(&flights, "a");
    let other = lead(&flights, "b");
    assert_eq!(flights.len(), 2);
    drop(first);
    assert!(matches!(second.landed().await, Phase::Abandoned));
    // Nobody asks any more: the next one leads.
    let third = lead(&flights, "a");
    third.alone_once();
    lead(&flights, "a");
    drop(other);
    assert!(flights.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_shared_holds_nobody_up_for_a_while() {
    let flights = Arc::new(Flights::default());
    let first = lead(&flights, "a");
    let second = follow(&flights, "a");
    first.alone();
    assert!(matches!(second.landed().await, Phase::Alone));
    assert!(matches!(flights.board(flight("a")), Boarding::Alone));
    lead(&flights, "b");
    tokio::time::advance(ALONE).await;
    lead(&flights, "a");
}

#[tokio::test]
async fn those_who_wait_are_told_when_a_body_begins_to_pass() {
    let flights = Arc::new(Flights::default());
    let first = lead(&flights, "a");
    let second = follow(&flights, "a");
    let waiting = tokio::spawn(second.landed());
    let (passing, writer) = Passing::begin();
    first.passing(crate::cache::tests::any_stored(), passing);
    assert!(matches!(waiting.await, Ok(Phase::Passing(..))));
    // Who comes now follows as well.
    assert!(matches!(follow(&flights, "a").landed().await, Phase::Passing(..)));
    drop((first, writer));
    lead(&flights, "a");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_what_may_never_end_waits_a_while() {
    let flights = Arc::new(Flights::default());
    let first = lead(&flights, "a");
    let (early, late) = (follow(&flights, "a"), follow(&flights, "a"));
    first.unmeasured();
    let begun = Instant::now();
    assert!(matches!(early.landed().await, Phase::Alone));
    assert_eq!(begun.elapsed().as_secs(), UNMEASURED.as_secs());
    let waiting = tokio::spawn(late.landed());
    tokio::task::yield_now().await;
    first.stored(crate::cache::tests::any_stored());
    assert!(matches!(waiting.await, Ok(Phase::Stored(_))), "it ended in time");
    let second = lead(&flights, "a");
    second.unmeasured();
    let third = follow(&flights, "a");
    drop(second);
    assert!(matches!(third.landed().await, Phase::Abandoned), "nobody asks any more");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_failed_is_tried_again_after_a_pause_that_grows() {
    let flights = Arc::new(Flights::default());
    assert!(flights.refresh(flight("a")).is_some());
    flights.failed("a");
    assert!(flights.refresh(flight("a")).is_none());
    assert!(flights.refresh(flight("b")).is_some(), "of another one nothing is known");
    lead(&flights, "c").alone();
    assert!(flights.refresh(flight("c")).is_some(), "what is stale is refreshed, shared or not");
    tokio::time::advance(PAUSE.mul_f64(1.25)).await;
    assert!(flights.refresh(flight("a")).is_some());
    flights.failed("a");
    tokio::time::advance(PAUSE.mul_f64(1.25)).await;
    assert!(flights.refresh(flight("a")).is_none(), "twice as long");
    tokio::time::advance(PAUSE.mul_f64(1.25)).await;
    assert!(flights.refresh(flight("a")).is_some());
    let again = lead(&flights, "a");
    flights.failed("a");
    again.succeeded();
    drop(again);
    let other = flights.refresh(flight("a")).expect("the duty");
    other.left_to_others();
    assert!(flights.refresh(flight("a")).is_none(), "another node does it");
    tokio::time::advance(PAUSE).await;
    assert!(flights.refresh(flight("a")).is_some());
}

#[tokio::test]
async fn a_response_is_asked_for_again_within_its_own_life() {
    let flights = Flights::default();
    let asked = [("a", 1), ("b", 1), ("a", 1), ("a", 1), ("a", 2), ("a", 2), ("b", 1)];
    let again = asked.map(|(key, answered_ms)| flights.is_asked_again(key, answered_ms));
    assert_eq!(again, [false, false, true, true, false, true, true]);
}
