//! `portcullis demo`: the main job in one command. A sample API, a gateway in front of it, one
//! user's session, two signed tokens, and curl lines that show each function. Nothing is faked: it
//! is the gateway that `run` runs.
#![expect(clippy::exit, reason = "a command ends the process")]

mod shop;

use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::base::http::hex;
use crate::base::terminal::{err_line, out, out_line};
use crate::config::{self, Level, Log};
use crate::plan::Plan;
use crate::runtime::Gateway;
use crate::startup::signals::{Habits, end};
use crate::startup::sockets::Sockets;
use crate::startup::{self, diagnostics};
use crate::store::keys::Keys;
use crate::store::{Ending, SessionWrite};

/// The demo's `gateway.toml`, with PUBLIC, ADMIN, STORE, PATIENCE, SECRET and UPSTREAM to fill in.
const CONFIG: &str = include_str!("demo.toml");
/// What `--print-config` names in place of the sample API, which runs in the demo alone.
const OWN_SERVICE: &str = "http://127.0.0.1:3000";
/// What is printed, with PUBLIC, ADMIN, ADA_TOKEN, BOB_TOKEN and SESSION_KEY to fill in.
const TOUR: &str = include_str!("tour.txt");
/// The tokens and the session live this long.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// The demo user's session.
const SESSION_ID: &str = "demo-session";

/// Options of `demo`.
#[derive(Debug, Args)]
pub struct Options {
    /// Where the gateway listens.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: String,
    /// Where its admin API listens.
    #[arg(long, default_value = "127.0.0.1:9901")]
    admin: String,
    /// A real Redis instead of the embedded store, for example redis://127.0.0.1:6379.
    #[arg(long, default_value = "memory:")]
    store: String,
    /// Longest wait for an answer of the store; more than the default helps on a busy machine.
    #[arg(long, default_value = "50ms")]
    store_timeout: String,
    /// Print the demo's gateway.toml, to start your own from, and end. Its secret is new each time.
    #[arg(long)]
    print_config: bool,
    /// Only the sample API, where --listen says: a service to put a gateway in front of.
    #[arg(long, conflicts_with_all = ["print_config", "admin", "store", "store_timeout"])]
    api_only: bool,
}

impl Options {
    /// The configuration, with `upstream` as the service behind the gateway.
    fn config(&self, upstream: &str, secret: &str) -> String {
        CONFIG
            .replace("PUBLIC", &self.listen)
            .replace("ADMIN", &self.admin)
            .replace("PATIENCE", &self.store_timeout)
            .replace("STORE", &self.store)
            .replace("UPSTREAM", upstream)
            .replace("SECRET", secret)
    }
}

/// Runs the demo until it is interrupted, or prints its configuration.
pub async fn run(options: Options) -> ExitCode {
    if options.print_config {
        return match new_secret() {
            Ok(secret) => {
                out(&options.config(OWN_SERVICE, &secret));
                ExitCode::SUCCESS
            }
            Err(text) => {
                err_line(&text);
                ExitCode::FAILURE
            }
        };
    }
    diagnostics::init(&Log { level: Level::Warn, ..Log::default() });
    let ended = if options.api_only {
        serve_api(&options.listen).await
    } else {
        start(&options, Habits::receive().ok()).await
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            err_line(&text);
            ExitCode::FAILURE
        }
    }
}

/// Says which option names another address where one is taken.
fn look_for_ports(options: &Options) -> Result<(), String> {
    for (option, address) in [("--listen", &options.listen), ("--admin", &options.admin)] {
        // What is no address is a mistake in the configuration, and said there.
        let Ok(parsed) = address.parse::<SocketAddr>() else { continue };
        StdTcpListener::bind(parsed).map(drop).map_err(|error| taken(option, address, &error))?;
    }
    Ok(())
}

fn taken(option: &str, address: &str, error: &std::io::Error) -> String {
    format!(
        "cannot listen on {address}: {error}\n    help: name another address, or one with port 0 \
         for any port that is free: {option} 127.0.0.1:0"
    )
}

