//! Key material that has been checked: a value of `Material` exists only for a key that is strong
//! and well formed (RFC 7518 §3 and §6, RFC 8725 §3.5). It must not know where the material was
//! written, nor any token.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    VerificationAlgorithm,
};
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};

use super::flaw::Flaw;
use super::weak;

/// Shortest RSA modulus that is accepted, in bits (RFC 7518 §3.3).
const RSA_BITS_MIN: usize = 2048;
/// Longest RSA modulus that the cryptographic library verifies with, in bits.
const RSA_BITS_MAX: usize = 8192;
/// Longest RSA exponent that the cryptographic library verifies with, in bits.
const RSA_EXPONENT_BITS_MAX: usize = 33;

/// The curves of RFC 7518 §6.2 that the gateway verifies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
}

impl Curve {
    /// Bytes of one coordinate.
    pub(super) fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
        }
    }

    fn algorithm(self) -> Algorithm {
        match self {
            Self::P256 => Algorithm::ES256,
            Self::P384 => Algorithm::ES384,
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
        }
    }
}

/// One key, checked.
#[derive(PartialEq, Eq)]
pub(super) enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ec { curve: Curve, point: Vec<u8> },
    Ed25519(Vec<u8>),
    Hmac(Vec<u8>),
}

impl Material {
    /// An RSA public key: 2048 to 8192 bits, an odd modulus, an odd exponent of at least 3.
    pub(super) fn rsa(n: &[u8], e: &[u8]) -> Result<Self, Flaw> {
        let (n, e) = (without_leading_zeros(n), without_leading_zeros(e));
        let bits = bit_length(n);
        if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
            return Err(Flaw::new(
                format!("the RSA modulus has {bits} bits"),
                format!("use a key of {RSA_BITS_MIN} to {RSA_BITS_MAX} bits"),
            ));
        }
        if !is_odd(n) {
            return Err(Flaw::new("the RSA modulus is even", "generate a new RSA key pair"));
        }
        // An exponent of 1 makes every message its own signature; an even one has no inverse.
        if !is_odd(e) || e == [1] || bit_length(e) > RSA_EXPONENT_BITS_MAX {
            return Err(Flaw::new(
                "the RSA exponent is not an odd number from 3 to 2^33",
                "use a key with the exponent 65537",
            ));
        }
        if weak::has_roca_fingerprint(n) {
            return Err(Flaw::new(
                "the RSA modulus can be factored: it has the fingerprint of CVE-2017-15361 (ROCA)",
                "generate a new RSA key pair, with other software or hardware",
            ));
        }
        Ok(Self::Rsa { n: n.to_vec(), e: e.to_vec() })
    }

    /// A point on a curve, in the uncompressed form of SEC 1 §2.3.3.
    pub(super) fn ec(curve: Curve, point: Vec<u8>) -> Result<Self, Flaw> {
        // The library would also take compressed and hybrid forms, which the verifier then reads
        // differently.
        let uncompressed = point.len() == 1 + 2 * curve.coordinate_bytes() && point[0] == 4;
        if !uncompressed || ParsedPublicKey::new(curve.verification(), &point).is_err() {
            return Err(Flaw::new(
                format!("the point does not lie on {}", curve.name()),
                "export the public key again, as a P-256 or P-384 key",
            ));
        }
        Ok(Self::Ec { curve, point })
    }

    /// An Ed25519 public key (RFC 8032 §5.1.5).
    pub(super) fn ed25519(point: Vec<u8>) -> Result<Self, Flaw> {
        if weak::is_of_small_order(&point) {
            return Err(Flaw::new(
                "anybody can sign for this Ed25519 key, whose point is of small order",
                "generate a new Ed25519 key pair",
            ));
        }
        if ParsedPublicKey::new(&ED25519, &point).is_err() {
            return Err(Flaw::new(
                "the Ed25519 key is not 32 bytes that name a point",
                "export the public key again, as an Ed25519 key",
            ));
        }
        Ok(Self::Ed25519(point))
    }

    /// A shared secret; its length is judged for each algorithm by [`Material::objection`].
    pub(super) fn hmac(secret: &[u8]) -> Self {
        Self::Hmac(secret.to_vec())
    }

    /// The one public key of a PEM text: SPKI (RFC 5280 §4.1) or PKCS#1 (RFC 8017 §A.1.1).
    pub(super) fn pem(text: &str) -> Result<Self, Flaw> {
        let labels: Vec<&str> = text.lines().filter_map(pem_label).collect();
        let label = match labels.as_slice() {
            [] => return Err(Flaw::new("there is no PEM block", "give a `PUBLIC KEY` block")),
            [label] => *label,
            _ => return Err(Flaw::new("there are several PEM blocks", "keep one `PUBLIC KEY`")),
        };
        match label {
            "PUBLIC KEY" | "RSA PUBLIC KEY" => Self::public_pem(text),
            "CERTIFICATE" => Err(Flaw::new(
                "a certificate is not read",
                "extract its key: `openssl x509 -in FILE -pubkey -noout`",
            )),
            _ if label.ends_with("PRIVATE KEY") => Err(Flaw::new(
                "the file holds a private key, which the gateway must not have",
                "extract the public key: `openssl pkey -in FILE -pubout`",
            )),
            _ => Err(Flaw::new("the PEM block is not a public key", "give a `PUBLIC KEY` block")),
        }
    }

    fn public_pem(text: &str) -> Result<Self, Flaw> {
        let pem = text.as_bytes();
        // Each reader refuses the families of the others by the object identifier inside.
        if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            let point = key.try_get_as_bytes().unwrap_or_default().to_vec();
            let curve = if point.len() == 97 { Curve::P384 } else { Curve::P256 };
            return Self::ec(curve, point);
        }
        if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            return Self::ed25519(key.try_get_as_bytes().unwrap_or_default().to_vec());
        }
        let unreadable = || {
            Flaw::new(
                "the PEM block is not a usable RSA, P-256, P-384 or Ed25519 public key",
                "export it again; an RSA key needs 2048 bits or more",
            )
        };
        let key = DecodingKey::from_rsa_pem(pem).map_err(|_| unreadable())?;
        let der = key.try_get_as_bytes().map_err(|_| unreadable())?;
        let components = DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key;
        let (n, e) = components(der).map_err(|_| unreadable())?;
        Self::rsa(&n, &e)
    }

    /// Why this key cannot serve `algorithm`; nothing when it can.
    pub(super) fn objection(&self, algorithm: Algorithm) -> Option<Flaw> {
        if !self.is_kind_for(algorithm) {
            return Some(Flaw::new(
                format!("{algorithm:?} needs {}, but this is {}", needs(algorithm), self.kind()),
                format!("name an algorithm for {}, or give another key", self.kind()),
            ));
        }
        let Self::Hmac(secret) = self else { return None };
        let least = hash_bytes(algorithm);
        (secret.len() < least).then(|| {
            Flaw::new(
                format!("the secret has {} bytes; {algorithm:?} needs {least}", secret.len()),
                format!("generate one: `openssl rand -base64 {least}`"),
            )
        })
    }

    /// Whether the kind of the key, whatever its length, is the algorithm's.
    pub(super) fn is_kind_for(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa { .. } => algorithm.family() == AlgorithmFamily::Rsa,
            Self::Ec { curve, .. } => algorithm == curve.algorithm(),
            Self::Ed25519(_) => algorithm == Algorithm::EdDSA,
            Self::Hmac(_) => algorithm.family() == AlgorithmFamily::Hmac,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "an RSA key",
            Self::Ec { curve: Curve::P256, .. } => "a P-256 key",
            Self::Ec { curve: Curve::P384, .. } => "a P-384 key",
            Self::Ed25519(_) => "an Ed25519 key",
            Self::Hmac(_) => "a shared secret",
        }
    }

    pub(super) fn decoding_key(&self) -> DecodingKey {
        match self {
            Self::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
            Self::Ec { point, .. } => DecodingKey::from_ec_der(point),
            Self::Ed25519(point) => DecodingKey::from_ed_der(point),
            Self::Hmac(secret) => DecodingKey::from_secret(secret),
        }
    }
}

fn needs(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::ES256 => "a P-256 key",
        Algorithm::ES384 => "a P-384 key",
        _ => match algorithm.family() {
            AlgorithmFamily::Hmac => "a shared secret",
            AlgorithmFamily::Rsa => "an RSA key",
            AlgorithmFamily::Ec => "an elliptic curve key",
            AlgorithmFamily::Ed => "an Ed25519 key",
        },
    }
}

/// Bytes of an HMAC algorithm's hash, which are the least that its secret must have (RFC 7518
/// §3.2).
fn hash_bytes(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::HS256 => 32,
        Algorithm::HS384 => 48,
        _ => 64,
    }
}

fn pem_label(line: &str) -> Option<&str> {
    line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----")
}

/// Some issuers write a sign byte before the number, as DER does.
fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// Bits of a number without leading zero bytes.
fn bit_length(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

fn is_odd(number: &[u8]) -> bool {
    number.last().is_some_and(|last| last & 1 == 1)
}
