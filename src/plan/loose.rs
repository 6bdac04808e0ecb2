//! Protected paths that an upstream might read in more spellings than the gateway does: the others
//! fall to whatever route takes them.
//!
//! The routes are asked themselves: for each protected one, its path is written as a looser
//! upstream would still read it, and where that falls to a route which protects less, somebody
//! should know.

use std::collections::BTreeSet;

use http::Method;

use crate::base::http::path::Reading;
use crate::config::{self, Config, Over, Problems, SessionUse};
use crate::route::{HostPattern, Matcher, PathPattern, Table};

/// What nobody would name a resource.
const BELOW: &str = "any";

/// The looser readings, in the words of `paths`.
const READINGS: [&str; 3] = ["any-case", "trailing-slash", "parameters"];

/// Says where a looser reading of a protected path would fall to a less protected route of the same
/// upstream, unless `paths` says that it is read so.
pub(super) fn paths(config: &Config, warnings: &mut Problems) {
    let routes = config.routes.iter().filter_map(|(name, route)| {
        let matcher = matcher(config, route)?;
        Some((matcher, (name.as_str(), route)))
    });
    let routes: Vec<_> = routes.collect();
    let table = Table::new(routes.clone());
    for (matcher, (name, route)) in &routes {
        if is_protected(config, route) {
            around(config, &table, matcher, (name, route), warnings);
        }
    }
}

type Named<'a> = (&'a str, &'a config::Route);

fn matcher(config: &Config, route: &config::Route) -> Option<Matcher> {
    let host = match &route.host {
        None => HostPattern::Any,
        Some(text) => HostPattern::parse(text).ok()?,
    };
    let path = PathPattern::parse(&route.path).ok()?;
    let reading = config.upstreams.get(&route.upstream)?.paths;
    Some(Matcher { host, path, methods: route.methods.clone(), reading })
}

/// Reports the ways around one protected route: one warning, with the first way in each spelling.
fn around(
    config: &Config,
    table: &Table<Named<'_>>,
    matcher: &Matcher,
    (name, route): Named<'_>,
    warnings: &mut Problems,
) {
    let host = host_of(route);
    let find = |path: &str, method: &Method| table.find(&host, path, method).ok();
    let methods = methods_of(route);
    let (mut ways, mut falls, mut missing) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for below in ["", BELOW] {
        let path = matcher.path.example(below);
        for (reading, spelling) in spellings(&path, matcher.reading) {
            let way = methods.iter().find_map(|method| {
                let itself = find(&path, method).is_some_and(|(taker, _)| *taker == name);
                let (taker, taking) = find(&spelling, method).filter(|_| itself)?;
                let lacks = lacks(config, route, taking);
                let same = share_servers(config, route, taking);
                (same && *taker != name).then_some((method, *taker)).zip(lacks)
            });
            if let Some(((method, taker), lacks)) = way {
                if missing.insert(reading) {
                    ways.push(format!("{method} http://{}{spelling}", shown_host(config, &host)));
                }
                falls.insert((taker, lacks));
            }
        }
    }
    if ways.is_empty() {
        return;
    }
    let falls: Vec<String> =
        falls.iter().map(|(taker, lacks)| format!("routes.{taker} ({lacks})")).collect();
    let upstream = &route.upstream;
    let what = format!(
        "other spellings of this path fall to {}, and an upstream that takes them for the same \
         would answer: {}",
        falls.join(" and "),
        ways.join(", "),
    );
    let declared = READINGS.iter().enumerate().filter(|(at, _)| {
        let reading = matcher.reading;
        missing.contains(at)
            || [reading.any_case, reading.trailing_slash, reading.parameters].get(*at)
                == Some(&true)
    });
    let declared: Vec<String> = declared.map(|(_, word)| format!("{word:?}")).collect();
    let remedy = format!(
        "unless {upstream} tells these apart, say so, and they are matched as it reads them: \
         upstreams.{upstream}.paths = [{}]; or protect what they fall to",
        declared.join(", "),
    );
    warnings.push(format!("routes.{name}.path"), what, remedy);
}

