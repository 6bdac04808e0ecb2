//! From a file to a [`Config`]: reads it, parses it, walks it.

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use toml::de::DeTable;

use super::problem::{Problems, Source, render_syntax_error};
use super::reader::Section;
use super::walk::Reader;
use super::{
    Config, admin, auth, events, limit, log, queue, route, server, session, store, telemetry,
    upstream,
};
use crate::base::file::{self, FileFault};
use crate::base::http::hex;

/// Largest configuration file: 4 MiB. A file cannot say how long it may be itself.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// A configuration, and what is wrong with it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What the file says; a value that is wrong or missing has its default or is empty.
    pub config: Config,
    /// The mistakes in the file. While there is one, the configuration must not be served.
    pub problems: Problems,
    /// For printing problems, these and those that are found later.
    pub source: Source,
}

/// The SHA-256 of a configuration file, in hexadecimal; nothing where it cannot be read.
pub fn sha256_of(path: &Path) -> Option<String> {
    let bytes = file::read(path, CONFIG_BYTES_MAX).ok()?;
    Some(hex::encode(digest(&SHA256, &bytes).as_ref()))
}

/// Loads a file.
///
/// # Errors
/// Ready-to-print text, when the file cannot be read or is not TOML.
pub fn load(path: &Path) -> Result<Loaded, String> {
    let name = path.display().to_string();
    let bytes = file::read(path, CONFIG_BYTES_MAX).map_err(|fault| {
        let remedy = match &fault {
            FileFault::Unreadable(_) => "write this file, or name another one with --config",
            FileFault::Irregular(_) | FileFault::TooLarge(_) => fault.remedy(),
        };
        format!("{name}: cannot read the configuration: {fault}\n    help: {remedy}\n")
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("{name}:{line}: this line is not UTF-8\n    help: save the file as UTF-8\n")
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    parse(&name, folder, &text, &|variable| std::env::var(variable).ok())
}

/// Parses `text`, the content of a file called `name` in `folder`.
///
/// # Errors
/// Ready-to-print text, when it is not TOML.
pub fn parse(
    name: &str,
    folder: &Path,
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, String> {
    let table = DeTable::parse(text).map_err(|error| render_syntax_error(name, text, &error))?;
    let table = table.get_ref();
    let (config, problems) = Reader::new(folder, env).read(table, root);
    Ok(Loaded { config, problems, source: Source::new(name, text, table) })
}

/// The path of every key that can be written, such as `routes.NAME.cache.ttl`; the documentation is
/// checked against it.
pub fn known_keys() -> Vec<String> {
    Reader::survey(root)
}

/// Reads the whole file.
pub(super) fn root(file: &mut Section<'_>) -> Config {
    file.not_built("include", "no other file would be read");
    let mut queues = file.named("queues", queue::read);
    let mut routes = file.named("routes", route::read);
    let deferred = routes.iter_mut();
    let deferred = deferred.filter_map(|(name, route)| Some((name, route.deliver.as_mut()?)));
    queue::imply(&mut queues, deferred);
    queue::imply_callbacks(&mut queues);
    let mut store = file.section("store", store::read);
    store.has_queues = !queues.is_empty();
    Config {
        server: file.section("server", server::read),
        log: file.section("log", log::read),
        admin: file.section("admin", admin::read),
        store,
        traces: file.section("telemetry", telemetry::read),
        auth: file.named("auth", auth::read),
        session: file.optional("session", session::read),
        limits: file.named("limits", limit::read),
        events: file.named("events", events::read),
        upstreams: file.named("upstreams", upstream::read),
        queues,
        routes,
    }
}
