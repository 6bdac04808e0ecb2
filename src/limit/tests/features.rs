//! Tiers, costs, exemptions, what answers correct, and what passes although it is over: each limit
//! as the file says it, over the embedded store.

use std::path::Path;

use http::StatusCode;

use super::*;
use crate::store::Store;

/// `[limits.p]` with these lines.
fn written(lines: &str) -> config::Limit {
    let text = format!("[limits.p]\n{lines}");
    let mut loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
    let problems = loaded.problems.iter().filter(|problem| problem.path.starts_with("limits"));
    assert_eq!(problems.count(), 0, "{}", loaded.source.render(&loaded.problems));
    loaded.config.limits.remove("p").unwrap()
}

/// Where the mistakes of `[limits.p]` are.
fn mistakes(lines: &str) -> Vec<String> {
    let text = format!("[limits.p]\nkey = [\"address\"]\nallow = [\"10/1m\"]\n{lines}");
    let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
    let paths = loaded.problems.iter().map(|problem| problem.path.clone());
    paths.filter(|path| path.starts_with("limits")).collect()
}

struct Bench {
    limit: config::Limit,
    store: Store,
    here: State,
}

/// What became of one request.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    passed: bool,
    /// `RateLimit`
    told: Option<String>,
    over: Vec<String>,
    marks: Vec<String>,
}

impl Bench {
    fn new(lines: &str) -> Self {
        let store = Store::Memory(Box::new(MemoryStore::new(1000)));
        Self { limit: written(lines), store, here: State::new(1000, true) }
    }

    /// Sends one request through the limit, to its outcome.
    async fn send(&self, facts: &Facts<'_>, outcome: &Outcome<'_>) -> Answer {
        let policy = Policy::compile([("p", &self.limit)].into_iter(), 1, true);
        let mut notes = LimitNotes::default();
        let verdict = match RateCheck::of(&policy, &Keys::new("app"), facts, true) {
            None => Ok(None),
            Some(check) => {
                let reply = self.store.take(check.charges()).await;
                let taken = check.admit(&reply, LimitOutage::Refuse, &self.here, &mut notes);
                taken.map(|taken| taken.and_then(|taken| check.receipt(&taken)))
            }
        };
        let mut headers = HeaderMap::new();
        notes.quota.stamp(&mut headers, || UNIX_EPOCH);
        let passed = verdict.is_ok();
        if let Some(correction) = verdict.ok().flatten().and_then(|it| it.settle(outcome)) {
            correction.carry_out(&self.store, &self.here).await.unwrap();
        }
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        Answer {
            passed,
            told: headers.get("ratelimit").map(text),
            over: notes.over.iter().map(|(limit, action)| format!("{limit} {action}")).collect(),
            marks: notes
                .marks
                .iter()
                .map(|(name, value)| format!("{name}: {}", text(value)))
                .collect(),
        }
    }

    /// How many of `number` requests pass.
    async fn passed(&self, number: u32, facts: &Facts<'_>, outcome: &Outcome<'_>) -> u32 {
        let mut passed = 0;
        for _ in 0..number {
            passed += u32::from(self.send(facts, outcome).await.passed);
        }
        passed
    }
}

const FINE: Outcome<'static> =
    Outcome { status: StatusCode::OK, headers: None, failed: false, cached: false };

fn with_claim(name: &str, value: serde_json::Value) -> Caller {
    let mut identity = Arc::into_inner(caller("ada").unwrap()).unwrap();
    identity.claims.insert(name.into(), value);
    Some(Arc::new(identity))
}

#[tokio::test]
async fn a_tier_replaces_the_windows_for_those_who_have_its_claim() {
    let bench = Bench::new(
        "key = [\"address\"]\nallow = [\"2/1h\"]\n\
         tiers = { by = \"claim:plan\", allow = { gold = [\"4/1h\", \"3/1m\"] } }",
    );
    let headers = HeaderMap::new();
    for (client, plan, passing) in [
        ("192.0.2.1", serde_json::json!("gold"), 3),
        ("192.0.2.2", serde_json::json!("iron"), 2),
        ("192.0.2.3", serde_json::json!(["gold"]), 2),
        ("192.0.2.4", serde_json::json!(null), 2),
    ] {
        let caller = with_claim("plan", plan.clone());
        let passed = bench.passed(6, &facts(client, &caller, &headers), &FINE).await;
        assert_eq!(passed, passing, "{plan}");
    }
    assert_eq!(bench.passed(6, &facts("192.0.2.5", &None, &headers), &FINE).await, 2);
    // The same counter: who loses a tier has used what was used.
    let gold = with_claim("plan", "gold".into());
    let client = "192.0.2.6";
    assert_eq!(bench.passed(1, &facts(client, &gold, &headers), &FINE).await, 1);
    assert_eq!(bench.passed(6, &facts(client, &None, &headers), &FINE).await, 1);
}

