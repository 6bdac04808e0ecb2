//! How a line is written: JSON in our names or in those of the Elastic Common Schema, or one of the
//! two formats of web servers. Whatever a client sends, a line stays one line.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::line::Line;
use crate::config::AccessFormat;

/// Version of the Elastic Common Schema whose names these are.
const ECS_VERSION: &str = "8.17.0";
/// Our names and theirs. Those that have none there stand under `portcullis.`.
const ECS: [(&str, &str); 16] = [
    ("bytes", "http.response.body.bytes"),
    ("bytes_in", "http.request.body.bytes"),
    ("client", "source.ip"),
    ("error", "error.message"),
    ("host", "url.domain"),
    ("method", "http.request.method"),
    ("path", "url.path"),
    ("protocol", "http.version"),
    ("query", "url.query"),
    ("reason", "error.code"),
    ("request_id", "http.request.id"),
    ("span_id", "span.id"),
    ("status", "http.response.status_code"),
    ("subject", "user.id"),
    ("time", "@timestamp"),
    ("trace_id", "trace.id"),
];

/// The line without its end; nothing where there is to be none.
pub(super) fn format(line: &Line<'_>, format: AccessFormat) -> Option<Vec<u8>> {
    match format {
        AccessFormat::Json => serde_json::to_vec(line).ok(),
        AccessFormat::Ecs => ecs(line),
        AccessFormat::Common => Some(common(line).into_bytes()),
        AccessFormat::Combined => {
            let mut text = common(line);
            for field in [line.referer, line.user_agent] {
                let _ = write!(text, " \"{}\"", Escaped(field.unwrap_or("-"), &['"', '\\']));
            }
            Some(text.into_bytes())
        }
        AccessFormat::Off => None,
    }
}

/// A line of JSON in the names of the Elastic Common Schema.
fn ecs(line: &Line<'_>) -> Option<Vec<u8>> {
    let Value::Object(ours) = serde_json::to_value(line).ok()? else { return None };
    let mut theirs = Map::new();
    theirs.insert("ecs.version".to_owned(), ECS_VERSION.into());
    theirs.insert("event.dataset".to_owned(), "portcullis.access".into());
    theirs.insert("event.duration".to_owned(), nanoseconds(line.duration_ms).into());
    for (name, value) in ours {
        let known = ECS.iter().find(|(our, _)| *our == name).map(|(_, their)| *their);
        match (&*name, known) {
            ("duration_ms", _) => {}
            ("protocol", Some(their)) => {
                theirs.insert(their.to_owned(), version(line.protocol).into());
            }
            ("user_agent", _) => {
                theirs.insert("user_agent.original".to_owned(), value);
            }
            (_, Some(their)) => {
                theirs.insert(their.to_owned(), value);
            }
            (_, None) => {
                theirs.insert(format!("portcullis.{name}"), value);
            }
        }
    }
    serde_json::to_vec(&theirs).ok()
}

fn nanoseconds(ms: f64) -> u64 {
    (ms * 1e6).round() as u64
}

/// `HTTP/1.1`, without its first word.
fn version(protocol: Option<&str>) -> &'static str {
    match protocol {
        Some("h2") => "2.0",
        Some("http/1.0") => "1.0",
        _ => "1.1",
    }
}

/// `client - subject [time] "request" status bytes`
fn common(line: &Line<'_>) -> String {
    let mut text = String::with_capacity(192);
    // It has no quotes around it, so a space would end it.
    let subject = Escaped(line.subject.as_deref().unwrap_or("-"), &[' ', '"', '\\']);
    let time = line.time.strftime("%d/%b/%Y:%H:%M:%S +0000");
    let _ = write!(text, "{} - {subject} [{time}] \"", line.client);
    if line.method == "-" {
        text.push('-');
    } else {
        let _ = write!(text, "{} {}", line.method, Escaped(line.path, &['"', '\\']));
        if let Some(query) = &line.query {
            let _ = write!(text, "?{}", Escaped(query, &['"', '\\']));
        }
        let _ = write!(text, " HTTP/{}", version(line.protocol));
    }
    let _ = write!(text, "\" {} ", line.status);
    match line.bytes {
        0 => text.push('-'),
        bytes => {
            let _ = write!(text, "{bytes}");
        }
    }
    text
}

