//! `portcullis check`, and a gateway that is to start with a bad file.

use crate::support::{AUTH, Folder, Gateway, run};

fn check(folder: &Folder) -> crate::support::Refused {
    run(folder, &["check", "--config", "gateway.toml"])
}

#[test]
fn a_good_file_is_ok() {
    let folder = Folder::new();
    folder.write(
        "gateway.toml",
        format!(
            "{AUTH}[upstreams.shop]\nservers = [\"http://127.0.0.1:3000\"]\n\
             [routes.a]\npath = \"/a\"\nupstream = \"shop\"\nauth = \"users\"\n\
             [routes.b]\npath = \"/b\"\nupstream = \"shop\"\n"
        ),
    );
    let checked = check(&folder);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert_eq!((checked.stdout.as_str(), checked.stderr.as_str()), ("ok: 2 routes\n", ""));
}

#[test]
fn the_reference_file_is_ok() {
    let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/gateway.toml");
    let checked = run(&Folder::new(), &["check", "--config", reference]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.stdout.starts_with("ok: ") && checked.stdout.ends_with(" routes\n"));
}

/// Ten mistakes of ten kinds. A line that ends in a comment is where a problem is expected, and the
/// comment is what the report says about it.
const MISTAKES: &str = r#"
[server]
drian = "30s" # unknown key
[server.limits]
header_timeout = "10" # unit
[auth.users]
algorithms = ["HS256"]
secret = "hunter2" # needs 32
[limits.api]
key = ["address"]
allow = ["100/15x"] # 100/15x
[upstreams.shop]
servers = ["http://127.0.0.1:3000"]
[auth.staff]
algorithms = ["HS256"]
secret = "hunter2-hunter2-hunter2-hunter2-hunter2"
claims_to_headers = { x-user-id = "sub" }
[routes.a]
path = "/a"
upstream = "shopp" # shopp
[routes.b]
path = "/b"
upstream = "shop"
limits = ["apis"] # apis
[routes.c]
path = "/c"
upstream = "shop"
auth = "nobody" # nobody
[routes.d]
path = "/d/{x}"
upstream = "shop"
[routes.e]
path = "/d/{y}" # routes.d
upstream = "shop"
[routes.f]
path = "/f"
upstream = "shop"
auth = "staff"
cache = { ttl = "5m" } # partition
[routes.g]
path = "/g"
upstream = "shop"
session = true # [session]
"#;

#[test]
fn ten_mistakes_are_ten_problems() {
    let folder = Folder::new();
    folder.write("gateway.toml", MISTAKES);
    let checked = check(&folder);
    assert_eq!((checked.code, checked.stdout.as_str()), (Some(2), ""), "{checked:?}");
    let report = &checked.stderr;
    let problems: Vec<&str> = report.split("gateway.toml:").skip(1).collect();
    let mut expected = 0;
    for (number, line) in MISTAKES.lines().enumerate() {
        let Some((_, hint)) = line.split_once(" # ") else { continue };
        expected += 1;
        let at = format!("{}:", number + 1);
        let here: Vec<_> = problems.iter().filter(|problem| problem.starts_with(&at)).collect();
        assert_eq!(here.len(), 1, "line {at} {report}");
        let (what, help) = here[0].split_once("help: ").expect("a remedy");
        // The comment itself stands in the line that is shown.
        let said = here[0].replace(&format!("# {hint}"), "");
        assert!(said.contains(hint), "{hint}: {what}");
        assert!(help.lines().next().is_some_and(|help| help.len() > 10), "{report}");
    }
    assert_eq!((expected, problems.len()), (10, 10), "{report}");
    assert!(report.ends_with("10 problems in gateway.toml\n"), "{report}");
    assert!(!report.contains("hunter2"), "{report}");

    let refused = Gateway::try_start(MISTAKES);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
    assert_eq!(&refused.stderr, report, "`run` says what `check` says");
}

