//! What is known against a server, and how it ends.

use super::*;

const FAIL_TIMEOUT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);
const SLOW_START: Duration = Duration::from_secs(20);

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}

fn verdict() -> Verdict {
    Verdict::new(false)
}

fn claim(verdict: &Verdict) -> Due {
    verdict.claim(FAIL_TIMEOUT, PATIENCE)
}

fn token(verdict: &Verdict) -> Token {
    match claim(verdict) {
        Due::Probe(token) => token,
        other => panic!("{other:?}"),
    }
}

/// As long as there were ejections in a row, times ten seconds.
fn time(times: u64) -> Duration {
    Duration::from_secs(10 * times)
}

#[tokio::test(start_paused = true)]
async fn who_refuses_is_avoided_until_he_answers() {
    let verdict = verdict();
    assert!(verdict.word().is_clean() && claim(&verdict) == Due::Not);
    verdict.avoid(FAIL_TIMEOUT);
    assert!(verdict.word().is_avoided() && verdict.word().is_usable());
    // Time alone makes it due, and changes nothing else.
    pass(FAIL_TIMEOUT * 3).await;
    assert!(verdict.word().is_avoided());
    verdict.note_life(false);
    assert!(verdict.word().is_clean() && claim(&verdict) == Due::Not);
}

#[tokio::test(start_paused = true)]
async fn one_request_per_fail_timeout_tries_who_is_avoided() {
    let verdict = verdict();
    verdict.avoid(FAIL_TIMEOUT);
    pass(FAIL_TIMEOUT - Duration::from_millis(1)).await;
    assert_eq!(claim(&verdict), Due::Not);
    pass(Duration::from_millis(1)).await;
    assert_eq!(claim(&verdict), Due::Retry);
    assert_eq!(claim(&verdict), Due::Not, "the one before tries it");
    pass(FAIL_TIMEOUT).await;
    assert_eq!(claim(&verdict), Due::Retry);
    // It refuses again: as long again from now on.
    pass(FAIL_TIMEOUT / 2).await;
    verdict.avoid(FAIL_TIMEOUT);
    pass(FAIL_TIMEOUT / 2).await;
    assert_eq!(claim(&verdict), Due::Not);
    pass(FAIL_TIMEOUT / 2).await;
    assert_eq!(claim(&verdict), Due::Retry);
}

#[tokio::test(start_paused = true)]
async fn one_lost_connection_is_nothing_and_two_in_a_row_are() {
    let verdict = verdict();
    verdict.note_loss(FAIL_TIMEOUT);
    assert!(!verdict.word().is_avoided());
    verdict.note_life(false);
    verdict.note_loss(FAIL_TIMEOUT);
    assert!(!verdict.word().is_avoided());
    verdict.note_loss(FAIL_TIMEOUT);
    assert!(verdict.word().is_avoided());
    verdict.note_life(false);
    verdict.note_loss(FAIL_TIMEOUT);
    assert!(!verdict.word().is_avoided());
}

