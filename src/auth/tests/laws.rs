//! Laws: no input makes the room panic, and no bent token is another caller.

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::auth::KeySet;
use crate::auth::carrier::{Form, Places, find, remove};

proptest! {
    #[test]
    fn a_token_with_one_byte_changed_is_never_another_identity(
        place: prop::sample::Index,
        byte in 0x20_u8..0x7F,
    ) {
        let good = token_with(json!({"role": "user"}));
        let mut bent = good.clone().into_bytes();
        let place = place.index(bent.len());
        bent[place] = byte;
        let bent = String::from_utf8(bent).unwrap();
        if bent != good {
            prop_assert!(verify(&hs256(), &bent).is_err(), "{}", bent);
        }
    }

    #[test]
    fn a_bent_ecdsa_token_is_never_another_identity(place: prop::sample::Index, bit in 0..6) {
        let verifier = with_pem(Algorithm::ES256);
        let good = good_token(Algorithm::ES256);
        let mut bent = good.into_bytes();
        let place = place.index(bent.len());
        bent[place] ^= 1_u8 << bit;
        if let Ok(bent) = String::from_utf8(bent) {
            prop_assert!(verify(&verifier, &bent).is_err(), "{}", bent);
        }
    }

    #[test]
    fn no_text_panics(
        token in ".{0,200}",
        parts in "[a-zA-Z0-9_-]{0,40}(\\.[a-zA-Z0-9_-]{0,40}){0,4}",
    ) {
        prop_assert!(verify(&hs256(), &token).is_err());
        prop_assert!(verify(&hs256(), &parts).is_err());
        let algorithms = [Algorithm::HS256, Algorithm::ES256];
        prop_assert!(KeySet::from_jwks(&token, &algorithms).is_err());
        prop_assert!(KeySet::from_pem(&token, &algorithms).is_err());
    }

    #[test]
    fn no_signed_header_or_payload_panics(header in "\\PC{0,60}", payload in "\\PC{0,60}") {
        let good = plain_header(Algorithm::HS256);
        prop_assert!(verify(&hs256(), &compact(Algorithm::HS256, &header, &payload)).is_err());
        prop_assert!(verify(&hs256(), &compact(Algorithm::HS256, &good, &payload)).is_err());
    }

    #[test]
    fn no_token_is_found_where_one_was_removed(
        authorization in "[Bb]earer[ \t,x]{0,2}[a-z.]{0,4}|[ -~]{0,12}",
        cookie in "([tx]{0,1}(token)?[= ]{0,2}[a-z\";]{0,3}; ?){0,4}",
    ) {
        let sources =
            [TokenSource::Header(AUTHORIZATION), TokenSource::Cookie("token".to_owned())];
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&authorization).unwrap());
        headers.insert(COOKIE, HeaderValue::from_str(&cookie).unwrap());
        let places = Places { headers: &headers, query: None, certificate: None };
        let _ = find(&sources, Form::Token, places);
        remove(&sources, Form::Token, &mut headers);
        let places = Places { headers: &headers, query: None, certificate: None };
        prop_assert_eq!(find(&sources, Form::Token, places), Ok(None));
    }
}
