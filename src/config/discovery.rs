//! `issuer` alone: the discovery document of an issuer (OpenID Connect Discovery 1.0 §4), where it
//! is, and which place of keys it may name.

use super::jwks::{Discovery, KeysUrl, in_clear, is_private, is_this_machine, url};
use super::value::{Mistake, Read, echo};

/// What stands behind an issuer that publishes a document of itself.
const WELL_KNOWN: &str = "/.well-known/openid-configuration";
/// Longest `jwks_uri`, in bytes.
const JWKS_URI_BYTES_MAX: usize = 2048;

/// Where the document of an issuer is; nothing when it is no URL, so that it has none.
pub(super) fn of(issuer: &str, allow_http: bool) -> Option<Read<(KeysUrl, Discovery)>> {
    let (_, rest) = issuer.split_once("://").filter(|(s, _)| matches!(*s, "https" | "http"))?;
    Some(document_of(issuer, rest, allow_http).map(|document| {
        let issuer = issuer.to_owned();
        (document, Discovery { issuer, allow_http })
    }))
}

fn document_of(issuer: &str, rest: &str, allow_http: bool) -> Read<KeysUrl> {
    const REMEDY: &str = "write it as its tokens name it, or say with jwks_url where its keys are";
    if rest.contains(['?', '#', '@']) {
        let what = "is an issuer with a user, a query or a fragment, which has no document";
        return Err(Mistake::new(what, REMEDY));
    }
    // One slash at the end is left out of the place, and stays part of the name.
    let scheme = issuer.strip_suffix(rest).unwrap_or_default();
    let base = rest.strip_suffix('/').unwrap_or(rest);
    let wrong = || Mistake::new(format!("{} is not the URL of an issuer", echo(issuer)), REMEDY);
    let document = url(&format!("{scheme}{base}{WELL_KNOWN}")).ok_or_else(wrong)?;
    match in_clear(&document, allow_http) {
        Some(mistake) => Err(mistake),
        None => Ok(document),
    }
}

impl Discovery {
    /// The place that the document at `document` names. Who may write that document is trusted with
    /// the keys, but not with a choice of machines on the gateway's own network.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn keys_at(&self, document: &KeysUrl, jwks_uri: &str) -> Result<KeysUrl, (String, String)> {
        const BY_HAND: &str = "ask who runs the issuer, or write jwks_url";
        self.place(document, jwks_uri).map_err(|objection| match objection {
            Objection::NoUrl => {
                let what = format!("jwks_uri {} is not the URL of a JWK set", echo(jwks_uri));
                (what, BY_HAND.to_owned())
            }
            Objection::Inside(keys) => {
                let shown = echo(&keys.to_string());
                let what =
                    format!("jwks_uri {shown} is on a private network, and the issuer is not");
                (what, "write it as jwks_url if it is right".to_owned())
            }
            Objection::Clear(keys) => {
                let shown = echo(&keys.to_string());
                let what = format!(
                    "jwks_uri {shown} is http://, and whoever is on the way could put in keys of \
                     their own"
                );
                (what, "have the issuer name https://, or write jwks_url".to_owned())
            }
        })
    }

    /// Another place that the document names, as its member of this name, by the same rules.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn endpoint_at(
        &self,
        document: &KeysUrl,
        member: &str,
        uri: &str,
    ) -> Result<KeysUrl, String> {
        self.place(document, uri).map_err(|objection| match objection {
            Objection::NoUrl => format!("its {member} {} is no URL", echo(uri)),
            Objection::Inside(_) => {
                format!("its {member} {} is on a private network, and the issuer is not", echo(uri))
            }
            Objection::Clear(_) => {
                format!("its {member} {} is http://, where tokens would go in clear", echo(uri))
            }
        })
    }

    fn place(&self, document: &KeysUrl, uri: &str) -> Result<KeysUrl, Objection> {
        let authority = uri.split_once("://").map(|(_, rest)| rest.split(['/', '?']).next());
        let has_user = authority.flatten().is_some_and(|authority| authority.contains('@'));
        let found = (uri.len() <= JWKS_URI_BYTES_MAX && !has_user).then(|| url(uri)).flatten();
        let place = found.filter(|place| !is_number(&place.host)).ok_or(Objection::NoUrl)?;
        let is_inside = is_private(&place.host);
        if is_inside && !self.allow_http && !is_private(&document.host) {
            return Err(Objection::Inside(place));
        }
        let may_be_clear = self.allow_http || (!document.tls && is_this_machine(&place.host));
        if !(place.tls || is_inside && may_be_clear) {
            return Err(Objection::Clear(place));
        }
        Ok(place)
    }
}

