//! Whose answer it is: what was made for one caller reaches no other, neither from the store nor by
//! waiting beside him.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Gate, House, asking, is_hit};
use crate::support::{AUTH, Client, Session, Upstream, claims, eventually, response, token};

/// Tells everybody who he is, under this head, once the gate is open.
fn telling(gate: &Gate, head: &'static str) -> Upstream {
    let gate = gate.clone();
    Upstream::with(move |request, connection| {
        gate.pass();
        let user = request.header("x-user-id").unwrap_or("nobody");
        let _ = connection.write_all(response(head, user).as_bytes());
    })
}

fn routes(auth: &str, cache: &str) -> String {
    format!("{AUTH}\n[routes.all]\npath = \"/*\"\nupstream = \"shop\"\nauth = {auth}\n{cache}\n")
}

fn bearer(user: &str) -> String {
    format!("Authorization: Bearer {}\r\n", token(claims(user)))
}

const USERS: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];

/// Twenty requests of five users at once, on a path that nobody has asked for: each gets his own.
fn crowd(house: &House, gate: &Gate, path: &str) {
    gate.set(false);
    house.upstream.forget();
    let mut sessions: Vec<(&str, Session)> = (0..20)
        .map(|number| {
            let user = USERS[number % USERS.len()];
            let fields = format!("{}X-Who: {user}\r\n", bearer(user));
            (user, asking(&house.gateways[number % 2], path, &fields))
        })
        .collect();
    eventually("somebody asks", || house.upstream.seen() >= 1);
    gate.open();
    for (user, session) in &mut sessions {
        assert_eq!(session.read().text(), *user, "{path}");
    }
}

#[test]
fn what_is_private_is_kept_for_its_owner_alone() {
    let gate = Gate::shut();
    let upstream = telling(&gate, "200 OK\r\nCache-Control: private, max-age=60");
    let cache = "cache = { partition = [\"claim:sub\"] }";
    let house = House::with_routes(upstream, &routes("\"users\"", cache));
    crowd(&house, &gate, "/p");
    house.wait_for_entries(USERS.len());
    house.upstream.forget();
    for user in USERS {
        for gateway in [0, 1] {
            let request = Client::get(house.gateways[gateway].public, "/p");
            let reply = request.bearer(token(claims(user))).send();
            assert_eq!((reply.text().as_str(), is_hit(&reply)), (user, true));
        }
    }
    assert_eq!(house.upstream.seen(), 0);
}

/// A route whose upstream is not told who calls, so that it may be cached without a partition.
fn untold() -> String {
    let auth = AUTH.lines().filter(|line| !line.starts_with("claims_to_headers"));
    let auth = auth.collect::<Vec<_>>().join("\n");
    format!(
        "{auth}\n[routes.all]\npath = \"/*\"\nupstream = \"shop\"\nauth = \"users\"\ncache = {{}}\n"
    )
}

#[test]
fn an_answer_to_a_known_caller_is_shared_only_if_it_says_so() {
    for control in [
        "X-None: 1",
        "Cache-Control: max-age=60",
        "Cache-Control: private, max-age=60",
        "Cache-Control: public, no-store",
        "Cache-Control: private=\"x-a\", max-age=60",
    ] {
        let gate = Gate::shut();
        let shut = gate.clone();
        let upstream = Upstream::with(move |request, connection| {
            shut.pass();
            let user = request.header("x-who").unwrap_or("nobody");
            let head = format!("200 OK\r\n{control}");
            let _ = connection.write_all(response(&head, user).as_bytes());
        });
        let house = House::with_routes(upstream, &untold());
        crowd(&house, &gate, "/p");
        assert_eq!(house.entries().len(), 0, "{control}");
    }
    let head = "200 OK\r\nCache-Control: public, max-age=60";
    let house = House::with_routes(Upstream::replying(response(head, "all")), &untold());
    let get = |user| Client::get(house.gateways[0].public, "/p").bearer(token(claims(user))).send();
    assert!(!is_hit(&get("alice")));
    assert!(is_hit(&get("bob")), "the upstream says that it is for all");
}

#[test]
fn an_anonymous_answer_is_never_a_callers_and_a_callers_never_anonymous() {
    let gate = Gate::shut();
    gate.open();
    let upstream = telling(&gate, "200 OK\r\nCache-Control: private, max-age=60");
    let auth = "{ by = \"users\", optional = true }";
    let cache = "cache = { partition = [\"claim:sub\"] }";
    let house = House::with_routes(upstream, &routes(auth, cache));
    for _ in 0..2 {
        for gateway in [0, 1] {
            let nobody = Client::get(house.gateways[gateway].public, "/p").send();
            assert_eq!((nobody.text().as_str(), is_hit(&nobody)), ("nobody", false));
            let request = Client::get(house.gateways[gateway].public, "/p");
            assert_eq!(request.bearer(token(claims("alice"))).send().text(), "alice");
        }
    }
}

#[test]
fn a_cookie_is_set_for_the_one_that_it_was_made_for() {
    let (gate, next) = (Gate::shut(), AtomicUsize::new(0));
    let shut = gate.clone();
    let upstream = Upstream::with(move |_, connection| {
        shut.pass();
        let number = next.fetch_add(1, Ordering::SeqCst);
        let head = format!("200 OK\r\nCache-Control: max-age=60\r\nSet-Cookie: sid={number}");
        let _ = connection.write_all(response(&head, "hello").as_bytes());
    });
    let house = House::start(upstream);
    let mut sessions: Vec<Session> =
        (0..20).map(|number| asking(&house.gateways[number % 2], "/p", "")).collect();
    eventually("somebody asks", || house.upstream.seen() >= 1);
    gate.open();
    let mut cookies: Vec<String> = sessions
        .iter_mut()
        .map(|session| session.read().header("set-cookie").expect("a cookie").to_owned())
        .collect();
    cookies.sort();
    cookies.dedup();
    assert_eq!(cookies.len(), 20, "{cookies:?}");
    assert_eq!(house.entries().len(), 0);
}
