//! Who listens to a subject hears what is told meanwhile, and that some was missed; who pulls from
//! a stream gets all of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use portcullis::config;
use portcullis::upstream::{Ahead, Bus, Consumer, Unheard, Upstream};
use serde_json::json;

use super::upstream;
use crate::support::{Folder, Nats, PATIENCE, eventually};

/// How long is waited for what is not there.
const SHORT: Duration = Duration::from_millis(1);

fn upstream_of(nats: &Nats) -> Upstream {
    let loaded = config::parse("t.toml", Path::new("."), &upstream(nats, ""), &|_| None);
    let loaded = loaded.expect("TOML");
    Upstream::new("orders", &loaded.config.upstreams["orders"], None, &Ahead::default())
}

fn bus(nats: &Nats) -> Bus {
    upstream_of(nats).bus("events.test").expect("an upstream over NATS")
}

/// Runs on threads of its own, and blocks the test's.
fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all();
    runtime.build().expect("a runtime").block_on(test)
}

/// The payloads of the next messages, until there are so many.
async fn payloads(consumer: &mut Consumer<'_>, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        let pull = consumer.pull(PATIENCE).await.expect("messages");
        assert!(!pull.messages.is_empty(), "only {all:?}");
        consumer.acknowledge(&pull.messages).await.expect("an answer");
        all.extend(
            pull.messages.iter().map(|it| String::from_utf8_lossy(&it.payload).into_owned()),
        );
    }
    all
}

#[test]
fn a_listener_hears_all_from_its_begin_on_and_then_that_the_connection_is_lost() {
    let mut nats = Nats::start();
    run(async {
        let bus = bus(&nats);
        let mut listener = bus.listen("shop.*.changed").await.expect("a subscription");
        for number in ["1", "2"] {
            nats.publish("shop.product.changed", number);
        }
        nats.publish("shop.product.other", "3");
        let mut heard = Vec::new();
        while heard.len() < 2 {
            heard.extend(listener.hear(1, PATIENCE).await.expect("messages"));
        }
        let heard: Vec<_> = heard.iter().map(|it| (&*it.subject, &*it.payload)).collect();
        assert_eq!(
            heard,
            [("shop.product.changed", &b"1"[..]), ("shop.product.changed", &b"2"[..])]
        );
        assert_eq!(listener.hear(9, SHORT).await, Ok(Vec::new()));
        nats.kill();
        assert_eq!(listener.hear(9, PATIENCE).await, Err(Unheard::Disconnected));
        nats.restart();
        let mut listener = bus.listen("shop.>").await.expect("a new subscription");
        nats.publish("shop.again", "4");
        let heard = listener.hear(9, PATIENCE).await.expect("messages");
        assert_eq!(heard.first().map(|it| &*it.payload), Some(&b"4"[..]));
    });
}

/// Its buffer has a bound; beyond it the connection is as good as lost.
#[test]
fn a_listener_that_is_too_slow_is_told_that_it_missed_some() {
    let nats = Nats::start();
    run(async {
        let bus = bus(&nats);
        let mut listener = bus.listen("shop.>").await.expect("a subscription");
        let mut batch = String::from("CONNECT {\"verbose\":false}\r\n");
        batch += &"PUB shop.a 1\r\nx\r\n".repeat(20_000);
        nats.write(&(batch + "PING\r\n"));
        // The former connection is kept by the listener, who has heard nothing yet.
        eventually("it is given up for another one", || nats.clients() == 2);
        let mut count = 0;
        let lost = loop {
            match listener.hear(1, PATIENCE).await {
                Ok(heard) if heard.is_empty() => break None,
                Ok(heard) => count += heard.len(),
                Err(lost) => break Some(lost),
            }
        };
        assert_eq!(lost, Some(Unheard::Disconnected), "it heard {count}");
        assert!(count > 0 && count < 20_000, "what came before the loss is heard: {count}");
    });
}

#[test]
fn what_the_server_denies_is_said_and_nobody_listens_in_vain() {
    let user = "{ user: a, password: b, permissions: { subscribe: { deny: \"shop.>\" } } }";
    let settings = format!("authorization {{ users: [{user}] }}\nno_auth_user: a\n");
    let nats = Nats::start_in(Folder::new(), &settings);
    run(async {
        let bus = bus(&nats);
        let said = match bus.listen("shop.product.changed").await {
            Ok(mut listener) => listener.hear(1, PATIENCE).await.map(|_| ()),
            Err(why) => Err(why),
        };
        let Err(Unheard::Denied(why)) = said else { panic!("{said:?}") };
        assert!(why.contains("Permissions Violation for Subscription"), "{why}");
        bus.listen("other.changed").await.expect("what is allowed is heard");
    });
}

#[test]
fn a_consumer_or_stream_that_is_another_one_is_a_gap_that_is_told_once() {
    let nats = Nats::with_streams();
    let make = || nats.stream("JOBS", "jobs.>", &json!({ "max_msgs": 2 }));
    // The question of one who has gone may still take a message, which then comes again so soon.
    let settings = json!({ "filter_subject": "jobs.own", "ack_wait": 1_000_000_000_u64 });
    let consumer = || nats.consumer("JOBS", "gateway", &settings);
    make();
    consumer();
    run(async {
        let bus = bus(&nats);
        let has_missed = || async {
            let mut consumer = bus.consume("JOBS", "gateway").await.expect("a consumer");
            let pull = consumer.pull(SHORT).await.expect("an answer");
            consumer.acknowledge(&pull.messages).await.expect("an answer");
            pull.has_missed
        };
        assert!(!has_missed().await, "a new one");
        assert!(!has_missed().await, "the same");
        nats.api("CONSUMER.DELETE.JOBS.gateway", &json!(null));
        consumer();
        assert!(has_missed().await, "another consumer");
        assert!(!has_missed().await, "that was told");
        nats.api("STREAM.DELETE.JOBS", &json!(null));
        make();
        consumer();
        assert!(has_missed().await, "another stream");
        assert!(!has_missed().await, "that was told");
        nats.store("jobs.own", "1");
        let mut pulling = bus.consume("JOBS", "gateway").await.expect("a consumer");
        assert_eq!(payloads(&mut pulling, 1).await, ["1"]);
        drop(pulling);
        (2..=5).for_each(|number| nats.store("jobs.other", number.to_string()));
        // Nobody can tell what they were that are gone, but they are gone once.
        has_missed().await;
        assert!(!has_missed().await, "what the stream has dropped was told");
    });
}

