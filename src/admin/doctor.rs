//! `POST /v1/doctor`: everything about Redis that can be looked at from here, whether issuers give
//! their keys, and whether this process may open enough files. The command looks in the same way
//! where no gateway answers.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::reply::{Effect, Fault, Reply, json as reply_json, parse};
use crate::base::instance;
use crate::config::{Config, KeySource, RemoteKeys};
use crate::issuer;
use crate::runtime::{Descriptors, Gateway};
use crate::store::{Checked, StoreError, Verdict, doctor};

/// Each look asks Redis hundreds of times, so there is one at a time.
static PLACE: Semaphore = Semaphore::const_new(1);

/// There is nothing to say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Looks, unless somebody else does.
pub(super) async fn carry_out(gateway: &Gateway, body: &[u8]) -> Result<Reply, Fault> {
    let Nothing {} = parse(body, "{}")?;
    let permit = PLACE.try_acquire().map_err(|_| Fault::Problem {
        status: StatusCode::CONFLICT,
        code: "doctor_running",
        detail: "Redis is being looked at already: repeat it when that is done.".to_owned(),
    })?;
    let (plan, runtime) = (gateway.running().plan.clone(), Handle::current());
    let look = move || {
        // Whoever asks may leave; the place is free when Redis is.
        let _permit = permit;
        runtime.block_on(examine(&plan.config, &format!("the gateway {}", instance::name())))
    };
    // Beside the listener: its probes are answered meanwhile.
    let answer = tokio::task::spawn_blocking(look).await;
    let answer = answer.map_err(|_| Fault::Store(StoreError::Unavailable))?;
    let level = answer["level"].as_str().unwrap_or_default().to_owned();
    let mut reply = reply_json(StatusCode::OK, &answer);
    reply.extensions_mut().insert(Effect("level", level));
    Ok(reply)
}

/// All that is seen, and the worst of it; `by` says who looks. Must be called within a tokio
/// runtime.
pub async fn examine(config: &Config, by: &str) -> Value {
    let mut rows = Vec::new();
    for store in config.store.all() {
        let table = store.usage.table();
        rows.extend(doctor(store).await.into_iter().map(|row| (table.to_owned(), row)));
    }
    rows.extend(keys(config).await);
    rows.push(("server".to_owned(), files(Descriptors::of(config).as_ref())));
    let worst = rows.iter().map(|(_, row)| row.verdict).max().unwrap_or(Verdict::Good);
    let told = rows.iter().map(|(table, row)| told(table, row));
    json!({ "by": by, "level": worst.word(), "checks": told.collect::<Vec<_>>() })
}

fn told(table: &str, row: &Checked) -> Value {
    json!({
        "table": table,
        "check": row.check,
        "level": row.verdict.word(),
        "servers": row.servers,
        "value": row.value,
        "bound": row.bound,
        "do": row.remedy,
    })
}

/// Whether issuers give their keys to whoever asks from here; each place is asked once.
async fn keys(config: &Config) -> Vec<(String, Checked)> {
    let mut rows = Vec::new();
    let mut seen: Vec<&RemoteKeys> = Vec::new();
    for (name, verifier) in &config.auth {
        let Some(KeySource::Url(source)) = &verifier.keys else { continue };
        if seen.iter().any(|known| known.are_those_of(source)) {
            continue;
        }
        seen.push(source);
        let (verdict, value, remedy) = match issuer::look(source, &verifier.algorithms).await {
            Ok(value) => (Verdict::Good, value, String::new()),
            Err((value, remedy)) => (Verdict::Poor, value, remedy),
        };
        let servers = vec![source.url.to_string()];
        let row =
            Checked { check: "issuer", verdict, servers, value, bound: String::new(), remedy };
        rows.push((format!("auth.{name}"), row));
    }
    rows
}

/// Whether this process may open enough files.
fn files(known: Option<&Descriptors>) -> Checked {
    const CHECK: &str = "files";
    let row = |verdict, value, bound, remedy: &str| Checked {
        check: CHECK,
        verdict,
        servers: Vec::new(),
        value,
        bound,
        remedy: remedy.to_owned(),
    };
    let Some(Descriptors { allowed, needed, shortage }) = known else {
        let value = "nobody says how many files may be open".to_owned();
        return row(Verdict::Unknown, value, String::new(), "");
    };
    let value = format!("ulimit -n is {allowed}");
    let bound = format!("{needed}, for all connections that the configuration allows");
    match shortage {
        None => row(Verdict::Good, value, bound, ""),
        Some(_) => {
            let remedy = format!(
                "raise it (LimitNOFILE={needed} in a systemd unit), or lower \
                 server.limits.connections"
            );
            row(Verdict::Watch, value, bound, &remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_files_are_watched() {
        let of = |allowed, shortage: Option<&str>| {
            let shortage = shortage.map(str::to_owned);
            files(Some(&Descriptors { allowed, needed: 12_000, shortage }))
        };
        assert_eq!(of(65_536, None).verdict, Verdict::Good);
        let few = of(1024, Some("too few"));
        assert_eq!((few.verdict, &*few.value), (Verdict::Watch, "ulimit -n is 1024"));
        assert!(few.remedy.contains("LimitNOFILE=12000"), "{few:?}");
        assert_eq!(files(None).verdict, Verdict::Unknown);
    }

    #[tokio::test]
    async fn memory_has_nothing_to_look_at() {
        let told = examine(&Config::default(), "me").await;
        assert_eq!((&told["by"], &told["checks"][0]["check"]), (&json!("me"), &json!("store")));
        assert_eq!(told["checks"][0]["level"], "good");
        assert_eq!(told["checks"][1]["check"], "files");
    }
}
