//! The cache's rules, one table or law each; every case fails when its rule is broken.
//!
//! Helpers only; the cases are in the files beside it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test reports by panicking")]

mod control;
mod date;
mod entry;
mod identity;
mod invalidate;
mod judge;
mod lifetime;
mod policy;
mod range;
mod reply;
mod revalidate;
mod status;
mod variant;

use super::{Epochs, Flags, Freshness, Stored, StoredBody};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// 2026-01-01T00:00:00Z, in milliseconds; `DATE` is the same moment as the fields write it.
const NOW: u64 = 1_767_225_600_000;
const DATE: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
const MINUTE_LATER: &str = "Thu, 01 Jan 2026 00:01:00 GMT";
const MINUTE_BEFORE: &str = "Wed, 31 Dec 2025 23:59:00 GMT";

/// Header lines from `name: value` text, one per line; surrounding space is dropped.
fn fields(text: &str) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (name, value) = line.split_once(':').unwrap();
        let name = HeaderName::from_bytes(name.trim().as_bytes()).unwrap();
        map.append(name, HeaderValue::from_str(value.trim()).unwrap());
    }
    map
}

/// A freshness of one minute, born at `NOW`, and nothing else.
fn minute() -> Freshness {
    Freshness {
        born_ms: NOW,
        answered_ms: NOW,
        lifetime_s: 60,
        swr_s: 0,
        sie_s: 0,
        flags: Flags::default(),
        vary: Vec::new(),
        tags: Vec::new(),
        groups: Vec::new(),
    }
}

/// A fresh entry of one minute, born at `NOW`.
fn entry(status: u16, headers: &str) -> Stored {
    let epochs =
        Epochs { hard: Bytes::from_static(b"epochs"), soft: Bytes::from_static(b"softer") };
    Stored::new(
        "shop/products?a=1".to_owned(),
        epochs,
        status.try_into().unwrap(),
        fields(headers),
        minute(),
        StoredBody::Inline(Bytes::from_static(b"body")),
    )
}
