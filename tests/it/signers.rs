//! Tokens that the gateway signs: its keys, and what upstreams learn of callers by them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use crate::auth::{code, upstream, with};
use crate::support::{
    AUTH, Authority, Client, Folder, Gateway, Reply, Upstream, claims, eventually, operate, run,
    token,
};

/// The field that tells of callers, where nothing else is written.
const HEADER: &str = "x-identity-assertion";

/// A folder with keys of these names.
fn folder(keys: &[&str]) -> Folder {
    let folder = Folder::new();
    for key in keys {
        made(&folder, key);
    }
    folder
}

/// Makes a key by the command; its id.
fn made(folder: &Folder, name: &str) -> String {
    let made = run(folder, &["signing-key", name]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let kid = made.stdout.trim().strip_prefix(&format!("{name}: kid "));
    kid.unwrap_or_else(|| panic!("{}", made.stdout)).to_owned()
}

fn signer(keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("\"file:{key}\"")).collect();
    format!("[signers.main]\nissuer = \"https://gw.test\"\nkeys = [{}]\n", keys.join(", "))
}

/// The keys that a gateway publishes.
fn published(gateway: &Gateway) -> Reply {
    Client::get(gateway.public, "/jwks.json").send()
}

/// What a token says, once its signature is good by these keys.
fn verified(token: &str, keys: &Value) -> Value {
    portcullis::auth::init();
    let set: JwkSet = serde_json::from_value(keys.clone()).expect("a set");
    let head = jsonwebtoken::decode_header(token).expect("a head");
    let key = set.find(&head.kid.expect("a kid")).expect("its key");
    let mut validation = Validation::new(Algorithm::ES256);
    validation.validate_aud = false;
    let key = DecodingKey::from_jwk(key).expect("a key");
    jsonwebtoken::decode::<Value>(token, &key, &validation).expect("a good token").claims
}

const KEYS: &str = "[routes.keys]\npath = \"/jwks.json\"\nanswers = \"jwks\"\n";

#[test]
fn a_key_is_made_for_its_owner_alone_and_never_written_over() {
    let folder = Folder::new();
    let kid = made(&folder, "a.pem");
    assert_eq!(URL_SAFE_NO_PAD.decode(&kid).expect("base64url").len(), 32);
    let path = folder.path().join("a.pem");
    let mode = std::fs::metadata(&path).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read(&path).expect("the key");
    let again = run(&folder, &["signing-key", "a.pem"]);
    assert_eq!(again.code, Some(1));
    let said = "a.pem is there already, and a key that signs is never overwritten\n    help: name";
    assert!(again.stderr.contains(said), "{}", again.stderr);
    assert_eq!(std::fs::read(&path).expect("the key"), before);
}

