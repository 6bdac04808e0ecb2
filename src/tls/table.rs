//! Which certificate and which demands a name has.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::{self, ServerCertificate};
use super::flaw::Flaw;
use super::issued::Issued;
use super::name_policy::NamePolicy;
use super::provider;
use super::tickets::TicketKeys;
use crate::config;

/// What is spoken above TLS, most wanted first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The certificates by the names that clients ask for.
#[derive(Debug, Clone)]
pub struct Table {
    entries: Vec<Arc<Entry>>,
    /// Indexes of entries by name; `*.name` by `name` in the second.
    exact: HashMap<String, usize>,
    wildcard: HashMap<String, usize>,
    /// Who answers to names that nobody has.
    default: Option<usize>,
    /// Who answers those that ask for no name.
    nameless: Option<usize>,
    certificates: Vec<ServerCertificate>,
    /// What TLS asks of clients of names whose certificates come later.
    of_issued: Option<NamePolicy>,
    /// The keys of tickets, where a fleet shares them.
    ticket_keys: Option<Arc<TicketKeys>>,
    /// Whether TLS asks something else of the clients of some name than of those of another.
    has_several_policies: bool,
}

/// What one set of names has.
#[derive(Debug)]
pub struct Entry {
    config: Arc<ServerConfig>,
    policy: NamePolicy,
}

impl Entry {
    /// For the rest of the handshake.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// What TLS asks of clients; equal numbers are equal demands.
    pub fn name_policy(&self) -> u64 {
        self.policy.id
    }

    /// Whether the certificates that a ticket restored are good now.
    pub fn still_trusts(&self, certificates: &[CertificateDer<'_>]) -> bool {
        self.policy.still_trusts(certificates)
    }
}

impl Table {
    /// Compiles `[server.tls]`. With `former`, names whose demands have not changed go on opening
    /// its tickets.
    ///
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn compile(written: &config::Tls, former: Option<&Self>) -> Result<Self, Vec<Flaw>> {
        let provider = provider();
        let mut flaws = Vec::new();
        let mut certificates = Vec::new();
        let mut policies: Vec<NamePolicy> = Vec::new();
        let ticket_keys = if written.shares_tickets() {
            let former = former.and_then(|table| table.ticket_keys.clone());
            former.or_else(|| TicketKeys::new().map(Arc::new))
        } else {
            None
        };
        let fleet = ticket_keys.as_ref();
        for (index, element) in written.certificates.iter().enumerate() {
            let at = format!("certificates[{index}]");
            match certificate::server(element, &at, &provider) {
                Ok(certificate) => certificates.push(certificate),
                Err(flaw) => flaws.push(flaw),
            }
            let at = format!("{at}.");
            match NamePolicy::compile(&element.policy, fleet, &at, &provider) {
                Ok(policy) => {
                    let known = former.iter().flat_map(|table| table.policies()).chain(&policies);
                    let policy = known.fold(policy, NamePolicy::sharing_tickets);
                    policies.push(policy);
                }
                Err(flaw) => flaws.push(flaw),
            }
        }
        let of_issued = written.acme.as_ref().map(|_| {
            let policy = NamePolicy::compile(&written.policy, fleet, "", &provider)?;
            let known = former.iter().flat_map(|table| table.policies()).chain(&policies);
            Ok(known.fold(policy, NamePolicy::sharing_tickets))
        });
        let of_issued = of_issued.transpose().unwrap_or_else(|flaw| {
            flaws.push(flaw);
            None
        });
        if written.certificates.iter().filter(|element| element.is_default).count() > 1 {
            let what = "two certificates are marked default = true";
            flaws.push(Flaw::new("certificates".to_owned(), what, "mark one of them"));
        }
        if !flaws.is_empty() {
            return Err(flaws);
        }
        let table = Self::of(written, certificates, &policies, &provider)?;
        Ok(Self { of_issued, ticket_keys, ..table })
    }

    /// The same with certificates that no file holds. A name that a file has keeps the file's.
    #[must_use]
    pub fn with_issued<'i>(&self, issued: impl Iterator<Item = &'i Issued>) -> Self {
        let mut table = self.clone();
        let Some(policy) = &self.of_issued else { return table };
        for Issued(certificate) in issued {
            let keys = vec![Arc::clone(&certificate.key)];
            // It fails for no key that was read.
            let Ok(config) = server_config(keys, policy, &provider()) else { continue };
            let at = table.entries.len();
            table
                .entries
                .push(Arc::new(Entry { config: Arc::new(config), policy: policy.clone() }));
            for name in &certificate.names {
                table.exact.entry(name.clone()).or_insert(at);
            }
            table.certificates.push(certificate.clone());
            table.nameless = table.nameless.or((table.certificates.len() == 1).then_some(at));
        }
        table.has_several_policies |=
            table.entries.iter().any(|entry| entry.policy.id != policy.id);
        table
    }

