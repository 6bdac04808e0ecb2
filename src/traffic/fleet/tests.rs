//! A canary that gets a few answers at each of several gateways.

use std::time::Duration;

use super::*;
use crate::config::{Arm, OnBad, Rollback, Split, WHOLE};
use crate::store::{MemoryStore, Store};
use crate::traffic::canary::{Canary, Place};

fn counts(answers: u32, failures: u32) -> Counts {
    Counts { answers, failures }
}

fn told(all: &[(&'static str, String)]) -> Vec<(Bytes, Bytes)> {
    let one = |(from, text): &(&'static str, String)| {
        (Bytes::from_static(from.as_bytes()), Bytes::from(text.clone()))
    };
    all.iter().map(one).collect()
}

fn text(said: &Said) -> String {
    String::from_utf8(said.bytes()).unwrap()
}

#[test]
fn what_others_say_of_the_same_record_is_summed_up() {
    let said = |about, at, base, canary| text(&Said::new(about, at, [base, canary]));
    let one = said("ramp", 7, counts(90, 1), counts(10, 2));
    let lie = |from, to| {
        assert!(one.contains(from), "{one}");
        one.replacen(from, to, 1)
    };
    let all = told(&[
        ("edge-1", said("ramp", 7, counts(1000, 900), counts(1000, 900))),
        ("edge-2", one.clone()),
        ("edge-3", said("ramp", 7, counts(50, 0), counts(5, 5))),
        ("edge-4", said("ramp", 6, counts(1000, 900), counts(1000, 900))),
        ("edge-5", said("other", 7, counts(1000, 900), counts(1000, 900))),
        ("liar-1", lie("\"v\":1", "\"v\":2")),
        ("liar-2", lie("\"answers\":90", "\"answers\":1000000001")),
        ("liar-3", lie("\"answers\":90", "\"answers\":-90")),
        ("liar-4", lie("\"failures\":2", "\"failures\":11")),
        ("liar-5", lie("\"answers\":10", "\"answers\":\"many\"")),
        ("liar-6", "{}".to_owned()),
    ]);
    assert_eq!(others("edge-1", ("ramp", 7), &all), [counts(140, 1), counts(15, 7)]);
    assert_eq!(others("edge-1", ("ramp", 8), &all), [counts(0, 0), counts(0, 0)]);
}

fn split() -> Split {
    let arm = |upstream: &str, share| Arm { upstream: upstream.to_owned(), share };
    let window = Duration::from_secs(60);
    let (failures, latency, answers, on_bad) = (200, 150, 100, OnBad::Stable);
    Split {
        arms: vec![arm("shop", WHOLE - 500), arm("next", 500)],
        sticky: None,
        ramp: Vec::new(),
        rollback: Some(Rollback { failures, latency, answers, window, on_bad }),
    }
}

fn answer(canary: &Canary, [base, next]: [u32; 2], failures: u32) {
    let took = Duration::from_millis(10);
    (0..base).for_each(|_| canary.note(0, false, Some(took)));
    (0..next).for_each(|number| canary.note(1, number < failures, Some(took)));
}

/// What each of these gateways does once a second.
async fn look(store: &Store, nodes: &[Canary], now_ms: u64) {
    for node in nodes {
        node.look(Place { store, key: "app:canary:shop", now_ms }).await;
    }
}

fn told_by_others(text: String) -> [(Bytes, Bytes); 1] {
    [(Bytes::from_static(b"another"), Bytes::from(text))]
}

fn exchange(names: &[&'static str], nodes: &[Canary]) -> Vec<(Bytes, Bytes)> {
    let one = |(name, node): (&&'static str, &Canary)| {
        (Bytes::from_static(name.as_bytes()), Bytes::from(node.say().unwrap_or_default()))
    };
    let all: Vec<_> = names.iter().zip(nodes).map(one).collect();
    names.iter().zip(nodes).for_each(|(name, node)| node.hear(name, &all));
    all
}

#[tokio::test(start_paused = true)]
async fn a_canary_with_few_answers_at_each_gateway_is_judged_by_all_of_them() {
    let store = Store::Memory(Box::new(MemoryStore::new(100)));
    let names = ["edge-1", "edge-2", "edge-3", "edge-4"];
    let nodes = names.map(|_| Canary::new("shop", &split(), None));
    look(&store, &nodes, 1).await;
    look(&store, &nodes, 1).await;
    for node in &nodes {
        answer(node, [500, 40], 8);
    }
    look(&store, &nodes, 2).await;
    assert_eq!(nodes.each_ref().map(Canary::share), [500; 4], "40 answers are too few");
    let before = exchange(&names, &nodes);
    look(&store, &nodes, 3).await;
    assert_eq!(nodes.each_ref().map(Canary::share), [0; 4]);
    let told = nodes[3].now(3).stopped.unwrap();
    assert!(told.starts_with("20.0% of its answers failed, and 0.0%"), "{told}");
    // After a reset, what was answered before is of no matter, whoever still tells of it: from
    // before the stop, or from between that and the reset.
    let zero = r#""answers":0,"#;
    let late = String::from_utf8(nodes[1].say().unwrap()).unwrap();
    let late = late.replace(zero, r#""answers":5000,"#).replace(r#"0}}"#, r#"4000}}"#);
    nodes[1].hear("edge-2", &told_by_others(late));
    let place = Place { store: &store, key: "app:canary:shop", now_ms: 9 };
    nodes[0].order(place, None).await.unwrap();
    nodes[0].hear("edge-1", &before);
    look(&store, &nodes, 10).await;
    assert_eq!(nodes.each_ref().map(Canary::share), [500; 4]);
}

#[tokio::test(start_paused = true)]
async fn without_others_each_gateway_judges_by_what_it_knows() {
    let store = Store::Memory(Box::new(MemoryStore::new(100)));
    let names = ["edge-1", "edge-2"];
    let nodes = names.map(|_| Canary::new("shop", &split(), None));
    look(&store, &nodes, 1).await;
    look(&store, &nodes, 1).await;
    answer(&nodes[0], [500, 30], 0);
    answer(&nodes[1], [500, 90], 30);
    exchange(&names, &nodes);
    // Nobody is heard any more before anybody judges.
    nodes.iter().zip(names).for_each(|(node, name)| node.hear(name, &[]));
    look(&store, &nodes, 2).await;
    assert_eq!(nodes.each_ref().map(Canary::share), [500; 2]);
    answer(&nodes[1], [0, 10], 0);
    look(&store, &nodes, 3).await;
    assert_eq!(nodes[1].share(), 0, "these are a hundred");
}
