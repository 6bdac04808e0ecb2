//! `[providers.NAME]`: an OpenID provider at which browsers log in, what the gateway is to it, and
//! what asking it may take.

use std::time::Duration;

use http::HeaderName;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde_json::json;
use toml::de::DeValue;

use super::discovery;
use super::jwks::{self, RemoteKeys, is_this_machine, url};
use super::reader::Section;
use super::value::{
    Flaw, KIB, MIB, Mistake, Read, at_most, choice, count, duration, duration_or_zero, echo,
    field_name, flag, header_name, size, string, text,
};
use crate::base::algorithm::by_name;
use crate::base::units::Secret;

/// The scope without which nobody says who has logged in (OpenID Connect Core 1.0 §3.1.2.1).
const OPENID: &str = "openid";
/// Longest time that one call to a provider takes: a browser waits for it.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// Longest time that a log-in may take.
const LOGIN_TIMEOUT_MAX: Duration = Duration::from_secs(60 * 60);
/// Longest `leeway`, and longest `renew_before`.
const LEEWAY_MAX: Duration = Duration::from_secs(5 * 60);
/// What providers sign with unless the file says otherwise.
const ALGORITHMS: [&str; 2] = ["RS256", "ES256"];

/// `[providers.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// What its tokens have as `iss`.
    pub issuer: String,
    /// Where its document and its keys are; nothing where `issuer` leads nowhere, which was
    /// reported.
    pub keys: Option<RemoteKeys>,
    /// What the gateway is to it.
    pub client_id: String,
    /// What the gateway shows it; nothing for a public client.
    pub client_secret: Option<Secret>,
    /// How the secret is shown.
    pub client_auth: ClientAuthentication,
    /// What is asked for, `openid` among it.
    pub scopes: Vec<String>,
    /// Where it sends browsers back to.
    pub redirect_uri: RedirectUri,
    /// What its tokens may be signed with, none of which is a shared secret.
    pub algorithms: Vec<Algorithm>,
    /// Clock difference that is forgiven.
    pub leeway: Duration,
    /// What of its claims the session has.
    pub claims: Vec<String>,
    /// What stands before its users' names, so that they are told apart from those of others.
    pub subject_prefix: String,
    /// Whether it is asked for claims that are not in the token.
    pub userinfo: bool,
    /// Longest time that one call takes.
    pub timeout: Duration,
    /// Most calls at a time.
    pub in_flight: usize,
    /// Largest answer, in bytes.
    pub max_bytes: usize,
    /// How long a browser may take to log in.
    pub login_timeout: Duration,
    /// How long ago a user may have shown who he is, in whole seconds.
    pub max_age: Option<Duration>,
    /// What the provider shows, if it is told (`prompt`).
    pub prompt: Option<&'static str>,
    /// How users must show who they are (`acr_values`).
    pub acr_values: Vec<String>,
    /// Whether its refresh token is kept and used behind the session.
    pub refresh: bool,
    /// Whether a log-out there shows the `id_token`, which the browser carries then (OpenID Connect
    /// RP-Initiated Logout 1.0 §2).
    pub id_token_hint: bool,
    /// How long before the end of an access token a new one is asked for.
    pub renew_before: Duration,
    /// The field that carries the access token to upstreams.
    pub forward_access_token: Option<HeaderName>,
}

/// `client_auth = "basic" | "post"` (OpenID Connect Core 1.0 §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// `client_secret_basic`.
    Basic,
    /// `client_secret_post`.
    Post,
}

/// `redirect_uri`, which the provider compares as a text (RFC 9700 §2.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedirectUri {
    /// As it is written.
    pub text: String,
    /// Its path, which a route serves.
    pub path: String,
}

impl RedirectUri {
    /// A path of the same origin.
    pub fn at(&self, path: &str) -> String {
        let origin = self.text.strip_suffix(self.path.as_str()).unwrap_or(&self.text);
        [origin, path].concat()
    }
}

