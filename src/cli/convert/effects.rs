//! What plugins and middlewares do to the requests of a route, gathered before it is written.

use std::collections::BTreeMap;

use http::HeaderName;

use super::networks::{is_everything, refused};
use super::sheet::{FILL_IN, Left, Sheet, Table};
use super::tree::Node;
use super::write::{list, quoted, table};
use crate::forwarding::rules;

/// Fields that are given and taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields {
    set: BTreeMap<String, String>,
    add: BTreeMap<String, String>,
    remove: Vec<String>,
}

/// Which way a field goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// To the upstream.
    Up,
    /// To the client.
    Down,
}

/// What is done with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Set,
    Add,
    Remove,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Effects {
    up: Fields,
    down: Fields,
    limits: Vec<String>,
    /// Verifiers.
    pub(super) auth: Vec<String>,
    guards: Vec<String>,
    keys: Vec<(String, String)>,
    notes: Vec<String>,
    /// Keys of the upstream.
    pub(super) upstream: Vec<(String, String)>,
    /// An answer without one.
    pub(super) respond: Option<String>,
}

/// Where something stands, for the list of what is left out.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'s> {
    /// The file.
    pub(super) name: &'s str,
    /// What it is called there.
    pub(super) what: &'s str,
}

impl At<'_> {
    /// Puts something on the list, and with it all that is in it.
    pub(super) fn leave_all(&self, node: &Node, why: &str, instead: &str, sheet: &mut Sheet) {
        node.settle();
        self.leave(node, why, instead, sheet);
    }

    /// Puts something on the list.
    pub(super) fn leave(&self, node: &Node, why: &str, instead: &str, sheet: &mut Sheet) {
        sheet.left(Left {
            at: format!("{}:{}", self.name, node.line),
            what: self.what.to_owned(),
            why: why.to_owned(),
            instead: instead.to_owned(),
        });
    }
}

impl Effects {
    /// A key of the route; the last word counts.
    pub(super) fn key(&mut self, name: &str, value: String) {
        self.keys.retain(|(known, _)| known != name);
        self.keys.push((name.to_owned(), value));
    }

    /// A comment.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// A limit.
    pub(super) fn limit(&mut self, name: String) {
        if !self.limits.contains(&name) {
            self.limits.push(name);
        }
    }

    /// Something that guards the route and is not carried over.
    pub(super) fn guard(&mut self, name: &str) {
        self.guards.push(name.to_owned());
    }

    /// A field; the error says why rules may not touch it.
    pub(super) fn field(
        &mut self,
        way: Way,
        verb: Verb,
        (name, value): (&str, &str),
    ) -> Result<(), &'static str> {
        let name = name.trim().to_ascii_lowercase();
        let parsed: HeaderName = name.parse().map_err(|_| "it is the name of no field")?;
        let why = match way {
            Way::Up => rules::forbidden_in_requests(&[], &parsed),
            Way::Down => rules::forbidden_in_responses(&parsed),
        };
        if why.is_some() {
            return Err("this field is the gateway's or the upstream's own");
        }
        let value = value.trim();
        if verb != Verb::Remove && http::HeaderValue::from_str(value).is_err() {
            return Err("its value cannot be one of a field");
        }
        let fields = match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        };
        match verb {
            Verb::Set => {
                fields.set.insert(name, quoted(value));
            }
            Verb::Add => {
                fields.add.insert(name, quoted(value));
            }
            Verb::Remove if !fields.remove.contains(&name) => fields.remove.push(name),
            Verb::Remove => {}
        }
        Ok(())
    }

    /// Networks, each `true` where it is refused.
    pub(super) fn networks(
        &mut self,
        rules: &[(bool, &str)],
        (at, node): (At<'_>, &Node),
        sheet: &mut Sheet,
    ) {
        let networks = match refused(rules) {
            Ok(networks) if networks.is_empty() => return,
            Ok(networks) if is_everything(&networks) => {
                self.respond = Some("{ status = 403 }".to_owned());
                return;
            }
            Ok(networks) => networks,
            Err(why) => {
                at.leave(node, &why, "the route answers 403; write block in [limits.NAME]", sheet);
                return self.guard(at.what);
            }
        };
        self.limit(sheet.block(at.what, &networks));
    }

    /// Writes it all as keys of a route.
    pub(super) fn write(self, made: &mut Table) {
        for note in &self.notes {
            made.note(note.clone());
        }
        for (key, fields) in [("request_headers", &self.up), ("response_headers", &self.down)] {
            if let Some(value) = fields.render() {
                made.set(key, value);
            }
        }
        if !self.auth.is_empty() {
            made.set("auth", list(&self.auth));
        }
        if !self.limits.is_empty() {
            made.set("limits", list(&self.limits));
        }
        for (name, value) in self.keys {
            made.set(&name, value);
        }
        // What is no refusal may be what they guarded.
        let is_content = |respond: &String| respond.contains("status = 2");
        let respond = self.respond.filter(|it| self.guards.is_empty() || !is_content(it));
        if let Some(respond) = respond {
            made.set("respond", respond);
        } else if !self.guards.is_empty() {
            made.note(format!(
                "{FILL_IN}: closed, because {} guarded it and is not carried over. Guard it, then \
                 remove this line.",
                self.guards.join(", ")
            ));
            made.set("respond", "{ status = 403 }");
        }
    }
}

impl Fields {
    fn render(&self) -> Option<String> {
        let mut entries = Vec::new();
        for (verb, lines) in [("set", &self.set), ("add", &self.add)] {
            if !lines.is_empty() {
                let lines: Vec<(&String, String)> =
                    lines.iter().map(|(name, value)| (name, value.clone())).collect();
                entries.push((verb, table(&lines)));
            }
        }
        // What is set replaces what was there anyway.
        let removed = self.remove.iter().filter(|name| !self.set.contains_key(*name));
        let removed: Vec<&String> = removed.collect();
        if !removed.is_empty() {
            entries.push(("remove", list(&removed)));
        }
        (!entries.is_empty()).then(|| table(&entries))
    }
}
