//! Tokens that are bound to a key (RFC 9449): proofs that are none, that were made for something
//! else, and that come twice.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{code, line_with_cause, upstream, with};
use crate::support::{
    AUTH, Client, Gateway, Redis, Reply, TcpProxy, Upstream, eventually, operate, token,
};

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A client's key, for ES256.
struct Key(EcdsaKeyPair);

impl Key {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y)})
    }

    /// RFC 7638 §3, spelled out.
    fn thumbprint(&self) -> String {
        let jwk = self.jwk();
        let text = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"]);
        b64(digest(&SHA256, text.as_bytes()))
    }

    fn header(&self) -> Value {
        json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk()})
    }

    /// A proof with exactly these parts.
    fn sign(&self, header: &Value, claims: &Value) -> String {
        let input = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let signature = self.0.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", b64(signature))
    }

    fn proof(&self, token: &str, path: &str) -> String {
        self.sign(&self.header(), &good(token, path))
    }

    /// A token that is bound to it.
    fn token(&self) -> String {
        token(with(json!({ "cnf": { "jkt": self.thumbprint() } })))
    }
}

/// The claims of a proof for a GET of this path with this token.
fn good(token: &str, path: &str) -> Value {
    json!({
        "jti": b64(aws_lc_rs::rand::generate::<[u8; 12]>(&SystemRandom::new()).unwrap().expose()),
        "htm": "GET", "htu": format!("http://shop.test{path}"), "iat": now(),
        "ath": b64(digest(&SHA256, token.as_bytes())),
    })
}

/// The value with some of its members replaced; null removes one.
fn but(mut value: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("members are an object") };
    for (name, change) in changes {
        match change {
            Value::Null => drop(value.as_object_mut().unwrap().remove(&name)),
            change => value[name] = change,
        }
    }
    value
}

fn config(upstream: &Upstream, store: &str) -> String {
    let (upstream, auth) = (upstream.table("shop"), AUTH);
    let strict = auth.replace("[auth.users]", "[auth.strict]").replace("claims_to_headers", "# c");
    format!(
        r#"{store}
        [server]
        trusted_proxies = ["127.0.0.1/32"]
        {auth}{strict}bound = "dpop"
        {upstream}
        [routes.private]
        path = "/private/*"
        upstream = "shop"
        auth = "users"
        [routes.strict]
        path = "/strict"
        upstream = "shop"
        auth = "strict"
        [routes.public]
        path = "/public"
        upstream = "shop"
        "#
    )
}

fn ask(gateway: &Gateway, path: &str, token: &str, proofs: &[&str]) -> Reply {
    let request =
        Client::get(gateway.public, path).header("Authorization", format!("DPoP {token}"));
    proofs.iter().fold(request, |request, proof| request.header("DPoP", proof)).send()
}

fn told(reply: &Reply) -> (u16, String) {
    let code = if reply.status == 200 { String::new() } else { code(reply) };
    (reply.status, code)
}

fn invalid() -> (u16, String) {
    (401, "dpop_invalid".to_owned())
}

