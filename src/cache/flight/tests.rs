//! Collapsing: who asks, who waits, and what becomes of those who wait.

use super::*;

fn lead(flights: &Arc<Flights>, key: &str) -> Lead {
    match flights.board(key) {
        Boarding::Lead(lead) => lead,
        other => panic!("expected to lead, not {other:?}"),
    }
}

fn follow(flights: &Arc<Flights>, key: &str) -> Follow {
    match flights.board(key) {
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
    assert!(matches!(flights.board("a"), Boarding::Alone));
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
