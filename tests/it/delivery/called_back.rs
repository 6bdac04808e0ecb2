//! Who wants to know learns how requests ended, and knows who says so.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{QUICK, accepted, bearer, config, metric, post, told, until};
use crate::support::{
    Authority, Client, Folder, Gateway, Recorded, Redis, TlsFront, Upstream, eventually, operate,
    response,
};

const OLD: &[u8] = b"the secret of yesterday, 32 byte";
const NEW: &[u8] = b"the secret of today, with more bytes than a block of the digest!";

/// HMAC (RFC 2104), written down once more.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let padded = |with: u8| -> Vec<u8> {
        (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ with).collect()
    };
    let inner = digest(&SHA256, &[padded(0x36), message.to_vec()].concat());
    digest(&SHA256, &[padded(0x5c), inner.as_ref().to_vec()].concat()).as_ref().to_vec()
}

/// Whether a callback is signed by these secrets, in their order, at about now.
fn is_signed_by(sent: &Recorded, secrets: &[&[u8]]) -> bool {
    let field = |name: &str| sent.header(name).unwrap_or_default().to_owned();
    let (id, timestamp) = (field("webhook-id"), field("webhook-timestamp"));
    let at: u64 = timestamp.parse().expect("Unix seconds");
    let now = std::time::UNIX_EPOCH.elapsed().expect("a time after 1970").as_secs();
    assert!(at <= now && now - at < 300, "{at} {now}");
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &sent.body].concat();
    let one = |secret: &&[u8]| format!("v1,{}", STANDARD.encode(hmac(secret, &signed)));
    let expected: Vec<String> = secrets.iter().map(one).collect();
    field("webhook-signature") == expected.join(" ")
}

fn whsec(secret: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(secret))
}

/// A configuration that calls back there.
fn calling(redis: &Redis, mailer: &Upstream, url: &str, secret: &str) -> String {
    let callback = format!("callback = {{ url = \"{url}\", secret = {secret} }}\n");
    let lines = format!("{QUICK}{callback}[queues.callbacks]\n{QUICK}");
    config(redis, &mailer.url(), &lines)
}

fn said(sent: &Recorded) -> Value {
    serde_json::from_slice(&sent.body).expect("JSON")
}

/// What is told of a request that ended so.
fn check(sent: &Recorded, (id, state, key): (&str, &str, &str), host: &str, accepted_at: &Value) {
    assert_eq!(sent.request_line(), "POST /hook?a=b HTTP/1.1");
    for (name, value) in [
        ("webhook-id", Some(&*format!("{id}:{state}"))),
        ("idempotency-key", Some(&*format!("{id}:{state}"))),
        ("content-type", Some("application/json")),
        ("host", Some(host)),
        ("x-user-id", None),
        ("authorization", None),
        ("x-forwarded-for", None),
    ] {
        assert_eq!(sent.header(name), value, "{name}");
    }
    assert!(is_signed_by(sent, &[OLD]) && !is_signed_by(sent, &[NEW]));
    let mut said = said(sent);
    let ended_at = said["data"]["ended_at"].take();
    assert_eq!(said["timestamp"].take(), ended_at);
    assert!(ended_at.as_str().is_some_and(|at| at.len() == 24), "{ended_at}");
    let (status, error) = if state == "done" { (201, "") } else { (400, "refused") };
    let data = json!({
        "id": id, "queue": "mail", "state": state, "status": status, "error": error,
        "attempts": 1, "accepted_at": accepted_at, "ended_at": null, "key": key,
    });
    let kind = format!("delivery.{state}");
    assert_eq!(said, json!({ "type": kind, "timestamp": null, "data": data }));
}

