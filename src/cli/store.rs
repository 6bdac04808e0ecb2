//! What concerns Redis before the gateway runs: whether it can do what is asked of it, and the user
//! that it needs.

use std::process::ExitCode;

use clap::Args;

use crate::config::{CacheEpochs, Store, StoreUrl};
use crate::store::{acl, selftest, sentinel_acl};

/// Exit status where nothing can be right with the store.
const STORE_UNUSABLE: u8 = 3;
/// What the user is called where the configuration names none.
const USER: &str = "gateway";

/// Options of `acl`.
#[derive(Debug, Args)]
pub(super) struct Acl {
    /// Name of the user; that of store.username, or "gateway".
    #[arg(long)]
    user: Option<String>,
    /// With what store.cache_epochs = "follow" needs, whatever the configuration says.
    #[arg(long)]
    follow: bool,
    /// With what a Redis Cluster needs, whatever the configuration says.
    #[arg(long)]
    cluster: bool,
    /// The user of the sentinels instead; that of store.sentinel.username, or "gateway".
    #[arg(long)]
    sentinel: bool,
}

/// The command that makes the gateway's user in Redis.
pub(super) fn print_acl(options: &Acl, store: &Store) -> String {
    if options.sentinel {
        let own = store.sentinel.as_deref().and_then(|sentinel| sentinel.username.as_deref());
        return sentinel_acl(options.user.as_deref().or(own).unwrap_or(USER));
    }
    let user = options.user.as_deref().or(store.username.as_deref()).unwrap_or(USER);
    let follow = options.follow || store.cache_epochs == CacheEpochs::Follow;
    let cluster = options.cluster || matches!(store.url, StoreUrl::Cluster { .. });
    acl(user, &store.prefix, follow, cluster)
}

/// Prints what is not as it should be with the store; exit status 3 where it is fatal.
pub(super) async fn check(store: Store) -> ExitCode {
    if store.url == StoreUrl::Memory {
        println!("store: memory, nothing to look at");
        return ExitCode::SUCCESS;
    }
    if matches!(store.url, StoreUrl::Cluster { .. }) {
        println!("store: a Redis Cluster, which is not looked at yet");
        return ExitCode::SUCCESS;
    }
    let findings = selftest(&store).await;
    let is_usable = findings.iter().all(|finding| !finding.is_fatal);
    for finding in &findings {
        let level = if finding.is_fatal { "error" } else { "warning" };
        println!("store: {level}: {} ({})", finding.seen, finding.check);
        println!("    suffers: {}\n    help: {}", finding.suffers, finding.remedy);
    }
    if !is_usable {
        return ExitCode::from(STORE_UNUSABLE);
    }
    println!("store: ok");
    ExitCode::SUCCESS
}