#[tokio::test]
async fn a_request_costs_what_the_limit_says() {
    let headers = HeaderMap::new();
    let client = facts("192.0.2.1", &None, &headers);
    let base = "key = [\"address\"]\nallow = [\"10/1h\"]\n";
    assert_eq!(Bench::new(&format!("{base}cost = 3")).passed(9, &client, &FINE).await, 3);
    assert_eq!(Bench::new(&format!("{base}cost = 0")).passed(30, &client, &FINE).await, 30);

    let by_method = Bench::new(&format!("{base}cost = {{ methods = {{ POST = 5, GET = 0 }} }}"));
    let post = Facts { method: &Method::POST, ..client };
    let put = Facts { method: &Method::PUT, ..client };
    assert_eq!(by_method.passed(30, &client, &FINE).await, 30);
    assert_eq!(by_method.passed(1, &post, &FINE).await, 1);
    assert_eq!(by_method.passed(9, &put, &FINE).await, 5);

    for (said, passing) in
        [("4", 2), ("0", 10), ("-1", 10), ("x", 10), ("999", 2), ("99999999999", 2), ("", 10)]
    {
        let by_header = Bench::new(&format!("{base}cost = {{ header = \"x-cost\", max = 5 }}"));
        let mut headers = HeaderMap::new();
        headers.insert("x-cost", HeaderValue::from_static(said));
        let facts = facts("192.0.2.1", &None, &headers);
        assert_eq!(by_header.passed(12, &facts, &FINE).await, passing, "{said:?}");
    }
}

#[tokio::test]
async fn the_answer_says_what_a_request_did_cost() {
    let bench = Bench::new(
        "key = [\"address\"]\nallow = [\"10/1h\"]\ncost = 2\n\
         response_cost = { header = \"x-cost\", max = 7 }",
    );
    let nothing = HeaderMap::new();
    let client = facts("192.0.2.1", &None, &nothing);
    let left = async |said: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        if let Some(said) = said {
            headers.insert("x-cost", HeaderValue::from_static(said));
        }
        let outcome = Outcome { headers: Some(&headers), ..FINE };
        bench.send(&client, &outcome).await.told.unwrap()
    };
    // Each answer tells what was left before its own correction.
    for (said, expected) in [
        (Some("1"), "\"p\";r=8"),
        (Some("x"), "\"p\";r=7"),
        (None, "\"p\";r=5"),
        (Some("999"), "\"p\";r=3"),
        (Some("1"), "\"p\";r=0"),
    ] {
        let told = left(said).await;
        assert!(told.starts_with(expected), "{said:?}: {told}");
    }
}

#[tokio::test]
async fn only_the_answers_that_count_stay_charged() {
    let bench = Bench::new(
        "key = [\"address\"]\nallow = [\"2/1h\"]\ncount = { status = [\"401\", \"5xx\"] }",
    );
    let nothing = HeaderMap::new();
    let client = facts("192.0.2.1", &None, &nothing);
    let ended = |status| Outcome { status, ..FINE };
    for status in [StatusCode::OK, StatusCode::FORBIDDEN, StatusCode::NOT_MODIFIED] {
        assert_eq!(bench.passed(5, &client, &ended(status)).await, 5, "{status}");
    }
    assert_eq!(bench.passed(1, &client, &ended(StatusCode::UNAUTHORIZED)).await, 1);
    assert_eq!(bench.passed(5, &client, &ended(StatusCode::BAD_GATEWAY)).await, 1);
    assert_eq!(bench.passed(5, &client, &FINE).await, 0);
}

#[tokio::test]
async fn failures_and_cached_answers_give_back_what_the_limit_says() {
    let nothing = HeaderMap::new();
    let client = facts("192.0.2.1", &None, &nothing);
    let failed = Outcome { failed: true, status: StatusCode::BAD_GATEWAY, ..FINE };
    let cached = Outcome { cached: true, ..FINE };
    for (refund, after_failures, after_hits) in [
        ("[]", 2, 2),
        ("[\"failure\"]", 9, 2),
        ("[\"cache\"]", 2, 9),
        ("[\"cache\", \"failure\"]", 9, 9),
    ] {
        let lines = format!("key = [\"address\"]\nallow = [\"2/1h\"]\nrefund = {refund}");
        assert_eq!(
            Bench::new(&lines).passed(9, &client, &failed).await,
            after_failures,
            "{refund}"
        );
        assert_eq!(Bench::new(&lines).passed(9, &client, &cached).await, after_hits, "{refund}");
        assert_eq!(Bench::new(&lines).passed(9, &client, &FINE).await, 2, "{refund}");
    }
}

