//! Reads a JWK set (RFC 7517) into pinned keys: which algorithm each key serves is decided here, by
//! the file and the configuration, never by a token. It must not know tokens.

use std::collections::HashSet;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::flaw::Flaw;
use super::key::{CANDIDATES_MAX, Key};
use super::material::{Curve, Material};
use crate::base::algorithm::by_name;
use crate::base::json;

/// Most keys in one set.
const KEYS_MAX: usize = 256;
/// Members that only a private key has (RFC 7518 §6.2.2 and §6.3.2).
const PRIVATE_MEMBERS: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// What is wrong with every `oct` key of a set that was fetched.
const PUBLISHED_SECRET: &str = "a shared secret that is published is none";

/// A key as the set writes it, its material checked.
struct Entry {
    /// How a message names the key.
    label: String,
    kid: Option<String>,
    algorithm: Option<Algorithm>,
    kty: String,
    material: Material,
}

impl Entry {
    /// Whether the other is this key once more.
    fn is_the_same_as(&self, other: &Self) -> bool {
        self.kid == other.kid
            && self.algorithm == other.algorithm
            && self.material == other.material
    }
}

/// Reads the set, and pins each key to those of `algorithms` that it serves.
pub(super) fn read_set(text: &str, algorithms: &[Algorithm]) -> Result<Vec<Key>, Vec<Flaw>> {
    let mut flaws = Vec::new();
    let mut entries = Vec::new();
    for (index, value) in keys_of(text).map_err(|flaw| vec![flaw])?.iter().enumerate() {
        match read_entry(index, value) {
            Ok(entry) => entries.push(entry),
            Err(mut found) => flaws.append(&mut found),
        }
    }
    let complete = flaws.is_empty();
    let entries = once_each(entries, Entry::is_the_same_as);
    check_names(&entries, &mut flaws);
    let keys = pin(&entries, algorithms, &mut flaws);
    // While keys are missing from the list, complaints about what no key serves would mislead.
    if complete && flaws.is_empty() {
        check_service(&keys, algorithms, &mut flaws);
    }
    if flaws.is_empty() { Ok(keys) } else { Err(flaws) }
}

/// The keys of a set that an issuer publishes, each pinned to those of `algorithms` that it serves,
/// and what was left out and why: one odd key must not take the good ones with it. An error when
/// nothing is left. Keys may share a name (RFC 7517 §4.5), and one that is written twice is one.
/// Every shared secret is left out: what is published is none.
pub(super) fn read_published(
    text: &str,
    algorithms: &[Algorithm],
) -> Result<(Vec<Key>, Vec<Flaw>), Vec<Flaw>> {
    let mut ignored = Vec::new();
    let mut usable = Vec::new();
    for (index, value) in keys_of(text).map_err(|flaw| vec![flaw])?.iter().enumerate() {
        match read_entry(index, value) {
            Ok(entry) if matches!(entry.material, Material::Hmac(_)) => {
                let flaw = Flaw::new(PUBLISHED_SECRET, "have the issuer remove and replace it");
                ignored.push(flaw.of(&entry.label));
            }
            Ok(entry) => match served(&entry, algorithms) {
                Ok(served) => usable.push((entry, served)),
                Err(flaw) => ignored.push(flaw.of(&entry.label)),
            },
            Err(mut flaws) => ignored.append(&mut flaws),
        }
    }
    let usable = once_each(usable, |(one, _), (other, _)| one.is_the_same_as(other));
    let mut keys = Vec::with_capacity(usable.len());
    for (entry, served) in usable {
        let key = Key::new(entry.kid.clone(), served, &entry.material);
        match crowded(&keys, &key) {
            false => keys.push(key),
            true => ignored.push(never_tried().of(&entry.label)),
        }
    }
    if keys.is_empty() { Err(ignored) } else { Ok((keys, ignored)) }
}

/// Whether so many keys have the name of this one and serve its algorithm that it is never tried.
fn crowded(keys: &[Key], key: &Key) -> bool {
    let rivals = |other: &&Key| other.kid() == key.kid() && other.shares_an_algorithm_with(key);
    keys.iter().filter(rivals).count() >= CANDIDATES_MAX
}