#[test]
fn secrets_are_never_printed() {
    let folder = Folder::new();
    folder.write("secret", "hunter2\n");
    for text in [
        "[auth.users]\nalgorithms = [\"HS256\"]\nsecret = \"hunter2\"\n",
        "[auth.users]\nalgorithms = [\"HS256\"]\nsecret = \"file:secret\"\n",
        "[auth.users]\nalgorithms = [\"ES256\"]\nsecret = \"hunter2\"\n",
        "[auth.users]\nalgorithms = [\"HS256\"]\nsecrte = \"hunter2\"\n",
        "[auth.users]\nalgorithms = [\"HS256\"]\nsecret = \"hunter2\n",
        "[admin]\ntoken = \"hunter2\"\nlisten = 1\n",
        "[store]\nurl = \"redis://user:hunter2@127.0.0.1\"\n",
        "[upstreams.shop]\nservers = [\"http://user:hunter2@127.0.0.1\"]\n",
    ] {
        folder.write("gateway.toml", text);
        let checked = check(&folder);
        assert_eq!(checked.code, Some(2), "{text}: {checked:?}");
        let said = checked.stdout + &checked.stderr;
        assert!(said.contains("gateway.toml:") && !said.contains("hunter2"), "{text}: {said}");
    }
}

#[test]
fn a_secret_in_the_environment_is_found_or_missed_by_name() {
    let folder = Folder::new();
    let config = "[auth.users]\nalgorithms = [\"HS256\"]\nsecret = \"env:PORTCULLIS_IT_UNSET\"\n";
    folder.write("gateway.toml", config);
    let checked = check(&folder);
    assert_eq!(checked.code, Some(2));
    assert!(checked.stderr.contains("PORTCULLIS_IT_UNSET"), "{checked:?}");
}

/// What was named and is not to be had is not missing.
#[test]
fn a_variable_that_is_not_set_is_one_problem() {
    let unset = "env:PORTCULLIS_IT_UNSET";
    let events = |secrets: &str| {
        format!(
            "[events.a]\nfrom = \"webhook\"\npurge = [\"/a\"]\n{secrets}\n\
             [routes.h]\npath = \"/h\"\nanswers = \"events\"\nevents = [\"a\"]\n"
        )
    };
    let (one, list) = (format!("secrets = \"{unset}\""), format!("secrets = [\"{unset}\"]"));
    for (text, what) in [
        (events(&one), "is not set"),
        (events(&list), "is not set"),
        (events(""), "anybody could send webhooks"),
        (events("secrets = []"), "is an empty list"),
        (format!("[signers.m]\nissuer = \"https://a\"\nkeys = [\"{unset}\"]\n"), "is not set"),
        (format!("[queues.q]\ndurable = false\nseal = [\"{unset}\"]\n"), "is not set"),
    ] {
        let folder = Folder::new();
        let upstream = "[upstreams.shop]\nservers = [\"http://127.0.0.1:3000\"]\n\
                        [routes.a]\npath = \"/a\"\nupstream = \"shop\"\n";
        folder.write("gateway.toml", text.clone() + upstream);
        let said = check(&folder).stderr;
        assert!(said.contains(what), "{text}: {said}");
        assert!(said.ends_with("1 problem in gateway.toml\n"), "{text}: {said}");
    }
}

#[test]
fn a_file_that_is_not_there_is_one_problem() {
    for command in ["check", "run"] {
        let checked = run(&Folder::new(), &[command, "--config", "nowhere.toml"]);
        assert_eq!((checked.code, checked.stdout.as_str()), (Some(2), ""), "{checked:?}");
        assert!(checked.stderr.contains("nowhere.toml") && checked.stderr.contains("--config"));
    }
}