/// A host that reaches the route.
fn host_of(route: &config::Route) -> String {
    match &route.host {
        None => String::new(),
        Some(host) => match HostPattern::parse(host) {
            Ok(HostPattern::Exact(name)) => name,
            _ => host.replacen('*', BELOW, 1).trim_end_matches('.').to_ascii_lowercase(),
        },
    }
}

/// The host of an example that can be tried at once.
fn shown_host(config: &Config, host: &str) -> String {
    if !host.is_empty() {
        return host.to_owned();
    }
    match config.server.listen.first().map_or(80, |address| address.port()) {
        0 | 80 => "localhost".to_owned(),
        port => format!("localhost:{port}"),
    }
}

/// The methods for which the route is asked: what changes or reads something.
fn methods_of(route: &config::Route) -> Vec<Method> {
    if route.methods.is_empty() {
        vec![Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE]
    } else {
        route.methods.iter().filter(|method| **method != Method::OPTIONS).cloned().collect()
    }
}

/// Other spellings of a path, each with the index of the reading in which it is the same, of those
/// readings that `paths` does not name.
fn spellings(path: &str, reading: Reading) -> Vec<(usize, String)> {
    let mut spellings = Vec::new();
    if !reading.any_case {
        let first = path.find(|c: char| c.is_ascii_alphabetic());
        let mut capital = path.to_owned();
        if let Some(letter) = first.and_then(|at| capital.get_mut(at..=at)) {
            letter.make_ascii_uppercase();
        }
        spellings.extend([(0, path.to_ascii_uppercase()), (0, capital)]);
        // The digits of an escape are no letters of the path, and are upper-case already.
        if !path.contains('%') {
            spellings.push((0, path.to_ascii_lowercase()));
        }
    }
    if !reading.trailing_slash {
        let other = match path.strip_suffix('/') {
            Some(bare) if !bare.is_empty() => bare.to_owned(),
            Some(_) => path.to_owned(),
            None => format!("{path}/"),
        };
        spellings.push((1, other));
    }
    if !reading.parameters {
        spellings.push((2, format!("{path};x")));
        if let Some(at) = path.get(1..).and_then(|rest| rest.find('/')) {
            let (first, rest) = path.split_at(at + 1);
            spellings.push((2, format!("{first};x{rest}")));
        }
    }
    spellings.retain(|(_, spelling)| spelling != path);
    spellings
}

/// Whether two routes lead to the same servers, under whatever name.
fn share_servers(config: &Config, one: &config::Route, other: &config::Route) -> bool {
    let servers = |route: &config::Route| {
        let upstreams = route.upstreams().filter_map(|name| config.upstreams.get(name));
        let servers = upstreams.flat_map(|upstream| &upstream.servers);
        servers.map(|server| (server.host.clone(), server.port)).collect::<BTreeSet<_>>()
    };
    one.upstream == other.upstream || !servers(one).is_disjoint(&servers(other))
}

fn is_protected(config: &Config, route: &config::Route) -> bool {
    wants_caller(route)
        || route.session == SessionUse::Required
        || refusing_limits(config, route).next().is_some()
}

/// Whether nobody passes without a credential.
fn wants_caller(route: &config::Route) -> bool {
    route.auth.as_ref().is_some_and(|auth| !auth.optional)
}

/// The limits that refuse somebody.
fn refusing_limits<'a>(
    config: &'a Config,
    route: &'a config::Route,
) -> impl Iterator<Item = &'a String> {
    let refuses = |name: &&String| {
        config.limits.get(*name).is_some_and(|limit| matches!(limit.over, Over::Refuse))
    };
    route.limits.iter().filter(refuses)
}

