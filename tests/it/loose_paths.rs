//! Upstreams that read paths more loosely than RFC 3986: no spelling of a protected path gets past
//! its protection, and what is forwarded stays as it came.

use crate::support::{
    AUTH, Client, Edge, Folder, Gateway, Upstream, claims, operate, raw, response, run, status,
    token,
};

/// `/me` and `/a/{id}/b` with a token, beside a public route for everything.
fn config(upstream: &Upstream, paths: &str) -> String {
    format!(
        "{AUTH}{}paths = [{paths}]
        [routes.all]
        path = \"/*\"
        upstream = \"shop\"
        [routes.me]
        path = \"/me\"
        methods = [\"GET\", \"PUT\"]
        upstream = \"shop\"
        auth = \"users\"
        [routes.deep]
        path = \"/a/{{id}}/b\"
        upstream = \"shop\"
        auth = \"users\"
        [routes.any]
        path = \"/{{x}}/me\"
        upstream = \"shop\"
        [routes.saved]
        path = \"/saved/*\"
        methods = [\"GET\", \"POST\"]
        upstream = \"shop\"
        cache = {{ ttl = \"1h\" }}
        [routes.strict]
        host = \"strict.test\"
        path = \"/only\"
        methods = [\"POST\"]
        upstream = \"shop\"",
        upstream.table("shop")
    )
}

const SPELLINGS: [(&str, &[usize]); 14] = [
    ("/me", &[]),
    ("/ME", &[0]),
    ("/%6De", &[]),
    ("/%4De", &[0]),
    ("/me/", &[1]),
    ("/me/?x=1", &[1]),
    ("/me;x", &[2]),
    ("/me;", &[2]),
    ("/me%3bx", &[2]),
    ("/;x/me", &[2]),
    ("/me/;x", &[1, 2]),
    ("/Me;a=b/", &[0, 1, 2]),
    ("/a;v=1/7/b;x", &[2]),
    ("/A/7/B", &[0]),
];

#[test]
fn a_protected_path_is_protected_in_every_spelling_that_its_upstream_reads() {
    const WORDS: [&str; 3] = ["any-case", "trailing-slash", "parameters"];
    let upstream = Upstream::replying(response("200 OK", "fine"));
    for bits in 0..8_usize {
        let set = |word: usize| bits >> word & 1 == 1;
        let words: Vec<_> = (0..3).filter(|word| set(*word)).map(|w| WORDS[w]).collect();
        let paths = words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        let gateway = Gateway::start(&config(&upstream, &paths));
        for (path, needs) in SPELLINGS {
            let is_read_so = needs.iter().all(|word| set(*word));
            let anonymous = Client::get(gateway.public, path).send();
            let expected = if is_read_so { 401 } else { 200 };
            assert_eq!(anonymous.status, expected, "{words:?} {path}");
            assert_eq!(upstream.seen(), usize::from(!is_read_so), "{words:?} {path}");
            upstream.forget();
            let known = Client::get(gateway.public, path).bearer(token(claims("42"))).send();
            assert_eq!(known.status, 200, "{words:?} {path}");
            let passed = upstream.only();
            assert_eq!(passed.header("x-user-id").is_some(), is_read_so, "{words:?} {path}");
            // What is forwarded is canonical, and otherwise as it came.
            let came = path.replace("%6D", "m").replace("%4D", "M").replace("%3b", "%3B");
            assert_eq!(passed.target(), came, "{words:?}");
            upstream.forget();
        }
        // The methods of a route that is read so are its methods.
        let asked = |method: &str, path: &str| {
            let asked = Client::request(gateway.public, method, path).header("Host", "strict.test");
            let reply = asked.send();
            (reply.status, reply.header("allow").unwrap_or_default().to_owned())
        };
        assert_eq!(asked("POST", "/only").0, 200, "{words:?}");
        let mut put = Client::request(gateway.public, "PUT", "/Me").send().status;
        assert_eq!(put, if set(0) { 401 } else { 200 }, "{words:?}");
        put = Client::request(gateway.public, "POST", "/Me").send().status;
        assert_eq!(put, 200, "the public route takes what the protected one does not");
        upstream.forget();
    }
}

#[test]
fn a_letter_is_a_letter_also_where_it_is_escaped() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    for (paths, expected) in [("\"any-case\"", 401), ("\"parameters\"", 200)] {
        let gateway = Gateway::start(&format!(
            "{AUTH}{}paths = [{paths}]
            [routes.all]\npath = \"/*\"\nupstream = \"shop\"
            [routes.menu]\npath = \"/caf%C3%A9/key\"\nupstream = \"shop\"\nauth = \"users\"",
            upstream.table("shop")
        ));
        for path in ["/caf%C3%89/key", "/CAF%c3%89/KEY", "/caf%C3%A9/%E2%84%AAey"] {
            assert_eq!(Client::get(gateway.public, path).send().status, expected, "{path}");
        }
        assert_eq!(Client::get(gateway.public, "/caf%C3%A9/key").send().status, 401);
        assert_eq!(Client::get(gateway.public, "/caf%C3%AA/key").send().status, 200);
    }
}

#[test]
fn a_method_is_refused_in_every_spelling() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let gateway = Gateway::start(&format!(
        "{}paths = [\"any-case\", \"trailing-slash\", \"parameters\"]\n\
         [routes.a]\npath = \"/a\"\nmethods = [\"GET\", \"PUT\"]\nupstream = \"shop\"\n",
        upstream.table("shop")
    ));
    for path in ["/a", "/A", "/a/", "/a;x", "/A;x/"] {
        let reply = Client::request(gateway.public, "POST", path).send();
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD, PUT")), "{path}");
        assert_eq!(Client::get(gateway.public, path).send().status, 200, "{path}");
    }
    assert_eq!(Client::get(gateway.public, "/ab").send().status, 404);
}

#[test]
fn a_dot_segment_with_a_parameter_is_refused() {
    let edge = Edge::with("[routes.me]\npath = \"/me\"\nupstream = \"shop\"\nauth = \"users\"\n");
    for path in [
        "/a/..;/me",
        "/a/..;x=1/me",
        "/a/.;/me",
        "/..;/me",
        "/a/%2e%2e;/me",
        "/a/.%2E;/me",
        "/a/..%3b/me",
        "/a/%2e%3B/me",
        "/a/..;",
        "/..;/..;/me",
        "//..;//me",
        "/a/./..;/me",
        "/a/..;?x",
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n");
        assert_eq!(edge.refuses(format!("{head}\r\n")), 400, "{path}");
        let known = format!("{head}Authorization: Bearer {}\r\n\r\n", token(claims("42")));
        assert_eq!(edge.refuses(known), 400, "{path}");
    }
    for path in ["/a/...;x", "/a/.b;x", "/a;x/b", "/a/b;..", "/a?..;/"] {
        let passed = edge.passes(format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n"));
        assert_eq!(passed.target(), path);
    }
    assert_eq!(status(&raw(edge.gateway.public, "GET /me HTTP/1.1\r\nHost: a\r\n\r\n")), 401);
}

#[test]
fn a_write_to_any_spelling_makes_all_of_them_stale() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let gateway = Gateway::start(&config(&upstream, "\"any-case\", \"parameters\""));
    // How often the upstream is asked for these two.
    let fetched = || {
        upstream.forget();
        for path in ["/saved/one", "/Saved/One;x"] {
            assert_eq!(Client::get(gateway.public, path).send().status, 200);
        }
        upstream.seen()
    };
    assert_eq!((fetched(), fetched()), (2, 0));
    for path in ["/saved/one", "/SAVED/one", "/saved/ONE;y=2"] {
        let written = Client::request(gateway.public, "POST", path).body("x").send();
        assert_eq!(written.status, 200);
        assert_eq!((fetched(), fetched()), (2, 0), "{path}");
    }
    assert_eq!(Client::request(gateway.public, "POST", "/saved/two").body("x").send().status, 200);
    assert_eq!(fetched(), 0);
    for purge in [
        r#"{"path": "/saved"}"#,
        r#"{"path": "/SAVED/*"}"#,
        r#"{"url": "http://shop.test/saved/One"}"#,
    ] {
        assert_eq!(operate(&gateway, "POST", "/v1/cache/purge", purge).status, 200, "{purge}");
        assert_eq!((fetched(), fetched()), (2, 0), "{purge}");
    }
}

#[test]
fn check_says_where_a_protected_path_has_a_way_around() {
    let check = |paths: &str| {
        let upstream = Upstream::replying(response("200 OK", ""));
        let folder = Folder::new();
        folder.write("gateway.toml", config(&upstream, paths));
        let checked = run(&folder, &["check", "--config", "gateway.toml"]);
        (checked.code, checked.stdout, checked.stderr)
    };
    let (code, stdout, said) = check("");
    assert_eq!((code, stdout.as_str()), (Some(0), "ok: 6 routes\n"), "{said}");
    for part in [
        "warning: routes.me.path: other spellings of this path fall to routes.all (no auth)",
        "GET http://localhost:8080/ME, GET http://localhost:8080/me/, ",
        "GET http://localhost:8080/me;x",
        "upstreams.shop.paths = [\"any-case\", \"trailing-slash\", \"parameters\"]",
        "warning: routes.deep.path: ",
        "2 warnings in gateway.toml",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (code, _, said) = check("\"any-case\", \"parameters\"");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("/me/\n") && !said.contains("/ME,"), "{said}");
    let (code, stdout, said) = check("\"parameters\", \"any-case\", \"trailing-slash\"");
    assert_eq!((code, stdout.as_str(), said.as_str()), (Some(0), "ok: 6 routes\n", ""));
    let (code, _, said) = check("\"case\"");
    assert_eq!(code, Some(2));
    assert!(said.contains("\"case\" is not a choice here"), "{said}");
    assert!(said.contains("\"any-case\" or \"trailing-slash\" or \"parameters\""), "{said}");
}

#[test]
fn routes_that_their_upstream_takes_for_one_are_a_problem() {
    let route = |name: &str, path: &str| {
        format!("[routes.{name}]\npath = \"{path}\"\nupstream = \"shop\"\n")
    };
    let config = |paths: &str| {
        let table = "[upstreams.shop]\nservers = [\"http://127.0.0.1:3000\"]\n";
        format!("{table}paths = [{paths}]\n{}{}", route("lower", "/me"), route("upper", "/ME"))
    };
    let folder = Folder::new();
    for (paths, expected) in [("", Some(0)), ("\"any-case\"", Some(2)), ("\"parameters\"", Some(0))]
    {
        folder.write("gateway.toml", config(paths));
        let checked = run(&folder, &["check", "--config", "gateway.toml"]);
        assert_eq!(checked.code, expected, "{checked:?}");
        let told =
            checked.stderr.contains("it matches the same requests as routes.lower, as the `paths`");
        assert_eq!(told, expected == Some(2), "{checked:?}");
    }
}
