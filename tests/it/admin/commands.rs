//! `portcullis explain` and `portcullis limits` against a running gateway: what they print, and
//! their exit status.

use serde_json::json;

use crate::support::{
    AUTH, Client, Folder, Gateway, Refused, Upstream, claims, operate, response, run, run_with,
    token,
};

const CONFIG: &str = r#"
[limits.api]
key = ["claim:sub"]
allow = ["3/1h", "2/1m"]
tiers = { by = "claim:plan", allow = { gold = ["9/1h"] } }
[limits.one]
key = ["claim:sub"]
concurrent = 1
[session]
id_from = ["claim:sid", "cookie:sid"]
header = "x-session"
[routes.api]
path = "/api/*"
upstream = "shop"
auth = "users"
limits = ["api", "one"]
[routes.open]
path = "/open"
upstream = "shop"
[routes.session]
path = "/session"
upstream = "shop"
auth = "users"
session = "required"
[routes.cart]
path = "/cart"
upstream = "shop"
session = true
[routes.closed]
path = "/closed"
respond = { status = 403 }
[routes.moved]
path = "/moved"
respond = { status = 301, location = "/open" }
[routes.across]
path = "/across"
upstream = "shop"
cors = { origins = ["https://app.test"] }
[routes.told]
path = "/told/{id}"
answers = "deliveries"
auth = "users"
[routes.later]
path = "/later"
methods = ["POST"]
upstream = "shop"
auth = "users"
deliver = { queue = "mail" }
[queues.mail]
durable = false
"#;

fn start() -> (Upstream, Gateway) {
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let gateway = Gateway::start(&(AUTH.to_owned() + &upstream.table("shop") + CONFIG));
    (upstream, gateway)
}

fn ran(gateway: &Gateway, arguments: &[&str]) -> Refused {
    let url = format!("http://{}", gateway.admin);
    run(&Folder::new(), &[arguments, &["--admin", &url]].concat())
}

/// What the command printed, which must succeed.
fn said(gateway: &Gateway, arguments: &[&str]) -> String {
    let ran = ran(gateway, arguments);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    ran.stdout
}

