//! Paths of locations, and the simple ones among regular expressions, as path patterns; what they
//! capture, as placeholders.

/// A regular expression that a path pattern can stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Simple {
    /// As a route has it.
    pub(super) path: String,
    /// What stands for `$1`, `$2` and so on: `{p1}`, or `{rest}`.
    captures: Vec<Capture>,
    /// Where it is open, whether the pattern also covers its own beginning without a slash, which
    /// the expression does not match.
    pub(super) bare: Option<String>,
    /// Why the pattern is not quite the expression.
    pub(super) note: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Capture {
    /// One segment.
    Segment(String),
    /// All that follows, with its slash or without.
    Rest { with_slash: bool },
}

/// Whether text may stand in a path of a configuration as it is.
pub(super) fn is_plain_path(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~:@!$&'()+,;=".contains(&byte);
    path.starts_with('/')
        && path.bytes().all(is_plain)
        && !path.contains("//")
        && !path
            .split('/')
            .any(|segment| segment.starts_with(':') || segment == "." || segment == "..")
}

impl Simple {
    /// Reads an expression; nothing where it is not simple.
    pub(super) fn parse(regex: &str) -> Option<Self> {
        let body = regex.strip_prefix('^')?;
        let (body, closed) = match body.strip_suffix('$') {
            Some(body) if !body.ends_with('\\') => (body, true),
            _ => (body, false),
        };
        let mut path = String::new();
        let mut captures = Vec::new();
        let mut rest = body;
        let mut open = false;
        while !rest.is_empty() {
            if open {
                return None;
            }
            if let Some(behind) = eat(rest, &["([^/]+)", "([^/]*)", "(\\w+)", "([\\w-]+)"]) {
                let is_whole =
                    path.ends_with('/') && (behind.is_empty() || behind.starts_with('/'));
                let is_any = rest.starts_with("([^/]+)");
                if !is_whole || !is_any {
                    return None;
                }
                let name = format!("{{p{}}}", captures.len() + 1);
                path += &name;
                captures.push(Capture::Segment(name));
                rest = behind;
            } else if let Some(behind) = eat(rest, &["(.*)", "(.+)"]) {
                captures.push(Capture::Rest { with_slash: !path.ends_with('/') });
                (open, rest) = (true, behind);
            } else if let Some(behind) = eat(rest, &["(/.*)"]) {
                captures.push(Capture::Rest { with_slash: true });
                (open, rest) = (true, behind);
                path.push('/');
            } else if let Some(behind) = eat(rest, &[".*"]) {
                (open, rest) = (true, behind);
            } else {
                let (c, behind) = literal(rest)?;
                path.push(c);
                rest = behind;
            }
        }
        Self::of(path, captures, open || !closed)
    }

    fn of(path: String, captures: Vec<Capture>, open: bool) -> Option<Self> {
        let shown = path.replace(['{', '}'], "");
        if !is_plain_path(if shown.is_empty() { "/" } else { &shown }) {
            return None;
        }
        if path.is_empty() && !open {
            return None;
        }
        if !open {
            return Some(Self { path, captures, bare: None, note: None });
        }
        let base = path.strip_suffix('/').unwrap_or(&path);
        let bare = (path.ends_with('/') && !base.is_empty()).then(|| base.to_owned());
        let note = (!path.is_empty() && !path.ends_with('/'))
            .then_some("whole segments are meant here: what only begins like it is another path");
        Some(Self { path: format!("{base}/*"), captures, bare, note })
    }

    /// Whether a path is among those that the pattern covers.
    pub(super) fn fits(&self, path: &str) -> bool {
        let mut segments = path.split('/');
        for part in self.path.split('/') {
            match (part, segments.next()) {
                ("*", _) => return true,
                (_, None) => return false,
                (part, Some(_)) if part.starts_with('{') => {}
                (part, Some(segment)) if part == segment => {}
                _ => return false,
            }
        }
        segments.next().is_none()
    }

    /// What all of its paths begin with.
    pub(super) fn begin(&self) -> &str {
        let path = self.path.split('{').next().unwrap_or_default();
        path.strip_suffix(if self.bare.is_some() { "*" } else { "/*" }).unwrap_or(path)
    }

    /// Whether its path has no segment that may be any, and covers what is below it.
    pub(super) fn is_tree(&self) -> bool {
        !self.path.contains('{') && self.path.ends_with("/*")
    }

