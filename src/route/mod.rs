//! Which route a request takes. Matching knows nothing of what a route does: the table is generic
//! over that.
//!
//! The most specific route wins, whatever the order in the file: exact host, then the longest
//! wildcard, then any; a path without a `*`, then the longest; more literal segments; more methods
//! named. A path matches a route as its upstream reads paths: what that takes for one path is one
//! here, or a request could be authorised as one and answered as the other.

mod parameters;
mod pattern;
mod rewrite;
mod subject;
mod template;

use std::collections::HashMap;

use foldhash::fast::RandomState;
use http::Method;

pub use parameters::Parameters;
pub use pattern::{HostPattern, PathPattern};
pub use rewrite::{Location, Rewrite};
pub use subject::Subject;
pub use template::Template;

use crate::base::http::path::Reading;

/// What one route matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    /// Which hosts.
    pub host: HostPattern,
    /// Which paths.
    pub path: PathPattern,
    /// Which methods; empty: the usual ones.
    pub methods: Vec<Method>,
    /// How the upstream behind it reads paths.
    pub reading: Reading,
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

    /// Whether host and path match, as the upstream reads them: what it reads in another way is not
    /// what is written here, so `/;x/me` is `/me` and nothing else where parameters are taken away.
    fn covers(&self, host: &str, path: &str) -> bool {
        self.host.matches(host)
            && if self.reading.is_exact() {
                self.path.matches(path)
            } else {
                self.path.matches_as(self.reading, path)
            }
    }

    /// What orders two routes; greater is more specific.
    fn specificity(&self) -> impl Ord + use<'_> {
        (&self.host, self.path.specificity(self.reading))
    }

    /// Whether nothing but the literal texts of the paths orders the two.
    fn is_as_specific_as(&self, other: &Self) -> bool {
        self.host == other.host
            && self.path.is_as_specific_as(self.reading, &other.path, other.reading)
    }

    /// Whether no request tells the two apart. Routes that share an upstream must differ in its
    /// eyes: it would answer both alike.
    pub fn is_ambiguous_with(&self, other: &Self, share_upstream: bool) -> bool {
        let exact = Reading::default();
        let reading = if share_upstream { self.reading } else { exact };
        if self.host != other.host || !self.path.has_same_shape_as(&other.path, reading) {
            return false;
        }
        let common = || self.methods.iter().any(|method| other.methods.contains(method));
        if !self.path.has_same_shape_as(&other.path, exact) {
            // One of two spellings: more methods named do not make it the more specific one.
            return self.methods.is_empty() || other.methods.is_empty() || common();
        }
        self.methods.len() == other.methods.len() && (self.methods.is_empty() || common())
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
    by_segment: HashMap<String, Vec<usize>, RandomState>,
    /// Candidates for all other first segments.
    rest: Vec<usize>,
    /// All of them, where some route's upstream reads paths loosely: the first segment decides
    /// nothing then.
    loose: Option<Vec<usize>>,
}

impl<P> Table<P> {
    /// Sorts and indexes the routes.
    pub fn new(mut routes: Vec<(Matcher, P)>) -> Self {
        routes.sort_by(|(a, _), (b, _)| {
            let order = b.specificity().cmp(&a.specificity());
            // Alphabetical in the end, so that the order is total.
            let texts = || b.path.texts().cmp(a.path.texts());
            order.then_with(texts).then_with(|| b.methods.len().cmp(&a.methods.len()))
        });
        let mut by_segment: HashMap<String, Vec<usize>, RandomState> = HashMap::default();
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
        let is_loose = routes.iter().any(|(matcher, _)| !matcher.reading.is_exact());
        let loose = is_loose.then(|| (0..routes.len()).collect());
        Self { routes, by_segment, rest, loose }
    }

    /// The most specific route for a request, without allocating. Among routes that are equally
    /// specific, one whose path is written like the request's comes before one whose upstream
    /// merely reads it so.
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Result<&P, NoRoute> {
        let candidates = self.candidates(path);
        let mut found_other_method = false;
        let mut read: Option<&(Matcher, P)> = None;
        for &index in candidates {
            let candidate @ (matcher, policy) = &self.routes[index];
            if read.is_some_and(|(read, _)| !read.is_as_specific_as(matcher)) {
                break;
            }
            if !matcher.covers(host, path) {
                continue;
            }
            if !matcher.accepts(method) {
                found_other_method = true;
            } else if matcher.reading.is_exact() || matcher.path.matches(path) {
                return Ok(policy);
            } else {
                read = read.or(Some(candidate));
            }
        }
        if let Some((_, policy)) = read {
            Ok(policy)
        } else if found_other_method {
            Err(NoRoute::MethodNotAllowed { allow: self.allow(candidates, host, path) })
        } else {
            Err(NoRoute::NotFound)
        }
    }

    fn candidates(&self, path: &str) -> &[usize] {
        let first = pattern::first(path.trim_start_matches('/'));
        let by_segment = || self.by_segment.get(first).unwrap_or(&self.rest);
        self.loose.as_ref().unwrap_or_else(by_segment)
    }

    /// What all routes do, most specific first.
    pub fn policies(&self) -> impl Iterator<Item = &P> {
        self.routes.iter().map(|(_, policy)| policy)
    }

    fn allow(&self, candidates: &[usize], host: &str, path: &str) -> String {
        let mut names: Vec<&str> = Vec::new();
        for &index in candidates {
            let (matcher, _) = &self.routes[index];
            if matcher.covers(host, path) {
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
