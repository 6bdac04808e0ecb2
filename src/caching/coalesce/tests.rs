//! Coalescing: who asks, who waits, and what becomes of those who wait.

use bytes::Bytes;
use http::HeaderMap;

use super::*;
use crate::cache::{Epochs, Flags, Freshness, StoredBody};

fn any_stored() -> Arc<Stored> {
    let freshness = Freshness {
        born_ms: 0,
        answered_ms: 0,
        lifetime_s: 60,
        swr_s: 0,
        sie_s: 0,
        flags: Flags::default(),
        vary: Vec::new(),
        tags: Vec::new(),
        groups: Vec::new(),
    };
    let body = StoredBody::Inline(Bytes::from_static(b"body"));
    let (epochs, headers) = (Epochs::default(), HeaderMap::new());
    Arc::new(Stored::new("key".to_owned(), epochs, StatusCode::OK, headers, freshness, body))
}

fn fetch(response: &str) -> FetchKey {
    let response = response.to_owned();
    FetchKey { response, epochs: Arc::from([]), epochs_unknown: None }
}

fn lead(coalescer: &Arc<Coalescer>, key: &str) -> Leader {
    match coalescer.join(fetch(key)) {
        Joined::Leader(leader) => leader,
        other => panic!("expected to lead, not {other:?}"),
    }
}

fn follow(coalescer: &Arc<Coalescer>, key: &str) -> Follower {
    match coalescer.join(fetch(key)) {
        Joined::Follower(follower) => follower,
        other => panic!("expected to follow, not {other:?}"),
    }
}

#[tokio::test]
async fn the_first_leads_and_the_others_follow() {
    let coalescer = Arc::new(Coalescer::default());
    let first = lead(&coalescer, "a");
    let second = follow(&coalescer, "a");
    let other = lead(&coalescer, "b");
    assert_eq!(coalescer.len(), 2);
    drop(first);
    assert!(matches!(second.wait().await, Outcome::Dangling));
    // Nobody asks any more: the next one leads.
    let third = lead(&coalescer, "a");
    third.give_up();
    lead(&coalescer, "a");
    drop(other);
    assert!(coalescer.len() == 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_shared_holds_nobody_up_for_a_while() {
    let coalescer = Arc::new(Coalescer::default());
    let first = lead(&coalescer, "a");
    let second = follow(&coalescer, "a");
    first.hit_for_pass();
    assert!(matches!(second.wait().await, Outcome::GiveUp));
    assert!(matches!(coalescer.join(fetch("a")), Joined::HitForPass));
    lead(&coalescer, "b");
    tokio::time::advance(HIT_FOR_PASS).await;
    lead(&coalescer, "a");
}

#[tokio::test]
async fn those_who_wait_are_told_when_a_body_begins_to_pass() {
    let coalescer = Arc::new(Coalescer::default());
    let first = lead(&coalescer, "a");
    let second = follow(&coalescer, "a");
    let waiting = tokio::spawn(second.wait());
    let (body, writer) = SharedBody::begin();
    first.streaming(any_stored(), body);
    assert!(matches!(waiting.await, Ok(Outcome::Streaming(..))));
    // Who comes now follows as well.
    assert!(matches!(follow(&coalescer, "a").wait().await, Outcome::Streaming(..)));
    drop((first, writer));
    lead(&coalescer, "a");
}

#[tokio::test]
async fn who_joins_late_sees_what_there_was_nobody_to_tell() {
    let coalescer = Arc::new(Coalescer::default());
    let leader = lead(&coalescer, "a");
    leader.length_unknown();
    let second = follow(&coalescer, "a");
    assert!(!second.is_early());
    drop(second);
    let (body, writer) = SharedBody::begin();
    leader.streaming(any_stored(), body);
    assert!(matches!(follow(&coalescer, "a").wait().await, Outcome::Streaming(..)));
    drop((leader, writer));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_what_may_never_end_waits_a_while() {
    let coalescer = Arc::new(Coalescer::default());
    let first = lead(&coalescer, "a");
    let (early, late) = (follow(&coalescer, "a"), follow(&coalescer, "a"));
    first.length_unknown();
    let begun = Instant::now();
    assert!(matches!(early.wait().await, Outcome::GiveUp));
    assert_eq!(begun.elapsed().as_secs(), LENGTH_UNKNOWN_WAIT.as_secs());
    let waiting = tokio::spawn(late.wait());
    tokio::task::yield_now().await;
    first.done(any_stored());
    assert!(matches!(waiting.await, Ok(Outcome::Done(_))), "it ended in time");
    let second = lead(&coalescer, "a");
    second.length_unknown();
    let third = follow(&coalescer, "a");
    drop(second);
    assert!(matches!(third.wait().await, Outcome::Dangling), "nobody asks any more");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_failed_is_tried_again_after_a_pause_that_grows() {
    let coalescer = Arc::new(Coalescer::default());
    assert!(coalescer.refresh(fetch("a")).is_some());
    coalescer.refresh_failed("a");
    assert!(coalescer.refresh(fetch("a")).is_none());
    assert!(coalescer.refresh(fetch("b")).is_some(), "of another one nothing is known");
    lead(&coalescer, "c").hit_for_pass();
    assert!(coalescer.refresh(fetch("c")).is_some(), "what is stale is refreshed, shared or not");
    tokio::time::advance(PAUSE.mul_f64(1.25)).await;
    assert!(coalescer.refresh(fetch("a")).is_some());
    coalescer.refresh_failed("a");
    tokio::time::advance(PAUSE.mul_f64(1.25)).await;
    assert!(coalescer.refresh(fetch("a")).is_none(), "twice as long");
    tokio::time::advance(PAUSE.mul_f64(1.25)).await;
    assert!(coalescer.refresh(fetch("a")).is_some());
    let again = lead(&coalescer, "a");
    coalescer.refresh_failed("a");
    again.succeeded();
    drop(again);
    let other = coalescer.refresh(fetch("a")).expect("the duty");
    other.left_to_others();
    assert!(coalescer.refresh(fetch("a")).is_none(), "another node does it");
    tokio::time::advance(PAUSE).await;
    assert!(coalescer.refresh(fetch("a")).is_some());
}

#[tokio::test]
async fn a_response_is_asked_for_again_within_its_own_life() {
    let coalescer = Coalescer::default();
    let asked = [("a", 1), ("b", 1), ("a", 1), ("a", 1), ("a", 2), ("a", 2), ("b", 1)];
    let again = asked.map(|(key, answered_ms)| coalescer.is_asked_again(key, answered_ms));
    assert_eq!(again, [false, false, true, true, false, true, true]);
}
