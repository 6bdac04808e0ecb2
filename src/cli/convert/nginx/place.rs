//! A location of nginx: which requests are its own, and what holds in it.

use super::super::pattern::Simple;
use super::parse::Directive;
use super::scope::Scope;

/// How a location is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// `= /path`
    Exact(String),
    /// `/path`, or `^~ /path`
    Prefix(String),
    /// `~ regex`, `~* regex`, where a pattern stands for it.
    Pattern(Simple),
    /// What no route can be written for, by what its paths begin with.
    Blind(String),
}

/// One location.
#[derive(Debug, Clone)]
pub(super) struct Location<'d> {
    pub(super) kind: Kind,
    pub(super) scope: Scope<'d>,
    pub(super) block: &'d [Directive],
    pub(super) at: String,
    /// As it is written: `~ \.php$`.
    pub(super) expression: String,
    /// Whether no expression is asked after it: `^~`.
    pub(super) firm: bool,
    /// Whether capital letters are the same: `~*`.
    pub(super) ignores_case: bool,
    /// The prefix that it stands in.
    pub(super) within: Option<String>,
}
