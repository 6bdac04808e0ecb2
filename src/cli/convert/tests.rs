//! Hostile sources: whatever stands there, nothing panics, and what comes out is TOML.

use std::path::Path;

use proptest::prelude::*;
use toml::de::DeTable;

use super::{From, convert, finished};

const NGINX: [&str; 5] = [
    include_str!("../../../tests/it/convert/nginx/spa.conf"),
    include_str!("../../../tests/it/convert/nginx/tls.conf"),
    include_str!("../../../tests/it/convert/nginx/balanced.conf"),
    include_str!("../../../tests/it/convert/nginx/limits.conf"),
    include_str!("../../../tests/it/convert/nginx/legacy.conf"),
];
const KONG: [&str; 5] = [
    include_str!("../../../tests/it/convert/kong/shop.yml"),
    include_str!("../../../tests/it/convert/kong/limited.yml"),
    include_str!("../../../tests/it/convert/kong/keys.yml"),
    include_str!("../../../tests/it/convert/kong/balanced.json"),
    include_str!("../../../tests/it/convert/kong/transformed.yml"),
];
const TRAEFIK: [&str; 5] = [
    include_str!("../../../tests/it/convert/traefik/app.yml"),
    include_str!("../../../tests/it/convert/traefik/canary.toml"),
    include_str!("../../../tests/it/convert/traefik/guarded.yml"),
    include_str!("../../../tests/it/convert/traefik/hardened.yml"),
    include_str!("../../../tests/it/convert/traefik/paths.yml"),
];

/// What may come in the place of something else.
const PIECES: [&str; 32] = [
    "",
    " ",
    "\n",
    "{",
    "}",
    ";",
    "\"",
    "'",
    "#",
    "$1",
    "${",
    "\\",
    "/",
    "//",
    "..",
    "*",
    "&a",
    "*a",
    "<<: *a",
    "[",
    "]",
    ": ",
    "- ",
    "~",
    "null",
    "0",
    "-1",
    "99999999999999999999",
    "é",
    "\u{7f}",
    "\u{0}",
    "/*",
];

/// A text with some of its parts cut, doubled or replaced.
fn mutated(text: &str, cuts: &[(usize, usize, usize, bool)]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for (at, length, piece, doubles) in cuts {
        let at = at % (chars.len() + 1);
        let end = (at + length).min(chars.len());
        let piece = PIECES[piece % PIECES.len()];
        let old: Vec<char> = chars[at..end].to_vec();
        let kept: &[char] = if *doubles { &old } else { &[] };
        let new: Vec<char> =
            kept.iter().copied().chain(piece.chars()).chain(kept.iter().copied()).collect();
        chars.splice(at..end, new);
    }
    chars.into_iter().collect()
}

/// Converts it; what comes out is TOML, and says what it leaves out.
fn survives(from: From, name: &str, text: &str) {
    let folder = Path::new("nowhere");
    let Ok(sheet) = convert(from, (name, text), folder) else { return };
    let made = finished(sheet, name, folder);
    let written = made.text.unwrap_or_default();
    if let Err(error) = DeTable::parse(&written) {
        panic!("{error}\n{written}");
    }
    assert_eq!(made.status == 0, made.said.is_empty(), "{}", made.said);
}

fn cuts() -> impl Strategy<Value = Vec<(usize, usize, usize, bool)>> {
    prop::collection::vec((0_usize..5_000, 0_usize..40, 0_usize..PIECES.len(), any::<bool>()), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_source_of_nginx_breaks_it(which in 0_usize..5, cuts in cuts()) {
        survives(From::Nginx, "nginx.conf", &mutated(NGINX[which], &cuts));
    }

    #[test]
    fn no_source_of_kong_breaks_it(which in 0_usize..5, cuts in cuts()) {
        survives(From::Kong, "kong.yml", &mutated(KONG[which], &cuts));
    }

    #[test]
    fn no_source_of_traefik_breaks_it(which in 0_usize..5, cuts in cuts()) {
        let name = if which == 1 { "traefik.toml" } else { "traefik.yml" };
        survives(From::Traefik, name, &mutated(TRAEFIK[which], &cuts));
    }

    #[test]
    fn no_text_breaks_it(text in "\\PC{0,200}") {
        for (from, name) in [
            (From::Nginx, "nginx.conf"),
            (From::Kong, "kong.yml"),
            (From::Traefik, "traefik.yml"),
            (From::Traefik, "traefik.toml"),
        ] {
            survives(from, name, &text);
        }
    }
}
