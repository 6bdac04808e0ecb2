//! The configuration file: read anew when somebody asks for it, one reload at a time, and what each
//! has changed. A file with a mistake never replaces a running configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::config::{self, Config, Loaded, Problems, Secrets, Source};
use crate::net::supervisor::Reloading;
use crate::plan::Plan;

/// The file that the gateway was started with.
#[derive(Debug)]
pub(super) struct ConfigFile {
    path: PathBuf,
    /// What is in force, and what came of the last reload: one is never seen without the other.
    in_force: Mutex<InForce>,
    /// Who has it reloads.
    turn: tokio::sync::Mutex<()>,
    /// Who has it shows what is in force: of a large file that takes memory.
    pub(super) looking: Arc<tokio::sync::Mutex<()>>,
}

/// A file as it was read, and since when it is in force.
#[derive(Debug, Clone)]
pub(super) struct InForce {
    /// What was read.
    pub(super) source: Source,
    /// Its SHA-256.
    pub(super) sha256: String,
    /// When it was put in force, in Unix milliseconds.
    pub(super) since_ms: i64,
    /// What came of the last reload; nothing where there was none.
    pub(super) last: Option<LastReload>,
}

impl InForce {
    /// From now on.
    fn new(source: Source) -> Self {
        let (sha256, since_ms) = (source.sha256(), jiff::Timestamp::now().as_millisecond());
        Self { source, sha256, since_ms, last: None }
    }
}

/// What came of a reload.
#[derive(Debug, Clone, Serialize)]
pub struct LastReload {
    /// `applied` or `refused`.
    pub result: &'static str,
    /// When.
    pub at: String,
    /// Why it was refused, one line for each problem.
    pub problems: Vec<String>,
    /// Keys that cannot change while the gateway runs, and did.
    pub needs_restart: Vec<String>,
}

impl LastReload {
    /// Nothing where it was another file than the one that was meant: nobody has found that bad.
    fn of(reloaded: &Result<Change, NotReloaded>) -> Option<Self> {
        let at = format!("{:.3}", jiff::Timestamp::now());
        let (problems, needs_restart) = match reloaded {
            Ok(_) => (Vec::new(), Vec::new()),
            Err(NotReloaded::Other(_)) => return None,
            Err(NotReloaded::NeedsRestart { keys, text }) => (one_line_each(text), keys.clone()),
            Err(refused) => (one_line_each(&refused.to_string()), Vec::new()),
        };
        let result = if reloaded.is_ok() { "applied" } else { "refused" };
        Some(Self { result, at, problems, needs_restart })
    }
}

/// What a reload has changed, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The SHA-256 of the file that is in force now.
    pub sha256: String,
    /// `[routes.NAME]`
    pub routes: Names,
    /// `[upstreams.NAME]`
    pub upstreams: Names,
    /// `[limits.NAME]`
    pub limits: Names,
    /// `[auth.NAME]`
    pub auth: Names,
    /// The tables without a name of the user's choice that differ: `server`, `telemetry`, `store`.
    pub sections: Vec<&'static str>,
}

/// Named tables of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    /// Those that were not there before.
    pub added: Vec<String>,
    /// Those that are there no more.
    pub removed: Vec<String>,
    /// Those that say something else.
    pub changed: Vec<String>,
}

/// Why the running configuration stays in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReloaded {
    /// The gateway was started without a file.
    #[error("the gateway was started without a configuration file")]
    NoFile,
    /// The file is not the one that was meant; its SHA-256.
    #[error("the file has changed meanwhile: its SHA-256 is {0}")]
    Other(String),
    /// The file has mistakes; the text that `portcullis check` prints.
    #[error("{0}")]
    Mistaken(String),
    /// These keys cannot change while the gateway runs.
    #[error("{text}")]
    NeedsRestart {
        /// Their paths.
        keys: Vec<String>,
        /// Each with its line and remedy.
        text: String,
    },
    /// These queues hold requests, and are to go.
    #[error("{text}")]
    QueueNotEmpty {
        /// The paths of their tables.
        keys: Vec<String>,
        /// Each with its remedy.
        text: String,
    },
}

