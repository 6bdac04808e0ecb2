//! The documentation, executed: every block of README.md and docs/, and the demo and its tour. Its
//! style is checked too, the generated reference, and what drives the known traps.

mod execute;
mod grafana;
pub(crate) mod pages;
mod reference;
mod runbook;
mod style;
mod traps;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use crate::support::{Folder, run};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

/// A running demo and the tour it printed.
struct Demo {
    child: Child,
    tour: String,
}

impl Demo {
    fn start() -> Self {
        Self::on("memory:")
    }

    /// With this store.
    fn on(store: &str) -> Self {
        let mut child = Command::new(BINARY)
            .args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--store", store])
            .args(["--store-timeout", "10s"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut tour = String::new();
        while !tour.ends_with("Ctrl-C ends the demo.\n") {
            let line = lines.next().expect("the demo ended before its tour did").unwrap();
            tour.push_str(&line);
            tour.push('\n');
        }
        Self { child, tour }
    }

    /// The address that follows `before` in the tour.
    fn address(&self, before: &str) -> String {
        let (_, rest) = self.tour.split_once(before).expect("an address");
        let end = rest.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit());
        rest[..end.expect("an end")].to_owned()
    }

    /// The lines that name the tokens of its users.
    fn tokens(&self) -> String {
        let lines = self.tour.lines().map(str::trim);
        let tokens = lines.filter(|line| line.starts_with("ADA=") || line.starts_with("BOB="));
        tokens.flat_map(|line| [line, "\n"]).collect()
    }

    /// Runs one line of the tour as a user would paste it.
    fn paste(&self, line: &str) -> String {
        let script = format!("{}{line}", self.tokens());
        let ran = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert!(ran.status.success(), "{line}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8_lossy(&ran.stdout).into_owned()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_curl_line_of_the_demo_shows_what_it_says() {
    let demo = Demo::start();
    let tour: Vec<&str> = demo.tour.lines().map(str::trim).collect();
    let lines = tour.iter().filter(|line| line.starts_with("curl ") || line.starts_with("for "));
    let outputs: Vec<String> = lines.map(|line| demo.paste(line)).collect();
    let expected: [&[&str]; 12] = [
        &["HTTP/1.1 401", "www-authenticate: Bearer", "token_missing"],
        &["HTTP/1.1 200", "fwd=uri-miss; stored", "ratelimit: \"api\";r=99", "teapot"],
        &["HTTP/1.1 200", "portcullis; hit", "age: ", "teapot"],
        &["HTTP/1.1 201", "location: /products/3"],
        &["HTTP/1.1 200", "fwd=uri-miss", "kettle"],
        &["HTTP/1.1 200", "x-session", "ada@example.com", "\"x-user-id\":\"42\""],
        &["200\n200\n200\n200\n200\n429\n"],
        &["HTTP/1.1 201", "app:auth:not-before:42", "\"sessions_ended\":1"],
        &["HTTP/1.1 401", "token_revoked"],
        &["HTTP/1.1 200"],
        &["\"connected\":true"],
        &["portcullis_requests_total{route=\"products\",status=\"200\"}"],
    ];
    assert_eq!(outputs.len(), expected.len(), "{:#?}", demo.tour);
    for (output, expected) in outputs.iter().zip(expected) {
        for part in expected {
            assert!(output.contains(part), "{part:?} is not in:\n{output}");
        }
    }
    assert!(!outputs[5].contains("authorization"), "the token reached the API: {}", outputs[5]);
}

#[test]
fn the_demo_ends_by_the_signals_that_mean_it() {
    let mut demo = Demo::start();
    let public = demo.address("a gateway on http://");
    let signal = |name: &str, pid: u32| {
        let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
        assert!(sent.unwrap().success(), "{name}");
    };
    for name in ["USR1", "USR2"] {
        signal(name, demo.child.id());
        let status = format!("curl -s -o /dev/null -w '%{{http_code}}' http://{public}/products");
        assert_eq!(demo.paste(&status), "401", "{name}");
    }
    signal("INT", demo.child.id());
    assert_eq!(demo.child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_demos_configuration_is_one_to_start_from() {
    let folder = Folder::new();
    let print = || run(&folder, &["demo", "--print-config", "--listen", "127.0.0.1:8088"]);
    let (printed, again) = (print(), print());
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    folder.write("gateway.toml", &printed.stdout);
    let checked = run(&folder, &["check"]);
    assert_eq!((checked.stdout.as_str(), checked.stderr.as_str()), ("ok: 4 routes\n", ""));
    let signed = run(&folder, &["token", "--claim", "sub=42"]);
    assert_eq!(signed.code, Some(0), "{}", signed.stderr);
    // All that the demo fills in has a value, and the secret is nobody else's.
    for word in ["PUBLIC", "ADMIN", "STORE", "PATIENCE", "UPSTREAM", "SECRET"] {
        assert!(!printed.stdout.contains(word), "{word}");
    }
    assert!(printed.stdout.contains("listen = [\"127.0.0.1:8088\"]"), "{}", printed.stdout);
    let differing = printed.stdout.lines().zip(again.stdout.lines()).filter(|(a, b)| a != b);
    let differing: Vec<(&str, &str)> = differing.collect();
    assert!(
        matches!(differing[..], [(a, _)] if a.starts_with("secret = \"") && a.len() == 75),
        "{differing:?}"
    );
    let help = run(&folder, &["demo", "--help"]);
    assert!(help.stdout.contains("--print-config"), "{}", help.stdout);
}

#[test]
fn a_demo_without_its_port_says_which_option_names_another() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (option, other) in [("--listen", "--admin"), ("--admin", "--listen")] {
        let refused = run(&Folder::new(), &["demo", option, &address, other, "127.0.0.1:0"]);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
        let told = &refused.stderr;
        assert!(told.contains(&format!("cannot listen on {address}: ")), "{told}");
        assert!(told.contains(&format!("free: {option} 127.0.0.1:0\n")), "{told}");
    }
}
