//! TLS to clients: which certificate a name gets, what clients must show, and what upstreams are
//! told of it.

mod certificates;
mod client_auth;
mod floods;
mod greetings;
mod handshakes;
mod identity;
mod tickets;

use std::net::SocketAddr;

use crate::support::{
    CertificateAuthority, Client, Exposition, Folder, Gateway, Pair, Upstream, eventually, response,
};

/// A gateway with TLS and one upstream that keeps what it gets.
struct House {
    authority: CertificateAuthority,
    upstream: Upstream,
    gateway: Gateway,
    /// Where TLS is spoken.
    tls: SocketAddr,
}

/// The table that names files `NAME.pem` and `NAME.key`.
fn certificates(names: &[&str], more: &str) -> String {
    let element = |name: &&str| format!("{{ cert = '{name}.pem', key = '{name}.key' }}");
    let elements: Vec<String> = names.iter().map(element).collect();
    format!(
        "[server.tls]\nlisten = ['127.0.0.1:0']\ncertificates = [{}]\n{more}\n",
        elements.join(", ")
    )
}

fn write(folder: &Folder, name: &str, pair: &Pair) {
    folder.write(&format!("{name}.pem"), &pair.cert);
    folder.write(&format!("{name}.key"), &pair.key);
}

impl House {
    /// With a certificate for `shop.test` in `site.pem`.
    fn start(more: &str) -> Self {
        Self::with(|_, _| {}, &certificates(&["site"], more))
    }

    /// With files that `fill` writes beside `site.pem`, and this table.
    fn with(fill: impl FnOnce(&Folder, &CertificateAuthority), tls: &str) -> Self {
        let (authority, folder) = (CertificateAuthority::new(), Folder::new());
        write(&folder, "site", &authority.issue(&["shop.test"]));
        fill(&folder, &authority);
        Self::before(Upstream::replying(response("200 OK", "hello")), authority, folder, tls)
    }

    /// In front of this upstream, with this table and the files that it names.
    fn before(
        upstream: Upstream,
        authority: CertificateAuthority,
        folder: Folder,
        tls: &str,
    ) -> Self {
        let routes = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n";
        let config = format!("{tls}{}{routes}", upstream.table("shop"));
        let gateway = Gateway::start_in(folder, &config);
        let tls = gateway.listening("tls");
        Self { authority, upstream, gateway, tls }
    }

    /// Waits until a series of TLS has counted to at least this.
    fn counts(&self, name: &str, label: (&str, &str), at_least: f64) {
        eventually(&format!("{name} {label:?} is {at_least}"), || {
            let text = Client::get(self.gateway.admin, "/metrics").send().text();
            let value = Exposition::text(&text).value(name, &[label]);
            value.is_some_and(|value| value >= at_least)
        });
    }
}
