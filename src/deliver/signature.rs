//! How a callback shows who sends it: the signature of Standard Webhooks 1.0.

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::base::units::Secret;

/// The value of `webhook-signature`: one signature for each secret, of `id.timestamp.body`.
/// `timestamp` is in Unix seconds.
pub fn signature(secrets: &[Secret], id: &str, timestamp: u64, body: &[u8]) -> String {
    let signed = [id.as_bytes(), b".", timestamp.to_string().as_bytes(), b".", body].concat();
    let one = |secret: &Secret| {
        let tag = sign(&Key::new(HMAC_SHA256, secret.expose()), &signed);
        format!("v1,{}", STANDARD.encode(tag.as_ref()))
    };
    secrets.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification, whose libraries check it.
    #[test]
    fn the_signature_is_that_of_the_specification() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let (id, at) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330);
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let secrets = [Secret::new(secret), Secret::new("another one of before")];
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(signature(&secrets[..1], id, at, body), expected);
        let both = signature(&secrets, id, at, body);
        assert_eq!(both.split(' ').count(), 2);
        assert!(both.starts_with(expected) && !both.ends_with(expected));
    }
}