#[test]
fn what_deserves_a_second_look_is_said_and_served() {
    let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/gateway.toml");
    let checked = run(&Folder::new(), &["check", "--config", reference]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let said = &checked.stderr;
    assert!(
        said.contains("warning: auth.users.secret: this is the secret of the example"),
        "{said}"
    );
    assert!(said.contains("help: replace it with 32 random bytes"), "{said}");
    assert!(!said.contains("replace-me-with"), "a secret is not printed: {said}");
}

/// A file with one route, and something that is no mistake but looks like one.
fn served_with(line: &str) -> crate::support::Refused {
    let folder = Folder::new();
    let text = format!(
        "{line}\n[upstreams.shop]\nservers = [\"http://127.0.0.1:3000\"]\n\
         [routes.a]\npath = \"/a\"\nupstream = \"shop\"\n"
    );
    folder.write("gateway.toml", text);
    check(&folder)
}

#[test]
fn each_warning_has_its_line_and_its_remedy() {
    let limit = |exempt: &str| {
        format!(
            "[limits.l]\nkey = [\"address\"]\nallow = [\"1/1m\"]\nexempt.addresses = [{exempt}]"
        )
    };
    for (line, what, remedy) in [
        ("[admin]\ntoken = \"fifteen-bytes-x\"".to_owned(), "admin.token: 15 bytes", "16 random"),
        (
            "[server]\nproxy_protocol_from = [\"0.0.0.0/0\"]".to_owned(),
            "everybody in 0.0.0.0/0 may name",
            "balancers alone",
        ),
        (limit("\"10.0.0.0/8\""), "everybody who comes from 10.0.0.0/8", "single machines"),
        (limit("\"192.168.0.0/16\""), "everybody who comes from 192.168.0.0/16", "balancer"),
        (limit("\"::/0\""), "everybody who comes from ::/0", "balancer"),
    ] {
        let checked = served_with(&line);
        assert_eq!((checked.code, checked.stdout.as_str()), (Some(0), "ok: 1 route\n"), "{line}");
        let said = &checked.stderr;
        assert!(said.contains("warning: ") && said.contains(what), "{line}: {said}");
        assert!(said.contains(remedy) && said.ends_with("1 warning in gateway.toml\n"), "{said}");
    }
    for line in ["[admin]\ntoken = \"sixteen-bytes-xy\"".to_owned(), limit("\"10.1.2.3\"")] {
        let checked = served_with(&line);
        assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""), "{line}");
    }
}

#[test]
fn warnings_are_logged_at_the_start() {
    let gateway = Gateway::start(
        "[admin]\ntoken = \"short\"\n[upstreams.shop]\nservers = [\"http://127.0.0.1:1\"]\n\
         [routes.a]\npath = \"/a\"\nupstream = \"shop\"\n",
    );
    let said = gateway.stderr();
    assert!(said.contains("WARN") && said.contains("admin.token: 5 bytes"), "{said}");
}

#[test]
fn what_is_no_regular_file_is_a_problem_wherever_a_file_is_named() {
    let folder = Folder::new();
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("odd")).unwrap();
    let auth = |keys: &str| format!("[auth.users]\nalgorithms = [\"RS256\"]\n{keys}\n");
    for text in [
        auth("secret = \"file:odd\""),
        auth("public_key_file = \"odd\""),
        auth("jwks_file = \"odd\""),
        auth("jwks_url = \"https://issuer.test/keys\"\njwks = { ca_file = \"odd\" }"),
        "[admin]\ntoken = \"file:odd\"\n".to_owned(),
    ] {
        folder.write("gateway.toml", &text);
        let checked = check(&folder);
        let said = &checked.stderr;
        assert_eq!(checked.code, Some(2), "{text}: {said}");
        assert!(said.contains("odd") && said.contains("a device"), "{text}: {said}");
        assert!(said.contains("name a regular file"), "{text}: {said}");
    }
    let checked = run(&folder, &["check", "--config", "odd"]);
    assert_eq!(checked.code, Some(2), "{checked:?}");
    assert!(checked.stderr.contains("odd: cannot read the configuration: it is a device"));
    folder.write("gateway.toml", AUTH);
    for arguments in [
        ["purge", "--all", "--admin-token", "file:odd"],
        ["token", "--private-key", "odd", "--expires-in=1h"],
    ] {
        let refused = run(&folder, &arguments);
        assert_ne!(refused.code, Some(0), "{refused:?}");
        assert!(refused.stderr.contains("a device"), "{arguments:?}: {refused:?}");
    }
}

