//! What routes say of sessions that the gateway makes: who begins one (`issues`), what is told of
//! one, where a log-out leads, and whether requests of other sites are refused.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::reader::Section;
use super::value::{KIB, MIB, Mistake, Read, choice, echo, field_name, flag, size, string, text};

/// Longest JSON pointer, in bytes.
const POINTER_BYTES_MAX: usize = 512;

/// What a route says of sessions that the gateway makes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// Whose answers log callers in, and how; `None`: nobody's.
    pub issues: Option<Issues>,
    /// Whether unsafe requests of other sites are refused where a session says who calls.
    pub csrf: Option<bool>,
    /// Where a log-out leads; `None`: nowhere, it is a 204.
    pub then: Option<String>,
    /// Whether a log-out has the browser forget all cookies of the site.
    pub clear_site_data: bool,
    /// The fields of the session that its own browser is told.
    pub fields: Vec<String>,
}

impl Login {
    /// Whether requests of other sites are refused.
    pub fn refuses_others(&self) -> bool {
        self.csrf.unwrap_or(true)
    }
}

/// `issues = { … }` of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issues {
    /// What a caller gets.
    pub gives: Gives,
    /// Where the answer says who it is: a JSON pointer (RFC 6901).
    pub sub: String,
    /// What else is taken out of the answer: names, and pointers.
    pub claims: BTreeMap<String, String>,
    /// Whose body the caller is answered with.
    pub body: IssuesBody,
    /// Longest answer that is looked into, in bytes.
    pub max_bytes: u64,
}

/// What a log-in gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gives {
    /// `session = true`: a session, in a cookie.
    Session,
    /// `signer = "NAME"`: tokens of one of `[signers]`.
    Tokens(String),
}

/// `body = "upstream" | "tokens"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssuesBody {
    /// The upstream's, as it is.
    Upstream,
    /// The new tokens.
    Tokens,
}

/// Reads what a route says of sessions that the gateway makes.
pub(super) fn read(route: &mut Section<'_>) -> Login {
    Login {
        issues: route.optional("issues", read_issues).flatten(),
        csrf: route.get("csrf", flag),
        then: route.get("then", local_path),
        clear_site_data: route.or("clear_site_data", false, flag),
        fields: route.list_or_empty("fields", text),
    }
}

fn read_issues(issues: &mut Section<'_>) -> Option<Issues> {
    let session = issues.or("session", false, flag);
    let signer = issues.get("signer", text);
    let sub = issues.need("sub", "\"/user/id\", where the answer says who it is", pointer);
    let claims = issues.map("claims", field_name, |claim| claim.read(pointer));
    let words = choice(&[("upstream", IssuesBody::Upstream), ("tokens", IssuesBody::Tokens)]);
    let body = issues.get("body", words);
    let of_signer = if signer.is_some() { IssuesBody::Tokens } else { IssuesBody::Upstream };
    let word = if signer.is_some() { "tokens" } else { "upstream" };
    issues.holds("body", || Some(word.into()));
    let max_bytes = issues.or("max_bytes", 64 * KIB, size(1..=MIB));
    let is_of_one = session != signer.is_some();
    if is_of_one && body.is_some_and(|body| body != of_signer) {
        let what = "does not go with what is issued";
        issues.problem("body", what, "remove it: tokens are the answer, a session is a cookie");
    }
    let gives = match (session, signer) {
        (true, None) => Gives::Session,
        (false, Some(name)) => Gives::Tokens(name),
        (true, Some(_)) => {
            let what = "is one of two things to issue";
            issues.problem("signer", what, "keep session = true for browsers, or signer for apps");
            return None;
        }
        (false, None) => {
            if !issues.is_survey() {
                let remedy = "add session = true, or signer = \"NAME\", one of [signers]";
                issues.problem("", "says nothing of what is issued", remedy);
            }
            return None;
        }
    };
    Some(Issues { gives, sub: sub?, claims, body: of_signer, max_bytes })
}

/// A JSON pointer (RFC 6901 §3): of a member, never of the whole.
fn pointer(value: &DeValue<'_>) -> Read<String> {
    const EXAMPLE: &str = "a JSON pointer such as \"/user/id\"";
    let text = string(value, EXAMPLE)?;
    let is_escaped =
        |part: &str| part.bytes().next().is_some_and(|next| matches!(next, b'0' | b'1'));
    let is_good = text.starts_with('/')
        && text.len() <= POINTER_BYTES_MAX
        && text.split('~').skip(1).all(is_escaped);
    if is_good {
        return Ok(text.to_owned());
    }
    Err(Mistake::new(format!("{} is no JSON pointer", echo(text)), format!("write {EXAMPLE}")))
}

/// A path of the same origin, whatever a browser makes of it.
fn local_path(value: &DeValue<'_>) -> Read<String> {
    const EXAMPLE: &str = "a path of this site such as \"/\" or \"/goodbye\"";
    let text = string(value, EXAMPLE)?;
    let is_plain = |byte: u8| matches!(byte, 0x21..=0x7E) && byte != b'\\';
    if text.starts_with('/') && !text.starts_with("//") && text.bytes().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err(Mistake::new(format!("{} leads elsewhere", echo(text)), format!("write {EXAMPLE}")))
}
