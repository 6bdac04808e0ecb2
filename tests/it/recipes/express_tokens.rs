//! docs/recipes/express-tokens.md: the application signs tokens, and reads who calls.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::recipes::{blocks, configuration, outcome};
use crate::support::{
    Client, Gateway, Recorded, Redis, Reply, SECRET, Upstream, claims, operate, response,
    token as signed,
};

/// What `jsonwebtoken` signs for the page's lines; null takes a claim out.
fn token(changes: &[(&str, Value)]) -> String {
    let mut claims = claims("42");
    claims["iss"] = json!("https://shop.example");
    claims["role"] = json!("admin");
    for (name, value) in changes {
        claims[*name] = value.clone();
    }
    if let Value::Object(claims) = &mut claims {
        claims.retain(|_, value| !value.is_null());
    }
    signed(claims)
}

struct House {
    gateway: Gateway,
    app: Upstream,
    _redis: Redis,
}

impl House {
    /// The page's configuration, with one more line of it in force.
    fn start(option: &str) -> Self {
        let redis = Redis::start();
        let app = Upstream::with(|request: &Recorded, connection| {
            let user = request.header("x-user-id").unwrap_or("nobody");
            let _ = connection.write_all(response("200 OK", user).as_bytes());
        });
        let store = format!("url = \"{}\"\ntimeout = \"5s\"", redis.url());
        let (off, on) = (format!("# {option}"), option.to_owned());
        let mut own = vec![
            ("http://127.0.0.1:3000", app.url()),
            ("url = \"redis://127.0.0.1:6379\"", store),
            ("env:JWT_SECRET", SECRET.to_owned()),
        ];
        if !option.is_empty() {
            own.push((&off, on));
        }
        let own: Vec<(&str, &str)> = own.iter().map(|(it, by)| (*it, by.as_str())).collect();
        let gateway = Gateway::start(&configuration("express-tokens.md", &own));
        Self { gateway, app, _redis: redis }
    }

    fn ask(&self, name: &str, value: String) -> Reply {
        let request = Client::get(self.gateway.public, "/account").header(name, value);
        request.header("X-User-Id", "1").send()
    }
}

#[test]
fn who_has_a_token_passes_and_the_application_reads_who_it_is() {
    let house = House::start("");
    let bearer = |changes: &[(&str, Value)]| {
        house.ask("Authorization", format!("Bearer {}", token(changes)))
    };
    let login = Client::request(house.gateway.public, "POST", "/login").body("{}").send();
    assert_eq!(login.status, 200);
    let nobody = Client::get(house.gateway.public, "/account").send();
    assert_eq!(outcome(&nobody), (401, "token_missing".to_owned()));
    let passed = bearer(&[]);
    assert_eq!((passed.status, passed.text()), (200, "42".to_owned()), "no client's own field");
    let seen = house.app.recorded();
    let last = seen.last().expect("a request");
    assert_eq!((last.header("x-user-role"), last.header("authorization")), (Some("admin"), None));
    assert_eq!(outcome(&bearer(&[("sub", json!(42))])), (401, "token_invalid".to_owned()));
    let endless = bearer(&[("exp", Value::Null)]);
    assert_eq!(outcome(&endless), (401, "token_invalid".to_owned()));
    let cookie = house.ask("Cookie", format!("token={}", token(&[])));
    assert_eq!(outcome(&cookie), (401, "token_missing".to_owned()));
    // Whoever waits until the second is over has a token that is good.
    let told = operate(&house.gateway, "POST", "/v1/revocations", r#"{"sub": "42"}"#).json();
    assert_eq!(outcome(&bearer(&[])), (401, "token_revoked".to_owned()));
    let at = told["not_before"].as_i64().expect("not_before");
    assert_eq!(bearer(&[("iat", json!(at))]).status, 200);
    let before = bearer(&[("iat", json!(at - 1))]);
    assert_eq!(outcome(&before), (401, "token_revoked".to_owned()));
}

#[test]
fn the_options_of_the_page_do_what_it_says() {
    let page = blocks("express-tokens.md");
    assert!(page[0].contains("# from = [\"cookie:token\"]"), "{}", page[0]);
    let house = House::start("from = [\"cookie:token\"]");
    assert_eq!(house.ask("Cookie", format!("token={}", token(&[]))).status, 200);
    let header = house.ask("Authorization", format!("Bearer {}", token(&[])));
    assert_eq!(outcome(&header), (401, "token_missing".to_owned()));
    let house = House::start("forward_token = true");
    let bearer = format!("Bearer {}", token(&[]));
    assert_eq!(house.ask("Authorization", bearer.clone()).status, 200);
    let seen = house.app.recorded();
    assert_eq!(seen.last().expect("a request").header("authorization"), Some(&*bearer));
}