/// As in CI, where the secrets of a cluster are not.
#[test]
fn a_file_whose_secrets_are_elsewhere_can_be_looked_at() {
    let folder = Folder::new();
    let of = |name: &str| format!("{}/deploy/{name}", env!("CARGO_MANIFEST_DIR"));
    let compose = of("compose/gateway/gateway.toml");
    for (file, unseen) in [
        (&compose, ["admin_token", "redis_password"].map(|it| format!("file:/run/secrets/{it}"))),
        (
            &of("kubernetes/gateway.toml"),
            ["admin-token", "redis-password"]
                .map(|it| format!("file:/run/secrets/portcullis/{it}")),
        ),
    ] {
        let strict = run(&folder, &["check", "--config", file]);
        assert_eq!(strict.code, Some(2), "{strict:?}");
        assert!(strict.stderr.contains("admin.token: cannot read"), "{strict:?}");
        let told = format!(
            "not looked at: admin.token ({})\nnot looked at: store.password ({})\n",
            unseen[0], unseen[1]
        );
        let checked = run(&folder, &["check", "--without-secrets", "--config", file]);
        assert_eq!((checked.code, &checked.stderr), (Some(0), &told), "{checked:?}");
        assert!(checked.stdout.starts_with("ok: "), "{checked:?}");
        let acl = run(&folder, &["acl", "--without-secrets", "--config", file]);
        assert_eq!((acl.code, &acl.stderr), (Some(0), &told), "{acl:?}");
        assert!(acl.stdout.starts_with("ACL SETUSER gateway "), "{acl:?}");
    }
    let changed = std::fs::read_to_string(&compose).unwrap().replace("600/1m", "700/1m");
    let new = folder.write("new.toml", changed).display().to_string();
    let differ = run(&folder, &["diff", "--without-secrets", &compose, &new]);
    assert_eq!(differ.code, Some(1), "{differ:?}");
    assert!(differ.stdout.contains("~ limits.client.allow: "), "{differ:?}");
    let told = format!("not looked at: {new}: admin.token (file:/run/secrets/admin_token)");
    assert!(differ.stdout.contains(&told), "{differ:?}");
    for command in [
        &["diff", "--without-secrets"][..],
        &["check", "--store", "--without-secrets", "--config", &compose],
    ] {
        let refused = run(&folder, command);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:?}");
    }
    // A start wants them all.
    assert_eq!(run(&folder, &["run", "--config", &compose]).code, Some(2));
}

#[test]
fn a_secret_that_others_may_read_is_warned_of_with_the_command_that_closes_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let secret = folder.write("jwt.key", "0123456789abcdef0123456789abcdef");
    let has = |path: &std::path::Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    has(folder.path(), 0o755);
    folder.write(
        "gateway.toml",
        "[auth.users]\nalgorithms = [\"HS256\"]\nsecret = \"file:jwt.key\"\n\
         [upstreams.shop]\nservers = [\"http://127.0.0.1:3000\"]\n\
         [routes.a]\npath = \"/a\"\nupstream = \"shop\"\nauth = \"users\"\n",
    );
    for (mode, is_open) in [(0o644, true), (0o640, false), (0o600, false)] {
        has(&secret, mode);
        let checked = check(&folder);
        assert_eq!((checked.code, checked.stdout.as_str()), (Some(0), "ok: 1 route\n"));
        let told = &checked.stderr;
        assert_eq!(told.contains("warning: auth.users.secret: this secret is open to"), is_open);
        assert_eq!(told.contains("help: chmod 0640 "), is_open, "{told}");
        assert!(!told.contains("0123456789abcdef"), "{told}");
    }
}

#[test]
fn what_is_nearly_right_is_told_how_it_is_written() {
    let folder = Folder::new();
    let text = |server: &str, path: &str| {
        format!(
            "[upstreams.shop]\nservers = [\"{server}\"]\n\
             [routes.a]\npath = {path}\nupstream = \"shop\"\n"
        )
    };
    let server = "http://127.0.0.1:3000";
    for (server, path, help) in [
        ("http://127.0.0.1:3000/api", "\"/a\"", "a path goes into `rewrite` of the route"),
        (server, "\"/api*\"", "/api/* in place of /api*"),
        (server, "/api", "texts stand in quotes"),
    ] {
        folder.write("gateway.toml", text(server, path));
        let checked = check(&folder);
        assert_eq!(checked.code, Some(2), "{checked:?}");
        assert!(checked.stderr.contains(help), "{help}: {}", checked.stderr);
    }
    let said = run(&folder, &["fmt", "missing.toml"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("\n    help: "), "{}", said.stderr);
    let said = run(&Folder::new(), &["init", "--upstream", "127.0.0.1:23001"]);
    assert!(said.stderr.starts_with("--upstream: \"127.0.0.1:23001\" is not"), "{said:?}");
}
