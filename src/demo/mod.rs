//! `portcullis demo`: the main job in one command. A sample API, a gateway in front of it, one user's session, two signed
//! tokens, and curl lines that show each function. Nothing is faked: it is the gateway that `run` runs.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to a terminal")]

mod shop;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli;
use crate::config::{self, Level};
use crate::gateway::Gateway;
use crate::plan::Plan;

const CONFIG: &str = include_str!("demo.toml");
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
}

/// Runs the demo until it is interrupted.
pub async fn run(options: Options) -> ExitCode {
    cli::init_diagnostics(Level::Warn);
    match start(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

async fn start(options: &Options) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(|error| format!("the sample API finds no port: {error}"))?;
    let upstream = listener.local_addr().map_err(|error| error.to_string())?;
    tokio::spawn(shop::serve(listener));

    // A secret of this run alone: a demo's token must be worthless elsewhere.
    let secret = format!("{:032x}{:032x}", fastrand::u128(..), fastrand::u128(..));
    let text = CONFIG
        .replace("PUBLIC", &options.listen)
        .replace("ADMIN", &options.admin)
        .replace("STORE", &options.store)
        .replace("UPSTREAM", &format!("http://{upstream}"))
        .replace("SECRET", &secret);
    let loaded = config::parse("demo.toml", Path::new("."), &text, &|_| None)?;
    if !loaded.problems.is_empty() {
        return Err(loaded.source.render(&loaded.problems));
    }
    let plan = Plan::compile(loaded.config).map_err(|problems| loaded.source.render(&problems))?;
    let session_key = plan.keys.session(SESSION_ID);
    let gateway = Gateway::open(plan).await;
    let session = json!({ "userId": "42", "email": "ada@example.com", "cart": ["teapot"] });
    gateway
        .store
        .put(&session_key, session.to_string().as_bytes(), LIFE)
        .await
        .map_err(|error| format!("cannot write the demo session to {}: {error}", options.store))?;
    serve(&gateway, &secret, &session_key).await
}

async fn serve(gateway: &Arc<Gateway>, secret: &str, session_key: &str) -> Result<(), String> {
    let (server, admin) = cli::bind(gateway).await?;
    let public = server.addresses().first().map(ToString::to_string).unwrap_or_default();
    let operations = admin.address().map(|address| address.to_string()).unwrap_or_default();
    let ada = token(secret, &json!({ "sub": "42", "sid": SESSION_ID, "role": "user" }))?;
    let bob = token(secret, &json!({ "sub": "7", "role": "user" }))?;
    print_tour(&public, &operations, &ada, &bob, session_key);

    let stop = CancellationToken::new();
    let admin_stop = CancellationToken::new();
    tokio::spawn(admin.serve(admin_stop.clone()));
    let ended = stop.clone();
    tokio::spawn(async move {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
        if let [Ok(mut interrupt), Ok(mut terminate)] = kinds.map(signal) {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        ended.cancel();
    });
    server.serve(stop).await;
    admin_stop.cancel();
    Ok(())
}

fn token(secret: &str, more: &Value) -> Result<String, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut claims = Map::new();
    claims.insert("iss".into(), "portcullis-demo".into());
    claims.insert("aud".into(), "shop".into());
    // As if they logged in a minute ago: not-before has whole seconds, and a log-in in the second of a revocation passes.
    claims.insert("iat".into(), (now.as_secs() - 60).into());
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
    println!(
        r#"Portcullis demo: a gateway on http://{public} before a sample products API.
Copy and paste; -i shows the headers that tell what happened.

  ADA='{ada}'
  BOB='{bob}'

1. No token, no entry (401 and a challenge):
  curl -i http://{public}/products

2. With a token: the answer, the limits, a cache miss; once more: a hit, with its age:
  curl -i -H "Authorization: Bearer $ADA" http://{public}/products
  curl -i -H "Authorization: Bearer $ADA" http://{public}/products

3. A write goes through and makes the copies stale; the next read is a miss and shows the new product:
  curl -i -H "Authorization: Bearer $ADA" -H 'Content-Type: application/json' -d '{{"name":"kettle"}}' http://{public}/products
  curl -i -H "Authorization: Bearer $ADA" http://{public}/products

4. The session of {session_key} reaches the API as headers; the token itself does not:
  curl -i -H "Authorization: Bearer $ADA" http://{public}/me

5. Exact limits: five log-in attempts in 15 minutes, the sixth is a 429 that says when to come back:
  for i in 1 2 3 4 5 6; do curl -s -o /dev/null -w '%{{http_code}}\n' -d 'user=ada' http://{public}/login; done

6. Log Bob out everywhere; his token is refused at the next request, Ada's is not:
  curl -i -H "Authorization: Bearer $BOB" http://{public}/products
  curl -i -H 'Content-Type: application/json' -d '{{"sub":"7"}}' http://{admin}/v1/revocations
  curl -i -H "Authorization: Bearer $BOB" http://{public}/products

7. What operators see:
  curl http://{admin}/v1/status
  curl http://{admin}/metrics

The same with a real Redis, shared by as many gateways as you start:
  portcullis demo --store redis://127.0.0.1:6379

Your own: write a gateway.toml (the repository's is annotated), then `portcullis check` and `portcullis run`.
Ctrl-C ends the demo."#
    );
}