    /// The part of it that lies below a prefix, for a template of its own; nothing where it cannot
    /// be said.
    pub(super) fn below(&self, prefix: &str, template: &str) -> Option<(String, String)> {
        let base = prefix.trim_end_matches('/');
        let own = self.path.strip_suffix("/*").unwrap_or(&self.path);
        if own.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            return Some((self.path.clone(), template.to_owned()));
        }
        let between = base.strip_prefix(own)?.strip_prefix('/').filter(|_| self.is_tree())?;
        let template = template.replace("{rest}", &format!("{between}/{{rest}}"));
        Some((format!("{base}/*"), template))
    }

    /// A replacement with `$1` as a template; nothing where it cannot be one.
    pub(super) fn template(&self, replacement: &str) -> Option<String> {
        let mut made = String::new();
        let mut rest = replacement;
        while let Some((before, behind)) = rest.split_once('$') {
            made += before;
            let digit = behind.chars().next()?.to_digit(10)?;
            let capture = self.captures.get(usize::try_from(digit).ok()?.checked_sub(1)?)?;
            rest = behind.get(1..)?;
            match capture {
                Capture::Segment(name) => {
                    if !made.ends_with('/') || !(rest.is_empty() || rest.starts_with('/')) {
                        return None;
                    }
                    made += name;
                }
                Capture::Rest { with_slash } => {
                    if !rest.is_empty() || made.ends_with('/') == *with_slash {
                        return None;
                    }
                    made += if *with_slash { "/{rest}" } else { "{rest}" };
                }
            }
        }
        made += rest;
        Some(made)
    }
}

/// Most expressions that alternatives become.
const ALTERNATIVES_MAX: usize = 32;

/// An expression with `(a|b)` in it as one for each; itself where it has none that are plain.
pub(super) fn alternatives(regex: &str) -> Vec<String> {
    let mut all = vec![regex.to_owned()];
    while let Some(parted) = all.first().and_then(|it| part(it)) {
        let more: Vec<String> =
            all.iter().flat_map(|it| part(it).unwrap_or_else(|| vec![it.clone()])).collect();
        if parted.is_empty() || more.len() > ALTERNATIVES_MAX {
            return vec![regex.to_owned()];
        }
        all = more;
    }
    all
}

/// The first group of plain words, as one expression for each of them.
fn part(regex: &str) -> Option<Vec<String>> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_/.\\|".contains(c);
    for (at, _) in regex.match_indices('(') {
        let (before, behind) = regex.split_at(at);
        let behind = behind.strip_prefix("(?:").or_else(|| behind.strip_prefix('('))?;
        let (inner, rest) = behind.split_once(')')?;
        if before.ends_with('\\') || rest.starts_with(['*', '+', '?', '{']) {
            continue;
        }
        if inner.contains('|') && inner.chars().all(is_plain) {
            return Some(inner.split('|').map(|it| format!("{before}{it}{rest}")).collect());
        }
    }
    None
}

/// What every path that an expression matches begins with.
pub(super) fn begin(regex: &str) -> String {
    let mut found = String::new();
    // What is an alternative to all of it may begin otherwise.
    let Some(mut rest) = regex.strip_prefix('^').filter(|it| !it.contains('|')) else {
        return found;
    };
    while let Some((c, behind)) = literal(rest).filter(|_| !rest.starts_with('.')) {
        found.push(c);
        rest = behind;
    }
    found
}

fn eat<'t>(text: &'t str, wanted: &[&str]) -> Option<&'t str> {
    wanted.iter().find_map(|wanted| text.strip_prefix(wanted))
}

/// A character that stands for itself.
fn literal(text: &str) -> Option<(char, &str)> {
    let mut chars = text.chars();
    let c = match chars.next()? {
        '\\' => chars.next().filter(|c| matches!(c, '.' | '-' | '/' | '_'))?,
        // Whoever writes a dot in a path means one.
        c if c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '~' | '.') => c,
        _ => return None,
    };
    // What follows must not say how often.
    let rest = chars.as_str();
    (!rest.starts_with(['*', '+', '?', '{'])).then_some((c, rest))
}

/// One path pattern of a location, and what its upstream is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    /// As a route has it.
    pub(super) path: String,
    /// As `rewrite.replace` has it; the path as it is without it.
    pub(super) replace: Option<String>,
    /// What is not quite the same.
    pub(super) note: Option<&'static str>,
}

impl Mapping {
    /// One without a note.
    pub(super) fn new(path: impl Into<String>, replace: Option<String>) -> Self {
        Self { path: path.into(), replace, note: None }
    }
}

