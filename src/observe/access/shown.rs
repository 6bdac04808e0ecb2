//! What lines show of requests: addresses, callers, queries and fields, as much of each as the
//! configuration wants.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aws_lc_rs::hmac;
use http::header::{REFERER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::base::facts::ClientAddr;
use crate::base::http::credentials::{REDACTED, opens};
use crate::base::http::fields::bears_credentials;
use crate::base::http::{hex, percent};
use crate::config::{AccessFormat, ClientShown, Log, QueryShown, SubjectShown};

/// Most bytes of one value that a line shows.
const VALUE_BYTES_MAX: usize = 256;
/// Most bytes of a query that a line shows.
const QUERY_BYTES_MAX: usize = 2048;
/// Bytes of an HMAC that a line shows.
const HASH_BYTES: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct Shown {
    client: ClientShown,
    /// Hashes subjects.
    key: Option<hmac::Key>,
    query: QueryShown,
    headers: Vec<HeaderName>,
    /// Whether the format has a place for the referer.
    has_referer: bool,
    is_on: bool,
}

/// What a line shows of a request's fields, which are gone when it is written.
#[derive(Debug, Default)]
pub struct Fields {
    /// `User-Agent`, or its beginning.
    pub user_agent: Option<String>,
    /// `Referer`, as much as is shown of it.
    pub referer: Option<String>,
    /// Those that `log.headers` names.
    pub headers: Vec<(HeaderName, String)>,
}

impl Shown {
    /// As the configuration wants it.
    pub(super) fn new(log: &Log) -> Self {
        let secret = log.subject_secret.as_ref().map_or_else(fresh, |it| it.expose().to_vec());
        let key = || hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Self {
            client: log.client,
            key: (log.subject == SubjectShown::Hash).then(key),
            query: log.query,
            headers: log.headers.clone(),
            has_referer: log.access == AccessFormat::Combined,
            is_on: log.access != AccessFormat::Off,
        }
    }

    /// The client's address.
    pub fn client(&self, address: ClientAddr) -> String {
        match self.client {
            ClientShown::Full => address.to_string(),
            ClientShown::Prefix => network(address.ip()).to_string(),
        }
    }

    /// Who calls.
    pub fn subject<'s>(&self, subject: &'s str) -> Cow<'s, str> {
        match &self.key {
            None => subject.into(),
            Some(key) => {
                let tag = hmac::sign(key, subject.as_bytes());
                format!("#{}", hex::encode(tag.as_ref().get(..HASH_BYTES).unwrap_or_default()))
                    .into()
            }
        }
    }

    /// Whose counter a limit's is: an address or a claim in it shows no more than the line does
    /// elsewhere.
    pub fn principal<'p>(&self, principal: &'p str) -> Cow<'p, str> {
        if self.key.is_none() && self.client == ClientShown::Full {
            return principal.into();
        }
        let part = |part: &str| match part.split_once('=') {
            Some(("address", value)) if self.client == ClientShown::Prefix => {
                value.parse().map_or_else(
                    |_| format!("address={REDACTED}"),
                    |address| format!("address={}", network(address)),
                )
            }
            // Also what stands as a digest: anybody with a list of subjects knows theirs.
            Some((kind, value)) if kind.contains("claim:") => {
                format!("{kind}={}", self.subject(value))
            }
            _ => part.to_owned(),
        };
        principal.split('|').map(part).collect::<Vec<_>>().join("|").into()
    }

    /// A query. `is_token`: whether a parameter carries one, by its name.
    pub fn query(&self, query: Option<&str>, is_token: impl Fn(&str) -> bool) -> Option<String> {
        let query = query.filter(|query| !query.is_empty())?;
        let shown = match self.query {
            QueryShown::Off => return None,
            QueryShown::Names => without_values(query),
            QueryShown::All => redacted(query, is_token),
        };
        Some(cut(&shown, QUERY_BYTES_MAX).to_owned())
    }

    /// What lines show of these fields; nothing where there are no lines.
    pub fn fields(&self, fields: &HeaderMap) -> Option<Box<Fields>> {
        if !self.is_on {
            return None;
        }
        let referer = || self.has_referer.then(|| self.value(fields, &REFERER)).flatten();
        let shown = self.headers.iter();
        Some(Box::new(Fields {
            user_agent: self.value(fields, &USER_AGENT),
            referer: referer(),
            headers: shown
                .filter_map(|name| Some((name.clone(), self.value(fields, name)?)))
                .collect(),
        }))
    }

    /// The value of a field, or its beginning; several lines are one list (RFC 9110 §5.3).
    fn value(&self, fields: &HeaderMap, name: &HeaderName) -> Option<String> {
        let mut lines = fields.get_all(name).iter().map(HeaderValue::as_bytes);
        let mut value = String::from_utf8_lossy(lines.next()?).into_owned();
        for line in lines {
            value = format!("{value}, {}", String::from_utf8_lossy(line));
        }
        if opens(&value) {
            return Some(REDACTED.to_owned());
        }
        if *name == REFERER {
            value = self.page(&value);
        }
        Some(cut(&value, VALUE_BYTES_MAX).to_owned())
    }

    /// The page that a request comes from, with as much of its query as lines show of their own.
    fn page(&self, url: &str) -> String {
        let url = url.split('#').next().unwrap_or_default();
        let Some((page, query)) = url.split_once('?') else { return url.to_owned() };
        // Of whatever page: another service's log-in may lead here.
        let query = self.query(Some(query), |name| matches!(name, "code" | "state"));
        query.map_or_else(|| page.to_owned(), |query| format!("{page}?{query}"))
    }
}

