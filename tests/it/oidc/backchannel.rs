//! Sessions that end because the provider says so, by a token that only it can make.

use serde_json::{Value, json};

use super::hostile::{Trap, both, merged, now};
use super::{Browser, House, api, code};
use crate::support::{Client, Gateway, Reply, eventually, operate};

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

fn status(gateway: &Gateway, browser: &Browser) -> u16 {
    api(gateway, "/private/x", &browser.shop).status
}

fn tell(gateway: &Gateway, token: &str) -> Reply {
    let reply = Client::request(gateway.public, "POST", "/ended")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(format!("logout_token={token}"))
        .send();
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{reply:?}");
    reply
}

fn disbelieved(reply: &Reply) {
    assert_eq!((reply.status, &*code(reply)), (400, "logout_token_invalid"), "{}", reply.text());
    assert_eq!(reply.json()["error"], "invalid_request");
}

impl Trap {
    /// Somebody who has logged in, in this session at the provider.
    fn logged_in(&self, sub: &str, sid: &str) -> Browser {
        let mut begun = self.begin();
        let changes = json!({"sub": sub, "sid": sid});
        let claims = self.provider.claims(&begun.value("nonce"), &changes);
        self.provider.issue(&claims, &json!({}));
        let reply = begun.end(&format!("code=abc&state={}", begun.value("state")));
        assert_eq!(reply.status, 303, "{}", reply.text());
        begun.browser
    }

    fn logout_token(&self, jti: &str, changes: &Value) -> String {
        let claims = json!({"iss": self.provider.issuer(), "aud": "shop", "iat": now(),
                            "exp": now() + 120, "jti": jti, "events": { EVENT: {} }});
        self.provider.key.token(&merged(claims, changes))
    }
}

/// The real provider logs its user out, and tells the gateway of it.
#[test]
fn a_log_out_at_the_provider_ends_the_session_here() {
    let house = House::open();
    let (mut browser, mut other) = (house.browser(), house.browser());
    browser.log_in(&house, "/login");
    other.log_in(&house, "/login");
    let path = "/session/end?client_id=shop";
    let host = house.provider.address.to_string();
    let ask = |method: &str, path: &str, body: &str| {
        Client::request(house.provider.address, method, path)
            .header("Host", &host)
            .header("Cookie", browser.provider.field())
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(body)
            .send()
    };
    let page = ask("GET", path, "").text();
    let xsrf = page.split("name=\"xsrf\" value=\"").nth(1).and_then(|it| it.split('"').next());
    let form = format!("xsrf={}&logout=yes", xsrf.unwrap_or_else(|| panic!("{page}")));
    assert_eq!(status(&house.gateway, &browser), 200);
    let confirmed = ask("POST", "/session/end/confirm", &form);
    assert!(confirmed.status < 400, "{} {}", confirmed.status, confirmed.text());
    eventually("the session has ended", || status(&house.gateway, &browser) == 401);
    assert_eq!(status(&house.gateway, &other), 200, "another session of the same user");
}

#[test]
fn a_session_at_the_provider_ends_what_came_from_it_and_a_user_all_of_his() {
    let trap = Trap::set("");
    let gateway = &trap.gateway;
    let [one, two, three] = ["s-1", "s-1", "s-2"].map(|sid| trap.logged_in("ada", sid));
    let bob = trap.logged_in("bob", "s-3");
    assert_eq!(tell(gateway, &trap.logout_token("j-1", &json!({"sid": "s-1"}))).status, 200);
    let statuses = [&one, &two, &three, &bob].map(|it| status(gateway, it));
    assert_eq!(statuses, [401, 401, 200, 200]);
    assert_eq!(tell(gateway, &trap.logout_token("j-2", &json!({"sub": "ada"}))).status, 200);
    assert_eq!([&three, &bob].map(|it| status(gateway, it)), [401, 200]);
    let told = operate(gateway, "GET", "/v1/operations", "").json();
    let told = told["operations"].as_array().expect("operations").clone();
    let named =
        |sessions: &str, of: &str| json!({"provider": "id", "of": of, "sessions": sessions});
    let objects: Vec<&Value> = told.iter().map(|it| &it["object"]).collect();
    assert_eq!(objects, [&named("1", "user"), &named("2", "session")], "{told:?}");
    let line = "operation=\"end sessions: provider log-out\"";
    eventually("the audit has a line of each", || gateway.stderr().matches(line).count() == 2);
    // Nobody's: the provider need not know what is here.
    for changes in [json!({"sid": "s-9"}), json!({"sub": "eve"}), json!({"sub": "a\u{1F511} b"})] {
        let token = trap.logout_token(&format!("j-{changes}"), &changes);
        assert_eq!(tell(gateway, &token).status, 200, "{changes}");
    }
    assert_eq!(status(gateway, &bob), 200);
}

