//! The attacks of RFC 9700 and of OpenID Connect's own list, each tried.

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::hostile::{Hostile, Trap, json_of, now};
use super::{House, SECRET, api, refused};
use crate::support::{Client, Gateway, Signer, response};

/// RFC 9700 §4.7 (CSRF), §4.5: a log-in of somebody else, brought into the victim's browser.
#[test]
fn a_log_in_is_ended_by_the_browser_that_began_it_alone() {
    let house = House::open();
    let mut attacker = house.browser();
    let location = attacker.begin("/login");
    let back = attacker.come_back(&house, &location);
    let mut victim = house.browser();
    refused(&victim.get(&back), 400, "login_state_unknown");
    // Nor with a cookie of a log-in that the victim has begun himself.
    victim.begin("/login");
    refused(&victim.get(&back), 400, "login_state_unknown");
    let (name, value) = victim.shop.0[0].clone();
    let (wanted, _) = attacker.shop.0[0].clone();
    assert_ne!(name, wanted);
    victim.shop.0.push((wanted, value));
    refused(&victim.get(&back), 400, "login_state_unknown");
    // A state that is none, of the length of one.
    refused(
        &victim.get(&format!("/callback?code=a&state={}", "x".repeat(43))),
        400,
        "login_state_unknown",
    );
}

/// The attacker opens the link without the cookie first: it must not spoil the log-in.
#[test]
fn who_has_no_cookie_does_not_spoil_a_log_in() {
    let house = House::open();
    let mut user = house.browser();
    let location = user.begin("/login");
    let back = user.come_back(&house, &location);
    refused(&house.browser().get(&back), 400, "login_state_unknown");
    assert_eq!(user.get(&back).status, 303);
}

/// RFC 9700 §4.5: a code that was issued for another log-in. The provider knows by the challenge.
#[test]
fn a_code_of_another_log_in_is_refused_by_its_challenge() {
    let house = House::open();
    let mut attacker = house.browser();
    let location = attacker.begin("/login");
    let stolen = attacker.come_back(&house, &location);
    let code = stolen.split(['?', '&']).find(|it| it.starts_with("code=")).expect("a code");
    let mut victim = house.browser();
    let location = victim.begin("/login");
    let own = victim.come_back(&house, &location);
    let own_code = own.split(['?', '&']).find(|it| it.starts_with("code=")).expect("a code");
    refused(&victim.get(&own.replace(own_code, code)), 400, "login_code_invalid");
}

/// RFC 9700 §4.5.3.2: the same where the provider looks at no challenge.
#[test]
fn a_code_of_another_log_in_is_refused_by_its_nonce() {
    let trap = Trap::set("");
    assert_eq!(trap.log_in(&json!({}), &json!({})).status, 303);
    for nonce in [json!("another"), Value::Null, json!(7), json!("")] {
        let reply = trap.log_in(&json!({ "nonce": nonce }), &json!({}));
        refused(&reply, 502, "provider_answer_invalid");
    }
}

/// RFC 9700 §4.2, §4.5: the link is opened once more, from the history or by who has read it.
#[test]
fn a_code_and_a_state_are_used_once() {
    let house = House::open();
    let mut browser = house.browser();
    let location = browser.begin("/login");
    let back = browser.come_back(&house, &location);
    let before = browser.clone();
    assert_eq!(browser.get(&back).status, 303);
    refused(&before.clone().get(&back), 400, "login_state_unknown");
    assert_eq!(api(&house.gateway, "/private/x", &browser.shop).status, 200);
}

/// Of many who open the link at once, one is logged in.
#[test]
fn a_state_is_used_once_at_the_same_time() {
    let trap = Trap::set("");
    let begun = trap.begin();
    let claims = trap.provider.claims(&begun.value("nonce"), &json!({}));
    trap.provider.issue(&claims, &json!({}));
    let path = format!("/callback?code=abc&state={}", begun.value("state"));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let ask = || scope.spawn(|| begun.browser.clone().get(&path).status);
        let all: Vec<_> = (0..20).map(|_| ask()).collect();
        all.into_iter().map(|it| it.join().expect("an answer")).collect()
    });
    assert_eq!(statuses.iter().filter(|it| **it == 303).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|it| **it == 400).count(), 19, "{statuses:?}");
    assert_eq!(trap.provider.asked("/token").len(), 1);
}

