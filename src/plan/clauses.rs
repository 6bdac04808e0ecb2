//! The clauses of a route, with what says which texts of a path they are about.

use crate::config::{self, Clause, Problems};
use crate::route::{Matcher, Parameters};

/// What must hold of a route's requests, once it is known who calls.
#[derive(Debug)]
pub struct Clauses {
    /// All of these.
    pub all: Vec<Clause>,
    /// What stands for the placeholders of the route's path.
    pub parameters: Parameters,
}

impl Clauses {
    /// Of a route that has any; a placeholder that its path lacks is a problem.
    pub(super) fn compile(
        (written, pattern): (&config::Route, &str),
        matcher: &Matcher,
        at: impl Fn(&str) -> String,
        problems: &mut Problems,
    ) -> Option<Box<Self>> {
        if written.clauses.is_empty() {
            return None;
        }
        let parameters = Parameters::of(pattern, &matcher.path, matcher.reading);
        let named = written.clauses.iter().flat_map(Clause::placeholders);
        for name in named.filter(|name| !parameters.knows(name)) {
            let what = format!("the path has no placeholder {{{name}}}, or several");
            let remedy = "name one of its placeholders, each of which has a name of its own";
            problems.push(at("require"), what, remedy);
        }
        Some(Box::new(Self { all: written.clauses.clone(), parameters }))
    }
}
