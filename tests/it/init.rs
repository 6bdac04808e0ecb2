//! `portcullis init`: what it writes, what it asks, and what it leaves alone.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use crate::support::{BINARY, Client, Folder, Gateway, Refused, Upstream, response, run};

/// Options, and the file that they make. `init` writes it anew:
/// `portcullis init OPTIONS --output tests/it/init/NAME.toml`.
const STARTERS: [(&[&str], &str); 3] = [
    (&["--upstream", "http://127.0.0.1:3000"], include_str!("init/open.toml")),
    (
        &[
            "--upstream",
            "http://10.0.0.7:3000",
            "--upstream",
            "http://10.0.0.8:3000",
            "--issuer",
            "https://login.shop.example/",
            "--audience",
            "shop",
            "--redis",
            "redis://redis.internal:6379",
            "--limit",
            "1000/1h",
        ],
        include_str!("init/issuer.toml"),
    ),
    (
        &["--upstream", "env:SHOP_URL", "--secret", "env:JWT_SECRET", "--limit", "none"],
        include_str!("init/secret.toml"),
    ),
];

/// Runs `init` with these options in a folder.
fn init(folder: &Folder, options: &[&str]) -> Refused {
    run(folder, &[&["init"], options].concat())
}

fn read(folder: &Folder, name: &str) -> String {
    std::fs::read_to_string(folder.path().join(name)).unwrap()
}

/// What `check` says of a file, with the variables that the files above name.
fn check(folder: &Folder, name: &str) -> (Option<i32>, String) {
    let checked = Command::new(BINARY)
        .args(["check", "--config", name])
        .envs([("SHOP_URL", "http://127.0.0.1:3000"), ("REDIS_PASSWORD", "swordfish")])
        .env("JWT_SECRET", "a secret of more than thirty-two bytes")
        .current_dir(folder.path())
        .output()
        .unwrap();
    (checked.status.code(), String::from_utf8(checked.stderr).unwrap())
}

#[test]
fn a_file_is_written_that_passes_check_with_no_warning_but_of_what_nobody_was_asked() {
    for (options, expected) in STARTERS {
        let folder = Folder::new();
        let said = init(&folder, options);
        assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
        assert_eq!(read(&folder, "gateway.toml"), expected, "{options:?}");
        let (code, warned) = check(&folder, "gateway.toml");
        // Whose tokens a secret signs besides, and by what they are told apart, its owner knows.
        let is_shared = options.contains(&"env:JWT_SECRET");
        let expected = if is_shared { "1 warning in gateway.toml\n" } else { "" };
        assert_eq!(code, Some(0), "{options:?}: {warned}");
        assert!(warned.ends_with(expected) && warned.is_empty() != is_shared, "{warned}");
        assert_eq!(warned.contains("auth.users: takes every token"), is_shared, "{warned}");
    }
}

