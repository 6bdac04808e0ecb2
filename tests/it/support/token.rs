//! Tokens of the issuer that the tests' gateways trust.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

/// What signs the tokens of [`AUTH`].
pub(crate) const SECRET: &str = "integration-tests-0123456789abcdef";

/// The verifier `users`, for the start of a configuration.
pub(crate) const AUTH: &str = r#"
[auth.users]
issuer = "https://login.test"
audience = ["shop"]
algorithms = ["HS256"]
secret = "integration-tests-0123456789abcdef"
claims_to_headers = { x-user-id = "sub", x-user-role = "role" }
"#;

/// A token with exactly these claims.
pub(crate) fn token(claims: Value) -> String {
    let Value::Object(claims) = claims else { panic!("claims are an object: {claims}") };
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    portcullis::auth::sign(Algorithm::HS256, &key, None, &claims).expect("a signed token")
}

/// What a token of `sub` says that [`AUTH`] accepts for an hour: `iss aud sub iat exp jti`, and a
/// `jti` of its own each time.
pub(crate) fn claims(sub: &str) -> Value {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
    json!({
        "iss": "https://login.test",
        "aud": "shop",
        "sub": sub,
        "iat": now,
        "exp": now + 3600,
        "jti": format!("jti-{}-{number}", std::process::id()),
    })
}
