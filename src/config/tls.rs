//! `[server.tls]`: certificates for clients, and what clients must show themselves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::pem_file::PemFile;
use super::reader::Section;
use super::value::{address, choice, count, duration, duration_or_zero, flag};
use crate::base::file::FileFault;

/// `[server.tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Addresses that speak TLS; empty where those of `server.listen` do.
    pub listen: Vec<SocketAddr>,
    /// At least one.
    pub certificates: Vec<Certificate>,
    /// How long a handshake may take, from the connection's start.
    pub handshake_timeout: Duration,
    /// Handshakes that are computed at a time; others wait within `handshake_timeout`. Those that
    /// wait for their client do not count.
    pub handshakes: usize,
    /// Whether sessions are resumed by tickets, where the file says so.
    pub tickets: Option<Tickets>,
    /// Whether requests in clear are answered with a redirect to `https`.
    pub redirect: bool,
    /// How long browsers are told to come over TLS alone (RFC 6797); zero: they are told nothing.
    pub hsts: Duration,
}

/// One element of `certificates`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, the server's own certificate first.
    pub cert: PemFile,
    /// Its private key.
    pub key: PemFile,
    /// Whether it serves names that no certificate has.
    pub is_default: bool,
    /// What clients of its names must show.
    pub client: Option<ClientAuth>,
}

/// What clients must show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// Whether a client without a certificate is turned away.
    pub is_required: bool,
    /// The authorities that may vouch for clients.
    pub ca: PemFile,
    /// What they have revoked.
    pub crl: Option<PemFile>,
}

/// `tickets`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tickets {
    /// Sessions are not resumed.
    Off,
    /// Each node opens its own.
    Node,
}

impl Tls {
    /// Every file that is named.
    pub fn files(&self) -> impl Iterator<Item = &PemFile> {
        self.certificates.iter().flat_map(|certificate| {
            let client = certificate.client.iter();
            let client = client.flat_map(|client| [Some(&client.ca), client.crl.as_ref()]);
            [&certificate.cert, &certificate.key].into_iter().chain(client.flatten())
        })
    }

    /// The same with its files as they are now.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn reread(&self) -> Result<Self, (PathBuf, FileFault)> {
        let reread = |file: &PemFile| file.reread().map_err(|fault| (file.path.clone(), fault));
        let mut anew = self.clone();
        for certificate in &mut anew.certificates {
            certificate.cert = reread(&certificate.cert)?;
            certificate.key = reread(&certificate.key)?;
            if let Some(client) = &mut certificate.client {
                client.ca = reread(&client.ca)?;
                client.crl = client.crl.as_ref().map(reread).transpose()?;
            }
        }
        Ok(anew)
    }
}

/// What `client_auth` may be: whether a certificate is required, and whether one is asked for.
const CLIENT_AUTH: [(&str, ClientMode); 3] = [
    ("off", ClientMode::Off),
    ("optional", ClientMode::Optional),
    ("required", ClientMode::Required),
];
/// What `tickets` may be.
const TICKETS: [(&str, Tickets); 2] = [("node", Tickets::Node), ("off", Tickets::Off)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientMode {
    Off,
    Optional,
    Required,
}

/// `client_auth`, `client_ca` and `client_crl`, as one table gives them.
#[derive(Debug, Clone)]
struct ClientKeys {
    mode: Option<ClientMode>,
    ca: Option<PemFile>,
    crl: Option<PemFile>,
}

impl ClientKeys {
    fn read(table: &mut Section<'_>) -> Self {
        Self {
            mode: table.get("client_auth", choice(&CLIENT_AUTH)),
            ca: table.pem_file("client_ca"),
            crl: table.pem_file("client_crl"),
        }
    }

    /// What they mean, with what is left out taken from `others`.
    fn meant(self, table: &Section<'_>, others: Option<&Self>) -> Option<ClientAuth> {
        let other = |part: fn(&Self) -> Option<PemFile>| others.and_then(part);
        let ca = self.ca.or_else(|| other(|keys| keys.ca.clone()));
        let crl = self.crl.or_else(|| other(|keys| keys.crl.clone()));
        let mode = self.mode.or_else(|| others.and_then(|keys| keys.mode));
        let mode = match (mode, &ca) {
            (Some(mode), _) => mode,
            (None, Some(_)) => ClientMode::Required,
            (None, None) => ClientMode::Off,
        };
        match (mode, ca) {
            (ClientMode::Off, _) => None,
            (_, None) => {
                // A file that could not be read has a problem of its own.
                if !table.has("client_ca") {
                    table.problem(
                        "client_auth",
                        "no authority says which clients' certificates are good",
                        "add client_ca = \"clients.pem\", the authorities of your clients",
                    );
                }
                None
            }
            (mode, Some(ca)) => {
                Some(ClientAuth { is_required: mode == ClientMode::Required, ca, crl })
            }
        }
    }
}

/// Reads `[server.tls]`.
pub(super) fn read(tls: &mut Section<'_>) -> Tls {
    const EXAMPLE: &str = "[{ cert = \"site.pem\", key = \"site.key\" }]";
    let timeout = Duration::from_secs(5);
    for (key, without) in [
        ("acme", "no certificate would be ordered"),
        ("secret", "nothing would be wrapped with it"),
    ] {
        tls.not_built(key, without);
    }
    let everywhere = ClientKeys::read(tls);
    // Said once, where it stands, and not again for each certificate.
    let own = everywhere.clone().meant(tls, None);
    let others = own.is_some().then_some(&everywhere);
    let certificates = tls.need_tables("certificates", EXAMPLE, |table| {
        let client = ClientKeys::read(table).meant(table, others);
        let cert = table.need_pem_file("cert", "\"site.pem\"");
        let key = table.need_pem_file("key", "\"site.key\"");
        let is_default = table.or("default", false, flag);
        Some(Certificate { cert: cert?, key: key?, is_default, client })
    });
    Tls {
        listen: tls.list_env("listen", address).unwrap_or_default(),
        certificates,
        handshake_timeout: tls.or("handshake_timeout", timeout, duration),
        handshakes: tls.or("handshakes", 256, count(1..=1_000_000)),
        tickets: tls.get("tickets", choice(&TICKETS)),
        redirect: tls.or("redirect", false, flag),
        hsts: tls.or("hsts", Duration::ZERO, duration_or_zero),
    }
}
