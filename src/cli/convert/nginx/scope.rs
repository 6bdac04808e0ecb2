//! What holds in a block: its own directives, and those of the blocks around it where it says
//! nothing of the kind. That is how nginx inherits all of them.

use std::collections::{BTreeMap, BTreeSet};

use super::super::sheet::{Left, Sheet};
use super::parse::Directive;
use super::words::{Fate, fate, is_carried};

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope<'d> {
    all: BTreeMap<&'d str, Vec<&'d Directive>>,
    guards: BTreeSet<&'d str>,
}

impl<'d> Scope<'d> {
    /// What holds in a block within this one. What is left out of it is listed.
    pub(super) fn enter(&self, block: &'d [Directive], sheet: &mut Sheet) -> Self {
        self.enter_but(block, &|_| false, sheet)
    }

    /// The same, where some directives are carried over that are left out elsewhere.
    pub(super) fn enter_but(
        &self,
        block: &'d [Directive],
        is_carried: &dyn Fn(&Directive) -> bool,
        sheet: &mut Sheet,
    ) -> Self {
        let mut own: BTreeMap<&str, Vec<&Directive>> = BTreeMap::new();
        let mut guards = self.guards.clone();
        for directive in block {
            let name = match directive.name.as_str() {
                // One list, of which the first that fits counts.
                "deny" => "allow",
                name => name,
            };
            own.entry(name).or_default().push(directive);
            if !is_carried(directive) {
                judge(directive, &mut guards, sheet);
            }
        }
        let mut all = self.all.clone();
        all.extend(own);
        Self { all, guards }
    }

    /// The directives of this name that hold.
    pub(super) fn all(&self, name: &str) -> &[&'d Directive] {
        let all = self.all.get(name).map(Vec::as_slice).unwrap_or_default();
        all.iter().for_each(|it| it.seen.see());
        all
    }

    /// The one of this name that holds.
    pub(super) fn last(&self, name: &str) -> Option<&'d Directive> {
        let last = self.all.get(name)?.last().copied();
        last.inspect(|it| it.seen.see())
    }

    /// Lists what holds and is carried over elsewhere alone: nobody has looked at it.
    pub(super) fn leave_unseen(&self, sheet: &mut Sheet) {
        let all = self.all.values().flatten();
        for directive in all.filter(|it| !it.seen.is_some() && is_carried(&it.name)) {
            let why = "it is carried over where it stands around all servers, or once";
            let instead = "write what it is for by hand; docs/reference.md has every key";
            leave(directive, why, instead, sheet);
        }
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
    let (why, instead) = match fate(directive) {
        Fate::Carried | Fate::Needless => return,
        Fate::Left(why, instead) => {
            if directive.name != "if" || !refuses(directive.inner()) {
                return leave(directive, why, instead, sheet);
            }
            guards.insert("if");
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
    leave(directive, &format!("{why}: what it guards answers 403"), instead, sheet);
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
