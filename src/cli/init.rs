//! `portcullis init`: a gateway.toml to begin with, from options or from questions on a terminal.
//! What it writes passes `check`, and nothing that is there already is overwritten.

mod questions;
mod starter;

use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use self::questions::{Questions, some};
use self::starter::{Answers, Tokens};
use crate::demo::new_secret;

/// Where a service is thought to listen until somebody says so.
const UPSTREAM: &str = "http://127.0.0.1:3000";
/// Everybody may read a configuration, for it holds no secret.
const CONFIG_MODE: u32 = 0o644;
/// Its owner alone may read a secret.
const SECRET_MODE: u32 = 0o600;

/// Options of `init`.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// A server of your service, such as http://127.0.0.1:3000. May be repeated. Without it, all
    /// is asked on the terminal.
    #[arg(long, value_name = "URL")]
    upstream: Vec<String>,
    /// Who signs the tokens of your users, as they name it in `iss`.
    #[arg(long, value_name = "URL", requires = "upstream")]
    issuer: Option<String>,
    /// Where the issuer publishes its keys, if its /.well-known/openid-configuration does not say.
    #[arg(long, value_name = "URL", requires = "issuer")]
    jwks_url: Option<String>,
    /// Whom the issuer's tokens must be for (`aud`).
    #[arg(long, value_name = "NAME", requires = "issuer")]
    audience: Option<String>,
    /// In place of an issuer, the secret that tokens are signed with: env:NAME, file:PATH, or new
    /// for one that is made now, in a file beside the configuration.
    #[arg(long, value_name = "WHERE", requires = "upstream", conflicts_with = "issuer")]
    secret: Option<String>,
    /// The Redis that your gateways share, such as redis://127.0.0.1:6379.
    #[arg(long, value_name = "URL", requires = "upstream", default_value = "memory:")]
    redis: String,
    /// How many requests each user may send, or each address where there are no tokens; none for
    /// any number.
    #[arg(long, value_name = "RATE", requires = "upstream", default_value = "100/15m")]
    limit: String,
    /// The file to write. One that is there already is not overwritten.
    #[arg(long, value_name = "FILE", default_value = "gateway.toml")]
    output: PathBuf,
}

impl Init {
    /// What the options say.
    fn answers(&self) -> Result<Answers, String> {
        let tokens = match (&self.issuer, &self.secret) {
            (Some(issuer), _) => {
                Tokens::issuer(issuer, self.jwks_url.clone(), self.audience.clone())
            }
            (None, Some(secret)) => {
                Tokens::secret(secret).map_err(|why| format!("--secret: {why}"))?
            }
            (None, None) => Tokens::None,
        };
        let upstreams = match self.upstream.as_slice() {
            [] => vec![UPSTREAM.to_owned()],
            named => named.to_vec(),
        };
        Ok(Answers { upstreams, tokens, store: self.redis.clone(), limit: some(&self.limit) })
    }

    /// The same, or what is answered on the terminal.
    fn ask(&self, folder: &Path) -> Result<Answers, String> {
        let answers = self.answers()?;
        if !self.upstream.is_empty() {
            answers.judge(folder).map_err(|told| by_option(&told))?;
            return Ok(answers);
        }
        if !io::stdin().is_terminal() {
            return Err("there is no terminal to ask on: give --upstream URL, such as --upstream \
                        http://127.0.0.1:3000, and see portcullis init --help"
                .to_owned());
        }
        Questions { input: io::stdin().lock(), output: io::stdout(), folder }.ask_all(&answers)
    }
}

/// Problems of a file that is not there yet, by the options that it is made of.
fn by_option(told: &str) -> String {
    let lines = told.lines().map(|line| {
        let Some((key, what)) = line.split_once(": ") else { return line.to_owned() };
        let option = match key {
            _ if key.starts_with("upstreams.") => "--upstream",
            _ if key.starts_with("store.") => "--redis",
            _ if key.starts_with("limits.") => "--limit",
            _ if key.ends_with(".jwks_url") => "--jwks-url",
            _ if key.ends_with(".issuer") => "--issuer",
            _ if key.ends_with(".audience") => "--audience",
            _ if key.ends_with(".secret") => "--secret",
            _ => key,
        };
        format!("{option}: {what}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Writes the file, and says what to do next.
pub(super) fn run(options: &Init) -> Result<String, String> {
    let output = &options.output;
    // Whoever has answered must not learn then that it was in vain.
    refuse_existing(output)?;
    let folder = output.parent().unwrap_or(Path::new(""));
    let answers = options.ask(folder)?;
    let mut said = String::new();
    let mut place = String::new();
    if matches!(answers.tokens, Tokens::NewSecret) {
        let secret_file = output.with_extension("secret");
        let name = secret_file.file_name().unwrap_or_default().to_string_lossy();
        place = format!("file:{name}");
        write(&secret_file, &(new_secret()? + "\n"), SECRET_MODE)?;
        said = format!("wrote {}, which is secret\n", secret_file.display());
    }
    if let Err(why) = write(output, &answers.render(&place), CONFIG_MODE) {
        if !said.is_empty() {
            let _ = fs::remove_file(output.with_extension("secret"));
        }
        return Err(why);
    }
    Ok(format!("{said}wrote {}\n{}", output.display(), next(&answers, output)))
}

/// The commands that come next.
fn next(answers: &Answers, output: &Path) -> String {
    let name = output.display();
    let variables = [&answers.store].into_iter().chain(&answers.upstreams);
    let secret = match &answers.tokens {
        Tokens::Secret(place) => Some(place),
        _ => None,
    };
    let unset: Vec<&str> = variables
        .chain(secret)
        .filter_map(|text| text.strip_prefix("env:"))
        .filter(|name| std::env::var_os(name).is_none())
        .collect();
    let first = match unset.as_slice() {
        [] => String::new(),
        names => format!("set {} before the gateway starts\n", names.join(" and ")),
    };
    let signs = matches!(answers.tokens, Tokens::Secret(_) | Tokens::NewSecret);
    let token = match signs {
        true => format!("\n  portcullis token --config {name} --claim sub=42"),
        false => String::new(),
    };
    format!(
        "{first}next:\n  portcullis check --config {name}\n  portcullis run --config {name}{token}"
    )
}

fn refuse_existing(path: &Path) -> Result<(), String> {
    match path.try_exists() {
        Ok(false) => Ok(()),
        Ok(true) => Err(format!(
            "{} is there already, and init overwrites nothing: move it away, or name another file \
             with --output",
            path.display()
        )),
        Err(error) => Err(format!("cannot look at {}: {error}", path.display())),
    }
}

/// Writes a file that is not there yet.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    refuse_existing(path)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}