#[test]
fn a_logout_token_that_is_not_the_providers_ends_nothing() {
    let trap = Trap::set("");
    let gateway = &trap.gateway;
    let ada = trap.logged_in("ada", "s-1");
    let sid = json!({"sid": "s-1"});
    for changes in [
        json!({"iss": "https://evil.test"}),
        json!({"aud": "other"}),
        json!({"exp": now() - 60}),
        json!({"exp": null}),
        json!({"iat": null}),
        json!({"iat": now() + 600}),
        json!({"jti": null}),
        json!({"nonce": "n"}),
        json!({"events": {}}),
        json!({"events": null}),
        json!({"events": { EVENT: 1 }}),
        json!({"sid": null}),
        json!({"sid": 7}),
        json!({"sub": ""}),
    ] {
        let changes = both(&sid, &changes);
        disbelieved(&tell(gateway, &trap.logout_token("j", &changes)));
    }
    let forged = crate::support::Signer::new("k-1");
    let claims = json!({"iss": trap.provider.issuer(), "aud": "shop", "iat": now(), "jti": "j",
                        "exp": now() + 120, "events": { EVENT: {} }, "sid": "s-1"});
    disbelieved(&tell(gateway, &forged.token(&claims)));
    // An id_token is none, though it is signed and for the same client.
    disbelieved(&tell(gateway, &trap.provider.key.token(&trap.provider.claims("n", &sid))));
    for body in ["", "logout_token=", "logout_token=a&logout_token=b", "token=a"] {
        let reply = Client::request(gateway.public, "POST", "/ended")
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(body)
            .send();
        disbelieved(&reply);
    }
    let as_json = Client::request(gateway.public, "POST", "/ended")
        .header("Content-Type", "application/json")
        .body(json!({ "logout_token": trap.logout_token("j", &sid) }).to_string())
        .send();
    disbelieved(&as_json);
    assert_eq!(Client::get(gateway.public, "/ended").send().status, 405);
    assert_eq!(status(gateway, &ada), 200);
}

#[test]
fn a_logout_token_counts_once() {
    let trap = Trap::set("");
    let before = trap.logged_in("ada", "s-1");
    let token = trap.logout_token("j-1", &json!({"sub": "ada", "iat": now() - 5}));
    assert_eq!(tell(&trap.gateway, &token).status, 200);
    assert_eq!(status(&trap.gateway, &before), 401);
    // Whoever has read it logs nobody out who has logged in since.
    let after = trap.logged_in("ada", "s-2");
    disbelieved(&tell(&trap.gateway, &token));
    assert_eq!(status(&trap.gateway, &after), 200);
}

/// The user is logged out at the provider while his browser comes back from there.
#[test]
fn a_log_in_that_was_on_its_way_ends_with_the_session_at_the_provider() {
    let trap = Trap::set("");
    for told in [json!({"sid": "s-1"}), json!({"sub": "ada"})] {
        let mut begun = trap.begin();
        let changes = json!({"sid": "s-1"});
        let claims = trap.provider.claims(&begun.value("nonce"), &changes);
        trap.provider.issue(&claims, &json!({}));
        let token = trap.logout_token(&told.to_string(), &told);
        assert_eq!(tell(&trap.gateway, &token).status, 200);
        let reply = begun.end(&format!("code=abc&state={}", begun.value("state")));
        super::refused(&reply, 403, "login_refused");
    }
}