/// RFC 9700 §4.4: the answer of one provider at the place of another.
#[test]
fn answers_of_providers_are_not_mixed_up() {
    let (honest, hostile) = (Hostile::start(), Hostile::start());
    hostile.say_of_itself(&json!({"authorization_response_iss_parameter_supported": true}));
    let provider = |name: &str, issuer: &str| {
        format!(
            "[providers.{name}]\nissuer = \"{issuer}\"\nclient_id = \"shop\"\n\
             subject_prefix = \"{name}|\"\nredirect_uri = \"https://shop.test/callback/{name}\"\n\
             [routes.login-{name}]\npath = \"/login/{name}\"\nanswers = \"login\"\n\
             provider = \"{name}\"\n[routes.callback-{name}]\npath = \"/callback/{name}\"\n\
             answers = \"callback\"\nprovider = \"{name}\"\n"
        )
    };
    let config = format!(
        "[session]\nmake = {{}}\n{}{}[routes.me]\npath = \"/me\"\nanswers = \"session\"\n",
        provider("good", &honest.issuer()),
        provider("bad", &hostile.issuer()),
    );
    let gateway = Gateway::start(&config);
    let begin = |name: &str| {
        let mut browser = super::Browser {
            gateway: gateway.public,
            shop: crate::support::Jar::default(),
            provider: crate::support::Jar::default(),
        };
        let location = browser.begin(&format!("/login/{name}"));
        super::hostile::Begun { browser, location }
    };
    // Begun at the one, ended at the other's place: no code goes to the wrong one.
    let mut begun = begin("good");
    let query = format!("code=abc&state={}", begun.value("state"));
    refused(&begun.browser.get(&format!("/callback/bad?{query}")), 400, "login_mixed_up");
    assert!(honest.asked("/token").is_empty() && hostile.asked("/token").is_empty());
    // RFC 9207: who says whose an answer is, and does not, or says another.
    for iss in [String::new(), format!("&iss={}", honest.issuer())] {
        let mut begun = begin("bad");
        let query = format!("code=abc&state={}{iss}", begun.value("state"));
        refused(&begun.browser.get(&format!("/callback/bad?{query}")), 400, "login_mixed_up");
        assert!(hostile.asked("/token").is_empty());
    }
    let mut begun = begin("good");
    let query = format!("code=abc&state={}&iss={}", begun.value("state"), hostile.issuer());
    refused(&begun.browser.get(&format!("/callback/good?{query}")), 400, "login_mixed_up");
    // Each calls its users by names that the other cannot give.
    for (name, provider) in [("good", &honest), ("bad", &hostile)] {
        let mut begun = begin(name);
        let claims = provider.claims(&begun.value("nonce"), &json!({"sub": "good|ada"}));
        provider.issue(&claims, &json!({}));
        let query = format!("code=c&state={}&iss={}", begun.value("state"), provider.issuer());
        let reply = begun.browser.get(&format!("/callback/{name}?{query}"));
        assert_eq!(reply.status, 303, "{}", reply.text());
        let me = api(&gateway, "/me", &begun.browser.shop).json();
        assert_eq!(me["sub"], format!("{name}|good|ada"));
    }
}

/// RFC 9700 §4.11: the log-in leads nowhere but to the site itself.
#[test]
fn a_log_in_leads_to_no_other_site() {
    let trap = Trap::set("");
    for asked in [
        "https://evil.test/",
        "//evil.test",
        "/%5Cevil.test",
        "%5C%5Cevil.test",
        "/%09/evil.test",
        "/%0D%0ALocation:%20https://evil.test",
        "javascript:alert(1)",
        "/a&return_to=//evil.test",
        "%ff",
        "",
    ] {
        let mut browser = trap.browser();
        let location = browser.begin(&format!("/login?return_to={asked}"));
        let mut begun = super::hostile::Begun { browser, location };
        let claims = trap.provider.claims(&begun.value("nonce"), &json!({}));
        trap.provider.issue(&claims, &json!({}));
        let reply = begun.end(&format!("code=abc&state={}", begun.value("state")));
        assert_eq!((reply.status, reply.header("location")), (303, Some("/")), "{asked}");
    }
}

/// RFC 9700 §2.1.1, §4.8: codes without a challenge, or by one that is none.
#[test]
fn nobody_logs_in_without_a_challenge() {
    let hostile = Hostile::start();
    hostile.say_of_itself(&json!({"code_challenge_methods_supported": ["plain"]}));
    let trap = Trap::around(hostile, "");
    refused(&trap.browser().get("/login"), 503, "provider_away");
    let trap = Trap::set("");
    let mut begun = trap.begin();
    assert_eq!(begun.value("code_challenge_method"), "S256");
    let challenge = begun.value("code_challenge");
    let claims = trap.provider.claims(&begun.value("nonce"), &json!({}));
    trap.provider.issue(&claims, &json!({}));
    assert_eq!(begun.end(&format!("code=abc&state={}", begun.value("state"))).status, 303);
    let asked = trap.provider.asked("/token").pop().expect("a question");
    let form = asked.split("\r\n\r\n").nth(1).expect("a form");
    let verifier = form.split('&').find_map(|it| it.strip_prefix("code_verifier="));
    let verifier = verifier.expect("a verifier");
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
    assert_eq!(URL_SAFE_NO_PAD.encode(digest), challenge);
    assert!(asked.to_ascii_lowercase().contains("authorization: basic "), "{asked}");
}

