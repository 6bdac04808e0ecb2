//! The commands: `run`, `init`, `convert`, `check`, `acl`, `demo`, `token`, `signing-key`,
//! `health`, `revoke`, `keys`, `families`, `purge`, `warm`, `cache`, `explain`, `limits`,
//! `requests`, `diff`, `status`, `doctor`, `dashboard`, `fmt`, `schema`, `completions`, `man`.
//! What they print goes through `base::terminal`.
#![expect(clippy::exit, reason = "commands end the process")]

mod api_keys;
mod cache;
mod claim;
mod convert;
mod dashboard;
mod diff;
mod doctor;
mod families;
mod fmt;
mod given;
mod init;
mod json;
mod limits;
mod operate;
mod plain;
mod queues;
mod reload;
mod remote;
mod requests;
mod secrets;
mod shell;
mod signing_key;
mod status;
mod store;
mod suggest;

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::Map;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use self::suggest::unparsed;

use self::claim::read_claim;
use self::secrets::{WithoutSecrets, not_looked_at};
use crate::base::build::VERSION_AND_COMMIT;
use crate::base::file::{self, FILE_BYTES_MAX};
use crate::base::terminal::{err, err_line, out, out_line};
use crate::config::{self, KeySource, Loaded, Source};
use crate::net::supervisor;
use crate::plan::Plan;
use crate::runtime::{Gateway, Looked, look_at, read_plan, warn_of, warn_of_descriptors};
use crate::startup::signals::{Habits, end};
use crate::startup::sockets::Sockets;
use crate::startup::{bind, diagnostics, handover, watch};

/// Exit status of a configuration with problems.
const CONFIG_PROBLEMS: u8 = 2;
/// How long the end of the process may wait for the store, and for the access log.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long `health` waits for an answer.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);

/// An edge gateway: JWT and revocation, exact rate limits, sessions and a shared cache in one Redis
/// round trip.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version = VERSION_AND_COMMIT)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: ConfigFile,
}

#[derive(Debug, Clone, Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(long, global = true, default_value = "gateway.toml", env = "PORTCULLIS_CONFIG")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default).
    Run,
    /// Write a commented gateway.toml to begin with, from options or from questions.
    Init(init::Init),
    /// Turn the configuration of nginx, Kong or Traefik into a gateway.toml, and list what could
    /// not be carried over.
    Convert(convert::Convert),
    /// Report every problem of the configuration at once; exit status 2 when there are any.
    Check {
        /// Look at Redis too: who it is, what its user may do, whether limits count right; exit
        /// status 3 when it cannot be used.
        #[arg(long)]
        store: bool,
        #[command(flatten)]
        secrets: WithoutSecrets,
    },
    /// Print the Redis command that makes a user with all the rights that the gateway needs, and no
    /// others.
    Acl(store::Acl),
    /// Show what the gateway does: embedded store, a sample API, signed tokens, curl lines to try.
    Demo(crate::demo::Options),
    /// Print a signed test token for one of the verifiers.
    Token(TokenOptions),
    /// Write a new key that signs tokens, for `keys` of a signer. Nobody else may read the file; a
    /// file that is there already stays.
    SigningKey(signing_key::Options),
    /// Ask a running gateway on this machine whether it is alive; exit status 0 when it is.
    Health,
    /// Revoke a token, a session or all tokens of a user. A running gateway does it; it holds from
    /// the next request, at every gateway on the same store.
    Revoke(operate::Revoke),
    /// Empty the cache or a part of it. A running gateway does it, for every gateway on the same
    /// store.
    Purge(operate::Purge),
    /// Fetch what a route's cache.warm names, before anybody asks for it. A running gateway does
    /// it.
    Warm(operate::Warm),
    /// Show what a running gateway's cache saves on each route, and what would help; or whether one
    /// URL is stored.
    Cache(cache::Cache),
    /// Make, list and end API keys. A running gateway does it, for every gateway on the same store.
    Keys(api_keys::Options),
    /// Begin, list and end families of refresh tokens. A running gateway does it, for every gateway
    /// on the same store.
    Families(families::Options),
    /// Say what would happen to a request: its route, its caller, what its limits have left. A
    /// running gateway says it; nothing is charged or forwarded.
    Explain(limits::Explain),
    /// Show what a limit has left for one key, reset it, or list whom the gateway refuses most.
    Limits(limits::Limits),
    /// Say how a running gateway is: findings and what to do, rates, busiest routes, servers; exit
    /// status 1 when a finding is poor.
    Status(status::Status),
    /// Say whether Redis is right: who it is, its rights, clock, latency, memory, persistence,
    /// keys, connections. A running gateway looks, or without one this command.
    Doctor(doctor::Doctor),
    /// Show which requests were refused, have failed or were slow of late, and why. A running
    /// gateway says it.
    Requests(requests::Requests),
    /// Show what waits to be delivered later, and pause or resume a queue. A running gateway does
    /// it, for every gateway on the same store.
    Queues(queues::Queues),
    /// List, show, requeue and cancel deliveries. A running gateway does it.
    Deliveries(queues::Deliveries),
    /// Show what the configuration file says otherwise than what a running gateway has in force,
    /// and what that costs. Or, of two files, what the new one says otherwise than the old one.
    Diff(diff::Diff),
    /// Print the address of a running gateway's dashboard, with a code that logs in once within a
    /// minute.
    Dashboard(dashboard::Dashboard),
    /// Write the configuration, and the files that it includes, in the form that all have. Comments
    /// and the order stay.
    Fmt(fmt::Fmt),
    /// Print the JSON schema of gateway.toml, for editors.
    Schema,
    /// Print what a shell sources to complete this command line.
    Completions(shell::Completions),
    /// Print the manual's page of this program, or write those of all its commands.
    Man(shell::Manual),
}