fn never_tried() -> Flaw {
    Flaw::new(
        format!("{CANDIDATES_MAX} keys before it have its `kid`, or none as it has, and its `alg`"),
        "give each key a `kid` of its own",
    )
}

/// Without those that are the same as an earlier one.
fn once_each<T>(all: Vec<T>, is_the_same: impl Fn(&T, &T) -> bool) -> Vec<T> {
    let mut kept: Vec<T> = Vec::with_capacity(all.len());
    for it in all {
        if !kept.iter().any(|earlier| is_the_same(earlier, &it)) {
            kept.push(it);
        }
    }
    kept
}

/// A set as it is written. Its keys are read one by one, so that a flaw of one's text is a flaw of
/// that one; members that are not known are ignored (RFC 7517 §5).
#[derive(Deserialize)]
struct Set<'t> {
    #[serde(borrow, default)]
    keys: Option<&'t RawValue>,
}

fn keys_of(text: &str) -> Result<Vec<&RawValue>, Flaw> {
    let remedy = "give a JWK set: `{\"keys\": [{\"kty\": …}]}`";
    let unreadable = |error| Flaw::new(format!("the JWK set cannot be read: {error}"), remedy);
    // A struct can be read from a JSON array too.
    if text.trim_start().starts_with('[') {
        return Err(Flaw::new("the JWK set has no list `keys`", remedy));
    }
    let set: Set<'_> = serde_json::from_str(text).map_err(unreadable)?;
    let list = set.keys.and_then(|keys| serde_json::from_str::<Vec<&RawValue>>(keys.get()).ok());
    match list {
        Some(keys) if keys.is_empty() => Err(Flaw::new("the JWK set is empty", remedy)),
        Some(keys) if keys.len() > KEYS_MAX => Err(Flaw::new(
            format!("the JWK set has {} keys", keys.len()),
            format!("keep at most {KEYS_MAX}"),
        )),
        Some(keys) => Ok(keys),
        None => Err(Flaw::new("the JWK set has no list `keys`", remedy)),
    }
}

fn read_entry(index: usize, written: &RawValue) -> Result<Entry, Vec<Flaw>> {
    let mut label = format!("keys[{index}]");
    // Not the plain reader, to which a number beyond a double in some unknown member is an error.
    let (mut jwk, _) = json::exact_object(written.get().as_bytes()).map_err(|error| {
        let what = format!("not a JSON object that can be read: {error}");
        vec![Flaw::new(what, "write a JWK there").of(&label)]
    })?;
    // Some issuers write out what a key does not have.
    jwk.retain(|_, value| !value.is_null());
    let jwk = &jwk;
    let mut flaws = Vec::new();
    let kid = keep(read_kid(jwk), &mut flaws).flatten();
    if let Some(kid) = &kid {
        label = format!("{label} (kid {kid:?})");
    }
    flaws.extend(usage_flaw(jwk));
    let algorithm = keep(read_algorithm(jwk), &mut flaws).flatten();
    let material = keep(read_material(jwk), &mut flaws);
    if let (Some(algorithm), Some(material)) = (algorithm, &material) {
        flaws.extend(material.objection(algorithm));
    }
    match material {
        Some(material) if flaws.is_empty() => {
            let kty = text(jwk, "kty").unwrap_or_default().to_owned();
            Ok(Entry { label, kid, algorithm, kty, material })
        }
        _ => Err(flaws.into_iter().map(|flaw| flaw.of(&label)).collect()),
    }
}

/// The value, or its flaw put with the others.
fn keep<T>(read: Result<T, Flaw>, flaws: &mut Vec<Flaw>) -> Option<T> {
    read.map_err(|flaw| flaws.push(flaw)).ok()
}

fn read_kid(jwk: &Map<String, Value>) -> Result<Option<String>, Flaw> {
    match jwk.get("kid") {
        None => Ok(None),
        Some(Value::String(kid)) => Ok(Some(kid.clone())),
        Some(_) => Err(Flaw::new("`kid` is not a name", "give each key a `kid` of its own")),
    }
}