#[test]
fn keys_are_published_and_a_reload_rotates_them() {
    let folder = folder(&[]);
    let (a, b) = (made(&folder, "a.pem"), made(&folder, "b.pem"));
    let upstream = upstream();
    let rest = format!(
        "{}{KEYS}[auth.own]\nsigner = \"main\"\naudience = [\"shop\"]\n\
         [routes.private]\npath = \"/private\"\nupstream = \"shop\"\nauth = \"own\"\n",
        upstream.table("shop")
    );
    let gateway = Gateway::start_in(folder, &format!("{}{rest}", signer(&["a.pem"])));
    let reply = published(&gateway);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/jwk-set+json"));
    assert_eq!(reply.header("cache-control"), Some("public, max-age=300"));
    let ids = |keys: &Value| {
        let keys = keys["keys"].as_array().expect("keys").clone();
        assert!(keys.iter().all(|key| key.get("d").is_none()), "{keys:?}");
        keys.iter().map(|key| key["kid"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let published_now = || -> Vec<String> { ids(&published(&gateway).json()) };
    assert_eq!(published_now(), std::slice::from_ref(&a));
    let sign = || token_of(gateway.folder());
    let old = sign();
    gateway.rewrite(&format!("{}{rest}", signer(&["b.pem", "a.pem"])));
    gateway.signal("HUP");
    eventually("the new key is published", || published_now() == [b.clone(), a.clone()]);
    for token in [old, sign()] {
        let reply = Client::get(gateway.public, "/private").bearer(&token).send();
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let head = Client::request(gateway.public, "HEAD", "/jwks.json").send();
    assert_eq!((head.status, head.body.len()), (200, 0));
    let post = Client::request(gateway.public, "POST", "/jwks.json").send();
    assert_eq!((post.status, &*code(&post)), (405, "method_not_allowed"));
}

/// A token that the command makes for the verifier `own`.
fn token_of(folder: &Path) -> String {
    let made = std::process::Command::new(crate::support::BINARY)
        .args(["token", "--auth", "own", "--claim", "sub=42"])
        .current_dir(folder)
        .output()
        .expect("the binary runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8_lossy(&made.stdout).trim().to_owned()
}

#[test]
fn a_key_that_cannot_sign_is_refused_with_its_reason() {
    let authority = Authority::new();
    let pair = |algorithm| rcgen::KeyPair::generate_for(algorithm).expect("a key").serialize_pem();
    let p256 = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    let public = p256.replace("PRIVATE", "PUBLIC");
    let encrypted = p256.replace("PRIVATE", "ENCRYPTED PRIVATE");
    for (pem, expected) in [
        (pair(&rcgen::PKCS_ECDSA_P384_SHA384), "a key of P-384"),
        (pair(&rcgen::PKCS_ED25519), "a key of Ed25519"),
        (pair(&rcgen::PKCS_RSA_SHA256), "a key of RSA"),
        (authority.pem(), "is a certificate"),
        (public, "is a public key"),
        (encrypted, "is encrypted"),
        ("not PEM".to_owned(), "holds no private key"),
    ] {
        let folder = Folder::new();
        folder.write("a.pem", pem);
        let config = format!("{}{KEYS}", signer(&["a.pem"]));
        folder.write("gateway.toml", config);
        let checked = run(&folder, &["check"]);
        assert_eq!(checked.code, Some(2), "{expected}");
        for part in [expected, "signers.main.keys[0]", "signing-key"] {
            assert!(checked.stderr.contains(part), "{part:?} is not in {}", checked.stderr);
        }
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let shop = "[upstreams.shop]\nservers = [\"http://127.0.0.1:1\"]\n";
    let signer = signer(&["a.pem"]);
    let asserting = |more: &str, auth: &str| {
        format!(
            "{signer}{shop}{auth}[routes.r]\npath = \"/\"\nupstream = \"shop\"\n{more}\n\
             assertion = {{ signer = \"main\", audience = \"api\" }}\n"
        )
    };
    let own = "[auth.own]\nsigner = \"main\"\naudience = [\"api\"]\n";
    let any = "[auth.own]\nsigner = \"main\"\n";
    let nameless = "[auth.own]\njwks_url = \"https://login.test/keys\"\nalgorithms = [\"ES256\"]\n";
    // Two signers may say that they are the same issuer.
    let second = signer.replace("signers.main", "signers.second");
    let other = format!("{second}[auth.own]\nsigner = \"second\"\n");
    let cases = [
        (signer.replace("file:", ""), "signers.main.keys[0]", "private key itself"),
        (signer.replace("a.pem\"", "a.pem\", \"file:a.pem\""), "signers.main.keys[1]", "same"),
        (signer.replace("keys", "# keys"), "signers.main.keys", "is missing"),
        (KEYS.to_owned(), "routes.keys.answers", "no signer"),
        (format!("{KEYS}signer = \"x\"\n{signer}"), "routes.keys.signer", "no signer is named"),
        (asserting("", AUTH), "routes.r.assertion", "nobody is known"),
        (asserting("auth = \"own\"", own), "routes.r.assertion.audience", "auth.own accepts it"),
        (asserting("auth = \"own\"", any), "routes.r.assertion.audience", "auth.own accepts it"),
        (asserting("auth = \"own\"", nameless), "routes.r.assertion.audience", "names no issuer"),
        (asserting("auth = \"own\"", &other), "routes.r.assertion.audience", "auth.own accepts it"),
        (
            format!(
                "{signer}tokens = {{ audience = [\"a\"] }}\n[admin]\nrevocation_ttl = \"100h\"\n"
            ),
            "signers.main.tokens.refresh",
            "outlive the revocation",
        ),
        (
            asserting("auth = \"users\"\ncache = {}", AUTH),
            "routes.r.cache",
            "one caller could get another's",
        ),
        (
            asserting("auth = \"users\"\nmethods = [\"POST\"]\ndeliver = {}", AUTH),
            "routes.r.assertion",
            "would be over",
        ),
        (format!("[auth.own]\nsigner = \"x\"\n{signer}"), "auth.own.signer", "no signer is named"),
    ];
    for (config, path, what) in cases {
        let folder = folder(&["a.pem"]);
        folder.write("gateway.toml", &config);
        let checked = run(&folder, &["check"]);
        assert_eq!(checked.code, Some(2), "{config}");
        let said = checked.stderr;
        assert!(said.contains(path) && said.contains(what), "{path}, {what}: {said}\n{config}");
    }
}

/// A gateway that tells its upstream of callers.
struct Told {
    upstream: Upstream,
    gateway: Gateway,
}

impl Told {
    /// With more of the assertion, and more of the configuration.
    fn start(more: &str, rest: &str) -> Self {
        let upstream = upstream();
        let route = |name: &str, auth: &str| {
            format!(
                "[routes.{name}]\npath = \"/{name}\"\nupstream = \"shop\"\nauth = {auth}\n\
                 assertion = {{ signer = \"main\", audience = \"api\"{more} }}\n"
            )
        };
        let config = format!(
            "{}{KEYS}{AUTH}{}{}{}{rest}",
            signer(&["a.pem"]),
            upstream.table("shop"),
            route("private", "\"users\""),
            route("optional", "{ by = \"users\", optional = true }"),
        );
        let gateway = Gateway::start_in(folder(&["a.pem"]), &config);
        Self { upstream, gateway }
    }

    fn ask(&self, path: &str, token: &str) -> Reply {
        Client::get(self.gateway.public, path).bearer(token).send()
    }

    /// The token that the upstream got last.
    fn seen(&self) -> String {
        let seen = self.upstream.recorded();
        let values = seen.last().expect("a request").headers_named(HEADER).join("|");
        assert!(!values.is_empty() && !values.contains('|'), "{values:?}");
        values
    }
}

#[test]
fn an_upstream_learns_who_calls_by_a_token_that_it_can_verify() {
    let told = Told::start(", claims = [\"email\", \"roles\", \"none\"]", "");
    let caller = token(with(json!({"email": "a@b", "roles": ["x"], "secret": "hush"})));
    let reply = told.ask("/private", &caller);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let keys = published(&told.gateway).json();
    let seen = told.seen();
    let said = verified(&seen, &keys);
    let (iat, exp) = (said["iat"].as_u64().unwrap(), said["exp"].as_u64().unwrap());
    let expected = json!({
        "iss": "https://gw.test", "aud": "api", "sub": "42", "verifier": "users",
        "email": "a@b", "roles": ["x"], "iat": iat, "exp": iat + 60,
    });
    assert_eq!((&said, exp), (&expected, iat + 60));
    // It goes to the upstream and nowhere else.
    assert!(reply.headers.iter().all(|(_, value)| !value.contains(&seen)), "{reply:?}");
    eventually("there is a line", || !told.gateway.access_lines().is_empty());
    let lines = format!("{:?}{}", told.gateway.access_lines(), told.gateway.stderr());
    let signature = seen.rsplit('.').next().unwrap();
    assert!(!lines.contains(signature) && !lines.contains("hush"), "{lines}");
    // The verifier of callers does not take it.
    assert_eq!(told.ask("/private", &seen).status, 401);
}

#[test]
fn nobody_else_can_say_it_in_any_spelling() {
    let told = Told::start("", "");
    let spelled = |path: &str, token: Option<&str>| {
        let mut request = Client::get(told.gateway.public, path);
        for name in ["X-Identity-Assertion", "x_identity_assertion", "X.Identity.Assertion"] {
            request = request.header(name, "forged");
        }
        let request = match token {
            Some(token) => request.bearer(token),
            None => request,
        };
        assert_eq!(request.send().status, 200, "{path}");
        let seen = told.upstream.recorded().pop().expect("a request");
        assert!(!seen.head.contains("forged"), "{}", seen.head);
        seen
    };
    let known = spelled("/private", Some(&token(claims("42"))));
    assert_eq!(known.headers_named(HEADER).len(), 1);
    let nobody = spelled("/optional", None);
    assert_eq!(nobody.header(HEADER), None, "an anonymous caller has none");
}

#[test]
fn the_same_is_sent_again_to_nobody_else() {
    let told = Told::start(", claims = [\"email\"]", "");
    let ask = |sub: &str, email: &str| {
        let mut all = claims(sub);
        all["email"] = email.into();
        assert_eq!(told.ask("/private", &token(all)).status, 200);
        told.seen()
    };
    let keys = published(&told.gateway).json();
    let (first, again) = (ask("42", "a@b"), ask("42", "a@b"));
    // It may have been signed anew, after half of its life.
    assert_eq!(verified(&first, &keys)["sub"], verified(&again, &keys)["sub"]);
    for (sub, email) in [("43", "a@b"), ("42", "c@d")] {
        let other = ask(sub, email);
        assert_ne!(other, first);
        let said = verified(&other, &keys);
        assert_eq!((said["sub"].as_str(), said["email"].as_str()), (Some(sub), Some(email)));
    }
    let each = Told::start(", reuse = \"0s\"", "");
    let ids: Vec<Value> = (0..2)
        .map(|_| {
            assert_eq!(each.ask("/private", &token(claims("42"))).status, 200);
            verified(&each.seen(), &published(&each.gateway).json())["jti"].clone()
        })
        .collect();
    assert!(ids[0].is_string() && ids[0] != ids[1], "{ids:?}");
}

#[test]
fn a_session_is_told_of_as_it_is_stored() {
    let session = "[session]\nid_from = [\"cookie:sid\"]\n[routes.shop]\npath = \"/shop\"\n\
                   upstream = \"shop\"\nauth = \"users\"\nsession = true\n\
                   assertion = { signer = \"main\", audience = \"api\", session = [\"cart\"], \
                   header = \"x-caller\" }\n";
    let told = Told::start("", session);
    let body = r#"{"cart": [1, 2], "secret": "hush"}"#;
    let written = operate(&told.gateway, "PUT", "/v1/sessions/s1?user=42&ttl=30m", body);
    assert_eq!(written.status, 201, "{}", written.text());
    let ask = |cookie: &str| {
        let request = Client::get(told.gateway.public, "/shop").bearer(token(claims("42")));
        assert_eq!(request.header("Cookie", cookie).send().status, 200);
        let seen = told.upstream.recorded().pop().expect("a request");
        let value = seen.header("x-caller").expect("a token").to_owned();
        verified(&value, &published(&told.gateway).json())
    };
    assert_eq!(ask("sid=s1")["session"], json!({"cart": [1, 2]}));
    assert_eq!(ask("sid=other").get("session"), None);
}

#[test]
fn what_is_longer_than_upstreams_take_ends_the_request() {
    let told = Told::start(", claims = [\"email\"]", "");
    let long = token(with(json!({"email": "x".repeat(5000)})));
    let reply = told.ask("/private", &long);
    assert_eq!((reply.status, &*code(&reply)), (500, "assertion_failed"));
    assert_eq!(told.upstream.seen(), 0);
}