/// Reads `[providers.NAME]`.
pub(super) fn read(provider: &mut Section<'_>) -> Provider {
    let issuer =
        provider.need("issuer", "\"https://login.example.com\", what tokens have as iss", text);
    let keys = keys(provider, issuer.as_deref());
    let secret = provider.secret("client_secret");
    if provider.has("client_auth") && !provider.has("client_secret") {
        let what = "says how a secret is shown, and there is none";
        provider.problem("client_auth", what, "add client_secret = \"env:NAME\", or remove it");
    }
    let words = [("basic", ClientAuthentication::Basic), ("post", ClientAuthentication::Post)];
    let client_auth = provider.or("client_auth", ClientAuthentication::Basic, choice(&words));
    let read = Provider {
        issuer: issuer.unwrap_or_default(),
        keys,
        client_id: provider.need("client_id", "\"shop\"", text).unwrap_or_default(),
        client_secret: secret,
        client_auth,
        scopes: scopes(provider),
        redirect_uri: provider
            .need("redirect_uri", "\"https://shop.example.com/callback\"", redirect_uri)
            .unwrap_or_default(),
        algorithms: algorithms(provider),
        leeway: provider.or("leeway", Duration::from_secs(30), up_to_leeway),
        claims: provider
            .list_or_empty("claims", |value| field_name(string(value, "it in quotes")?)),
        subject_prefix: provider.or("subject_prefix", String::new(), prefix),
        userinfo: provider.or("userinfo", false, flag),
        timeout: provider.or("timeout", Duration::from_secs(5), timeout),
        in_flight: provider.or("in_flight", 32, count(1..=1024)),
        max_bytes: max_bytes(provider),
        login_timeout: provider.or("login_timeout", Duration::from_secs(10 * 60), login_timeout),
        max_age: provider.get("max_age", duration_or_zero),
        prompt: provider.get(
            "prompt",
            choice(&[
                ("none", "none"),
                ("login", "login"),
                ("consent", "consent"),
                ("select_account", "select_account"),
            ]),
        ),
        acr_values: provider.list_or_empty("acr_values", token),
        refresh: provider.or("refresh", false, flag),
        id_token_hint: provider.or("id_token_hint", false, flag),
        renew_before: provider.or("renew_before", Duration::from_secs(30), up_to_leeway),
        forward_access_token: provider.get("forward_access_token", |value| {
            header_name(string(value, "the name of a header in quotes")?)
        }),
    };
    if read.forward_access_token.is_some() && !read.refresh {
        let what = "needs a token that is renewed, and none is kept";
        provider.problem("forward_access_token", what, "add refresh = true, or remove it");
    }
    read
}

/// Where its keys are found: by its issuer's own document.
fn keys(provider: &mut Section<'_>, issuer: Option<&str>) -> Option<RemoteKeys> {
    let bounds = provider.section("jwks", jwks::read);
    match discovery::of(issuer?, bounds.allow_http) {
        Some(Ok((document, discovery))) => Some(bounds.of(document, Some(discovery))),
        Some(Err(mistake)) => {
            provider.problem("issuer", mistake.what, mistake.remedy);
            None
        }
        None => {
            let what = "is no URL, so that nobody knows where to log in";
            provider.problem("issuer", what, "write it as its tokens name it: https://…");
            None
        }
    }
}

fn scopes(provider: &mut Section<'_>) -> Vec<String> {
    let written = provider.list("scopes", token);
    provider.holds("scopes", || Some(json!([OPENID])));
    let scopes = written.unwrap_or_else(|| vec![OPENID.to_owned()]);
    if !scopes.iter().any(|scope| scope == OPENID) {
        let what = "lacks \"openid\", without which nobody says who has logged in";
        provider.problem("scopes", what, "add \"openid\"");
    }
    scopes
}

fn algorithms(provider: &mut Section<'_>) -> Vec<Algorithm> {
    let written = provider.list("algorithms", algorithm);
    provider.holds("algorithms", || Some(json!(ALGORITHMS)));
    written.unwrap_or_else(|| vec![Algorithm::RS256, Algorithm::ES256])
}

/// Of a public key: whoever knew a shared secret could sign in the provider's place.
fn algorithm(value: &DeValue<'_>) -> Read<Algorithm> {
    const NAMES: [&str; 10] = [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "Ed25519",
    ];
    let text = string(value, "its name in quotes, such as \"RS256\"")?;
    let found = by_name(text).filter(|it| it.family() != AlgorithmFamily::Hmac);
    found.ok_or_else(|| {
        let what = format!("{} is not an accepted algorithm", echo(text));
        let remedy = format!("write one of {}, in quotes", NAMES.join(" "));
        Mistake::new(what, remedy).of(Flaw::Choice(NAMES.map(str::to_owned).to_vec()))
    })
}

fn max_bytes(provider: &mut Section<'_>) -> usize {
    let bytes = provider.or("max_bytes", 64 * KIB, size(KIB..=MIB));
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// One word of a list that is sent with spaces between (RFC 6749 §3.3).
fn token(value: &DeValue<'_>) -> Read<String> {
    let text = string(value, "it in quotes")?;
    let is_plain = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    if text.is_empty() || text.len() > 256 || !text.bytes().all(is_plain) {
        let what = format!("{} is not one word", echo(text));
        return Err(Mistake::new(what, "write each word of it as one element of the list"));
    }
    Ok(text.to_owned())
}

/// Of what begins a `sub`, or nothing.
fn prefix(value: &DeValue<'_>) -> Read<String> {
    let text = string(value, "it in quotes, such as \"id|\"")?;
    if text.len() > 64 || !text.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        let what = format!("{} cannot begin a name", echo(text));
        return Err(Mistake::new(what, "write up to 64 visible characters, such as \"id|\""));
    }
    Ok(text.to_owned())
}

