//! Several files, and what they take from the environment.

use serde_json::json;

use super::*;
use crate::config::{
    AccessTo, FromEnvironment, Problems, Secrets, Shown, files_of, load_with, sha256_of,
};

const SHOP: &str = "[upstreams.shop]\nservers = [\"http://127.0.0.1:3000\"]\n";

/// What is wrong with the main file of a folder and all that it includes.
fn problems(folder: &Folder) -> String {
    let path = folder.0.join("gateway.toml");
    let text = match load(&path) {
        Ok(loaded) => loaded.source.render(&loaded.problems),
        Err(text) => text,
    };
    text.replace(&format!("{}/", folder.0.display()), "")
}

fn folder(files: &[(&str, &str)]) -> Folder {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, it)| (*name, it.as_bytes())).collect();
    let names = files.iter().filter_map(|(name, _)| Path::new(name).parent());
    let folder = Folder::with(&[]);
    names.for_each(|name| std::fs::create_dir_all(folder.0.join(name)).unwrap());
    files.iter().for_each(|(name, it)| std::fs::write(folder.0.join(name), it).unwrap());
    folder
}

#[test]
fn files_are_merged_by_name() {
    let main = "include = [\"tls.toml\", \"teams/*/*.toml\", \"none/*.toml\", \"*.toml\"]\n\
                [server]\ndrain = \"7s\"\n[admin]\ntoken = \"file:token\"\n";
    let folder = folder(&[
        ("gateway.toml", main),
        ("token", "main's"),
        ("tls.toml", "[server.limits]\nheaders = 33\n[server]\nwatch = \"5s\"\n"),
        ("teams/b/a.toml", "[routes.b]\npath = \"/b\"\nupstream = \"shop\"\n"),
        ("teams/a/z.toml", SHOP),
        ("teams/a/.hidden.toml", "no TOML"),
        ("teams/a/a.toml", "[auth.a]\nalgorithms = [\"HS256\"]\nsecret = \"file:token\"\n"),
        ("teams/a/token", "a secret of more than thirty-two bytes"),
    ]);
    assert_eq!(problems(&folder), "0 problems in gateway.toml and the 4 files that it includes\n");
    let path = folder.0.join("gateway.toml");
    let config = load(&path).unwrap().config;
    assert_eq!(config.server.drain, Duration::from_secs(7));
    assert_eq!(config.server.watch, Duration::from_secs(5));
    assert_eq!(config.server.limits.headers, 33);
    assert_eq!(config.upstreams.keys().collect::<Vec<_>>(), ["shop"]);
    assert_eq!(config.routes.keys().collect::<Vec<_>>(), ["b"]);
    // What a file names is seen from that file.
    assert_eq!(config.admin.token.unwrap().expose(), b"main's");
    let Some(KeySource::Secret(secret)) = &config.auth["a"].keys else { panic!("no secret") };
    assert!(secret.expose().starts_with(b"a secret of more"));
    let names = ["gateway.toml", "tls.toml", "teams/a/a.toml", "teams/a/z.toml", "teams/b/a.toml"];
    assert_eq!(files_of(&path).unwrap(), names.map(|name| folder.0.join(name)));
}

