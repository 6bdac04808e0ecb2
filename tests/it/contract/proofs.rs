//! Proofs of possession: the first request with one is let through, and no other.

use portcullis::store::keys::Keys;
use portcullis::store::{ProofKey, Questions, RevocationKeys, RevocationStatus};

use super::{MINUTE, Subject, over_all_stores};

over_all_stores![a_proof_is_taken_once, a_proof_is_asked_with_what_revokes];

fn proof(name: &str, mark: u8) -> ProofKey {
    ProofKey { key: Keys::new("app").proof(name), mark: [mark; 16], ttl: MINUTE }
}

async fn ask(it: &Subject, revocation: RevocationKeys<'_>) -> RevocationStatus {
    let questions = Questions { revocation: Some(revocation), ..Questions::default() };
    it.store.ask(&questions).await.revocation.unwrap().unwrap()
}

async fn is_replayed(it: &Subject, proof: &ProofKey) -> bool {
    ask(it, RevocationKeys { proof: Some(proof), ..RevocationKeys::default() }).await.replayed
}

async fn a_proof_is_taken_once(it: Subject) {
    let (first, second) = (proof("one", 1), proof("one", 2));
    assert!(!is_replayed(&it, &first).await);
    assert!(!is_replayed(&it, &first).await, "the same request, whose answer was lost");
    assert!(is_replayed(&it, &second).await);
    assert!(is_replayed(&it, &second).await);
    assert!(!is_replayed(&it, &proof("other", 2)).await);
    let Some(redis) = &it.redis else { return };
    let left: i64 = redis.cli(&["PTTL", &first.key]).parse().unwrap_or_default();
    assert!(left <= 60_000, "{left}");
    redis.cli(&["DEL", &first.key]);
    assert!(!is_replayed(&it, &second).await, "it has ended");
}

async fn a_proof_is_asked_with_what_revokes(it: Subject) {
    let keys = Keys::new("app");
    let blacklist = [keys.blacklist("free-j"), keys.blacklist_session("free-s")];
    let (not_before, proof) = (keys.not_before("free-u"), proof("beside", 1));
    let asked = RevocationKeys {
        blacklist: &blacklist,
        not_before: Some(&not_before),
        proof: Some(&proof),
        ..RevocationKeys::default()
    };
    assert_eq!(ask(&it, asked).await, RevocationStatus::default());
    let again = ProofKey { mark: [2; 16], ..proof.clone() };
    let replayed = RevocationStatus { replayed: true, ..RevocationStatus::default() };
    assert_eq!(ask(&it, RevocationKeys { proof: Some(&again), ..asked }).await, replayed);
}
