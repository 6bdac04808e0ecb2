//! What the ends of claims leave in the store, and which of them wait for it.

use http::StatusCode;

use super::*;
use crate::idempotency::{Ended, Fingerprint, Seen, Standing, standing};
use crate::store::{MemoryBounds, MemoryStore, Questions};

const TERMS: ClaimTerms =
    ClaimTerms { keep: Duration::from_secs(60), patience: Duration::from_secs(60) };

/// Claims in an embedded store of so many bytes.
fn claims(idempotency_bytes: usize) -> Arc<Claims> {
    let bounds = MemoryBounds { idempotency_bytes, ..MemoryBounds::keys(100) };
    let store = Store::Memory(Box::new(MemoryStore::bounded(bounds)));
    Claims::open(&Arc::new(store), &Arc::default())
}

/// What lies under a key, or why this claim to it cannot be made.
async fn ask(claims: &Arc<Claims>, claim: &Claim) -> Result<Standing, StoreError> {
    let questions = Questions { claim: Some(claim.question()), ..Questions::default() };
    let answers = claims.store.ask(&questions).await;
    answers.claim.unwrap().map(|found| standing(found, claim.value(), claims.now_ms()))
}

/// A key whose request was sent, if there is room for it.
async fn sent(claims: &Arc<Claims>) -> Option<Claim> {
    let mut claim = claims.claim("k".to_owned(), TERMS);
    if ask(claims, &claim).await.is_err() {
        claim.leave();
        return None;
    }
    claim.hold();
    claim.send(None);
    Some(claim)
}

async fn found(claims: &Arc<Claims>) -> Standing {
    let mut other = claims.claim("k".to_owned(), TERMS);
    let found = ask(claims, &other).await.unwrap();
    other.leave();
    found
}

#[tokio::test]
async fn a_renewal_that_comes_late_changes_nothing() {
    let claims = claims(1 << 20);
    let claim = sent(&claims).await.unwrap();
    let own = claim.owner.clone();
    let running = claims.lock_running().get(&own).cloned().unwrap();
    claims.renew(own.clone(), running.clone()).await;
    assert_eq!(found(&claims).await, Standing::Running);
    claim.unknown().await;
    for has_looked in [false, true] {
        if has_looked {
            // It looked just before the end.
            claims.lock_running().insert(own.clone(), running.clone());
        }
        claims.renew(own.clone(), running.clone()).await;
        let found = found(&claims).await;
        assert!(matches!(found, Standing::Unknown(_)), "{has_looked}: {found:?}");
    }
}

/// Who took a key over and had no effect leaves it as it was: the first one may have had some.
#[tokio::test]
async fn a_key_that_was_taken_over_is_never_free_again() {
    for is_dropped in [false, true] {
        let claims = claims(1 << 20);
        sent(&claims).await.unwrap().unknown().await;
        let Standing::Unknown(left) = found(&claims).await else { panic!("it is unknown") };
        let mut second = claims.claim("k".to_owned(), TERMS);
        assert!(second.take_over(&left).await.unwrap());
        if is_dropped {
            drop(second);
            claims.finish(Duration::from_secs(10)).await;
        } else {
            second.free().await;
        }
        let found = found(&claims).await;
        assert!(matches!(found, Standing::Unknown(_)), "{is_dropped}: {found:?}");
    }
}

#[tokio::test]
async fn a_full_store_keeps_how_a_request_ended() {
    let seen = Seen::Whole(Fingerprint::from_bytes([7; 32]));
    let less = Ended { seen, status: StatusCode::CREATED, kept: None };
    // There is room for one claim, and no more.
    for bytes in 1..1024 {
        let claims = claims(bytes);
        let Some(claim) = sent(&claims).await else { continue };
        claim.answered(vec![1; 2048], less.value()).await;
        claims.finish(Duration::from_secs(10)).await;
        assert_eq!(found(&claims).await, Standing::Ended(Box::new(less)));
        return;
    }
    panic!("no claim fits");
}

#[test]
fn who_only_asked_for_a_key_takes_no_place_from_an_answer() {
    let now = Instant::now();
    let end = |is_asked, value: &[u8]| End {
        key: String::new(),
        begins: String::new(),
        value: value.to_vec(),
        keep: TERMS.keep,
        until: now,
        at: now,
        is_asked,
        in_doubt: is_asked,
    };
    let mut waiting = Waiting::default();
    assert!((0..ASKED_MAX).all(|_| waiting.push(end(true, b""))));
    assert!(!waiting.push(end(true, b"")), "there is no room for more of them");
    assert!(waiting.push(end(false, b"answer")));
    assert_eq!((waiting.len(), waiting.bytes), (ASKED_MAX + 1, 6));
    assert_eq!(waiting.pop().map(|end| end.value), Some(b"answer".to_vec()), "it is first");
    assert_eq!((waiting.len(), waiting.bytes), (ASKED_MAX, 0));
    assert!(!waiting.push(end(false, &vec![1; WAITING_BYTES_MAX + 1])));
    assert!((0..WAITING_MAX).all(|_| waiting.push(end(false, b""))));
    assert!(!waiting.push(end(false, b"")));
}
