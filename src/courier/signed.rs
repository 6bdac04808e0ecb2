//! Callbacks as they are sent: signed anew at each attempt (Standard Webhooks 1.0).

use std::time::{SystemTime, UNIX_EPOCH};

use http::header::HOST;
use http::{HeaderName, HeaderValue};

use crate::config::Config;
use crate::deliver::{Head, signature};
use crate::plan::callback_of;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The head that is sent: that of a callback with its signature of now, by the secrets of now and
/// to where it goes now; any other as it is.
pub(super) fn signed(config: &Config, mut head: Head, body: &[u8]) -> Head {
    let callback = callback_of(config, &head.upstream);
    let (Some(callback), Some(id)) = (callback, head.key.clone()) else { return head };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let signature = signature(&callback.secrets, &id, now, body);
    head.target = callback.target.clone();
    head.fields.insert(HOST, callback.host.clone());
    head.fields.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(now));
    for (name, value) in [(WEBHOOK_ID, id), (WEBHOOK_SIGNATURE, signature)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            head.fields.insert(name, value);
        }
    }
    head
}