fn read_algorithm(jwk: &Map<String, Value>) -> Result<Option<Algorithm>, Flaw> {
    let Some(value) = jwk.get("alg") else { return Ok(None) };
    let known = value.as_str().and_then(by_name);
    known.map(Some).ok_or_else(|| {
        Flaw::new(
            format!("`alg` is {value}, which is not an algorithm that signs"),
            "use HS*, RS*, PS*, ES256, ES384, EdDSA or Ed25519, or remove the key",
        )
    })
}

/// RFC 7517 §4.2 and §4.3: a key for another purpose does not verify signatures.
fn usage_flaw(jwk: &Map<String, Value>) -> Option<Flaw> {
    let for_signatures = jwk.get("use").is_none_or(|value| value == "sig");
    let may_verify = jwk.get("key_ops").is_none_or(|value| {
        value.as_array().is_some_and(|list| list.iter().any(|operation| operation == "verify"))
    });
    if !for_signatures {
        return Some(Flaw::new("`use` is not \"sig\"", "remove the key, which does not sign"));
    }
    let remedy = "add \"verify\", or remove the key";
    (!may_verify).then(|| Flaw::new("`key_ops` does not list \"verify\"", remedy))
}

fn read_material(jwk: &Map<String, Value>) -> Result<Material, Flaw> {
    let kty = text(jwk, "kty")?;
    if kty != "oct" && PRIVATE_MEMBERS.iter().any(|member| jwk.contains_key(*member)) {
        return Err(Flaw::new(
            "the private half is written there",
            "publish the public key only, and replace the pair if others saw it",
        ));
    }
    match kty {
        "RSA" => Material::rsa(&bytes(jwk, "n")?, &bytes(jwk, "e")?),
        "EC" => {
            let curve = match text(jwk, "crv")? {
                "P-256" => Curve::P256,
                "P-384" => Curve::P384,
                other => return Err(unsupported("curve", other, "use P-256 or P-384")),
            };
            Material::ec(curve, point(&bytes(jwk, "x")?, &bytes(jwk, "y")?, curve)?)
        }
        "OKP" => match text(jwk, "crv")? {
            "Ed25519" => Material::ed25519(bytes(jwk, "x")?),
            other => Err(unsupported("curve", other, "use Ed25519")),
        },
        "oct" => Ok(Material::hmac(&bytes(jwk, "k")?)),
        other => Err(unsupported("key type", other, "use RSA, EC, OKP or oct, or remove the key")),
    }
}

/// A public key that a message brings with it, and its thumbprint (RFC 7638).
pub(super) struct PublicKey {
    pub(super) material: Material,
    pub(super) thumbprint: String,
}

/// Reads such a key. Neither a private one nor a shared secret is one.
pub(super) fn read_public(jwk: &Map<String, Value>) -> Result<PublicKey, Flaw> {
    let required: &[&str] = match text(jwk, "kty")? {
        "RSA" => &["e", "kty", "n"],
        "EC" => &["crv", "kty", "x", "y"],
        "OKP" => &["crv", "kty", "x"],
        other => return Err(unsupported("key type", other, "use RSA, EC or OKP")),
    };
    let material = read_material(jwk)?;
    // Their names are in order already, and their values are plain: nothing is escaped.
    let mut members = Vec::with_capacity(required.len());
    for name in required {
        members.push(format!("\"{name}\":\"{}\"", text(jwk, name)?));
    }
    let digest = digest(&SHA256, format!("{{{}}}", members.join(",")).as_bytes());
    Ok(PublicKey { material, thumbprint: URL_SAFE_NO_PAD.encode(digest) })
}

fn unsupported(what: &str, name: &str, remedy: &str) -> Flaw {
    Flaw::new(format!("the {what} {name:?} is not supported"), remedy)
}

