//! The file that `portcullis init` writes: what was answered, as a commented gateway.toml, and
//! whether it would be served.

use std::path::Path;

use crate::config;
use crate::plan::Plan;

/// The answer that stands for nothing.
pub(super) const NONE: &str = "none";
/// The answer that asks for a secret of our making.
const NEW: &str = "new";
/// What stands for a secret while a file is only tried: long enough, and nobody's.
const STAND_IN: &str = "a secret that stands for another while the file is tried";

const HEAD: &str = r#"# The configuration of Portcullis, begun by `portcullis init`.
#
# `portcullis check` reports every mistake in this file at once, and `portcullis run` serves it. A
# running gateway reads it again at SIGHUP. Durations are written 30s, 15m or 1h, sizes 32KiB or
# 10MiB. What stands behind `#` is off: remove the `#` and the space after it to try it.

[server]
# Where clients reach the gateway. "127.0.0.1:8080" is for this machine alone.
listen = ["0.0.0.0:8080"]
# Networks of the proxies before the gateway. Only they are believed when they name the client.
# trusted_proxies = ["10.0.0.0/8"]

[admin]
# Health, metrics and operations. Keep it on loopback or on a private network.
listen = "127.0.0.1:9901"
"#;

const MEMORY: &str = r#"
[store]
# "memory:" keeps counters, revocations and cached answers in this process. With several gateways,
# write the Redis that they share, such as "redis://127.0.0.1:6379".
"#;

const REDIS: &str = r#"
[store]
# The Redis (7.0 or newer) that all gateways share: counters, revocations, sessions, cached answers.
# Set its maxmemory-policy to noeviction. `portcullis check --store` looks at it.
"#;

const REDIS_USER: &str = r#"# A user of its own in Redis; `portcullis acl` prints how to make it.
# username = "gateway"
# password = "env:REDIS_PASSWORD"
"#;

const ISSUER: &str = r#"
# Whose tokens are believed. On a route with `auth`, a request without a valid one is a 401.
[auth.users]
# The issuer, exactly as its tokens name it in `iss`.
"#;

const JWKS_URL: &str = "\
# Where it publishes its keys.
";

const DISCOVERY: &str = "\
# Its /.well-known/openid-configuration says where its keys are. If it has none, say it here.
";

const ALGORITHMS: &str = r#"# How it signs; write "ES256" or another one if that is what it uses.
algorithms = ["RS256"]
# Whom tokens must be for (`aud`). Without it, tokens that the issuer made for others pass, too.
"#;

const SECRET: &str = r#"
# Whose tokens are believed. On a route with `auth`, a request without a valid one is a 401.
[auth.users]
algorithms = ["HS256"]
# What tokens are signed with, 32 bytes or more. Whoever knows it can make tokens.
# `portcullis token --claim sub=42` signs one to try things out.
"#;

const AUDIENCE: &str = "\
# Whom tokens must be for (`aud`). Without it, what the secret signs for others passes, too.
";

const CLAIMS: &str = r#"# Claims for your service, as header fields that no client can set itself.
claims_to_headers = { x-user-id = "sub" }
# Your service gets no Authorization: read x-user-id there, or keep its own check of tokens with:
# forward_token = true
"#;

const LIMIT_OF_USERS: &str = r#"
# How many requests each user may send in any such time; one more is a 429.
[limits.api]
# "claim:sub" is the user that the token names, "address" the address of the client.
key = ["claim:sub"]
"#;

const LIMIT_OF_ADDRESSES: &str = r#"
# How many requests each address may send in any such time; one more is a 429.
[limits.api]
key = ["address"]
"#;

const UPSTREAM: &str = r"
# Your service: one server or several, among which requests are shared out.
[upstreams.app]
";

const ROUTE: &str = r#"
# What is matched, and what is done with it. Of two routes that match, the more specific one wins.
[routes.all]
path = "/*"
upstream = "app"
"#;

const CACHE_OF_USERS: &str = r#"# Keeps answers to GET that say nothing else, a copy for each user.
# cache = { ttl = "1m", partition = ["claim:sub"] }

# A route without `auth` is open to everybody.
# [routes.health]
# path = "/health"
# upstream = "app"
"#;

const CACHE_OF_ALL: &str = r#"# Keeps answers to GET that say nothing else, one copy for everybody.
# cache = { ttl = "1m", shared = true }
"#;

/// What was answered.
#[derive(Debug, Clone)]
pub(super) struct Answers {
    /// The servers behind the gateway.
    pub(super) upstreams: Vec<String>,
    /// Who signs the tokens of users.
    pub(super) tokens: Tokens,
    /// The URL of the store.
    pub(super) store: String,
    /// How many requests in which time; nothing for any number.
    pub(super) limit: Option<String>,
}

