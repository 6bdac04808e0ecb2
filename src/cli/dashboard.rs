//! `portcullis dashboard`: the address of a running gateway's dashboard, with a code that logs in
//! once. A code in a fragment reaches no server, and no token stands in a shell's history.

use std::path::Path;

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::operate::{EXIT, Target};
use super::remote::Failure;

/// Options of `dashboard`.
#[derive(Debug, Args)]
#[command(after_help = EXIT)]
pub(super) struct Dashboard {
    #[command(flatten)]
    target: Target,
}

/// The link.
pub(super) fn link(options: &Dashboard, path: &Path) -> Result<String, Failure> {
    let remote = options.target.find(path)?;
    let me = remote.send((Method::GET, "/v1/me"), &json!({}), &["login"])?;
    let page = format!("http://{}/ui/", remote.authority());
    // Without a token nobody logs in, and a gateway without a dashboard says so itself.
    if me["login"] == "loopback" && me["dashboard"] != "off" {
        return Ok(page);
    }
    let answer = remote.send((Method::POST, "/v1/login/code"), &json!({}), &["code"])?;
    let code = answer.get("code").and_then(Value::as_str).unwrap_or_default();
    Ok(format!("{page}#code={code}"))
}
