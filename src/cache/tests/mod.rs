//! The cache's rules, one table or law each; every case fails when its rule is broken.
//!
//! Helpers only; the cases are in the files beside it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test reports by panicking")]

mod control;
mod entry;
mod fill;
mod judge;
mod policy;

use super::{Freshness, Stored};
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

/// A fresh entry of one minute, born at `NOW`.
fn entry(status: u16, headers: &str) -> Stored {
    let freshness = Freshness { born_ms: NOW, answered_ms: NOW, lifetime_s: 60, vary: Vec::new() };
    Stored::new(
        "shop/products?a=1".to_owned(),
        Bytes::from_static(b"epochs"),
        status.try_into().unwrap(),
        fields(headers),
        freshness,
        Bytes::from_static(b"body"),
    )
}
