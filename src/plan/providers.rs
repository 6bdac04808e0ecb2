//! OpenID providers, and what routes do with them: lead browsers there, take what they bring back,
//! and hear of sessions that have ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method};

use super::names::names;
use super::own_answer;
use crate::auth::{SharedWith, Verifier};
use crate::base::http::fields::is_reserved;
use crate::config::{
    self, Answers, AudienceMatch, Config, KeySource, Problems, SameSite, Sender, SessionUse,
};
use crate::oidc;
use crate::store::keys::Keys;

/// All providers, by their names.
pub(super) type Providers = BTreeMap<String, Arc<Provider>>;

/// What the gateway itself says of a session, so that no claim may take its place.
const OWN_FIELDS: [&str; 3] = ["sub", "provider", "provider_sid"];

/// An OpenID provider.
#[derive(Debug)]
pub struct Provider {
    /// The name after `providers.`.
    pub name: String,
    /// As it is written.
    pub written: config::Provider,
    /// Who verifies the signatures of its tokens, and for whom they are.
    pub verifier: Arc<Verifier>,
    /// What the gateway shows it; nothing where that stands in forms, or there is nothing.
    pub credentials: Option<HeaderValue>,
    /// Whether its tokens are kept beside sessions.
    pub keeps_tokens: bool,
}

/// What a route does with a provider.
#[derive(Debug, Clone)]
pub struct OidcRoute {
    /// Which one.
    pub provider: Arc<Provider>,
    /// What.
    pub step: OidcStep,
}

/// See [`OidcRoute`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OidcStep {
    /// Browsers are led there.
    Login,
    /// They come back.
    Callback,
    /// Sessions there have ended.
    BackchannelLogout,
}

impl OidcStep {
    fn of(answers: Option<Answers>) -> Option<Self> {
        Some(match answers? {
            Answers::Login => Self::Login,
            Answers::Callback => Self::Callback,
            Answers::BackchannelLogout => Self::BackchannelLogout,
            Answers::Deliveries
            | Answers::Events
            | Answers::Jwks
            | Answers::Refresh
            | Answers::Session
            | Answers::Logout => return None,
        })
    }

    /// The one method by which it is asked for.
    fn method(self) -> Method {
        match self {
            Self::Login | Self::Callback => Method::GET,
            Self::BackchannelLogout => Method::POST,
        }
    }
}

/// The methods of a route that names none, where it is one of these.
pub(super) fn methods(written: &config::Route) -> Option<Method> {
    OidcStep::of(written.answers).filter(|_| written.methods.is_empty()).map(OidcStep::method)
}

/// Compiles every provider, and reports what nobody could log in by.
pub(super) fn compile(config: &Config, keys: &Keys, problems: &mut Problems) -> Providers {
    let mut providers = Providers::new();
    for (name, written) in &config.providers {
        let path = format!("providers.{name}");
        check(config, written, &path, problems);
        let Some(source) = written.keys.clone() else { continue };
        let tokens = tokens_of(written, KeySource::Url(source));
        match Verifier::compile(&path, &tokens, keys, SharedWith::Nobody) {
            Ok(verifier) => {
                let provider = Provider {
                    name: name.clone(),
                    written: written.clone(),
                    verifier: Arc::new(verifier),
                    credentials: oidc::client_credentials(written),
                    keeps_tokens: written.refresh || written.id_token_hint,
                };
                providers.insert(name.clone(), Arc::new(provider));
            }
            Err(mistakes) => {
                for (key, what, remedy) in mistakes {
                    problems.push(format!("{path}.{key}"), what, remedy);
                }
            }
        }
    }
    subjects(config, problems);
    redirects(config, problems);
    providers
}

/// What its tokens must be like: issued by it, for the gateway, and signed by its own keys.
fn tokens_of(written: &config::Provider, keys: KeySource) -> config::Verifier {
    config::Verifier {
        issuer: Some(written.issuer.clone()),
        audience: vec![written.client_id.clone()],
        audience_match: AudienceMatch::Any,
        algorithms: written.algorithms.clone(),
        keys: Some(keys),
        from: Vec::new(),
        leeway: written.leeway,
        max_age: None,
        token_bytes: written.max_bytes,
        // What it revokes is told of in another way.
        revocation: false,
        forward_token: false,
        claims_to_headers: BTreeMap::new(),
        sender: Sender::default(),
    }
}