#[test]
fn each_end_is_told_once_and_signed() {
    let redis = Redis::start();
    let mailer = Upstream::with(|request, connection| {
        let status = if request.text() == "bad" { "400 Bad Request" } else { "201 Created" };
        let _ = std::io::Write::write_all(connection, response(status, "").as_bytes());
    });
    let hooks = Upstream::replying(response("204 No Content", ""));
    let url = format!("{}/hook?a=b", hooks.url());
    let secret = format!("\"{}\"", whsec(OLD));
    let gateway = Gateway::start(&calling(&redis, &mailer, &url, &secret));
    let token = bearer("u1");
    let keyed = Client::request(gateway.public, "POST", "/mail").bearer(&token);
    let done = accepted(&keyed.header("Idempotency-Key", "order-7").body("good").send());
    eventually("it is told", || hooks.seen() == 1);
    let dead = accepted(&post(&gateway, "/mail", &token, "bad"));
    eventually("both are told", || hooks.seen() == 2);

    let sent = hooks.recorded();
    for (sent, id, state) in [(&sent[0], &done, "done"), (&sent[1], &dead, "dead")] {
        let host = hooks.address().to_string();
        let key: &str = if state == "done" { "order-7" } else { id };
        let accepted_at = &told(&gateway, &token, id)["accepted_at"];
        check(sent, (id, state, key), &host, accepted_at);
    }
    // Whoever tries it again has it told once.
    let again = format!("/v1/deliveries/{dead}/requeue");
    assert_eq!(operate(&gateway, "POST", &again, "{}").status, 200);
    eventually("it was sent again", || mailer.seen() == 3);
    until(&gateway, &token, &dead, "dead");
    // What is told is nobody's, so that its caller cannot keep it from being told.
    let telling = sent[0].header("x-delivery-id").expect("an id");
    let path = format!("/deliveries/{telling}");
    let theirs = Client::request(gateway.public, "DELETE", &path).bearer(&token).send();
    assert_eq!(theirs.status, 404);
    let next = accepted(&post(&gateway, "/mail", &token, "good"));
    eventually("the next one is told", || hooks.seen() >= 3);
    assert_eq!(said(&hooks.recorded()[2])["data"]["id"], json!(next));
    eventually("it is logged", || {
        let lines = gateway.access_lines();
        lines.iter().any(|line| {
            line["queue"] == "callbacks"
                && line["upstream"] == "mail:callback"
                && line["outcome"] == "done"
                && line["path"] == "-"
        })
    });
}

/// Whoever is told need not change over at the same moment; and what waits is signed by the secrets
/// of when it is sent.
#[test]
fn secrets_change_without_a_callback_that_nobody_believes() {
    let redis = Redis::start();
    let mailer = super::upstream();
    let answers = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let state = std::sync::Arc::clone(&answers);
    let hooks = Upstream::with(move |_, connection| {
        let is_up = state.load(std::sync::atomic::Ordering::SeqCst);
        let status = if is_up { "200 OK" } else { "500 Internal Server Error" };
        let _ = std::io::Write::write_all(connection, response(status, "").as_bytes());
    });
    let text = |path: &str, secret: &str| {
        calling(&redis, &mailer, &format!("{}{path}", hooks.url()), secret)
    };
    let (old, new) = (whsec(OLD), whsec(NEW));
    let gateway = Gateway::start(&text("/old", &format!("\"{old}\"")));
    let token = bearer("u1");
    let id = accepted(&post(&gateway, "/mail", &token, "a"));
    eventually("it is told more than once", || hooks.seen() >= 2);
    let first = hooks.recorded();
    assert!(first.iter().all(|sent| is_signed_by(sent, &[OLD])));
    gateway.rewrite(&text("/new", &format!("[\"{new}\", \"{old}\"]")));
    let reply = operate(&gateway, "POST", "/v1/config/reload", "{}");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let of_both = || {
        let sent = hooks.recorded();
        sent.into_iter().find(|sent| sent.target() == "/new")
    };
    eventually("it is told to where it goes now", || of_both().is_some());
    let sent = of_both().expect("one");
    assert!(is_signed_by(&sent, &[NEW, OLD]));
    assert_eq!(sent.header("webhook-id"), Some(&*format!("{id}:done")));
    assert_eq!(sent.body, first[0].body);
    answers.store(true, std::sync::atomic::Ordering::SeqCst);
    let done = Some(("outcome", "done"));
    eventually("it has been told", || {
        let text = Client::get(gateway.admin, "/metrics").send().text();
        let text = crate::support::Exposition::text(&text);
        let labels = [Some(("queue", "callbacks")), done];
        let labels: Vec<_> = labels.into_iter().flatten().collect();
        text.value("portcullis_queue_attempts_total", &labels) == Some(1.0)
    });
    assert_eq!(metric(&gateway, "portcullis_queue_attempts_total", done), 1.0);
}

