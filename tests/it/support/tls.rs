//! Certificates of authorities of our own, and clients that speak TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa,
    Issuer as Signing, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

use super::PATIENCE;

/// A certificate and its key in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// Who vouches for certificates.
pub(crate) struct CertificateAuthority {
    /// Its own certificate in PEM.
    pub(crate) pem: String,
    signing: Signing<'static, KeyPair>,
}

impl CertificateAuthority {
    /// A new one.
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A list of revoked certificates says by name who has signed it.
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("authority {}", NEXT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).expect("an authority").pem();
        Self { pem, signing: Signing::new(params, key) }
    }

    /// A certificate for these names.
    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_with(names, |_| {})
    }

    /// The same, changed by `change` before it is signed.
    pub(crate) fn issue_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.signing).expect("a certificate").pem();
        Pair { cert, key: key.serialize_pem() }
    }

    /// A client's certificate with this common name.
    pub(crate) fn client(&self, common_name: &str) -> Pair {
        self.issue_with(&[], |params| {
            params.distinguished_name.push(DnType::CommonName, common_name);
        })
    }

    /// A client's certificate with this serial number.
    pub(crate) fn client_with_serial(&self, common_name: &str, serial: u64) -> Pair {
        self.issue_with(&[], |params| {
            params.distinguished_name.push(DnType::CommonName, common_name);
            params.serial_number = Some(SerialNumber::from(serial));
        })
    }

    /// A list that revokes these serial numbers.
    pub(crate) fn revoke(&self, serials: &[u64]) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2124, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.signing).expect("a list").pem().expect("PEM")
    }
}

/// Makes connections over TLS.
#[derive(Clone)]
pub(crate) struct TlsClient {
    config: Arc<ClientConfig>,
}

/// Shows each name the tickets of any.
#[derive(Debug)]
struct AnyName(ClientSessionMemoryCache);

fn any_name() -> ServerName<'static> {
    ServerName::try_from("any.test").expect("a name")
}

