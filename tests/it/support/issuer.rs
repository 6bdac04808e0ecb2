//! An issuer that publishes its keys, over HTTP in clear or over TLS with an authority of its own,
//! and counts how often it was asked. It may say by documents where its keys are.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer as Authority, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::{PATIENCE, response};

/// A key pair for ES256, or for RS256, with a name.
pub(crate) struct Signer {
    /// The public half.
    pub(crate) jwk: Value,
    kid: String,
    key: EncodingKey,
    algorithm: Algorithm,
}

impl Signer {
    /// A new pair.
    pub(crate) fn new(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let private = pair.to_pkcs8v1().expect("a private key");
        Self {
            jwk: json!({"kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y), "kid": kid,
                        "alg": "ES256", "use": "sig"}),
            kid: kid.to_owned(),
            key: EncodingKey::from_ec_der(private.as_ref()),
            algorithm: Algorithm::ES256,
        }
    }

    /// A new pair for RS256, which says neither its use nor its algorithm.
    pub(crate) fn rsa(kid: &str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let private: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().expect("a private key");
        let base64 = STANDARD.encode(private.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----\n");
        Self {
            jwk: json!({"kty": "RSA", "n": b64(&public.n), "e": b64(&public.e), "kid": kid}),
            kid: kid.to_owned(),
            key: EncodingKey::from_rsa_pem(pem.as_bytes()).expect("a private key"),
            algorithm: Algorithm::RS256,
        }
    }

    /// A token with exactly these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let claims = claims.as_object().expect("claims are an object");
        portcullis::auth::sign(self.algorithm, &self.key, Some(&self.kid), claims)
            .expect("a signed token")
    }
}

/// Behind the path of an issuer, its document.
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// The answer that publishes these keys.
pub(crate) fn jwk_set(keys: &[&Value]) -> String {
    response("200 OK\r\nContent-Type: application/json", &json!({ "keys": keys }).to_string())
}

struct Shared {
    answer: Mutex<String>,
    /// By their paths.
    documents: Mutex<BTreeMap<String, String>>,
    asked: Mutex<Vec<String>>,
    is_mute: AtomicBool,
    held: Mutex<bool>,
    released: Condvar,
    fetches: AtomicUsize,
    down: AtomicBool,
    ended: AtomicBool,
    tls: Option<Arc<ServerConfig>>,
}

/// See the module.
pub(crate) struct Issuer {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// The authority that vouches for it, in PEM; empty without TLS.
    pub(crate) authority: String,
}

impl Issuer {
    /// One that speaks in clear.
    pub(crate) fn plain(keys: &[&Signer]) -> Self {
        Self::start(keys, None, String::new())
    }

