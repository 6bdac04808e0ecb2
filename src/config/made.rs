//! `make = { … }` of `[session]`: the gateway makes sessions itself. What routes say of that is in
//! `login`.

use std::time::Duration;

use toml::de::DeValue;

use super::origin::{Origin, origin};
use super::reader::Section;
use super::seal::{self, SealKey};
use super::value::{choice, cookie_name, flag, string};

/// The cookie of sessions, where nothing else is said.
const COOKIE: &str = "__Host-session";
/// The same where it may come in clear.
const COOKIE_IN_CLEAR: &str = "session";
/// What the name of a cookie must begin with that no other host can set (RFC 6265bis §4.1.3.2).
const OF_HOST: &str = "__Host-";
/// What begins so is taken by browsers over TLS alone.
const OF_TLS: &str = "__Secure-";
/// How long a made session lives unused, where `idle_timeout` does not say.
pub(super) const IDLE: Duration = Duration::from_secs(30 * 60);
/// How long it lives at most, where `absolute_timeout` does not say.
pub(super) const ABSOLUTE: Duration = Duration::from_secs(12 * 60 * 60);

/// `make = { … }` of `[session]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Make {
    /// The name of the cookie.
    pub cookie: String,
    /// Whether it may also be sent in clear: for development alone.
    pub allow_http: bool,
    /// With which requests of other sites browsers send it.
    pub same_site: SameSite,
    /// Whether browsers keep it when they are closed.
    pub persistent: bool,
    /// With what sessions are sealed in the store, the key of now first; empty: they are not.
    pub seal: Vec<SealKey>,
    /// The pages of other origins whose unsafe requests count as the site's own.
    pub csrf_origins: Vec<Origin>,
}

/// `same_site = "lax" | "strict"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// Only with links to the site.
    Lax,
    /// With none.
    Strict,
}

impl SameSite {
    /// The word in the cookie.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lax => "Lax",
            Self::Strict => "Strict",
        }
    }
}

/// Reads `make`.
pub(super) fn read(make: &mut Section<'_>) -> Make {
    let allow_http = make.or("allow_http", false, flag);
    let by_default = if allow_http { COOKIE_IN_CLEAR } else { COOKIE };
    let name = |value: &DeValue<'_>| cookie_name(string(value, "its name in quotes")?);
    let cookie = make.get("cookie", name);
    make.holds("cookie", || Some(by_default.into()));
    if let Some(cookie) = &cookie {
        report_name(make, cookie, allow_http);
    }
    let same_site = choice(&[("lax", SameSite::Lax), ("strict", SameSite::Strict)]);
    Make {
        cookie: cookie.unwrap_or_else(|| by_default.to_owned()),
        allow_http,
        same_site: make.or("same_site", SameSite::Lax, same_site),
        persistent: make.or("persistent", false, flag),
        seal: seal::read(make),
        csrf_origins: make.list_or_empty("csrf_origins", origin),
    }
}

/// A cookie that another host of the domain can set may be anybody's session; one that browsers
/// refuse is nobody's.
fn report_name(make: &Section<'_>, cookie: &str, allow_http: bool) {
    let begins =
        |with: &str| cookie.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    if !allow_http && !cookie.starts_with(OF_HOST) {
        let what = "could be set by any other host of the domain";
        let remedy = "begin it with \"__Host-\"; for development without TLS, allow_http = true \
                      lets it have another name";
        make.problem("cookie", what, remedy);
    }
    if allow_http && (begins(OF_HOST) || begins(OF_TLS)) {
        let what = "is kept by browsers over TLS alone, and allow_http lets it come in clear";
        make.problem("cookie", what, "write a plain name, or remove allow_http");
    }
}