/// What hashes subjects until this process ends.
fn fresh() -> Vec<u8> {
    let mut bytes = vec![0; 32];
    // Without random bytes nothing that is served here would work either.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    bytes
}

/// The network of an address: /24, or /48.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            Ipv4Addr::new(a, b, c, 0).into()
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
        }
    }
}

/// A name, which may be a token all the same.
fn bare(name: &str) -> String {
    let is_secret = opens(&String::from_utf8_lossy(&percent::decode(name.as_bytes())));
    if is_secret { REDACTED } else { name }.to_owned()
}

/// The names of a query's parameters.
fn without_values(query: &str) -> String {
    let name = |pair: &str| bare(pair.split('=').next().unwrap_or_default());
    query.split('&').map(name).collect::<Vec<_>>().join("&")
}

/// A query without the values that may open something.
fn redacted(query: &str, is_token: impl Fn(&str) -> bool) -> String {
    let shown = |pair: &str| match pair.split_once('=') {
        None => bare(pair),
        Some((name, value)) => {
            let plain = String::from_utf8_lossy(&percent::decode(name.as_bytes())).into_owned();
            let decoded = percent::decode(value.as_bytes());
            let is_secret = is_token(&plain)
                || bears_credentials(&plain.to_ascii_lowercase())
                || opens(&String::from_utf8_lossy(&decoded));
            format!("{name}={}", if is_secret { REDACTED } else { value })
        }
    };
    query.split('&').map(shown).collect::<Vec<_>>().join("&")
}