#[test]
fn a_bound_token_is_good_with_a_proof_of_its_key_alone() {
    let upstream = upstream();
    let gateway = Gateway::start(&config(&upstream, ""));
    let key = Key::new();
    let token = key.token();
    let reply = ask(&gateway, "/private/a", &token, &[&key.proof(&token, "/private/a")]);
    assert_eq!(told(&reply), (200, String::new()), "{reply:?}");
    let seen = upstream.only();
    assert_eq!(seen.header("x-user-id"), Some("42"));
    assert_eq!(
        (seen.header("authorization"), seen.header("dpop")),
        (None, None),
        "neither goes on"
    );
    upstream.forget();

    let missing = (401, "dpop_missing".to_owned());
    let bearer = Client::get(gateway.public, "/private/a").bearer(&token);
    let bearer = bearer.header("DPoP", key.proof(&token, "/private/a")).send();
    assert_eq!(told(&bearer), missing, "a proof beside it makes a bearer token no better");
    let challenge = bearer.header("www-authenticate").unwrap();
    assert!(
        challenge.starts_with("DPoP realm=\"portcullis\", algs=\"ES256 EdDSA\""),
        "{challenge}"
    );
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    let none = ask(&gateway, "/private/a", &token, &[]);
    assert_eq!(told(&none), missing);
    let challenge = none.header("www-authenticate").unwrap();
    assert!(challenge.contains("error=\"invalid_dpop_proof\""), "{challenge}");

    // A token that is bound to nothing gains nothing by the scheme, where it is not demanded.
    let unbound = crate::support::token(with(json!({})));
    let reply = ask(&gateway, "/private/a", &unbound, &[&key.proof(&unbound, "/private/a")]);
    assert_eq!(told(&reply), (401, "token_invalid".to_owned()));
    assert_eq!(Client::get(gateway.public, "/strict").bearer(&unbound).send().status, 401);
    let nobody = Client::get(gateway.public, "/strict").send();
    assert_eq!(told(&nobody), (401, "token_missing".to_owned()));
    let challenge = nobody.header("www-authenticate").unwrap();
    assert_eq!(challenge, "DPoP realm=\"portcullis\", algs=\"ES256 EdDSA\"");
    let reply = ask(&gateway, "/strict", &token, &[&key.proof(&token, "/strict")]);
    assert_eq!(reply.status, 200);
    // A thumbprint that is none makes a token invalid.
    for jkt in [json!(7), json!(""), json!("AAAA"), json!(["a"])] {
        let odd = crate::support::token(with(json!({ "cnf": { "jkt": jkt } })));
        let reply = ask(&gateway, "/private/a", &odd, &[&key.proof(&odd, "/private/a")]);
        assert_eq!(told(&reply), (401, "token_invalid".to_owned()), "{jkt}");
    }
    // The proof beside a token that is bound to nothing stays behind as well.
    upstream.forget();
    let proof = key.proof(&unbound, "/private/a");
    let bearer = Client::get(gateway.public, "/private/a").bearer(&unbound).header("DPoP", proof);
    assert_eq!(bearer.send().status, 200);
    assert_eq!(upstream.only().header("dpop"), None);
    // Elsewhere the field is somebody else's, and goes on.
    upstream.forget();
    Client::get(gateway.public, "/public").header("DPoP", "x").send();
    assert_eq!(upstream.only().header("dpop"), Some("x"));
}

/// A proof whose claims are this text.
fn of_text(key: &Key, header: &Value, claims: &str) -> String {
    let input = format!("{}.{}", b64(header.to_string()), b64(claims));
    let signature = key.0.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
    format!("{input}.{}", b64(signature))
}

/// Proofs whose form or signature is no good.
fn forged(key: &Key, token: &str, path: &str) -> Vec<(&'static str, &'static str, String)> {
    let (other, header, claims) = (Key::new(), key.header(), good(token, path));
    let hmac = |changes: Value, secret: &[u8]| {
        let header = but(key.header(), changes);
        let input = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
        format!("{input}.{}", b64(aws_lc_rs::hmac::sign(&secret, input.as_bytes())))
    };
    let x = URL_SAFE_NO_PAD.decode(key.jwk()["x"].as_str().unwrap()).unwrap();
    let own = json!({"alg": "HS256", "jwk": {"kty": "oct", "k": b64([7; 32])}});
    let whole = key.proof(token, path);
    let unsigned = whole.rsplit_once('.').unwrap().0;
    let twice = claims.to_string().replacen('{', "{\"htm\":\"POST\",", 1);
    vec![
        ("signature", "no signature", format!("{unsigned}.")),
        ("malformed", "two parts", unsigned.to_owned()),
        ("other_key", "another key's", other.proof(token, path)),
        ("signature", "another key behind its header", other.sign(&header, &claims)),
        ("other_key", "its key behind another header", key.sign(&other.header(), &claims)),
        ("algorithm", "HS256 with the public key", hmac(json!({"alg": "HS256"}), &x)),
        ("algorithm", "HS256 with a key that it brings", hmac(own, &[7; 32])),
        ("malformed", "two members of one name", of_text(key, &header, &twice)),
        ("malformed", "claims that are a list", of_text(key, &header, "[]")),
        ("malformed", "empty", String::new()),
        ("malformed", "two in one line", format!("{whole}, {whole}")),
    ]
}

