//! The README's console examples, executed: every `console` block's commands, among them the story
//! of what a write makes stale, against a running demo, and every curl line that the demo prints.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The commands of the README's console blocks, each with the output that the README shows below
/// it.
fn examples() -> Vec<(String, String)> {
    let readme = std::fs::read_to_string(format!("{ROOT}/README.md")).unwrap();
    let mut examples: Vec<(String, String)> = Vec::new();
    for block in readme.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            match line.strip_prefix("$ ") {
                Some(command) => examples.push((command.to_owned(), String::new())),
                None => {
                    let (_, output) = examples.last_mut().expect("output without a command");
                    output.push_str(line);
                    output.push('\n');
                }
            }
        }
    }
    examples
}

#[test]
fn every_console_example_does_what_the_readme_says() {
    let examples = examples();
    assert!(examples.len() >= 3, "{examples:?}");
    for (command, output) in examples {
        let words: Vec<&str> = command.split(' ').collect();
        match words.as_slice() {
            ["cargo", "run", "--release", "--", "demo"] => drop(Demo::start()),
            // The story is told in one go, below.
            ["get()" | "get" | "write()" | "write", ..] => {}
            ["scripts/test"] => {
                use std::os::unix::fs::PermissionsExt as _;
                let mode =
                    std::fs::metadata(format!("{ROOT}/scripts/test")).unwrap().permissions().mode();
                assert!(mode & 0o111 != 0, "scripts/test is not executable");
            }
            ["portcullis", arguments @ ..] => {
                let ran = Command::new(BINARY).args(arguments).current_dir(ROOT).output().unwrap();
                assert_eq!(String::from_utf8_lossy(&ran.stdout), output, "{command}");
                assert!(ran.status.success(), "{command}");
            }
            _ => panic!("the README shows a command that no test knows: {command}"),
        }
    }
}

/// What stands for seconds, which the README writes as `…`.
fn without_seconds(output: &str) -> String {
    let mut parts = output.split("ttl=");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '-' | '…'));
        text.extend(["ttl=…", rest]);
    }
    text
}

#[test]
fn the_story_of_what_a_write_makes_stale_is_true() {
    const MARK: &str = "--- the next command ---";
    let mut story = examples();
    story.retain(|(command, _)| command.starts_with("get") || command.starts_with("write"));
    assert!(story.len() >= 15, "{story:?}");
    let demo = Demo::start();
    let (public, admin) = (demo.address("a gateway on http://"), demo.address("  curl http://"));
    let script: String =
        story.iter().map(|(command, _)| format!("{command}\necho '{MARK}'\n")).collect();
    let script = script.replace("127.0.0.1:8080", &public).replace("127.0.0.1:9901", &admin);
    let output = demo.paste(&script);
    let outputs: Vec<&str> = output.split(&format!("{MARK}\n")).collect();
    assert_eq!(outputs.len(), story.len() + 1, "{output}");
    for ((command, shown), output) in story.iter().zip(outputs) {
        assert_eq!(without_seconds(output), *shown, "$ {command}");
    }
}

/// A running demo and the tour it printed.
struct Demo {
    child: Child,
    tour: String,
}

impl Demo {
    fn start() -> Self {
        let mut child = Command::new(BINARY)
            .args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
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

    /// Runs one line of the tour as a user would paste it.
    fn paste(&self, line: &str) -> String {
        let tokens: Vec<&str> = self
            .tour
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("ADA=") || line.starts_with("BOB="))
            .collect();
        let script = format!("{}\n{line}", tokens.join("\n"));
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
