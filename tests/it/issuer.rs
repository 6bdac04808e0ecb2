//! Keys that an issuer publishes: fetched once for all, kept while it is away, renewed when a token
//! names a new one, and never at the mercy of who sends tokens.

mod discovery;
mod query;
mod sets;
mod several;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::auth::code;
use crate::support::{
    Client, Folder, Gateway, Issuer, Reply, Session, Signer, Upstream, claims, eventually, jwk_set,
    response,
};

fn upstream() -> Upstream {
    Upstream::replying(response("200 OK", "ok"))
}

/// A public route and one for the issuer's tokens; `bounds` are lines of `[auth.users.jwks]`.
fn config(issuer: &Issuer, upstream: &Upstream, bounds: &str) -> String {
    let ca = if issuer.authority.is_empty() { "" } else { "ca_file = \"ca.pem\"" };
    format!(
        r#"
        [auth.users]
        issuer = "https://login.test"
        audience = ["shop"]
        algorithms = ["ES256"]
        jwks_url = "{}"
        [auth.users.jwks]
        {ca}
        {bounds}
        {}
        [routes.public]
        path = "/public"
        upstream = "shop"
        [routes.private]
        path = "/private"
        upstream = "shop"
        auth = "users"
        "#,
        issuer.url(),
        upstream.table("shop")
    )
}

fn start(issuer: &Issuer, config: &str) -> Gateway {
    let folder = Folder::new();
    folder.write("ca.pem", &issuer.authority);
    Gateway::start_in(folder, config)
}

fn get(gateway: &Gateway, token: &str) -> Reply {
    Client::get(gateway.public, "/private").bearer(token).send()
}

fn assert_unavailable(reply: &Reply) {
    assert_eq!((reply.status, &*code(reply)), (503, "keys_unavailable"));
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    assert_eq!(reply.header("www-authenticate"), None, "no token would help");
}

fn status(gateway: &Gateway) -> Value {
    let host = gateway.admin.to_string();
    Client::get(gateway.admin, "/v1/status").header("Host", host).send().json()
}