#[tokio::test]
async fn a_shadow_is_reported_and_a_mark_is_passed_on() {
    let nothing = HeaderMap::new();
    let client = facts("192.0.2.1", &None, &nothing);
    let shadow = Bench::new("key = [\"address\"]\nallow = [\"1/1h\"]\nshadow = true");
    let mark = Bench::new("key = [\"address\"]\nallow = [\"1/1h\"]\nmark = \"x-over-limit\"");
    for bench in [&shadow, &mark] {
        let first = bench.send(&client, &FINE).await;
        assert!(first.passed && first.over.is_empty() && first.marks.is_empty(), "{first:?}");
    }
    for _ in 0..3 {
        let answer = shadow.send(&client, &FINE).await;
        let over = vec!["p shadow".to_owned()];
        assert_eq!(answer, Answer { passed: true, told: None, over, marks: vec![] });
        let answer = mark.send(&client, &FINE).await;
        assert!(answer.passed && answer.told.unwrap().starts_with("\"p\";r=0"));
        assert_eq!(answer.over, ["p mark"]);
        assert_eq!(answer.marks, ["x-over-limit: p"]);
    }
}

#[test]
fn limits_that_share_a_mark_are_listed_in_it() {
    let header = HeaderName::from_static("x-over");
    let mut notes = LimitNotes::default();
    for limit in ["a", "b", "a"] {
        notes.mark(&header, limit);
    }
    assert_eq!(notes.marks, [(header, HeaderValue::from_static("a, b"))]);
}

#[tokio::test]
async fn the_exempt_are_not_counted() {
    let bench = Bench::new(
        "key = [\"route\"]\nallow = [\"1/1h\"]\n\
         exempt = { addresses = [\"10.0.0.0/8\"], claims = { role = [\"service\", \"7\"] } }",
    );
    let nothing = HeaderMap::new();
    for (client, role, passing) in [
        ("10.1.2.3", serde_json::json!("user"), 5),
        ("192.0.2.1", serde_json::json!("service"), 5),
        ("192.0.2.1", serde_json::json!(["user", "service"]), 5),
        ("192.0.2.1", serde_json::json!(7), 5),
        ("192.0.2.1", serde_json::json!("user"), 1),
        ("11.0.0.1", serde_json::json!(["user"]), 0),
    ] {
        let caller = with_claim("role", role.clone());
        let passed = bench.passed(5, &facts(client, &caller, &nothing), &FINE).await;
        assert_eq!(passed, passing, "{client} {role}");
    }
}

#[test]
fn the_blocked_are_refused_and_jitter_only_adds() {
    let limit = written("key = [\"address\"]\nallow = [\"9/1h\"]\nblock = [\"203.0.113.0/24\"]");
    let policy = Policy::compile([("p", &limit)].into_iter(), 1, true);
    for (client, blocked) in
        [("203.0.113.9", true), ("::ffff:203.0.113.9", true), ("192.0.2.1", false)]
    {
        assert_eq!(policy.blocks(address(client)), blocked, "{client}");
    }
    let (wait, jitter) = (Duration::from_secs(10), Duration::from_secs(5));
    for _ in 0..100 {
        let over = Exceeded::over("p", jitter, wait, &Quota::default());
        let Exceeded::Limit { retry_after, .. } = over else { panic!("another error") };
        assert!((wait..wait + jitter).contains(&retry_after));
    }
}

#[test]
fn what_cannot_work_is_reported() {
    for (lines, expected) in [
        ("cost = 10", &[][..]),
        ("cost = 11", &["limits.p.cost"]),
        ("cost = { header = \"x-cost\", max = 11 }", &["limits.p.cost"]),
        ("cost = { methods = { POST = 11 } }", &["limits.p.cost"]),
        ("cost = { methods = { post = 1 } }", &["limits.p.cost.methods.post", "limits.p.cost"]),
        ("cost = { header = \"x-cost\", methods = { POST = 1 } }", &["limits.p.cost"]),
        ("cost = {}", &["limits.p.cost"]),
        ("cost = -1", &["limits.p.cost"]),
        ("tiers = { by = \"claim:plan\" }", &["limits.p.tiers.allow"]),
        ("tiers = { by = \"plan\", allow = { a = [\"1/1s\"] } }", &["limits.p.tiers.by"]),
        ("count = { status = [\"4x\"] }", &["limits.p.count.status[0]"]),
        ("count = { status = [\"600\"] }", &["limits.p.count.status[0]"]),
        ("refund = [\"always\"]", &["limits.p.refund[0]"]),
        ("shadow = true\nmark = \"x-over\"", &["limits.p.mark"]),
        ("exempt = { addresses = [\"10.0.0/8\"] }", &["limits.p.exempt.addresses[0]"]),
        ("block = [\"nowhere\"]", &["limits.p.block[0]"]),
        ("concurrent = 0", &["limits.p.concurrent"]),
        ("concurrent = 3", &["limits.p.allow"]),
        ("lease = \"10s\"", &["limits.p.lease"]),
        ("scope = \"local\"\nrefund = [\"cache\"]", &["limits.p.refund"]),
        ("scope = \"local\"\ncount = { status = [\"401\"] }", &["limits.p.count"]),
        ("scope = \"local\"\nresponse_cost = { header = \"x-c\" }", &["limits.p.response_cost"]),
    ] {
        assert_eq!(mistakes(lines), expected, "{lines}");
    }
}
