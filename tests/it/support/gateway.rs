//! The gateway under test: the built binary, in a process of its own.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use super::{Folder, eventually};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

/// Lines of a running process.
type Lines = Arc<Mutex<Vec<String>>>;

/// A running gateway; it is killed when the test ends.
pub(crate) struct Gateway {
    /// Where it serves.
    pub(crate) public: SocketAddr,
    /// Where its admin listener is.
    pub(crate) admin: SocketAddr,
    folder: Folder,
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

/// How a gateway ended that did not start, or a command that was run.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Its exit code.
    pub(crate) code: Option<i32>,
    /// What it printed.
    pub(crate) stdout: String,
    /// What it complained.
    pub(crate) stderr: String,
}

/// Runs the binary with these arguments in this folder, to its end.
pub(crate) fn run(folder: &Folder, arguments: &[&str]) -> Refused {
    run_with(folder, arguments, &[], "")
}

/// The same with these environment variables, and with `input` on standard input.
pub(crate) fn run_with(
    folder: &Folder,
    arguments: &[&str],
    variables: &[(&str, &str)],
    input: &str,
) -> Refused {
    let mut child = Command::new(BINARY)
        .args(arguments)
        .envs(variables.iter().copied())
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    // Dropped, it ends the input; a command that reads none may be gone by then.
    let _ = child.stdin.take().expect("an input").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the binary ends");
    Refused {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Gateway {
    /// Starts one with this configuration. Listeners that the text does not name get a free port.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_in(Folder::new(), config)
    }

    /// The same, in a folder that holds files which the configuration names.
    pub(crate) fn start_in(folder: Folder, config: &str) -> Self {
        Self::start_by(Command::new(BINARY).stdin(Stdio::null()), folder, config)
    }

    /// The same, by a command of the test's own: under another name, with an environment.
    pub(crate) fn start_by(command: &mut Command, folder: Folder, config: &str) -> Self {
        folder.write("gateway.toml", with_listeners(config));
        let mut child = command
            .args(["run", "--config", "gateway.toml"])
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = collect(child.stdout.take().expect("its stdout"));
        let stderr = collect(child.stderr.take().expect("its stderr"));
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut gateway = Self { public: nowhere, admin: nowhere, folder, child, stdout, stderr };
        eventually("the gateway listens", || {
            if let Ok(Some(status)) = gateway.child.try_wait() {
                panic!("the gateway did not start: {status}\n{}", gateway.stderr());
            }
            let log = gateway.stderr();
            let public = listener(&log, "public").or_else(|| listener(&log, "tls"));
            match (public, listener(&log, "admin")) {
                (Some(public), Some(admin)) => {
                    (gateway.public, gateway.admin) = (public, admin);
                    true
                }
                _ => false,
            }
        });
        gateway
    }

    /// Starts one that is expected to refuse its configuration, which is taken as it stands.
    pub(crate) fn try_start(config: &str) -> Refused {
        let folder = Folder::new();
        folder.write("gateway.toml", config);
        run(&folder, &["run", "--config", "gateway.toml"])
    }

    /// Where it listens as this: `public`, `tls` or `admin`.
    pub(crate) fn listening(&self, name: &str) -> SocketAddr {
        let mut address = None;
        eventually("the listener is told", || {
            address = listener(&self.stderr(), name);
            address.is_some()
        });
        address.expect("an address")
    }

    /// The folder of `gateway.toml`.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Replaces the configuration file; the listeners stay as they are, if the text has none.
    pub(crate) fn rewrite(&self, config: &str) {
        self.folder.write("gateway.toml", with_listeners(config));
    }

    /// Sends a signal, such as `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        kill(name, self.pid());
    }

    /// The processes that took over, in their order.
    pub(crate) fn heirs(&self) -> Vec<u32> {
        let said = self.stderr();
        let told = said.split("handed over to process ").skip(1);
        told.filter_map(|rest| rest.split(';').next()?.parse().ok()).collect()
    }

    /// Waits until the process has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        eventually("the gateway ends", || {
            ended = self.child.try_wait().expect("its status");
            ended.is_some()
        });
        ended.expect("a status")
    }

    /// The access log so far, one value for each request.
    pub(crate) fn access_lines(&self) -> Vec<serde_json::Value> {
        let parse = |line: &String| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
        };
        self.stdout.lock().unwrap().iter().map(parse).collect()
    }

    /// The diagnostics so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().join("\n")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let heirs = self.heirs();
        let folder = self.folder.path().canonicalize().ok();
        for heir in heirs {
            // A number alone may be another process by now.
            if folder.is_some() && std::fs::read_link(format!("/proc/{heir}/cwd")).ok() == folder {
                let _ = Command::new("kill").arg("-KILL").arg(heir.to_string()).status();
            }
        }
        if std::thread::panicking() {
            eprintln!("--- the gateway said:\n{}\n---", self.stderr());
        }
    }
}

/// Sends a signal to a process.
pub(crate) fn kill(signal: &str, pid: u32) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status();
    assert!(status.expect("kill runs").success(), "kill -{signal} {pid}");
}

fn collect(pipe: impl Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let shared = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            shared.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
        }
    });
    lines
}

/// The address in a line such as `… listening public=127.0.0.1:4711`.
fn listener(log: &str, name: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once(&format!("listening {name}="))?;
    let address = rest.split(|c: char| c.is_whitespace() || c == '"').next()?;
    address.parse().ok()
}

/// Adds what a configuration does not say about where to listen, so that tests never meet on a
/// port.
fn with_listeners(config: &str) -> String {
    let mut text = config.to_owned();
    for (table, line) in
        [("[admin]", "listen = \"127.0.0.1:0\""), ("[server]", "listen = [\"127.0.0.1:0\"]")]
    {
        let begin = text.lines().position(|line| line.trim() == table);
        text = match begin {
            None => format!("{table}\n{line}\n{text}"),
            Some(begin) => {
                let mut lines: Vec<&str> = text.lines().collect();
                let inside = lines[begin + 1..].iter().take_while(|l| !l.trim().starts_with('['));
                let said = inside.clone().any(|line| line.trim().starts_with("listen"));
                if !said {
                    lines.insert(begin + 1, line);
                }
                lines.join("\n") + "\n"
            }
        };
    }
    text
}

/// An operation through a gateway's admin API.
pub(crate) fn operate(gateway: &Gateway, method: &str, path: &str, body: &str) -> super::Reply {
    super::Client::request(gateway.admin, method, path)
        .header("Host", gateway.admin.to_string())
        .header("Content-Type", "application/json")
        .body(body)
        .send()
}
