//! Where a request goes on to: another path, another host, or another URL altogether.

use http::HeaderValue;
use http::uri::PathAndQuery;

use super::template::Template;
use crate::base::facts::Target;
use crate::base::http::authority::Authority;
use crate::base::http::path::canonical;

/// What becomes of a target on its way to the upstream.
#[derive(Debug, Clone)]
pub struct Rewrite {
    /// Its path; as it is, without one.
    pub path: Option<Template>,
    /// Its host; as it is, without one.
    pub host: Option<Authority>,
    /// The prefix that its path loses, as the upstream is told of it.
    pub prefix: Option<HeaderValue>,
}

impl Rewrite {
    /// The second target: canonical again, with the query as it is.
    ///
    /// # Errors
    /// What is no path.
    pub fn apply(&self, target: &Target) -> Result<Target, &'static str> {
        let path_and_query = match &self.path {
            None => target.path_and_query.clone(),
            Some(template) => with_query(template.fill(target.path()), target.query())?,
        };
        let authority = self.host.as_ref().unwrap_or(&target.authority).clone();
        Ok(Target { authority, path_and_query })
    }
}

fn with_query(mut path: String, query: Option<&str>) -> Result<PathAndQuery, &'static str> {
    if let Some(query) = query {
        path.extend(["?", query]);
    }
    let given = PathAndQuery::try_from(path).map_err(|_| "a character that no path may hold")?;
    // What was admitted with an encoded slash keeps it.
    canonical(&given, true)
}

/// Where a client is sent.
#[derive(Debug, Clone)]
pub struct Location {
    /// Scheme and host, around the client's own host where that is part of it.
    origin: Vec<String>,
    path: Template,
    /// The query; the request's own, without one.
    query: Option<String>,
}

