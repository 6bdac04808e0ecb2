//! `[server.tls]`: certificates for clients, and what clients must show themselves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::acme::{self, Acme};
use super::pem_file::PemFile;
use super::reader::Section;
use super::value::{address, choice, count, duration, duration_or_zero, flag, text};
use crate::base::file::FileFault;
use crate::base::units::Secret;

/// Shortest `secret`, in bytes.
const SECRET_BYTES_MIN: usize = 32;

/// `[server.tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Addresses that speak TLS; empty where those of `server.listen` do.
    pub listen: Vec<SocketAddr>,
    /// At least one, unless others are ordered.
    pub certificates: Vec<Certificate>,
    /// Certificates that an authority issues by itself.
    pub acme: Option<Box<Acme>>,
    /// What holds for names without a certificate of their own in the file.
    pub policy: NamePolicy,
    /// What private keys, and those of tickets, are wrapped with in the store.
    pub secret: Option<Secret>,
    /// How long a handshake may take, from the connection's start.
    pub handshake_timeout: Duration,
    /// Handshakes that are computed at a time; others wait within `handshake_timeout`. Those that
    /// wait for their client do not count.
    pub handshakes: usize,
    /// Whether requests in clear are answered with a redirect to `https`.
    pub redirect: bool,
    /// How long browsers are told to come over TLS alone (RFC 6797); zero: they are told nothing.
    pub hsts: Duration,
}

impl Tls {
    /// Whether the gateways of a fleet open each other's tickets.
    pub fn shares_tickets(&self) -> bool {
        // What is written of tickets is written once, for all names.
        self.policy.tickets == Some(Tickets::Fleet)
    }
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
    /// What holds for its names.
    pub policy: NamePolicy,
}

/// What TLS asks of the clients of some names, and offers them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePolicy {
    /// What they must show.
    pub client: Option<ClientAuth>,
    /// Whether sessions are resumed by tickets, where the file says so.
    tickets: Option<Tickets>,
}

impl NamePolicy {
    /// Whether sessions are resumed by tickets.
    pub fn tickets(&self) -> Tickets {
        // Where clients show certificates, tickets are a risk and save little.
        let default = if self.client.is_some() { Tickets::Off } else { Tickets::Node };
        self.tickets.unwrap_or(default)
    }
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

impl ClientAuth {
    fn files(&self) -> impl Iterator<Item = &PemFile> {
        [Some(&self.ca), self.crl.as_ref()].into_iter().flatten()
    }
}

/// `tickets`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tickets {
    /// Sessions are not resumed.
    Off,
    /// Each node opens its own.
    Node,
    /// Each node opens those of all that share its store.
    Fleet,
}

impl Tls {
    /// Every file that is named.
    pub fn files(&self) -> impl Iterator<Item = &PemFile> {
        let certificates = self.certificates.iter().flat_map(|certificate| {
            let client = certificate.policy.client.iter().flat_map(ClientAuth::files);
            [&certificate.cert, &certificate.key].into_iter().chain(client)
        });
        certificates.chain(self.policy.client.iter().flat_map(ClientAuth::files))
    }

    /// What clients of any name must show, where they must show something.
    pub fn clients(&self) -> impl Iterator<Item = &ClientAuth> {
        let of_files = self.certificates.iter().map(|certificate| &certificate.policy);
        of_files.chain([&self.policy]).filter_map(|policy| policy.client.as_ref())
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
        }
        let policies = anew.certificates.iter_mut().map(|certificate| &mut certificate.policy);
        for client in policies.chain([&mut anew.policy]).filter_map(|it| it.client.as_mut()) {
            client.ca = reread(&client.ca)?;
            client.crl = client.crl.as_ref().map(reread).transpose()?;
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
const TICKETS: [(&str, Tickets); 3] =
    [("node", Tickets::Node), ("fleet", Tickets::Fleet), ("off", Tickets::Off)];

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
    let everywhere = ClientKeys::read(tls);
    // Said once, where it stands, and not again for each certificate.
    let own = everywhere.clone().meant(tls, None);
    let others = own.is_some().then_some(&everywhere);
    let tickets = tls.get("tickets", choice(&TICKETS));
    let acme = tls.optional("acme", acme::read);
    let orders = acme.is_some();
    let acme = acme.flatten().map(Box::new);
    let policy = |client| NamePolicy { client, tickets };
    let read_certificate = |table: &mut Section<'_>| {
        let client = ClientKeys::read(table).meant(table, others);
        if table.goes_without_pair(["cert", "key"]) {
            table.or("default", false, flag);
            for key in ["cert", "key"] {
                table.get(key, text);
            }
            return None;
        }
        let cert = table.need_pem_file("cert", "\"site.pem\"");
        let key = table.need_pem_file("key", "\"site.key\"");
        table.warn_of_key("key");
        let is_default = table.or("default", false, flag);
        Some(Certificate { cert: cert?, key: key?, is_default, policy: policy(client) })
    };
    let certificates = if orders && !tls.has("certificates") && !tls.is_survey() {
        Vec::new()
    } else {
        tls.need_tables("certificates", EXAMPLE, read_certificate)
    };
    Tls {
        listen: tls.list_env("listen", address).unwrap_or_default(),
        certificates,
        policy: policy(own.filter(|_| acme.is_some())),
        acme,
        secret: secret(tls),
        handshake_timeout: tls.or("handshake_timeout", timeout, duration),
        handshakes: tls.or("handshakes", 256, count(1..=1_000_000)),
        redirect: tls.or("redirect", false, flag),
        hsts: tls.or("hsts", Duration::ZERO, duration_or_zero),
    }
}

fn secret(tls: &mut Section<'_>) -> Option<Secret> {
    let secret = tls.secret("secret")?;
    let bytes = secret.expose().len();
    if bytes < SECRET_BYTES_MIN {
        let what = format!("has {bytes} bytes, and private keys are wrapped with it");
        let remedy = "write 32 random bytes or more into a file, such as `openssl rand -hex 32` \
                      prints, and name it: secret = \"file:tls.key\"";
        tls.problem("secret", what, remedy);
        return None;
    }
    Some(secret)
}
