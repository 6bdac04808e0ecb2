//! What an upstream learns from its requests, and does about it.

mod late;

use std::path::Path;

use http::{HeaderMap, HeaderValue, StatusCode};

use super::*;
use crate::base::facts::ClientAddr;
use crate::base::trace::Trace;
use crate::upstream::endpoints::{Choice, Endpoints};
use crate::upstream::ends::Report;
use crate::upstream::outgoing::Sender;
use crate::upstream::tally::Kind;
use crate::upstream::visit::{Charge, Visit};

const FIVE: &str = "eject = {}\n";

fn settings(servers: usize, more: &str) -> config::Upstream {
    let urls = (0..servers).map(|at| format!("\"http://127.0.0.1:{}\"", 3000 + at));
    let urls: Vec<String> = urls.collect();
    let text = format!("[upstreams.a]\nservers = [{}]\n{more}\n", urls.join(", "));
    let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
    let report = loaded.source.render(&loaded.problems);
    assert_eq!(report, "0 problems in t.toml\n", "{text}");
    loaded.config.upstreams["a"].clone()
}

fn endpoints(servers: usize, more: &str) -> Endpoints {
    Endpoints::new("a", &settings(servers, more), None)
}

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}

fn sender() -> Sender {
    let client = ClientAddr::new("192.0.2.1".parse().unwrap());
    Sender::new(client, Trace::begin())
}

/// A request at one server, whatever is known of it.
fn visit(endpoints: &Endpoints, at: usize) -> Visit {
    endpoints.enter(Choice::again(at), &sender()).unwrap()
}

/// A whole answer of this status.
fn answer(mut visit: Visit, status: u16) {
    visit.answered(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), None);
    visit.ended();
}

fn answers(endpoints: &Endpoints, at: usize, status: u16, times: usize) {
    for _ in 0..times {
        answer(visit(endpoints, at), status);
    }
}

/// Which servers are in.
fn usable(endpoints: &Endpoints) -> Vec<usize> {
    let all = endpoints.all().iter().enumerate();
    all.filter(|(_, server)| server.verdict().word().is_usable()).map(|(at, _)| at).collect()
}

