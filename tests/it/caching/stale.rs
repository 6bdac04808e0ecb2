//! What is no longer fresh: sent while a new one is fetched, sent when the upstream fails, and not
//! sent where the response forbids it. Age makes a response stale the moment it arrives.

use std::collections::HashSet;
use std::io::Write as _;
use std::net::Shutdown;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Gate, House, ROUTES, is_hit};
use crate::support::{Client, Gateway, Upstream, eventually, response};

#[test]
fn a_stale_answer_is_sent_at_once_and_fetched_anew_once_for_the_fleet() {
    let (gate, asked) = (Gate::shut(), AtomicUsize::new(0));
    let shut = gate.clone();
    let upstream = Upstream::with(move |_, connection| {
        let (age, text) = match asked.fetch_add(1, Ordering::SeqCst) {
            0 => (20, "old"),
            _ => {
                shut.pass();
                (0, "new")
            }
        };
        let head = format!(
            "200 OK\r\nCache-Control: max-age=10, stale-while-revalidate=600\r\nAge: {age}"
        );
        let _ = connection.write_all(response(&head, text).as_bytes());
    });
    let house = House::start(upstream);
    let get = |gateway: usize| Client::get(house.gateways[gateway].public, "/p").send();
    assert_eq!(get(0).text(), "old");
    house.wait_for_entries(1);
    for gateway in [0, 1, 0, 1, 1, 0] {
        let reply = get(gateway);
        assert_eq!((reply.text().as_str(), is_hit(&reply)), ("old", true));
    }
    eventually("it is fetched anew", || house.upstream.seen() == 2);
    for gateway in [0, 1, 0, 1] {
        assert_eq!(get(gateway).text(), "old");
    }
    assert_eq!(house.upstream.seen(), 2, "once for both");
    gate.open();
    for gateway in [0, 1] {
        eventually("the new one is there", || get(gateway).text() == "new");
    }
    assert_eq!(house.upstream.seen(), 2, "what is fresh is not fetched");
}

/// Answers a path well the first time, under these fields, and then fails as the path says.
fn failing(fields: impl Fn(&str) -> String + Send + Sync + 'static) -> Upstream {
    let asked = Mutex::new(HashSet::new());
    Upstream::with(move |request, connection| {
        let how = &request.target()[1..];
        if asked.lock().unwrap().insert(how.to_owned()) {
            let head = format!("200 OK\r\nETag: \"v\"\r\n{}", fields(how));
            let _ = connection.write_all(response(&head, "good").as_bytes());
        } else if how.starts_with("close") {
            let _ = connection.shutdown(Shutdown::Both);
        } else if how.starts_with("slow") {
            let _ = std::io::Read::read(connection, &mut [0; 1]);
        } else {
            let _ = connection.write_all(response(&format!("{how} Because"), "bad").as_bytes());
        }
    })
}

fn gateway(upstream: &Upstream) -> Gateway {
    let impatient = upstream.table("shop") + "response_timeout = \"500ms\"\n";
    Gateway::start(&(impatient + ROUTES))
}

#[test]
fn a_stale_answer_stands_in_for_the_failures_that_it_allows() {
    let fields = |_: &str| "Cache-Control: max-age=10, stale-if-error=600\r\nAge: 100".to_owned();
    let upstream = failing(fields);
    let gateway = gateway(&upstream);
    let get = |path: &str| Client::get(gateway.public, path).send();
    for (how, stands_in) in [
        ("500", true),
        ("502", true),
        ("503", true),
        ("504", true),
        ("close", true),
        ("slow", true),
        ("501", false),
        ("505", false),
        ("404", false),
        ("429", false),
    ] {
        let path = format!("/{how}");
        assert_eq!(get(&path).text(), "good");
        for _ in 0..2 {
            let reply = get(&path);
            assert_eq!(reply.text() == "good", stands_in, "{how}: {reply:?}");
            assert_eq!(reply.status == 200, stands_in, "{how}");
            assert!(!is_hit(&reply), "it was forwarded: {reply:?}");
        }
    }
    get("/last");
    drop(upstream);
    assert_eq!(get("/last").text(), "good", "nobody listens");
    assert_eq!(get("/never").status, 502);
}

