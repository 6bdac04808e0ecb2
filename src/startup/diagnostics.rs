//! Diagnostics on stderr, as text or as one JSON object each.

use std::fmt::{self, Debug};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::metadata::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata};
use tracing_subscriber::Registry;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, Filter, Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{DiagnosticFormat, Level, Log};
use crate::observe::{self, AUDIT};

/// Diagnostics go to stderr; stdout belongs to the access log. Only the first call counts: a reload
/// cannot change them. Their level may be another one for a time (`PUT /v1/log`).
pub fn init(log: &Log) {
    observe::configure_level(log.level);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let registry = tracing_subscriber::registry();
    let _ = match log.format {
        DiagnosticFormat::Text => {
            registry.with(lines.with_target(false).with_filter(Wanted)).try_init()
        }
        DiagnosticFormat::Json => {
            registry.with(lines.event_format(Json).with_filter(Wanted)).try_init()
        }
    };
}

/// What the lines of the client of NATS have as the begin of their target.
const NATS_CLIENT: &str = "async_nats";

/// The lines that are written. Whoever changes the level has this asked again about all of them.
struct Wanted;

impl<S> Filter<S> for Wanted {
    fn enabled(&self, line: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        is_told(*line.level(), line.target(), wanted())
    }

    fn callsite_enabled(&self, line: &'static Metadata<'static>) -> Interest {
        if is_told(*line.level(), line.target(), wanted()) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // What operators do is told at this level, and nothing beyond it is looked at in vain.
        Some(wanted().max(tracing::Level::INFO).into())
    }
}

/// From which level on lines are written.
fn wanted() -> tracing::Level {
    match observe::level().level {
        Level::Error => tracing::Level::ERROR,
        Level::Warn => tracing::Level::WARN,
        Level::Info => tracing::Level::INFO,
        Level::Debug => tracing::Level::DEBUG,
    }
}

/// Whether a line of this level and target is written. What operators do is, always. What the
/// client of NATS says of its connections is said by `upstream::nats` for operators.
fn is_told(line: tracing::Level, target: &str, level: tracing::Level) -> bool {
    let is_detail = target.starts_with(NATS_CLIENT) && level < tracing::Level::DEBUG;
    line <= level && !is_detail || target == AUDIT
}

/// One JSON object for each: `time`, `level`, `message`, and its own fields behind them.
struct Json;

impl<N: for<'w> FormatFields<'w> + 'static> FormatEvent<Registry, N> for Json {
    fn format_event(
        &self,
        _: &FmtContext<'_, Registry, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut members = Members::default();
        event.record(&mut members);
        let time = format!("{:.6}", jiff::Timestamp::now());
        let level = event.metadata().level().as_str();
        write!(writer, "{{\"time\":\"{time}\",\"level\":\"{level}\"")?;
        write!(writer, ",\"message\":{}", Value::from(members.message))?;
        for (name, value) in members.others {
            write!(writer, ",{}:{value}", Value::from(name))?;
        }
        writer.write_str("}\n")
    }
}

/// What an event says.
#[derive(Default)]
struct Members {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Members {
    fn add(&mut self, field: &Field, value: Value) {
        self.others.push((field.name(), value));
    }
}

impl Visit for Members {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.add(field, text.into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.add(field, value.into());
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing::Level;

    use super::*;

    #[test]
    fn the_audit_does_not_depend_on_the_level() {
        for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG] {
            assert!(is_told(Level::INFO, AUDIT, level));
        }
        assert!(!is_told(Level::INFO, "portcullis::cli", Level::ERROR));
        assert!(is_told(Level::ERROR, "portcullis::cli", Level::ERROR));
    }

    /// What was written.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_of_json_whatever_it_says() {
        let written = Written::default();
        let writer = written.clone();
        let lines =
            tracing_subscriber::fmt::layer().event_format(Json).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            let path = "/\"\n";
            tracing::warn!(count = 3, share = 0.5, is_slow = true, %path, "it is {path}");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let mut told: Value = serde_json::from_str(&text).unwrap();
        let time = told["time"].take();
        assert!(time.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{text}");
        let expected = serde_json::json!({
            "time": null, "level": "WARN", "message": "it is /\"\n",
            "count": 3, "share": 0.5, "is_slow": true, "path": "/\"\n",
        });
        assert_eq!(told, expected);
    }
}