/// Options of `token`.
#[derive(Debug, Args)]
struct TokenOptions {
    /// Name of the verifier, as in [auth.NAME].
    #[arg(long, default_value = "users")]
    auth: String,
    /// A claim, `name=value`; the value may be JSON. May be repeated.
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    claims: Vec<String>,
    /// Life of the token.
    #[arg(long, default_value = "1h")]
    expires_in: String,
    /// PEM file with the private key, for verifiers without a secret.
    #[arg(long)]
    private_key: Option<PathBuf>,
    /// Key id for the token's header.
    #[arg(long)]
    kid: Option<String>,
}

/// Carries out the command line.
pub fn main(cli: Cli) -> ExitCode {
    let path = cli.config.config;
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => {
            // Before the runtime opens files of its own.
            let sockets = Sockets::from_env();
            block_on(start(path, sockets))
        }
        Command::Init(options) => report(init::run(&options)),
        Command::Convert(options) => converted(convert::run(&options)),
        Command::Acl(options) => match look(&path, options.secrets) {
            Ok((plan, _)) => report(store::print_acl(&options, &plan.config)),
            Err(code) => code,
        },
        Command::Check { store, secrets } => check(&path, store, secrets),
        Command::Demo(options) => {
            crate::auth::init();
            block_on(crate::demo::run(options))
        }
        Command::Token(options) => report(token(&path, &options)),
        Command::SigningKey(options) => report(signing_key::run(&options)),
        Command::Health => report(health(&path)),
        Command::Revoke(options) => operated(operate::revoke(&options, &path)),
        Command::Purge(options) => operated(operate::purge(&options, &path)),
        Command::Warm(options) => operated(operate::warm(&options, &path)),
        Command::Cache(options) => operated(cache::show(&options, &path)),
        Command::Keys(options) => operated(api_keys::run(&options, &path)),
        Command::Families(options) => operated(families::run(&options, &path)),
        Command::Explain(options) => operated(limits::explain(&options, &path)),
        Command::Limits(options) => operated(limits::limits(&options, &path)),
        Command::Status(options) => looked(status::show(&options, &path)),
        Command::Doctor(options) => look_at_store(&options, &path),
        Command::Requests(options) => operated(requests::requests(&options, &path)),
        Command::Queues(options) => operated(queues::queues(&options, &path)),
        Command::Deliveries(options) => operated(queues::deliveries(&options, &path)),
        Command::Diff(options) => told(diff::diff(&options, &path)),
        Command::Dashboard(options) => operated(dashboard::link(&options, &path)),
        Command::Fmt(options) => told(fmt::fmt(&options, &path)),
        Command::Schema => report(Ok(format!("{:#}", config::schema()))),
        Command::Completions(options) => report(Ok(shell::completions(&options, Cli::command()))),
        Command::Man(options) => report(shell::manual(&options, Cli::command())),
    }
}

