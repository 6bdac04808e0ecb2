//! The configuration that runs, as it is shown, and beside the file as it is now: which keys say
//! something else there, and what it costs to have them take effect.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use super::Gateway;
use super::reload::{InForce, LastReload, Looked, fixed, look_at, one_line_each};
use crate::base::units::parse_duration;
use crate::config::{self, Difference, Loaded, Secrets, Source};
use crate::plan::Plan;

/// What runs.
#[derive(Debug)]
pub struct Shown {
    /// The file that it came from.
    pub path: String,
    /// Its SHA-256.
    pub sha256: String,
    /// When it was put in force, in Unix milliseconds.
    pub since_ms: i64,
    /// What came of the last reload; nothing where there was none.
    pub last: Option<LastReload>,
    /// What it says, with its defaults and without its secrets.
    pub config: Value,
}

/// The file beside what runs.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Where it is, for this process.
    pub path: String,
    /// The SHA-256 of the file that is in force.
    pub running: String,
    /// That of the file as it is now; nothing where it cannot be read.
    pub file: Option<String>,
    /// What it says otherwise.
    pub changes: Vec<Changed>,
    /// What is wrong with it: while there is something, it cannot take effect.
    pub problems: Vec<String>,
    /// Keys that cannot change while the gateway runs, and do.
    pub needs_restart: Vec<&'static str>,
    /// Secrets of both that are not here, where that is no mistake.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_looked_at: Vec<String>,
}

/// One key that says something else.
#[derive(Debug, Serialize)]
pub struct Changed {
    /// The key, or the table where one of both has none.
    pub key: String,
    /// `added`, `removed` or `changed`.
    pub change: &'static str,
    /// What holds now.
    pub old: Value,
    /// What would hold.
    pub new: Value,
    /// What it costs beside the change itself, where that is known.
    pub cost: Option<&'static str>,
}

impl Gateway {
    /// The configuration that runs; nothing where it came from no file.
    pub async fn shown_config(&self) -> Option<Shown> {
        let file = self.file.get()?;
        let turn = Arc::clone(&file.looking).lock_owned().await;
        let InForce { source, sha256, since_ms, last } = file.in_force();
        let config = holding(turn, move || config::Shown::of(&source).into_value()).await?;
        let path = file.path().display().to_string();
        Some(Shown { path, sha256, since_ms, last, config })
    }

    /// The file as it is now beside what runs; nothing where there is no file.
    pub async fn compare_file(&self) -> Option<Comparison> {
        let file = self.file.get()?;
        let turn = Arc::clone(&file.looking).lock_owned().await;
        let (source, path) = (file.in_force().source, file.path().to_owned());
        let running = self.running();
        // A disk may take its time.
        holding(turn, move || compare(&source, &running.plan, &path, Secrets::Here)).await
    }
}

/// Does something that takes memory or time while it holds a turn, also when nobody waits for it
/// any more: work of this kind goes on when its future is dropped.
async fn holding<T: Send + 'static>(
    turn: OwnedMutexGuard<()>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let work = move || {
        let _turn = turn;
        work()
    };
    tokio::task::spawn_blocking(work).await.ok()
}

/// A file beside another one, of which a gateway would run the first.
///
/// # Errors
/// What `portcullis check` prints of the first one, where that has mistakes.
pub fn compare_files(old: &Path, new: &Path, secrets: Secrets) -> Result<Comparison, String> {
    let Looked { plan, source, unseen } = look_at(old, secrets)?;
    let mut compared = compare(&source, &plan, new, secrets);
    compared.not_looked_at.splice(0..0, not_looked_at(old, &unseen));
    Ok(compared)
}

/// A line for each secret that is not here.
fn not_looked_at(path: &Path, unseen: &BTreeMap<String, String>) -> Vec<String> {
    let path = path.display();
    unseen.iter().map(|(key, place)| format!("{path}: {key} ({place})")).collect()
}

fn compare(source: &Source, plan: &Plan, path: &Path, secrets: Secrets) -> Comparison {
    let (running, place) = (source.sha256(), path.display().to_string());
    let loaded = match config::load_with(path, secrets) {
        Ok(loaded) => loaded,
        Err(text) => {
            return Comparison {
                path: place,
                running,
                file: config::sha256_of(path),
                changes: Vec::new(),
                problems: one_line_each(&text),
                needs_restart: Vec::new(),
                not_looked_at: Vec::new(),
            };
        }
    };
    let Loaded { config, problems, unseen, source: there, .. } = loaded;
    let not_looked_at = not_looked_at(path, &unseen);
    let mut told = Vec::new();
    if !problems.is_empty() {
        told = one_line_each(&there.render(&problems));
    }
    let (mut needs_restart, mut is_qualified) = (Vec::new(), false);
    match Plan::compile(config) {
        Ok(new) => {
            needs_restart = fixed(&plan.config, &new.config);
            is_qualified = new.newly_qualified(plan).next().is_some();
        }
        Err(more) => told.extend(one_line_each(&there.render(&more))),
    }
    let changed = config::Shown::of(source).differences(&config::Shown::of(&there));
    let changes =
        changed.into_iter().map(|it| Changed::of(it, &needs_restart, is_qualified)).collect();
    let (path, file) = (place, Some(there.sha256()));
    Comparison { path, running, file, changes, problems: told, needs_restart, not_looked_at }
}