impl Location {
    /// Splits a URL, or a path of the same host, into origin, path and query. The error says what
    /// is accepted.
    pub fn parse(
        text: &str,
        template: impl FnOnce(&str) -> Result<Template, &'static str>,
    ) -> Result<Self, &'static str> {
        const HELP: &str = "write \"https://shop.example.com/{path}\", or a path from / on";
        let (origin, rest) = match text.split_once("://") {
            Some((scheme, rest)) if matches!(scheme, "http" | "https") => {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                let (host, rest) = rest.split_at(end);
                // A piece of the path in a host would let anybody choose where clients go.
                let named = host.replace("{host}", "host");
                if Authority::parse(named.as_bytes()).is_none_or(|it| it.is_none()) {
                    return Err(HELP);
                }
                (format!("{scheme}://{host}"), rest)
            }
            None if text.starts_with('/') && !text.starts_with("//") => (String::new(), text),
            Some(_) | None => return Err(HELP),
        };
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (rest, None),
        };
        if query.as_ref().is_some_and(|it| it.contains(['{', '}', '#', ' '])) || path.contains('#')
        {
            return Err("a query holds no placeholder, and a location no #");
        }
        let path = template(if path.is_empty() { "/" } else { path })?;
        let origin = origin.split("{host}").map(str::to_owned).collect();
        Ok(Self { origin, path, query })
    }

    /// Where this request is sent.
    ///
    /// # Errors
    /// What is no path, or no host.
    pub fn of(&self, target: &Target) -> Result<HeaderValue, &'static str> {
        let host = target.authority.host();
        if self.origin.len() > 1 && host.is_empty() {
            return Err("no host");
        }
        let query = self.query.as_deref().or(target.query());
        let path = with_query(self.path.fill(target.path()), query)?;
        let text = format!("{}{path}", self.origin.join(host));
        HeaderValue::try_from(text).map_err(|_| "a character that no path may hold")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::http::path::Reading;
    use crate::route::PathPattern;

    fn target(path: &str) -> Target {
        let path_and_query = path.parse().unwrap();
        Target { authority: Authority::parse(b"shop.test:81").unwrap(), path_and_query }
    }

    fn exact(route: &str, text: &str) -> Result<Template, &'static str> {
        let pattern = PathPattern::parse(route).unwrap();
        Template::parse(text, (route, &pattern), Reading::default())
    }

    fn rewritten(template: Template, path: &str) -> String {
        let rewrite = Rewrite { path: Some(template), host: None, prefix: None };
        rewrite.apply(&target(path)).unwrap().path_and_query.to_string()
    }

    #[test]
    fn pieces_go_where_the_template_has_them() {
        for (route, template, path, expected) in [
            ("/api/*", "/v2/{rest}", "/api/a/b?c=%2F/", "/v2/a/b?c=%2F/"),
            ("/api/*", "/v2/{rest}", "/api", "/v2/"),
            ("/api/*", "/v2/{rest}", "/api/", "/v2/"),
            ("/api/*", "/v2/{rest}", "/api/a/", "/v2/a/"),
            ("/api/*", "/{rest}", "/api", "/"),
            ("/api/*", "/v2/{path}", "/api/a", "/v2/api/a"),
            ("/*", "/x/{rest}", "/", "/x/"),
            (
                "/users/{id}/posts/{post}",
                "/p/{post}/u/{id}",
                "/users/a%20b/posts/7",
                "/p/7/u/a%20b",
            ),
            ("/{a}/{b}/*", "/{b}/{rest}", "/1/2/3/4", "/2/3/4"),
            ("/fixed", "/other", "/fixed?q", "/other?q"),
            // An escape is one in the second path as well: nothing is decoded in between.
            ("/api/*", "/v2/{rest}", "/api/a%252e%252e/b%2Fc", "/v2/a%252e%252e/b%2Fc"),
        ] {
            let made = rewritten(exact(route, template).unwrap(), path);
            assert_eq!(made, expected, "{route} {template} {path}");
        }
        for (route, template) in [
            ("/api/*", "v2"),
            ("/api/*", "/v2/{id}"),
            ("/api/*", "/v2/{rest}/more"),
            ("/api/{id}", "/v2/{rest}"),
            ("/api/{id}", "/v2/a{id}"),
            ("/api/*", "/v2//{rest}"),
            ("/api/*", "/v2/../{rest}"),
            ("/api/*", "/v2?x={rest}"),
            ("/api/*", "/a b"),
        ] {
            assert!(exact(route, template).is_err(), "{route} {template}");
        }
    }

    #[test]
    fn a_prefix_is_stripped_as_the_upstream_reads_it() {
        let loose = Reading { any_case: true, trailing_slash: true, parameters: true };
        for (reading, route, prefix, path, expected) in [
            (Reading::default(), "/api/*", "/api", "/api/a/b?c", "/a/b?c"),
            (Reading::default(), "/api/*", "/api", "/api", "/"),
            (Reading::default(), "/api/v1/{id}", "/api/v1", "/api/v1/7", "/7"),
            (Reading::default(), "/api/v1/*", "/api", "/api/v1/7", "/v1/7"),
            (loose, "/api/*", "/api", "/API;x/a;y", "/a;y"),
            (loose, "/api/*", "/api", "/;x/api/a", "/a"),
        ] {
            let pattern = PathPattern::parse(route).unwrap();
            assert!(pattern.matches_as(reading, target(path).path()), "{route} {path}");
            let template = Template::without(prefix, &pattern, reading).unwrap();
            assert_eq!(rewritten(template, path), expected, "{route} {prefix} {path}");
        }
        let pattern = PathPattern::parse("/api/{id}/*").unwrap();
        for prefix in ["api", "/ap", "/api/", "/api/x", "/api/{id}", "/", "/other"] {
            let made = Template::without(prefix, &pattern, Reading::default());
            assert!(made.is_err(), "{prefix}");
        }
    }

    #[test]
    fn a_location_never_leaves_its_origin() {
        let location = |route: &str, text: &str| Location::parse(text, |path| exact(route, path));
        for (route, text, path, expected) in [
            ("/*", "https://new.test/{path}", "/a/b?c=d", "https://new.test/a/b?c=d"),
            ("/*", "https://new.test", "/a?c", "https://new.test/?c"),
            ("/*", "https://www.{host}/{path}", "/a", "https://www.shop.test/a"),
            ("/*", "http://{host}:8080/{path}", "/", "http://shop.test:8080/"),
            ("/old/*", "/new/{rest}", "/old/a", "/new/a"),
            ("/old/*", "/new?from=old", "/old/a?b", "/new?from=old"),
            // Whatever the rest is, it is no host.
            ("/old/{id}/*", "/{rest}", "/old/1/evil.test/x", "/evil.test/x"),
            ("/old/*", "/{rest}", "/old/@evil.test", "/@evil.test"),
        ] {
            let made = location(route, text).unwrap().of(&target(path)).unwrap();
            assert_eq!(made, expected, "{text} {path}");
        }
        for text in [
            "https://new.test{path}",
            "https://{rest}/x",
            "https://new.test:{rest}/",
            "https:///x",
            "//new.test/x",
            "ftp://new.test/",
            "new.test/x",
            "javascript:alert(1)",
            "/x#y",
            "/x?y={rest}",
        ] {
            assert!(location("/*", text).is_err(), "{text}");
        }
        let nowhere = Target { authority: Authority::none(), ..target("/") };
        assert!(location("/*", "https://{host}/").unwrap().of(&nowhere).is_err());
    }
}
