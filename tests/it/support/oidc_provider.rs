//! An OpenID provider that is no mock of ours: oidc-provider on Node, which scripts/setup fetches.
//! Whoever comes to its page is logged in as who the test says.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{Client, Reply};

/// See the module; it ends with the test.
pub(crate) struct OidcProvider {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl OidcProvider {
    /// Starts one without clients. `settings` are those of scripts/oidc-provider/provider.mjs.
    pub(crate) fn start(settings: &Value) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new("node")
            .arg(root.join("scripts/oidc-provider/provider.mjs"))
            .arg(settings.to_string())
            .current_dir(root.join("target/oidc-provider"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node runs, and target/oidc-provider is there: run scripts/setup");
        let mut line = String::new();
        let output = child.stdout.take().expect("its stdout");
        BufReader::new(output).read_line(&mut line).expect("its first line");
        let port: u16 = line.trim().parse().expect("its port: run scripts/setup");
        Self { address: SocketAddr::from(([127, 0, 0, 1], port)), child }
    }

    /// What it calls itself.
    pub(crate) fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Knows a client from now on, by its metadata.
    pub(crate) fn register(&self, client: &Value) {
        self.tell("/test/clients", client);
    }

    /// Logs in this account, whoever comes next.
    pub(crate) fn expect(&self, sub: &str) {
        self.tell("/test/account", &json!({ "sub": sub }));
    }

    fn tell(&self, path: &str, said: &Value) {
        let request = Client::request(self.address, "POST", path).body(said.to_string());
        assert_eq!(request.send().status, 204, "{path} {said}");
    }

    /// Follows a redirect to it as a browser with these cookies does, until it sends the browser
    /// away: where to.
    pub(crate) fn follow(&self, jar: &mut Jar, location: &str) -> String {
        let mut location = location.to_owned();
        for _ in 0..10 {
            let origin = self.issuer();
            let path = match location.strip_prefix(&origin) {
                Some(path) => path,
                None if location.starts_with('/') => &location,
                None => return location,
            };
            let reply = jar.ask(self.address, &self.address.to_string(), path);
            let next = reply.header("location").map(str::to_owned);
            location = next.unwrap_or_else(|| panic!("{path}: {} {}", reply.status, reply.text()));
        }
        panic!("it redirects for ever, to {location}");
    }
}

impl Drop for OidcProvider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The cookies that a browser has for one host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Jar(pub(crate) Vec<(String, String)>);

impl Jar {
    /// Asks the shop with these cookies, and keeps those that are set.
    pub(crate) fn get(&mut self, address: SocketAddr, path: &str) -> Reply {
        self.ask(address, "shop.test", path)
    }

    fn ask(&mut self, address: SocketAddr, host: &str, path: &str) -> Reply {
        let reply = Client::get(address, path)
            .header("Host", host)
            .header("Accept", "text/html")
            .header("Cookie", self.field())
            .send();
        self.keep(&reply);
        reply
    }

    /// The value of the field `Cookie`.
    pub(crate) fn field(&self) -> String {
        let pairs: Vec<String> = self.0.iter().map(|(name, it)| format!("{name}={it}")).collect();
        pairs.join("; ")
    }

    /// Keeps what an answer sets, and forgets what it takes back.
    pub(crate) fn keep(&mut self, reply: &Reply) {
        for set in reply.headers_named("set-cookie") {
            let pair = set.split(';').next().unwrap_or_default();
            let Some((name, value)) = pair.split_once('=') else { continue };
            self.0.retain(|(known, _)| known != name);
            let is_over = set.contains("Max-Age=0") || set.contains("01 Jan 1970");
            if !value.is_empty() && !is_over {
                self.0.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    /// The value of a cookie whose name begins so.
    pub(crate) fn starting(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known.starts_with(name));
        found.map(|(_, value)| value.as_str())
    }
}
