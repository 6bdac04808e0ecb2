//! docs/recipes/nestjs.md: the application logs in, and is told the whole session.

use std::io::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::recipes::{configuration, outcome};
use crate::support::{Client, Gateway, Recorded, Redis, Reply, Upstream, operate, response};

/// What the gateway says of the session, as the page reads it.
fn told(request: &Recorded) -> Option<Value> {
    let told = request.header("x-session")?;
    let decoded = URL_SAFE_NO_PAD.decode(told).expect("base64url");
    Some(serde_json::from_slice(&decoded).expect("JSON"))
}

/// Does to Redis what the application's lines do.
fn app(redis: Arc<Redis>) -> Upstream {
    Upstream::with(move |request: &Recorded, connection| {
        let answer = match request.request_line() {
            "POST /login HTTP/1.1" => {
                let now = redis.cli(&["TIME"]).lines().next().unwrap().to_owned();
                let session = format!(r#"{{"userId":42,"role":"admin","created_at":{now}}}"#);
                redis.cli(&["ZADD", "app:sessions-of:42", &now, "s-1"]);
                redis.cli(&["SET", "app:session:s-1", &session, "EX", "1800"]);
                let cookie = "Set-Cookie: sid=s-1; Path=/; HttpOnly; Secure; SameSite=Lax";
                response(&format!("204 No Content\r\n{cookie}"), "")
            }
            "POST /logout HTTP/1.1" => {
                let sid = request.header("cookie").unwrap().strip_prefix("sid=").unwrap();
                redis.cli(&["DEL", &format!("app:session:{sid}")]);
                response("204 No Content", "")
            }
            "GET /admin HTTP/1.1" => match told(request) {
                Some(session) if session["role"] == "admin" => response("200 OK", "admin"),
                _ => response("403 Forbidden", ""),
            },
            _ => response("200 OK", ""),
        };
        let _ = connection.write_all(answer.as_bytes());
    })
}

fn get(gateway: &Gateway, path: &str) -> Reply {
    let request = Client::get(gateway.public, path).header("Cookie", "sid=s-1");
    // {"userId":1}, which a client says of itself.
    request.header("X-Session", "eyJ1c2VySWQiOjF9").send()
}

fn post(gateway: &Gateway, path: &str) -> Reply {
    let request = Client::request(gateway.public, "POST", path).header("Cookie", "sid=s-1");
    request.header("Content-Type", "application/json").body("{}").send()
}

#[test]
fn the_application_is_told_the_whole_session() {
    let redis = Arc::new(Redis::start());
    let app = app(Arc::clone(&redis));
    let store = format!("url = \"{}\"\ntimeout = \"5s\"", redis.url());
    let own =
        [("http://127.0.0.1:3000", &*app.url()), ("url = \"redis://127.0.0.1:6379\"", &store)];
    let gateway = Gateway::start(&configuration("nestjs.md", &own));
    let missing = (401, "session_missing".to_owned());
    assert_eq!(outcome(&get(&gateway, "/account")), missing);
    assert_eq!(post(&gateway, "/login").status, 204);
    assert_eq!(get(&gateway, "/account").status, 200);
    let session = app.recorded().last().and_then(told).expect("a session");
    assert_eq!((&session["userId"], &session["role"]), (&json!(42), &json!("admin")));
    assert_eq!(get(&gateway, "/admin").status, 200);

    assert_eq!(post(&gateway, "/logout").status, 204);
    assert_eq!(outcome(&get(&gateway, "/account")), missing);
    assert_eq!(post(&gateway, "/login").status, 204);
    assert_eq!(get(&gateway, "/account").status, 200);
    let ended = operate(&gateway, "POST", "/v1/revocations", r#"{"sub": "42"}"#);
    assert_eq!((ended.status, &ended.json()["sessions_ended"]), (201, &json!(1)));
    assert_eq!(outcome(&get(&gateway, "/account")), missing);

    // Two attempts were made.
    for status in [204, 204, 204, 429] {
        assert_eq!(post(&gateway, "/login").status, status);
    }
}
