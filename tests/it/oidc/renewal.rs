//! What is renewed behind a session: the access token for the upstream, by a refresh token that
//! nobody sees, once for each.

use std::collections::BTreeSet;

use serde_json::json;

use super::hostile::{Hostile, Trap, json_of};
use super::{House, api, code, configuration, dump, folder, store_of};
use crate::support::{Client, Gateway, OidcProvider, Redis, Reply, Upstream, eventually, response};

const KEPT: &str = "refresh = true\nforward_access_token = \"x-access-token\"\n";

/// What a refresh answers, of this number.
fn issued(number: usize, life: u64) -> String {
    let tokens = json!({"access_token": format!("access-{number}"), "token_type": "Bearer",
                        "refresh_token": format!("refresh-{number}"), "expires_in": life});
    json_of("200 OK", &tokens)
}

impl Trap {
    fn with_tokens(&self, life: u64) -> super::Browser {
        let mut begun = self.begin();
        let claims = self.provider.claims(&begun.value("nonce"), &json!({}));
        let tokens = json!({"access_token": "access-0", "refresh_token": "refresh-0",
                            "expires_in": life});
        self.provider.issue(&claims, &tokens);
        let reply = begun.end(&format!("code=abc&state={}", begun.value("state")));
        assert_eq!(reply.status, 303, "{}", reply.text());
        begun.browser
    }
}

/// Against the real provider, whose refresh tokens are good for one use.
#[test]
fn an_access_token_is_renewed_before_it_ends_and_reaches_the_upstream_alone() {
    // Lives of two seconds, renewed after one.
    let house = House::with(&json!({"accessTokenSeconds": 2}), KEPT);
    let mut browser = house.browser();
    assert_eq!(browser.log_in(&house, "/login").status, 303);
    let mut seen = BTreeSet::new();
    eventually("three access tokens were used", || {
        let reply = Client::get(house.gateway.public, "/private/x")
            .header("Cookie", browser.shop.field())
            .header("X-Access-Token", "forged")
            .send();
        assert_eq!(reply.status, 200, "{}", reply.text());
        let fields = format!("{:?}", reply.headers);
        assert!(!fields.contains("x-access-token"), "{fields}");
        for recorded in house.upstream.recorded() {
            seen.insert(recorded.header("x-access-token").expect("a token").to_owned());
        }
        house.upstream.forget();
        seen.len() >= 3
    });
    assert!(!seen.contains("forged"), "{seen:?}");
    let all = format!("{}{}", dump(&house.redis), house.gateway.stderr());
    for token in &seen {
        assert!(!all.contains(token.as_str()), "a token lies in clear");
    }
}

/// RFC 9700 §4.14: two gateways, one session, many requests: each refresh token is used once.
#[test]
fn a_refresh_token_is_used_once_by_all_gateways_together() {
    let (redis, provider) = (Redis::start(), Hostile::start());
    let upstream = Upstream::replying(response("200 OK", "private"));
    let config = configuration(&store_of(&redis), &provider.issuer(), &upstream, KEPT);
    let config = config.replace("userinfo = true\n", "");
    let second = Gateway::start_in(folder(), &config);
    let first = Gateway::start_in(folder(), &config);
    let mut trap_browser = super::Browser {
        gateway: first.public,
        shop: crate::support::Jar::default(),
        provider: crate::support::Jar::default(),
    };
    let location = trap_browser.begin("/login");
    let mut begun = super::hostile::Begun { browser: trap_browser, location };
    let claims = provider.claims(&begun.value("nonce"), &json!({}));
    // Over at once: everybody needs another.
    provider.issue(&claims, &json!({"refresh_token": "refresh-0", "expires_in": 0}));
    let reply = begun.end(&format!("code=abc&state={}", begun.value("state")));
    assert_eq!(reply.status, 303, "{}", reply.text());
    provider.answer("/token", issued(1, 3600));
    let before = provider.asked("/token").len();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..40)
            .map(|number| {
                let gateway = if number % 2 == 0 { &first } else { &second };
                let jar = &begun.browser.shop;
                scope.spawn(move || api(gateway, "/private/x", jar).status)
            })
            .collect();
        all.into_iter().map(|it| it.join().expect("an answer")).collect()
    });
    assert!(statuses.iter().all(|it| *it == 200), "{statuses:?}");
    let asked = provider.asked("/token");
    assert_eq!(asked.len() - before, 1, "{asked:?}");
    assert!(asked.last().is_some_and(|it| it.ends_with("refresh_token=refresh-0")), "{asked:?}");
    for recorded in upstream.recorded() {
        assert_eq!(recorded.header("x-access-token"), Some("access-1"));
    }
}

