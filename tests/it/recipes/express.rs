//! docs/recipes/express.md: the application logs in and writes a session.

use std::io::Write as _;
use std::sync::Arc;

use crate::recipes::{configuration, outcome};
use crate::support::{Client, Gateway, Recorded, Redis, Reply, Upstream, operate, response};

/// Does to Redis what the application's lines do.
fn app(redis: Arc<Redis>) -> Upstream {
    Upstream::with(move |request: &Recorded, connection| {
        let answer = match request.request_line() {
            "POST /login HTTP/1.1" if request.text() == "wrong" => response("403 Forbidden", ""),
            "POST /login HTTP/1.1" => {
                let now = redis.cli(&["TIME"]).lines().next().unwrap().to_owned();
                let session = format!(r#"{{"userId":"42","role":"admin","created_at":{now}}}"#);
                redis.cli(&["ZADD", "app:sessions-of:42", &now, "s-1"]);
                redis.cli(&["SET", "app:session:s-1", &session, "EX", "1800"]);
                let cookie = "Set-Cookie: sid=s-1; Path=/; HttpOnly; Secure; SameSite=Lax";
                response(&format!("204 No Content\r\n{cookie}"), "")
            }
            "POST /logout HTTP/1.1" => {
                // As the application's expression finds it.
                let sid = request.header("cookie").unwrap().strip_prefix("sid=").unwrap();
                redis.cli(&["DEL", &format!("app:session:{sid}")]);
                response("204 No Content", "")
            }
            _ => response("200 OK", request.header("x-user-id").unwrap_or("nobody")),
        };
        let _ = connection.write_all(answer.as_bytes());
    })
}

fn post(gateway: &Gateway, path: &str, body: &str) -> Reply {
    let request = Client::request(gateway.public, "POST", path).header("Cookie", "sid=s-1");
    request.header("Content-Type", "application/json").body(body).send()
}

fn account(gateway: &Gateway, sid: &str) -> Reply {
    let request = Client::get(gateway.public, "/account").header("Cookie", format!("sid={sid}"));
    request.header("X-User-Id", "1").header("X-User-Role", "admin").send()
}

#[test]
fn what_is_logged_in_passes_and_is_known() {
    let redis = Arc::new(Redis::start());
    let app = app(Arc::clone(&redis));
    let store = format!("url = \"{}\"\ntimeout = \"5s\"", redis.url());
    let own =
        [("http://127.0.0.1:3000", &*app.url()), ("url = \"redis://127.0.0.1:6379\"", &store)];
    let gateway = Gateway::start(&configuration("express.md", &own));
    assert_eq!(outcome(&account(&gateway, "s-1")), (401, "session_missing".to_owned()));
    let login = post(&gateway, "/login", "{}");
    assert_eq!(login.status, 204);
    assert!(login.header("set-cookie").unwrap().starts_with("sid=s-1"));
    let passed = account(&gateway, "s-1");
    assert_eq!((passed.status, passed.text()), (200, "42".to_owned()), "no client's own field");
    assert_eq!(app.recorded().last().unwrap().header("x-user-role"), Some("admin"));
    assert_eq!(outcome(&account(&gateway, "s-2")), (401, "session_missing".to_owned()));

    assert_eq!(post(&gateway, "/logout", "").status, 204);
    assert_eq!(outcome(&account(&gateway, "s-1")), (401, "session_missing".to_owned()));

    assert_eq!(post(&gateway, "/login", "{}").status, 204);
    assert_eq!(account(&gateway, "s-1").status, 200);
    let ended = operate(&gateway, "POST", "/v1/revocations", r#"{"sub": "42"}"#);
    assert_eq!((ended.status, &ended.json()["sessions_ended"]), (201, &serde_json::json!(1)));
    assert_eq!(outcome(&account(&gateway, "s-1")), (401, "session_missing".to_owned()));

    // Two attempts are made; three more are left, also for who knows the password.
    for body in ["wrong", "wrong", "wrong"] {
        assert_eq!(post(&gateway, "/login", body).status, 403);
    }
    assert_eq!(outcome(&post(&gateway, "/login", "{}")), (429, "limit_exceeded".to_owned()));
}