/// What is wrong with a place that a document names.
enum Objection {
    NoUrl,
    Inside(KeysUrl),
    Clear(KeysUrl),
}

/// Whether a system would read a host as an address that is written oddly, such as `127.1`.
fn is_number(host: &str) -> bool {
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let begins_so = last.as_bytes().first().is_some_and(u8::is_ascii_digit);
    begins_so && host.parse::<std::net::IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(issuer: &str, allow_http: bool) -> Option<Result<String, String>> {
        let read = of(issuer, allow_http)?;
        Some(read.map(|(url, _)| url.to_string()).map_err(|mistake| mistake.what))
    }

    #[test]
    fn a_document_is_behind_its_issuer_and_its_path() {
        for (issuer, place) in [
            ("https://login.example", "https://login.example/.well-known/openid-configuration"),
            ("https://login.example/", "https://login.example/.well-known/openid-configuration"),
            (
                "https://id.example/realms/shop",
                "https://id.example/realms/shop/.well-known/openid-configuration",
            ),
            (
                "https://id.example:8443/realms/shop/",
                "https://id.example:8443/realms/shop/.well-known/openid-configuration",
            ),
            ("http://127.0.0.1:1", "http://127.0.0.1:1/.well-known/openid-configuration"),
        ] {
            assert_eq!(read(issuer, false), Some(Ok(place.to_owned())), "{issuer}");
        }
        assert_eq!(read("shop", true), None);
        assert_eq!(read("urn:shop", true), None);
        for issuer in
            ["https://a/?x=1", "https://a/#b", "https://u@a/", "https://", "https:///", "http://k/"]
        {
            assert!(matches!(read(issuer, false), Some(Err(_))), "{issuer}");
        }
        assert!(matches!(read("http://keycloak/", true), Some(Ok(_))));
        assert!(matches!(read("http://login.example/", true), Some(Err(_))), "a public name");
    }

    /// Issuer, whether private networks are allowed, `jwks_uri`, part of what is said against it.
    const NAMED: &[(&str, bool, &str, Option<&str>)] = &[
        ("https://a.example", false, "https://a.example/jwks", None),
        ("https://a.example", false, "https://keys.other.example/jwks?v=2", None),
        ("https://a.example", false, "http://a.example/jwks", Some("http://")),
        ("https://a.example", true, "http://a.example/jwks", Some("http://")),
        ("https://a.example", false, "https://10.0.0.7/jwks", Some("private network")),
        ("https://a.example", false, "https://169.254.169.254/jwks", Some("private network")),
        ("https://a.example", false, "https://0.0.0.0/jwks", Some("private network")),
        ("https://a.example", false, "https://[::1]/jwks", Some("private network")),
        ("https://a.example", false, "https://[::ffff:127.0.0.1]/jwks", Some("private network")),
        ("https://a.example", false, "https://keycloak/jwks", Some("private network")),
        ("https://a.example", false, "https://localhost./jwks", Some("private network")),
        ("https://a.example", false, "https://a.internal./jwks", Some("private network")),
        ("https://a.example", false, "http://127.0.0.1/jwks", Some("private network")),
        ("https://a.example", false, "https://127.1/jwks", Some("not the URL")),
        ("https://a.example", false, "https://0x7f000001/jwks", Some("not the URL")),
        ("https://a.example", false, "https://2130706433/jwks", Some("not the URL")),
        ("https://a.example", true, "http://10.0.0.7/jwks", None),
        ("https://a.example", true, "https://10.0.0.7/jwks", None),
        ("https://a.internal", false, "https://b.internal/jwks", None),
        ("https://a.internal", false, "http://localhost/jwks", Some("http://")),
        ("http://localhost:1", false, "http://127.0.0.1:2/jwks", None),
        ("http://localhost:1", false, "http://10.0.0.7/jwks", Some("http://")),
        ("https://a.example", true, "https://u:p@a.example/jwks", Some("not the URL")),
        ("https://a.example", true, "ftp://a.example/jwks", Some("not the URL")),
        ("https://a.example", true, "/jwks", Some("not the URL")),
        ("https://a.example", true, "", Some("not the URL")),
        ("https://a.example", true, "https://a.example/#x", Some("not the URL")),
    ];

    #[test]
    fn a_document_may_not_choose_machines_of_the_gateways_network() {
        for (issuer, allow_http, jwks_uri, against) in NAMED {
            let (document, discovery) = of(issuer, *allow_http).unwrap().unwrap();
            match (discovery.keys_at(&document, jwks_uri), against) {
                (Ok(keys), None) => assert!(jwks_uri.starts_with(&keys.to_string()), "{keys}"),
                (Err((what, _)), Some(against)) => {
                    assert!(what.contains(against), "{jwks_uri}: {what}");
                }
                (outcome, _) => panic!("{issuer} {allow_http} {jwks_uri}: {outcome:?}"),
            }
        }
        let (document, discovery) = of("https://a.example", false).unwrap().unwrap();
        let long = format!("https://a.example/{}", "x".repeat(JWKS_URI_BYTES_MAX));
        assert!(discovery.keys_at(&document, &long).is_err());
    }

    #[test]
    fn an_issuer_alone_is_a_source_of_keys_and_beside_another_one_it_is_none() {
        let source = |lines: &str| {
            let text = format!("[auth.v]\nalgorithms = ['ES256']\n{lines}\n");
            let folder = std::path::Path::new("");
            let loaded = crate::config::parse("g.toml", folder, &text, &|_| None).unwrap();
            let problems = loaded.problems.iter().map(|it| format!("{}: {}", it.path, it.what));
            let found = match &loaded.config.auth["v"].keys {
                Some(crate::config::KeySource::Url(keys)) => Some(keys.clone()),
                _ => None,
            };
            (found, problems.collect::<Vec<String>>())
        };
        let (found, problems) = source("issuer = 'https://a.example/'\njwks.refresh = '1h'");
        let (keys, none) = (found.unwrap(), Vec::<String>::new());
        assert_eq!(
            (keys.discovery.unwrap().issuer.as_str(), problems),
            ("https://a.example/", none)
        );
        assert_eq!(keys.refresh, std::time::Duration::from_secs(3600));
        let (found, _) = source("issuer = 'https://a.example/'\njwks_url = 'https://b.example/'");
        assert_eq!(found.unwrap().discovery, None);
        for (lines, told) in [
            ("issuer = 'shop'", "auth.v: has no key to verify with"),
            ("audience = ['shop']", "auth.v: has no key to verify with"),
            ("issuer = 'http://a.example'", "auth.v.issuer: would fetch keys in clear"),
            ("issuer = 'https://a.example?x'", "auth.v.issuer: is an issuer with a user"),
            ("issuer = 3", "auth.v.issuer: must be a string"),
        ] {
            let (found, problems) = source(lines);
            assert!(found.is_none() && problems.len() == 1, "{lines}: {problems:?}");
            assert!(problems[0].starts_with(told), "{lines}: {problems:?}");
        }
    }
}