/// The value of a metric's line that begins so.
fn metric(gateway: &Gateway, begin: &str) -> f64 {
    let text = Client::get(gateway.admin, "/metrics").send().text();
    let line = text.lines().find(|line| line.starts_with(begin));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

fn fetches_that(gateway: &Gateway, issuer: &Issuer, result: &str) -> f64 {
    let url = issuer.url();
    let labels =
        format!("portcullis_issuer_key_fetches_total{{url=\"{url}\",result=\"{result}\"}}");
    metric(gateway, &labels)
}

/// A token that nobody signed, with a key id of its own.
fn unsigned(kid: &str, claims: &Value) -> String {
    let header = json!({"alg": "ES256", "kid": kid}).to_string();
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!(
        "{}.{}.{}",
        part(header.as_bytes()),
        part(claims.to_string().as_bytes()),
        part(&[7; 64])
    )
}

#[test]
fn keys_are_fetched_over_tls_from_an_issuer_that_its_own_authority_vouches_for() {
    let (key, other, upstream) = (Signer::new("a"), Signer::new("a"), upstream());
    let issuer = Issuer::tls(&[&key]);
    let trusting = start(&issuer, &config(&issuer, &upstream, ""));
    assert_eq!(get(&trusting, &key.token(&claims("42"))).status, 200);
    let forged = get(&trusting, &other.token(&claims("42")));
    assert_eq!((forged.status, &*code(&forged)), (401, "token_invalid"));
    let seen = &status(&trusting)["issuers"][0];
    assert_eq!(seen["url"], json!(issuer.url()));
    assert!(seen["keys_age_seconds"].is_u64() && seen["failure"].is_null(), "{seen}");
    assert!(fetches_that(&trusting, &issuer, "ok") >= 1.0);
    let age = format!("portcullis_issuer_key_age_seconds{{url=\"{}\"}}", issuer.url());
    assert!(metric(&trusting, &age) > 0.0);
    let refresh = format!("portcullis_issuer_key_refresh_seconds{{url=\"{}\"}}", issuer.url());
    assert_eq!(metric(&trusting, &refresh), 600.0, "the default of jwks.refresh");

    // The system's authorities do not know it, and another authority of the same name did not sign.
    let without = config(&issuer, &upstream, "").replace("ca_file", "# ca_file");
    let strange = Issuer::tls(&[&key]);
    let folder = Folder::new();
    folder.write("ca.pem", &strange.authority);
    let wrong = Gateway::start_in(folder, &config(&issuer, &upstream, ""));
    for gateway in [start(&issuer, &without), wrong] {
        assert_unavailable(&get(&gateway, &key.token(&claims("42"))));
        assert!(fetches_that(&gateway, &issuer, "tls") >= 1.0, "{}", gateway.stderr());
        assert!(gateway.stderr().contains("ca_file"), "{}", gateway.stderr());
    }
}

#[test]
fn keys_change_under_load_and_no_request_is_lost() {
    let (old, new, upstream) = (Signer::new("old"), Signer::new("new"), upstream());
    let issuer = Issuer::tls(&[&old]);
    let config = config(&issuer, &upstream, "cooldown = \"1h\"");
    let gateways = [start(&issuer, &config), start(&issuer, &config)];
    let (rotated, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let (by_old, by_new) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for worker in 0..6 {
            let address = gateways[worker % 2].public;
            let (old, new, rotated, stop) = (&old, &new, &rotated, &stop);
            let (by_old, by_new) = (&by_old, &by_new);
            scope.spawn(move || {
                let mut session = Session::open(address);
                let remembered = old.token(&claims("42"));
                while !stop.load(Ordering::SeqCst) {
                    let fresh = old.token(&claims("42"));
                    for token in [&remembered, &fresh] {
                        let reply = session.get("/private").bearer(token).send();
                        assert_eq!(reply.status, 200, "the old key: {}", reply.text());
                        by_old.fetch_add(1, Ordering::SeqCst);
                    }
                    if rotated.load(Ordering::SeqCst) {
                        let token = new.token(&claims("42"));
                        let reply = session.get("/private").bearer(token).send();
                        assert_eq!(reply.status, 200, "the new key: {}", reply.text());
                        by_new.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        eventually("the old key is at work", || by_old.load(Ordering::SeqCst) > 100);
        issuer.publish(&[&old, &new]);
        rotated.store(true, Ordering::SeqCst);
        let before = by_old.load(Ordering::SeqCst);
        eventually("both keys are at work", || {
            by_new.load(Ordering::SeqCst) > 100 && by_old.load(Ordering::SeqCst) > before + 100
        });
        stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(issuer.fetches(), 4, "each gateway fetched at its start and for the new key");
}

#[test]
fn the_last_known_keys_stay_in_force_while_the_issuer_is_away() {
    let (key, upstream) = (Signer::new("a"), upstream());
    let issuer = Issuer::plain(&[&key]);
    let bounds = "refresh = \"1s\"\ncooldown = \"1s\"";
    let gateway = start(&issuer, &config(&issuer, &upstream, bounds));
    assert_eq!(get(&gateway, &key.token(&claims("42"))).status, 200);
    issuer.set_down(true);
    eventually("fetches fail", || fetches_that(&gateway, &issuer, "broken") >= 2.0);
    assert_eq!(get(&gateway, &key.token(&claims("42"))).status, 200);
    assert!(status(&gateway)["issuers"][0]["failure"].is_string());
    // Whether this one is good, only the issuer could say.
    assert_unavailable(&get(&gateway, &unsigned("b", &claims("42"))));
    let told = gateway.stderr().matches("could not be fetched").count();
    assert_eq!(told, 1, "{}", gateway.stderr());
    // An answer that is no set is not better than none.
    issuer.answer(response("200 OK", "{\"keys\": []}"));
    issuer.set_down(false);
    eventually("the set is of no use", || fetches_that(&gateway, &issuer, "unusable") >= 1.0);
    assert_eq!(get(&gateway, &key.token(&claims("42"))).status, 200);
    issuer.publish(&[&key]);
    eventually("the issuer is back", || status(&gateway)["issuers"][0]["failure"].is_null());
    assert_eq!(get(&gateway, &key.token(&claims("42"))).status, 200);
}

#[test]
fn an_issuer_that_is_away_at_the_start_is_a_503_until_it_comes() {
    let (key, upstream) = (Signer::new("a"), upstream());
    let issuer = Issuer::plain(&[&key]);
    issuer.set_down(true);
    let gateway = start(&issuer, &config(&issuer, &upstream, "cooldown = \"1s\""));
    assert_unavailable(&get(&gateway, &key.token(&claims("42"))));
    assert_eq!(Client::get(gateway.public, "/public").send().status, 200);
    assert_eq!(Client::get(gateway.public, "/private").send().status, 401, "no token, no issuer");
    assert_eq!(get(&gateway, "abc").status, 401, "no key would save it");
    assert!(status(&gateway)["issuers"][0]["keys_age_seconds"].is_null());
    issuer.set_down(false);
    let token = key.token(&claims("42"));
    eventually("the keys are there", || get(&gateway, &token).status == 200);
}

#[test]
fn ten_thousand_unknown_keys_cause_one_fetch() {
    let (key, upstream) = (Signer::new("a"), upstream());
    let issuer = Issuer::plain(&[&key]);
    let gateway = start(&issuer, &config(&issuer, &upstream, "cooldown = \"1h\""));
    assert_eq!(issuer.fetches(), 1);
    // Their own claims condemn them, so no key could save them.
    let mut expired = claims("42");
    expired["exp"] = json!(1_000_000_000);
    expired["iat"] = json!(999_999_000);
    let mut strange = claims("42");
    strange["iss"] = json!("https://evil.test");
    for (number, claims) in [expired, strange].iter().enumerate() {
        assert_eq!(get(&gateway, &unsigned(&format!("x{number}"), claims)).status, 401);
    }
    let forged = unsigned("a", &claims("42"));
    assert_eq!(get(&gateway, &forged).status, 401, "a known key");
    assert_eq!(issuer.fetches(), 1, "nothing to ask the issuer for");
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (address, key) = (gateway.public, &key);
            scope.spawn(move || {
                let mut session = Session::open(address);
                let claims = claims("42");
                for number in 0..2500 {
                    let token = unsigned(&format!("kid-{worker}-{number}"), &claims);
                    let reply = session.get("/private").bearer(token).send();
                    assert_eq!(reply.status, 401, "{}", reply.text());
                    if number % 500 == 0 {
                        let token = key.token(&claims);
                        assert_eq!(session.get("/private").bearer(token).send().status, 200);
                    }
                }
            });
        }
    });
    assert_eq!(issuer.fetches(), 4, "the first, and three for all these key ids");
}

#[test]
fn forged_key_ids_do_not_keep_a_new_key_out() {
    let (old, new, newer) = (Signer::new("old"), Signer::new("new"), Signer::new("newer"));
    let (issuer, upstream) = (Issuer::plain(&[&old]), upstream());
    let forged = |gateway: &Gateway, number: usize| {
        let token = unsigned(&format!("forged-{number}"), &claims("42"));
        assert_eq!(get(gateway, &token).status, 401);
    };
    let gateway = start(&issuer, &config(&issuer, &upstream, "cooldown = \"1h\""));
    forged(&gateway, 1);
    issuer.publish(&[&old, &new]);
    assert_eq!(get(&gateway, &new.token(&claims("42"))).status, 200);
    drop(gateway);

    let gateway = start(&issuer, &config(&issuer, &upstream, "cooldown = \"3s\""));
    let before = issuer.fetches();
    // More than are allowed at once: one is owed.
    (0..5).for_each(|number| forged(&gateway, number));
    let asked = issuer.fetches();
    assert!(asked >= before + 3, "{asked}");
    issuer.publish(&[&old, &new, &newer]);
    eventually("a fetch comes without another token", || issuer.fetches() > asked);
    eventually("the new key is known", || get(&gateway, &newer.token(&claims("42"))).status == 200);
}

#[test]
fn who_needs_a_new_key_waits_for_the_one_fetch_in_progress() {
    let (old, new, upstream) = (Signer::new("old"), Signer::new("new"), upstream());
    let issuer = Issuer::plain(&[&old]);
    let gateway = start(&issuer, &config(&issuer, &upstream, "cooldown = \"1h\""));
    issuer.hold();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| get(&gateway, &new.token(&claims("42"))).status))
            .collect();
        eventually("a fetch is on its way", || issuer.fetches() == 2);
        // Who needs no new key waits for nobody.
        assert_eq!(get(&gateway, &old.token(&claims("42"))).status, 200);
        issuer.publish(&[&old, &new]);
        issuer.release();
        for waited in waiting {
            assert_eq!(waited.join().unwrap(), 200);
        }
    });
    assert_eq!(issuer.fetches(), 2);
}

