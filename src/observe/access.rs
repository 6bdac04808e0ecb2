//! The access log: one JSON object per line on stdout, written by a thread of its own.
//!
//! A request never waits for the writer. When the writer is `LINES_MAX` lines behind (a full disk,
//! a blocked pipe), lines are dropped and counted.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use prometheus_client::metrics::counter::Counter;
use serde::Serialize;

/// Most lines that wait for the writer.
const LINES_MAX: usize = 8192;
/// Bytes collected before one write.
const WRITE_BYTES: usize = 64 * 1024;

/// One line. Field names are a contract with whoever reads the log.
#[derive(Debug, Default, Serialize)]
pub struct Line<'a> {
    /// RFC 3339, UTC, when the request head was there.
    pub time: String,
    /// `X-Request-Id`
    pub request_id: &'a str,
    /// Trace id of `traceparent`
    pub trace_id: &'a str,
    /// The client's address.
    pub client: String,
    /// Method.
    pub method: &'a str,
    /// Host, canonical.
    pub host: &'a str,
    /// Path, canonical, without the query: a query may hold secrets.
    pub path: &'a str,
    /// Route, or `-`.
    pub route: &'a str,
    /// Status sent; 499 when the client left before there was one.
    pub status: u16,
    /// Status of a gRPC call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u16>,
    /// Stable code of a refusal, or of how the body ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// What exactly was wrong with the credentials, in one stable word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'static str>,
    /// The claim that was missing or wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<&'a str>,
    /// What would have been accepted there, as the configuration says it.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub wanted: &'a [String],
    /// The key of `gateway.toml` that says where the bound is that was met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound: Option<&'a str>,
    /// Internal detail of a failure; never sent to clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
    /// Subject of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<&'a str>,
    /// `pass`, `shadow`, `mark`, `refused`, `denied-locally`, `local` or `off`.
    pub limits: &'static str,
    /// The limit that refused the request, by its name in `[limits]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<&'a str>,
    /// Its window as the store's key names it (`15m`), or `in-flight`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_window: Option<&'a str>,
    /// Whose counter it is, as `portcullis limits --key` takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_key: Option<&'a str>,
    /// Seconds that the client was told to wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// Cache verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<&'static str>,
    /// The upstream that was asked, or would have been.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<&'a str>,
    /// Of a split route, the upstream whose share the request is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arm: Option<&'a str>,
    /// Who of an upstream with readers has answered: `readers`, or why its servers have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<&'static str>,
    /// The server that was asked last, where requests may be sent more than once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// How often the request was sent, if that was more than once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Why it was sent once more, the last time, in one stable word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<&'static str>,
    /// Functions that did without the store.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub degraded: &'a [&'static str],
    /// Body bytes sent.
    pub bytes: u64,
    /// The coding in which the gateway sent them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<&'static str>,
    /// Bytes that came through a tunnel from its client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<u64>,
    /// Messages that went through a tunnel, in both directions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<u64>,
    /// Why a tunnel has ended, in one stable word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel_end: Option<&'static str>,
    /// Milliseconds to the last byte.
    pub duration_ms: f64,
    /// Milliseconds waited for the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_ms: Option<f64>,
    /// Milliseconds to the upstream's head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ms: Option<f64>,
}

/// What the writer is told.
#[derive(Debug)]
enum Message {
    /// Write this.
    Line(Vec<u8>),
    /// Say when everything before this is written.
    Flush(SyncSender<()>),
}

/// Where lines go.
#[derive(Debug)]
pub struct AccessLog {
    lines: Option<SyncSender<Message>>,
    dropped: Counter,
}

impl AccessLog {
    /// No lines.
    pub fn off() -> Self {
        Self { lines: None, dropped: Counter::default() }
    }

    /// Lines to stdout.
    pub fn stdout(dropped: Counter) -> Self {
        let (lines, receiver) = sync_channel(LINES_MAX);
        let writer = std::thread::Builder::new().name("access-log".to_owned());
        match writer.spawn(move || write_lines(&receiver, std::io::stdout())) {
            Ok(_) => Self { lines: Some(lines), dropped },
            Err(error) => {
                tracing::error!(%error, "the access log has no thread; no lines will be written");
                Self { lines: None, dropped }
            }
        }
    }

    /// Whether lines are written at all.
    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Hands a line to the writer.
    pub fn write(&self, line: &Line<'_>) {
        let Some(lines) = &self.lines else { return };
        let Ok(mut text) = serde_json::to_vec(line) else { return };
        text.push(b'\n');
        if lines.try_send(Message::Line(text)).is_err() {
            self.dropped.inc();
        }
    }
}

impl AccessLog {
    /// Waits until the lines so far are written, for `limit` at most.
    pub fn flush(&self, limit: std::time::Duration) {
        let Some(lines) = &self.lines else { return };
        let (written, wait) = sync_channel(1);
        if lines.try_send(Message::Flush(written)).is_ok() {
            // A writer that is stuck on a blocked pipe must not keep the process alive.
            let _ = wait.recv_timeout(limit);
        }
    }
}

/// Writes until the last sender is gone. Waiting lines are written together.
fn write_lines(messages: &Receiver<Message>, mut out: impl Write) {
    let mut buffer = Vec::with_capacity(WRITE_BYTES);
    let mut flushes = Vec::new();
    while let Ok(message) = messages.recv() {
        let mut next = Some(message);
        while let Some(message) = next.take() {
            match message {
                Message::Line(line) => buffer.extend_from_slice(&line),
                Message::Flush(written) => flushes.push(written),
            }
            if buffer.len() < WRITE_BYTES {
                next = messages.try_recv().ok();
            }
        }
        // A closed stdout must not stop the gateway; the lines are lost as they would be on a full
        // disk.
        let _ = out.write_all(&buffer).and_then(|()| out.flush());
        buffer.clear();
        for written in flushes.drain(..) {
            let _ = written.send(());
        }
    }
}
