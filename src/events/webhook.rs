//! Webhooks by the Standard Webhooks specification: signed are the id, the time and the body.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::refused::Refused;
use crate::base::http::credentials::WEBHOOK_SECRET;
use crate::base::units::Secret;

/// How far the time of a webhook may be from now, in seconds, into the past and the future.
const TOLERANCE_S: u64 = 5 * 60;
/// Longest id, in bytes.
const ID_BYTES_MAX: usize = 256;
/// Most signatures of one webhook that are looked at.
const SIGNATURES_MAX: usize = 8;
/// Shortest secret, in bytes.
const SECRET_BYTES_MIN: usize = 16;

/// Who may sign: the keys of one source of events.
#[derive(Debug, Clone, Default)]
pub struct Signer(Vec<Key>);

impl Signer {
    /// Of secrets as they are written: `whsec_` and base64, or the bytes themselves.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn new(secrets: &[Secret]) -> Result<Self, &'static str> {
        let key = |secret: &Secret| {
            let written = secret.expose();
            let bytes = match written.strip_prefix(WEBHOOK_SECRET.as_bytes()) {
                Some(text) => STANDARD.decode(text).map_err(|_| "is no base64 behind whsec_")?,
                None => written.to_vec(),
            };
            if bytes.len() < SECRET_BYTES_MIN {
                return Err("is shorter than 16 bytes, and can be guessed");
            }
            Ok(Key::new(HMAC_SHA256, &bytes))
        };
        Ok(Self(secrets.iter().map(key).collect::<Result<_, _>>()?))
    }
}

/// What a webhook says beside its body.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// `webhook-id`
    pub id: Option<&'a [u8]>,
    /// `webhook-timestamp`
    pub timestamp: Option<&'a [u8]>,
    /// `webhook-signature`
    pub signatures: Option<&'a [u8]>,
}

impl<'a> Signed<'a> {
    /// The id, if it may be one.
    ///
    /// # Errors
    /// There is none.
    pub fn id(&self) -> Result<&'a str, Refused> {
        let id = self.id.and_then(|id| std::str::from_utf8(id).ok());
        let is_sound = |id: &&str| {
            (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|it| it.is_ascii_graphic())
        };
        id.filter(is_sound).ok_or(Refused::Incomplete("webhook-id"))
    }

    /// The time, in Unix seconds.
    ///
    /// # Errors
    /// There is none.
    pub fn time(&self) -> Result<u64, Refused> {
        let text = self.timestamp.and_then(|text| std::str::from_utf8(text).ok());
        let is_digits = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
        let time = text.filter(is_digits).and_then(|text| text.parse().ok());
        time.ok_or(Refused::Incomplete("webhook-timestamp"))
    }
}

/// Whether a webhook is by one of these signers, and of now. Each signature is compared with each
/// key, so that nobody learns from the time it takes which of them came near.
///
/// # Errors
/// It is not.
pub fn verify(
    signers: &[&Signer],
    signed: Signed<'_>,
    body: &[u8],
    now_s: u64,
) -> Result<Vec<bool>, Refused> {
    let (id, time) = (signed.id()?, signed.time()?);
    let signatures = signed.signatures.and_then(|text| std::str::from_utf8(text).ok());
    let signatures = signatures.ok_or(Refused::Incomplete("webhook-signature"))?;
    if now_s.abs_diff(time) > TOLERANCE_S {
        return Err(Refused::Stale(now_s.abs_diff(time)));
    }
    let mut message = format!("{id}.{time}.").into_bytes();
    message.extend_from_slice(body);
    let given: Vec<Vec<u8>> = signatures
        .split(' ')
        .filter_map(|one| one.strip_prefix("v1,"))
        .take(SIGNATURES_MAX)
        .filter_map(|text| STANDARD.decode(text).ok())
        .collect();
    let is_by = |signer: &&Signer| {
        let mut is_right = false;
        for key in &signer.0 {
            // Once for each key: nobody is known yet.
            let tag = sign(key, &message);
            for signature in &given {
                is_right |= verify_slices_are_equal(tag.as_ref(), signature).is_ok();
            }
        }
        is_right
    };
    let by: Vec<bool> = signers.iter().map(is_by).collect();
    if by.contains(&true) { Ok(by) } else { Err(Refused::Signature) }
}