    fn of(
        written: &config::Tls,
        certificates: Vec<ServerCertificate>,
        policies: &[NamePolicy],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Vec<Flaw>> {
        let mut sharing: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, certificate) in certificates.iter().enumerate() {
            for name in &certificate.names {
                sharing.entry(name).or_default().push(index);
            }
        }
        let mut entries = Entries::new(&certificates, policies, provider);
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for (name, members) in &sharing {
            let at = entries.of(members);
            match name.strip_prefix("*.") {
                Some(name) => wildcard.insert(name.to_owned(), at),
                None => exact.insert((*name).to_owned(), at),
            };
        }
        let marked = written.certificates.iter().position(|element| element.is_default);
        let default = marked.map(|index| entries.of(&[index]));
        let single = (written.certificates.len() == 1).then(|| entries.of(&[0]));
        let nameless = default.or(single);
        let has_several_policies = policies.windows(2).any(|two| two[0].id != two[1].id);
        let entries = entries.finished()?;
        let (of_issued, ticket_keys) = (None, None);
        Ok(Self {
            entries,
            exact,
            wildcard,
            default,
            nameless,
            certificates,
            of_issued,
            ticket_keys,
            has_several_policies,
        })
    }

    /// The keys of tickets, where a fleet shares them.
    pub fn ticket_keys(&self) -> Option<&Arc<TicketKeys>> {
        self.ticket_keys.as_ref()
    }

    fn policies(&self) -> impl Iterator<Item = &NamePolicy> {
        self.entries.iter().map(|entry| &entry.policy).chain(&self.of_issued)
    }

    /// What a name has (RFC 6125 §6.4.3: a `*` stands for one label); nothing where no certificate
    /// answers to it. No name is what clients of an address send.
    pub fn find(&self, name: Option<&str>) -> Option<&Arc<Entry>> {
        let at = match name {
            None => self.nameless,
            Some(name) => self.at(name),
        };
        self.entries.get(at?)
    }

    fn at(&self, name: &str) -> Option<usize> {
        let lower;
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            &lower
        } else {
            name
        };
        let of_wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(of_wildcard).copied().or(self.default)
    }

    /// Whether a connection under `name_policy` may carry a request for this host
    /// (RFC 9110 §15.5.20): not where TLS asks something else of its clients.
    pub fn suits(&self, name_policy: u64, host: &str) -> bool {
        !self.has_several_policies
            || self.find(Some(host)).is_none_or(|entry| entry.name_policy() == name_policy)
    }

    /// What TLS asks of clients of this host, as a connection under its name has it.
    pub fn name_policy_of(&self, host: &str) -> u64 {
        self.find(Some(host)).map(|entry| entry.name_policy()).unwrap_or_default()
    }

    /// The first name of each certificate, and its dates in Unix seconds.
    pub fn dates(&self) -> impl Iterator<Item = (&str, i64, i64)> {
        self.certificates.iter().map(|certificate| {
            let name = certificate.names.first().map_or("-", String::as_str);
            (name, certificate.not_before, certificate.not_after)
        })
    }

    /// Whether some certificate has this host, or answers to any.
    pub fn covers(&self, host: &str) -> bool {
        self.at(host).is_some()
    }
}

/// Entries in the making: one for each set of certificates that share a name.
struct Entries<'a> {
    certificates: &'a [ServerCertificate],
    policies: &'a [NamePolicy],
    provider: &'a Arc<CryptoProvider>,
    made: HashMap<Vec<usize>, usize>,
    entries: Vec<Arc<Entry>>,
    flaws: Vec<Flaw>,
}

impl<'a> Entries<'a> {
    fn new(
        certificates: &'a [ServerCertificate],
        policies: &'a [NamePolicy],
        provider: &'a Arc<CryptoProvider>,
    ) -> Self {
        let (made, entries, flaws) = (HashMap::new(), Vec::new(), Vec::new());
        Self { certificates, policies, provider, made, entries, flaws }
    }

    /// The index of the entry of these certificates.
    fn of(&mut self, members: &[usize]) -> usize {
        if let Some(known) = self.made.get(members) {
            return *known;
        }
        let at = format!("certificates[{}]", members[0]);
        let policy = &self.policies[members[0]];
        if members.iter().any(|other| self.policies[*other].id != policy.id) {
            let what = "certificates of the same name ask different things of clients";
            let remedy = "give them the same client_auth, client_ca and client_crl";
            self.flaws.push(Flaw::new(at.clone(), what, remedy));
        }
        let keys = members.iter().map(|at| Arc::clone(&self.certificates[*at].key)).collect();
        match server_config(keys, policy, self.provider) {
            Ok(config) => {
                let (config, policy) = (Arc::new(config), policy.clone());
                self.entries.push(Arc::new(Entry { config, policy }));
            }
            Err(error) => {
                self.flaws.push(Flaw::new(at, error.to_string(), "use another certificate"));
            }
        }
        let index = self.entries.len().saturating_sub(1);
        self.made.insert(members.to_vec(), index);
        index
    }

    fn finished(self) -> Result<Vec<Arc<Entry>>, Vec<Flaw>> {
        if self.flaws.is_empty() { Ok(self.entries) } else { Err(self.flaws) }
    }
}

fn server_config(
    keys: Vec<Arc<CertifiedKey>>,
    policy: &NamePolicy,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?;
    let builder = match policy.verifier() {
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Keys(keys)));
    config.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
    // Sessions that this node remembers would cross policies: they are resumed by ticket or not.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    match policy.tickets() {
        Some(tickets) => config.ticketer = Arc::clone(tickets),
        None => config.send_tls13_tickets = 0,
    }
    // Without it, the master secret of TLS 1.2 is not bound to the handshake (RFC 7627).
    config.require_ems = true;
    Ok(config)
}

/// The certificates of one name, such as one with an ECDSA and one with an RSA key.
#[derive(Debug)]
struct Keys(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Keys {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let suits =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        self.0.iter().find(suits).or_else(|| self.0.first()).cloned()
    }
}
