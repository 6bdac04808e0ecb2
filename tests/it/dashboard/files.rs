//! The files, and the fields that they come with.

use super::stage::GATEWAY;
use crate::support::{Client, Gateway, Reply};

fn get(gateway: &Gateway, path: &str) -> Reply {
    Client::get(gateway.admin, path).header("Host", gateway.admin.to_string()).send()
}

#[test]
fn a_page_may_run_its_own_scripts_and_nothing_else() {
    let gateway = Gateway::start(GATEWAY);
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                  connect-src 'self'; base-uri 'none'; form-action 'none'; \
                  frame-ancestors 'none'; require-trusted-types-for 'script'; \
                  trusted-types 'none'";
    for (path, kind) in [
        ("/ui/", "text/html; charset=utf-8"),
        ("/ui/index.html", "text/html; charset=utf-8"),
        ("/ui/app.css", "text/css; charset=utf-8"),
        ("/ui/icon.svg", "image/svg+xml"),
        ("/ui/js/main.js", "text/javascript; charset=utf-8"),
        ("/ui/js/pages/overview.js", "text/javascript; charset=utf-8"),
    ] {
        let file = get(&gateway, path);
        assert_eq!((file.status, file.header("content-type")), (200, Some(kind)), "{path}");
        for (name, value) in [
            ("content-security-policy", policy),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-cache"),
        ] {
            assert_eq!(file.headers_named(name), [value], "{path} {name}");
        }
    }
    for (path, status) in [("/ui/js/none.js", 404), ("/ui/../mod.rs", 404), ("/ui/js/", 404)] {
        let none = get(&gateway, path);
        assert_eq!(none.status, status, "{path}");
        assert_eq!(none.header("content-security-policy"), Some(policy), "{path}");
    }
    let folder = get(&gateway, "/ui");
    assert_eq!((folder.status, folder.header("location")), (308, Some("/ui/")));
    let written = Client::request(gateway.admin, "POST", "/ui/")
        .header("Host", gateway.admin.to_string())
        .header("Content-Type", "application/json")
        .send();
    assert_eq!(written.status, 405, "{written:?}");
}

#[test]
fn a_file_that_a_browser_has_is_not_sent_again() {
    let gateway = Gateway::start(GATEWAY);
    let first = get(&gateway, "/ui/app.css");
    let tag = first.header("etag").expect("a tag");
    let again = |tag: &str| {
        Client::get(gateway.admin, "/ui/app.css")
            .header("Host", gateway.admin.to_string())
            .header("If-None-Match", tag)
            .send()
    };
    let known = again(tag);
    assert_eq!((known.status, known.body.len(), known.header("etag")), (304, 0, Some(tag)));
    assert_eq!(again("\"another\"").status, 200);
    assert_ne!(get(&gateway, "/ui/").header("etag"), Some(tag), "each file has its own");
}
