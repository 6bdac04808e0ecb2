//! An issuer alone: its document says where its keys are, if it is its own, and what it said last
//! counts while no better one comes.

use serde_json::{Value, json};

use super::{assert_unavailable, get, metric, start, status, upstream};
use crate::auth::code;
use crate::support::{
    Client, Gateway, Issuer, Signer, Upstream, claims, eventually, operate, response,
};

/// A public route and one for the tokens of the issuer of this name, and nothing of its keys.
fn config(issuer: &Issuer, name: &str, upstream: &Upstream, bounds: &str) -> String {
    let ca = if issuer.authority.is_empty() { "" } else { "ca_file = \"ca.pem\"" };
    format!(
        r#"
        [auth.users]
        issuer = "{name}"
        algorithms = ["ES256"]
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
        upstream.table("shop")
    )
}

/// An issuer whose document names its own keys, in clear.
fn issuer(key: &Signer) -> Issuer {
    let issuer = Issuer::plain(&[key]);
    issuer.tell("", &issuer.origin(), &issuer.url());
    issuer
}

/// A token of the issuer of this name.
fn token(key: &Signer, issuer: &str) -> String {
    let mut claims = claims("42");
    claims["iss"] = json!(issuer);
    key.token(&claims)
}

fn discovery(gateway: &Gateway) -> Value {
    status(gateway)["issuers"][0]["discovery"].clone()
}

/// How many fetches ended so; they are counted by the place of the document.
fn ended(gateway: &Gateway, issuer: &Issuer, result: &str) -> f64 {
    let url = format!("{}/.well-known/openid-configuration", issuer.origin());
    let name = "portcullis_issuer_key_fetches_total";
    metric(gateway, &format!("{name}{{url=\"{url}\",result=\"{result}\"}}"))
}

#[test]
fn an_issuer_alone_says_where_its_keys_are() {
    let (key, other, upstream) = (Signer::new("a"), Signer::new("a"), upstream());
    let issuer = Issuer::tls(&[&key]);
    issuer.tell("", &issuer.origin(), &issuer.url());
    let gateway = start(&issuer, &config(&issuer, &issuer.origin(), &upstream, ""));
    assert_eq!(get(&gateway, &token(&key, &issuer.origin())).status, 200);
    let forged = get(&gateway, &token(&other, &issuer.origin()));
    assert_eq!((forged.status, &*code(&forged)), (401, "token_invalid"));
    assert_eq!((issuer.asked().len(), issuer.fetches()), (1, 1));
    let told = discovery(&gateway);
    assert_eq!(told["jwks_uri"], json!(issuer.url()));
    assert!(told["age_seconds"].is_u64() && told["failure"].is_null(), "{told}");
    assert!(ended(&gateway, &issuer, "ok") >= 1.0);
    // Whoever forges key ids has keys fetched, and no documents.
    for kid in ["x", "y", "z"] {
        assert_eq!(get(&gateway, &token(&Signer::new(kid), &issuer.origin())).status, 401);
    }
    assert_eq!((issuer.asked().len(), issuer.fetches()), (1, 4));

    // Without the authority neither the document nor the keys are believed.
    let without = config(&issuer, &issuer.origin(), &upstream, "").replace("ca_file", "# ca_file");
    let gateway = start(&issuer, &without);
    assert_unavailable(&get(&gateway, &token(&key, &issuer.origin())));
    assert!(gateway.stderr().contains("the discovery document: no TLS"), "{}", gateway.stderr());
}

#[test]
fn the_document_is_behind_the_path_of_the_issuer() {
    let (key, upstream) = (Signer::new("a"), upstream());
    for (path, name) in [("/realms/shop", "/realms/shop"), ("", "/"), ("/t", "/t/")] {
        let issuer = Issuer::plain(&[&key]);
        let named = format!("{}{name}", issuer.origin());
        issuer.tell(path, &named, &issuer.url());
        let gateway = start(&issuer, &config(&issuer, &named, &upstream, ""));
        assert_eq!(get(&gateway, &token(&key, &named)).status, 200, "{named}");
        assert_eq!(issuer.asked(), [format!("{path}/.well-known/openid-configuration")]);
        // The slash is part of the name.
        let other = named.strip_suffix('/').map_or(format!("{named}/"), str::to_owned);
        assert_eq!(get(&gateway, &token(&key, &other)).status, 401, "{other}");
    }
}

