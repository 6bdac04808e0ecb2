//! Asks an authorization server what an opaque token is worth (RFC 7662). One question for each
//! token at a time, however many requests have it; so many questions at once, and no more; one
//! bound on the time of all of it. It must not know routes, nor requests.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::challenge::{Denied, Reason};
use super::claims;
use super::memory::{self, AnswerMemory, Answered, RecordId};
use super::rules::{Rules, unix_seconds};
use crate::base::facts::Identity;
use crate::base::http::percent;
use crate::base::json;
use crate::config::Introspect;
use crate::net::{self, Connection};

/// Most tokens that are asked about at a time, by those that wait for their turn too.
const FLIGHTS_MAX: usize = 4096;
/// Largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// How long a connection is used, so that a server that has moved is found.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);
/// Members by which servers say what kind of token it is: that of RFC 7662, and those of their own.
const KINDS: [&str; 3] = ["token_type", "token_use", "typ"];

/// What the server says of a token, or why it is of no use; `None` where it did not say.
type Said = Result<Arc<Identity>, Option<Reason>>;

/// Asks one server.
#[derive(Debug)]
pub(super) struct Introspector {
    settings: Introspect,
    /// `Authorization`, ready to send.
    credentials: HeaderValue,
    permits: Semaphore,
    /// Who waits for what is being asked.
    flights: Mutex<HashMap<RecordId, watch::Receiver<Option<Said>>>>,
    /// Connections that wait for the next question.
    idle: Mutex<Vec<Kept>>,
    /// Whether the last question had no answer: it is told once.
    is_failing: AtomicBool,
}

/// A connection that is used again until it is too old.
#[derive(Debug)]
struct Kept {
    connection: Connection,
    opened: Instant,
}

/// What an answer is judged by.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    pub(super) rules: Arc<Rules>,
    pub(super) introspector: Arc<Introspector>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Introspector {
    /// Asks nothing yet.
    pub(super) fn new(settings: &Introspect) -> Self {
        // RFC 6749 §2.3.1: both are encoded as a form's values are, first.
        let secret = percent::encode(settings.client_secret.expose());
        let pair = format!("{}:{secret}", percent::encode(settings.client_id.as_bytes()));
        let text = format!("Basic {}", STANDARD.encode(pair));
        let mut credentials =
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("Basic"));
        credentials.set_sensitive(true);
        Self {
            settings: settings.clone(),
            credentials,
            permits: Semaphore::new(settings.in_flight),
            flights: Mutex::default(),
            idle: Mutex::default(),
            is_failing: AtomicBool::new(false),
        }
    }
}

/// The name under which a token is remembered: nothing that could be used as one.
pub(super) fn id_of(verifier: memory::Fingerprint, token: &[u8]) -> RecordId {
    RecordId { verifier, digest: memory::bytes(&digest(&SHA256, token)) }
}

impl Judge {
    /// Who the server says is calling with this token. Whoever comes while it is asked waits for
    /// the same answer; it goes on when who asked leaves.
    ///
    /// # Errors
    /// The token is of no use, or nobody can say.
    pub(super) async fn ask(
        &self,
        id: RecordId,
        token: &str,
        memory: &Arc<AnswerMemory>,
    ) -> Result<Arc<Identity>, Denied> {
        let away = || Denied::Unasked(Arc::clone(&self.rules.name));
        let mut landing = match self.join(id, token, memory) {
            Some(landing) => landing,
            None => return Err(away()),
        };
        let said = landing.wait_for(Option::is_some).await.ok().and_then(|said| said.clone());
        match said {
            Some(Ok(identity)) => Ok(identity),
            Some(Err(Some(reason))) => Err(reason.into()),
            Some(Err(None)) | None => Err(away()),
        }
    }

    /// The flight of a token, which begins where there is none. Nothing where there are too many.
    fn join(
        &self,
        id: RecordId,
        token: &str,
        memory: &Arc<AnswerMemory>,
    ) -> Option<watch::Receiver<Option<Said>>> {
        let mut flights = lock(&self.introspector.flights);
        if let Some(landing) = flights.get(&id) {
            return Some(landing.clone());
        }
        if flights.len() >= FLIGHTS_MAX {
            return None;
        }
        let (lands, landing) = watch::channel(None);
        flights.insert(id, landing.clone());
        let (judge, token, memory) = (self.clone(), token.to_owned(), Arc::clone(memory));
        tokio::spawn(async move {
            let landed = Landed { judge: &judge, id };
            let said = judge.fly(&token, id, &memory).await;
            drop(landed);
            let _ = lands.send(Some(said));
        });
        Some(landing)
    }

    /// One question, and what is remembered of its answer.
    async fn fly(&self, token: &str, id: RecordId, memory: &AnswerMemory) -> Said {
        let introspector = &*self.introspector;
        let settings = &introspector.settings;
        let asked = Instant::now();
        let answer = tokio::time::timeout(settings.timeout, introspector.question(token)).await;
        let answer = answer.unwrap_or_else(|_| Err("no whole answer in time".to_owned()));
        introspector.tell(&self.rules.name, answer.as_ref().err());
        let Ok(body) = answer else { return Err(None) };
        let now = unix_seconds(SystemTime::now());
        let (said, lives) = match self.judge(token, &body, now) {
            Ok(identity) => {
                let left = identity.expires_at.saturating_sub(now);
                let left = Duration::from_secs(u64::try_from(left).unwrap_or_default());
                (Ok(Arc::new(identity)), settings.cache.min(left))
            }
            Err(reason) => (Err(reason), settings.cache_refused),
        };
        // From when it was asked: what the server said may be as old as that.
        if let Some(until) = asked.checked_add(lives).filter(|_| !lives.is_zero()) {
            let verdict = said.clone();
            memory.insert(id, Answered { verdict, until, bytes: body.len() });
        }
        said.map_err(Some)
    }