/// OpenID Connect Core 1.0 §3.1.3.7: each thing that an `id_token` must say, once it says another.
#[test]
fn an_id_token_that_says_anything_else_logs_nobody_in() {
    let trap = Trap::set("max_age = \"5m\"\nacr_values = [\"mfa\"]\n");
    let good = json!({"auth_time": now(), "acr": "mfa"});
    assert_eq!(trap.log_in(&good, &json!({})).status, 303);
    for changes in [
        json!({"iss": "https://evil.test"}),
        json!({"iss": format!("{}/", trap.provider.issuer())}),
        json!({"iss": null}),
        json!({"aud": "other"}),
        json!({"aud": ["other"]}),
        json!({"aud": null}),
        json!({"aud": ["shop", "other"]}),
        json!({"aud": ["shop", "other"], "azp": "other"}),
        json!({"azp": "other"}),
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": {"a": 1}}),
        json!({"sub": "a\u{0}b"}),
        json!({"exp": null}),
        json!({"exp": now() - 60}),
        json!({"iat": null}),
        json!({"iat": now() + 600}),
        json!({"nbf": now() + 600}),
        json!({"auth_time": null}),
        json!({"auth_time": now() - 600}),
        json!({"acr": "pwd"}),
        json!({"acr": null}),
        json!({"at_hash": "77QmUPtjPfzWtF2AnpK9RQ"}),
        json!({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}),
    ] {
        let claims = super::hostile::both(&good, &changes);
        let reply = trap.log_in(&claims, &json!({}));
        assert_eq!(super::code(&reply), "provider_answer_invalid", "{changes}");
        refused(&reply, 502, "provider_answer_invalid");
    }
}

/// RFC 8725 §3.1, RFC 9700 §4.13: by another key, by none, by the secret that both know.
#[test]
fn an_id_token_is_signed_by_the_provider() {
    let trap = Trap::set("");
    let forge = |make: &dyn Fn(&Value) -> String| {
        let mut begun = trap.begin();
        let claims = trap.provider.claims(&begun.value("nonce"), &json!({}));
        let token = make(&claims);
        trap.provider.issue(&claims, &json!({ "id_token": token }));
        begun.end(&format!("code=abc&state={}", begun.value("state")))
    };
    let unsigned = |claims: &Value| {
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let part = |it: &Value| URL_SAFE_NO_PAD.encode(it.to_string());
        format!("{}.{}.", part(&json!({"alg": "none"})), part(claims))
    };
    let by_secret = |claims: &Value| {
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let claims = claims.as_object().expect("claims");
        portcullis::auth::sign(Algorithm::HS256, &key, Some("k-1"), claims).expect("a token")
    };
    let other = Signer::new("k-1");
    let unknown = Signer::new("k-9");
    for make in [
        &unsigned as &dyn Fn(&Value) -> String,
        &by_secret,
        &|claims: &Value| other.token(claims),
        &|claims: &Value| unknown.token(claims),
        &|_: &Value| String::new(),
        &|_: &Value| "a.b.c".to_owned(),
        &|claims: &Value| format!("{}x", trap.provider.key.token(claims)),
    ] {
        refused(&forge(make), 502, "provider_answer_invalid");
    }
    assert_eq!(forge(&|claims: &Value| trap.provider.key.token(claims)).status, 303);
}