/// Proofs of the right key whose header is no good.
fn odd_headers(key: &Key, token: &str, path: &str) -> Vec<(&'static str, &'static str, String)> {
    let with = |changes| key.sign(&but(key.header(), changes), &good(token, path));
    let jwk = |changes| with(json!({ "jwk": but(key.jwk(), changes) }));
    let mut with_null = key.jwk();
    with_null["d"] = Value::Null;
    vec![
        ("algorithm", "alg none", with(json!({"alg": "none"}))),
        ("algorithm", "no alg", with(json!({"alg": null}))),
        ("algorithm", "an algorithm that is not accepted", with(json!({"alg": "ES384"}))),
        ("key", "an algorithm of another key", with(json!({"alg": "EdDSA"}))),
        ("type", "no typ", with(json!({"typ": null}))),
        ("type", "another typ", with(json!({"typ": "at+jwt"}))),
        ("malformed", "critical extensions", with(json!({"crit": ["x"], "x": 1}))),
        ("key", "no jwk", with(json!({"jwk": null}))),
        ("key", "a list for a jwk", with(json!({"jwk": [key.jwk()]}))),
        ("key", "a private jwk", jwk(json!({"d": b64([1; 32])}))),
        ("key", "a private member that is null", with(json!({ "jwk": with_null }))),
        ("key", "a point elsewhere", jwk(json!({"x": b64([1; 32])}))),
        ("key", "another curve", jwk(json!({"crv": "P-384"}))),
    ]
}

/// Proofs of the right key that say something else.
fn odd_claims(key: &Key, token: &str, path: &str) -> Vec<(&'static str, &'static str, String)> {
    let with = |changes| key.sign(&key.header(), &but(good(token, path), changes));
    vec![
        ("id", "no jti", with(json!({"jti": null}))),
        ("id", "an empty jti", with(json!({"jti": ""}))),
        ("id", "a number for a jti", with(json!({"jti": 7}))),
        ("id", "a jti without end", with(json!({"jti": "x".repeat(257)}))),
        ("method", "another method", with(json!({"htm": "POST"}))),
        ("method", "a method in lower case", with(json!({"htm": "get"}))),
        ("method", "no method", with(json!({"htm": null}))),
        ("time", "no time", with(json!({"iat": null}))),
        ("time", "a text for a time", with(json!({"iat": now().to_string()}))),
        ("time", "too old", with(json!({"iat": now() - 61}))),
        ("time", "of the future", with(json!({"iat": now() + 600}))),
        ("token", "no token", with(json!({"ath": null}))),
        ("token", "another token", with(json!({"ath": b64(digest(&SHA256, b"x"))}))),
        ("token", "the token itself", with(json!({ "ath": token }))),
        ("too_large", "huge", with(json!({"x": "x".repeat(8 * 1024)}))),
    ]
}

#[test]
fn a_proof_that_is_forged_or_odd_is_refused() {
    let upstream = upstream();
    let gateway = Gateway::start(&config(&upstream, ""));
    let key = Key::new();
    let (token, path) = (key.token(), "/private/a");
    let whole = key.proof(&token, path);
    let cases = [forged, odd_headers, odd_claims].map(|all| all(&key, &token, path)).concat();
    let asked = cases.iter().map(|(_, what, proof)| {
        let reply = ask(&gateway, path, &token, &[proof]);
        assert_eq!(told(&reply), (401, "dpop_invalid".to_owned()), "{what}");
        reply.header("x-request-id").expect("an id").to_owned()
    });
    let asked: Vec<String> = asked.collect();
    // Each for its own reason, or what comes first would hide that nothing looks at the rest.
    eventually("all have their lines", || gateway.access_lines().len() == asked.len());
    let lines = gateway.access_lines();
    for (id, (cause, what, _)) in asked.iter().zip(&cases) {
        let line = lines.iter().find(|line| line["request_id"] == **id).expect("its line");
        assert_eq!(line["cause"], *cause, "{what}: {line}");
    }
    let two = [&*key.proof(&token, path), &*key.proof(&token, path)];
    assert_eq!(told(&ask(&gateway, path, &token, &two)), invalid(), "two lines");
    assert_eq!(upstream.seen(), 0);
    assert_eq!(ask(&gateway, path, &token, &[&whole]).status, 200, "none of them used it up");
    for changes in [json!({"typ": "DPoP+JWT"}), json!({"kid": "x", "jku": "https://x.test"})] {
        let proof = key.sign(&but(key.header(), changes), &good(&token, path));
        assert_eq!(ask(&gateway, path, &token, &[&proof]).status, 200);
    }
    for changes in [json!({"iat": now() - 20}), json!({"iat": now() + 20}), json!({"nonce": "x"})] {
        let proof = key.sign(&key.header(), &but(good(&token, path), changes));
        assert_eq!(ask(&gateway, path, &token, &[&proof]).status, 200);
    }
}

