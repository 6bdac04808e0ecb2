//! `GET /v1/store`: what Redis says of itself to `[store.operator]`.

use http::StatusCode;
use serde_json::{Value, json};

use super::reply::{Reply, json as reply_json};
use crate::config::StoreUse;
use crate::runtime::Gateway;
use crate::store::{Look, Looks, SHOWN, Slow};

/// The store, and those of the uses that have one of their own.
pub(super) async fn show(gateway: &Gateway) -> Reply {
    let mut all = one(gateway, StoreUse::Main).await;
    for usage in gateway.store.uses().filter(|usage| *usage != StoreUse::Main) {
        all[usage.word()] = one(gateway, usage).await;
    }
    reply_json(StatusCode::OK, &all)
}

async fn one(gateway: &Gateway, usage: StoreUse) -> Value {
    let Some(Looks { is_cluster, servers }) = gateway.store.look(usage).await else {
        return json!({ "kind": "memory" });
    };
    let kind = if is_cluster { "cluster" } else { "redis" };
    let Some(servers) = servers else {
        let help = format!(
            "`portcullis acl --operator` prints the command that makes a user who may look; name \
             it in [{}.operator]",
            usage.table()
        );
        return json!({ "kind": kind, "not_permitted": SHOWN, "help": help });
    };
    let user = gateway.running().plan.config.store.used_for(usage).operator.clone();
    let user = user.map(|user| user.username).unwrap_or_default();
    let mut servers = servers.iter().map(|look| told(look, &user));
    if is_cluster {
        return json!({ "kind": kind, "servers": servers.collect::<Vec<_>>() });
    }
    // Behind sentinels there may be none at the moment.
    let mut told = servers.next().unwrap_or_else(|| json!({ "failure": "no primary is known" }));
    told["kind"] = kind.into();
    told
}

fn told(look: &Look, user: &str) -> Value {
    let Look { node, ping, told, keys, slow, not_permitted, failure } = look;
    let mut value = json!({
        "node": node,
        "ping_s": ping.map(|ping| ping.as_secs_f64()),
        "keys": keys,
        "slowlog": slow.iter().map(slow_one).collect::<Vec<_>>(),
        "not_permitted": not_permitted,
    });
    if let Some(now) = told {
        value["topology"] = json!({ "role": now.role, "replicas": now.replicas });
        let (used, max) = (now.memory_used, now.memory_max);
        value["memory"] = json!({ "used": used, "max": max, "policy": now.policy });
        value["evicted"] = now.evicted.into();
        value["clients"] = now.clients.into();
        value["version"] = now.version.clone().into();
    }
    if let Some(failure) = failure {
        value["failure"] = failure.clone().into();
    }
    if !not_permitted.is_empty() {
        let rights: Vec<String> = not_permitted.iter().map(|right| format!("+{right}")).collect();
        value["help"] = format!("ACL SETUSER {user} {}", rights.join(" ")).into();
    }
    value
}

fn slow_one(slow: &Slow) -> Value {
    let at = jiff::Timestamp::from_second(slow.at_s).ok();
    json!({
        "at": at.map(|at| at.to_string()),
        "took_s": slow.took.as_secs_f64(),
        "command": slow.command,
        "keys": slow.keys,
        "client": slow.client,
    })
}
