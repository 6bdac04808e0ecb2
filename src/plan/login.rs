//! Routes that log in and out, and what they cannot have beside that.

use std::sync::Arc;

use http::HeaderValue;

use super::own_answer;
use super::signers::{Signers, issuing};
use crate::config::{self, Answers, Config, Gives, Problems};
use crate::signing::{OWN_CLAIMS, Signer};

/// What a route does with sessions that the gateway makes.
#[derive(Debug)]
pub struct Login {
    /// What the answers of its upstream give to callers.
    pub issues: Option<Issue>,
    /// What the gateway itself answers.
    pub answers: Option<LoginAnswer>,
}

/// What an answer that logs somebody in gives, and where it says what.
#[derive(Debug)]
pub struct Issue {
    /// What is given.
    pub given: Given,
    /// Where the answer says who it is (RFC 6901).
    pub sub: String,
    /// Names, and where the answer says their values.
    pub claims: Vec<(String, String)>,
    /// Longest answer, in bytes.
    pub bytes_max: u64,
}

/// What a log-in gives.
#[derive(Debug)]
pub enum Given {
    /// A session.
    Session,
    /// Tokens of this signer.
    Tokens(Arc<Signer>),
}

/// What the gateway itself answers.
#[derive(Debug)]
pub enum LoginAnswer {
    /// What the session says.
    Session,
    /// That it has ended.
    Logout {
        /// Where the browser goes then.
        then: Option<HeaderValue>,
        /// Whether it forgets all cookies of the site.
        clear_site_data: bool,
    },
}

/// What a route does with sessions that the gateway makes; nothing on most routes.
pub(super) fn of_route(
    (config, signers): (&Config, &Signers),
    written: &config::Route,
    at: impl Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<Box<Login>> {
    check_answers(config, written, &at, problems);
    let issues = issues((config, signers), written, &at, problems);
    let login = &written.login;
    let answers = match written.answers {
        Some(Answers::Session) => Some(LoginAnswer::Session),
        Some(Answers::Logout) => Some(LoginAnswer::Logout {
            // Its form was looked at when it was read.
            then: login.then.as_deref().and_then(|path| HeaderValue::try_from(path).ok()),
            clear_site_data: login.clear_site_data,
        }),
        Some(
            Answers::Deliveries
            | Answers::Events
            | Answers::Jwks
            | Answers::Refresh
            | Answers::Login
            | Answers::Callback
            | Answers::BackchannelLogout,
        )
        | None => None,
    };
    (issues.is_some() || answers.is_some()).then(|| Box::new(Login { issues, answers }))
}

/// Whether the gateway makes sessions.
fn makes_sessions(config: &Config) -> bool {
    config.session.as_ref().is_some_and(|session| session.make.is_some())
}

/// Whether what is written beside `answers` goes with it.
fn check_answers(
    config: &Config,
    written: &config::Route,
    at: &impl Fn(&str) -> String,
    problems: &mut Problems,
) {
    let (answers, login) = (written.answers, &written.login);
    let is_own = matches!(answers, Some(Answers::Session | Answers::Logout));
    if is_own {
        own_answer::alone(written, at, problems);
        if !makes_sessions(config) {
            let what = "the gateway makes no sessions".to_owned();
            problems.push(at("answers"), what, "add make = {} to [session]".to_owned());
        }
    }
    let of_logout = [("then", login.then.is_some()), ("clear_site_data", login.clear_site_data)];
    let of_session = [("fields", !login.fields.is_empty())];
    let rows = of_logout.iter().map(|row| (row, Answers::Logout, "logout"));
    let rows = rows.chain(of_session.iter().map(|row| (row, Answers::Session, "session")));
    for (&(key, is_written), of, word) in rows {
        if is_written && answers != Some(of) {
            let what = "says nothing on this route".to_owned();
            problems.push(at(key), what, format!("remove it, or write answers = \"{word}\""));
        }
    }
    if login.csrf.is_some() && !makes_sessions(config) {
        let what = "no session of the gateway's own says who calls".to_owned();
        problems.push(at("csrf"), what, "remove it, or add make = {} to [session]".to_owned());
    }
}

/// What the answers of the route's upstream give.
fn issues(
    (config, signers): (&Config, &Signers),
    written: &config::Route,
    at: &impl Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<Issue> {
    let issues = written.login.issues.as_ref()?;
    let beside = [
        ("cache", written.cache.is_some(), "an answer that logs somebody in is for nobody else"),
        ("idempotency", written.idempotency.is_some(), "each log-in gives something new"),
        ("deliver", written.deliver.is_some(), "nobody would wait for what is given"),
        ("grpc", written.grpc.is_some(), "an answer that logs somebody in is JSON"),
        ("upgrade", written.tunnel.is_some(), "an answer that logs somebody in is JSON"),
        ("respond", written.respond.is_some(), "its upstream says who logs in"),
        ("answers", written.answers.is_some(), "its upstream says who logs in"),
    ];
    for (key, _, what) in beside.into_iter().filter(|(_, is_written, _)| *is_written) {
        problems.push(at(key), what.to_owned(), "remove it, or issues".to_owned());
    }
    for name in issues.claims.keys().filter(|name| is_said(config, &issues.gives, name)) {
        let what = format!("{name:?} is said by the gateway itself");
        problems.push(at("issues.claims"), what, "give it another name".to_owned());
    }
    let given = match &issues.gives {
        Gives::Session => {
            if !makes_sessions(config) {
                let what = "the gateway makes no sessions".to_owned();
                problems.push(at("issues"), what, "add make = {} to [session]".to_owned());
            }
            Given::Session
        }
        Gives::Tokens(name) => {
            Given::Tokens(issuing((config, signers), name, &at("issues.signer"), problems)?)
        }
    };
    let claims = issues.claims.clone().into_iter().collect();
    Some(Issue { given, sub: issues.sub.clone(), claims, bytes_max: issues.max_bytes })
}

/// Whether what is given says this by itself.
fn is_said(config: &Config, gives: &Gives, name: &str) -> bool {
    match gives {
        Gives::Session => {
            let times = |it: &config::Session| name == it.created_field || name == it.renewed_field;
            name == "sub" || config.session.as_ref().is_some_and(times)
        }
        Gives::Tokens(_) => OWN_CLAIMS.contains(&name),
    }
}