#[test]
fn a_proof_is_of_one_target_in_any_spelling() {
    let upstream = upstream();
    let gateway = Gateway::start(&config(&upstream, ""));
    let key = Key::new();
    let token = key.token();
    let ask_at = |htu: &str, lines: &[(&str, &str)]| {
        let path = "/private/a%20b?x=1";
        let proof = key.sign(&key.header(), &but(good(&token, path), json!({ "htu": htu })));
        let request = Client::get(gateway.public, path)
            .header("Authorization", format!("dpop {token}"))
            .header("DPoP", proof);
        let request =
            lines.iter().fold(request, |request, (name, value)| request.header(name, value));
        request.send().status
    };
    for htu in [
        "http://shop.test/private/a%20b",
        "HTTP://SHOP.Test:80/private/a%20b",
        "http://shop.test./private/a%20b",
        "http://shop.test/private/a%20b?x=2",
        "http://shop.test/private/a%20b#x",
        "http://shop.test/%70rivate/./x/../a%20b",
    ] {
        assert_eq!(ask_at(htu, &[]), 200, "{htu}");
    }
    for htu in [
        "https://shop.test/private/a%20b",
        "http://shop.test:8080/private/a%20b",
        "http://shop.test:443/private/a%20b",
        "http://other.test/private/a%20b",
        "http://shop.test../private/a%20b",
        "http://shop.test@other.test/private/a%20b",
        "http://user@shop.test/private/a%20b",
        "http://shop.test/private/a+b",
        "http://shop.test/private/A%20b",
        "http://shop.test/private/a%2520b",
        "http://shop.test/private/a%20b/",
        "http://shop.test/private",
        "http://shop.test",
        "http:///private/a%20b",
        "//shop.test/private/a%20b",
        "/private/a%20b",
        "",
    ] {
        assert_eq!(ask_at(htu, &[]), 401, "{htu}");
    }
    // The origin is the one that the client used, as a trusted proxy says.
    let proxied = [
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "www.shop.test:8443"),
    ];
    assert_eq!(ask_at("https://www.shop.test:8443/private/a%20b", &proxied), 200);
    assert_eq!(ask_at("https://www.shop.test/private/a%20b", &proxied), 401);
    assert_eq!(ask_at("http://shop.test/private/a%20b", &proxied), 401);
}

#[test]
fn a_proof_comes_once_at_all_gateways_and_after_a_reload() {
    let (redis, upstream) = (Redis::start(), upstream());
    let proxy = TcpProxy::start(redis.address());
    let store = |url: &str| format!("[store]\nurl = '{url}'\ntimeout = '5s'\n");
    let config_of_first = config(&upstream, &store(&proxy.url()));
    let first = Gateway::start(&config_of_first);
    let second = Gateway::start(&config(&upstream, &store(&redis.url())));
    let key = Key::new();
    let (token, path) = (key.token(), "/private/a");
    let proof = key.proof(&token, path);
    let unbound = crate::support::token(with(json!({})));
    let known = Client::get(first.public, path).bearer(unbound).send();
    assert_eq!(known.status, 200, "the store is asked");
    proxy.reset_count();
    assert_eq!(ask(&first, path, &token, &[&proof]).status, 200);
    assert_eq!(proxy.batches(), 1, "one round trip, with what revokes the token");
    assert_eq!(told(&ask(&first, path, &token, &[&proof])), invalid());
    assert_eq!(told(&ask(&second, path, &token, &[&proof])), invalid());
    assert_eq!(line_with_cause(&first, "replayed")["claim"], "jti");
    first
        .rewrite(&format!("{config_of_first}\n[routes.more]\npath = '/more'\nupstream = 'shop'\n"));
    first.signal("HUP");
    eventually("the reload is in force", || {
        Client::get(first.public, "/more").send().status == 200
    });
    assert_eq!(told(&ask(&first, path, &token, &[&proof])), invalid());
    // What lies in Redis is a digest, for as long as the proof could be good.
    let keys = redis.cli(&["KEYS", "app:auth:dpop:*"]);
    assert_eq!(keys.lines().count(), 1, "{keys}");
    let ttl: i64 = redis.cli(&["PTTL", keys.trim()]).parse().unwrap();
    assert!((60_000..=122_000).contains(&ttl), "{ttl}");
    assert_eq!(keys.trim().len(), "app:auth:dpop:".len() + 64);
    // Another key may have chosen the same `jti`.
    let other = Key::new();
    let its = other.token();
    let same = but(good(&its, path), json!({"jti": "one"}));
    assert_eq!(ask(&first, path, &its, &[&other.sign(&other.header(), &same)]).status, 200);
    let same = but(good(&token, path), json!({"jti": "one"}));
    assert_eq!(ask(&first, path, &token, &[&key.sign(&key.header(), &same)]).status, 200);
    // Who explains a request uses no proof up.
    let proof = key.proof(&token, path);
    let question = json!({
        "path": path, "host": "shop.test",
        "headers": { "authorization": format!("DPoP {token}"), "dpop": proof },
    });
    for _ in 0..2 {
        let reply = operate(&second, "POST", "/v1/explain", &question.to_string());
        assert_eq!(reply.json()["outcome"]["passes"], true, "{}", reply.text());
    }
    assert_eq!(ask(&second, path, &token, &[&proof]).status, 200);
}