fn check(config: &Config, written: &config::Provider, path: &str, problems: &mut Problems) {
    let mut problem = |key: &str, what: &str, remedy: &str| {
        problems.push(format!("{path}.{key}"), what.to_owned(), remedy.to_owned());
    };
    let make = config.session.as_ref().and_then(|session| session.make.as_ref());
    match make {
        None => {
            let what = "leads to sessions that the gateway makes, and it makes none";
            problem("redirect_uri", what, "add make = {} to [session]");
        }
        Some(make) => {
            if make.same_site == SameSite::Strict {
                let what = "comes from another site, so that browsers would not show the session \
                            that has just begun";
                problem("redirect_uri", what, "write same_site = \"lax\" in session.make");
            }
            for (key, keeps) in
                [("refresh", written.refresh), ("id_token_hint", written.id_token_hint)]
            {
                if keeps && make.seal.is_empty() {
                    let what = "keeps tokens in the store, where they must not lie in clear";
                    problem(key, what, "add seal = [\"file:session.key\"] to session.make");
                }
            }
        }
    }
    if written.id_token_hint && !config.routes.values().any(|route| route.provider_logout) {
        let what = "is for log-outs that go on at the provider, and no route has one";
        problem("id_token_hint", what, "add provider_logout = true to a log-out, or remove it");
    }
    let times = config.session.as_ref().map(|it| [&*it.created_field, &*it.renewed_field]);
    let own: Vec<&str> = OWN_FIELDS.into_iter().chain(times.into_iter().flatten()).collect();
    for claim in written.claims.iter().filter(|claim| own.contains(&claim.as_str())) {
        let what = format!("{claim:?} is said by the gateway itself");
        problem("claims", &what, "remove it: it is always there");
    }
    if let Some(header) =
        written.forward_access_token.as_ref().filter(|it| is_reserved(it.as_str()))
    {
        let what = format!("`{header}` has its own meaning in HTTP");
        problem("forward_access_token", &what, "use a name of your own, such as x-access-token");
    }
    if written.claims.is_empty() && written.userinfo {
        problem("userinfo", "asks for claims, and none is wanted", "add claims, or remove it");
    }
}

/// Two providers may call different people by one name: whoever can choose his name at one of them
/// must not become somebody of the other one.
fn subjects(config: &Config, problems: &mut Problems) {
    let all: Vec<(&String, &config::Provider)> = config.providers.iter().collect();
    for (at, (name, provider)) in all.iter().enumerate() {
        let rest = all.iter().skip(at + 1);
        let clash = rest.clone().find(|(_, other)| {
            let (one, another) = (&*provider.subject_prefix, &*other.subject_prefix);
            provider.issuer != other.issuer
                && (one.starts_with(another) || another.starts_with(one))
        });
        if let Some((other, _)) = clash {
            let what = format!(
                "providers.{other} may call another user by the same name, who would be the same \
                 here"
            );
            let remedy = format!("write another prefix in each, such as \"{name}|\"");
            problems.push(format!("providers.{name}.subject_prefix"), what, remedy);
        }
    }
}

/// Each provider sends browsers back to a path of its own (RFC 9700 §4.4.2), which a route serves.
fn redirects(config: &Config, problems: &mut Problems) {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, provider) in &config.providers {
        let uri = &provider.redirect_uri;
        let at = format!("providers.{name}.redirect_uri");
        if uri.path.is_empty() {
            continue;
        }
        if let Some(other) = seen.insert(&uri.text, name) {
            let what = format!("is that of providers.{other}, whose answers could be mixed up");
            problems.push(at, what, "write a path of its own".to_owned());
            continue;
        }
        let serves = |route: &&config::Route| {
            let named = route.provider.as_ref().is_none_or(|it| it == name);
            route.answers == Some(Answers::Callback) && named && route.path == uri.path
        };
        if config.routes.values().find(serves).is_none() {
            let what = format!("no route answers at {:?} to who comes back", uri.path);
            let remedy = format!(
                "add a route with path = {:?}, answers = \"callback\" and provider = {name:?}",
                uri.path
            );
            problems.push(at, what, remedy);
        }
    }
}