/// Codes come by it: over TLS, or to this machine (RFC 9700 §2.6, RFC 6749 §3.1.2.1).
fn redirect_uri(value: &DeValue<'_>) -> Read<RedirectUri> {
    const EXAMPLE: &str = "write one like \"https://shop.example.com/callback\"";
    let text = string(value, "it in quotes, such as \"https://shop.example.com/callback\"")?;
    let wrong = || Mistake::new(format!("{} is not the URL of a route", echo(text)), EXAMPLE);
    let has_more = text.contains(['?', '#', '@', '\\', '%']) || text.contains("/..");
    let url = url(text).filter(|_| !has_more).ok_or_else(wrong)?;
    if !url.tls && !is_this_machine(&url.host) {
        let what = "would bring codes in clear";
        return Err(Mistake::new(what, "write https://; http:// is for this machine alone"));
    }
    Ok(RedirectUri { text: text.to_owned(), path: url.target })
}

fn timeout(value: &DeValue<'_>) -> Read<Duration> {
    const SAID: (&str, &str) = ("would hold up browsers", "write at most 30s");
    at_most(duration, TIMEOUT_MAX, SAID)(value)
}

fn login_timeout(value: &DeValue<'_>) -> Read<Duration> {
    const SAID: (&str, &str) =
        ("keeps what was never used for more than an hour", "write at most 1h");
    at_most(duration, LOGIN_TIMEOUT_MAX, SAID)(value)
}

fn up_to_leeway(value: &DeValue<'_>) -> Read<Duration> {
    const SAID: (&str, &str) = ("is more than five minutes", "write at most 5m");
    at_most(duration_or_zero, LEEWAY_MAX, SAID)(value)
}

#[cfg(test)]
mod tests {
    use crate::config;

    const GOOD: &str = "[providers.id]\nissuer = 'https://id.example'\nclient_id = 'shop'\n\
                        redirect_uri = 'https://shop.example/callback'\n";

    fn problems(text: &str) -> Vec<String> {
        let folder = std::path::Path::new("");
        let loaded = config::parse("g.toml", folder, text, &|_| None).expect("TOML");
        loaded.problems.iter().map(|it| format!("{}: {}", it.path, it.what)).collect()
    }

    #[test]
    fn three_keys_are_enough() {
        let folder = std::path::Path::new("");
        let loaded = config::parse("g.toml", folder, GOOD, &|_| None).expect("TOML");
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        let provider = &loaded.config.providers["id"];
        assert_eq!(provider.scopes, ["openid"]);
        assert_eq!(provider.redirect_uri.path, "/callback");
        assert!(provider.client_secret.is_none() && !provider.refresh);
    }

    #[test]
    fn what_would_be_unsafe_or_do_nothing_is_refused() {
        for (line, told) in [
            ("scopes = ['email']", "providers.id.scopes: lacks \"openid\""),
            ("scopes = ['openid', 'a b']", "providers.id.scopes[1]: \"a b\" is not one"),
            ("algorithms = ['HS256']", "providers.id.algorithms[0]: \"HS256\" is not an accepted"),
            ("algorithms = ['none']", "providers.id.algorithms[0]: \"none\" is not an accepted"),
            ("client_auth = 'post'", "providers.id.client_auth: says how a secret"),
            ("forward_access_token = 'x-a'", "providers.id.forward_access_token: needs"),
            ("timeout = '1m'", "providers.id.timeout: would hold up"),
            ("login_timeout = '2h'", "providers.id.login_timeout: keeps"),
            ("leeway = '1h'", "providers.id.leeway: is more than"),
            ("prompt = 'ask'", "providers.id.prompt: \"ask\" is not a choice"),
        ] {
            let found = problems(&format!("{GOOD}{line}\n"));
            assert!(found.len() == 1 && found[0].starts_with(told), "{line}: {found:?}");
        }
        for uri in [
            "http://shop.example/callback",
            "https://shop.example/callback?x=1",
            "https://shop.example/callback#x",
            "https://u@shop.example/callback",
            "https://shop.example/a/../callback",
            "/callback",
            "javascript:alert(1)",
        ] {
            let text = GOOD.replace("https://shop.example/callback", uri);
            let found = problems(&text);
            let told = "providers.id.redirect_uri: ";
            assert!(found.len() == 1 && found[0].starts_with(told), "{uri}: {found:?}");
        }
        let found = problems(&GOOD.replace("https://id.example", "shop"));
        assert!(found[0].starts_with("providers.id.issuer: is no URL"), "{found:?}");
    }
}
