//! What holds in a block: its own directives, and those of the blocks around it where it says
//! nothing of the kind. That is how nginx inherits all of them.

use std::collections::{BTreeMap, BTreeSet};

use super::super::sheet::{Left, Sheet};
use super::parse::Directive;
use super::words::{Fate, fate};

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope<'d> {
    all: BTreeMap<&'d str, Vec<&'d Directive>>,
    guards: BTreeSet<&'d str>,
}

impl<'d> Scope<'d> {
    /// What holds in a block within this one. What is left out of it is listed.
    pub(super) fn enter(&self, block: &'d [Directive], sheet: &mut Sheet) -> Self {
        let mut own: BTreeMap<&str, Vec<&Directive>> = BTreeMap::new();
        let mut guards = self.guards.clone();
        for directive in block {
            let name = match directive.name.as_str() {
                // One list, of which the first that fits counts.
                "deny" => "allow",
                name => name,
            };
            own.entry(name).or_default().push(directive);
            judge(directive, &mut guards, sheet);
        }
        let mut all = self.all.clone();
        all.extend(own);
        Self { all, guards }
    }

    /// The directives of this name that hold.
    pub(super) fn all(&self, name: &str) -> &[&'d Directive] {
        self.all.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The one of this name that holds.
    pub(super) fn last(&self, name: &str) -> Option<&'d Directive> {
        self.all(name).last().copied()
    }

    /// Its first argument.
    pub(super) fn value(&self, name: &str) -> Option<&'d str> {
        self.last(name)?.args.first().map(String::as_str)
    }

    /// What is written around all servers may miss a file without that being a guard.
    pub(super) fn without_missing(mut self) -> Self {
        self.guards.remove("include");
        self
    }

    /// What guards the block and could not be carried over.
    pub(super) fn guards(&self) -> &BTreeSet<&'d str> {
        &self.guards
    }
}

/// Lists a directive that is left out.
fn judge<'d>(directive: &'d Directive, guards: &mut BTreeSet<&'d str>, sheet: &mut Sheet) {
    // Of includes those are left that name no file; they are listed already.
    if directive.name == "include" {
        guards.insert("include");
        return;
    }
    let (why, instead) = match fate(&directive.name) {
        Fate::Carried | Fate::Needless => return,
        Fate::Left(why, instead) => {
            if directive.name == "if" && refuses(directive.inner()) {
                guards.insert("if");
            }
            (why, instead)
        }
        Fate::Guard(why, instead) => {
            if matches!(directive.arg(0), "off" | "all") {
                guards.remove(directive.name.as_str());
                return;
            }
            guards.insert(&directive.name);
            (why, instead)
        }
    };
    leave(directive, why, instead, sheet);
}

/// Whether a condition keeps requests out: it refuses them, or sends them to one place, such as a
/// login. A redirect that carries the path on keeps nobody out.
fn refuses(block: &[Directive]) -> bool {
    let carries = |text: &str| text.contains("uri") || text.contains("$1");
    block.iter().any(|directive| match directive.name.as_str() {
        "deny" => true,
        "return" => match directive.arg(0).parse::<u16>() {
            Ok(code) if code >= 400 => true,
            Ok(code) => code >= 300 && !carries(directive.arg(1)),
            Err(_) => !carries(directive.arg(0)),
        },
        "rewrite" => !carries(directive.arg(1)),
        _ => refuses(directive.inner()),
    })
}

/// Puts a directive on the list of what is left out.
pub(super) fn leave(directive: &Directive, why: &str, instead: &str, sheet: &mut Sheet) {
    sheet.left(Left {
        at: directive.at(),
        what: directive.text(),
        why: why.to_owned(),
        instead: instead.to_owned(),
    });
}