/// Says that the configuration is right, and what it has from elsewhere.
fn check(path: &Path, looks_at_store: bool, secrets: WithoutSecrets) -> ExitCode {
    if looks_at_store && secrets.is_given() {
        err_line("--store logs in to Redis, which takes its password: leave one of both out");
        return ExitCode::from(CONFIG_PROBLEMS);
    }
    let (plan, source) = match look(path, secrets) {
        Ok(looked) => looked,
        Err(code) => return code,
    };
    err(&source.render_warnings(&plan.warnings));
    let routes = plan.route_names().len();
    out_line(&format!("ok: {routes} {}", if routes == 1 { "route" } else { "routes" }));
    let tls = plan.config.server.tls.as_ref();
    for certificate in tls
        .and_then(|tls| tls.acme.as_ref())
        .iter()
        .flat_map(|acme| acme.names.iter().map(|names| (names.join(", "), &acme.directory)))
    {
        out_line(&format!("{}: ordered from {}", certificate.0, certificate.1));
    }
    for it in config::Shown::of(&source).from_environment() {
        let unset = if it.unset.is_empty() { "" } else { " is not set" };
        let from = [it.variables.join(", "), it.unset.join(", ") + unset];
        let from: Vec<String> = from.into_iter().filter(|part| !part.is_empty()).collect();
        out_line(&format!("{} = {} ({})", it.key, it.value, from.join("; ")));
    }
    if looks_at_store { block_on(store::check(plan.config.store)) } else { ExitCode::SUCCESS }
}

/// Has a gateway look at its store, or looks itself.
fn look_at_store(options: &doctor::Doctor, path: &Path) -> ExitCode {
    let by = match doctor::ask(options, path) {
        Ok(doctor::Asked::Gateway(answer)) => return doctor::print(options, &answer),
        Ok(doctor::Asked::Nobody(by)) => by,
        Err(failure) => return operated(Err(failure)),
    };
    match load(path) {
        Ok((plan, _)) => block_on(async {
            doctor::print(options, &crate::admin::examine(&plan.config, &by).await)
        }),
        Err(code) => code,
    }
}

/// Loads and compiles, and says which secrets are not here, or prints every problem.
fn look(path: &Path, secrets: WithoutSecrets) -> Result<(Plan, Source), ExitCode> {
    let Looked { plan, source, unseen } = look_at(path, secrets.word()).map_err(|text| {
        err(&text);
        ExitCode::from(CONFIG_PROBLEMS)
    })?;
    err(&not_looked_at(&unseen));
    Ok((plan, source))
}

/// Loads and compiles, or prints every problem.
fn load(path: &Path) -> Result<(Plan, Source), ExitCode> {
    read_plan(path).map_err(|text| {
        err(&text);
        ExitCode::from(CONFIG_PROBLEMS)
    })
}

fn block_on(future: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(future);
            // A file system that does not answer a reload must not hold up the end.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            err_line(&format!(
                "cannot start the runtime: {error}; are threads or file descriptors exhausted?"
            ));
            ExitCode::FAILURE
        }
    }
}