/// What another route does not ask for although a protected one does; nothing where it asks for as
/// much, or for a caller where the protected one asks for none.
fn lacks(
    config: &Config,
    protected: &config::Route,
    other: &config::Route,
) -> Option<&'static str> {
    if wants_caller(other) && !wants_caller(protected) {
        return None;
    }
    if wants_caller(protected) && !wants_caller(other) {
        return Some("no auth");
    }
    let by = |route: &config::Route| route.auth.as_ref().map(|auth| auth.by.clone());
    let accepted = by(protected).unwrap_or_default();
    if wants_caller(protected)
        && by(other).unwrap_or_default().iter().any(|v| !accepted.contains(v))
    {
        return Some("other auth");
    }
    let demands = |(claim, values): (&String, &Vec<String>)| {
        let others = other.require.get(claim);
        others.is_some_and(|others| others.iter().all(|value| values.contains(value)))
    };
    let has_same_clauses = protected.clauses.is_empty() || protected.clauses == other.clauses;
    if !has_same_clauses || !protected.require.iter().all(demands) {
        return Some("other require");
    }
    if protected.session == SessionUse::Required && other.session != SessionUse::Required {
        return Some("no session required");
    }
    let limited = refusing_limits(config, protected).all(|name| other.limits.contains(name));
    (!limited).then_some("other limits")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The warnings for these routes, beside two verifiers, two limits and three upstreams.
    fn warned(routes: &[(&str, &str)], paths: &str) -> Vec<String> {
        let secret = "secret = \"0123456789abcdef0123456789abcdef\"\nalgorithms = [\"HS256\"]\n";
        let mut text = format!(
            "[auth.users]\n{secret}[auth.staff]\n{secret}[session]\nid_from = [\"cookie:sid\"]\n\
             [limits.login]\nkey = [\"address\"]\nallow = [\"5/1m\"]\n\
             [limits.shadow]\nkey = [\"address\"]\nallow = [\"5/1m\"]\nshadow = true\n\
             [upstreams.u]\nservers = [\"http://127.0.0.1:1\"]\npaths = [{paths}]\n\
             [upstreams.alias]\nservers = [\"http://127.0.0.1:1\"]\n\
             [upstreams.other]\nservers = [\"http://127.0.0.1:2\"]\n"
        );
        for (name, route) in routes {
            text += &format!("[routes.{name}]\n{route}\n");
            if !route.contains("upstream") {
                text += "upstream = \"u\"\n";
            }
        }
        let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
        assert!(loaded.problems.is_empty(), "{}", loaded.source.render(&loaded.problems));
        let mut warnings = Problems::default();
        super::paths(&loaded.config, &mut warnings);
        warnings.iter().map(|w| format!("{}: {} | {}", w.path, w.what, w.remedy)).collect()
    }

    const PUBLIC: (&str, &str) = ("all", "path = \"/*\"");
    const ME: (&str, &str) = ("me", "path = \"/me\"\nauth = \"users\"");

    #[test]
    fn a_protected_path_beside_a_public_rest_is_told() {
        let said = warned(&[ME, PUBLIC], "");
        assert_eq!(said.len(), 1, "{said:?}");
        for part in [
            "routes.me.path: ",
            "routes.all (no auth)",
            "GET http://localhost:8080/ME, GET http://localhost:8080/me/, ",
            "GET http://localhost:8080/me;x",
            "upstreams.u.paths = [\"any-case\", \"trailing-slash\", \"parameters\"]",
        ] {
            assert!(said[0].contains(part), "{part}: {}", said[0]);
        }
        let said = warned(&[ME, PUBLIC], "\"any-case\", \"parameters\"");
        assert!(said[0].contains("answer: GET http://localhost:8080/me/ |"), "{said:?}");
        assert!(said[0].contains("[\"any-case\", \"trailing-slash\", \"parameters\"]"), "{said:?}");
        assert_eq!(
            warned(&[ME, PUBLIC], "\"any-case\", \"trailing-slash\", \"parameters\""),
            [""; 0]
        );
        // An open pattern covers the slash.
        let below = ("me", "path = \"/me/*\"\nauth = \"users\"");
        assert_eq!(warned(&[below, PUBLIC], "\"any-case\", \"parameters\""), [""; 0]);
        assert!(warned(&[below, PUBLIC], "\"any-case\"")[0].contains("/me;x"));
    }

    #[test]
    fn less_protected_is_less_of_anything() {
        let me = |more: &str| format!("path = \"/me\"\n{more}");
        let all = |more: &str| format!("path = \"/*\"\n{more}");
        for (mine, theirs, expected) in [
            ("auth = \"users\"", "auth = { by = \"users\", optional = true }", "no auth"),
            ("auth = \"staff\"", "auth = \"users\"", "other auth"),
            ("auth = \"staff\"", "auth = [\"users\"]", "other auth"),
            ("auth = \"users\"\nrequire = { role = [\"a\"] }", "auth = \"users\"", "other require"),
            (
                "auth = \"users\"\nrequire = { role = [\"a\"] }",
                "auth = \"users\"\nrequire = { role = [\"a\", \"b\"] }",
                "other require",
            ),
            ("session = \"required\"", "session = true", "no session required"),
            ("limits = [\"login\"]", "", "other limits"),
            ("limits = [\"login\"]", "limits = [\"shadow\"]", "other limits"),
            ("limits = [\"shadow\"]", "", ""),
            ("limits = [\"login\"]", "auth = \"users\"", ""),
            ("limits = [\"login\"]", "limits = [\"login\"]", ""),
            ("auth = \"users\"", "auth = \"users\"", ""),
            (
                "auth = \"users\"\nrequire = { role = [\"a\", \"b\"] }",
                "auth = \"users\"\nrequire = { role = [\"a\"] }",
                "",
            ),
            ("auth = { by = \"users\", optional = true }", "", ""),
            ("", "auth = \"users\"", ""),
        ] {
            let said = warned(&[("me", &me(mine)), ("all", &all(theirs))], "");
            let about_me: Vec<_> = said.iter().filter(|w| w.starts_with("routes.me")).collect();
            match expected {
                "" => assert_eq!(said, [""; 0], "{mine} / {theirs}"),
                _ => assert!(about_me[0].contains(expected), "{mine} / {theirs}: {said:?}"),
            }
        }
    }

    #[test]
    fn only_where_the_same_servers_would_answer() {
        let away = ("all", "path = \"/*\"\nupstream = \"other\"");
        assert_eq!(warned(&[ME, away], ""), [""; 0]);
        let alias = ("all", "path = \"/*\"\nupstream = \"alias\"");
        assert_eq!(warned(&[ME, alias], "").len(), 1);
        assert_eq!(warned(&[ME], ""), [""; 0]);
        let elsewhere = ("all", "path = \"/*\"\nhost = \"www.test\"");
        assert_eq!(warned(&[ME, elsewhere], ""), [""; 0]);
        // The host of the example is one that reaches the route.
        let api = ("me", "path = \"/me\"\nhost = \"API.test.\"\nauth = \"users\"");
        assert!(warned(&[api, PUBLIC], "")[0].contains("GET http://api.test/ME"));
        let any = ("me", "path = \"/me\"\nhost = \"*.api.test\"\nauth = \"users\"");
        assert!(warned(&[any, PUBLIC], "")[0].contains("GET http://any.api.test/ME"));
    }

    #[test]
    fn methods_and_shapes_of_paths() {
        let write = ("me", "path = \"/me\"\nmethods = [\"POST\"]\nauth = \"users\"");
        assert!(warned(&[write, PUBLIC], "")[0].contains("POST http://localhost:8080/ME"));
        // What is public takes reads alone, and what is protected is a write.
        let reads = ("all", "path = \"/*\"\nmethods = [\"GET\", \"HEAD\"]");
        assert_eq!(warned(&[write, reads], ""), [""; 0]);
        let preflight = ("all", "path = \"/*\"\nmethods = [\"OPTIONS\"]");
        assert_eq!(warned(&[ME, preflight], ""), [""; 0]);
        for (path, expected) in [
            ("/a/{id}/b", "/A/1/B"),
            ("/a/{id}", "/a;x/1"),
            ("/a/", "http://localhost:8080/a,"),
            ("/ME", "http://localhost:8080/me,"),
            ("/", "http://localhost:8080/;x"),
            ("/1", "http://localhost:8080/1/"),
            ("/%C3%A9a", "http://localhost:8080/%C3%A9A,"),
        ] {
            let route = format!("path = \"{path}\"\nauth = \"users\"");
            let said = warned(&[("me", &route), PUBLIC], "");
            assert!(said[0].contains(expected), "{path}: {said:?}");
        }
        // A less protected path of its own, beside what is protected: its spellings find more.
        let login = ("login", "path = \"/login\"\nlimits = [\"login\"]");
        let rest = ("rest", "path = \"/*\"\nauth = \"users\"");
        assert_eq!(warned(&[login, rest], ""), [""; 0]);
        let public = ("public", "path = \"/public/*\"");
        assert_eq!(warned(&[public, rest], ""), [""; 0]);
    }
}