#[test]
fn a_document_that_cannot_be_believed_leads_nowhere() {
    let (key, upstream) = (Signer::new("a"), upstream());
    let evil = issuer(&key);
    let document = |issuer: &str, jwks_uri: &str| {
        response("200 OK", &json!({ "issuer": issuer, "jwks_uri": jwks_uri }).to_string())
    };
    let to = format!("302 Found\r\nLocation: {}/.well-known/openid-configuration", evil.origin());
    let large = format!("{{\"x\": \"{}\"}}", "x".repeat(2000));
    let own = Issuer::plain(&[&key]);
    let name = own.origin();
    for (answer, result, told) in [
        (document(&evil.origin(), &own.url()), "other_issuer", "to the last slash"),
        (document(&format!("{name}/"), &own.url()), "other_issuer", "to the last slash"),
        (document(&name, "http://keys.example/jwks"), "unusable", "is http://"),
        (document(&name, "http://10.0.0.7/jwks"), "unusable", "is http://"),
        (document(&name, "file:///etc/passwd"), "unusable", "not the URL of a JWK set"),
        (response("200 OK", "{}"), "unusable", "names no issuer"),
        (response("200 OK", &json!({ "issuer": name }).to_string()), "unusable", "no jwks_uri"),
        (response("200 OK", "<html>"), "unusable", "cannot be read as JSON"),
        (response(&to, ""), "redirect", "redirects are not followed"),
        (response("404 Not Found", ""), "status", "publishes no document"),
        (response("200 OK", &large), "too_large", "larger than 1KiB"),
        (format!("HTTP/1.1 200 OK\r\n\r\n{large}"), "too_large", "larger than 1KiB"),
    ] {
        own.tell_raw("", answer);
        let bounds = "max_bytes = \"1KiB\"\ncooldown = \"1h\"";
        let gateway = start(&own, &config(&own, &name, &upstream, bounds));
        assert_unavailable(&get(&gateway, &token(&key, &name)));
        assert!(ended(&gateway, &own, result) >= 1.0, "{result}: {}", gateway.stderr());
        assert!(gateway.stderr().contains(told), "{told}: {}", gateway.stderr());
        let failure = status(&gateway)["issuers"][0]["failure"].clone();
        assert!(failure.as_str().is_some_and(|it| it.contains(told)), "{failure}");
        let bound = || gateway.access_lines().first().map(|line| line["bound"].clone());
        eventually("it is logged", || bound().is_some());
        assert_eq!(bound(), Some(json!("auth.users.issuer")));
    }
    assert_eq!((own.fetches(), evil.fetches()), (0, 0));
}

#[test]
fn keys_may_lie_elsewhere_and_are_followed_when_they_move() {
    let (old, new, upstream) = (Signer::new("old"), Signer::new("new"), upstream());
    let (issuer, elsewhere) = (Issuer::plain(&[]), Issuer::plain(&[&old]));
    let (name, moved) = (issuer.origin(), Issuer::plain(&[&new]));
    issuer.tell("", &name, &elsewhere.url());
    let bounds = "refresh = \"1s\"\ncooldown = \"1s\"";
    let gateway = start(&issuer, &config(&issuer, &name, &upstream, bounds));
    let (by_old, by_new) = (token(&old, &name), token(&new, &name));
    assert_eq!(get(&gateway, &by_old).status, 200);
    assert_eq!(discovery(&gateway)["jwks_uri"], json!(elsewhere.url()));
    issuer.tell("", &name, &moved.url());
    eventually("the other place is asked", || get(&gateway, &by_new).status == 200);
    assert_eq!(get(&gateway, &by_old).status, 401, "its key is not published any more");
    assert_eq!(discovery(&gateway)["jwks_uri"], json!(moved.url()));
    // A place without keys does not last: the document says where they are now.
    moved.set_down(true);
    issuer.tell("", &name, &elsewhere.url());
    eventually("and back", || get(&gateway, &by_old).status == 200);
    assert_eq!(issuer.fetches(), 0);
}