/// What a route does with a provider; nothing on most routes.
pub(super) fn of_route(
    (config, providers): (&Config, &Providers),
    written: &config::Route,
    at: impl Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<OidcRoute> {
    login_at(config, written, &at, problems);
    if written.provider_logout && written.answers != Some(Answers::Logout) {
        let what = "nobody logs out on this route".to_owned();
        problems.push(at("provider_logout"), what, "add answers = \"logout\", or remove it");
    }
    let Some(step) = OidcStep::of(written.answers) else {
        if written.provider.is_some() {
            let what = "the route does nothing with a provider".to_owned();
            let remedy = "add answers = \"login\", \"callback\" or \"backchannel_logout\"";
            problems.push(at("provider"), what, remedy.to_owned());
        }
        return None;
    };
    own_answer::alone(written, &at, problems);
    let closed =
        [("auth", written.auth.is_some()), ("session", written.session != SessionUse::Off)];
    for (key, _) in closed.into_iter().filter(|(_, is_written)| *is_written) {
        let what = "whoever comes here has not logged in yet".to_owned();
        problems.push(at(key), what, "remove it".to_owned());
    }
    if written.methods.iter().any(|method| *method != step.method()) {
        let what = format!("it is asked for by {} alone", step.method());
        problems.push(at("methods"), what, "leave it out".to_owned());
    }
    let mut all = config.providers.keys();
    let name = match (&written.provider, all.next(), all.next()) {
        (Some(name), ..) => name,
        (None, Some(only), None) => only,
        (None, first, _) => {
            let what = if first.is_some() { "several are described" } else { "none is described" };
            let remedy = match first {
                Some(_) => "name one: provider = \"NAME\"",
                None => "add [providers.NAME] with issuer, client_id and redirect_uri",
            };
            problems.push(at("provider"), format!("of providers {what}"), remedy.to_owned());
            return None;
        }
    };
    if !config.providers.contains_key(name) {
        let known = names(config.providers.keys(), "[providers.NAME]");
        let what = format!("no provider is named {name:?}");
        problems.push(at("provider"), what, format!("name one of {known}"));
    }
    // What is wrong with it was said.
    Some(OidcRoute { provider: Arc::clone(providers.get(name)?), step })
}

/// Where browsers without a session are sent.
fn login_at(
    config: &Config,
    written: &config::Route,
    at: &impl Fn(&str) -> String,
    problems: &mut Problems,
) {
    let Some(login) = &written.login_at else { return };
    let takes = |name: &String| {
        config.auth.get(name).is_some_and(|it| matches!(it.keys, Some(KeySource::Sessions)))
    };
    if !written.auth.iter().flat_map(|auth| &auth.by).any(takes) {
        let what = "no session of the gateway's own lets anybody in here".to_owned();
        let remedy = "add auth = \"NAME\" of an [auth.NAME] with session = true, or remove it";
        problems.push(at("login"), what, remedy.to_owned());
    }
    let leads =
        |route: &config::Route| route.answers == Some(Answers::Login) && route.path == *login;
    if !config.routes.values().any(leads) {
        let what = format!("no route leads from {login:?} to a log-in");
        let remedy = "write the path of a route with answers = \"login\"".to_owned();
        problems.push(at("login"), what, remedy);
    }
}

impl Provider {
    /// Whose session it is, as the gateway calls him.
    pub fn subject(&self, sub: &str) -> String {
        [&*self.written.subject_prefix, sub].concat()
    }

    /// How long what is on its way may take.
    pub fn login_timeout(&self) -> Duration {
        self.written.login_timeout
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::tests::problems_of;

    const GOOD: &str = r#"
[session]
make = { seal = ["env:SEAL_KEY"] }
[providers.id]
issuer = "https://id.example"
client_id = "shop"
redirect_uri = "https://shop.example/callback"
claims = ["email"]
[auth.web]
session = true
[upstreams.shop]
servers = ["http://127.0.0.1:1"]
[routes.login]
path = "/login"
answers = "login"
[routes.callback]
path = "/callback"
answers = "callback"
[routes.ended]
path = "/ended"
answers = "backchannel_logout"
[routes.logout]
path = "/logout"
answers = "logout"
provider_logout = true
[routes.pages]
path = "/*"
upstream = "shop"
auth = "web"
login = "/login"
"#;
    const OTHER: &str = "[providers.other]\nissuer = \"https://other.example\"\n\
                         client_id = \"shop\"\nredirect_uri = \"https://shop.example/other\"\n";

    fn refused(from: &str, to: &str) -> Vec<String> {
        assert!(GOOD.contains(from), "{from}");
        problems_of(&GOOD.replacen(from, to, 1))
    }

    #[test]
    fn what_nobody_could_log_in_by_is_refused() {
        assert_eq!(problems_of(GOOD), [""; 0]);
        for (from, to, expected) in [
            ("[session]\nmake = {", "[session]\nmake = { same_site = \"strict\",", "redirect_uri"),
            ("claims = [\"email\"]", "claims = [\"sub\"]", "claims"),
            ("claims = [\"email\"]", "userinfo = true", "userinfo"),
            (
                "claims = [\"email\"]",
                "refresh = true\nforward_access_token = \"host\"",
                "forward_access_token",
            ),
            ("path = \"/callback\"", "path = \"/back\"", "redirect_uri"),
        ] {
            assert_eq!(refused(from, to), [format!("providers.id.{expected}")], "{to}");
        }
        for (from, to, expected) in [
            ("answers = \"login\"", "answers = \"login\"\nauth = \"web\"", "login.auth"),
            ("answers = \"login\"", "answers = \"login\"\nmethods = [\"POST\"]", "login.methods"),
            ("answers = \"login\"", "answers = \"login\"\nprovider = \"no\"", "login.provider"),
            ("login = \"/login\"", "login = \"/enter\"", "pages.login"),
            ("auth = \"web\"\nlogin", "login", "pages.login"),
            ("provider_logout = true\n[", "provider = \"id\"\n[", "logout.provider"),
            (
                "auth = \"web\"\nlogin",
                "auth = \"web\"\nprovider_logout = true\nlogin",
                "pages.provider_logout",
            ),
        ] {
            assert_eq!(refused(from, to), [format!("routes.{expected}")], "{to}");
        }
    }

    #[test]
    fn tokens_do_not_lie_in_clear() {
        let clear = GOOD.split("[providers.id]").nth(1).expect("the rest");
        let clear = format!("[session]\nmake = {{}}\n[providers.id]{clear}");
        assert_eq!(problems_of(&clear), [""; 0]);
        for key in ["refresh", "id_token_hint"] {
            let kept = clear.replacen("claims =", &format!("{key} = true\nclaims ="), 1);
            assert_eq!(problems_of(&kept), [format!("providers.id.{key}")]);
        }
        // Shown to nobody.
        let kept = GOOD.replace("provider_logout = true", "");
        let kept = kept.replacen("claims =", "id_token_hint = true\nclaims =", 1);
        assert_eq!(problems_of(&kept), ["providers.id.id_token_hint"]);
    }

    #[test]
    fn two_providers_do_not_share_names_or_places() {
        let more = "[routes.other]\npath = \"/other\"\nanswers = \"callback\"\n\
                    provider = \"other\"\n";
        let named = GOOD
            .replace("answers = \"login\"", "answers = \"login\"\nprovider = \"id\"")
            .replace("answers = \"callback\"", "answers = \"callback\"\nprovider = \"id\"")
            .replace("\"backchannel_logout\"", "\"backchannel_logout\"\nprovider = \"id\"");
        let both = |one: &str, other: &str| {
            let one =
                named.replacen("claims =", &format!("subject_prefix = \"{one}\"\nclaims ="), 1);
            problems_of(&format!("{one}{more}{OTHER}subject_prefix = \"{other}\"\n"))
        };
        assert_eq!(both("id|", "other|"), [""; 0]);
        for (one, other) in [("", ""), ("id|", ""), ("id|", "id|"), ("id|", "id|x")] {
            assert_eq!(both(one, other), ["providers.id.subject_prefix"], "{one} {other}");
        }
        let same =
            OTHER.replace("/other", "/callback").replace("/callback.example", "/other.example");
        let prefixed = named.replacen("claims =", "subject_prefix = \"id|\"\nclaims =", 1);
        let same = format!("{prefixed}{same}subject_prefix = \"other|\"\n");
        assert_eq!(problems_of(&same), ["providers.other.redirect_uri"]);
        let unnamed = GOOD.replacen("claims =", "subject_prefix = \"id|\"\nclaims =", 1);
        let unnamed = format!("{unnamed}{more}{OTHER}subject_prefix = \"other|\"\n");
        let expected =
            ["routes.callback.provider", "routes.ended.provider", "routes.login.provider"];
        assert_eq!(problems_of(&unnamed), expected);
    }
}
