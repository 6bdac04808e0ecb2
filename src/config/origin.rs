//! The origins of pages, as routes name them.

use toml::de::DeValue;

use super::value::{Mistake, Read, echo, string};
use crate::base::http::authority::Authority;

/// An origin (RFC 6454), `https://shop.example.com`, or all those of one domain,
/// `https://*.example.com`. In lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// What comes before the `*`, or everything.
    begin: String,
    /// What comes behind the `*`.
    end: Option<String>,
}

impl Origin {
    /// Whether it covers the value of an `Origin` field.
    pub fn covers(&self, origin: &[u8]) -> bool {
        let Some((begin, rest)) = origin.split_at_checked(self.begin.len()) else { return false };
        if !begin.eq_ignore_ascii_case(self.begin.as_bytes()) {
            return false;
        }
        let Some(end) = &self.end else { return rest.is_empty() };
        let labels = rest.len().saturating_sub(end.len());
        // Labels of a host alone: what stands there is no port and no path.
        rest.split_at_checked(labels).is_some_and(|(labels, rest)| {
            let is_end = rest.eq_ignore_ascii_case(end.as_bytes());
            is_end && !labels.is_empty() && labels.iter().all(is_of_labels)
        })
    }
}

fn is_of_labels(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// `scheme://host` or `scheme://host:port`, as browsers send it: without a path.
pub(super) fn origin(value: &DeValue<'_>) -> Read<Origin> {
    const EXAMPLE: &str =
        "an origin such as \"https://shop.example.com\" or \"https://*.example.com\"";
    let text = string(value, EXAMPLE)?.to_ascii_lowercase();
    let wrong =
        || Mistake::new(format!("{} is no origin", echo(&text)), format!("write {EXAMPLE}"));
    let (scheme, host) = text.split_once("://").ok_or_else(wrong)?;
    let is_scheme = matches!(scheme, "http" | "https");
    let host = host.strip_prefix("*.").unwrap_or(host);
    if !is_scheme || host.contains('*') || Authority::parse(host.as_bytes()).is_none() {
        return Err(wrong());
    }
    if (scheme == "http" && host.ends_with(":80")) || (scheme == "https" && host.ends_with(":443"))
    {
        let what = format!("{} would never match: browsers leave that port out", echo(&text));
        return Err(Mistake::new(what, "write it without the port"));
    }
    Ok(match text.split_once('*') {
        None => Origin { begin: text, end: None },
        Some((begin, end)) => Origin { begin: begin.to_owned(), end: Some(end.to_owned()) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_covers_itself_or_a_domain() {
        let of = |text: &str| origin(&DeValue::String(text.to_owned().into()));
        let one = of("https://Shop.example.com").unwrap();
        let port = of("http://localhost:3000").unwrap();
        let all = of("https://*.example.com").unwrap();
        for (origin, given, covered) in [
            (&one, "https://shop.example.com", true),
            (&one, "https://SHOP.example.com", true),
            (&one, "http://shop.example.com", false),
            (&one, "https://shop.example.com:444", false),
            (&one, "https://shop.example.com.evil.test", false),
            (&port, "http://localhost:3000", true),
            (&port, "http://localhost", false),
            (&all, "https://a.example.com", true),
            (&all, "https://a.b.example.com", true),
            (&all, "https://example.com", false),
            (&all, "https://.example.com", false),
            (&all, "https://evil.test/.example.com", false),
            (&all, "https://evil.test:80.example.com", false),
            (&all, "null", false),
        ] {
            assert_eq!(origin.covers(given.as_bytes()), covered, "{origin:?} {given}");
        }
        for wrong in [
            "shop.example.com",
            "https://",
            "ftp://a",
            "https://*",
            "https://a/b",
            "*",
            "https://a:443",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