/// The provider has taken the refresh token back, or somebody else has used it.
#[test]
fn a_session_ends_with_what_it_rests_on() {
    let trap = Trap::set(KEPT);
    let browser = trap.with_tokens(0);
    trap.provider.answer("/token", json_of("400 No", &json!({"error": "invalid_grant"})));
    let reply = api(&trap.gateway, "/private/x", &browser.shop);
    assert_eq!((reply.status, &*code(&reply)), (401, "session_missing"), "{}", reply.text());
    let asked = trap.provider.asked("/token").len();
    assert_eq!(api(&trap.gateway, "/me", &browser.shop).status, 401);
    assert_eq!(api(&trap.gateway, "/private/x", &browser.shop).status, 401);
    assert_eq!(trap.provider.asked("/token").len(), asked, "it is not asked again");
}

#[test]
fn while_the_provider_is_away_a_token_that_is_good_serves_and_one_that_is_over_does_not() {
    let trap = Trap::set(KEPT);
    let good = trap.with_tokens(3600);
    let over = trap.with_tokens(0);
    trap.provider.answer("/token", response("503 Away", ""));
    assert_eq!(api(&trap.gateway, "/private/x", &good.shop).status, 200);
    let reply: Reply = api(&trap.gateway, "/private/x", &over.shop);
    assert_eq!((reply.status, &*code(&reply)), (502, "provider_answer_invalid"));
    // The session is there, and goes on when the provider is back.
    assert_eq!(api(&trap.gateway, "/me", &over.shop).status, 200);
    trap.provider.answer("/token", issued(1, 3600));
    assert_eq!(api(&trap.gateway, "/private/x", &over.shop).status, 200);
}

/// Where no upstream is told of it, the session is good for what it says itself.
#[test]
fn a_session_whose_token_goes_nowhere_outlives_an_outage_of_the_provider() {
    let trap = Trap::set("refresh = true\n");
    let browser = trap.with_tokens(0);
    trap.provider.answer("/token", response("503 Away", ""));
    assert_eq!(api(&trap.gateway, "/private/x", &browser.shop).status, 200);
}

/// OpenID Connect Core 1.0 §12.2: what is renewed is of the same user.
#[test]
fn renewed_tokens_of_another_user_are_not_taken() {
    let trap = Trap::set(KEPT);
    let browser = trap.with_tokens(0);
    let claims = trap.provider.claims("none", &json!({"sub": "eve"}));
    trap.provider.issue(&claims, &json!({"refresh_token": "r", "expires_in": 3600}));
    let reply = api(&trap.gateway, "/private/x", &browser.shop);
    assert_eq!((reply.status, &*code(&reply)), (502, "provider_answer_invalid"));
}

/// Where a browser goes that logs out, with these settings of the provider.
fn sent_to_log_out(more: &str) -> (String, String) {
    let (redis, provider) = (Redis::start(), OidcProvider::start(&json!({})));
    let upstream = Upstream::replying(response("200 OK", "private"));
    let config = configuration(&store_of(&redis), &provider.issuer(), &upstream, more)
        .replace("answers = \"logout\"", "answers = \"logout\"\nprovider_logout = true");
    let gateway = Gateway::start_in(folder(), &config);
    let house = House { redis, provider, gateway, upstream };
    house.register(&json!({}));
    let mut browser = house.browser();
    browser.log_in(&house, "/login");
    let out = Client::request(house.gateway.public, "POST", "/logout")
        .header("Cookie", browser.shop.field())
        .header("Sec-Fetch-Site", "same-origin")
        .send();
    assert_eq!(out.status, 303, "{}", out.text());
    let location = out.header("location").expect("a location");
    assert_eq!(api(&house.gateway, "/private/x", &browser.shop).status, 401);
    (location.to_owned(), house.provider.issuer())
}

/// A log-out at the gateway goes on at the provider. A token goes with the browser where that is
/// wanted alone.
#[test]
fn a_log_out_goes_on_at_the_provider() {
    let expected = |issuer: &str| {
        let back = "https%3A%2F%2Fshop.test%2F";
        format!("{issuer}/session/end?client_id=shop&post_logout_redirect_uri={back}")
    };
    let (location, issuer) = sent_to_log_out("");
    assert_eq!(location, expected(&issuer));
    let (location, issuer) = sent_to_log_out("id_token_hint = true");
    let hint = location.strip_prefix(&expected(&issuer));
    assert!(hint.is_some_and(|it| it.starts_with("&id_token_hint=eyJ")), "{location}");
}
