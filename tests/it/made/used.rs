//! A session as the credential: what it says are the claims, and each request goes by what the
//! store has of it now.

use serde_json::json;

use super::{Browser, House, config};
use crate::auth::code;
use crate::support::{Client, Gateway, TcpProxy, claims, operate, token};

#[test]
fn what_a_session_says_is_required_as_a_claim_is() {
    let house = House::start();
    let (user, admin) = (house.login("42", "user"), house.login("7", "admin"));
    assert_eq!(house.get("/admin", &admin).status, 200);
    let refused = house.refused("/admin", &user);
    assert_eq!(refused, (403, "claims_insufficient".to_owned()));
    let reply = Client::get(house.gateway.public, "/me").send();
    assert_eq!((reply.status, &*code(&reply)), (401, "session_missing"));
    let challenge = "Session realm=\"portcullis\"";
    assert_eq!(reply.header("www-authenticate"), Some(challenge));
    for value in ["", "x", &"a".repeat(43), &"a".repeat(5000)] {
        let nobody = Browser { value: value.to_owned() };
        assert_eq!(house.refused("/me", &nobody), (401, "session_missing".to_owned()), "{value}");
    }
}

#[test]
fn without_a_session_an_optional_route_has_an_anonymous_caller() {
    let house = House::start();
    let browser = house.login("42", "user");
    let user = |browser: &Browser| {
        house.upstream.forget();
        assert_eq!(house.get("/maybe", browser).status, 200);
        house.upstream.only().header("x-web-user").map(str::to_owned)
    };
    assert_eq!(user(&browser).as_deref(), Some("42"));
    assert_eq!(user(&Browser { value: "a".repeat(43) }), None);
    // Ended while this gateway remembers it.
    house.redis.cli(&["DEL", &house.key(&browser)]);
    assert_eq!(user(&browser), None);
}

#[test]
fn what_has_changed_counts_from_the_next_request_on() {
    let more = "[limits.each]\nkey = [\"claim:role\"]\nallow = [\"100/1h\"]\n\
                [routes.counted]\npath = \"/counted\"\nupstream = \"shop\"\nauth = \"web\"\n\
                require = { role = [\"admin\"] }\nlimits = [\"each\"]\n\
                [routes.told]\npath = \"/told\"\nupstream = \"shop\"\nauth = \"web\"\n\
                limits = [\"each\"]\n";
    let house = House::with("", more);
    let browser = house.login("42", "admin");
    assert_eq!(house.get("/counted", &browser).status, 200);
    let write = |role: &str| {
        let mut session = house.stored(&browser);
        session["role"] = role.into();
        let path = format!("/v1/sessions/{}?user=42", browser.id());
        assert_eq!(operate(&house.gateway, "PUT", &path, &session.to_string()).status, 200);
    };
    let role = || {
        house.upstream.forget();
        assert_eq!(house.get("/told", &browser).status, 200);
        house.upstream.only().header("x-web-role").map(str::to_owned)
    };
    assert_eq!(role().as_deref(), Some("admin"));
    write("user");
    assert_eq!(house.refused("/counted", &browser), (403, "claims_insufficient".to_owned()));
    write("admin");
    assert_eq!(house.get("/counted", &browser).status, 200);
    write("guest");
    assert_eq!(role().as_deref(), Some("guest"), "told at once");
    // What was taken for who he was is given back: one of these was the guest's.
    let left = |role: &str| {
        let path = format!("/v1/limits?policy=each&key=web/claim:role={role}");
        operate(&house.gateway, "GET", &path, "").text()
    };
    assert!(left("guest").contains("99"), "{}", left("guest"));
}

