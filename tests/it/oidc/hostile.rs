//! A provider that says whatever a test wants, and tells what it was asked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Browser, configuration, folder};
use crate::support::{Gateway, Jar, PATIENCE, Reply, Signer, Upstream, jwk_set, response};

/// See the module; it ends with the test.
pub(super) struct Hostile {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    /// The key that it publishes.
    pub(super) key: Signer,
}

#[derive(Default)]
struct Shared {
    /// Answers by path, whole responses.
    answers: Mutex<Vec<(String, String)>>,
    asked: Mutex<Vec<String>>,
    ended: AtomicBool,
}

impl Hostile {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (shared, key) = (Arc::<Shared>::default(), Signer::new("k-1"));
        let hostile = Self { address, shared: Arc::clone(&shared), key };
        hostile.say_of_itself(&json!({}));
        hostile.answer("/jwks", jwk_set(&[&hostile.key.jwk]));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.ended.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.exchange(stream));
            }
        });
        hostile
    }

    pub(super) fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Publishes its document, with these members changed; null removes one.
    pub(super) fn say_of_itself(&self, changes: &Value) {
        let origin = self.issuer();
        let document = merged(
            json!({
                "issuer": origin,
                "authorization_endpoint": format!("{origin}/auth"),
                "token_endpoint": format!("{origin}/token"),
                "userinfo_endpoint": format!("{origin}/me"),
                "jwks_uri": format!("{origin}/jwks"),
            }),
            changes,
        );
        self.answer("/.well-known/openid-configuration", json_of("200 OK", &document));
    }

    /// Answers who asks for this path with these bytes.
    pub(super) fn answer(&self, path: &str, answer: String) {
        let mut answers = self.shared.answers.lock().unwrap();
        answers.retain(|(known, _)| known != path);
        answers.push((path.to_owned(), answer));
    }

    /// Issues an `id_token` with these members changed, and tokens beside it.
    pub(super) fn issue(&self, claims: &Value, tokens: &Value) {
        let id_token = self.key.token(claims);
        let issued = json!({"access_token": "access", "token_type": "Bearer", "id_token": id_token,
                            "expires_in": 3600});
        self.answer("/token", json_of("200 OK", &merged(issued, tokens)));
    }

    /// What a good token says in answer to this log-in.
    pub(super) fn claims(&self, nonce: &str, changes: &Value) -> Value {
        let now = now();
        let good = json!({"iss": self.issuer(), "aud": "shop", "sub": "ada", "nonce": nonce,
                          "iat": now, "exp": now + 300});
        merged(good, changes)
    }

    /// What it was asked, as it came.
    pub(super) fn asked(&self, path: &str) -> Vec<String> {
        let asked = self.shared.asked.lock().unwrap();
        let begin = format!(" {path} ");
        asked
            .iter()
            .filter(|it| it.lines().next().unwrap_or("").contains(&begin))
            .cloned()
            .collect()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn exchange(&self, mut stream: TcpStream) {
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let (mut asked, mut some) = (Vec::new(), [0; 4096]);
        let whole = |asked: &[u8]| {
            let text = String::from_utf8_lossy(asked).to_ascii_lowercase();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
            let length = head.lines().find_map(|it| it.strip_prefix("content-length: "));
            body.len() >= length.and_then(|it| it.parse().ok()).unwrap_or(0)
        };
        while !whole(&asked) {
            match stream.read(&mut some) {
                Ok(count) if count > 0 => asked.extend_from_slice(&some[..count]),
                _ => return,
            }
        }
        let asked = String::from_utf8_lossy(&asked).into_owned();
        let path = asked.split(' ').nth(1).unwrap_or_default().to_owned();
        self.asked.lock().unwrap().push(asked);
        let known = self.answers.lock().unwrap().iter().find(|(it, _)| *it == path).cloned();
        let answer = known.map_or_else(|| response("404 Not Found", ""), |(_, answer)| answer);
        let _ = stream.write_all(answer.as_bytes());
        let _ = stream.flush();
    }
}

pub(super) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(now.as_secs()).expect("a time")
}

/// An object with some members replaced; null removes one.
pub(super) fn merged(mut object: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().expect("changes") {
        match value {
            Value::Null => drop(object.as_object_mut().expect("an object").remove(name)),
            value => object[name] = value.clone(),
        }
    }
    object
}

/// Both changes, of which the second counts where they differ; null stays.
pub(super) fn both(one: &Value, other: &Value) -> Value {
    let mut all = one.clone();
    for (name, value) in other.as_object().expect("changes") {
        all[name] = value.clone();
    }
    all
}

/// A response with a JSON body.
pub(super) fn json_of(status: &str, body: &Value) -> String {
    response(&format!("{status}\r\nContent-Type: application/json"), &body.to_string())
}

/// A gateway whose provider is hostile.
pub(super) struct Trap {
    pub(super) provider: Hostile,
    pub(super) gateway: Gateway,
    _upstream: Upstream,
}

impl Trap {
    /// `more` stands in `[providers.id]`, in place of `userinfo` where it has that.
    pub(super) fn set(more: &str) -> Self {
        let provider = Hostile::start();
        Self::around(provider, more)
    }

    /// The same around a provider that has said something already.
    pub(super) fn around(provider: Hostile, more: &str) -> Self {
        let upstream = Upstream::replying(response("200 OK", "private"));
        let config = configuration("", &provider.issuer(), &upstream, more);
        let config = match more.contains("userinfo") {
            true => config.replace("userinfo = true\nuserinfo", "userinfo"),
            false => config.replace("userinfo = true\n", ""),
        };
        let gateway = Gateway::start_in(folder(), &config);
        Self { provider, gateway, _upstream: upstream }
    }

    pub(super) fn browser(&self) -> Browser {
        Browser { gateway: self.gateway.public, shop: Jar::default(), provider: Jar::default() }
    }

    /// Begins a log-in, and has what it was begun with.
    pub(super) fn begin(&self) -> Begun {
        let mut browser = self.browser();
        let location = browser.begin("/login");
        Begun { browser, location }
    }

    /// A whole log-in in which the provider says these things in place of what is right.
    pub(super) fn log_in(&self, claims: &Value, tokens: &Value) -> Reply {
        let mut begun = self.begin();
        let claims = self.provider.claims(&begun.value("nonce"), claims);
        self.provider.issue(&claims, tokens);
        begun.end(&format!("code=abc&state={}", begun.value("state")))
    }
}

/// A log-in that was begun.
pub(super) struct Begun {
    pub(super) browser: Browser,
    pub(super) location: String,
}

impl Begun {
    /// A parameter of the authorization request.
    pub(super) fn value(&self, name: &str) -> String {
        let mut pairs = self.location.split(['?', '&']);
        let pair = pairs.find_map(|it| it.strip_prefix(&format!("{name}=")));
        pair.unwrap_or_else(|| panic!("{name} in {}", self.location)).to_owned()
    }

    /// What comes of this query at the callback.
    pub(super) fn end(&mut self, query: &str) -> Reply {
        self.browser.get(&format!("/callback?{query}"))
    }
}
