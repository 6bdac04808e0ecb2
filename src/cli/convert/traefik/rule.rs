//! Rules of routers, as the hosts, paths and methods of routes.

use super::super::pattern::of_prefix;

/// Most routes that one rule becomes.
const MATCHES_MAX: usize = 64;
/// How deep parentheses may lie in each other.
const DEPTH_MAX: usize = 32;
/// Longest rule, in bytes.
const BYTES_MAX: usize = 16 << 10;

/// One route of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Match {
    /// Which host; every one without it.
    pub(super) host: Option<String>,
    /// A path pattern.
    pub(super) path: String,
    /// Which methods; the usual ones where there is none.
    pub(super) methods: Vec<String>,
    /// What is not quite the same.
    pub(super) note: Option<&'static str>,
}

/// What one way through a rule demands.
#[derive(Debug, Clone, Default)]
struct Demand {
    host: Option<String>,
    path: Option<(String, Option<&'static str>)>,
    methods: Option<Vec<String>>,
}

/// Reads a rule; the error says why it cannot be carried over.
pub(super) fn parse(text: &str) -> Result<Vec<Match>, String> {
    if text.len() > BYTES_MAX {
        return Err(format!("it is longer than {BYTES_MAX} bytes"));
    }
    let mut reader = Reader { rest: text.trim(), depth: 0 };
    let ways = reader.either()?;
    if !reader.rest.is_empty() {
        let rest: String = reader.rest.chars().take(40).collect();
        return Err(format!("{rest:?} is not understood"));
    }
    let mut matches: Vec<Match> = Vec::new();
    for way in ways {
        let (path, note) = way.path.unwrap_or_else(|| ("/*".to_owned(), None));
        let methods = way.methods.unwrap_or_default();
        let made = Match { host: way.host, path, methods, note };
        // Two that differ in their methods alone are one.
        let same = |known: &&mut Match| {
            known.host == made.host && known.path == made.path && !known.methods.is_empty()
        };
        match matches.iter_mut().find(same).filter(|_| !made.methods.is_empty()) {
            Some(known) => {
                let more = made.methods.into_iter().filter(|it| !known.methods.contains(it));
                let more: Vec<String> = more.collect();
                known.methods.extend(more);
            }
            None => matches.push(made),
        }
    }
    Ok(matches)
}

struct Reader<'t> {
    rest: &'t str,
    depth: usize,
}

impl Reader<'_> {
    fn eat(&mut self, wanted: &str) -> bool {
        let rest = self.rest.trim_start();
        match rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn either(&mut self) -> Result<Vec<Demand>, String> {
        let mut ways = self.both()?;
        while self.eat("||") {
            ways.extend(self.both()?);
            few(&ways)?;
        }
        Ok(ways)
    }

    fn both(&mut self) -> Result<Vec<Demand>, String> {
        let mut ways = self.one()?;
        while self.eat("&&") {
            let more = self.one()?;
            if ways.len().saturating_mul(more.len()) > MATCHES_MAX {
                return Err(format!("it would be more than {MATCHES_MAX} routes"));
            }
            let mut joined = Vec::new();
            for way in &ways {
                for other in &more {
                    joined.push(join(way, other)?);
                }
            }
            ways = joined;
        }
        Ok(ways)
    }

    fn one(&mut self) -> Result<Vec<Demand>, String> {
        if self.rest.starts_with('!') {
            return Err("what a route is not for cannot be said".to_owned());
        }
        if self.eat("(") {
            self.depth += 1;
            if self.depth > DEPTH_MAX {
                return Err(format!("parentheses lie more than {DEPTH_MAX} deep"));
            }
            let ways = self.either()?;
            self.depth -= 1;
            return if self.eat(")") { Ok(ways) } else { Err("a ) is missing".to_owned()) };
        }
        let end = self.rest.find('(').ok_or("a matcher has no parentheses")?;
        let (name, rest) = self.rest.split_at(end);
        let name = name.trim().to_owned();
        self.rest = rest;
        self.eat("(");
        let mut args = Vec::new();
        while !self.eat(")") {
            args.push(self.quoted()?);
            self.eat(",");
            if args.len() > MATCHES_MAX {
                return Err(format!("a matcher has more than {MATCHES_MAX} values"));
            }
        }
        demands(&name, &args)
    }

    fn quoted(&mut self) -> Result<String, String> {
        let quote = self.rest.chars().next().filter(|c| matches!(c, '`' | '"' | '\''));
        let quote = quote.ok_or("a value stands without quotes")?;
        let rest = self.rest.get(1..).unwrap_or_default();
        let (text, rest) = rest.split_once(quote).ok_or("a quote is never closed")?;
        self.rest = rest.trim_start();
        Ok(text.to_owned())
    }
}

fn few(ways: &[Demand]) -> Result<(), String> {
    if ways.len() > MATCHES_MAX {
        return Err(format!("it would be more than {MATCHES_MAX} routes"));
    }
    Ok(())
}

