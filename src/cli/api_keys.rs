//! `keys`: API keys of a running gateway, as commands.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::claim::read_claims;
use super::operate::{EXIT, Target};
use super::remote::Failure;
use crate::base::http::percent;

/// Options of `keys`.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a key and print it. It is shown this once: the store keeps its digest alone.
    Create(Create),
    /// List the newest keys of an owner.
    List(List),
    /// End a key for good, at every gateway.
    Revoke(Revoke),
}

#[derive(Debug, Args)]
#[command(after_help = EXIT)]
struct Create {
    /// Whose it is: the claim `sub`.
    #[arg(long)]
    owner: String,
    /// A word of the claim `scope`. May be repeated.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// The claim `tier`.
    #[arg(long)]
    tier: Option<String>,
    /// A further claim, `name=value`; the value may be JSON. May be repeated.
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    claims: Vec<String>,
    /// How long it is good, such as 90d. Without it, until it is ended.
    #[arg(long, value_name = "DURATION")]
    expires_in: Option<String>,
    /// The only verifier at which it is good, by its name in [auth].
    #[arg(long, value_name = "NAME")]
    auth: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT)]
struct List {
    /// Whose keys.
    #[arg(long)]
    owner: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT)]
struct Revoke {
    /// The key's id, as `create` and `list` show it.
    id: String,
    #[command(flatten)]
    target: Target,
}

/// Carries out `keys`; what to print.
///
/// # Errors
/// The gateway refused, or there is none.
pub(super) fn run(options: &Options, path: &Path) -> Result<String, Failure> {
    match &options.what {
        What::Create(options) => create(options, path),
        What::List(options) => list(options, path),
        What::Revoke(options) => {
            let remote = options.target.find(path)?;
            let at = format!("/v1/keys/{}", percent::encode(options.id.as_bytes()));
            remote.send((Method::DELETE, &at), &json!({}), &["id", "ended"])?;
            Ok(format!("ended: {}", options.id))
        }
    }
}

fn create(options: &Create, path: &Path) -> Result<String, Failure> {
    let claims = read_claims(&options.claims).map_err(Failure::unusable)?;
    let mut body = json!({ "owner": options.owner, "scopes": options.scopes, "claims": claims });
    for (name, value) in
        [("tier", &options.tier), ("expires_in", &options.expires_in), ("auth", &options.auth)]
    {
        if let Some(value) = value {
            body[name] = json!(value);
        }
    }
    let remote = options.target.find(path)?;
    let answer = remote.send((Method::POST, "/v1/keys"), &body, &["key", "id"])?;
    Ok(format!("key: {}\nid: {}", text(&answer, "key"), text(&answer, "id")))
}

fn list(options: &List, path: &Path) -> Result<String, Failure> {
    let at = format!("/v1/keys?owner={}", percent::encode(options.owner.as_bytes()));
    let remote = options.target.find(path)?;
    let answer = remote.send((Method::GET, &at), &json!({}), &["keys"])?;
    let mut said = String::new();
    for key in answer.get("keys").and_then(Value::as_array).into_iter().flatten() {
        let number = |name| key.get(name).and_then(Value::as_i64).map(|at| at.to_string());
        // Writing to a String cannot fail.
        let _ = writeln!(
            said,
            "{} created={} expires={} tier={} scopes={}",
            text(key, "id"),
            number("created").as_deref().unwrap_or("-"),
            number("expires").as_deref().unwrap_or("never"),
            key.get("tier").and_then(Value::as_str).unwrap_or("-"),
            key.get("scopes").cloned().unwrap_or_default(),
        );
    }
    let more = answer.get("not_listed").and_then(Value::as_u64).unwrap_or_default();
    let _ = write!(said, "{more} more");
    Ok(said)
}

fn text<'v>(answer: &'v Value, name: &str) -> &'v str {
    answer.get(name).and_then(Value::as_str).unwrap_or_default()
}
