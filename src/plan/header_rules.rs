//! Rules for fields that would reach what is not theirs.

use http::HeaderName;

use crate::config::{Config, HeaderRules, Problems};
use crate::forwarding::rules;

/// Rules of `[server]` and of routes that touch what only the gateway may. `owned`: see
/// [`rules::forbidden_in_requests`].
pub(super) fn check(config: &Config, owned: &[String], problems: &mut Problems) {
    let in_requests = |name: &HeaderName| rules::forbidden_in_requests(owned, name);
    let server = &config.server;
    refuse(("server.request_headers", &server.request_headers), in_requests, problems);
    let in_responses = rules::forbidden_in_responses;
    refuse(("server.response_headers", &server.response_headers), in_responses, problems);
    for (name, route) in &config.routes {
        let path = format!("routes.{name}.request_headers");
        refuse((&path, &route.request_headers), in_requests, problems);
        let with_cors = |name: &HeaderName| {
            let is_of_cors = name.as_str().starts_with("access-control-allow-");
            let is_told = is_of_cors && route.cors.is_some();
            rules::forbidden_in_responses(name).or(is_told.then_some("is what `cors` says here"))
        };
        let path = format!("routes.{name}.response_headers");
        refuse((&path, &route.response_headers), with_cors, problems);
    }
}

fn refuse(
    (path, rules): (&str, &HeaderRules),
    why: impl Fn(&HeaderName) -> Option<&'static str>,
    problems: &mut Problems,
) {
    for (key, name) in rules.names() {
        if let Some(why) = why(name) {
            let what = format!("{:?} {why}", name.as_str());
            let remedy = match name.as_str() {
                "host" => "remove it; rewrite = { host = \"…\" } names another host",
                "via" => "remove it; server.via says it",
                _ => "remove it, or choose a name of your own",
            };
            problems.push(format!("{path}.{key}"), what, remedy.to_owned());
        }
    }
}