#[test]
fn one_round_trip_more_is_made_once() {
    let house = House::start();
    let proxy = TcpProxy::start(house.redis.address());
    let gateway = Gateway::start(&config(&proxy.url(), &house.upstream, "", ""));
    let browser = house.login("42", "user");
    // Longer than use would prolong it, however slow all this is.
    house.redis.cli(&["EXPIRE", &house.key(&browser), "7200"]);
    let ask = || {
        proxy.reset_count();
        assert_eq!(browser.ask(&gateway, "GET", "/me").send().status, 200);
        proxy.batches()
    };
    let (first, second) = (ask(), ask());
    assert_eq!((first, second), (2, 1));
}

#[test]
fn a_token_beside_the_cookie_says_who_calls() {
    let house = House::start();
    let browser = house.login("42", "user");
    let bearer = token(claims("7"));
    let user = |headers: &[(&str, &str)]| {
        house.upstream.forget();
        let request = Client::request(house.gateway.public, "POST", "/both");
        let reply = headers.iter().fold(request, |it, (name, value)| it.header(name, value)).send();
        if reply.status != 200 {
            return Err((reply.status, code(&reply)));
        }
        let seen = house.upstream.only();
        let of = |name: &str| seen.header(name).map(str::to_owned);
        Ok((of("x-user-id"), of("x-web-user")))
    };
    let authorization = format!("Bearer {bearer}");
    let (token, cookie) = (("Authorization", &*authorization), ("Cookie", &*browser.cookie()));
    let own = ("Sec-Fetch-Site", "same-origin");
    assert_eq!(user(&[token]), Ok((Some("7".to_owned()), None)));
    assert_eq!(user(&[cookie, own]), Ok((None, Some("42".to_owned()))));
    // Who adds a token by himself is no page of another site.
    let cross = ("Sec-Fetch-Site", "cross-site");
    assert_eq!(user(&[token, cookie, cross]), Ok((Some("7".to_owned()), None)));
    // A bad one is not made good by the cookie.
    let bad = ("Authorization", "Bearer x.y.z");
    assert_eq!(user(&[bad, cookie, own]), Err((401, "token_invalid".to_owned())));
    assert_eq!(user(&[]), Err((401, "token_missing".to_owned())));
}

#[test]
fn limits_partitions_and_owners_go_by_the_session() {
    let more = "[limits.mine]\nkey = [\"claim:sub\"]\nallow = [\"2/1h\"]\n\
                [limits.each]\nkey = [\"session\"]\nallow = [\"1/1h\"]\n\
                [routes.mine]\npath = \"/mine\"\nupstream = \"shop\"\nauth = \"web\"\n\
                limits = [\"mine\"]\n\
                [routes.each]\npath = \"/each\"\nupstream = \"shop\"\nauth = \"web\"\n\
                limits = [\"each\"]\n\
                [routes.cached]\npath = \"/cached\"\nupstream = \"shop\"\nauth = \"web\"\n\
                cache = { ttl = \"1h\", partition = [\"claim:sub\"] }\n";
    let house = House::with("", more);
    let (phone, laptop, other) =
        (house.login("42", "user"), house.login("42", "user"), house.login("7", "user"));
    let statuses = |path: &str, all: &[&Browser]| -> Vec<u16> {
        all.iter().map(|it| house.get(path, it).status).collect()
    };
    assert_eq!(statuses("/mine", &[&phone, &laptop, &phone, &other]), [200, 200, 429, 200]);
    assert_eq!(statuses("/each", &[&phone, &laptop, &phone, &laptop]), [200, 200, 429, 429]);
    house.upstream.forget();
    assert_eq!(statuses("/cached", &[&phone, &laptop, &other, &phone]), [200; 4]);
    assert_eq!(house.upstream.seen(), 2, "one answer for each user");
    let shared = config(
        &house.redis.url(),
        &house.upstream,
        "",
        "[routes.all]\npath = \"/all\"\nupstream = \"shop\"\nauth = \"web\"\n\
         cache = { ttl = \"1h\" }\n",
    );
    let refused = Gateway::try_start(&shared);
    assert!(refused.stderr.contains("routes.all.cache"), "{}", refused.stderr);
}

