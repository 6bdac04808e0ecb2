//! Thumbprints and targets, beside what whole requests show.

use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::{Sent, is_same_target};
use crate::auth::jwk::read_public;
use crate::base::http::authority::Authority;

fn thumbprint(jwk: &Value) -> Option<String> {
    read_public(jwk.as_object().unwrap()).ok().map(|key| key.thumbprint)
}

#[test]
fn a_thumbprint_is_that_of_the_required_members() {
    // RFC 9449 §6.1.
    let x = "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs";
    let y = "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA";
    let jwk = json!({"kty": "EC", "x": x, "y": y, "crv": "P-256", "kid": "1", "use": "sig"});
    let expected = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    assert_eq!(thumbprint(&jwk).as_deref(), Some(expected));
    // RFC 7638 §3.1.
    let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSo\
             c_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YG\
             jQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt\
             -bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDK\
             gw";
    let jwk = json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"});
    let expected = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
    assert_eq!(thumbprint(&jwk).as_deref(), Some(expected));
    for private in ["d", "p", "q", "dp", "dq", "qi", "oth"] {
        let mut jwk = jwk.clone();
        jwk[private] = json!("AQAB");
        assert_eq!(thumbprint(&jwk), None, "{private}");
    }
    let secret = json!({"kty": "oct", "k": "c2l4dHktZm91ci1ieXRlcy1vZi10ZXN0LXNlY3JldC0"});
    assert_eq!(thumbprint(&secret), None);
}

#[test]
fn a_target_is_compared_as_its_scheme_has_it() {
    let is_same = |uri: &str, scheme: &str, host: &str| {
        let authority = Authority::parse(host.as_bytes()).unwrap_or_else(Authority::none);
        let sent = Sent {
            headers: &HeaderMap::new(),
            method: &Method::GET,
            scheme,
            authority: &authority,
            path: "/a",
        };
        is_same_target(uri, &sent)
    };
    for (uri, scheme, host) in [
        ("https://shop.test/a", "https", "shop.test:443"),
        ("https://shop.test:443/a", "https", "shop.test"),
        ("http://shop.test:80/a", "http", "shop.test"),
        ("https://shop.test:0443/a", "https", "shop.test"),
        ("https://[2001:db8:0::1]/a", "https", "[2001:DB8::1]"),
    ] {
        assert!(is_same(uri, scheme, host), "{uri} {scheme} {host}");
    }
    for (uri, scheme, host) in [
        ("https://shop.test:80/a", "https", "shop.test"),
        ("http://shop.test/a", "https", "shop.test"),
        ("https://shop.test/a", "https", "shop.test:8443"),
        ("https://shop.test:8443/a", "https", "shop.test"),
        ("https://shop.test:/b", "https", "shop.test"),
        ("https:///a", "https", ""),
        ("https://shop.test\\@x/a", "https", "shop.test"),
    ] {
        assert!(!is_same(uri, scheme, host), "{uri} {scheme} {host}");
    }
}