    /// What the answer means (RFC 7662 §2.2): it is read as strictly as a token's claims are.
    fn judge(&self, token: &str, body: &[u8], now: i64) -> Result<Identity, Reason> {
        let (mut members, exact) = json::exact_object(body).map_err(|_| Reason::Claims)?;
        match members.remove("active") {
            Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => return Err(Reason::Inactive),
            _ => return Err(Reason::Claim("active")),
        }
        for name in KINDS {
            if members.get(name).is_some_and(is_no_access_token) {
                return Err(Reason::Claim(name));
            }
        }
        claims::identity(&self.rules, members, exact, token, now)
    }
}

/// Whether an answer says so of a token that its server knows all the same. Only what names itself
/// as another kind is refused: servers have many words for access tokens.
fn is_no_access_token(kind: &Value) -> bool {
    let kind = kind.as_str().unwrap_or_default().to_ascii_lowercase();
    ["refresh", "offline"].iter().any(|other| kind.contains(other))
        || ["id", "id_token"].contains(&&*kind)
}

/// Takes a flight off the list, also where it ends early.
struct Landed<'j> {
    judge: &'j Judge,
    id: RecordId,
}

impl Drop for Landed<'_> {
    fn drop(&mut self) {
        lock(&self.judge.introspector.flights).remove(&self.id);
    }
}

impl Introspector {
    /// Asks, on a connection that is there or on a new one.
    async fn question(&self, token: &str) -> Result<Bytes, String> {
        let told = |error: net::Fault| error.to_string();
        let Ok(_permit) = self.permits.acquire().await else { return Err("closed".to_owned()) };
        let kept = lock(&self.idle).pop();
        if let Some(mut kept) = kept.filter(|kept| kept.opened.elapsed() < CONNECTION_AGE_MAX)
            && kept.connection.is_ready().await
            && let Ok(body) = self.exchange(&mut kept.connection, token).await
        {
            self.keep(kept);
            return body;
        }
        // One that was kept may have ended meanwhile. To ask twice changes nothing.
        let opened = Instant::now();
        let mut connection = self.connect().await.map_err(told)?;
        let body = self.exchange(&mut connection, token).await.map_err(told)?;
        self.keep(Kept { connection, opened });
        body
    }

    fn keep(&self, kept: Kept) {
        let mut idle = lock(&self.idle);
        if idle.len() < self.settings.in_flight {
            idle.push(kept);
        }
    }

    async fn connect(&self) -> Result<Connection, net::Fault> {
        let Introspect { url, authorities, .. } = &self.settings;
        let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
        let stream = stream.map_err(net::Fault::Connect)?;
        if url.tls {
            let stream = net::encrypt(stream, &url.host, authorities.clone()).await?;
            return Connection::over(stream, HEAD_BYTES_MAX).await;
        }
        Connection::over(stream, HEAD_BYTES_MAX).await
    }

    /// One exchange; within, why its answer is of no use.
    async fn exchange(
        &self,
        connection: &mut Connection,
        token: &str,
    ) -> Result<Result<Bytes, String>, net::Fault> {
        let form =
            format!("token={}&token_type_hint=access_token", percent::encode(token.as_bytes()));
        let request = Request::post(self.settings.url.target.as_str())
            .header(HOST, self.settings.url.authority())
            .header(AUTHORIZATION, self.credentials.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity")
            .header("user-agent", concat!("portcullis/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(form)))
            .map_err(|error| net::Fault::Broken(error.into()))?;
        let (head, body) = connection.send(request).await?.into_parts();
        let body = net::collect(body, self.settings.max_bytes).await?;
        if head.status != StatusCode::OK {
            return Ok(Err(format!("the server answered {}", head.status)));
        }
        if head.headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Ok(Err("the server answered in an encoding that was not asked for".to_owned()));
        }
        // What is no JSON is no answer: it may be the page of whoever stands before the server.
        match json::exact_object(&body) {
            Ok((members, _)) if members.get("active").is_some_and(Value::is_boolean) => {
                Ok(Ok(body))
            }
            _ => Ok(Err("the server's answer is not one of RFC 7662".to_owned())),
        }
    }

    /// Tells once that the server does not answer, and that it does again. No token is told.
    fn tell(&self, verifier: &str, failure: Option<&String>) {
        let was_failing = self.is_failing.swap(failure.is_some(), Ordering::Relaxed);
        let url = &self.settings.url;
        match failure {
            Some(why) if !was_failing => {
                tracing::warn!(%url, "auth.{verifier} cannot ask about tokens: {why}; requests \
                                      with tokens that are not remembered are answered with 503");
            }
            None if was_failing => {
                tracing::info!(%url, "auth.{verifier} can ask about tokens again")
            }
            _ => {}
        }
    }
}