/// The patterns for a prefix, and what `uri` of proxy_pass makes of its paths. The error says why
/// there are none.
pub(super) fn of_prefix(prefix: &str, uri: Option<&str>) -> Result<Vec<Mapping>, &'static str> {
    if !is_plain_path(prefix) {
        return Err("the path holds characters that are written another way here");
    }
    let base = prefix.strip_suffix('/').unwrap_or(prefix);
    let all = format!("{base}/*");
    let is_whole = prefix.ends_with('/');
    let segments =
        "whole segments are meant here: /shop covers /shop and what is below, not /shopping";
    let Some(uri) = uri.filter(|uri| !(*uri == "/" && prefix == "/")) else {
        let note = (!is_whole).then_some(segments);
        return Ok(vec![Mapping { note, ..Mapping::new(all, None) }]);
    };
    if !is_plain_path(uri) {
        return Err("the path of proxy_pass holds characters that are written another way here");
    }
    match (is_whole, uri.ends_with('/')) {
        (true, true) => Ok(vec![Mapping::new(all, Some(format!("{uri}{{rest}}")))]),
        (true, false) => {
            Err("the path of proxy_pass would be glued to what follows, and paths are \
                              made of whole segments here")
        }
        (false, true) => Ok(vec![
            Mapping {
                note: Some(
                    "nginx made two slashes of the end of proxy_pass and what follows; \
                            here it is one",
                ),
                ..Mapping::new(all, Some(format!("{uri}{{rest}}")))
            },
            Mapping::new(base, Some(uri.to_owned())),
        ]),
        (false, false) => Ok(vec![
            Mapping { note: Some(segments), ..Mapping::new(all, Some(format!("{uri}/{{rest}}"))) },
            Mapping::new(base, Some(uri.to_owned())),
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_expressions_are_patterns() {
        for (regex, path, replacement, expected) in [
            ("^/old/(.*)$", "/old/*", "/new/$1", Some("/new/{rest}")),
            ("^/old(/.*)$", "/old/*", "/new$1", Some("/new/{rest}")),
            ("^/old(.*)$", "/old/*", "/new$1", Some("/new/{rest}")),
            ("^/old/(.*)$", "/old/*", "/new$1", None),
            ("^/users/([^/]+)$", "/users/{p1}", "/u/$1/x", Some("/u/{p1}/x")),
            ("^/users/([^/]+)/(.*)", "/users/{p1}/*", "/$2", Some("/{rest}")),
            ("^/users/([^/]+)$", "/users/{p1}", "/p?id=$1", None),
            ("^/about\\.html$", "/about.html", "/about", Some("/about")),
            ("^/api", "/api/*", "/x", Some("/x")),
            ("^/(.*)$", "/*", "/v1/$1", Some("/v1/{rest}")),
        ] {
            let simple = Simple::parse(regex).unwrap_or_else(|| panic!("{regex}"));
            assert_eq!(simple.path, path, "{regex}");
            assert_eq!(simple.template(replacement).as_deref(), expected, "{regex} {replacement}");
        }
        for regex in
            ["\\.php$", "^/u/([0-9]+)$", "^/a?b", "^/(a|b)/", "^/a[bc]", "^/a//b", "^/x{2}"]
        {
            assert_eq!(Simple::parse(regex), None, "{regex}");
        }
    }

    #[test]
    fn prefixes_are_replaced_as_nginx_does() {
        let made = |prefix, uri| {
            let made = of_prefix(prefix, uri);
            made.map(|all| all.into_iter().map(|it| (it.path, it.replace)).collect::<Vec<_>>())
        };
        let one = |path: &str, replace: Option<&str>| (path.to_owned(), replace.map(str::to_owned));
        for (prefix, uri, expected) in [
            ("/", None, vec![one("/*", None)]),
            ("/", Some("/"), vec![one("/*", None)]),
            ("/", Some("/v2/"), vec![one("/*", Some("/v2/{rest}"))]),
            ("/api/", None, vec![one("/api/*", None)]),
            ("/api/", Some("/"), vec![one("/api/*", Some("/{rest}"))]),
            (
                "/api",
                Some("/v2"),
                vec![one("/api/*", Some("/v2/{rest}")), one("/api", Some("/v2"))],
            ),
            ("/api", Some("/"), vec![one("/api/*", Some("/{rest}")), one("/api", Some("/"))]),
        ] {
            assert_eq!(made(prefix, uri).unwrap(), expected, "{prefix} {uri:?}");
        }
        for (prefix, uri) in [("/api/", Some("/v2")), ("/", Some("/v2")), ("/a b", None)] {
            assert!(of_prefix(prefix, uri).is_err(), "{prefix} {uri:?}");
        }
    }
}
