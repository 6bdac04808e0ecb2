//! `[telemetry.traces]`: which requests are traced, and where their spans go.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};
use toml::de::DeValue;

use super::field::Field;
use super::jwks::{self, KeysUrl};
use super::reader::Section;
use super::value::{
    Mistake, Read, check_text, choice, duration, echo, header_name, no_credentials, share, string,
};
use crate::base::http::fields::{is_framing, is_of_connection};
use crate::base::units::Secret;

/// The port on which collectors of this machine listen.
const PORT: u16 = 4318;
/// What names the collector for all programs of a machine.
const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// What asks all programs of a machine to compress what they export.
const COMPRESSION_VARIABLES: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_COMPRESSION", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION"];
/// The path that takes traces, below the endpoint (OTLP/HTTP).
const PATH: &str = "/v1/traces";
/// Five in a hundred traces.
const SAMPLE: u16 = 500;
/// Traces of failed and slow requests, each second.
const ERRORS: u32 = 10;
/// Most of them that may be asked for.
const ERRORS_MAX: u32 = 10_000;

/// `[telemetry.traces]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// Where spans are sent, with its path.
    pub endpoint: KeysUrl,
    /// Whether the environment names it, and not the file.
    pub is_from_environment: bool,
    /// Fields of each request to it.
    pub headers: Vec<(HeaderName, Secret)>,
    /// How many of the traces that begin here are recorded, in ten-thousandths.
    pub sample: u16,
    /// Whose trace a request may go on with.
    pub trust_parent: TrustParent,
    /// How many failed or slow requests are recorded each second beyond these.
    pub errors: u32,
    /// What takes so long is slow.
    pub slow: Duration,
    /// What is said of this gateway.
    pub resource: Vec<(String, String)>,
}

/// Whose `traceparent` is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustParent {
    /// That of `server.trusted_proxies`.
    TrustedProxies,
    /// Nobody's.
    Never,
    /// Everybody's.
    Always,
}

/// Reads `[telemetry]`.
pub(super) fn read(telemetry: &mut Section<'_>) -> Option<Traces> {
    if !cfg!(feature = "otlp") && telemetry.has("traces") {
        let what = "is not part of this build, which has no exporter of spans";
        telemetry.problem("traces", what, "remove it, or build with the feature otlp");
    }
    telemetry.optional("traces", traces)
}

fn traces(traces: &mut Section<'_>) -> Traces {
    let trust = [
        ("trusted_proxies", TrustParent::TrustedProxies),
        ("never", TrustParent::Never),
        ("always", TrustParent::Always),
    ];
    let (endpoint, is_from_environment) = endpoint(traces);
    let headers = traces.map("headers", field_name, field_value).into_iter();
    let headers: Vec<_> = headers
        .filter_map(|(name, value)| Some((HeaderName::try_from(name).ok()?, value)))
        .collect();
    check_headers(traces, &endpoint, &headers);
    for variable in COMPRESSION_VARIABLES {
        if traces.variable(variable).is_some_and(|it| !it.is_empty()) {
            let what = format!("{variable} is set, and spans are sent as they are");
            traces.problem("endpoint", what, format!("unset {variable} for the gateway"));
        }
    }
    let named = |text: &str| check_text(text).map(|()| text.to_owned());
    Traces {
        endpoint,
        is_from_environment,
        headers,
        sample: traces.or("sample", SAMPLE, share),
        trust_parent: traces.or("trust_parent", TrustParent::TrustedProxies, choice(&trust)),
        errors: traces.or("errors", ERRORS, per_second),
        slow: traces.or("slow", Duration::from_secs(1), duration),
        resource: traces
            .map("resource", named, |field| field.read_env(super::value::text))
            .into_iter()
            .collect(),
    }
}

/// What the file says, or else what the environment does, which is meant for all programs.
fn endpoint(traces: &mut Section<'_>) -> (KeysUrl, bool) {
    let (host, target) = ("127.0.0.1".to_owned(), PATH.to_owned());
    let ours = KeysUrl { tls: false, host, port: PORT, target };
    let is_written = traces.has("endpoint");
    let written = traces.or_env("endpoint", ours, collector);
    let variable = traces.variable(ENDPOINT_VARIABLE).filter(|it| !it.is_empty() && !is_written);
    match variable.map(|text| collector(&DeValue::String(text.into()))) {
        None => (written, false),
        Some(Ok(url)) => (url, true),
        Some(Err(mistake)) => {
            let what = format!("{ENDPOINT_VARIABLE} in the environment {}", mistake.what);
            traces.problem("endpoint", what, mistake.remedy);
            (written, true)
        }
    }
}