/// Loads, and serves if it may.
async fn start(path: PathBuf, sockets: Sockets) -> ExitCode {
    // Before anything that takes time: whoever has logs rotated may send its signal at any moment.
    let habits = match Habits::receive() {
        Ok(habits) => habits,
        Err(error) => {
            err_line(&format!("signals cannot be received: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match load(&path) {
        Ok((plan, source)) => run(plan, (path, &source), sockets, habits).await,
        Err(code) => code,
    }
}

/// Serves until a signal ends it.
async fn run(
    plan: Plan,
    (path, source): (PathBuf, &Source),
    mut sockets: Sockets,
    mut habits: Habits,
) -> ExitCode {
    diagnostics::init(&plan.config.log);
    warn_of(&plan, source);
    warn_of_descriptors(&plan.config);
    // Before anybody can know that the gateway is there: a signal without a receiver would end it.
    let signals = match Signals::receive(habits.take_user2()) {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "signals cannot be received");
            return ExitCode::FAILURE;
        }
    };
    let gateway = Gateway::open(plan).await;
    gateway.follow_file(path, source);
    tokio::spawn(habits.heed(Arc::downgrade(&gateway)));
    let (server, admin) = match bind(&gateway, &mut sockets).await {
        Ok(bound) => bound,
        Err(text) => {
            tracing::error!("{text}");
            return ExitCode::FAILURE;
        }
    };
    let stop = CancellationToken::new();
    let admin_stop = CancellationToken::new();
    let admin = tokio::spawn(admin.serve(admin_stop.clone()));
    if handover::say_ready() {
        gateway.observer.metrics.handed_over("done");
        supervisor::is_told_ready();
    } else {
        supervisor::ready();
    }
    let signals = tokio::spawn(heed(signals, Arc::clone(&gateway), sockets, stop.clone()));
    server.serve(stop).await;
    admin_stop.cancel();
    signals.abort();
    gateway.finish(FINISH_TIMEOUT).await;
    // Both tasks end by themselves now; a panic in one of them has been reported by the runtime.
    let _ = admin.await;
    tracing::info!("stopped");
    ExitCode::SUCCESS
}

/// The signals that the gateway heeds.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    user2: Option<Signal>,
}

impl Signals {
    fn receive(user2: Option<Signal>) -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            user2,
        })
    }
}

/// SIGHUP reloads, SIGUSR2 hands over. SIGTERM and SIGINT drain after `server.drain_delay`; a
/// second one of these ends at once.
async fn heed(signals: Signals, gateway: Arc<Gateway>, sockets: Sockets, stop: CancellationToken) {
    let Signals { mut hangup, mut terminate, mut interrupt, mut user2 } = signals;
    // Beside the others: a reload may wait for a file system, and a new process for its store.
    let is_handed_over = tokio::select! {
        () = reload::at_each(|cx| hangup.poll_recv(cx), || reload(&gateway, "SIGHUP")) => false,
        () = watch::follow(&gateway, || reload(&gateway, "server.watch")) => false,
        () = handover::at_each(user2.as_mut(), &gateway, &sockets) => true,
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
    };
    let mut told = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    if is_handed_over {
        stop.cancel();
        // Whoever stops a service may tell all of its processes; this one is about to end.
        told().await;
        tracing::info!("what is in flight is being finished already; another signal ends it");
        told().await;
    } else {
        end(&gateway, &stop, told()).await;
    }
    tracing::warn!("a second signal: stopping at once");
    std::process::exit(1);
}

/// Reloads the file, and writes down who wanted it.
async fn reload(gateway: &Arc<Gateway>, by: &'static str) {
    let result = if gateway.reload(None).await.is_ok() { "done" } else { "refused" };
    crate::admin::told(gateway, by, "reload", result);
}

fn report(result: Result<String, String>) -> ExitCode {
    match result {
        Ok(text) => {
            out_line(&text);
            ExitCode::SUCCESS
        }
        Err(text) => {
            err_line(&text);
            ExitCode::FAILURE
        }
    }
}

fn operated(result: Result<String, remote::Failure>) -> ExitCode {
    match result {
        Ok(text) => report(Ok(text)),
        Err(remote::Failure { status, text }) => {
            err_line(text.trim_end());
            ExitCode::from(status)
        }
    }
}

