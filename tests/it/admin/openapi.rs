//! `docs/openapi.json`: whoever makes a client of it gets what the gateway has. It is written by
//! hand, and held to the table of the operations and to real answers.

use std::collections::{BTreeMap, BTreeSet};

use portcullis::admin::{Access, ROUTES, Route};
use serde_json::Value;

use super::routes::{LIVE, start};
use crate::support::operate;

fn document() -> Value {
    let text = std::fs::read_to_string("docs/openapi.json").expect("docs/openapi.json");
    serde_json::from_str(&text).expect("JSON")
}

/// What it says of an operation.
fn said<'d>(document: &'d Value, route: &Route) -> &'d Value {
    &document["paths"][route.path][route.method.as_str().to_ascii_lowercase()]
}

fn members(schema: &Value) -> BTreeSet<&str> {
    let properties = schema["properties"].as_object();
    properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}

const JSON: &str = "application/json";

#[test]
fn it_has_the_operations_that_there_are() {
    let document = document();
    let mut described = BTreeMap::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let access = operation["x-access"].as_str().expect("x-access").to_owned();
            described.insert((path.clone(), method.to_ascii_uppercase()), access);
        }
    }
    let word = |access: Access| match access {
        Access::Read => "read",
        Access::Login => "login",
        Access::Operate => "operate",
    };
    let expected = ROUTES.iter().map(|it| {
        ((it.path.to_owned(), it.method.as_str().to_owned()), word(it.access).to_owned())
    });
    assert_eq!(described, expected.collect::<BTreeMap<_, _>>());
}

#[test]
fn it_knows_all_that_the_examples_send() {
    let document = document();
    for route in &ROUTES {
        let said = said(&document, route);
        let (target, body) = route.example.split_once(' ').unwrap_or((route.example, ""));
        let parameters = said["parameters"].as_array().into_iter().flatten();
        let query: BTreeSet<&str> = parameters
            .filter(|it| it["in"] == "query")
            .filter_map(|it| it["name"].as_str())
            .collect();
        let pairs = target.split_once('?').map_or("", |(_, query)| query).split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let name = pair.split('=').next().unwrap_or_default();
            assert!(query.contains(name), "{}: {name}", route.example);
        }
        let schema = &said["requestBody"]["content"][JSON]["schema"];
        if schema["additionalProperties"] == true {
            continue;
        }
        let sent: Value = serde_json::from_str(body).unwrap_or_default();
        for (name, _) in sent.as_object().into_iter().flatten() {
            assert!(members(schema).contains(name.as_str()), "{}: {name}", route.example);
        }
    }
}

/// Members of answers, whether they are always there or not.
#[test]
fn it_knows_every_member_of_the_answers() {
    let (document, gateway) = (document(), start());
    let mut answered = 0;
    for route in ROUTES.iter().filter(|route| route.path != LIVE) {
        let (target, body) = route.example.split_once(' ').unwrap_or((route.example, ""));
        let reply = operate(&gateway, route.method.as_str(), target, body);
        let responses = &said(&document, route)["responses"];
        if reply.status >= 300 {
            assert!(responses["default"].is_object(), "{}", route.example);
            continue;
        }
        // Where it is the same whether something is new or not.
        let exact = responses.get(reply.status.to_string());
        let response = exact.unwrap_or(&responses["2XX"]);
        assert!(response.is_object(), "{}: {}", route.example, reply.status);
        if reply.body.is_empty() {
            continue;
        }
        let json = reply.json();
        let had: BTreeSet<&str> =
            json.as_object().expect("an object").keys().map(String::as_str).collect();
        let known = members(&response["content"][JSON]["schema"]);
        let unknown: Vec<_> = had.difference(&known).collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", route.example);
        answered += 1;
    }
    assert!(answered > 30, "{answered}");
}
