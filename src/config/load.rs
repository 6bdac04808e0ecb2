//! From a file to a [`Config`]: reads it, parses it, walks it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::document::Document;
use super::include;
use super::problem::Problems;
use super::reader::{Found, Section};
use super::source::{File, Source};
use super::value::text;
use super::walk::Reader;
use super::{
    Config, admin, auth, events, limit, log, provider, queue, route, server, session, signer,
    store, telemetry, upstream,
};
use crate::base::file::{self, FileFault};

/// A configuration, and what is wrong with it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What the files say; a value that is wrong or missing has its default or is empty.
    pub config: Config,
    /// The mistakes in the files. While there is one, the configuration must not be served.
    pub problems: Problems,
    /// What deserves a second look, as far as the files alone tell.
    pub warnings: Problems,
    /// The secrets that are not here, by key, each with where it would be. Where there is one, the
    /// configuration can be looked at, and must not be served.
    pub unseen: BTreeMap<String, String>,
    /// For printing problems, these and those that are found later.
    pub source: Source,
}

/// What the environment says.
pub(super) fn of_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The SHA-256 of a configuration, in hexadecimal, as [`Source::sha256`] has it; nothing where its
/// main file cannot be read.
pub fn sha256_of(path: &Path) -> Option<String> {
    include::sha256(path, &of_environment)
}

/// The files of a configuration, the main one first.
///
/// # Errors
/// Ready-to-print text, when the main file cannot be read or does not say which others there are.
pub fn files_of(path: &Path) -> Result<Vec<PathBuf>, String> {
    let (name, folder, text) = read(path)?;
    include::paths(&File::main(&name, folder, &text), path, &of_environment)
}

/// Loads a file, and those that it includes.
///
/// # Errors
/// Ready-to-print text, when one cannot be read or is not TOML.
pub fn load(path: &Path) -> Result<Loaded, String> {
    load_with(path, Secrets::Here)
}

/// Whether the secrets are on this machine that a configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// One that is not here is a mistake.
    Here,
    /// One that is not here may be where the gateway will be. Files and variables that are here are
    /// looked at all the same.
    MayBeElsewhere,
}

/// The same, of files whose secrets may be elsewhere.
///
/// # Errors
/// Ready-to-print text, when one cannot be read or is not TOML.
pub fn load_with(path: &Path, secrets: Secrets) -> Result<Loaded, String> {
    let (name, folder, text) = read(path)?;
    parse_with((&name, folder), &text, &of_environment, secrets)
}

/// The main file: its name, its folder and what it holds.
fn read(path: &Path) -> Result<(String, &Path, String), String> {
    let name = path.display().to_string();
    let bytes = file::read(path, include::CONFIG_BYTES_MAX).map_err(|fault| {
        let remedy = match &fault {
            FileFault::Unreadable(_) => "write this file, or name another one with --config",
            FileFault::Irregular(_) | FileFault::TooLarge(_) => fault.remedy(),
        };
        format!("{name}: cannot read the configuration: {fault}\n    help: {remedy}\n")
    })?;
    let text = include::text(&name, bytes)?;
    Ok((name, path.parent().unwrap_or(Path::new("")), text))
}

/// Parses `text`, the content of a file called `name` in `folder`, with the files that it includes.
///
/// # Errors
/// Ready-to-print text, when one is not TOML.
pub fn parse(
    name: &str,
    folder: &Path,
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, String> {
    parse_with((name, folder), text, env, Secrets::Here)
}

fn parse_with(
    (name, folder): (&str, &Path),
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
    secrets: Secrets,
) -> Result<Loaded, String> {
    let mut problems = Problems::default();
    let files = include::gather(File::main(name, folder, text), env, &mut problems)?;
    let mut source = Source::new(files)?;
    let document = Document::of(&source, env);
    let mut reader = Reader::of(&document, env);
    reader.unseen = (secrets == Secrets::MayBeElsewhere).then(RefCell::default);
    let (config, found) = reader.read(&document.table, root);
    let Found { problems: more, warnings, unseen } = found;
    let given = document.given();
    problems.extend(document.problems.without(|path| unseen.contains_key(path)));
    problems.extend(more);
    source.hide(given);
    Ok(Loaded { config, problems, warnings, unseen, source })
}

/// The path of every key that can be written, such as `routes.NAME.cache.ttl`; the documentation is
/// checked against it.
pub fn known_keys() -> Vec<String> {
    Reader::survey(root)
}

/// Reads all files together.
pub(super) fn root(file: &mut Section<'_>) -> Config {
    // Which files these are was asked before all of them were read.
    file.list_or_empty(include::INCLUDE, text);
    let mut queues = file.named("queues", queue::read);
    let mut routes = file.named("routes", route::read);
    let deferred = routes.iter_mut();
    let deferred = deferred.filter_map(|(name, route)| Some((name, route.deliver.as_mut()?)));
    queue::imply(&mut queues, deferred);
    queue::imply_callbacks(&mut queues);
    let mut store = file.section("store", store::read);
    store.has_queues = !queues.is_empty();
    let fsync = queues.values().any(|queue| queue.durability == queue::QueueDurability::Fsync);
    store.has_fsync = fsync;
    if let Some(own) = store.queue.as_deref_mut() {
        own.has_fsync = fsync;
    }
    Config {
        server: file.section("server", server::read),
        log: file.section("log", log::read),
        admin: file.section("admin", admin::read),
        store,
        traces: file.section("telemetry", telemetry::read),
        auth: file.named("auth", auth::read),
        providers: file.named("providers", provider::read),
        signers: file.named("signers", signer::read),
        session: file.optional("session", session::read),
        limits: file.named("limits", limit::read),
        events: file.named("events", events::read),
        upstreams: file.named("upstreams", upstream::read),
        queues,
        routes,
    }
}
