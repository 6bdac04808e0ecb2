//! Routes whose requests are sent as messages: their subjects, and what makes no sense with one.

use crate::config::{self, Config, Problems};
use crate::route::{Matcher, Subject};

/// The subject of a route over NATS; nothing where there is none, or something is wrong with it.
pub(super) fn subject(
    config: &Config,
    (written, matcher): (&config::Route, &Matcher),
    at: &impl Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<Subject> {
    let known = written.upstreams().filter_map(|name| config.upstreams.get_key_value(name));
    let (over_nats, over_http): (Vec<_>, Vec<_>) = known.partition(|(_, it)| it.nats.is_some());
    let copies = written.mirror.as_ref().and_then(|it| config.upstreams.get(&it.upstream));
    if copies.is_some_and(|copies| copies.nats.is_some()) {
        let remedy = "name an upstream with servers, or remove mirror".to_owned();
        problems.push(at("mirror.upstream"), "copies are not sent over NATS".to_owned(), remedy);
    }
    let Some(text) = &written.subject else {
        if let Some((name, _)) = over_nats.first() {
            let what = format!("is missing, and upstreams.{name} is reached over NATS");
            let remedy = "write subject = \"orders.get\", or \"orders.{id}\" with a {parameter} \
                          of the path";
            problems.push(at("subject"), what, remedy.to_owned());
        }
        return None;
    };
    if let Some((name, _)) = over_http.first() {
        let what = format!("is for messages, and upstreams.{name} is reached over HTTP");
        problems.push(at("subject"), what, "remove it, or name an upstream with nats".to_owned());
    }
    beside(written, at, problems);
    match Subject::parse(text, (&written.path, &matcher.path), matcher.reading) {
        Ok(subject) => Some(subject),
        Err(help) => {
            problems.push(at("subject"), format!("{text:?} is no subject"), help.to_owned());
            None
        }
    }
}

/// What is not done with a message.
fn beside(written: &config::Route, at: &impl Fn(&str) -> String, problems: &mut Problems) {
    for (key, is_written, why) in [
        ("upgrade", written.tunnel.is_some(), "a message opens no WebSocket"),
        ("grpc", written.grpc.is_some(), "a message is no call of gRPC"),
        ("rewrite", written.rewrite.is_some(), "a message has a subject in place of a path"),
        ("respond", written.respond.is_some(), "what the gateway answers itself is not sent"),
        ("mirror", written.mirror.is_some(), "messages are not copied"),
    ] {
        if is_written {
            let remedy = "remove it, or give it a route without a subject".to_owned();
            problems.push(at(key), why.to_owned(), remedy);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::tests::problems_of;

    const BASE: &str = "[upstreams.bus]\nnats = [\"nats://127.0.0.1:1\"]\n\
                        [upstreams.other]\nnats = [\"nats://127.0.0.1:2\"]\n\
                        [upstreams.shop]\nservers = [\"http://127.0.0.1:1\"]\n";

    /// The problems of a route, by their keys.
    fn problems(route: &str) -> Vec<String> {
        problems_of(&format!("{BASE}[routes.r]\npath = \"/r/{{id}}\"\n{route}"))
    }

    #[test]
    fn a_route_over_nats_has_a_subject_and_no_other_one_has() {
        const OVER: &str = "upstream = \"bus\"\nsubject = \"orders.{id}\"\n";
        let none: [&str; 0] = [];
        assert_eq!(problems(OVER), none);
        assert_eq!(problems("upstream = \"bus\""), ["routes.r.subject"]);
        assert_eq!(problems("upstream = \"shop\"\nsubject = \"a\""), ["routes.r.subject"]);
        assert_eq!(problems("upstream = \"bus\"\nsubject = \"a.{no}\""), ["routes.r.subject"]);
        let split = |other: &str| {
            format!(
                "split = [{{ upstream = \"bus\", weight = 1 }}, \
                 {{ upstream = \"{other}\", weight = 1 }}]\nsubject = \"a\""
            )
        };
        assert_eq!(problems(&split("other")), none);
        assert_eq!(problems(&split("shop")), ["routes.r.subject"]);
        for (key, line) in [
            ("upgrade", "upgrade = [\"websocket\"]"),
            ("grpc", "grpc = {}"),
            ("rewrite", "rewrite = { replace = \"/x\" }"),
            ("respond", "respond = { status = 503 }"),
            ("mirror", "mirror = { upstream = \"shop\" }"),
        ] {
            assert_eq!(problems(&format!("{OVER}{line}")), [format!("routes.r.{key}")], "{line}");
        }
        let copied = "upstream = \"shop\"\nmirror = { upstream = \"bus\" }";
        assert_eq!(problems(copied), ["routes.r.mirror.upstream"]);
    }
}