#[test]
fn each_problem_names_its_file_and_line() {
    let main = "include = [\"a.toml\", \"routes.d/*\", \"missing.toml\", \"[a].toml\"]\n\
                [log]\nlevel = \"loud\"\n[routes.x]\npath = \"/x\"\nupstream = \"shop\"\n";
    let folder = folder(&[
        ("gateway.toml", main),
        ("a.toml", "# a\n[log]\nlevel = \"info\"\nlvel = 1\n"),
        ("routes.d/x.toml", "\n[routes.x]\npath = \"/other\"\n[routes.y]\npaht = \"/y\"\n"),
        ("routes.d/z.toml", "include = [\"x.toml\"]\n[routes.x.cache]\nttl = \"1m\"\n"),
    ]);
    let told = problems(&folder);
    for line in [
        "gateway.toml:1:36: include[2]: cannot read ",
        "gateway.toml:1:52: include[3]: \"[a].toml\" has a wildcard other than",
        "gateway.toml:3:1: log.level: \"loud\" is not a choice here",
        "a.toml:3:1: log.level: is written in gateway.toml:3, too\n    level = \"info\"\n",
        "a.toml:4:1: log.lvel: unknown key\n    lvel = 1\n",
        "routes.d/x.toml:2:9: routes.x: is written in gateway.toml:4, too\n    [routes.x]\n",
        "routes.d/x.toml:5:1: routes.y.paht: unknown key\n    paht = \"/y\"\n",
        "routes.d/z.toml:1:1: include: stands in a file that is included itself\n",
        "name the files in gateway.toml: it alone",
        "routes.d/z.toml:2:9: routes.x: is written in gateway.toml:4, too\n",
        " problems in gateway.toml and the 3 files that it includes\n",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    // What stands in another file is not shown beside it.
    let secrets = folder_of_secrets();
    let told = problems(&secrets);
    assert!(told.contains("token = ***\n") && !told.contains("hunter2"), "{told}");
}

fn folder_of_secrets() -> Folder {
    folder(&[
        ("gateway.toml", "include = [\"a.toml\"]\n[admin]\ntoken = [\"hunter2\"]\n"),
        ("a.toml", "# hunter1\n\n\n[store]\nurl = \"redis://u:hunter2@h\"\n[admin]\ntoken = 2\n"),
    ])
}

#[test]
fn a_file_that_cannot_be_read_as_one_is_named() {
    let main = ("gateway.toml", "include = [\"?.toml\"]\n");
    let told = problems(&folder(&[main, ("a.toml", "[log\n"), ("b.toml", "x = \n")]));
    assert!(told.contains("a.toml:1:5: ") && told.contains("b.toml:1:5: "), "{told}");
    let large = format!("# {}\n", "x".repeat(4 << 20));
    let told = problems(&folder(&[main, ("a.toml", &large)]));
    assert!(
        told.contains("gateway.toml:1:12: include[0]: ") && told.contains("too large"),
        "{told}"
    );
    let files: Vec<String> = (0..257).map(|number| format!("d/{number}.toml")).collect();
    let mut all: Vec<(&str, &str)> = files.iter().map(|name| (name.as_str(), "")).collect();
    all.push(("gateway.toml", "include = [\"d/*.toml\"]\n"));
    let told = problems(&folder(&all));
    assert!(told.contains("include[0]: names more than 256 files"), "{told}");
    assert!(told.contains("and the 256 files that it includes"), "{told}");
}

#[test]
fn a_sum_of_all_files_says_whether_they_are_others() {
    let folder = folder(&[("gateway.toml", "[log]\n"), ("d/a.toml", SHOP)]);
    let path = folder.0.join("gateway.toml");
    let sums = || (load(&path).unwrap().source.sha256(), sha256_of(&path).unwrap());
    let same = |sums: (String, String)| {
        assert_eq!(sums.0, sums.1);
        sums.0
    };
    // What sha256sum says of these six bytes.
    let alone = "adc32f08cc69ad7b2f5f8eddf2d63d9efe6684fe7b904366c2c486caef1f8f27";
    assert_eq!(same(sums()), alone);
    std::fs::write(&path, "include = [\"d/*.toml\", \"e.toml\"]\n").unwrap();
    let unreadable = sha256_of(&path).unwrap();
    std::fs::write(folder.0.join("e.toml"), "").unwrap();
    let first = same(sums());
    assert_ne!(first, unreadable);
    std::fs::write(folder.0.join("d/b.toml"), "").unwrap();
    let with_another = same(sums());
    assert_ne!(with_another, first);
    std::fs::rename(folder.0.join("d/b.toml"), folder.0.join("d/c.toml")).unwrap();
    assert_ne!(same(sums()), with_another);
    std::fs::remove_file(folder.0.join("d/c.toml")).unwrap();
    assert_eq!(same(sums()), first);
    std::fs::write(folder.0.join("d/a.toml"), format!("{SHOP}\n")).unwrap();
    assert_ne!(same(sums()), first);
}

#[test]
fn a_file_is_included_once_however_its_name_is_spelt() {
    let folder = folder(&[("d/a.toml", SHOP)]);
    let here = folder.0.display();
    std::os::unix::fs::symlink("a.toml", folder.0.join("d/b.toml")).unwrap();
    let path = folder.0.join("gateway.toml");
    let text = format!(
        "include = [\"d/a.toml\", \"./d/*.toml\", \"d/../d/?.toml\", \"{here}/*/a.toml\", \
         \"./*.toml\", \"{here}/*.toml\"]\n"
    );
    std::fs::write(&path, text).unwrap();
    let loaded = load(&path).unwrap();
    assert_eq!(
        loaded.source.render(&loaded.problems),
        format!("0 problems in {here}/gateway.toml and the file that it includes\n")
    );
    assert_eq!(files_of(&path).unwrap(), [path.clone(), folder.0.join("d/a.toml")]);
    assert_eq!(sha256_of(&path).unwrap(), loaded.source.sha256());
}

/// Reads a text with some variables.
fn read_with(text: &str) -> Loaded {
    let env = |name: &str| match name {
        "PORT" => Some("8080".to_owned()),
        "ON" => Some("true".to_owned()),
        "TIME" => Some("7s".to_owned()),
        "BYTES" => Some("4096".to_owned()),
        "LIST" => Some("10.0.0.0/8, 192.168.0.0/16".to_owned()),
        "NUMBERS" => Some("404,410".to_owned()),
        "PASSWORD" => Some("hunter2 is longer than thirty-two bytes".to_owned()),
        "SEALS" => Some("env:SEAL_A, env:SEAL_B".to_owned()),
        "SEAL_A" => Some("a1".repeat(32)),
        "SEAL_B" => Some("b2".repeat(32)),
        "COMMAS" => Some("env:hunter2,hunter2-is-longer-than-thirty-two-bytes".to_owned()),
        "PASSWD" => Some("file:/etc/passwd".to_owned()),
        "ILE" => Some("ile:".to_owned()),
        "WHERE" => Some("env:PORT".to_owned()),
        "NAME" => Some("PASSWORD".to_owned()),
        "PATTERNS" => Some("none/*.toml,nothing/*.toml".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    parse("gateway.toml", Path::new("/nonexistent"), text, &env).unwrap()
}

#[test]
fn variables_stand_for_every_type() {
    let loaded = read_with(
        "include = \"${PATTERNS}\"\n[server]\n\
         listen = [\"127.0.0.1:${PORT}\", \"[::1]:${OTHER:-9}\"]\n\
         drain = \"${TIME}\"\nhandover = \"${OFF:-false}\"\ndegraded_header = \"${ON}\"\n\
         trusted_proxies = \"${LIST}\"\nlimits.headers = \"${HEADERS:-33}\"\n\
         limits.body_bytes = \"${BYTES}\"\n[admin]\ntoken = \"${PASSWORD}\"\n\
         [log]\naccess_to = \"$${PORT}${PORT}\"\n",
    );
    assert_eq!(loaded.source.render(&loaded.problems), "0 problems in gateway.toml\n");
    let server = loaded.config.server;
    let listen = ["127.0.0.1:8080", "[::1]:9"].map(|address| address.parse().unwrap());
    assert_eq!(server.listen, listen);
    assert_eq!((server.drain, server.handover), (Duration::from_secs(7), false));
    assert!(server.degraded_header);
    assert_eq!(server.trusted_proxies.len(), 2);
    assert_eq!((server.limits.headers, server.limits.body_bytes), (33, 4096));
    assert!(loaded.config.admin.token.unwrap().expose().starts_with(b"hunter2"));
    let access_to = AccessTo::File("/nonexistent/${PORT}8080".into());
    assert_eq!(loaded.config.log.access_to, access_to);
}

#[test]
fn what_the_environment_says_wrongly_is_not_shown() {
    for (text, expected) in [
        (
            "[server]\ndrain = \"${PASSWORD}\"",
            "2:1: server.drain: ${PASSWORD} makes no value that can",
        ),
        ("[server]\ndrain = \"${PORT}\"", "server.drain: ${PORT} makes no value"),
        ("[server]\nlimits.headers = \"${TIME}\"", "server.limits.headers: ${TIME} makes no value"),
        ("[server]\nlimits.headers = \"${NONE:-0}\"", "server.limits.headers: is out of range"),
        (
            "[server]\nlimits.headers = \"1${EMPTY}\"",
            "${EMPTY} makes no value that can be used here",
        ),
        ("[server]\nhandover = \"${EMPTY}\"", "server.handover: ${EMPTY} makes no value"),
        (
            "[server]\ntrusted_proxies = \"${PASSWORD}\"",
            "server.trusted_proxies[0]: ${PASSWORD} makes",
        ),
        ("[server]\nlisten = \"${EMPTY}\"", "server.listen: ${EMPTY} makes no value"),
        (
            "[server]\nlisten = [\"${UNSET}\"]",
            "listen[0]: the environment variable \"UNSET\" is not set",
        ),
        ("[server]\ndrain = \"${UNSET\"", "server.drain: has a `${` that begins no variable"),
        ("[server]\nlimits.headers = \"${UNSET}\"", "headers: the environment variable \"UNSET\""),
        ("include = [\"${UNSET}/*.toml\"]", "1:12: include[0]: the environment variable \"UNSET\""),
        ("[server]\n\"${TIME}\" = 1", "server.\"${TIME}\": unknown key"),
        ("[server]\n\"${PASSWORD}\" = \"${PASSWORD}\"", "server.\"${PASSWORD}\": unknown key"),
    ] {
        let loaded = read_with(text);
        let told = loaded.source.render(&loaded.problems);
        assert!(told.contains(expected), "{text}: {told}");
        assert!(told.ends_with("1 problem in gateway.toml\n"), "{text}: {told}");
        assert!(!told.contains("hunter2"), "{text}: {told}");
    }
}

/// Whoever sets a variable chooses a value, and no file or other variable that is read for it.
#[test]
fn what_a_variable_says_is_never_a_place() {
    for (text, key) in [
        ("[admin]\ntoken = \"${COMMAS}\"", "admin.token"),
        ("[admin]\ntoken = \"${PASSWD}\"", "admin.token"),
        ("[admin]\ntoken = \"${EMPTY}${PASSWD}\"", "admin.token"),
        ("[admin]\ntoken = \"f${ILE}/etc/passwd\"", "admin.token"),
        ("[admin]\nlisten = \"${WHERE}\"", "admin.listen"),
        ("[store]\npassword = \"${PASSWD}\"", "store.password"),
        ("[queues.mail]\nseal = \"${SEALS}\"", "queues.mail.seal"),
        ("[queues.mail]\nseal = [\"${PASSWD}\"]", "queues.mail.seal[0]"),
    ] {
        let loaded = read_with(text);
        let told = loaded.source.render(&loaded.problems);
        assert!(told.contains(&format!(" {key}: ")), "{text}: {told}");
        assert!(told.contains("makes a text that begins with `"), "{text}: {told}");
        assert!(told.ends_with("1 problem in gateway.toml\n"), "{text}: {told}");
        assert!(!told.contains("hunter2") && !told.contains("passwd"), "{text}: {told}");
    }
}

#[test]
fn a_place_that_the_file_says_may_have_variables_and_be_their_default() {
    let loaded = read_with(
        "[queues.mail]\nseal = \"${NONE:-env:SEAL_A, env:SEAL_B}\"\n\
         [admin]\ntoken = \"x${COMMAS}\"\nread_token = \"${NONE:-env:PASSWORD}\"\n\
         [store]\nurl = \"redis://h\"\npassword = \"env:${NAME}\"\n",
    );
    assert_eq!(loaded.source.render(&loaded.problems), "0 problems in gateway.toml\n");
    assert_eq!(loaded.config.queues["mail"].seal.len(), 2, "{:?}", loaded.problems);
    let token = loaded.config.admin.token.expect("one that has a comma");
    assert!(token.expose().starts_with(b"xenv:hunter2,"));
    for secret in [loaded.config.admin.read_token, loaded.config.store.password] {
        assert!(secret.is_some_and(|it| it.expose().starts_with(b"hunter2 is")));
    }
}

/// What stands in for secrets that are elsewhere is of every form that is asked for.
#[test]
fn secrets_may_be_elsewhere_and_which_is_said() {
    const TEXT: &str = "[server.tls]\nsecret = \"file:none/tls\"\n\
        certificates = [{ cert = \"none/a.pem\", key = \"none/a.key\" }]\n\
        [log]\nsubject = \"hash\"\nsubject_secret = \"env:NONE_SUBJECT\"\n\
        [admin]\ntoken = \"file:none/token\"\nread_token = \"${NONE_READ}\"\n\
        [store]\nurl = \"rediss://h\"\npassword = \"env:NONE_PASSWORD\"\n\
        tls = { client_cert = \"none/c.pem\", client_key = \"none/c.key\" }\n\
        [auth.a]\nalgorithms = [\"HS512\"]\nsecret = \"file:none/jwt\"\n\
        [upstreams.bus]\nnats = [\"nats://h\"]\nnkey = \"file:none/bus.nk\"\n\
        [upstreams.shop]\nservers = [\"https://h\"]\n\
        tls = { client_cert = \"none/s.pem\", client_key = \"none/s.key\" }\n\
        [queues.mail]\nseal = [\"file:none/1\", \"${NONE_SEAL}\"]\n\
        callback = { url = \"https://h/x\", secret = \"env:NONE_CALLBACK\" }\n";
    let folder = folder(&[("gateway.toml", TEXT)]);
    let path = folder.0.join("gateway.toml");
    let strict = load(&path).unwrap();
    assert!(strict.problems.len() >= 14 && strict.unseen.is_empty(), "{:?}", strict.problems);
    let loaded = load_with(&path, Secrets::MayBeElsewhere).unwrap();
    let told = loaded.source.render(&loaded.problems);
    assert!(told.starts_with("0 problems in "), "{told}");
    let unseen: Vec<(&str, &str)> =
        loaded.unseen.iter().map(|(key, place)| (key.as_str(), place.as_str())).collect();
    assert_eq!(
        unseen,
        [
            ("admin.read_token", "${NONE_READ}"),
            ("admin.token", "file:none/token"),
            ("auth.a.secret", "file:none/jwt"),
            ("log.subject_secret", "env:NONE_SUBJECT"),
            ("queues.mail.callback.secret", "env:NONE_CALLBACK"),
            ("queues.mail.seal[0]", "file:none/1"),
            ("queues.mail.seal[1]", "${NONE_SEAL}"),
            ("server.tls.certificates[0].cert", "none/a.pem"),
            ("server.tls.certificates[0].key", "none/a.key"),
            ("server.tls.secret", "file:none/tls"),
            ("store.password", "env:NONE_PASSWORD"),
            ("store.tls.client_cert", "none/c.pem"),
            ("store.tls.client_key", "none/c.key"),
            ("upstreams.bus.nkey", "file:none/bus.nk"),
            ("upstreams.shop.tls.client_cert", "none/s.pem"),
            ("upstreams.shop.tls.client_key", "none/s.key"),
        ]
    );
    // What is here is looked at all the same, and so is what is no secret.
    let wrong = "[server]\nlisten = [\"${NONE}\"]\n[auth.a]\nalgorithms = [\"HS256\"]\n\
                 secret = \"file:short\"\n[queues.mail]\nseal = \"file:short\"\n";
    std::fs::write(&path, wrong).unwrap();
    std::fs::write(folder.0.join("short"), "hunter2").unwrap();
    let loaded = load_with(&path, Secrets::MayBeElsewhere).unwrap();
    let told = loaded.source.render(&loaded.problems);
    assert!(told.contains("server.listen[0]: ") && told.contains("queues.mail.seal: "), "{told}");
    assert!(loaded.unseen.is_empty(), "{:?}", loaded.unseen);
}

/// What is found later, and where files are named: the value is told by its variable alone.
#[test]
fn no_problem_shows_what_the_environment_gave() {
    let loaded = read_with(
        "[routes.a]\npath = \"/\"\nupstream = \"${PASSWORD}\"\nlimits = \"${LIST}\"\n\
         [routes.b]\npath = \"/b\"\nupstream = \"x${PORT}\"\n",
    );
    let password = "hunter2 is longer than thirty-two bytes";
    let mut problems = Problems::default();
    problems.push("routes.a.upstream", format!("no upstream is named {password:?}"), "name one");
    problems.push("routes.a.limits[1]", "no limit is named `192.168.0.0/16`", "name one");
    problems.push("routes.a", format!("uses {password}"), format!("add [upstreams.{password}]"));
    problems.push("routes.b.upstream", "no upstream is named \"x8080\"", "name 8080");
    problems.push("routes.bc", "has \"x8080\"", "name one");
    let told = loaded.source.render(&problems);
    for expected in [
        "routes.a.upstream: no upstream is named ${PASSWORD}\n",
        "routes.a.limits[1]: no limit is named ${LIST}\n",
        "routes.a: uses ${PASSWORD}\n",
        "help: add [upstreams.${PASSWORD}]\n",
        "routes.b.upstream: no upstream is named ${PORT}\n",
        "routes.bc: has \"x8080\"\n",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    for (text, expected) in [
        ("include = [\"${PASSWORD}\"]", "include[0]: cannot read what ${PASSWORD} names: "),
        ("include = [\"${PASSWORD}/**\"]", "include[0]: ${PASSWORD} makes no pattern"),
    ] {
        let loaded = read_with(text);
        let told = loaded.source.render(&loaded.problems);
        assert!(told.contains(expected) && !told.contains("hunter2"), "{told}");
    }
}

/// The environment of this process is that of cargo.
#[test]
fn what_was_taken_is_shown_as_what_it_was_read_as() {
    let text = |headers: &str, proxies: &str| {
        format!(
            "[server]\nlimits.headers = {headers}\ntrusted_proxies = {proxies}\n\
             [auth.a]\nalgorithms = [\"HS256\"]\nsecret = \"${{CARGO_PKG_NAME:-x}}\"\n\
             [upstreams.shop]\n\
             servers = [\"http://${{PORTCULLIS_NO_SUCH:-a}}.${{CARGO_PKG_NAME}}\"]\n"
        )
    };
    let none = "PORTCULLIS_NO_SUCH";
    let taken = text(&format!("\"${{{none}:-33}}\""), &format!("\"${{{none}:-::1,10.0.0.1}}\""));
    let shown = Shown::of(&read(&taken).source);
    let from = |key: &str, value, variables: &[&str], unset: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let (variables, unset) = (owned(variables), owned(unset));
        FromEnvironment { key: key.to_owned(), value, variables, unset }
    };
    let cargo = "CARGO_PKG_NAME";
    assert_eq!(
        shown.from_environment(),
        [
            from("auth.a.secret", json!("[secret]"), &[cargo], &[]),
            from("server.limits.headers", json!(33), &[], &[none]),
            from("server.trusted_proxies", json!(["::1", "10.0.0.1"]), &[], &[none]),
            from("upstreams.shop.servers[0]", json!("http://a.portcullis"), &[cargo], &[none]),
        ]
    );
    let written = Shown::of(&read(&text("33", "[\"::1\", \"10.0.0.1\"]")).source);
    assert_eq!(written.differences(&shown), []);
    let other = Shown::of(&read(&text("34", "[\"::1\", \"10.0.0.1\"]")).source);
    let keys: Vec<String> = other.differences(&shown).into_iter().map(|it| it.key).collect();
    assert_eq!(keys, ["server.limits.headers"]);
}