/// The same of what was looked at, which may be poor.
fn looked(result: Result<(String, bool), remote::Failure>) -> ExitCode {
    match result {
        Ok((text, is_poor)) => {
            out_line(&text);
            if is_poor { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(failure) => operated(Err(failure)),
    }
}

/// Prints what was found; the exit status says whether it was something.
fn told(result: Result<(String, u8), remote::Failure>) -> ExitCode {
    match result {
        Ok((text, status)) => {
            out_line(&text);
            ExitCode::from(status)
        }
        Err(failure) => operated(Err(failure)),
    }
}

/// Prints a new configuration, and beside it what is not in it.
fn converted(made: convert::Converted) -> ExitCode {
    if let Some(text) = made.text {
        out(&text);
    }
    if !made.said.is_empty() {
        err_line(made.said.trim_end());
    }
    ExitCode::from(made.status)
}

fn token(path: &Path, options: &TokenOptions) -> Result<String, String> {
    let Loaded { config, .. } = config::load(path)?;
    let verifier = config.auth.get(&options.auth).ok_or_else(|| {
        let names: Vec<&str> = config.auth.keys().map(String::as_str).collect();
        format!(
            "no verifier is named {:?}; {} has: {}",
            options.auth,
            path.display(),
            names.join(", ")
        )
    })?;
    if matches!(verifier.keys, Some(KeySource::ApiKeys)) {
        let name = &options.auth;
        return Err(format!("auth.{name} takes API keys, no tokens: use portcullis keys create"));
    }
    if let Some(KeySource::Certificates | KeySource::Sessions) = verifier.keys {
        let name = &options.auth;
        return Err(format!("auth.{name} takes client certificates or sessions, no tokens"));
    }
    if matches!(verifier.keys, Some(KeySource::Introspection(_))) {
        let name = &options.auth;
        return Err(format!("auth.{name} takes opaque tokens, which its server makes"));
    }
    let algorithm = *verifier.algorithms.first().ok_or("the verifier has no algorithms")?;
    let key = match (&options.private_key, &verifier.keys) {
        (Some(file), _) => private_key(file, algorithm)?,
        (None, Some(KeySource::Secret(secret))) => EncodingKey::from_secret(secret.expose()),
        (None, Some(KeySource::Signer(name))) => signers_key(&config, name)?,
        (None, _) => {
            return Err(format!(
                "auth.{} has no secret, so it cannot sign: give --private-key FILE",
                options.auth
            ));
        }
    };
    let life = crate::base::units::parse_positive_duration(&options.expires_in)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut claims = Map::new();
    let of_signer = match &verifier.keys {
        Some(KeySource::Signer(name)) => config.signers.get(name).map(|signer| &signer.issuer),
        _ => None,
    };
    if let Some(issuer) = of_signer.or(verifier.issuer.as_ref()) {
        claims.insert("iss".into(), issuer.as_str().into());
    }
    if let Some(audience) = verifier.audience.first() {
        claims.insert("aud".into(), audience.as_str().into());
    }
    claims.insert("iat".into(), now.as_secs().into());
    claims.insert("exp".into(), (now + life).as_secs().into());
    claims.insert("jti".into(), format!("{:032x}", fastrand::u128(..)).into());
    for claim in &options.claims {
        let (name, value) = read_claim(claim)?;
        claims.insert(name, value);
    }
    crate::auth::sign(algorithm, &key, options.kid.as_deref(), &claims)
        .map_err(|error| format!("cannot sign: {error}; does the key fit {algorithm:?}?"))
}

/// What a signer signs with.
fn signers_key(config: &config::Config, name: &str) -> Result<EncodingKey, String> {
    let signer = config.signers.get(name).ok_or(format!("no signer is named {name:?}"))?;
    let key = signer.keys.first().ok_or(format!("signers.{name} has no key"))?;
    EncodingKey::from_ec_pem(key.expose())
        .map_err(|error| format!("signers.{name} cannot sign here: {error}; is it PKCS#8?"))
}

fn private_key(path: &Path, algorithm: Algorithm) -> Result<EncodingKey, String> {
    let pem = file::read(path, FILE_BYTES_MAX)
        .map_err(|fault| format!("cannot read {}: {fault}; {}", path.display(), fault.remedy()))?;
    let key = match algorithm {
        Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512 => EncodingKey::from_rsa_pem(&pem),
        Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(&pem),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(&pem),
        _ => return Err("a secret, not a private key, signs HS256, HS384 and HS512".to_owned()),
    };
    key.map_err(|error| {
        format!("{} is no PEM private key for {algorithm:?}: {error}", path.display())
    })
}

/// For container health checks: no curl needed.
fn health(path: &Path) -> Result<String, String> {
    let Loaded { config, .. } = config::load(path)?;
    let mut address: SocketAddr = config.admin.listen;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let ask = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect_timeout(&address, HEALTH_TIMEOUT)?;
        stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
        let request =
            format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        std::io::Write::write_all(&mut stream, request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| format!("no gateway answers on {address}: {error}"))?;
    if answer.starts_with("HTTP/1.1 200 ") && answer.lines().last() == Some("ok") {
        Ok("healthy".to_owned())
    } else {
        Err(format!("not healthy: {}", answer.lines().last().unwrap_or_default()))
    }
}
