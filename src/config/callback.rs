//! `callback` of `[queues.NAME]`: who is told how requests ended, and by which secrets he knows
//! that it is the gateway who says so (Standard Webhooks 1.0).

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use http::HeaderValue;
use http::uri::PathAndQuery;
use toml::de::DeValue;

use super::reader::Section;
use super::upstream::{self, Endpoint, Lookup, Upstream};
use super::upstream_tls;
use super::value::{Mistake, Read, string};
use crate::base::http::credentials::WEBHOOK_SECRET;
use crate::base::units::Secret;

/// Bytes of a secret, decoded.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Most secrets: the one of now, and the one of before.
const SECRETS_MAX: usize = 2;
/// Standard base64, with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `callback = { … }`
#[derive(Debug, PartialEq, Eq)]
pub struct Callback {
    /// What is asked for.
    pub target: PathAndQuery,
    /// The host that is asked.
    pub host: HeaderValue,
    /// What signs, the newest first.
    pub secrets: Vec<Secret>,
    /// Where that is.
    pub upstream: Upstream,
}

/// A URL in its parts.
struct Url {
    server: Endpoint,
    host: HeaderValue,
    target: PathAndQuery,
}

/// Reads `callback = { … }`.
pub(super) fn read(callback: &mut Section<'_>) -> Option<Callback> {
    let url = callback.need_env("url", "\"https://hooks.shop.example/ended\"", url);
    let secrets = secrets(callback);
    let written = callback.section("tls", upstream_tls::read);
    let Url { mut server, host, target } = url?;
    let tls = upstream::tls(callback, written, std::iter::once(&mut server));
    (!secrets.is_empty()).then(|| {
        let upstream = upstream::of_server(server, tls);
        Callback { target, host, secrets, upstream }
    })
}

fn url(value: &DeValue<'_>) -> Read<Url> {
    const EXAMPLE: &str = "write \"https://hooks.shop.example/ended\"";
    // It may hold what opens something, so it is not echoed.
    let wrong = || Mistake::new("is not the URL of a service", EXAMPLE);
    let text = string(value, "it in quotes, such as \"https://hooks.shop.example/ended\"")?;
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).ok_or_else(wrong)?;
    let server = upstream::endpoint(&DeValue::String(format!("{scheme}://{authority}").into()));
    let server = server.map_err(|_| wrong())?;
    if path.contains('#') || server.lookup == Lookup::Services {
        return Err(wrong());
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok(Url {
        server,
        host: HeaderValue::try_from(authority).map_err(|_| wrong())?,
        target: PathAndQuery::try_from(path).map_err(|_| wrong())?,
    })
}

/// `secret = "env:NAME"`, or a list of such while one takes the place of the other.
fn secrets(callback: &mut Section<'_>) -> Vec<Secret> {
    const REMEDY: &str = "write secret = \"env:WEBHOOK_SECRET\"";
    let written = callback.secrets("secret");
    if !callback.has("secret") && !callback.is_survey() {
        callback.problem("secret", "is missing: nobody would know who calls", REMEDY);
    }
    if written.len() > SECRETS_MAX {
        let what = format!("has more than {SECRETS_MAX} secrets");
        callback.problem("secret", what, "keep the one of now, and the one of before");
    }
    let mut secrets = Vec::new();
    for secret in written {
        match decoded(secret.expose()) {
            Ok(bytes) => secrets.push(Secret::new(bytes)),
            Err(what) => {
                let remedy = "write whsec_ and 24 to 64 random bytes in base64, such as \
                              `openssl rand -base64 32` makes them";
                callback.problem("secret", what, remedy);
            }
        }
    }
    secrets
}

/// The bytes that sign.
fn decoded(written: &[u8]) -> Result<Vec<u8>, &'static str> {
    let bytes = match written.strip_prefix(WEBHOOK_SECRET.as_bytes()) {
        None => written.to_vec(),
        Some(rest) => BASE64.decode(rest).map_err(|_| "is no base64 behind whsec_")?,
    };
    match bytes.len() {
        length if SECRET_BYTES.contains(&length) => Ok(bytes),
        length if length < *SECRET_BYTES.start() => {
            Err("is shorter than 24 bytes: somebody could guess it")
        }
        _ => Err("is longer than 64 bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_24_to_64_bytes() {
        let encoded = |bytes: usize| BASE64.encode(vec![7; bytes]);
        for bytes in [24, 32, 33, 64] {
            let written = format!("whsec_{}", encoded(bytes));
            assert_eq!(decoded(written.as_bytes()), Ok(vec![7; bytes]));
            assert_eq!(decoded(written.trim_end_matches('=').as_bytes()), Ok(vec![7; bytes]));
            assert_eq!(decoded(&vec![b'x'; bytes]), Ok(vec![b'x'; bytes]));
        }
        for bytes in [0, 23, 65] {
            assert!(decoded(format!("whsec_{}", encoded(bytes)).as_bytes()).is_err(), "{bytes}");
            assert!(decoded(&vec![b'x'; bytes]).is_err(), "{bytes}");
        }
        assert!(decoded(b"whsec_?????????????????????????????????????????").is_err());
    }

    #[test]
    fn a_url_has_a_server_a_host_and_a_target() {
        let of = |text: &str| url(&DeValue::String(text.to_owned().into()));
        for (text, port, host, target) in [
            ("https://hooks.test/a/b?c=d", 443, "hooks.test", "/a/b?c=d"),
            ("https://hooks.test", 443, "hooks.test", "/"),
            ("https://hooks.test?c=d", 443, "hooks.test", "/?c=d"),
            ("http://127.0.0.1:8080/x", 8080, "127.0.0.1:8080", "/x"),
        ] {
            let url = of(text).ok().unwrap();
            assert_eq!(
                (url.server.port, url.host.as_bytes(), &*url.target.to_string()),
                (port, HeaderValue::from_static(host).as_bytes(), target)
            );
            assert_eq!(url.server.tls.is_some(), text.starts_with("https"));
        }
        for text in [
            "hooks.test/a",
            "ftp://hooks.test",
            "https://u:p@hooks.test/",
            "https://hooks.test/#a",
            "srv+https://_a._tcp.hooks.test/",
            "https:///a",
        ] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