#[tokio::test(start_paused = true)]
async fn one_request_tries_who_is_ejected_and_its_fate_decides() {
    let verdict = verdict();
    assert!(verdict.eject(time) && !verdict.eject(time));
    assert!(!verdict.word().is_usable());
    // What answers meanwhile was asked before.
    verdict.note_life(false);
    pass(Duration::from_millis(9_999)).await;
    assert_eq!(claim(&verdict), Due::Not);
    assert_eq!(verdict.word().left(verdict.now()), Some(1));
    pass(Duration::from_millis(1)).await;
    let first = token(&verdict);
    assert_eq!(claim(&verdict), Due::Not);
    assert!(verdict.fail_probe(first, time));
    assert_eq!((verdict.word().times(), verdict.word().is_probing()), (2, false));
    assert!(!verdict.pass_probe(first, false), "it has failed already");
    pass(Duration::from_millis(19_999)).await;
    assert_eq!(claim(&verdict), Due::Not);
    pass(Duration::from_millis(1)).await;
    let second = token(&verdict);
    assert!(!verdict.pass_probe(first, false), "another one tries it");
    assert!(verdict.pass_probe(second, false));
    assert!(verdict.word().is_clean());
    assert_eq!(verdict.word().times(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_says_nothing_leaves_the_place_to_the_next() {
    let verdict = verdict();
    verdict.eject(time);
    pass(time(1)).await;
    let first = token(&verdict);
    verdict.drop_probe(first);
    let second = token(&verdict);
    assert_ne!(first, second);
    assert_eq!(verdict.lost_probe(), None);
    pass(PATIENCE).await;
    assert_eq!(verdict.lost_probe(), Some(second));
    assert!(verdict.fail_probe(second, time));
    assert_eq!((verdict.lost_probe(), verdict.word().times()), (None, 2));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_time_makes_ejections_forgotten() {
    let verdict = verdict();
    verdict.eject(time);
    pass(time(1)).await;
    let probe = token(&verdict);
    verdict.fail_probe(probe, time);
    pass(time(2)).await;
    verdict.pass_probe(token(&verdict), false);
    for times in [2, 1, 0, 0] {
        verdict.tick(Duration::ZERO);
        assert_eq!(verdict.word().times(), times);
        pass(Duration::from_secs(10)).await;
    }
    // Not while it is out.
    verdict.eject(time);
    pass(time(1)).await;
    verdict.tick(Duration::ZERO);
    assert_eq!(verdict.word().times(), 1);
}

#[tokio::test(start_paused = true)]
async fn its_share_grows_when_it_is_back() {
    let verdict = verdict();
    let percent = || verdict.word().percent(verdict.now(), SLOW_START);
    assert_eq!(percent(), 100);
    verdict.set_down(true, true);
    verdict.set_down(false, true);
    assert!(verdict.word().is_usable() && !verdict.word().is_clean());
    assert_eq!(percent(), 10);
    pass(SLOW_START / 2).await;
    assert_eq!(percent(), 50);
    verdict.tick(SLOW_START);
    assert!(verdict.word().is_slow());
    pass(SLOW_START / 2).await;
    assert_eq!(percent(), 100);
    verdict.tick(SLOW_START);
    assert!(verdict.word().is_clean());
    assert!(Verdict::new(true).word().is_slow());
}

#[tokio::test(start_paused = true)]
async fn each_thing_against_it_ends_by_itself() {
    let verdict = verdict();
    assert!(verdict.set_down(true, false) && !verdict.set_down(true, false));
    assert!(verdict.take_out());
    verdict.eject(time);
    verdict.avoid(FAIL_TIMEOUT);
    pass(time(9)).await;
    assert_eq!(claim(&verdict), Due::Not, "time ends neither");
    assert_eq!(verdict.word().left(verdict.now()), None);
    assert!(verdict.set_down(false, true));
    assert!(verdict.word().is_by_hand() && !verdict.word().is_slow());
    assert!(verdict.end_ejection(false) && !verdict.end_ejection(false));
    assert!(!verdict.word().is_avoided() && !verdict.word().is_usable());
    assert!(verdict.restore(false) && !verdict.restore(false));
    assert!(verdict.word().is_clean());
    assert_eq!(verdict.word().times(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_ends_an_ejection_ends_its_probe() {
    let verdict = verdict();
    verdict.eject(time);
    pass(time(1)).await;
    let probe = token(&verdict);
    verdict.set_down(true, false);
    assert!(verdict.end_ejection(false));
    assert!(!verdict.word().is_probing());
    pass(PATIENCE).await;
    assert_eq!(verdict.lost_probe(), None);
    assert!(!verdict.fail_probe(probe, time));
}

#[tokio::test(start_paused = true)]
async fn of_many_threads_one_tries_it() {
    let verdict = verdict();
    verdict.eject(|_| Duration::ZERO);
    let count: usize = std::thread::scope(|scope| {
        let one = || usize::from(matches!(claim(&verdict), Due::Probe(_)));
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(count, 1);
}
