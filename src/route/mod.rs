//! Which route a request takes. Matching knows nothing of what a route does: the table is generic
//! over that.
//!
//! The most specific route wins, whatever the order in the file: exact host, then the longest
//! wildcard, then any; a path without a `*`, then the longest; more literal segments; more methods
//! named.

mod pattern;

use std::collections::HashMap;

use http::Method;

pub use pattern::{HostPattern, PathPattern};

/// What one route matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    /// Which hosts.
    pub host: HostPattern,
    /// Which paths.
    pub path: PathPattern,
    /// Which methods; empty: the usual ones.
    pub methods: Vec<Method>,
}

impl Matcher {
    fn accepts(&self, method: &Method) -> bool {
        if self.methods.is_empty() {
            return is_usual(method);
        }
        // RFC 9110 §9.3.2: a HEAD asks for a GET's head.
        self.methods.contains(method)
            || (*method == Method::HEAD && self.methods.contains(&Method::GET))
    }

    /// Whether no request tells the two apart.
    pub fn is_ambiguous_with(&self, other: &Self) -> bool {
        let methods = match (self.methods.is_empty(), other.methods.is_empty()) {
            (true, true) => true,
            (false, false) => {
                self.methods.len() == other.methods.len()
                    && self.methods.iter().any(|method| other.methods.contains(method))
            }
            _ => false,
        };
        methods && self.host == other.host && self.path.has_same_shape(&other.path)
    }
}

/// Methods beyond the everyday ones that a route accepts which names none: those of the IANA
/// registry (RFC 9110 §16.1.1: WebDAV and its kin), and UPnP's. An upstream decides what it makes
/// of them; a method that nobody has defined passes only where a route names it.
const REGISTERED: [&str; 31] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "LABEL",
    "LINK",
    "LOCK",
    "M-SEARCH",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "ORDERPATCH",
    "PROPFIND",
    "PROPPATCH",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// The methods that a route accepts which names none: RFC 9110 §9.1 without CONNECT and TRACE, RFC
/// 5789, and [`REGISTERED`].
fn is_usual(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::PATCH
            | Method::DELETE
            | Method::OPTIONS
    ) || REGISTERED.binary_search(&method.as_str()).is_ok()
}

/// Why there is no route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// Nothing matches host and path.
    #[error("no route matches this host and path")]
    NotFound,
    /// Something matches, for other methods.
    #[error("the route does not accept this method")]
    MethodNotAllowed {
        /// For the `Allow` header, sorted.
        allow: String,
    },
}

/// All routes, most specific first, each with what it does.
#[derive(Debug)]
pub struct Table<P> {
    routes: Vec<(Matcher, P)>,
    /// Candidates by the literal first segment of the request's path, in order of specificity.
    by_segment: HashMap<String, Vec<usize>>,
    /// Candidates for all other first segments.
    rest: Vec<usize>,
}

impl<P> Table<P> {
    /// Sorts and indexes the routes.
    pub fn new(mut routes: Vec<(Matcher, P)>) -> Self {
        routes.sort_by(|(a, _), (b, _)| {
            (&b.host, &b.path, b.methods.len()).cmp(&(&a.host, &a.path, a.methods.len()))
        });
        let mut by_segment: HashMap<String, Vec<usize>> = HashMap::new();
        for (matcher, _) in &routes {
            if let Some(segment) = matcher.path.first_literal() {
                by_segment.entry(segment.to_owned()).or_default();
            }
        }
        let mut rest = Vec::new();
        for (index, (matcher, _)) in routes.iter().enumerate() {
            match matcher.path.first_literal() {
                Some(segment) => by_segment.entry(segment.to_owned()).or_default().push(index),
                None => {
                    rest.push(index);
                    by_segment.values_mut().for_each(|candidates| candidates.push(index));
                }
            }
        }
        Self { routes, by_segment, rest }
    }

    /// The most specific route for a request, without allocating.
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Result<&P, NoRoute> {
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        let candidates = self.by_segment.get(first).unwrap_or(&self.rest);
        let mut found_other_method = false;
        for &index in candidates {
            let (matcher, policy) = &self.routes[index];
            if matcher.host.matches(host) && matcher.path.matches(path) {
                if matcher.accepts(method) {
                    return Ok(policy);
                }
                found_other_method = true;
            }
        }
        if found_other_method {
            Err(NoRoute::MethodNotAllowed { allow: self.allow(candidates, host, path) })
        } else {
            Err(NoRoute::NotFound)
        }
    }

    /// What all routes do, most specific first.
    pub fn policies(&self) -> impl Iterator<Item = &P> {
        self.routes.iter().map(|(_, policy)| policy)
    }

    fn allow(&self, candidates: &[usize], host: &str, path: &str) -> String {
        let mut names: Vec<&str> = Vec::new();
        for &index in candidates {
            let (matcher, _) = &self.routes[index];
            if matcher.host.matches(host) && matcher.path.matches(path) {
                if matcher.methods.is_empty() {
                    names.extend(["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]);
                }
                names.extend(matcher.methods.iter().map(Method::as_str));
                if matcher.methods.contains(&Method::GET) {
                    names.push("HEAD");
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests;