/// Why a plan does not take the place of the one that is in force.
#[derive(Debug)]
pub(super) enum NotAdopted {
    /// These keys cannot change while the gateway runs.
    Fixed(Problems),
    /// These queues would be left behind with what they hold.
    QueueNotEmpty(Problems),
}

impl NotAdopted {
    fn told(&self, source: &Source) -> NotReloaded {
        let (Self::Fixed(problems) | Self::QueueNotEmpty(problems)) = self;
        let keys = problems.iter().map(|problem| problem.path.clone()).collect();
        let text = source.render(problems);
        match self {
            Self::Fixed(_) => NotReloaded::NeedsRestart { keys, text },
            Self::QueueNotEmpty(_) => NotReloaded::QueueNotEmpty { keys, text },
        }
    }
}

/// The keys that are fixed while the gateway runs, and differ.
pub(super) fn fixed(old: &Config, new: &Config) -> Vec<&'static str> {
    let keys = [
        ("server.listen", old.server.listen == new.server.listen),
        ("server.tls", old.server.tls_identity() == new.server.tls_identity()),
        ("admin", old.admin == new.admin),
        ("log", old.log == new.log),
        ("store", old.store.is_served_by(&new.store)),
    ];
    keys.into_iter().filter(|(_, is_same)| !is_same).map(|(key, _)| key).collect()
}

/// The plan of a file and its source, or a text that names every problem of it.
///
/// # Errors
/// What `portcullis check` prints.
pub fn read_plan(path: &Path) -> Result<(Plan, Source), String> {
    let Looked { plan, source, .. } = look_at(path, Secrets::Here)?;
    Ok((plan, source))
}

/// What files come to whose secrets may be elsewhere.
#[derive(Debug)]
pub struct Looked {
    /// What they mean; it must not be served where a secret is not here.
    pub plan: Plan,
    /// For printing what is wrong with it.
    pub source: Source,
    /// The secrets that are not here, by key, each with where it would be.
    pub unseen: BTreeMap<String, String>,
}

/// The same of files whose secrets may be elsewhere.
///
/// # Errors
/// See [`read_plan`].
pub fn look_at(path: &Path, secrets: Secrets) -> Result<Looked, String> {
    let loaded = config::load_with(path, secrets)?;
    let Loaded { config, mut problems, warnings, unseen, source } = loaded;
    match Plan::compile(config) {
        Ok(mut plan) if problems.is_empty() => {
            plan.warnings.extend(warnings);
            if unseen.keys().any(|key| key.starts_with("server.tls.certificates[")) {
                // Which hosts those certificates are for is not known here.
                let is_host = |it: &str| it.starts_with("routes.") && it.ends_with(".host");
                plan.warnings = plan.warnings.without(is_host);
            }
            Ok(Looked { plan, source, unseen })
        }
        Ok(_) => Err(source.render(&problems)),
        Err(more) => {
            problems.extend(more);
            Err(source.render(&problems))
        }
    }
}