/// Who signs the tokens of users.
#[derive(Debug, Clone)]
pub(super) enum Tokens {
    /// Nobody: every route is open.
    None,
    /// An issuer that publishes its keys.
    Issuer {
        /// As tokens name it.
        issuer: String,
        /// Where its keys are; nothing where it says so itself.
        jwks_url: Option<String>,
        /// Whom tokens must be for.
        audience: Option<String>,
    },
    /// Whoever knows a secret, which is somewhere already: `env:NAME` or `file:PATH`.
    Secret(String),
    /// Whoever knows a secret that is made now.
    NewSecret,
}

impl Tokens {
    /// An answer: the URL of an issuer, where a secret is, that it is to be made, or nobody.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        match text {
            NONE => Ok(Self::None),
            _ if text.starts_with("https://") || text.starts_with("http://") => {
                Ok(Self::issuer(text, None, None))
            }
            _ => Self::secret(text).map_err(|_| {
                "write the URL of an issuer, env:NAME, file:PATH, new or none".to_owned()
            }),
        }
    }

    /// An answer about a secret. One that is written out is refused: it would stay in the shell's
    /// history and in the list of processes.
    pub(super) fn secret(text: &str) -> Result<Self, String> {
        match text {
            NEW => Ok(Self::NewSecret),
            _ if text.starts_with("env:") || text.starts_with("file:") => {
                Ok(Self::Secret(text.to_owned()))
            }
            _ => Err("a secret is not written here: give env:NAME, file:PATH or new".to_owned()),
        }
    }

    /// An issuer; where nothing is said of its keys, it says itself where they are.
    pub(super) fn issuer(issuer: &str, jwks_url: Option<String>, audience: Option<String>) -> Self {
        Self::Issuer { issuer: issuer.to_owned(), jwks_url, audience }
    }
}

impl Answers {
    /// The file; `secret` is what it says of a secret that is made now.
    pub(super) fn render(&self, secret: &str) -> String {
        let is_open = matches!(self.tokens, Tokens::None);
        let mut file = HEAD.to_owned();
        let is_memory = self.store == "memory:";
        file += if is_memory { MEMORY } else { REDIS };
        file += &line("url", &self.store);
        file += if is_memory { "" } else { REDIS_USER };
        match &self.tokens {
            Tokens::None => {}
            Tokens::Issuer { issuer, jwks_url, audience } => {
                file = file + ISSUER + &line("issuer", issuer);
                file += &match jwks_url {
                    Some(url) => JWKS_URL.to_owned() + &line("jwks_url", url),
                    None => {
                        let base = issuer.trim_end_matches('/');
                        let usual = line("jwks_url", &format!("{base}/.well-known/jwks.json"));
                        format!("{DISCOVERY}# {usual}")
                    }
                };
                file += ALGORITHMS;
                file += &match audience {
                    Some(audience) => list("audience", &[audience]),
                    None => format!("# {}", list("audience", &["shop"])),
                };
                file += CLAIMS;
            }
            Tokens::Secret(place) => {
                let audience = format!("# {}", list("audience", &["shop"]));
                file = file + SECRET + &line("secret", place) + AUDIENCE + &audience + CLAIMS;
            }
            Tokens::NewSecret => {
                let audience = list("audience", &["app"]);
                file = file + SECRET + &line("secret", secret) + AUDIENCE + &audience + CLAIMS;
            }
        }
        if let Some(rate) = &self.limit {
            file += if is_open { LIMIT_OF_ADDRESSES } else { LIMIT_OF_USERS };
            file += &list("allow", &[rate]);
        }
        file = file + UPSTREAM + &list("servers", &self.upstreams) + ROUTE;
        file += if is_open { "" } else { "auth = \"users\"\n" };
        file += if self.limit.is_some() { "limits = [\"api\"]\n" } else { "" };
        file + if is_open { CACHE_OF_ALL } else { CACHE_OF_USERS }
    }

    /// What `check` would say of the file in this folder, if it would refuse it. Environment
    /// variables that are not set yet are taken for set: they are the gateway's, and not of this
    /// command.
    pub(super) fn judge(&self, folder: &Path) -> Result<(), String> {
        let stand_in = |name: &str| {
            let is = |text: &String| text.strip_prefix("env:") == Some(name);
            let text = match () {
                () if is(&self.store) => "redis://127.0.0.1:6379",
                () if self.upstreams.iter().any(is) => "http://127.0.0.1:3000",
                () => STAND_IN,
            };
            Some(std::env::var(name).unwrap_or_else(|_| text.to_owned()))
        };
        let loaded = config::parse("gateway.toml", folder, &self.render(STAND_IN), &stand_in)?;
        let mut problems = loaded.problems;
        if let Err(more) = Plan::compile(loaded.config) {
            problems.extend(more);
        }
        let told: Vec<String> =
            problems.iter().map(|it| format!("{}: {}; {}", it.path, it.what, it.remedy)).collect();
        if told.is_empty() { Ok(()) } else { Err(told.join("\n")) }
    }
}

/// A string of JSON is one of TOML, too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn line(key: &str, text: &str) -> String {
    format!("{key} = {}\n", quoted(text))
}

fn list(key: &str, texts: &[impl AsRef<str>]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quoted(text.as_ref())).collect();
    format!("{key} = [{}]\n", texts.join(", "))
}
