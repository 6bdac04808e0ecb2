//! Certificates by ACME, from the real `pebble`: ordered, answered by whichever gateway is asked,
//! shared, renewed, and finished by another gateway where one dies.

mod fleet;
mod ordering;
mod renewal;

use std::net::SocketAddr;

use crate::support::tls::TlsStream;
use crate::support::{
    Client, Exposition, Folder, Gateway, Pebble, Redis, TlsClient, Upstream, eventually, response,
};

/// What private keys are wrapped with.
const SECRET: &str = "secret = \"an example of 32 bytes and then some\"";
/// One that is not ended by its own clock while a test looks.
const LONG: u32 = 90 * 24 * 3600;

/// A gateway, and the upstream behind it.
struct Node {
    gateway: Gateway,
    /// Where TLS is spoken, and where clear HTTP.
    tls: SocketAddr,
    clear: SocketAddr,
    config: String,
    _upstream: Upstream,
}

impl Node {
    /// Starts one that orders these names from `pebble`; `tls` and `acme` are more lines of their
    /// tables, `more` more tables.
    fn start(pebble: &Pebble, names: &str, tables: [&str; 3]) -> Self {
        Self::start_with(pebble, names, SECRET, tables)
    }

    /// The same with another secret.
    fn start_with(
        pebble: &Pebble,
        names: &str,
        secret: &str,
        [tls, acme, more]: [&str; 3],
    ) -> Self {
        let folder = Folder::new();
        folder.write("ca.pem", &pebble.authority.pem);
        let upstream = Upstream::replying(response("200 OK", "hello"));
        let config = format!(
            "[server.tls]
            listen = ['127.0.0.1:0']
            {secret}
            {tls}
            [server.tls.acme]
            directory = \"{}\"
            ca_file = \"ca.pem\"
            names = {names}
            {acme}
            {}
            [routes.all]
            path = \"/*\"
            upstream = \"shop\"
            {more}",
            pebble.directory(),
            upstream.table("shop"),
        );
        let gateway = Gateway::start_in(folder, &config);
        let (tls, clear) = (gateway.listening("tls"), gateway.listening("public"));
        Self { gateway, tls, clear, config, _upstream: upstream }
    }

    /// Starts one with the embedded store, which is asked for proofs.
    fn alone(pebble: &Pebble, names: &str, acme: &str) -> Self {
        let node = Self::start(pebble, names, ["", acme, ""]);
        pebble.http.to(&[node.clear]);
        pebble.tls.to(&[node.tls]);
        node
    }

    /// Starts one of a fleet.
    fn of_fleet(pebble: &Pebble, redis: &str, names: &str, acme: &str) -> Self {
        Self::start(pebble, names, ["", acme, &format!("[store]\nurl = \"{redis}\"")])
    }

    /// Shakes hands as soon as there is a certificate for `name` that `client` believes.
    fn connects(&self, client: &TlsClient, name: &str) -> TlsStream {
        let mut stream = None;
        eventually(&format!("there is a certificate for {name}"), || {
            stream = client.connect(self.tls, name).ok();
            stream.is_some()
        });
        stream.expect("a connection")
    }

    /// The certificate that it shows for a name.
    fn shows(&self, client: &TlsClient, name: &str) -> Vec<u8> {
        let stream = self.connects(client, name);
        stream.conn.peer_certificates().expect("a certificate")[0].to_vec()
    }

    /// Has it read another configuration: with this in place of that.
    fn reload(&self, this: &str, that: &str) {
        assert!(self.config.contains(that), "{}", self.config);
        self.gateway.rewrite(&self.config.replace(that, this));
        self.gateway.signal("HUP");
        self.counts("portcullis_reloads_total", "applied", 1.0);
    }

    /// Waits until a series has counted to at least this.
    fn counts(&self, name: &str, result: &str, at_least: f64) {
        eventually(&format!("{name} {result} is {at_least}"), || {
            let text = Client::get(self.gateway.admin, "/metrics").send().text();
            let value = Exposition::text(&text).value(name, &[("result", result)]);
            value.is_some_and(|value| value >= at_least)
        });
    }

    /// Waits until the log says this.
    fn says(&self, what: &str) {
        eventually(&format!("the log says {what}"), || self.gateway.stderr().contains(what));
    }
}

/// Has `pebble` ask all of these in turn.
fn ask_all(pebble: &Pebble, nodes: &[&Node]) {
    let all = |of: fn(&Node) -> SocketAddr| nodes.iter().map(|node| of(node)).collect::<Vec<_>>();
    pebble.http.to(&all(|node| node.clear));
    pebble.tls.to(&all(|node| node.tls));
}

/// A key of the store under the prefix of the gateways.
fn key(name: &str) -> String {
    format!("app:{{tls}}:{name}")
}

/// What lies in the store under a key, as JSON.
fn record(redis: &Redis, name: &str) -> serde_json::Value {
    serde_json::from_str(&redis.cli(&["GET", &key(name)])).unwrap_or_default()
}