/// Where a callback goes may open something: it stands in the file alone. And what waits for one
/// that was taken out of the file waits until it is back.
#[test]
fn a_callback_waits_for_its_place_which_nobody_is_shown() {
    let (redis, mailer) = (Redis::start(), super::upstream());
    let hooks = Upstream::replying(response("200 OK", ""));
    let with = |secret: &str| {
        let url = format!("{}/services/opens-it?key=opens-it", hooks.url());
        calling(&redis, &mailer, &url, &format!("\"{secret}\""))
    };
    let text = with(&whsec(OLD)).replace(
        "[queues.callbacks]\n",
        "[queues.callbacks]\n\
         max_backoff = \"1s\"\n",
    );
    let gateway = Gateway::start(&text);
    let ask = |method: &str, path: &str| {
        let reply = operate(&gateway, method, path, if method == "POST" { "{}" } else { "" });
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    };
    ask("POST", "/v1/queues/callbacks/pause");
    let token = bearer("u1");
    let id = accepted(&post(&gateway, "/mail", &token, "a"));
    until(&gateway, &token, &id, "done");
    let items = ask("GET", "/v1/queues/callbacks/items");
    assert_eq!(items["items"][0]["path"], "-");
    let item = items["items"][0]["id"].as_str().expect("an id").to_owned();
    let keys = redis.cli(&["KEYS", "*"]);
    let key = keys.lines().map(str::trim).find(|key| key.ends_with(&format!("item:{item}")));
    let record = redis.cli(&["HGETALL", key.unwrap_or_else(|| panic!("{keys}"))]);
    assert!(record.contains("mail:callback") && !record.contains("opens-it"), "{record}");

    let start = text.find("callback = {").expect("a callback");
    let line = &text[start..start + text[start..].find('\n').expect("an end") + 1];
    gateway.rewrite(&text.replace(line, ""));
    ask("POST", "/v1/config/reload");
    ask("POST", "/v1/queues/callbacks/resume");
    let of_callbacks = |outcome: &str| {
        let lines = gateway.access_lines();
        lines.iter().any(|line| line["queue"] == "callbacks" && line["outcome"] == outcome)
    };
    eventually("it is given back", || of_callbacks("back"));
    assert_eq!(hooks.seen(), 0);
    gateway.rewrite(&text);
    ask("POST", "/v1/config/reload");
    eventually("it is told", || of_callbacks("done"));
    let sent = hooks.only();
    assert_eq!(sent.target(), "/services/opens-it?key=opens-it");
    assert_eq!(sent.header("webhook-id"), Some(&*format!("{id}:done")));
    assert!(!gateway.access_lines().iter().any(|line| line.to_string().contains("opens-it")));
}

/// Gone is gone; and a redirect leads nowhere, since its place may be anybody's.
#[test]
fn whoever_wants_no_more_is_asked_once() {
    let (redis, mailer, elsewhere) = (Redis::start(), super::upstream(), super::upstream());
    let location = format!("Location: {}/x\r\n", elsewhere.url());
    let statuses = ["410 Gone", "307 Temporary Redirect"];
    let next = std::sync::atomic::AtomicUsize::new(0);
    let hooks = Upstream::with(move |_, connection| {
        let status = statuses[next.fetch_add(1, std::sync::atomic::Ordering::SeqCst).min(1)];
        let text = format!("HTTP/1.1 {status}\r\n{location}Content-Length: 0\r\n\r\n");
        let _ = std::io::Write::write_all(connection, text.as_bytes());
    });
    let secret = format!("\"{}\"", whsec(OLD));
    let gateway = Gateway::start(&calling(&redis, &mailer, &hooks.url(), &secret));
    let token = bearer("u1");
    for seen in [1, 2] {
        accepted(&post(&gateway, "/mail", &token, "a"));
        eventually("it is dead", || {
            let page = operate(&gateway, "GET", "/v1/queues/callbacks/items?state=dead", "");
            page.json()["items"].as_array().is_some_and(|items| items.len() == seen)
        });
        assert_eq!(hooks.seen(), seen);
    }
    assert_eq!(elsewhere.seen(), 0);
    assert!(hooks.recorded().iter().all(|sent| sent.target() == "/"));
    // What they are, operators see; no secret.
    let shown = operate(&gateway, "GET", "/v1/config", "").text();
    assert!(shown.contains("callback") && !shown.contains("whsec_"), "{shown}");
}

#[test]
fn whoever_is_told_over_tls_proves_who_he_is() {
    let (redis, mailer) = (Redis::start(), super::upstream());
    let hooks = Upstream::replying(response("200 OK", ""));
    let authority = Authority::new();
    let certificate = authority.certificate(&["localhost"]);
    let versions = &[&rustls::version::TLS13];
    let front = TlsFront::new(certificate.server(versions, None), hooks.address());
    let folder = Folder::new();
    folder.write("ca.pem", authority.pem());
    folder.write("secret", whsec(OLD));
    let callback = format!(
        "[queues.mail.callback]\nurl = \"{}/tls\"\nsecret = \"file:secret\"\n\
         tls = {{ ca_file = \"ca.pem\" }}\n",
        front.url("localhost")
    );
    let text = config(&redis, &mailer.url(), &format!("{QUICK}{callback}"));
    let gateway = Gateway::start_in(folder, &text);
    accepted(&post(&gateway, "/mail", &bearer("u1"), "a"));
    eventually("it is told", || hooks.seen() == 1);
    let sent = hooks.only();
    assert!(is_signed_by(&sent, &[OLD]));
    assert_eq!(front.connections(), 1);
}