#[test]
fn without_an_upstream_what_ended_a_moment_ago_is_sent_unless_it_forbids_that() {
    const CASES: [(&str, &str, bool); 10] = [
        ("Cache-Control: max-age=10", "20", true),
        ("Cache-Control: max-age=10", "100", false),
        ("Cache-Control: max-age=10, public", "20", true),
        ("CDN-Cache-Control: max-age=10", "20", true),
        ("Cache-Control: max-age=10, must-revalidate", "20", false),
        ("Cache-Control: max-age=10, proxy-revalidate", "20", false),
        ("Cache-Control: s-maxage=10", "20", false),
        ("CDN-Cache-Control: max-age=10, must-revalidate", "20", false),
        ("Cache-Control: max-age=10, no-cache", "20", false),
        ("Cache-Control: max-age=10, no-cache", "0", false),
    ];
    let fields = |how: &str| {
        let digits = how.trim_start_matches(|c: char| !c.is_ascii_digit());
        let (control, age, _) = CASES[digits.parse::<usize>().expect("a number")];
        format!("{control}\r\nAge: {age}")
    };
    let upstream = failing(fields);
    let gateway = gateway(&upstream);
    for (number, (control, age, stands_in)) in CASES.into_iter().enumerate() {
        for how in ["close", "slow"] {
            let path = format!("/{how}{number}");
            assert_eq!(Client::get(gateway.public, &path).send().text(), "good");
            let reply = Client::get(gateway.public, &path).send();
            let expected = match (stands_in, how) {
                (true, _) => 200,
                (false, "close") => 502,
                (false, _) => 504,
            };
            assert_eq!(reply.status, expected, "{control} at {age}, {how}: {reply:?}");
        }
    }
}

/// A refresh that fails leaves what is stored in place, and clients do not feel it.
#[test]
fn a_refresh_that_fails_costs_no_client_an_answer() {
    let fields =
        |_: &str| "Cache-Control: max-age=10, stale-while-revalidate=600\r\nAge: 20".to_owned();
    let upstream = failing(fields);
    let gateway = gateway(&upstream);
    for how in ["/500", "/close", "/403"] {
        upstream.forget();
        for _ in 0..20 {
            let reply = Client::get(gateway.public, how).send();
            assert_eq!((reply.status, reply.text().as_str()), (200, "good"), "{how}");
        }
        eventually("it is tried", || upstream.seen() >= 2);
    }
}

#[test]
fn what_the_origin_has_ended_is_not_sent_stale_any_longer() {
    const STALE: &str =
        "200 OK\r\nCache-Control: max-age=10, stale-while-revalidate=600\r\nAge: 20";
    // What comes before it is stored, and what comes when it is fetched anew.
    const CASES: [(&str, &str); 4] = [
        ("", "404 Not Found"),
        ("", "410 Gone\r\nCache-Control: no-store"),
        ("", "200 OK\r\nCache-Control: no-store"),
        // That the first answer was nobody else's is remembered; it keeps nothing from its refresh.
        ("200 OK\r\nCache-Control: no-store", "200 OK\r\nCache-Control: max-age=600"),
    ];
    let upstream = Upstream::with({
        let asked = Mutex::new([0; CASES.len()]);
        move |request, connection| {
            let number: usize = request.target()[1..].parse().expect("a number");
            let (before, after) = CASES[number];
            let turn = {
                let mut asked = asked.lock().unwrap();
                asked[number] += 1;
                asked[number] + usize::from(before.is_empty())
            };
            let text = match turn {
                1 => response(before, "before"),
                2 => response(STALE, "stale"),
                _ => response(after, "after"),
            };
            let _ = connection.write_all(text.as_bytes());
        }
    });
    let gateway = gateway(&upstream);
    for (number, (before, after)) in CASES.into_iter().enumerate() {
        let get = || Client::get(gateway.public, &format!("/{number}")).send().text();
        if !before.is_empty() {
            assert_eq!(get(), "before");
        }
        assert_eq!((get(), get()), ("stale".to_owned(), "stale".to_owned()), "{after}");
        eventually("it is replaced, or gone", || get() == "after");
    }
}