fn demands(name: &str, args: &[String]) -> Result<Vec<Demand>, String> {
    if args.is_empty() {
        return Err(format!("{name} has no value"));
    }
    match name {
        "Host" => Ok(args
            .iter()
            .map(|host| Demand { host: Some(host.to_ascii_lowercase()), ..Demand::default() })
            .collect()),
        "HostRegexp" => args.iter().map(|text| below(text)).collect(),
        "Path" | "PathPrefix" => args.iter().map(|path| of_path(name, path)).collect(),
        "Method" => Ok(vec![Demand { methods: Some(args.to_vec()), ..Demand::default() }]),
        _ => Err(format!("{name} is not looked at: routes are chosen by host, path and method")),
    }
}

/// Expressions that stand for the first label, whatever it is.
const LABELS: [&str; 5] = ["[a-z0-9-]+", "[a-zA-Z0-9-]+", "[a-z]+", ".+", "[^.]+"];

/// `{sub:[a-z]+}.example.com` and `^.+\.example\.com$` mean all hosts below one.
fn below(text: &str) -> Result<Demand, String> {
    let why = || format!("{text:?} is not all hosts below one");
    let plain = text.trim_start_matches('^').trim_end_matches('$').replace("\\.", ".");
    let rest = match plain.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
        Some((named, rest)) => {
            let label = named.split_once(':').map_or("[^.]+", |(_, label)| label);
            LABELS.contains(&label).then_some(rest).ok_or_else(why)?
        }
        None => LABELS.iter().find_map(|any| plain.strip_prefix(any)).ok_or_else(why)?,
    };
    let suffix = rest.strip_prefix('.').ok_or_else(why)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    if suffix.is_empty() || !suffix.bytes().all(is_plain) {
        return Err(why());
    }
    Ok(Demand { host: Some(format!("*.{suffix}")), ..Demand::default() })
}

fn of_path(name: &str, path: &str) -> Result<Demand, String> {
    let prefix = if path == "/" { path } else { path.trim_end_matches('/') };
    let made = of_prefix(prefix, None).map_err(|why| format!("{path:?}: {why}"))?;
    let path = match name {
        "Path" => Some((path.to_owned(), None)),
        _ => {
            let note = |note| Some(note).filter(|_| !path.ends_with('/'));
            made.into_iter().next().map(|it| (it.path, it.note.and_then(note)))
        }
    };
    Ok(Demand { path, ..Demand::default() })
}

fn join(a: &Demand, b: &Demand) -> Result<Demand, String> {
    fn one<T: Clone>(a: &Option<T>, b: &Option<T>, what: &str) -> Result<Option<T>, String> {
        match (a, b) {
            (Some(_), Some(_)) => Err(format!("it names two {what} that must both fit")),
            (Some(it), None) | (None, Some(it)) => Ok(Some(it.clone())),
            (None, None) => Ok(None),
        }
    }
    Ok(Demand {
        host: one(&a.host, &b.host, "hosts")?,
        path: one(&a.path, &b.path, "paths")?,
        methods: one(&a.methods, &b.methods, "methods")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(text: &str) -> Result<Vec<String>, String> {
        let shown = |it: &Match| {
            let host = it.host.as_deref().unwrap_or("*");
            format!("{host}{} {}", it.path, it.methods.join(","))
        };
        parse(text).map(|all| all.iter().map(shown).collect())
    }

    #[test]
    fn rules_become_routes() {
        for (rule, expected) in [
            ("Host(`a.test`)", vec!["a.test/* "]),
            ("Host(`a.test`) && PathPrefix(`/api`)", vec!["a.test/api/* "]),
            ("Host(`a.test`, `B.test`) && Path(`/x`)", vec!["a.test/x ", "b.test/x "]),
            (
                "(Host(`a.test`) || Host(`b.test`)) && PathPrefix(`/`)",
                vec!["a.test/* ", "b.test/* "],
            ),
            ("PathPrefix(`/a`) && (Method(`GET`) || Method(`HEAD`))", vec!["*/a/* GET,HEAD"]),
            ("HostRegexp(`{sub:[a-z]+}.a.test`)", vec!["*.a.test/* "]),
            ("HostRegexp(`^.+\\.a\\.test$`)", vec!["*.a.test/* "]),
        ] {
            assert_eq!(routes(rule).unwrap(), expected, "{rule}");
        }
        for rule in [
            "",
            "Host",
            "Host()",
            "Host(`a`",
            "Host(a)",
            "!Host(`a`)",
            "Headers(`x`, `y`)",
            "PathPrefix(`/a`) && PathPrefix(`/b`)",
            "Host(`a`) Host(`b`)",
            "PathRegexp(`^/x`)",
            "Path(`/{id:[0-9]+}`)",
            "HostRegexp(`{sub:(a|b)}.a.test`)",
            "HostRegexp(`{sub:[0-9]+}.a.test`)",
        ] {
            assert!(parse(rule).is_err(), "{rule}");
        }
        assert!(parse(&"(".repeat(10_000)).is_err());
        let many = vec!["(Host(`a`) || Host(`b`))"; 20].join(" && ");
        assert!(parse(&many).is_err());
    }
}