#[test]
fn what_a_document_said_last_counts_while_no_better_one_comes() {
    let (key, new, evil) = (Signer::new("a"), Signer::new("b"), Signer::new("a"));
    let (upstream, issuer, other) = (upstream(), issuer(&key), issuer(&evil));
    let name = issuer.origin();
    let bounds = "refresh = \"1s\"\ncooldown = \"1s\"\ntimeout = \"1s\"";
    let gateway = start(&issuer, &config(&issuer, &name, &upstream, bounds));
    assert_eq!(get(&gateway, &token(&key, &name)).status, 200);
    let failure_has = |part: &str| {
        eventually("the document fails", || {
            let told = discovery(&gateway);
            told["failure"].as_str().is_some_and(|failure| failure.contains(part))
        });
    };
    // Another issuer's document, a place that may not be asked, and none at all.
    issuer.tell("", &other.origin(), &other.url());
    failure_has("it is of the issuer");
    issuer.tell("", &name, "http://keys.example/jwks");
    failure_has("is http://");
    issuer.set_mute(true);
    failure_has("no whole answer");
    // Keys are fetched from the former place meanwhile, new ones too.
    issuer.publish(&[&key, &new]);
    eventually("the new key is known", || get(&gateway, &token(&new, &name)).status == 200);
    assert_eq!(get(&gateway, &token(&evil, &name)).status, 401);
    assert_eq!(discovery(&gateway)["jwks_uri"], json!(issuer.url()));
    let warned = gateway.stderr().matches("the keys are fetched from where it said last").count();
    assert_eq!(warned, 1, "{}", gateway.stderr());
    // Nor do keys end when all of the issuer is away.
    issuer.set_mute(false);
    issuer.set_down(true);
    eventually("fetches fail", || status(&gateway)["issuers"][0]["failure"].is_string());
    assert_eq!(get(&gateway, &token(&key, &name)).status, 200);
    issuer.tell("", &name, &issuer.url());
    issuer.set_down(false);
    eventually("all is well", || {
        let told = status(&gateway)["issuers"][0].clone();
        told["failure"].is_null() && told["discovery"]["failure"].is_null()
    });
    assert_eq!(other.fetches(), 0);
}

#[test]
fn a_document_that_is_away_or_slow_at_the_start_is_a_503_until_it_comes() {
    let (key, upstream) = (Signer::new("a"), upstream());
    for is_slow in [false, true] {
        let issuer = issuer(&key);
        let name = issuer.origin();
        issuer.set_down(!is_slow);
        issuer.set_mute(is_slow);
        let bounds = "timeout = \"200ms\"\ncooldown = \"1s\"";
        let gateway = start(&issuer, &config(&issuer, &name, &upstream, bounds));
        let token = token(&key, &name);
        assert_unavailable(&get(&gateway, &token));
        assert_eq!(Client::get(gateway.public, "/public").send().status, 200);
        assert_eq!(Client::get(gateway.public, "/private").send().status, 401);
        assert!(discovery(&gateway)["jwks_uri"].is_null());
        issuer.set_down(false);
        issuer.set_mute(false);
        eventually("the keys are there", || get(&gateway, &token).status == 200);
    }
}

#[test]
fn the_doctor_says_what_to_do_about_a_document() {
    let (key, upstream) = (Signer::new("a"), upstream());
    let issuer = issuer(&key);
    let gateway = start(&issuer, &config(&issuer, &issuer.origin(), &upstream, ""));
    let look = || {
        let told = operate(&gateway, "POST", "/v1/doctor", "{}").json();
        let checks = told["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["table"] == "auth.users").unwrap()
    };
    let good = look();
    assert_eq!((&good["check"], &good["level"]), (&json!("issuer"), &json!("good")), "{good}");
    assert!(good["value"].as_str().unwrap().contains(&issuer.url()), "{good}");
    issuer.tell("", "https://login.example", &issuer.url());
    let poor = look();
    assert_eq!(poor["level"], "poor", "{poor}");
    assert!(poor["value"].as_str().unwrap().contains("\"https://login.example\""), "{poor}");
    assert!(poor["do"].as_str().unwrap().contains("to the last slash"), "{poor}");
}