impl ConfigFile {
    /// A file, and what was read of it at the start.
    pub(super) fn new(path: PathBuf, source: &Source) -> Self {
        Self {
            path,
            in_force: Mutex::new(InForce::new(source.clone())),
            turn: tokio::sync::Mutex::default(),
            looking: Arc::default(),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The SHA-256 of what is in force.
    pub(super) fn applied(&self) -> String {
        self.now().sha256.clone()
    }

    /// All that is known of what is in force.
    pub(super) fn in_force(&self) -> InForce {
        self.now().clone()
    }

    fn now(&self) -> MutexGuard<'_, InForce> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what came of a reload, and what it has put in force.
    fn ended(&self, read: Result<(Change, Source), NotReloaded>) -> Result<Change, NotReloaded> {
        let (reloaded, applied) = match read {
            Ok((change, source)) => (Ok(change), Some(InForce::new(source))),
            Err(refused) => (Err(refused), None),
        };
        let last = LastReload::of(&reloaded);
        let mut now = self.now();
        let last = last.or_else(|| now.last.take());
        if let Some(applied) = applied {
            *now = applied;
        }
        now.last = last;
        reloaded
    }

    /// Reads the file anew, and has it adopted where it may be: `adopt` returns the plan that was
    /// in force and the one that is. `expected` is the SHA-256 that the file must have.
    pub(super) async fn reload(
        &self,
        expected: Option<&str>,
        adopt: impl AsyncFnOnce(Plan) -> Result<[Arc<Plan>; 2], NotAdopted>,
    ) -> Result<Change, NotReloaded> {
        let _turn = self.turn.lock().await;
        // Its end is told also where the reload is refused, or given up.
        let _told = Reloading::begin();
        let read = self.read_anew(expected, adopt).await;
        // While it is this one's turn, so that the last reload is the one that came last.
        self.ended(read)
    }

    async fn read_anew(
        &self,
        expected: Option<&str>,
        adopt: impl AsyncFnOnce(Plan) -> Result<[Arc<Plan>; 2], NotAdopted>,
    ) -> Result<(Change, Source), NotReloaded> {
        let path = self.path.clone();
        // Reading files and parsing keys would hold up the requests of this thread.
        let read = tokio::task::spawn_blocking(move || read_plan(&path)).await;
        let read = read.unwrap_or_else(|error| Err(error.to_string()));
        let (plan, source) = read.map_err(NotReloaded::Mistaken)?;
        let sha256 = source.sha256();
        if expected.is_some_and(|expected| !expected.eq_ignore_ascii_case(&sha256)) {
            return Err(NotReloaded::Other(sha256));
        }
        warn_of(&plan, &source);
        let adopted = adopt(plan).await;
        let [former, now] = adopted.map_err(|refused| refused.told(&source))?;
        Ok((Change::between(&former.config, &now.config, &sha256), source))
    }
}

/// What deserves a second look in a file that is served all the same.
pub fn warn_of(plan: &Plan, source: &Source) {
    for warning in one_line_each(&source.render_warnings(&plan.warnings)) {
        tracing::warn!("the configuration: {warning}");
    }
}

/// What `portcullis check` would print, without the lines of the file: one line for each problem,
/// as each is a diagnostic with a time and a level of its own.
pub(super) fn one_line_each(text: &str) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    let mut what = "";
    for line in text.lines() {
        match line.trim_start().strip_prefix("help: ") {
            Some(help) => told.push(format!("{what}; help: {help}")),
            None if !line.starts_with(' ') => what = line,
            None => {}
        }
    }
    // What has no remedy is no list of problems.
    if told.is_empty() { text.lines().map(str::to_owned).collect() } else { told }
}

impl Change {
    fn between(old: &Config, new: &Config, sha256: &str) -> Self {
        let sections = [
            ("server", old.server == new.server),
            ("log", old.log == new.log),
            ("admin", old.admin == new.admin),
            ("store", old.store == new.store),
            ("session", old.session == new.session),
            ("providers", old.providers == new.providers),
            ("signers", old.signers == new.signers),
            ("telemetry", old.traces == new.traces),
        ];
        Self {
            sha256: sha256.to_owned(),
            routes: Names::between(&old.routes, &new.routes),
            upstreams: Names::between(&old.upstreams, &new.upstreams),
            limits: Names::between(&old.limits, &new.limits),
            auth: Names::between(&old.auth, &new.auth),
            sections: sections.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect(),
        }
    }

    /// One line for the log: `routes +b -a ~c; server`.
    pub(super) fn summary(&self) -> String {
        let named = [
            ("routes", &self.routes),
            ("upstreams", &self.upstreams),
            ("limits", &self.limits),
            ("auth", &self.auth),
        ];
        let mut parts: Vec<String> = named
            .iter()
            .filter(|(_, names)| **names != Names::default())
            .map(|(kind, names)| format!("{kind}{}", names.summary()))
            .collect();
        parts.extend(self.sections.iter().map(|name| (*name).to_owned()));
        if parts.is_empty() { "nothing differs".to_owned() } else { parts.join("; ") }
    }
}

impl Names {
    fn between<T: PartialEq>(old: &BTreeMap<String, T>, new: &BTreeMap<String, T>) -> Self {
        let missing = |here: &BTreeMap<String, T>, there: &BTreeMap<String, T>| {
            here.keys().filter(|name| !there.contains_key(*name)).cloned().collect()
        };
        let changed = |(name, value): &(&String, &T)| old.get(*name).is_some_and(|it| it != *value);
        Self {
            added: missing(new, old),
            removed: missing(old, new),
            changed: new.iter().filter(changed).map(|(name, _)| name.clone()).collect(),
        }
    }

