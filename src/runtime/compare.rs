//! The configuration that runs, as it is shown, and beside the file as it is now: which keys say
//! something else there, and what it costs to have them take effect.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::Gateway;
use super::reload::{fixed, one_line_each};
use crate::config::{self, Difference, Loaded, Shown, Source};
use crate::plan::Plan;

/// The file beside what runs.
#[derive(Debug, Serialize)]
pub struct Comparison {
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
    /// The configuration that runs, with its defaults and without its secrets; nothing where it
    /// came from no file.
    pub async fn shown_config(&self) -> Option<Value> {
        let file = self.file.get()?;
        let source = file.source();
        let _turn = file.looking.lock().await;
        tokio::task::spawn_blocking(move || Shown::of(&source).into_value()).await.ok()
    }

    /// The file as it is now beside what runs; nothing where there is no file.
    pub async fn compare_file(&self) -> Option<Comparison> {
        let file = self.file.get()?;
        let (source, path) = (file.source(), file.path().to_owned());
        let running = self.running();
        let _turn = file.looking.lock().await;
        // A disk may take its time.
        let compare = move || compare(&source, &running.plan, &path);
        tokio::task::spawn_blocking(compare).await.ok()
    }
}

fn compare(source: &Source, plan: &Plan, path: &Path) -> Comparison {
    let running = source.sha256();
    let Loaded { config, problems, source: there } = match config::load(path) {
        Ok(loaded) => loaded,
        Err(text) => {
            let (file, changes) = (config::sha256_of(path), Vec::new());
            let problems = one_line_each(&text);
            return Comparison { running, file, changes, problems, needs_restart: Vec::new() };
        }
    };
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
    let changed = Shown::of(source).differences(&Shown::of(&there));
    let changes =
        changed.into_iter().map(|it| Changed::of(it, &needs_restart, is_qualified)).collect();
    Comparison { running, file: Some(there.sha256()), changes, problems: told, needs_restart }
}

impl Changed {
    fn of(difference: Difference, needs_restart: &[&str], is_qualified: bool) -> Self {
        let Difference { key, old, new } = difference;
        let change = match (old.is_null(), new.is_null()) {
            (true, false) => "added",
            (false, true) => "removed",
            _ => "changed",
        };
        let cost = cost(&key, needs_restart, is_qualified);
        Self { key, change, old, new, cost }
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
        "limits" if ["key", "allow", "tiers"].contains(&leaf) => {
            Some("a window of another length, or another key, begins to count at zero")
        }
        "limits" if leaf.is_empty() => Some("it begins to count at zero"),
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
    use super::*;

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
        assert!(cost("limits.api.allow").contains("at zero"));
        assert!(cost("routes.a.auth").contains("joins another"));
    }
}