/// RFC 9700 §4.12, and what no answer of a token endpoint may be.
#[test]
fn an_answer_that_is_none_logs_nobody_in() {
    let trap = Trap::set("max_bytes = \"4KiB\"\ntimeout = \"1s\"\n");
    let elsewhere = Hostile::start();
    let to = format!("307 Temporary Redirect\r\nLocation: {}/token", elsewhere.issuer());
    let long = json!({"access_token": "a".repeat(5000), "token_type": "Bearer"});
    for (answer, status, code) in [
        (response(&to, ""), 502, "provider_answer_invalid"),
        (response("200 OK", ""), 502, "provider_answer_invalid"),
        (response("200 OK", "<html>"), 502, "provider_answer_invalid"),
        (response("200 OK", "[]"), 502, "provider_answer_invalid"),
        (response("500 Oh", "{}"), 502, "provider_answer_invalid"),
        (json_of("401 No", &json!({"error": "invalid_client"})), 502, "provider_answer_invalid"),
        (json_of("400 No", &json!({"error": "invalid_grant"})), 400, "login_code_invalid"),
        (
            json_of("200 OK", &json!({"access_token": "a", "token_type": "Bearer"})),
            502,
            "provider_answer_invalid",
        ),
        (json_of("200 OK", &long), 503, "provider_away"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{".to_owned(), 503, "provider_away"),
        ("no HTTP at all\r\n\r\n".to_owned(), 503, "provider_away"),
    ] {
        let mut begun = trap.begin();
        trap.provider.answer("/token", answer);
        let reply = begun.end(&format!("code=abc&state={}", begun.value("state")));
        refused(&reply, status, code);
    }
    assert!(elsewhere.asked("/token").is_empty(), "the secret went elsewhere");
}

/// OpenID Connect Core 1.0 §5.3.2.
#[test]
fn claims_of_another_user_are_not_taken() {
    let trap = Trap::set("userinfo = true\n");
    let say = |body: &Value| trap.provider.answer("/me", json_of("200 OK", body));
    say(&json!({"sub": "ada", "email": "ada@shop.test"}));
    assert_eq!(trap.log_in(&json!({}), &json!({})).status, 303);
    for body in [json!({"sub": "eve", "roles": ["admin"]}), json!({"roles": ["admin"]}), json!([])]
    {
        say(&body);
        refused(&trap.log_in(&json!({}), &json!({})), 502, "provider_answer_invalid");
    }
    // What is signed counts before what is not.
    say(&json!({"sub": "ada", "roles": ["admin"], "email": "other@shop.test"}));
    let mut begun = trap.begin();
    let claims = trap.provider.claims(&begun.value("nonce"), &json!({"roles": ["user"]}));
    trap.provider.issue(&claims, &json!({}));
    assert_eq!(begun.end(&format!("code=abc&state={}", begun.value("state"))).status, 303);
    let me = api(&trap.gateway, "/me", &begun.browser.shop).json();
    assert_eq!(me["fields"]["roles"], json!(["user"]));
}

/// Whoever wrote the link chose what it says: nothing of that is shown.
#[test]
fn an_error_is_told_by_the_gateway_in_its_own_words() {
    let trap = Trap::set("");
    for error in ["access_denied", "login_required", "%3Cscript%3Ealert(1)%3C/script%3E"] {
        let mut begun = trap.begin();
        let state = begun.value("state");
        let text = "error_description=%3Cscript%3Ealert(1)%3C/script%3E";
        let reply = begun.end(&format!("error={error}&{text}&state={state}"));
        refused(&reply, 403, "login_refused");
        assert!(!reply.text().contains("script"), "{}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    }
}

/// RFC 6749 §3.1: no parameter stands twice, whatever another reader would make of that.
#[test]
fn an_answer_that_can_be_read_in_two_ways_is_none() {
    let trap = Trap::set("");
    let mut begun = trap.begin();
    let state = begun.value("state");
    for query in [
        String::new(),
        "code=abc".to_owned(),
        format!("state={state}"),
        format!("state={state}&code=a&code=b"),
        format!("state={state}&state={state}&code=a"),
        format!("state={state}&code=a&error=access_denied"),
        format!("state={state}&code=a&iss=a&iss=b"),
        format!("state={state}&code=%00"),
        format!("state={state}&id_token=a"),
    ] {
        refused(&begun.end(&query), 400, "login_response_invalid");
    }
    // None of them has used it up.
    let claims = trap.provider.claims(&begun.value("nonce"), &json!({}));
    trap.provider.issue(&claims, &json!({}));
    assert_eq!(begun.end(&format!("code=abc&state={state}")).status, 303);
    // Only a GET brings one.
    let post = Client::request(trap.gateway.public, "POST", "/callback").body("code=a").send();
    assert_eq!(post.status, 405);
}

/// A browser that begins again and again must not send ever longer fields.
#[test]
fn a_browser_keeps_the_cookies_of_few_log_ins() {
    let trap = Trap::set("");
    let mut browser = trap.browser();
    for _ in 0..30 {
        browser.begin("/login");
        let count = browser.shop.0.iter().filter(|(it, _)| it.starts_with("__Host-login-")).count();
        assert!(count <= 5, "{count}");
    }
}