fn care(endpoints: &Endpoints) -> &Care {
    endpoints.care().unwrap()
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_eject() {
    let endpoints = endpoints(3, FIVE);
    answers(&endpoints, 0, 500, 4);
    answers(&endpoints, 0, 404, 1);
    answers(&endpoints, 0, 503, 4);
    // It says nothing of how many there are in a row.
    answers(&endpoints, 0, 429, 1);
    assert_eq!(usable(&endpoints), [0, 1, 2]);
    answers(&endpoints, 0, 500, 1);
    assert_eq!(usable(&endpoints), [1, 2]);
    assert_eq!(care(&endpoints).ejections(), [1, 0, 0, 0]);
    for _ in 0..100 {
        assert_ne!(endpoints.first(None).unwrap().at, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_servers_fault_counts_nothing() {
    let endpoints = endpoints(2, FIVE);
    for _ in 0..50 {
        // The client leaves, before the head and after it.
        drop(visit(&endpoints, 0));
        let mut gone = visit(&endpoints, 0);
        gone.answered(StatusCode::OK, &HeaderMap::new(), None);
        drop(gone);
        // It breaks its body, or this process has no more ports.
        endpoints.note(&mut visit(&endpoints, 0), Report::Nothing);
        // The server turns it away unread, and lives.
        endpoints.note(&mut visit(&endpoints, 0), Report::Answered);
    }
    care(&endpoints).tick();
    assert_eq!(usable(&endpoints), [0, 1]);
    assert_eq!(endpoints.all()[0].tally().look(0), Counts::default());
}

#[tokio::test(start_paused = true)]
async fn every_way_to_give_no_answer_is_a_failure() {
    for (report, kind) in [
        (Report::Refused, Kind::Refused),
        (Report::Lost, Kind::Lost),
        (Report::Silent, Kind::Silent),
        (Report::Unusable, Kind::Unusable),
    ] {
        let endpoints = endpoints(2, FIVE);
        for _ in 0..5 {
            endpoints.note(&mut visit(&endpoints, 1), report);
        }
        assert_eq!(usable(&endpoints), [0], "{report:?}");
        assert_eq!(endpoints.all()[1].tally().failures()[kind as usize], 5, "{report:?}");
    }
    let endpoints = endpoints(2, FIVE);
    for _ in 0..5 {
        let mut cut = visit(&endpoints, 1);
        cut.answered(StatusCode::OK, &HeaderMap::new(), None);
        cut.broke();
    }
    assert_eq!(usable(&endpoints), [0]);
    assert_eq!(endpoints.all()[1].tally().failures()[Kind::CutOff as usize], 5);
}

fn call(endpoints: &Endpoints, status: &'static str, in_trailers: bool) {
    let mut visit = visit(endpoints, 0);
    let mut head = HeaderMap::new();
    head.insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut fields = HeaderMap::new();
    fields.insert("grpc-status", HeaderValue::from_static(status));
    if in_trailers {
        visit.answered(StatusCode::OK, &head, None);
        visit.trailers(&fields);
    } else {
        head.extend(fields);
        visit.answered(StatusCode::OK, &head, None);
    }
    visit.ended();
}

#[tokio::test(start_paused = true)]
async fn calls_end_with_a_status_of_their_own() {
    for in_trailers in [true, false] {
        for status in ["2", "4", "13", "14"] {
            let endpoints = endpoints(2, FIVE);
            (0..5).for_each(|_| call(&endpoints, status, in_trailers));
            assert_eq!(usable(&endpoints), [1], "{status} {in_trailers}");
        }
        for status in ["0", "1", "3", "5", "7", "8", "12", "16"] {
            let endpoints = endpoints(2, FIVE);
            (0..50).for_each(|_| call(&endpoints, status, in_trailers));
            care(&endpoints).tick();
            assert_eq!(usable(&endpoints), [0, 1], "{status} {in_trailers}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn too_small_a_share_of_good_answers_ejects() {
    let endpoints = endpoints(3, "eject = { failures = 1000 }\n");
    let mixed = |good, bad, throttled| {
        answers(&endpoints, 0, 200, good);
        answers(&endpoints, 0, 500, bad);
        answers(&endpoints, 0, 429, throttled);
        care(&endpoints).tick();
    };
    mixed(10, 5, 5);
    assert_eq!(usable(&endpoints), [0, 1, 2], "half of them were good");
    mixed(0, 0, 1);
    assert_eq!(usable(&endpoints), [1, 2]);
    assert_eq!(care(&endpoints).ejections(), [0, 1, 0, 0]);
    // What has ejected it is not held against it a second time.
    endpoints.all()[0].verdict().restore(false);
    care(&endpoints).tick();
    assert_eq!(usable(&endpoints), [0, 1, 2]);
    // What is older than ten seconds neither.
    mixed(0, 19, 0);
    pass(Duration::from_secs(11)).await;
    mixed(0, 1, 0);
    assert_eq!(usable(&endpoints), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn never_the_last_one_and_never_too_many() {
    let fail_all = |servers: usize, more: &str| {
        let endpoints = endpoints(servers, more);
        for _ in 0..3 {
            (0..servers).for_each(|at| answers(&endpoints, at, 500, 5));
        }
        usable(&endpoints).len()
    };
    assert_eq!(fail_all(1, FIVE), 1);
    assert_eq!(fail_all(2, FIVE), 1);
    assert_eq!(fail_all(3, FIVE), 2);
    assert_eq!(fail_all(4, FIVE), 2);
    assert_eq!(fail_all(10, FIVE), 5);
    assert_eq!(fail_all(3, "eject = { most = \"1%\" }"), 2);
    assert_eq!(fail_all(4, "eject = { most = \"100%\" }"), 1);
}

#[tokio::test(start_paused = true)]
async fn those_who_give_way_may_all_be_out() {
    let readers = |urls: &str, more: &str| {
        let settings = settings(1, &format!("readers = [{urls}]\n{more}"));
        Endpoints::new("a:readers", &settings.of_readers().unwrap(), None)
    };
    for urls in ["'http://127.0.0.1:4000'", "'http://127.0.0.1:4000', 'http://127.0.0.2:4000'"] {
        let endpoints = readers(urls, FIVE);
        (0..endpoints.all().len()).for_each(|at| answers(&endpoints, at, 500, 5));
        assert_eq!(usable(&endpoints), [0; 0], "{urls}");
        assert!(matches!(endpoints.first(None), Err(Failure::Unavailable(_))), "{urls}");
    }
    let endpoints = readers("'http://127.0.0.1:4000'", "fail_timeout = '5s'");
    endpoints.note(&mut visit(&endpoints, 0), Report::Refused);
    assert!(matches!(endpoints.first(None), Err(Failure::Unavailable(_))));
    pass(Duration::from_secs(5)).await;
    assert!(endpoints.first(None).is_ok() && endpoints.first(None).is_err(), "one tries it");
}

#[tokio::test(start_paused = true)]
async fn those_that_are_down_are_counted_apart() {
    let endpoints = endpoints(4, FIVE);
    endpoints.all()[0].verdict().set_down(true, false);
    endpoints.all()[1].verdict().set_down(true, false);
    answers(&endpoints, 2, 500, 5);
    assert_eq!(usable(&endpoints), [3], "half of them may be ejected all the same");
    answers(&endpoints, 3, 500, 5);
    assert_eq!(usable(&endpoints), [3], "the last one stays");
}

#[tokio::test(start_paused = true)]
async fn one_request_tries_an_ejected_server() {
    let endpoints = endpoints(2, "eject = { failures = 1, time = \"10s\" }");
    answers(&endpoints, 0, 500, 1);
    pass(Duration::from_secs(11)).await;
    let first = endpoints.first(None).unwrap();
    assert_eq!(first.at, 0);
    let probe = endpoints.enter(first, &sender()).unwrap();
    for _ in 0..100 {
        assert_eq!(endpoints.first(None).unwrap().at, 1, "the one before tries it");
    }
    // Its client leaves: another one tries it, and meets a failure.
    drop(probe);
    let second = endpoints.first(None).unwrap();
    assert_eq!(second.at, 0);
    answer(endpoints.enter(second, &sender()).unwrap(), 500);
    assert_eq!(care(&endpoints).ejections(), [1, 0, 1, 0]);
    pass(Duration::from_secs(19)).await;
    assert_eq!(endpoints.first(None).unwrap().at, 1, "it is out for twice as long");
    pass(Duration::from_secs(3)).await;
    let third = endpoints.first(None).unwrap();
    assert_eq!(third.at, 0);
    let mut probe = endpoints.enter(third, &sender()).unwrap();
    // Its head is enough: the body may be long.
    probe.answered(StatusCode::OK, &HeaderMap::new(), None);
    assert_eq!(usable(&endpoints), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_lost_has_failed() {
    let endpoints = endpoints(2, "eject = { failures = 1, time = \"1s\" }");
    answers(&endpoints, 0, 500, 1);
    pass(Duration::from_secs(2)).await;
    let _probe = endpoints.enter(endpoints.first(None).unwrap(), &sender());
    pass(Duration::from_secs(29)).await;
    care(&endpoints).tick();
    assert_eq!(care(&endpoints).ejections(), [1, 0, 0, 0]);
    // response_timeout
    pass(Duration::from_secs(1)).await;
    care(&endpoints).tick();
    assert_eq!(care(&endpoints).ejections(), [1, 0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn where_too_few_are_in_all_are_used() {
    let seen = |endpoints: &Endpoints| -> Vec<usize> {
        let mut seen: Vec<usize> =
            (0..400).filter_map(|_| Some(endpoints.first(None).ok()?.at)).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    };
    let down = |endpoints: &Endpoints, all: &[usize]| {
        for at in all {
            endpoints.all()[*at].verdict().set_down(true, false);
        }
    };
    let half = endpoints(4, FIVE);
    down(&half, &[0, 1]);
    assert_eq!((seen(&half), half.candidates().is_panic), (vec![2, 3], false));
    down(&half, &[2]);
    assert_eq!((seen(&half), half.candidates().is_panic), (vec![0, 1, 2, 3], true));
    // What an operator took out stays out.
    half.all()[3].verdict().take_out();
    assert_eq!(seen(&half), [0, 1, 2]);

    let never = endpoints(2, "eject = {}\npanic = \"0%\"");
    down(&never, &[0]);
    assert_eq!(seen(&never), [1]);
    down(&never, &[1]);
    let Err(Failure::Unavailable(left)) = never.first(None) else {
        panic!("{:?}", never.first(None))
    };
    assert_eq!(left, Duration::from_secs(1));
    let checked = endpoints(2, "panic = \"0%\"\nhealth = { path = \"/\" }");
    down(&checked, &[0, 1]);
    let Err(Failure::Unavailable(left)) = checked.first(None) else { panic!() };
    assert_eq!(left, Duration::from_secs(5), "the next check");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_back_gets_a_part_of_its_share() {
    fastrand::seed(7);
    let endpoints = endpoints(2, "eject = { failures = 1, time = \"1s\" }\nslow_start = \"100s\"");
    answers(&endpoints, 0, 500, 1);
    pass(Duration::from_secs(2)).await;
    answer(endpoints.enter(endpoints.first(None).unwrap(), &sender()).unwrap(), 200);
    let share = || (0..10_000).filter(|_| endpoints.first(None).unwrap().at == 0).count();
    // Of half of all requests a tenth, then a half, then all.
    let close = |count: usize, to: usize| count.abs_diff(to) < 300;
    let first = share();
    assert!(close(first, 500), "{first}");
    pass(Duration::from_secs(50)).await;
    let second = share();
    assert!(close(second, 2_500), "{second}");
    pass(Duration::from_secs(50)).await;
    care(&endpoints).tick();
    let third = share();
    assert!(close(third, 5_000), "{third}");
}

/// One request: whether the breaker let it begin, and what came of it.
fn request(endpoints: &Endpoints, status: u16) -> Result<(), Failure> {
    let mut charge = charge(endpoints)?;
    let mut visit = visit(endpoints, 0);
    visit.answered(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), None);
    visit.charge(&mut charge);
    visit.ended();
    Ok(())
}

fn charge(endpoints: &Endpoints) -> Result<Box<Charge<'_>>, Failure> {
    let care = care(endpoints);
    match care.admit()? {
        Some(Entry::Probe(round)) => Ok(Charge::new(care, round, true)),
        Some(Entry::Closed(round)) => Ok(Charge::new(care, round, false)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_breaker_opens_and_closes() {
    let endpoints = endpoints(1, "breaker = {}");
    let state = || care(&endpoints).breaker_state().unwrap();
    for (times, status) in [(10, 200), (9, 500)] {
        (0..times).for_each(|_| request(&endpoints, status).unwrap());
        care(&endpoints).tick();
        assert_eq!(state(), "closed");
    }
    request(&endpoints, 500).unwrap();
    care(&endpoints).tick();
    assert_eq!(state(), "open");
    let Err(Failure::Open(left)) = request(&endpoints, 200) else { panic!() };
    assert!((5.0..=5.5).contains(&left.as_secs_f64()), "{left:?}");
    pass(Duration::from_millis(5_500)).await;
    // Three try it at a time, and whoever comes meanwhile is refused at once.
    let mut tries: Vec<_> = (0..3).map(|_| charge(&endpoints).unwrap()).collect();
    assert!(matches!(request(&endpoints, 200), Err(Failure::Open(_))));
    // One that says nothing leaves its place to another.
    tries.pop();
    tries.push(charge(&endpoints).unwrap());
    for mut charge in tries {
        let mut visit = visit(&endpoints, 0);
        visit.answered(StatusCode::OK, &HeaderMap::new(), None);
        visit.charge(&mut charge);
    }
    assert_eq!(state(), "closed", "their heads are enough");
    // What has opened it is forgotten.
    care(&endpoints).tick();
    assert_eq!(state(), "closed");
    (0..19).for_each(|_| request(&endpoints, 500).unwrap());
    care(&endpoints).tick();
    assert_eq!(state(), "closed");
}

#[tokio::test(start_paused = true)]
async fn the_breaker_counts_requests_and_no_refusals_of_our_own() {
    let endpoints = endpoints(1, "breaker = { requests = 1 }");
    charge(&endpoints).unwrap().fail(false);
    drop(charge(&endpoints).unwrap());
    care(&endpoints).tick();
    assert_eq!(care(&endpoints).breaker_state(), Some("closed"));
    charge(&endpoints).unwrap().fail(true);
    care(&endpoints).tick();
    assert_eq!(care(&endpoints).breaker_state(), Some("open"));
    assert!(care(&endpoints).close_breaker());
    request(&endpoints, 200).unwrap();
}

fn grpc_head() -> HeaderMap {
    let mut head = HeaderMap::new();
    head.insert("content-type", HeaderValue::from_static("application/grpc"));
    head
}

/// Streams that say nothing for hours must not keep others out.
#[tokio::test(start_paused = true)]
async fn the_head_of_a_stream_is_enough_for_who_tries() {
    let endpoints = endpoints(2, "eject = { failures = 1, time = \"1s\" }\nbreaker = {}");
    (0..20).for_each(|_| request(&endpoints, 500).unwrap());
    care(&endpoints).tick();
    assert_eq!(care(&endpoints).breaker_state(), Some("open"));
    pass(Duration::from_secs(6)).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut charge = charge(&endpoints).unwrap();
        let mut visit = endpoints.enter(endpoints.first(None).unwrap(), &sender()).unwrap();
        visit.answered(StatusCode::OK, &grpc_head(), None);
        visit.charge(&mut charge);
        streams.push(visit);
    }
    assert_eq!(care(&endpoints).breaker_state(), Some("closed"));
    assert_eq!(usable(&endpoints), [0, 1]);
}

/// Trailers that came along with the head say more than the head.
#[tokio::test(start_paused = true)]
async fn a_call_that_fails_at_once_brings_nobody_back() {
    let endpoints = endpoints(2, "eject = { failures = 1, time = \"1s\" }");
    answers(&endpoints, 0, 500, 1);
    pass(Duration::from_secs(2)).await;
    let mut visit = endpoints.enter(endpoints.first(None).unwrap(), &sender()).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("14"));
    visit.answered(StatusCode::OK, &grpc_head(), Some(&trailers));
    assert_eq!(usable(&endpoints), [1]);
    assert_eq!(care(&endpoints).ejections(), [1, 0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_began_before_the_breaker_opened_counts_nothing_after_it_has_closed() {
    let endpoints = endpoints(1, "breaker = { requests = 5, probes = 1 }");
    let late: Vec<_> = (0..5).map(|_| charge(&endpoints).unwrap()).collect();
    (0..5).for_each(|_| request(&endpoints, 500).unwrap());
    care(&endpoints).tick();
    pass(Duration::from_secs(6)).await;
    request(&endpoints, 200).unwrap();
    assert_eq!(care(&endpoints).breaker_state(), Some("closed"));
    late.into_iter().for_each(|mut charge| charge.fail(true));
    care(&endpoints).tick();
    assert_eq!(care(&endpoints).breaker_state(), Some("closed"));
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_tries_a_server_has_its_time() {
    let endpoints = endpoints(2, "eject = { failures = 1, time = \"1s\" }");
    answers(&endpoints, 0, 500, 1);
    pass(Duration::from_secs(2)).await;
    let probe = endpoints.enter(endpoints.first(None).unwrap(), &sender()).unwrap();
    probe.may_take(Duration::from_secs(3_600));
    pass(Duration::from_secs(3_599)).await;
    care(&endpoints).tick();
    assert_eq!(care(&endpoints).ejections(), [1, 0, 0, 0]);
    pass(Duration::from_secs(1)).await;
    care(&endpoints).tick();
    assert_eq!(care(&endpoints).ejections(), [1, 0, 1, 0]);
}

/// Requests that a reload finds in progress are judged by who is asked no more.
#[tokio::test(start_paused = true)]
async fn who_is_retired_takes_nobody_out() {
    let former = endpoints(2, "eject = { failures = 1, time = \"1s\" }");
    let late: Vec<Visit> = (0..5).map(|_| visit(&former, 1)).collect();
    answers(&former, 0, 500, 1);
    pass(Duration::from_secs(2)).await;
    let probe = former.enter(former.first(None).unwrap(), &sender()).unwrap();
    let next = former.with("a", &settings(2, "slow_start = \"9s\""), None);
    late.into_iter().for_each(|visit| answer(visit, 500));
    answer(probe, 500);
    assert_eq!(usable(&next), [0, 1]);
    assert!(!next.all()[0].verdict().word().is_probing());
}

#[test]
fn times_grow_to_a_bound() {
    let seconds = |time: Duration| time.as_secs_f64();
    let ejected = |times, chance| seconds(ejection_time(Duration::from_secs(30), times, chance));
    assert_eq!([1, 2, 3].map(|times| ejected(times, 0.0)), [30.0, 60.0, 90.0]);
    assert_eq!(ejected(1, 1.0), 33.0);
    assert_eq!([ejected(10, 1.0), ejected(255, 0.0)], [330.0, 300.0]);
    assert_eq!(seconds(ejection_time(Duration::from_secs(3_600), 3, 1.0)), 3_960.0);
    let open = |times| seconds(open_time(Duration::from_secs(5), times, 0.0));
    assert_eq!([1, 2, 3, 4, 5, 15].map(open), [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]);
    assert_eq!(seconds(open_time(Duration::from_secs(5), 1, 1.0)), 5.5);
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_what_is_known_of_servers_that_stay() {
    let former = endpoints(3, "eject = { failures = 1 }\nbreaker = {}\nslow_start = \"9s\"");
    answers(&former, 0, 500, 1);
    former.all()[1].verdict().take_out();
    // Another threshold, and the third server is another one.
    let more = "eject = { failures = 2 }\nbreaker = { probes = 1 }\nslow_start = \"9s\"";
    let mut settings = settings(4, more);
    settings.servers.remove(2);
    let next = former.with("a", &settings, None);
    for at in [0, 1] {
        assert!(Arc::ptr_eq(&former.all()[at], &next.all()[at]));
    }
    assert!(!Arc::ptr_eq(&former.all()[2], &next.all()[2]));
    assert_eq!(usable(&next), [2]);
    assert!(next.all()[2].verdict().word().is_slow(), "it joins others");
    assert!(Arc::ptr_eq(&care(&former).learned, &care(&next).learned));
    // Who judges no more holds nothing against anybody; what an operator said stands.
    let plain = next.with("a", &self::settings(3, ""), None);
    assert_eq!(usable(&plain), [0, 2]);
    assert!(plain.all()[0].verdict().word().is_clean());
    assert!(plain.care().is_none());
    // The only one that is left is never out.
    let two = endpoints(2, "eject = { failures = 1 }");
    answers(&two, 0, 500, 1);
    let left = two.with("a", &self::settings(1, more), None);
    assert!(Arc::ptr_eq(&two.all()[0], &left.all()[0]));
    assert_eq!(usable(&left), [0]);
}

/// Two servers and a backup of them.
fn with_backup(more: &str) -> Endpoints {
    let text = format!(
        "[upstreams.a]\nservers = [{{ url = \"http://127.0.0.1:3002\", backup = true }}, \
         \"http://127.0.0.1:3000\", \"http://127.0.0.1:3001\"]\n{more}\n"
    );
    let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
    Endpoints::new("a", &loaded.config.upstreams["a"], None)
}

/// Which servers get requests, and whether all are used in a panic.
fn used(endpoints: &Endpoints) -> (Vec<usize>, bool) {
    let mut used: Vec<usize> = (0..200).map(|_| endpoints.first(None).unwrap().at).collect();
    used.sort_unstable();
    used.dedup();
    (used, endpoints.candidates().is_panic)
}

#[tokio::test(start_paused = true)]
async fn a_backup_is_used_where_too_few_of_the_others_are_in() {
    let out =
        |endpoints: &Endpoints, at: usize| endpoints.all()[at].verdict().set_down(true, false);
    for balance in ["p2c", "round-robin", "ewma"] {
        let endpoints = with_backup(&format!("balance = \"{balance}\"\npanic = \"60%\""));
        assert!(endpoints.is_backup(2) && !endpoints.is_backup(1));
        assert_eq!(used(&endpoints), (vec![0, 1], false), "{balance}");
        out(&endpoints, 0);
        assert_eq!(used(&endpoints), (vec![1, 2], false), "{balance}");
        out(&endpoints, 1);
        assert_eq!(used(&endpoints), (vec![2], false), "{balance}");
        // Nothing is in at all.
        out(&endpoints, 2);
        assert_eq!(used(&endpoints), (vec![0, 1], true), "{balance}");
    }
    let endpoints = with_backup("panic = \"0%\"");
    out(&endpoints, 0);
    assert_eq!(used(&endpoints), (vec![1], false));
    out(&endpoints, 1);
    assert_eq!(used(&endpoints), (vec![2], false));
    out(&endpoints, 2);
    assert!(matches!(endpoints.first(None), Err(Failure::Unavailable(_))));
}

#[tokio::test(start_paused = true)]
async fn a_backup_takes_what_the_others_do_not() {
    let endpoints = with_backup("fail_timeout = \"5s\"");
    // One has refused the request.
    assert!((0..100).all(|_| endpoints.next(&[0], None).unwrap().at == 1));
    assert_eq!(endpoints.next(&[0, 1], None).unwrap().at, 2);
    assert!(endpoints.next(&[0, 1, 2], None).is_none());
    for at in [0, 1] {
        endpoints.all()[at].verdict().avoid(Duration::from_secs(5));
    }
    assert_eq!(used(&endpoints).0, [2]);
}
