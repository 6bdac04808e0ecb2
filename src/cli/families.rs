//! `families`: refresh tokens of a running gateway, as commands.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::claim::read_claims;
use super::operate::{EXIT, Target};
use super::remote::Failure;
use crate::base::http::percent;

/// Options of `families`.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Begin a family for a user who has logged in: print an access token and a refresh token.
    Begin(Begin),
    /// List the newest families of a user.
    List(List),
    /// End a family: its access tokens and its refresh tokens, at every gateway.
    End(End),
}

#[derive(Debug, Args)]
#[command(after_help = EXIT)]
struct Begin {
    /// The user: the claim `sub`.
    #[arg(long)]
    sub: String,
    /// A further claim, `name=value`; the value may be JSON. May be repeated.
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    claims: Vec<String>,
    /// The signer, by its name in [signers]; needed where several issue tokens.
    #[arg(long, value_name = "NAME")]
    signer: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT)]
struct List {
    /// Whose.
    #[arg(long)]
    sub: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT)]
struct End {
    /// The family, as `begin` and `list` show it: the claim `sid` of its access tokens.
    sid: String,
    #[command(flatten)]
    target: Target,
}

/// Carries out `families`; what to print.
///
/// # Errors
/// The gateway refused, or there is none.
pub(super) fn run(options: &Options, path: &Path) -> Result<String, Failure> {
    match &options.what {
        What::Begin(options) => begin(options, path),
        What::List(options) => list(options, path),
        What::End(options) => {
            let remote = options.target.find(path)?;
            let at = format!("/v1/families/{}", percent::encode(options.sid.as_bytes()));
            remote.send((Method::DELETE, &at), &json!({}), &["sid", "ended"])?;
            Ok(format!("ended: {}", options.sid))
        }
    }
}

fn begin(options: &Begin, path: &Path) -> Result<String, Failure> {
    let claims = read_claims(&options.claims).map_err(Failure::unusable)?;
    let mut body = json!({ "sub": options.sub, "claims": claims });
    if let Some(signer) = &options.signer {
        body["signer"] = json!(signer);
    }
    let remote = options.target.find(path)?;
    let members = ["access_token", "refresh_token", "sid"];
    let answer = remote.send((Method::POST, "/v1/families"), &body, &members)?;
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
    Ok(format!(
        "access_token: {}\nrefresh_token: {}\nsid: {}",
        text("access_token"),
        text("refresh_token"),
        text("sid")
    ))
}

fn list(options: &List, path: &Path) -> Result<String, Failure> {
    let at = format!("/v1/families?sub={}", percent::encode(options.sub.as_bytes()));
    let remote = options.target.find(path)?;
    let answer = remote.send((Method::GET, &at), &json!({}), &["families"])?;
    let mut said = String::new();
    for family in answer.get("families").and_then(Value::as_array).into_iter().flatten() {
        let number = |name| family.get(name).and_then(Value::as_i64).unwrap_or_default();
        let sid = family.get("sid").and_then(Value::as_str).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(said, "{sid} created={} ends={}", number("created"), number("ends"));
    }
    let more = answer.get("not_listed").and_then(Value::as_u64).unwrap_or_default();
    let _ = write!(said, "{more} more");
    Ok(said)
}