/// RFC 7518 §6.2.1.2: a coordinate has the full size of the curve, leading zeros included.
fn point(x: &[u8], y: &[u8], curve: Curve) -> Result<Vec<u8>, Flaw> {
    let size = curve.coordinate_bytes();
    if x.len() != size || y.len() != size {
        let what = format!("`x` and `y` have {} and {} bytes, not {size}", x.len(), y.len());
        return Err(Flaw::new(what, "export the public key again"));
    }
    Ok([&[4], x, y].concat())
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<&'a str, Flaw> {
    jwk.get(name).and_then(Value::as_str).ok_or_else(|| {
        Flaw::new(format!("`{name}` is missing or not a string"), "export the public key again")
    })
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, Flaw> {
    URL_SAFE_NO_PAD.decode(text(jwk, name)?).map_err(|_| {
        Flaw::new(format!("`{name}` is not unpadded base64url"), "export the public key again")
    })
}

/// A file that mixes key types leaves no choice to the token: each key says its `kid`, which is its
/// own, and its `alg`.
fn check_names(entries: &[Entry], flaws: &mut Vec<Flaw>) {
    let types: HashSet<&str> = entries.iter().map(|entry| entry.kty.as_str()).collect();
    if types.len() < 2 {
        return;
    }
    let mut seen = HashSet::new();
    for entry in entries {
        if entry.kid.as_ref().is_some_and(|kid| !seen.insert(kid)) {
            let what = "the set mixes key types, and the `kid` is taken";
            flaws.push(Flaw::new(what, "give each key a `kid` of its own").of(&entry.label));
        }
        if entry.kid.is_none() || entry.algorithm.is_none() {
            let what = "the set mixes key types, but this key has no `kid` or no `alg`";
            flaws.push(Flaw::new(what, "give every key of the set both").of(&entry.label));
        }
    }
}

fn pin(entries: &[Entry], algorithms: &[Algorithm], flaws: &mut Vec<Flaw>) -> Vec<Key> {
    let mut keys = Vec::with_capacity(entries.len());
    for entry in entries {
        match served(entry, algorithms) {
            Ok(served) => {
                let key = Key::new(entry.kid.clone(), served, &entry.material);
                if crowded(&keys, &key) {
                    flaws.push(never_tried().of(&entry.label));
                }
                keys.push(key);
            }
            Err(flaw) => flaws.push(flaw.of(&entry.label)),
        }
    }
    keys
}

/// The algorithms that a key serves: the one it names, or those of the configuration that fit its
/// kind.
fn served(entry: &Entry, algorithms: &[Algorithm]) -> Result<Vec<Algorithm>, Flaw> {
    if let Some(algorithm) = entry.algorithm {
        if algorithms.contains(&algorithm) {
            return Ok(vec![algorithm]);
        }
        return Err(Flaw::new(
            format!("the key is for {algorithm:?}, which `algorithms` does not list"),
            format!("add {algorithm:?} to `algorithms`, or remove the key"),
        ));
    }
    let fits = |algorithm: &Algorithm| entry.material.is_kind_for(*algorithm);
    let fitting: Vec<Algorithm> = algorithms.iter().copied().filter(fits).collect();
    let kind = entry.material.kind();
    if fitting.is_empty() {
        return Err(Flaw::new(
            format!("no entry of `algorithms` is for {kind}"),
            "add the algorithm that the issuer signs with, or remove the key",
        ));
    }
    if fitting.len() > 1 && matches!(entry.material, Material::Hmac(_)) {
        return Err(Flaw::new("several `algorithms` fit the secret", "give the key an `alg`"));
    }
    match fitting.iter().find_map(|algorithm| entry.material.objection(*algorithm)) {
        Some(flaw) => Err(flaw),
        None => Ok(fitting),
    }
}

/// Every algorithm needs a key.
fn check_service(keys: &[Key], algorithms: &[Algorithm], flaws: &mut Vec<Flaw>) {
    for algorithm in algorithms {
        if !keys.iter().any(|key| key.serves(*algorithm)) {
            flaws.push(Flaw::new(
                format!("no key serves {algorithm:?}"),
                format!("add a key for it, or remove {algorithm:?} from `algorithms`"),
            ));
        }
    }
}