    /// One that speaks TLS, vouched for by an authority of its own.
    pub(crate) fn tls(keys: &[&Signer]) -> Self {
        let own_key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&own_key).expect("an authority");
        let authority = Authority::new(params, own_key);
        let key = KeyPair::generate().expect("a key");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let leaf = CertificateParams::new(names).expect("parameters");
        let leaf = leaf.signed_by(&key, &authority).expect("a certificate");
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], private)
            .expect("a server");
        let pem = STANDARD.encode(root.der());
        let pem = format!("-----BEGIN CERTIFICATE-----\n{pem}\n-----END CERTIFICATE-----\n");
        Self::start(keys, Some(Arc::new(config)), pem)
    }

    fn start(keys: &[&Signer], tls: Option<Arc<ServerConfig>>, authority: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            answer: Mutex::new(String::new()),
            documents: Mutex::default(),
            asked: Mutex::default(),
            is_mute: AtomicBool::new(false),
            held: Mutex::new(false),
            released: Condvar::new(),
            fetches: AtomicUsize::new(0),
            down: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            tls,
        });
        let issuer = Self { address, shared: Arc::clone(&shared), authority };
        issuer.publish(keys);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.ended.load(Ordering::SeqCst) {
                    return;
                }
                // Who is down answers nobody.
                if !shared.down.load(Ordering::SeqCst) {
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || shared.serve(stream));
                }
            }
        });
        issuer
    }

    /// Where its keys are.
    pub(crate) fn url(&self) -> String {
        format!("{}/jwks.json", self.origin())
    }

    /// Where it is, without a path.
    pub(crate) fn origin(&self) -> String {
        match self.shared.tls {
            Some(_) => format!("https://localhost:{}", self.address.port()),
            None => format!("http://{}", self.address),
        }
    }

    /// Says of the issuer below this path, which calls itself so, that its keys are there.
    pub(crate) fn tell(&self, path: &str, issuer: &str, jwks_uri: &str) {
        let document = json!({ "issuer": issuer, "jwks_uri": jwks_uri }).to_string();
        self.tell_raw(path, response("200 OK\r\nContent-Type: application/json", &document));
    }

    /// Answers with these bytes to who asks for the document of the issuer below this path.
    pub(crate) fn tell_raw(&self, path: &str, answer: String) {
        let path = format!("{path}{WELL_KNOWN}");
        self.shared.documents.lock().unwrap().insert(path, answer);
    }

    /// Which documents it was asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Answers nobody who asks for a document from now on, or somebody again.
    pub(crate) fn set_mute(&self, is_mute: bool) {
        self.shared.is_mute.store(is_mute, Ordering::SeqCst);
    }

    /// Publishes these keys and no others.
    pub(crate) fn publish(&self, keys: &[&Signer]) {
        self.answer(jwk_set(&keys.iter().map(|signer| &signer.jwk).collect::<Vec<_>>()));
    }

    /// Answers with these bytes from now on.
    pub(crate) fn answer(&self, response: String) {
        *self.shared.answer.lock().unwrap() = response;
    }

    /// How often it was asked.
    pub(crate) fn fetches(&self) -> usize {
        self.shared.fetches.load(Ordering::SeqCst)
    }

    /// Answers nobody from now on, or somebody again.
    pub(crate) fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
    }

    /// Lets those who ask wait until [`Self::release`].
    pub(crate) fn hold(&self) {
        *self.shared.held.lock().unwrap() = true;
    }

    /// Answers those who wait.
    pub(crate) fn release(&self) {
        *self.shared.held.lock().unwrap() = false;
        self.shared.released.notify_all();
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let _ = stream.set_read_timeout(Some(PATIENCE));
        match &self.tls {
            None => self.exchange(stream),
            Some(config) => {
                let connection = ServerConnection::new(Arc::clone(config)).expect("a connection");
                self.exchange(StreamOwned::new(connection, stream));
            }
        }
    }

    fn exchange(&self, mut stream: impl Read + Write) {
        let mut head = Vec::new();
        let mut some = [0; 1024];
        while !head.windows(4).any(|four| four == b"\r\n\r\n") {
            match stream.read(&mut some) {
                Ok(count) if count > 0 => head.extend_from_slice(&some[..count]),
                // A client that does not believe the certificate asks nothing.
                _ => return,
            }
        }
        let head = String::from_utf8_lossy(&head);
        let path = head.split(' ').nth(1).unwrap_or_default();
        if path.ends_with(WELL_KNOWN) {
            self.asked.lock().unwrap().push(path.to_owned());
            if self.is_mute.load(Ordering::SeqCst) {
                // Until who asks has given up.
                let _ = stream.read(&mut some);
                return;
            }
            let document = self.documents.lock().unwrap().get(path).cloned();
            let answer = document.unwrap_or_else(|| response("404 Not Found", ""));
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.flush();
            return;
        }
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let held = self.held.lock().unwrap();
        drop(self.released.wait_while(held, |held| *held).unwrap());
        let answer = self.answer.lock().unwrap().clone();
        let _ = stream.write_all(answer.as_bytes());
        let _ = stream.flush();
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        self.release();
    }
}