#[test]
fn without_redis_a_proof_is_judged_as_revocation_is() {
    let (mut redis, upstream) = (Redis::start(), upstream());
    let store = |outage: &str| {
        format!("[store]\nurl = '{}'\n[store.on_outage]\nrevocation = '{outage}'\n", redis.url())
    };
    let [refusing, allowing] =
        ["refuse", "allow"].map(|it| Gateway::start(&config(&upstream, &store(it))));
    let key = Key::new();
    let (token, path) = (key.token(), "/private/a");
    let fresh = || key.proof(&token, path);
    for gateway in [&refusing, &allowing] {
        assert_eq!(ask(gateway, path, &token, &[&fresh()]).status, 200);
    }
    redis.kill();
    eventually("its loss is noticed", || {
        told(&ask(&refusing, path, &token, &[&fresh()])) == (503, "revocation_unknown".to_owned())
    });
    eventually("it is allowed", || ask(&allowing, path, &token, &[&fresh()]).status == 200);
    let forged = Key::new().proof(&token, path);
    assert_eq!(told(&ask(&allowing, path, &token, &[&forged])), invalid());
}

/// What the store has read still counts where it can write nothing.
#[test]
fn where_proofs_cannot_be_noted_what_is_revoked_stays_so() {
    let (redis, upstream) = (Redis::start(), upstream());
    let store = |outage: &str| {
        format!("[store]\nurl = '{}'\n[store.on_outage]\nrevocation = '{outage}'\n", redis.url())
    };
    let [refusing, allowing] =
        ["refuse", "allow"].map(|it| Gateway::start(&config(&upstream, &store(it))));
    let (key, path) = (Key::new(), "/private/a");
    let bound = json!({"sub": "u9", "iat": now() - 60, "cnf": {"jkt": key.thumbprint()}});
    let (revoked, passing) = (token(with(bound)), key.token());
    let reply = operate(&allowing, "POST", "/v1/revocations", "{\"sub\":\"u9\"}");
    assert!(reply.status < 300, "{reply:?}");
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let ask = |gateway: &Gateway, token: &str| {
        let reply = ask(gateway, path, token, &[&key.proof(token, path)]);
        if reply.status == 200 { (200, String::new()) } else { told(&reply) }
    };
    let gone = (401, "token_revoked".to_owned());
    assert_eq!([&refusing, &allowing].map(|it| ask(it, &revoked)), [gone.clone(), gone]);
    assert_eq!(ask(&allowing, &passing), (200, String::new()));
    assert_eq!(ask(&refusing, &passing), (503, "revocation_unknown".to_owned()));
}

#[test]
fn keys_of_other_kinds_make_proofs_too() {
    let upstream = upstream();
    let gateway = Gateway::start(&config(&upstream, ""));
    let pair = Ed25519KeyPair::generate().unwrap();
    let x = b64(pair.public_key().as_ref());
    let thumbprint =
        b64(digest(&SHA256, format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#).as_bytes()));
    let token = token(with(json!({ "cnf": { "jkt": thumbprint } })));
    let header = json!({"typ": "dpop+jwt", "alg": "EdDSA",
        "jwk": {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "mine"}});
    let claims = good(&token, "/private/a");
    let input = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let proof = format!("{input}.{}", b64(pair.sign(input.as_bytes())));
    assert_eq!(ask(&gateway, "/private/a", &token, &[&proof]).status, 200);
}
