//! What events mean: which of them count, and what each purges and revokes.

use std::collections::BTreeMap;

use super::fields::Fields;
use super::template::{Skipped, Template, value};

/// What a pattern of a tag begins with.
const TAG: &str = "tag:";
/// What a pattern ends with that means what is below it.
const BELOW: &str = "/*";

/// One pattern of `purge`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Path { template: Template, and_below: bool },
    Tag(Template),
}

/// What is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokeKind {
    /// One token.
    Jti,
    /// The tokens of one session.
    Sid,
    /// The tokens of one subject that were issued until then.
    Sub,
}

/// A revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoke {
    /// Of what kind.
    pub kind: RevokeKind,
    /// Whose.
    pub value: String,
    /// Until when, in Unix seconds, where the event says so.
    pub until: Option<u64>,
}

/// A path that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPurge {
    /// The path, escaped.
    pub path: String,
    /// Whether what is below it goes too.
    pub and_below: bool,
}

/// What one event changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// Paths that go.
    pub paths: Vec<PathPurge>,
    /// Tags whose responses go.
    pub tags: Vec<String>,
    /// What is revoked.
    pub revoke: Option<Revoke>,
    /// Why something of it was left out: the first reason.
    pub skipped: Option<Skipped>,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    when: BTreeMap<String, String>,
    patterns: Vec<Pattern>,
    revoke: Option<(RevokeKind, Template)>,
    until: Option<String>,
}

impl Rule {
    /// One without patterns.
    pub fn new(when: &BTreeMap<String, String>) -> Self {
        Self { when: when.clone(), patterns: Vec::new(), revoke: None, until: None }
    }

    /// Adds a pattern of `purge`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn purge(&mut self, text: &str) -> Result<(), &'static str> {
        if let Some(tag) = text.strip_prefix(TAG) {
            if tag.is_empty() {
                return Err("names no tag");
            }
            self.patterns.push(Pattern::Tag(Template::parse(tag)?));
            return Ok(());
        }
        let (path, and_below) = match text.strip_suffix(BELOW) {
            Some("") => ("/", true),
            Some(path) => (path, true),
            None => (text, false),
        };
        if !path.starts_with('/') {
            return Err("is neither a path, which begins with a slash, nor a tag");
        }
        if path.contains(['*', '?', '#']) {
            return Err("holds a *, ? or # that no path of a purge has");
        }
        self.patterns.push(Pattern::Path { template: Template::parse(path)?, and_below });
        Ok(())
    }

    /// Has events revoke.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn revoke(&mut self, text: &str, until: Option<&str>) -> Result<(), &'static str> {
        let (kind, template) = text.split_once(':').ok_or("does not say what is revoked")?;
        let kind = match kind {
            "jti" => RevokeKind::Jti,
            "sid" => RevokeKind::Sid,
            "sub" => RevokeKind::Sub,
            _ => return Err("revokes what cannot be revoked by an event"),
        };
        let template = Template::parse(template)?;
        if template.is_literal() {
            return Err("names no field of the event");
        }
        self.revoke = Some((kind, template));
        self.until = until.map(ToOwned::to_owned);
        Ok(())
    }

    /// Whether events revoke.
    pub fn revokes(&self) -> bool {
        self.revoke.is_some()
    }

    /// What an event changes; nothing where it does not count.
    pub fn effects(&self, fields: &Fields) -> Option<Effects> {
        if self.when.iter().any(|(name, wanted)| fields.get(name) != Some(wanted)) {
            return None;
        }
        let mut effects = Effects::default();
        for pattern in &self.patterns {
            let added = match pattern {
                Pattern::Path { template, and_below } => template.path(fields).map(|path| {
                    effects.paths.push(PathPurge { path, and_below: *and_below });
                }),
                Pattern::Tag(template) => template.plain(fields).map(|tag| effects.tags.push(tag)),
            };
            effects.note(added.err());
        }
        if let Some((kind, template)) = &self.revoke {
            match template.plain(fields) {
                Ok(value) => {
                    let until = self.until(fields).transpose();
                    // Nobody knows until when: then as long as any.
                    effects.note(until.as_ref().err().cloned());
                    let until = until.unwrap_or_default();
                    effects.revoke = Some(Revoke { kind: *kind, value, until });
                }
                Err(skipped) => effects.note(Some(skipped)),
            }
        }
        Some(effects)
    }

    /// Until when an event revokes, in Unix seconds.
    fn until(&self, fields: &Fields) -> Option<Result<u64, Skipped>> {
        let name = self.until.as_deref()?;
        let time = value(fields, name).map(str::parse::<u64>);
        Some(time.and_then(|it| it.map_err(|_| Skipped::NoTime(name.to_owned()))))
    }

    /// The paths below which lies all that its patterns of paths can name.
    pub fn reach(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().filter_map(|pattern| match pattern {
            Pattern::Path { template, .. } => {
                let literal = template.literal();
                // What is cut within a segment begins at its slash.
                let whole = if template.is_literal() {
                    literal
                } else {
                    literal.rfind('/').and_then(|at| literal.get(..at)).unwrap_or_default()
                };
                Some(if whole.is_empty() { "/" } else { whole })
            }
            Pattern::Tag(_) => None,
        })
    }

    /// Whether it has patterns of paths without what is below them.
    pub fn has_paths_alone(&self) -> bool {
        self.patterns
            .iter()
            .any(|pattern| matches!(pattern, Pattern::Path { and_below: false, .. }))
    }

    /// Whether it has patterns of tags, which may be anywhere.
    pub fn has_tags(&self) -> bool {
        self.patterns.iter().any(|pattern| matches!(pattern, Pattern::Tag(_)))
    }
}

impl Effects {
    /// Something was left out.
    pub fn note(&mut self, skipped: Option<Skipped>) {
        if self.skipped.is_none() {
            self.skipped = skipped;
        }
    }
}