#[test]
fn a_session_is_attached_and_asserted_too() {
    let more = "header = \"x-session\"\nfields_to_headers = { x-role = \"role\" }\n";
    let routes = "[routes.required]\npath = \"/required\"\nupstream = \"shop\"\nauth = \"web\"\n\
                  session = \"required\"\n";
    let house = House::with(more, routes);
    let browser = house.login("42", "user");
    for path in ["/attached", "/required"] {
        house.upstream.forget();
        assert_eq!(house.get(path, &browser).status, 200);
        let seen = house.upstream.only();
        assert_eq!(seen.header("x-role"), Some("user"), "{path}");
        let whole = crate::sessions::attached(&seen).expect("a session");
        assert_eq!(whole["sub"], "42");
    }
    house.upstream.forget();
    assert_eq!(house.get("/me", &browser).status, 200);
    assert_eq!(house.upstream.only().header("x-session"), None, "this route does not attach it");
}

#[test]
fn a_reload_keeps_sessions_and_has_them_read_anew() {
    let house = House::start();
    let browser = house.login("42", "user");
    assert_eq!(house.get("/me", &browser).status, 200);
    let text = config(&house.redis.url(), &house.upstream, "", "");
    let text = text.replace("x-web-role = \"role\"", "x-web-kind = \"role\"");
    house.gateway.rewrite(&text);
    assert_eq!(operate(&house.gateway, "POST", "/v1/config/reload", "").status, 200);
    house.upstream.forget();
    assert_eq!(house.get("/me", &browser).status, 200);
    let seen = house.upstream.only();
    assert_eq!((seen.header("x-web-kind"), seen.header("x-web-role")), (Some("user"), None));
}

#[test]
fn explain_says_who_has_a_session_and_changes_nothing() {
    let house = House::start();
    let browser = house.login("42", "user");
    let ask = |path: &str, cookie: &str| {
        let question = json!({ "path": path, "headers": { "cookie": cookie } });
        operate(&house.gateway, "POST", "/v1/explain", &question.to_string()).json()
    };
    let told = ask("/me", &browser.cookie());
    assert_eq!(told["caller"]["subject"], "42", "{told}");
    assert_eq!(told["caller"]["verifier"], "web", "{told}");
    assert_eq!(told["outcome"]["passes"], true, "{told}");
    assert!(!told.to_string().contains(&browser.value));
    let told = ask("/me", "a=1");
    assert_eq!(told["outcome"]["code"], "session_missing", "{told}");
    let told = ask("/logout", &browser.cookie());
    assert_eq!(told["outcome"]["by"], "answers = \"logout\" of the route", "{told}");
    assert_eq!(house.get("/me", &browser).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_has_the_same_sessions() {
    use http::Request;
    let house = House::start();
    let mut client = crate::http2::connect(house.gateway.public).await;
    let request = Request::post("http://shop.test/login").body(()).expect("a request");
    let body = r#"{"user":{"id":"42"}}"#;
    let (head, ..) = crate::http2::exchange(&mut client, request, Some(body)).await.expect("it");
    let lines = head.headers().get_all("set-cookie").iter();
    let lines: Vec<&str> = lines.filter_map(|line| line.to_str().ok()).collect();
    let set = lines.iter().find(|it| it.starts_with("__Host-session=")).expect("a cookie");
    let pair = set.split(';').next().expect("a pair");
    house.upstream.forget();
    // One line for each cookie (RFC 9113 §8.2.3).
    let request = Request::get("http://shop.test/me");
    let request = request.header("cookie", "a=1").header("cookie", pair).header("cookie", "b=2");
    let request = request.body(()).expect("a request");
    let (head, ..) = crate::http2::exchange(&mut client, request, None).await.expect("an answer");
    assert_eq!(head.status(), 200);
    assert_eq!(house.upstream.only().headers_named("cookie").join("; "), "a=1; b=2");
}