impl Changed {
    fn of(difference: Difference, needs_restart: &[&str], is_qualified: bool) -> Self {
        let Difference { key, old, new } = difference;
        let change = match (old.is_null(), new.is_null()) {
            (true, false) => "added",
            (false, true) => "removed",
            _ => "changed",
        };
        let is_queue = key.strip_prefix("queues.").is_some_and(|name| !name.contains('.'));
        let cost = match change {
            "removed" if is_queue => Some("a reload is refused while it holds requests"),
            "changed" if key.starts_with("limits.") && key.ends_with(".allow") => {
                Some(of_windows(&windows(&old), &windows(&new)))
            }
            _ => cost(&key, needs_restart, is_qualified),
        };
        Self { key, change, old, new, cost }
    }
}

/// How long the windows of `allow` are.
fn windows(allow: &Value) -> BTreeSet<Duration> {
    let texts = match allow {
        Value::Array(texts) => texts.as_slice(),
        text => std::slice::from_ref(text),
    };
    let window = |text: &Value| parse_duration(text.as_str()?.split_once('/')?.1).ok();
    texts.iter().filter_map(window).collect()
}

/// What becomes of counts when the windows of a limit change.
fn of_windows(old: &BTreeSet<Duration>, new: &BTreeSet<Duration>) -> &'static str {
    match (new.is_subset(old), new.is_disjoint(old)) {
        (true, _) => "callers keep what they have used",
        (false, true) => "callers start at zero: no window is as long as one before",
        (false, false) => "in windows of a new length callers start at zero; the others count on",
    }
}

/// What a change of a key costs, where it costs something that its writer may not expect.
fn cost(key: &str, needs_restart: &[&str], is_qualified: bool) -> Option<&'static str> {
    const RESTART: &str = "takes effect with a restart alone; a reload is refused";
    // What of these tables may change while the gateway runs.
    let is_free = key.starts_with("store.on_outage")
        || (key.starts_with("server.tls.")
            && !["server.tls.listen", "server.tls.handshakes"].contains(&key));
    let is_of = |table: &str| {
        key.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    if !is_free && needs_restart.iter().any(|table| is_of(table)) {
        return Some(RESTART);
    }
    let mut steps = key.split('.');
    let (table, leaf) = (steps.next()?, steps.nth(1).unwrap_or_default());
    let of_upstream = ["protocol", "tls", "header_bytes", "headers"];
    match table {
        "upstreams" if of_upstream.contains(&leaf) => {
            Some("all connections to its servers begin anew")
        }
        "upstreams" if leaf == "servers" => Some("servers that stay keep their connections"),
        "limits" if leaf == "key" => Some("every caller starts at zero: it counts by another key"),
        "limits" if leaf == "tiers" => {
            Some("in windows of a new length callers start at zero; the others count on")
        }
        "limits" if leaf.is_empty() => Some("it starts at zero"),
        "auth" if ["secret", "public_key_file", "jwks_file", "jwks_url"].contains(&leaf) => {
            Some("tokens that were signed with the former keys are refused")
        }
        "routes" if leaf == "auth" && is_qualified => Some(
            "a verifier joins another one: revocations are looked for under keys with its name",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use tokio::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn who_leaves_gives_nobody_the_turn_before_the_work_is_done() {
        let looking = Arc::new(Mutex::new(()));
        let turn = Arc::clone(&looking).lock_owned().await;
        let ((begun, begins), (go, may_end)) = (tokio::sync::oneshot::channel(), channel::<()>());
        let asked = tokio::spawn(holding(turn, move || {
            let _ = begun.send(());
            may_end.recv().is_ok()
        }));
        begins.await.unwrap();
        asked.abort();
        assert!(asked.await.unwrap_err().is_cancelled());
        assert!(looking.try_lock().is_err(), "it is at work");
        go.send(()).unwrap();
        let _turn = looking.lock().await;
    }

    #[test]
    fn what_a_change_costs_is_known_by_its_key() {
        let cost = |key| cost(key, &["server.listen", "log", "store"], true).unwrap_or("");
        for key in ["server.listen", "log.level", "store", "store.url"] {
            assert!(cost(key).contains("restart"), "{key}");
        }
        for key in ["server.drain", "store.on_outage.limits", "logs", "routes.a.path", "admin.x"] {
            assert_eq!(cost(key), "", "{key}");
        }
        assert!(cost("upstreams.shop.protocol").contains("anew"));
        assert!(cost("limits.api.tiers").contains("new length"));
        assert!(cost("limits.api.key").starts_with("every caller starts at zero"));
        assert!(cost("routes.a.auth").contains("joins another"));
    }
}
