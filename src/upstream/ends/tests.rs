//! The table: whose fault each end is.

use std::io::{Error, ErrorKind};
use std::time::Duration;

use http::HeaderValue;

use super::*;

/// What an end says of its server, whether the upstream has failed, and whether a server may have
/// acted on the request.
#[test]
fn every_end_is_somebodys() {
    use NoAnswer::{OutOfTime, Unconnected};
    use Report::{Answered, Lost, Nothing, Refused, Silent, Unusable};
    const CONNECT: Option<Cause> = Some(Cause::Connect);
    const REFUSED: Option<Cause> = Some(Cause::Refused);
    const RESET: Option<Cause> = Some(Cause::Reset);
    const TIMEOUT: Option<Cause> = Some(Cause::Timeout);
    let lost = || ConnectionError::PingLost;
    let on = |reused, why| NoAnswer::Exchanged { reused, why };
    let io = |kind: ErrorKind| Unconnected(Failure::Connect(Error::from(kind)));
    for (end, report, is_upstreams, may_have_acted, cause) in [
        (io(ErrorKind::ConnectionRefused), Refused, true, false, CONNECT),
        // This process has no more ports, files or places: no server is to blame.
        (io(ErrorKind::AddrNotAvailable), Nothing, false, false, CONNECT),
        (
            Unconnected(Failure::Connect(Error::from_raw_os_error(24))),
            Nothing,
            false,
            false,
            CONNECT,
        ),
        (Unconnected(Failure::Busy), Nothing, false, false, CONNECT),
        (Unconnected(Failure::ConnectTimeout), Refused, true, false, CONNECT),
        (Unconnected(Failure::silent()), Refused, true, false, CONNECT),
        (Unconnected(Failure::TurnedAway(lost())), Lost, true, false, REFUSED),
        (OutOfTime, Nothing, true, false, CONNECT),
        (on(false, Unanswered::Unsent), Refused, true, true, CONNECT),
        (on(true, Unanswered::Unsent), Nothing, true, true, CONNECT),
        (on(false, Unanswered::Lost(None)), Lost, true, true, RESET),
        (on(true, Unanswered::Lost(None)), Silent, true, true, RESET),
        (on(false, Unanswered::TurnedAway(lost())), Answered, true, false, REFUSED),
        (on(true, Unanswered::TurnedAway(lost())), Answered, true, false, REFUSED),
        (on(false, Unanswered::Reset(lost())), Unusable, true, true, RESET),
        (on(true, Unanswered::Reset(lost())), Unusable, true, true, RESET),
        (on(false, Unanswered::TimedOut), Silent, true, true, TIMEOUT),
        (on(true, Unanswered::TimedOut), Silent, true, true, TIMEOUT),
        (on(false, Unanswered::Malformed("")), Unusable, true, true, None),
        (on(false, Unanswered::TooLarge), Unusable, true, true, None),
        (on(false, Unanswered::CutOff(lost())), Unusable, true, true, RESET),
        // The client's: it owes more of its body, or has broken that off.
        (on(false, Unanswered::Starved), Nothing, false, true, None),
        (on(true, Unanswered::Starved), Nothing, false, true, None),
        (on(false, Unanswered::Withdrawn), Nothing, false, true, None),
    ] {
        let told = format!("{end:?}");
        assert_eq!(meaning(&end), Meaning { report, cause }, "{told}");
        let failure = Failure::from(end);
        assert_eq!(failure.may_have_acted(), may_have_acted, "{told}");
        assert_eq!(failure.is_upstreams(), is_upstreams, "{told}");
    }
    // Those that come before any attempt.
    let for_a_while = [Failure::Unavailable, Failure::Open].map(|failure| failure(Duration::ZERO));
    for failure in for_a_while.into_iter().chain([Failure::Unresolved]) {
        // Its servers are out, or nowhere.
        assert!(!failure.may_have_acted() && failure.is_upstreams());
    }
    assert!(!Failure::Deadline.is_upstreams() && !Failure::Shared.is_upstreams());
}

#[test]
fn an_answer_says_how_its_server_is() {
    const CALL: &str = "application/grpc";
    let told = |status: u16, kind: &'static str, of_call: Option<u16>, is_clients_time| {
        let mut fields = HeaderMap::new();
        fields.insert("content-type", HeaderValue::from_static(kind));
        if let Some(status) = of_call {
            fields.insert("grpc-status", HeaderValue::from(status));
        }
        judge(StatusCode::from_u16(status).unwrap(), &fields, is_clients_time)
    };
    let failed = |kind| Some(Outcome::Failed(kind));
    for (status, outcome) in [
        (101, Some(Outcome::Good)),
        (200, Some(Outcome::Good)),
        (404, Some(Outcome::Good)),
        (429, Some(Outcome::Throttled)),
        (500, failed(Kind::Status)),
        (503, failed(Kind::Status)),
    ] {
        assert_eq!(told(status, "text/plain", None, false), outcome, "{status}");
    }
    assert_eq!(told(200, CALL, None, false), None, "its trailers tell");
    assert_eq!(told(503, CALL, None, false), failed(Kind::Status));
    for (of_call, outcome, if_clients_time) in [
        (0, Outcome::Good, Outcome::Good),
        (5, Outcome::Good, Outcome::Good),
        (4, Outcome::Failed(Kind::Grpc), Outcome::Nothing),
        (2, Outcome::Failed(Kind::Grpc), Outcome::Failed(Kind::Grpc)),
        (13, Outcome::Failed(Kind::Grpc), Outcome::Failed(Kind::Grpc)),
        (14, Outcome::Failed(Kind::Grpc), Outcome::Failed(Kind::Grpc)),
    ] {
        assert_eq!(told(200, CALL, Some(of_call), false), Some(outcome), "{of_call}");
        assert_eq!(told(200, CALL, Some(of_call), true), Some(if_clients_time), "{of_call}");
        assert_eq!(judge_call(of_call, true), if_clients_time);
        let call = || {
            HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                HeaderValue::from(of_call),
            )])
        };
        let failed = has_failed(StatusCode::OK, &call(), true);
        assert_eq!(failed, (of_call != 4).then_some(matches!(of_call, 2 | 13 | 14)), "{of_call}");
    }
}