    fn summary(&self) -> String {
        let marked = [('+', &self.added), ('-', &self.removed), ('~', &self.changed)];
        let names = marked.iter().flat_map(|(mark, names)| names.iter().map(move |it| (mark, it)));
        names.map(|(mark, name)| format!(" {mark}{name}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let env = |_: &str| None;
        config::parse("gateway.toml", Path::new("."), text, &env).unwrap().config
    }

    #[test]
    fn each_problem_is_one_line() {
        let text = "g.toml:3:1: server.lisetn: unknown key\n    lisetn = 1\n    help: did you mean \
                    `listen`?\ng.toml:9:1: log: wrong\n    [log]\n    help: x\n2 problems\n";
        let told = [
            "g.toml:3:1: server.lisetn: unknown key; help: did you mean `listen`?",
            "g.toml:9:1: log: wrong; help: x",
        ];
        assert_eq!(one_line_each(text), told);
        assert_eq!(one_line_each("there is no file"), ["there is no file"]);
        assert!(one_line_each("").is_empty());
    }

    #[test]
    fn a_file_that_was_not_meant_is_no_bad_one() {
        let source =
            |text: &str| config::parse("g.toml", Path::new("."), text, &|_| None).unwrap().source;
        let file = ConfigFile::new(PathBuf::from("g.toml"), &source(""));
        let last = || file.in_force().last.map(|last| last.result);
        let refused = || NotReloaded::Other("5ha".to_owned());
        assert_eq!((file.ended(Err(refused())), last()), (Err(refused()), None));
        let mistaken = || NotReloaded::Mistaken("wrong".to_owned());
        assert_eq!((file.ended(Err(mistaken())), last()), (Err(mistaken()), Some("refused")));
        assert_eq!((file.ended(Err(refused())), last()), (Err(refused()), Some("refused")));
        let new = source("[session]\n");
        assert!(file.ended(Ok((Change::default(), new.clone()))).is_ok());
        assert_eq!((file.applied(), last()), (new.sha256(), Some("applied")));
    }

    #[test]
    fn what_differs_is_told_by_name() {
        let shop = |retries: &str| {
            format!("[upstreams.shop]\nservers = [\"http://127.0.0.1:1\"]\n{retries}")
        };
        let route = |name: &str, path: &str| {
            format!("[routes.{name}]\npath = \"{path}\"\nupstream = \"shop\"\n")
        };
        let two = "[limits.two]\nkey = [\"address\"]\nallow = [\"2/1h\"]\n";
        let old = [shop(""), route("a", "/a"), route("b", "/b"), route("same", "/same")].concat();
        let new = [
            shop("response_timeout = \"7s\"\n"),
            route("b", "/other"),
            route("c", "/c"),
            route("same", "/same"),
            two.to_owned(),
            "[server]\ndrain = \"7s\"\n".to_owned(),
        ];
        let change = Change::between(&config(&old), &config(&new.concat()), "5ha");
        let names = |added: &[&str], removed: &[&str], changed: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            Names { added: owned(added), removed: owned(removed), changed: owned(changed) }
        };
        let expected = Change {
            sha256: "5ha".to_owned(),
            routes: names(&["c"], &["a"], &["b"]),
            upstreams: names(&[], &[], &["shop"]),
            limits: names(&["two"], &[], &[]),
            auth: Names::default(),
            sections: vec!["server"],
        };
        assert_eq!(change, expected);
        assert_eq!(change.summary(), "routes +c -a ~b; upstreams ~shop; limits +two; server");
        let same = Change::between(&config(&old), &config(&old), "5ha");
        assert_eq!(same.summary(), "nothing differs");
    }
}