/// The beginning of a text.
fn cut(text: &str, bytes_max: usize) -> &str {
    let whole = (0..=bytes_max.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    whole.and_then(|end| text.get(..end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(change: impl FnOnce(&mut Log)) -> Shown {
        let mut log = Log::default();
        change(&mut log);
        Shown::new(&log)
    }

    fn client(address: &str) -> ClientAddr {
        ClientAddr::new(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_shown_whole_or_as_its_network() {
        let prefix = shown(|log| log.client = ClientShown::Prefix);
        for (address, network) in [
            ("192.0.2.77", "192.0.2.0"),
            ("::ffff:192.0.2.77", "192.0.2.0"),
            ("2001:db8:1:2:3::4", "2001:db8:1::"),
        ] {
            assert_eq!(prefix.client(client(address)), network);
            assert_eq!(shown(|_| {}).client(client(address)), client(address).to_string());
        }
        let principal = "address=192.0.2.77|route=r";
        assert_eq!(prefix.principal(principal), "address=192.0.2.0|route=r");
        assert_eq!(prefix.principal("claim:sub=42"), "claim:sub=42");
        assert_eq!(shown(|_| {}).principal(principal), principal);
    }

    #[test]
    fn a_subject_is_hashed_alike_wherever_it_stands() {
        let hash = |secret: Option<&str>| {
            shown(|log| {
                log.subject = SubjectShown::Hash;
                log.subject_secret = secret.map(crate::base::units::Secret::new);
            })
        };
        let (one, other) = (hash(Some("0123456789abcdef")), hash(Some("0123456789abcdeg")));
        let of_42 = one.subject("42").into_owned();
        assert_eq!((of_42.len(), one.subject("42")), (33, of_42.as_str().into()));
        assert!(of_42.starts_with('#') && of_42 != other.subject("42"));
        assert_ne!(of_42, one.subject("43"));
        assert_ne!(hash(None).subject("42"), hash(None).subject("42"));
        let principal = one.principal("users/claim:sub=42|route=r").into_owned();
        assert_eq!(principal, format!("users/claim:sub={of_42}|route=r"));
        assert!(!one.principal("claim:sub=#ab").contains("#ab"), "a digest without a key");
        assert_eq!(one.principal("header:x=#ab|address=::1"), "header:x=#ab|address=::1");
    }

    #[test]
    fn a_query_shows_names_or_what_opens_nothing() {
        let query = Some("page=2&access_token=s3cret&t=s3cret&q=Bearer%20s3cret&%74oken=s3cret&x");
        let names = shown(|log| log.query = QueryShown::Names);
        let of_names = names.query(query, |_| false).unwrap();
        assert_eq!(of_names, "page&access_token&t&q&%74oken&x");
        let all = shown(|log| log.query = QueryShown::All);
        let gone = "page=2&access_token=[redacted]&t=[redacted]&q=[redacted]&%74oken=[redacted]&x";
        assert_eq!(all.query(query, |name| name == "t").unwrap(), gone);
        // A token without a name is one all the same.
        let bare = Some("x&Bearer%20s3cret");
        assert_eq!(names.query(bare, |_| false).unwrap(), "x&[redacted]");
        assert_eq!(all.query(bare, |_| false).unwrap(), "x&[redacted]");
        assert_eq!(shown(|_| {}).query(query, |_| false), None);
        assert_eq!(all.query(Some(""), |_| false), None);
        assert_eq!(all.query(Some(&"\u{e9}".repeat(2000)), |_| false).unwrap().len(), 2048);
    }

    #[test]
    fn fields_are_cut_joined_and_redacted_and_absent_ones_are_absent() {
        let mut fields = HeaderMap::new();
        let tenant = HeaderName::from_static("x-tenant");
        let odd = HeaderName::from_static("x-odd");
        for (name, value) in [
            (&USER_AGENT, &*"u".repeat(300)),
            (&tenant, "a"),
            (&tenant, "b"),
            (&odd, "bearer s3cret"),
            (&REFERER, "http://a.test/p?x=s3cret#y"),
        ] {
            fields.append(name, HeaderValue::from_str(value).unwrap());
        }
        let combined = shown(|log| {
            log.access = AccessFormat::Combined;
            log.headers = vec![tenant.clone(), odd.clone(), HeaderName::from_static("x-none")];
        });
        let told = combined.fields(&fields).unwrap();
        assert_eq!(told.user_agent.as_deref(), Some(&*"u".repeat(256)));
        assert_eq!(told.referer.as_deref(), Some("http://a.test/p"));
        let headers = [(tenant, "a, b".to_owned()), (odd, REDACTED.to_owned())];
        assert_eq!(told.headers, headers);
        assert!(shown(|log| log.access = AccessFormat::Off).fields(&fields).is_none());
    }
}
