//! The README's console examples, executed: every `console` block's commands, and every curl line
//! that the demo prints.

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
        &["HTTP/1.1 200"],
        &["HTTP/1.1 201", "app:auth:not-before:7"],
        &["HTTP/1.1 401", "token_revoked"],
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