#[test]
fn what_the_file_shows_as_a_comment_may_be_written() {
    for (options, text) in STARTERS {
        let is_key = |line: &str| {
            let key = line.split_once(" = ").map(|(key, _)| key);
            line.starts_with('[')
                || key.is_some_and(|key| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        };
        let lines = text.lines().map(|line| match line.strip_prefix("# ") {
            Some(example) if is_key(example) => example,
            _ => line,
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        let folder = Folder::new();
        folder.write("all.toml", &text);
        let checked = check(&folder, "all.toml");
        assert_eq!(checked.0, Some(0), "{options:?}: {}", checked.1);
    }
}

#[test]
fn what_comes_next_is_said() {
    let said = init(&Folder::new(), STARTERS[2].0);
    assert_eq!(
        said.stdout,
        "wrote gateway.toml\n\
         set SHOP_URL and JWT_SECRET before the gateway starts\n\
         next:\n  portcullis check --config gateway.toml\n  \
         portcullis run --config gateway.toml\n  \
         portcullis token --config gateway.toml --claim sub=42\n"
    );
    let said = init(&Folder::new(), &[STARTERS[0].0, &["--output", "mine.toml"]].concat());
    assert_eq!(
        said.stdout,
        "wrote mine.toml\nnext:\n  portcullis check --config mine.toml\n  \
         portcullis run --config mine.toml\n"
    );
}

#[test]
fn the_gateway_of_a_new_file_lets_signed_requests_pass() {
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let folder = Folder::new();
    let said = init(&folder, &["--upstream", &upstream.url(), "--secret", "new"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let token = run(&folder, &["token", "--claim", "sub=42"]).stdout;
    let text = read(&folder, "gateway.toml")
        .replace("0.0.0.0:8080", "127.0.0.1:0")
        .replace("127.0.0.1:9901", "127.0.0.1:0");
    let gateway = Gateway::start_in(folder, &text);
    let ask = |token: &str| Client::get(gateway.public, "/hello").bearer(token.trim()).send();
    let reply = ask(&token);
    assert_eq!((reply.status, reply.text()), (200, "hello".to_owned()));
    assert_eq!(reply.header("x-ratelimit-limit"), Some("100"));
    assert_eq!(upstream.only().header("x-user-id"), Some("42"));
    assert_eq!(ask("eyJ.eyJ.x").status, 401);
}

#[test]
fn a_new_secret_is_random_and_its_owners_alone() {
    let secrets = [(), ()].map(|()| {
        let folder = Folder::new();
        let said = init(&folder, &["--upstream", "http://127.0.0.1:3000", "--secret", "new"]);
        let secret = read(&folder, "gateway.secret");
        let mode = folder.path().join("gateway.secret").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{mode:o}");
        assert_eq!(secret.trim_end().len(), 64);
        let config = read(&folder, "gateway.toml");
        assert!(config.contains("secret = \"file:gateway.secret\""), "{config}");
        for place in [&said.stdout, &said.stderr, &config] {
            assert!(!place.contains(secret.trim_end()), "{place}");
        }
        secret
    });
    assert_ne!(secrets[0], secrets[1]);
}

#[test]
fn a_secret_that_is_somewhere_is_not_shown_and_none_is_made() {
    let folder = Folder::new();
    folder.write("mine", "swordfish-swordfish-swordfish-swordfish");
    let said = init(&folder, &["--upstream", "http://127.0.0.1:3000", "--secret", "file:mine"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let config = read(&folder, "gateway.toml");
    assert!(config.contains("secret = \"file:mine\""), "{config}");
    for place in [&said.stdout, &said.stderr, &config] {
        assert!(!place.contains("swordfish"), "{place}");
    }
    assert!(!folder.path().join("gateway.secret").exists());
}

#[test]
fn nothing_is_overwritten() {
    let upstream = ["--upstream", "http://127.0.0.1:3000", "--secret", "new"];
    for taken in ["gateway.toml", "gateway.secret"] {
        let folder = Folder::new();
        folder.write(taken, "mine");
        let said = init(&folder, &upstream);
        assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{said:?}");
        let expected = format!("{taken} is there already, and init overwrites nothing");
        assert!(said.stderr.starts_with(&expected), "{said:?}");
        assert!(said.stderr.contains("--output"), "{said:?}");
        assert_eq!(read(&folder, taken), "mine");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn what_check_would_refuse_is_not_written() {
    for (options, expected) in [
        (&[][..], "there is no terminal to ask on: give --upstream URL"),
        (&["--upstream", "localhost"], "--upstream: "),
        (&["--upstream", "http://a.test", "--limit", "many"], "--limit: "),
        (&["--upstream", "http://a.test", "--redis", "redis://:pass@r.test"], "--redis: "),
        (&["--upstream", "http://a.test", "--issuer", "http://l.test"], "--issuer: "),
        (&["--upstream", "http://a.test", "--secret", "file:none"], "--secret: "),
        (&["--upstream", "http://a.test", "--secret", "swordfish"], "--secret: a secret is not"),
        (&["--upstream", "http://a.test\"]\n[x]"], "--upstream: "),
        (&["--upstream", "http://a.test", "--output", "none/x.toml"], "cannot write none/x.toml: "),
    ] {
        let folder = Folder::new();
        let said = init(&folder, options);
        assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{said:?}");
        assert!(said.stderr.starts_with(expected), "{options:?}: {said:?}");
        assert!(!said.stderr.contains("swordfish"), "{said:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{options:?}");
    }
}

/// Gives its command a terminal, on which it types what it is given.
const TERMINAL: &str = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";

#[test]
fn a_terminal_is_asked() {
    let folder = Folder::new();
    let mut child = Command::new("python3")
        .args(["-c", TERMINAL, BINARY, "init"])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3, which scripts/setup installs");
    let typed = "http://10.0.0.7:3000\nhttps://login.shop.example/\n\nshop\n\
                 redis://redis.internal:6379\n1000 an hour\n1000/1h\n";
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}");
    for question in [
        "Where does your service listen? [http://127.0.0.1:3000]: ",
        "Who signs the tokens of your users?",
        "Where does it publish its keys (JWKS)? none where its",
        "  says so [none]: ",
        "Which Redis do your gateways share?",
        "How many requests may each user send? none for any number [100/15m]: ",
        "limits.api.allow[0]: \"1000 an hour\" is not a limit; ",
        "wrote gateway.toml",
    ] {
        assert!(shown.contains(question), "{question} is not in {shown}");
    }
    let two = "\"http://10.0.0.7:3000\", \"http://10.0.0.8:3000\"";
    let expected = STARTERS[1].1.replace(two, "\"http://10.0.0.7:3000\"");
    assert_eq!(read(&folder, "gateway.toml"), expected);
}
