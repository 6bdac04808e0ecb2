//! Whether a page of another site may have sent a request (CSRF). A browser adds the cookie of a
//! session to whatever any page has it send; who has sent it is said by Fetch metadata, else by
//! `Origin`, and where a client says neither, by a token that only pages of the site can read.
//! Pure.

use http::header::ORIGIN;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::made::Shown;
use crate::base::http::authority::Authority;
use crate::config::Origin;

/// Who has sent it (Fetch Metadata Request Headers, section 2.4).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// The token, where neither is said.
const CSRF_TOKEN: HeaderName = HeaderName::from_static("x-csrf-token");

/// Why a request is refused. For the log; the client learns what it may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CrossSite {
    /// `Sec-Fetch-Site` says so.
    #[error("sec-fetch-site says that a page of another site has sent it")]
    Site,
    /// `Origin` says so.
    #[error("its origin is another one")]
    Origin,
    /// Nothing is said, and there is no token.
    #[error("it says neither sec-fetch-site nor an origin, and has no x-csrf-token")]
    NoToken,
    /// Nothing is said, and the token is another session's.
    #[error("its x-csrf-token is not the one of its session")]
    WrongToken,
}

/// What of a request is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'r> {
    /// Its method.
    pub method: &'r Method,
    /// Whether it opens a WebSocket.
    pub is_handshake: bool,
    /// Its fields.
    pub headers: &'r HeaderMap,
    /// `http` or `https`, as its client uses it.
    pub scheme: &'r str,
    /// The host that its client has asked.
    pub authority: &'r Authority,
}

impl Sender<'_> {
    /// Whether the request may change something, or opens what may: a WebSocket is opened by GET,
    /// and browsers let any page do it (RFC 6455 §10.2).
    pub fn may_change(&self) -> bool {
        let is_safe = matches!(*self.method, Method::GET | Method::HEAD | Method::OPTIONS);
        !is_safe || self.is_handshake
    }

    /// Whether a page of the site, or no page at all, has sent the request.
    ///
    /// # Errors
    /// A page of another site may have sent it.
    pub fn judge(&self, shown: Option<&Shown>, origins: &[Origin]) -> Result<(), CrossSite> {
        if self.headers.contains_key(SEC_FETCH_SITE) {
            return self.judge_by_site(origins);
        }
        let said = self.only(&ORIGIN);
        if self.headers.contains_key(ORIGIN) && said.is_none_or(|it| it != "null") {
            let is_known = said.is_some_and(|it| self.is_own(it) || covers(origins, it));
            return if is_known { Ok(()) } else { Err(CrossSite::Origin) };
        }
        let token = self.only(&CSRF_TOKEN).ok_or(CrossSite::NoToken)?;
        let value = shown.and_then(Shown::one).ok_or(CrossSite::WrongToken)?;
        if value.confirms(token.as_bytes()) { Ok(()) } else { Err(CrossSite::WrongToken) }
    }

    /// The same of a request that shows no session yet: it logs in. Whoever says nothing is no
    /// browser of now, and no token can be known.
    ///
    /// # Errors
    /// A page of another site has sent it, which would log its visitor in as somebody else.
    pub fn judge_log_in(&self, origins: &[Origin]) -> Result<(), CrossSite> {
        match self.judge(None, origins) {
            Err(CrossSite::NoToken | CrossSite::WrongToken) if !self.is_opaque() => Ok(()),
            judged => judged,
        }
    }

    /// Whether it is known that a page of the site, or the address bar, has sent the request.
    pub fn is_of_site(&self) -> bool {
        self.only(&SEC_FETCH_SITE).is_some_and(is_own_site)
    }

    fn judge_by_site(&self, origins: &[Origin]) -> Result<(), CrossSite> {
        let is_own = self.only(&SEC_FETCH_SITE).is_some_and(is_own_site);
        let is_listed = || self.only(&ORIGIN).is_some_and(|it| covers(origins, it));
        if is_own || is_listed() { Ok(()) } else { Err(CrossSite::Site) }
    }

    /// Whether it comes from a page that has no origin, such as a frame in a sandbox.
    fn is_opaque(&self) -> bool {
        self.headers.contains_key(ORIGIN)
    }

    /// The only value of a field. Of several, nobody knows which one another program would believe.
    fn only(&self, name: &HeaderName) -> Option<&HeaderValue> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }

    /// Whether this is the origin that the client itself has asked (RFC 6454 §5).
    fn is_own(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let Some(asked) = Authority::parse(authority.as_bytes()) else { return false };
        let by_default = if self.scheme == "https" { 443 } else { 80 };
        let port = |it: &Authority| it.port().unwrap_or(by_default);
        scheme.eq_ignore_ascii_case(self.scheme)
            && asked.host() == self.authority.host()
            && port(&asked) == port(self.authority)
    }
}

fn is_own_site(site: &HeaderValue) -> bool {
    site == "same-origin" || site == "none"
}

fn covers(origins: &[Origin], origin: &HeaderValue) -> bool {
    origins.iter().any(|it| it.covers(origin.as_bytes()))
}

#[cfg(test)]
mod tests;