#[test]
fn an_explanation_is_one_line_for_each_thing_that_decides() {
    let (upstream, gateway) = start();
    let bearer = format!("Authorization: Bearer {}", token(claims("ada")));
    let ask = ["explain", "POST", "http://shop.test/api/x?q=1", "-H", &bearer];
    let server = format!("server   {}: it is the only server\n", upstream.url());
    let expected = "request  POST shop.test/api/x?q=1\n\
        route    api\n\
        caller   sub ada\n\
        claims   sent as x-user-id; x-user-role is missing: the caller has no claim \"role\"\n\
        limit    api by claim:sub=ada: 3 of 3 left in 1h, costs 1: passes\n\
        limit    api by claim:sub=ada: 2 of 2 left in 1m, costs 1: passes\n\
        limit    one by claim:sub=ada: 0 of 1 in flight: passes\n"
        .to_owned()
        + &server
        + "outcome  passes, to the upstream shop\n";
    assert_eq!(said(&gateway, &ask), expected);
    assert_eq!(said(&gateway, &ask), expected, "nothing is charged");
    assert_eq!(upstream.seen(), 0, "nothing is forwarded");
    for _ in 0..2 {
        let reply = Client::get(gateway.public, "/api/x").bearer(token(claims("ada"))).send();
        assert_eq!(reply.status, 200);
    }
    let refused = said(&gateway, &ask);
    assert!(refused.contains("0 of 2 left in 1m, fits again in "), "{refused}");
    assert!(refused.contains("outcome  429 limit_exceeded: the limit `api-1m`"), "{refused}");
    for (arguments, line) in [
        (["GET", "/open"], "caller   the route is public"),
        (["GET", "/open"], "request  GET localhost/open"),
        (["GET", "/api/x"], "outcome  401 token_missing: "),
        (["GET", "/nowhere"], "outcome  404 route_not_found: "),
    ] {
        let said = said(&gateway, &[["explain"].as_slice(), &arguments].concat());
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
    let address = ["explain", "GET", "/open", "--address", "192.0.2.7", "--json"];
    let raw: serde_json::Value = serde_json::from_str(&said(&gateway, &address)).unwrap();
    let (server, why) = (upstream.url(), "it is the only server");
    let passes = json!({ "passes": true, "upstream": "shop", "server": server, "why": why });
    assert_eq!(raw["outcome"], passes);
}

/// A token on the command line would stand in every process list.
#[test]
fn a_field_is_given_by_where_it_lies() {
    let (_upstream, gateway) = start();
    let bearer = format!("Bearer {}", token(claims("ada")));
    let url = format!("http://{}", gateway.admin);
    let folder = Folder::new();
    folder.write("bearer", format!("{bearer}\n"));
    folder.write("token", token(claims("ada")));
    for (field, input) in [
        ("Authorization: env:BEARER", ""),
        ("Authorization: Bearer env:TOKEN", ""),
        ("Authorization: file:bearer", ""),
        ("Authorization: Bearer file:token", ""),
        ("Authorization: -", &*format!("{bearer}\n")),
        ("Authorization: Bearer -", &*token(claims("ada"))),
    ] {
        let arguments = ["explain", "GET", "/api/x", "-H", field, "--admin", &url];
        let variables = [("BEARER", &*bearer), ("TOKEN", &bearer["Bearer ".len()..])];
        let said = run_with(&folder, &arguments, &variables, input);
        assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{field}");
        assert!(said.stdout.contains("caller   sub ada"), "{field}: {}", said.stdout);
    }
    for (field, what) in [
        ("Authorization: Bearer env:NONE_SUCH", "the environment variable NONE_SUCH is not set"),
        ("X-Api-Key: file:nowhere", "cannot read nowhere"),
        ("Cookie: -", "- is empty"),
    ] {
        let refused = ran(&gateway, &["explain", "GET", "/open", "-H", field]);
        assert_eq!(refused.code, Some(2), "{field}");
        assert!(refused.stderr.contains(what), "{field}: {}", refused.stderr);
    }
}

#[test]
fn an_explanation_says_what_the_gateway_itself_answers() {
    let (upstream, gateway) = start();
    let bearer = format!("authorization: Bearer {}", token(claims("ada")));
    let preflight = ["-H", "origin: https://app.test", "-H", "access-control-request-method: GET"];
    for (arguments, lines) in [
        (
            vec!["GET", "http://shop.test/closed"],
            ["route    closed\n", "outcome  403, by respond of the route\n"],
        ),
        (vec!["GET", "/moved"], ["route    moved\n", "301 to /open, by respond of the route\n"]),
        (
            [&["OPTIONS", "/across"], preflight.as_slice()].concat(),
            ["route    across\n", "outcome  204, by cors of the route\n"],
        ),
        (vec!["GET", "/told/1", "-H", &bearer], ["route    told\n", "answers = \"deliveries\" of"]),
        (vec!["GET", "/told/1"], ["route    told\n", "outcome  401 token_missing: "]),
        (vec!["POST", "/later", "-H", &bearer], ["route    later\n", "by the queue mail, which"]),
    ] {
        let said = said(&gateway, &[["explain"].as_slice(), &arguments].concat());
        assert!(lines.iter().all(|line| said.contains(line)), "{lines:?}: {said}");
        assert!(!said.contains("passes, to the upstream"), "{said}");
    }
    assert_eq!(upstream.seen(), 0, "nothing is forwarded");
    let ran = ran(&gateway, &["explain", "GET", "/closed", "--json"]);
    let raw: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let outcome = json!({ "passes": false, "status": 403, "by": "respond of the route" });
    assert_eq!(raw["outcome"], outcome);
    let asked = r#"{"path": "/closed", "scheme": "ftp"}"#;
    assert_eq!(operate(&gateway, "POST", "/v1/explain", asked).status, 400);
}

/// Every command that asks a gateway.
const ASKING: [&[&str]; 32] = [
    &["status"],
    &["doctor"],
    &["revoke", "--sub", "42"],
    &["revoke", "--jti", "t1", "--undo"],
    &["revoke", "--list"],
    &["purge", "--all"],
    &["warm", "shop"],
    &["cache"],
    &["cache", "--url", "http://shop.test/"],
    &["keys", "create", "--owner", "ada"],
    &["keys", "list", "--owner", "ada"],
    &["keys", "revoke", "k1"],
    &["families", "begin", "--sub", "ada"],
    &["families", "list", "--sub", "ada"],
    &["families", "end", "f1"],
    &["explain", "GET", "/"],
    &["limits", "--refused"],
    &["limits", "--pressed"],
    &["limits", "--policy", "api", "--key", "claim:sub=ada"],
    &["limits", "--policy", "api", "--key", "claim:sub=ada", "--reset"],
    &["requests"],
    &["requests", "--json"],
    &["queues"],
    &["queues", "pause", "mail"],
    &["queues", "resume", "mail"],
    &["deliveries", "list", "mail"],
    &["deliveries", "show", "d1"],
    &["deliveries", "requeue", "d1"],
    &["deliveries", "requeue", "--queue", "mail"],
    &["deliveries", "cancel", "d1"],
    &["diff"],
    &["dashboard"],
];

#[test]
fn what_answers_without_being_a_gateway_has_done_nothing() {
    for status in ["200 OK", "201 Created"] {
        let other = Upstream::replying(response(status, "{}"));
        for arguments in ASKING {
            let ran = run(&Folder::new(), &[arguments, &["--admin", &other.url()]].concat());
            assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{arguments:?}: {ran:?}");
            let expected = "is no admin listener of this version";
            assert!(ran.stderr.contains(expected), "{arguments:?}: {ran:?}");
        }
        assert_eq!(other.seen(), ASKING.len());
    }
}

#[test]
fn an_explanation_tells_in_what_a_token_is_not_as_it_must_be() {
    let (_upstream, gateway) = start();
    let explained = |name: &str, value: serde_json::Value| {
        let mut claims = claims("ada");
        claims[name] = value;
        if claims[name].is_null() {
            claims.as_object_mut().expect("claims").remove(name);
        }
        let bearer = format!("Authorization: Bearer {}", token(claims));
        said(&gateway, &["explain", "GET", "/api/x", "-H", &bearer])
    };
    for (name, value, line) in [
        (
            "iss",
            json!("https://a.test"),
            "another issuer: its iss is \"https://a.test\", and \"https://login.test\" is wanted",
        ),
        ("aud", json!(["a", "b"]), "audience: its aud is [\"a\",\"b\"], and \"shop\" is wanted"),
        ("aud", json!(null), "another audience: it names no aud, and \"shop\" is wanted"),
        ("sub", json!(42), "token refused: the claim sub must be a text, and is a number"),
        ("exp", json!("never"), "the claim exp must be a number of seconds, and is a text"),
    ] {
        let said = explained(name, value);
        assert!(said.contains(line), "{line:?} is not in {said}");
        assert!(said.contains("\noutcome  401 token_invalid: "), "{said}");
    }
    let nameless = explained("sub", json!(null));
    assert!(nameless.contains("\ncaller   no sub: a limit by claim:sub counts the"), "{nameless}");
    assert!(nameless.contains("revoke --sub cannot end it\nclaims   x-user-id is missing: the"));
    assert!(nameless.contains("\nlimit    api by address=127.0.0.1: "), "{nameless}");
}

#[test]
fn an_explanation_tells_of_the_session() {
    let (_upstream, gateway) = start();
    let bearer = format!("Authorization: Bearer {}", token(claims("ada")));
    let sid = |sid: &str| {
        let mut claims = claims("ada");
        claims["sid"] = json!(sid);
        format!("authorization: Bearer {}", token(claims))
    };
    let missing = said(&gateway, &["explain", "GET", "/session", "-H", &sid("s1")]);
    assert!(missing.contains("outcome  401 session_missing: "), "{missing}");
    assert!(missing.contains("\nsession  the store has none by the id that"), "{missing}");
    let written =
        operate(&gateway, "PUT", "/v1/sessions/s1?ttl=30m", r#"{"email": "a@example.com"}"#);
    assert_eq!(written.status, 201, "{}", written.text());
    for (request, lines) in [
        (
            vec!["/session", "-H", &bearer],
            ["session  the request names none where", "outcome  401 session_missing: "],
        ),
        (vec!["/session", "-H", &sid("s1")], ["session  sent as x-session\n", "outcome  passes, "]),
        (
            vec!["/cart"],
            ["caller   no credentials are asked for\nsession  the request names none", "passes, "],
        ),
        (
            vec!["/cart", "-H", "cookie: sid=s2"],
            ["session  the store has none by the id that", "outcome  passes, "],
        ),
        (vec!["/cart", "-H", "cookie: sid=s1"], ["session  sent as x-session", "passes, "]),
    ] {
        let said = said(&gateway, &[&["explain", "GET"], request.as_slice()].concat());
        assert!(lines.iter().all(|line| said.contains(line)), "{lines:?}: {said}");
    }
    let open = said(&gateway, &["explain", "GET", "/open"]);
    assert!(!open.contains("session"), "{open}");
}

#[test]
fn a_key_is_shown_and_reset_and_the_refused_are_listed() {
    let (_upstream, gateway) = start();
    let bearer = token(claims("ada & eve"));
    let statuses = || {
        let ask = || Client::get(gateway.public, "/api/x").bearer(&bearer).send().status;
        [ask(), ask(), ask()]
    };
    assert_eq!(said(&gateway, &["limits", "--refused"]), "this gateway refused nobody of late\n");
    let pressed = said(&gateway, &["limits", "--pressed"]);
    assert_eq!(pressed, "no key was near a limit within the last minute\n");
    assert_eq!(statuses(), [200, 200, 429]);
    let key = ["limits", "--policy", "api", "--key", "claim:sub=ada & eve"];
    let left = said(&gateway, &key);
    assert!(left.starts_with("api for claim:sub="), "{left}");
    assert!(left.contains("\n  1 of 3 left in 1h\n  0 of 2 left in 1m, fits again in "), "{left}");
    assert!(left.ends_with("\n  7 of 9 left in 1h for the tier gold\n"), "{left}");
    let refused = said(&gateway, &["limits", "--refused"]);
    assert!(refused.contains("       1  api 1m  claim:sub="), "{refused}");
    let reset = said(&gateway, &[key.as_slice(), &["--reset"]].concat());
    assert!(reset.starts_with("reset: api for ") && reset.contains("2 counters"), "{reset}");
    let pressed = said(&gateway, &["limits", "--pressed", "--min", "0.9"]);
    // One request in sixteen is looked at, so the slot of one may be among them.
    assert!(!pressed.contains(" api "), "it was reset: {pressed}");
    let nobody = ["limits", "--policy", "api", "--key", "claim:sub=eve", "--reset"];
    let reset = said(&gateway, &nobody);
    assert_eq!(reset, "reset: api for claim:sub=eve, nothing was counted for this key\n");
    assert_eq!(statuses(), [200, 200, 429]);
    let pressed = said(&gateway, &["limits", "--pressed"]);
    assert!(pressed.starts_with("          used   refused/min  limit and key\n"), "{pressed}");
    assert!(pressed.contains("        2 of 2             2  api 1m  claim:sub="), "{pressed}");
    let one = ["limits", "--policy", "one", "--key", "claim:sub=ada", "--json"];
    let raw: serde_json::Value = serde_json::from_str(&said(&gateway, &one)).unwrap();
    assert_eq!(raw["in_flight"], 0);
}

#[test]
fn what_cannot_be_used_says_what_to_do() {
    let (_upstream, gateway) = start();
    for (arguments, status, part) in [
        (["explain", "GET"].as_slice(), 2, "<URL>"),
        (&["explain", "GET", "ftp://shop/x"], 2, "write http://HOST/PATH?QUERY"),
        (&["explain", "GET", "/a b"], 2, "write http://HOST/PATH?QUERY"),
        (&["explain", "GET", "/", "-H", "nothing"], 2, "write -H 'Name: value'"),
        (&["explain", "GET", "/", "-H", "A: 1", "-H", "a: 2"], 2, "given twice"),
        (&["explain", "GET", "/", "--address", "here"], 2, "invalid IP address"),
        (&["explain", "G T", "/"], 1, "is no method"),
        (&["limits"], 2, "--policy"),
        (&["limits", "--policy", "api"], 2, "--key"),
        (&["limits", "--reset"], 2, "--policy"),
        (&["limits", "--refused", "--policy", "api", "--key", "a=b"], 2, "cannot be used with"),
        (&["limits", "--min", "0.9"], 2, "--pressed"),
        (&["limits", "--pressed", "--min", "9"], 1, "from 0 to 1"),
        (&["limits", "--policy", "apo", "--key", "claim:sub=1"], 1, "No limit is named"),
        (&["limits", "--policy", "api", "--key", "42"], 1, "is no key of the limit api, which"),
        (&["limits", "--policy", "api", "--key", "sub=42"], 1, "Write claim:sub=42, or address="),
        (
            &["limits", "--policy", "api", "--key", "ip=192.0.2.1", "--reset"],
            1,
            "counts by claim:sub. Write claim:sub=",
        ),
        (&["limits", "--policy", "one", "--key", "address=localhost"], 1, "Write claim:sub=…"),
    ] {
        let ran = ran(&gateway, arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(status), ""), "{arguments:?}");
        assert!(ran.stderr.contains(part), "{arguments:?}: {}", ran.stderr);
    }
    for command in ["explain", "limits"] {
        let help = run(&Folder::new(), &[command, "--help"]);
        for part in ["--admin <http://HOST:PORT>", "--json", "Exit status: 0 done"] {
            assert!(help.stdout.contains(part), "{command}: {}", help.stdout);
        }
    }
}