impl ClientSessionStore for AnyName {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(any_name(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&any_name())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(any_name(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&any_name())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&any_name());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(any_name(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&any_name())
    }
}

/// A connection over TLS.
pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl TlsClient {
    /// One that trusts this authority and shows no certificate.
    pub(crate) fn new(authority: &CertificateAuthority) -> Self {
        Self::with(authority, None, &[])
    }

    /// One that shows a certificate, where it has one, and offers these protocols. It resumes
    /// sessions.
    pub(crate) fn with(
        authority: &CertificateAuthority,
        own: Option<&Pair>,
        protocols: &[&str],
    ) -> Self {
        Self::made(&authority.pem, own, protocols)
    }

    /// The same; it speaks this version alone.
    pub(crate) fn speaking(
        version: &'static SupportedProtocolVersion,
        authority: &CertificateAuthority,
        own: Option<&Pair>,
    ) -> Self {
        Self::of(&[version], &authority.pem, own, &[])
    }

    /// The same; it trusts the authority whose certificate this is, in PEM.
    pub(crate) fn made(authority: &str, own: Option<&Pair>, protocols: &[&str]) -> Self {
        Self::of(rustls::DEFAULT_VERSIONS, authority, own, protocols)
    }

    fn of(
        versions: &[&'static SupportedProtocolVersion],
        authority: &str,
        own: Option<&Pair>,
        protocols: &[&str],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = CertificateDer::pem_slice_iter(own.cert.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("a key");
                let chain = chain.collect::<Result<_, _>>().expect("a chain");
                builder.with_client_auth_cert(chain, key).expect("a client's certificate")
            }
        };
        config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(8);
        Self { config: Arc::new(config) }
    }

    /// The same, but it shows each name the tickets that any other has given it.
    pub(crate) fn mixing_names(self) -> Self {
        let mut config = (*self.config).clone();
        config.resumption = Resumption::store(Arc::new(AnyName(ClientSessionMemoryCache::new(8))));
        Self { config: Arc::new(config) }
    }

    /// The same, but it would send what it has to say in its greeting, where a ticket allows it.
    pub(crate) fn with_early_data(self) -> Self {
        let mut config = (*self.config).clone();
        config.enable_early_data = true;
        Self { config: Arc::new(config) }
    }

    /// The same for tasks.
    pub(crate) fn connector(&self) -> tokio_rustls::TlsConnector {
        Arc::clone(&self.config).into()
    }

    /// Shakes hands for `name`.
    ///
    /// # Errors
    /// The handshake failed; the text says why.
    pub(crate) fn connect(&self, address: SocketAddr, name: &str) -> Result<TlsStream, String> {
        let tcp = TcpStream::connect(address).map_err(|error| error.to_string())?;
        self.over(tcp, name)
    }

    /// The same on a connection that stands.
    ///
    /// # Errors
    /// The handshake failed.
    pub(crate) fn over(&self, tcp: TcpStream, name: &str) -> Result<TlsStream, String> {
        self.behind(b"", tcp, name)
    }

    /// The same; the greeting leaves together with `before`, in one piece.
    ///
    /// # Errors
    /// The handshake failed.
    pub(crate) fn behind(
        &self,
        before: &[u8],
        mut tcp: TcpStream,
        name: &str,
    ) -> Result<TlsStream, String> {
        let (connection, greeting) = self.greeting(name);
        tcp.write_all(&[before, &greeting].concat()).map_err(|error| error.to_string())?;
        self.finish(StreamOwned::new(connection, tcp))
    }

    /// A handshake that begins, and its greeting.
    pub(crate) fn greeting(&self, name: &str) -> (ClientConnection, Vec<u8>) {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connection = ClientConnection::new(Arc::clone(&self.config), name);
        let (mut connection, mut greeting) = (connection.expect("a connection"), Vec::new());
        connection.write_tls(&mut greeting).expect("a greeting");
        (connection, greeting)
    }

    /// Ends a handshake whose greeting has left.
    ///
    /// # Errors
    /// It failed.
    pub(crate) fn finish(&self, mut stream: TlsStream) -> Result<TlsStream, String> {
        stream.sock.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|error| error.to_string())?;
        }
        // A server that refuses a client's certificate says so after the handshake of TLS 1.3.
        Ok(stream)
    }

    /// The same; the greeting leaves byte by byte.
    ///
    /// # Errors
    /// The handshake failed.
    pub(crate) fn connect_in_pieces(
        &self,
        address: SocketAddr,
        name: &str,
    ) -> Result<TlsStream, String> {
        let mut tcp = TcpStream::connect(address).map_err(|error| error.to_string())?;
        tcp.set_nodelay(true).expect("an option");
        let (connection, greeting) = self.greeting(name);
        for byte in greeting {
            tcp.write_all(&[byte]).map_err(|error| error.to_string())?;
        }
        self.finish(StreamOwned::new(connection, tcp))
    }

    /// Sends a GET, with these lines in its head, on a connection of its own.
    ///
    /// # Errors
    /// There was no connection, or no whole answer on it.
    pub(crate) fn get(
        &self,
        address: SocketAddr,
        host: &str,
        path: &str,
        lines: &str,
    ) -> Result<String, String> {
        let mut stream = self.connect(address, host)?;
        exchange(&mut stream, &get(host, path, &format!("{lines}Connection: close\r\n")))
    }
}

/// A GET of this host's path.
pub(crate) fn get(host: &str, path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n")
}

/// Sends this, and returns what comes until the other side closes, which it must say.
///
/// # Errors
/// It did not say so, or refused.
pub(crate) fn exchange(stream: &mut TlsStream, request: &str) -> Result<String, String> {
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Sends this, and returns one answer with a `Content-Length`.
pub(crate) fn answer(stream: &mut TlsStream, request: &str) -> String {
    try_answer(stream, request).expect("an answer")
}

/// The same.
///
/// # Errors
/// The other side took no request, or ended the connection.
pub(crate) fn try_answer(stream: &mut TlsStream, request: &str) -> Result<String, String> {
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let mut some = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length.split("content-length: ").nth(1).expect("a length");
            let length: usize = length.lines().next().unwrap().trim().parse().unwrap();
            if body.len() >= length {
                return Ok(text);
            }
        }
        let count = stream.read(&mut some).map_err(|error| error.to_string())?;
        if count == 0 {
            return Err(format!("the connection ended: {text}"));
        }
        bytes.extend_from_slice(&some[..count]);
    }
}

/// Whether a session was resumed.
pub(crate) fn is_resumed(stream: &TlsStream) -> bool {
    stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
}