async fn start(options: &Options, habits: Option<Habits>) -> Result<(), String> {
    look_for_ports(options)?;
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(|error| format!("the sample API finds no port: {error}"))?;
    let upstream = listener.local_addr().map_err(|error| error.to_string())?;
    tokio::spawn(shop::serve(listener));

    let secret = new_secret()?;
    let text = options.config(&format!("http://{upstream}"), &secret);
    let loaded = config::parse("demo.toml", Path::new("."), &text, &|_| None)?;
    if !loaded.problems.is_empty() {
        return Err(loaded.source.render(&loaded.problems));
    }
    let plan = Plan::compile(loaded.config).map_err(|problems| loaded.source.render(&problems))?;
    let session_key = plan.keys.session(SESSION_ID);
    let session = adas_session(&plan.keys);
    let gateway = Gateway::open(plan).await;
    if let Some(habits) = habits {
        tokio::spawn(habits.heed(Arc::downgrade(&gateway)));
    }
    gateway
        .store
        .write_session(&session)
        .await
        .map_err(|error| format!("cannot write the demo session to {}: {error}", options.store))?;
    serve(&gateway, &secret, &session_key).await
}

/// The sample API without a gateway, until a signal ends it.
async fn serve_api(listen: &str) -> Result<(), String> {
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| format!("the sample API {}", taken("--listen", listen, &error)))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    // The first process of a container has no default actions of signals.
    let [mut interrupt, mut terminate] = receive_ends().map_err(|error| error.to_string())?;
    out_line(&format!("The sample API is on http://{address}. Ctrl-C ends it."));
    tokio::select! {
        () = shop::serve(listener) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// The signals that end a process.
fn receive_ends() -> std::io::Result<[Signal; 2]> {
    Ok([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?])
}

/// A new secret, 32 random bytes in hex. The demo makes one for each run: its tokens must be
/// worthless elsewhere.
pub fn new_secret() -> Result<String, String> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "the system has no random bytes".to_owned())?;
    Ok(hex::encode(&bytes))
}

/// What log-in code writes: the session, and whose it is, so that a log-out everywhere finds it.
fn adas_session(keys: &Keys) -> SessionWrite {
    let session = json!({ "userId": "42", "email": "ada@example.com", "cart": ["teapot"] });
    SessionWrite {
        part: Keys::session_part(SESSION_ID),
        keys: keys.session_keys(SESSION_ID),
        families: keys.session_families(),
        index: Some(keys.sessions_of("42")),
        value: session.to_string().into(),
        ttl: LIFE,
        why: Ending::Expired,
        kept: LIFE,
        most: None,
        only_over: false,
    }
}

async fn serve(gateway: &Arc<Gateway>, secret: &str, session_key: &str) -> Result<(), String> {
    let (server, admin) = startup::bind(gateway, &mut Sockets::default()).await?;
    let public =
        server.addresses().first().map(|(address, _)| address.to_string()).unwrap_or_default();
    let operations = admin.address().map(|address| address.to_string()).unwrap_or_default();
    let ada = token(secret, &json!({ "sub": "42", "sid": SESSION_ID, "role": "user" }))?;
    let bob = token(secret, &json!({ "sub": "7", "role": "user" }))?;
    print_tour(&public, &operations, &ada, &bob, session_key);

    let stop = CancellationToken::new();
    let admin_stop = CancellationToken::new();
    tokio::spawn(admin.serve(admin_stop.clone()));
    tokio::spawn(heed(Arc::clone(gateway), stop.clone()));
    server.serve(stop).await;
    admin_stop.cancel();
    Ok(())
}

/// Ends the demo as `run` ends: the first signal drains, the second ends at once.
async fn heed(gateway: Arc<Gateway>, stop: CancellationToken) {
    let Ok([mut interrupt, mut terminate]) = receive_ends() else { return stop.cancel() };
    let mut told = async || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    told().await;
    end(&gateway, &stop, told()).await;
    std::process::exit(1);
}

fn token(secret: &str, more: &Value) -> Result<String, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut claims = Map::new();
    claims.insert("iss".into(), "portcullis-demo".into());
    claims.insert("aud".into(), "shop".into());
    claims.insert("iat".into(), now.as_secs().into());
    claims.insert("exp".into(), (now + LIFE).as_secs().into());
    claims.insert("jti".into(), format!("{:032x}", fastrand::u128(..)).into());
    if let Value::Object(more) = more {
        claims.extend(more.clone());
    }
    let key = EncodingKey::from_secret(secret.as_bytes());
    crate::auth::sign(Algorithm::HS256, &key, None, &claims)
        .map_err(|error| format!("cannot sign the demo tokens: {error}"))
}

fn print_tour(public: &str, admin: &str, ada: &str, bob: &str, session_key: &str) {
    let tour = TOUR
        .replace("PUBLIC", public)
        .replace("ADMIN", admin)
        .replace("ADA_TOKEN", ada)
        .replace("BOB_TOKEN", bob)
        .replace("SESSION_KEY", session_key);
    out(&tour);
}