#[test]
fn a_shared_secret_that_is_published_is_never_used() {
    let (key, upstream) = (Signer::new("a"), upstream());
    let secret = [9; 32];
    let oct = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(secret), "kid": "s"});
    let issuer = Issuer::plain(&[]);
    issuer.answer(jwk_set(&[&oct, &key.jwk]));
    let gateway = start(&issuer, &config(&issuer, &upstream, ""));
    let claims = claims("42");
    let by_secret = portcullis::auth::sign(
        Algorithm::HS256,
        &EncodingKey::from_secret(&secret),
        Some("s"),
        claims.as_object().unwrap(),
    );
    assert_eq!(get(&gateway, &by_secret.unwrap()).status, 401);
    assert_eq!(get(&gateway, &key.token(&claims)).status, 200);
    let told = gateway.stderr();
    assert!(told.contains("a shared secret that is published is none"), "{told}");

    issuer.answer(jwk_set(&[&oct]));
    let gateway = start(&issuer, &config(&issuer, &upstream, ""));
    assert_unavailable(&get(&gateway, &key.token(&claims)));
}

#[test]
fn an_answer_that_is_no_set_is_a_failed_fetch_with_its_reason() {
    let (key, upstream) = (Signer::new("a"), upstream());
    let elsewhere = Issuer::plain(&[&key]);
    let large = json!({"keys": [key.jwk], "more": "x".repeat(2000)}).to_string();
    let to = format!("302 Found\r\nLocation: {}", elsewhere.url());
    for (answer, result, told) in [
        (response(&to, ""), "redirect", "redirects are not followed"),
        (response("404 Not Found", ""), "status", "404 Not Found"),
        (response("200 OK", &large), "too_large", "larger than 1KiB"),
        (format!("HTTP/1.1 200 OK\r\n\r\n{large}"), "too_large", "larger than 1KiB"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{".to_owned(), "broken", "broke off"),
        (response("200 OK\r\nContent-Encoding: gzip", "x"), "broken", "not asked for"),
        ("SSH-2.0-OpenSSH_9\r\n".to_owned(), "broken", "broke off"),
        (response("200 OK", "<html>"), "unusable", "cannot be read"),
    ] {
        let issuer = Issuer::plain(&[]);
        issuer.answer(answer);
        let bounds = "max_bytes = \"1KiB\"";
        let gateway = start(&issuer, &config(&issuer, &upstream, bounds));
        assert_unavailable(&get(&gateway, &key.token(&claims("42"))));
        assert!(fetches_that(&gateway, &issuer, result) >= 1.0, "{result}: {}", gateway.stderr());
        assert!(gateway.stderr().contains(told), "{result}: {}", gateway.stderr());
    }
    assert_eq!(elsewhere.fetches(), 0);
}

#[test]
fn a_slow_issuer_holds_up_nobody_beyond_the_timeout() {
    let (key, upstream) = (Signer::new("a"), upstream());
    let issuer = Issuer::plain(&[&key]);
    issuer.hold();
    let bounds = "timeout = \"200ms\"\ncooldown = \"1s\"";
    let gateway = start(&issuer, &config(&issuer, &upstream, bounds));
    assert_unavailable(&get(&gateway, &key.token(&claims("42"))));
    assert!(fetches_that(&gateway, &issuer, "timeout") >= 1.0);
    issuer.release();
    let token = key.token(&claims("42"));
    eventually("the keys are there", || get(&gateway, &token).status == 200);
}

#[test]
fn one_place_is_fetched_once_for_all_verifiers_routes_and_reloads() {
    let (key, upstream) = (Signer::new("a"), upstream());
    let issuer = Issuer::plain(&[&key]);
    let mut text = config(&issuer, &upstream, "");
    for name in ["b", "c", "d"] {
        text += &format!(
            "[auth.{name}]\nalgorithms = [\"ES256\"]\njwks_url = \"{}\"\n\
             [routes.{name}]\npath = \"/{name}\"\nupstream = \"shop\"\nauth = \"{name}\"\n",
            issuer.url()
        );
    }
    let gateway = start(&issuer, &text);
    let all_pass = || {
        let token = key.token(&claims("42"));
        for path in ["/private", "/b", "/c", "/d"] {
            let reply = Client::get(gateway.public, path).bearer(&token).send();
            assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        }
    };
    all_pass();
    assert_eq!(issuer.fetches(), 1);
    let reload = |text: &str, times: usize| {
        gateway.rewrite(text);
        gateway.signal("HUP");
        eventually("the reload is over", || {
            gateway.stderr().matches("configuration was reloaded").count() == times
        });
    };
    reload(&text, 1);
    all_pass();
    assert_eq!(issuer.fetches(), 1, "nothing has changed for the issuer");
    // Another way to fetch the same: what is known serves until then.
    issuer.hold();
    let otherwise = text
        .replace("[auth.users.jwks]", "")
        .replace("jwks_url =", "jwks.refresh = \"2m\"\n        jwks_url =");
    reload(&otherwise, 2);
    all_pass();
    issuer.release();
    eventually("it is fetched in the other way", || issuer.fetches() == 2);
}

#[test]
fn a_remembered_token_ends_with_its_key() {
    let (old, new, upstream) = (Signer::new("old"), Signer::new("new"), upstream());
    let issuer = Issuer::plain(&[&old, &new]);
    let bounds = "refresh = \"1s\"\ncooldown = \"1s\"";
    let gateway = start(&issuer, &config(&issuer, &upstream, bounds));
    let token = old.token(&claims("42"));
    assert_eq!(get(&gateway, &token).status, 200);
    assert_eq!(get(&gateway, &token).status, 200);
    issuer.publish(&[&new]);
    eventually("the key is gone", || get(&gateway, &token).status == 401);
    assert_eq!(get(&gateway, &new.token(&claims("42"))).status, 200);
}
