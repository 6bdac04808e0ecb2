//! The admin API as its table has it: each operation can be reached as its example says, what a
//! path does not take is refused with what it does, and the documentation lists the same.

use std::collections::BTreeSet;

use portcullis::admin::{Access, ROUTES};

use super::problem;
use crate::support::{AUTH, Folder, Gateway, eventually, operate};

/// What the examples speak of.
const CONFIG: &str = r#"
[session]
id_from = ["cookie:sid"]
idle_timeout = "30m"
[auth.partners]
from = ["header:x-api-key"]
api_keys = true
[limits.api]
key = ["claim:sub"]
allow = ["9/1h"]
[upstreams.shop]
servers = ["http://127.0.0.1:3000", "http://127.0.0.1:3001"]
[upstreams.next]
servers = ["http://127.0.0.1:3000"]
[routes.products]
path = "/products/*"
split = [{ upstream = "shop", weight = 1 }, { upstream = "next", weight = 1 }]
limits = ["api"]
cache = { ttl = "1h", shared = true, warm = { urls = ["/products/1"], host = "shop.test" } }
[queues.mail]
durable = false
[routes.private]
path = "/private"
upstream = "shop"
auth = "users"
session = true
[signers.main]
issuer = "https://gw.test"
keys = ["file:signing.pem"]
tokens = { audience = ["shop"] }
"#;

/// A gateway on which the examples make sense.
pub(super) fn start() -> Gateway {
    let folder = Folder::new();
    folder.write("signing.pem", portcullis::signing::new_key().expect("a key").0);
    Gateway::start_in(folder, &format!("{AUTH}{CONFIG}"))
}

/// The one answer that has no end.
pub(super) const LIVE: &str = "/v1/live";

/// How an operation may fail that was understood.
const FAILURES: [&str; 10] = [
    "delivery_not_found",
    "entry_not_stored",
    "walk_unavailable",
    "revocation_not_found",
    "session_missing",
    "key_not_found",
    "family_not_found",
    "warming_busy",
    "warming_failed",
    "login_invalid",
];

#[test]
fn every_operation_can_be_reached_as_its_example_says() {
    let gateway = start();
    for route in ROUTES.iter().filter(|route| route.path != LIVE) {
        let (target, body) = route.example.split_once(' ').unwrap_or((route.example, ""));
        let reply = operate(&gateway, route.method.as_str(), target, body);
        if reply.status >= 300 {
            let (status, code) = problem(&reply);
            let is_understood = FAILURES.contains(&&*code);
            assert!(is_understood, "{} {}: {status} {}", route.method, target, reply.text());
        }
    }
}

#[test]
fn only_what_changes_nothing_leaves_no_line() {
    let gateway = start();
    // A body that is not understood leaves a line all the same.
    for route in ROUTES.iter().filter(|route| route.path != LIVE) {
        let target = route.example.split(' ').next().unwrap_or_default();
        operate(&gateway, route.method.as_str(), target, "[]");
    }
    let changing = ROUTES.iter().filter(|route| route.access != Access::Read);
    let expected: Vec<String> =
        changing.map(|route| format!("{} {}", route.method, route.path)).collect();
    let lines = || -> Vec<String> {
        let all = gateway.stderr();
        let operations = all.lines().filter_map(|line| line.split(" operation=\"").nth(1));
        operations.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect()
    };
    eventually("every operation has its line", || lines().len() >= expected.len());
    assert_eq!(lines(), expected);
}

#[test]
fn what_a_path_does_not_take_is_refused_with_what_it_takes() {
    let gateway = start();
    for route in &ROUTES {
        let of_path = ROUTES.iter().filter(|it| it.path == route.path);
        let methods: Vec<&str> = of_path.map(|it| it.method.as_str()).collect();
        let target = route.example.split([' ', '?']).next().unwrap_or_default();
        for method in ["HEAD", "PATCH"] {
            let reply = operate(&gateway, method, target, "");
            let told = (reply.status, reply.header("allow"));
            assert_eq!(told, (405, Some(&*methods.join(", "))), "{method} {target}");
        }
    }
    let unknown = operate(&gateway, "GET", "/v1/nothing", "");
    assert_eq!(problem(&unknown), (404, "not_found".to_owned()));
    let json = unknown.json();
    let detail = json["detail"].as_str().expect("a detail");
    for route in &ROUTES {
        assert!(detail.contains(&format!(" {}", route.path)), "{}: {detail}", route.path);
    }
    assert!(detail.contains("; GET, DELETE /v1/limits; "), "{detail}");
}

/// What is done stands in the audit by the names of an object's members.
#[test]
fn a_body_is_an_object_and_says_all_that_is_to_be_done() {
    let gateway = start();
    let refused = |target: &str, body: &str| {
        let reply = operate(&gateway, "POST", target, body);
        assert_eq!(problem(&reply), (400, "request_invalid".to_owned()), "{target} {body}");
    };
    for route in ROUTES.iter().filter(|it| it.method == "POST") {
        let (target, body) = route.example.split_once(' ').unwrap_or((route.example, ""));
        refused(&format!("{target}?soft=true"), body);
    }
    refused("/v1/keys", r#"["acme", null, [], null, null, null]"#);
    refused("/v1/canary/stop", r#" ["products"]"#);
}

#[test]
fn the_documentation_lists_exactly_these_operations() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let text = std::fs::read_to_string(page).expect("docs/operations.md");
    let section = text.split("\n## Admin API\n").nth(1).expect("a section of the admin API");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    // `GET`, `DELETE /v1/limits?policy=…` are two operations.
    let documented = rows.filter(|cell| cell.contains("/v1/")).flat_map(|cell| {
        let words: Vec<&str> = cell.split(['`', ',', ' ']).filter(|it| !it.is_empty()).collect();
        let path = words.iter().find(|word| word.starts_with('/')).expect("a path");
        let path = path.split('?').next().unwrap_or_default();
        let methods = words.iter().filter(|word| !word.starts_with('/'));
        methods.map(|method| format!("{method} {path}")).collect::<Vec<_>>()
    });
    let known = ROUTES.iter().map(|route| format!("{} {}", route.method, route.path));
    assert_eq!(documented.collect::<BTreeSet<_>>(), known.collect());
}