/// The base of a collector's paths.
fn collector(value: &DeValue<'_>) -> Read<KeysUrl> {
    const EXAMPLE: &str = "write one like \"http://127.0.0.1:4318\"";
    let text = string(value, "it in quotes, such as \"http://127.0.0.1:4318\"")?;
    no_credentials(text).map_err(|mistake| {
        Mistake::new(mistake.what, "send credentials by telemetry.traces.headers")
    })?;
    let url = jwks::url(text).filter(|url| !url.target.contains('?'));
    // It may have a secret in any part, so it is not told.
    let url = url.ok_or_else(|| Mistake::new("is not the URL of a collector", EXAMPLE))?;
    Ok(below(url))
}

fn below(url: KeysUrl) -> KeysUrl {
    let target = format!("{}{PATH}", url.target.trim_end_matches('/'));
    KeysUrl { target, ..url }
}

/// The name of a field that the exporter does not set itself.
fn field_name(text: &str) -> Read<String> {
    let name = header_name(text)?;
    let name = name.as_str();
    if is_framing(name) || is_of_connection(name) || name == CONTENT_TYPE {
        return Err(Mistake::new("is a field that the exporter sets", "remove it"));
    }
    Ok(name.to_owned())
}

fn field_value(field: &Field<'_>) -> Option<Secret> {
    let secret = field.secret()?;
    if HeaderValue::from_bytes(secret.expose()).is_ok() {
        return Some(secret);
    }
    field.read(|_| Err(Mistake::new("is no value of a field", "write visible characters")))
}

/// What is sent beside spans opens the collector.
fn check_headers(traces: &Section<'_>, endpoint: &KeysUrl, headers: &[(HeaderName, Secret)]) {
    if !(headers.is_empty() || endpoint.tls || jwks::is_private(&endpoint.host)) {
        let what = "would be sent in clear, and whoever is on the way could read them";
        traces.problem("headers", what, "write endpoint = \"https://…\"");
    }
}

/// `10/s`.
fn per_second(value: &DeValue<'_>) -> Read<u32> {
    let example = format!("a number from 0 to {ERRORS_MAX} and `/s`, such as \"10/s\"");
    let text = string(value, &example)?;
    let digits = text.strip_suffix("/s").filter(|it| it.bytes().all(|b| b.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok());
    number.filter(|number| *number <= ERRORS_MAX).ok_or_else(|| {
        let what = format!("{} is not a number of traces per second", echo(text));
        Mistake::new(what, format!("write {example}"))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    fn read(text: &str, env: &dyn Fn(&str) -> Option<String>) -> (Traces, String) {
        let loaded = config::parse("t.toml", Path::new(""), text, env).unwrap();
        let report = loaded.source.render(&loaded.problems);
        (loaded.config.traces.unwrap(), report)
    }

    #[test]
    fn the_environment_names_a_collector_where_the_file_does_not() {
        let of_environment = |value: &'static str| {
            move |name: &str| (name == ENDPOINT_VARIABLE).then(|| value.to_owned())
        };
        let (empty, written) = ("[telemetry.traces]", "[telemetry.traces]\nendpoint = 'http://b'");
        for (text, value, url, is_from_environment) in [
            (empty, "", "http://127.0.0.1:4318/v1/traces", false),
            (empty, "https://c:1/base/", "https://c:1/base/v1/traces", true),
            (written, "https://c:1/base/", "http://b/v1/traces", false),
        ] {
            let (traces, report) = read(text, &of_environment(value));
            let told = (traces.endpoint.to_string(), traces.is_from_environment);
            assert_eq!(told, (url.to_owned(), is_from_environment), "{report}");
            assert!(report.starts_with("0 problems"), "{report}");
        }
        let (_, report) = read(empty, &of_environment("c:1"));
        assert!(report.contains("in the environment is not the URL"), "{report}");
    }

    #[test]
    fn nothing_secret_is_sent_in_clear_and_nothing_is_compressed() {
        let headers = "headers = { authorization = 'Bearer x' }";
        for (host, is_refused) in
            [("http://127.0.0.1", false), ("http://otel", false), ("http://c.example", true)]
        {
            let text = format!("[telemetry.traces]\nendpoint = '{host}'\n{headers}");
            let (_, report) = read(&text, &|_| None);
            assert_eq!(report.contains("in clear"), is_refused, "{report}");
        }
        let (_, report) = read("[telemetry.traces]", &|name| {
            COMPRESSION_VARIABLES.contains(&name).then(|| "gzip".to_owned())
        });
        assert!(report.contains("is set, and spans are sent as they are"), "{report}");
    }
}