/// Text of which these characters, and all that are not visible ASCII, stand as `\xHH`.
struct Escaped<'t>(&'t str, &'static [char]);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            if (c == ' ' || c.is_ascii_graphic()) && !self.1.contains(&c) {
                f.write_char(c)?;
            } else {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    write!(f, "\\x{byte:02X}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &Line<'_>, wanted: AccessFormat) -> String {
        String::from_utf8(format(line, wanted).unwrap()).unwrap()
    }

    fn line<'a>(headers: &'a [(http::HeaderName, String)]) -> Line<'a> {
        Line {
            time: "2026-11-30T09:12:40.1234Z".parse().unwrap(),
            request_id: "r1",
            trace_id: "4bf9",
            client: "192.0.2.1".to_owned(),
            method: "GET",
            host: "shop.test",
            path: "/products/1",
            query: Some("page=2".to_owned()),
            protocol: Some("http/1.1"),
            route: "products",
            status: 200,
            subject: Some("a b\"\n\u{202e}".into()),
            limits: "pass",
            bytes: 5,
            duration_ms: 1.25,
            upstream_ms: Some(1.0),
            slow: true,
            user_agent: Some("curl \"8\"\\\n\u{e9}"),
            referer: Some("http://a.test/\""),
            headers,
            ..Line::default()
        }
    }

    #[test]
    fn json_has_our_names() {
        let headers = [(http::HeaderName::from_static("x-tenant"), "a\nb".to_owned())];
        assert_eq!(
            text(&line(&headers), AccessFormat::Json),
            r#"{"time":"2026-11-30T09:12:40.123Z","request_id":"r1","trace_id":"4bf9","#.to_owned()
                + r#""client":"192.0.2.1","method":"GET","host":"shop.test","#
                + r#""path":"/products/1","query":"page=2","protocol":"http/1.1","#
                + r#""route":"products","status":200,"subject":"a b\"\n"#
                + "\u{202e}"
                + r#"","limits":"pass","bytes":5,"duration_ms":1.25,"upstream_ms":1.0,"#
                + r#""slow":true,"user_agent":"curl \"8\"\\\n"#
                + "\u{e9}"
                + r#"","headers":{"x-tenant":"a\nb"}}"#
        );
    }

    #[test]
    fn ecs_has_the_schemas_names_and_ours_below_one_of_them() {
        let told: Value = serde_json::from_str(&text(&line(&[]), AccessFormat::Ecs)).unwrap();
        let expected = serde_json::json!({
            "@timestamp": "2026-11-30T09:12:40.123Z",
            "ecs.version": "8.17.0",
            "event.dataset": "portcullis.access",
            "event.duration": 1_250_000,
            "http.request.id": "r1",
            "http.request.method": "GET",
            "http.response.body.bytes": 5,
            "http.response.status_code": 200,
            "http.version": "1.1",
            "portcullis.limits": "pass",
            "portcullis.route": "products",
            "portcullis.slow": true,
            "portcullis.upstream_ms": 1.0,
            "source.ip": "192.0.2.1",
            "trace.id": "4bf9",
            "url.domain": "shop.test",
            "url.path": "/products/1",
            "url.query": "page=2",
            "user.id": "a b\"\n\u{202e}",
            "user_agent.original": "curl \"8\"\\\n\u{e9}",
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn web_servers_formats_stay_in_their_columns() {
        let common = "192.0.2.1 - a\\x20b\\x22\\x0A\\xE2\\x80\\xAE [30/Nov/2026:09:12:40 +0000] \
                      \"GET /products/1?page=2 HTTP/1.1\" 200 5";
        assert_eq!(text(&line(&[]), AccessFormat::Common), common);
        let more = r#" "http://a.test/\x22" "curl \x228\x22\x5C\x0A\xC3\xA9""#;
        assert_eq!(text(&line(&[]), AccessFormat::Combined), common.to_owned() + more);
        let nothing = Line {
            time: jiff::Timestamp::UNIX_EPOCH,
            client: "::1".to_owned(),
            method: "-",
            status: 400,
            ..Line::default()
        };
        let nothing = text(&nothing, AccessFormat::Combined);
        assert_eq!(nothing, r#"::1 - - [01/Jan/1970:00:00:00 +0000] "-" 400 - "-" "-""#);
    }
}
