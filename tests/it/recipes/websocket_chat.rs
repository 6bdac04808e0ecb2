//! docs/recipes/websocket-chat.md: who may open one, what bounds it, what ends it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::recipes::{configuration, issuer, outcome, token};
use crate::support::websocket::{TEXT, WebSocket, handshake, upstream};
use crate::support::{Client, Gateway, Signer, eventually, operate, raw};

/// What every WebSocket of the chat is told, from its last one on.
type Said = Arc<Mutex<Vec<String>>>;

#[test]
fn a_chat_is_for_users_and_for_pages_of_the_site() {
    let (key, open) = (Signer::new("a"), Arc::new(AtomicUsize::new(0)));
    let (said, places) = (Said::default(), Arc::clone(&open));
    let heard = Arc::clone(&said);
    // As the application's lines do, without the others.
    let (chat, _handshakes) = upstream(move |mut socket| {
        let user = socket.header("x-user-id").unwrap_or("nobody").to_owned();
        places.fetch_add(1, Ordering::SeqCst);
        while let Ok(Some(frame)) = socket.try_next() {
            if frame.first != TEXT {
                break;
            }
            let line = format!("{user}: {}", String::from_utf8_lossy(&frame.payload));
            heard.lock().unwrap().push(line.clone());
            socket.send(TEXT, line);
        }
        places.fetch_sub(1, Ordering::SeqCst);
    });
    let issuer = issuer(&key);
    let own =
        [("https://login.shop.example", &*issuer.origin()), ("http://127.0.0.1:3000", &chat.url())];
    let gateway = Gateway::start(&configuration("websocket-chat.md", &own));
    let cookie = |sub: &str| {
        let token = token(&key, &issuer.origin(), "shop", sub, json!({}));
        format!("Cookie: access_token={token}\r\n")
    };
    let here = |sub: &str| cookie(sub) + "Origin: https://shop.example\r\n";
    let mut socket = WebSocket::open(gateway.public, "/chat", &here("42"));
    socket.send(TEXT, "hello");
    socket.expect(TEXT, "42: hello");

    let refused = |fields: &str| raw(gateway.public, handshake("/chat", fields));
    assert!(refused("Origin: https://shop.example\r\n").starts_with("HTTP/1.1 401"));
    let elsewhere = refused(&(cookie("42") + "Origin: https://evil.example\r\n"));
    assert!(elsewhere.contains("403 ") && elsewhere.contains("origin_refused"), "{elsewhere}");
    // Three places for each user.
    let more = [here("42"), here("42")].map(|it| WebSocket::open(gateway.public, "/chat", &it));
    let fourth = refused(&here("42"));
    assert!(fourth.starts_with("HTTP/1.1 429"), "{fourth}");
    let mut other = WebSocket::open(gateway.public, "/chat", &here("7"));
    drop(more);

    // One message too large; and the end of all of a user, with a reason, at the other ones.
    other.send(TEXT, "x".repeat(9 << 10));
    assert_eq!(other.closed().0, 1009);
    let revoked = operate(&gateway, "POST", "/v1/revocations", r#"{"sub": "42"}"#);
    assert_eq!(revoked.status, 201, "{}", revoked.text());
    assert_eq!(socket.closed(), (1008, "token revoked".to_owned()));
    eventually("the chat has seen all of them end", || open.load(Ordering::SeqCst) == 0);
    assert_eq!(*said.lock().unwrap(), ["42: hello"]);

    let plain = Client::get(gateway.public, "/chat").send();
    assert_eq!(outcome(&plain), (401, "token_missing".to_owned()));
}