#[test]
fn a_consumer_brings_what_was_not_acknowledged_again_and_nothing_twice_that_was() {
    let mut nats = Nats::with_streams();
    nats.stream("JOBS", "jobs.>", &json!({}));
    nats.consumer("JOBS", "gateway", &json!({ "ack_wait": 1_000_000_000_u64 }));
    (1..=100).for_each(|number| nats.store("jobs.new", number.to_string()));
    let numbers = |from: u32, to: u32| (from..=to).map(|it| it.to_string()).collect::<Vec<_>>();
    run(async {
        let bus = bus(&nats);
        let mut consumer = bus.consume("JOBS", "gateway").await.expect("a consumer");
        assert_eq!(payloads(&mut consumer, 100).await, numbers(1, 100));
        assert!(consumer.pull(SHORT).await.expect("nothing").messages.is_empty());
        nats.store("jobs.new", "101");
        let pull = consumer.pull(PATIENCE).await.expect("a message");
        let [one] = &pull.messages[..] else { panic!("one: {pull:?}") };
        assert_eq!((&*one.subject, one.at.stream_seq, one.at.delivered), ("jobs.new", 101, 1));
        assert!(!pull.has_missed && one.at.stored_ns > 1_700_000_000_000_000_000);
        consumer.hand_back(one).await.expect("it is sent");
        let again = consumer.pull(PATIENCE).await.expect("a message");
        assert_eq!(again.messages[0].at.delivered, 2);
        // What is not acknowledged comes to whoever is next.
        drop(consumer);
        nats.kill();
        nats.restart();
        nats.store("jobs.new", "102");
        let mut consumer = bus.consume("JOBS", "gateway").await.expect("a consumer");
        // A server that is killed may forget what was acknowledged last: it brings that again.
        let mut rest = BTreeSet::new();
        while !numbers(101, 102).iter().all(|number| rest.contains(number)) {
            rest.extend(payloads(&mut consumer, 1).await);
        }
        assert!(rest.iter().all(|number| numbers(1, 102).contains(number)), "{rest:?}");
    });
}

#[test]
fn what_a_stream_has_dropped_unread_is_told() {
    let nats = Nats::with_streams();
    nats.stream("JOBS", "jobs.>", &json!({ "max_msgs": 5 }));
    nats.consumer("JOBS", "gateway", &json!({}));
    run(async {
        let bus = bus(&nats);
        let mut consumer = bus.consume("JOBS", "gateway").await.expect("a consumer");
        nats.store("jobs.new", "1");
        let pull = consumer.pull(PATIENCE).await.expect("a message");
        assert!(!pull.has_missed);
        consumer.acknowledge(&pull.messages).await.expect("an answer");
        drop(consumer);
        (2..=10).for_each(|number| nats.store("jobs.new", number.to_string()));
        let mut consumer = bus.consume("JOBS", "gateway").await.expect("a consumer");
        let pull = consumer.pull(PATIENCE).await.expect("messages");
        assert_eq!((pull.messages[0].at.stream_seq, pull.has_missed), (6, true));
        consumer.acknowledge(&pull.messages).await.expect("an answer");
        let mut left = 5 - pull.messages.len();
        while left > 0 {
            let pull = consumer.pull(PATIENCE).await.expect("messages");
            assert!(!pull.has_missed, "it is told once");
            consumer.acknowledge(&pull.messages).await.expect("an answer");
            left -= pull.messages.len();
        }
    });
}

#[test]
fn a_consumer_that_is_missing_or_of_another_kind_says_how_to_make_it() {
    let nats = Nats::with_streams();
    nats.stream("JOBS", "jobs.>", &json!({}));
    nats.consumer("JOBS", "pushes", &json!({ "deliver_subject": "somewhere" }));
    nats.consumer("JOBS", "careless", &json!({ "ack_policy": "none" }));
    nats.consumer("JOBS", "hasty", &json!({ "ack_policy": "all" }));
    nats.consumer("JOBS", "impatient", &json!({ "max_deliver": 3 }));
    let plain = Nats::start_in(Folder::new(), "");
    run(async {
        let with_streams = bus(&nats);
        for (stream, name, why) in [
            ("JOBS", "none", "not found"),
            ("NONE", "none", "not found"),
            ("JOBS", "pushes", "pushes"),
            ("JOBS", "careless", "its ack_policy is \"none\""),
            ("JOBS", "hasty", "its ack_policy is \"all\""),
            ("JOBS", "impatient", "gives up after 3"),
        ] {
            let error = with_streams.consume(stream, name).await.expect_err("no consumer");
            let text = error.to_string();
            assert!(text.contains(why), "{text}");
            assert!(text.contains(&format!("nats consumer add {stream} {name}")), "{text}");
        }
        let error = bus(&plain).consume("JOBS", "gateway").await.expect_err("no JetStream");
        assert_eq!(error, Unheard::NoJetStream);
    });
}
