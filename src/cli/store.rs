//! What concerns Redis before the gateway runs: whether it can do what is asked of it, and the user
//! that it needs.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::config::{CacheEpochs, Store, StoreUrl, StoreUse};
use crate::store::{Located, acl_for, selftest, sentinel_acl};

/// Exit status where nothing can be right with the store.
const STORE_UNUSABLE: u8 = 3;
/// What the user is called where the configuration names none.
const USER: &str = "gateway";

/// A table of the configuration that may have a user of its own.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Table {
    Cache,
    Limits,
}

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
    /// The user of [store.cache] or [store.limits] instead; that of [store].
    #[arg(long = "for", value_name = "TABLE")]
    table: Option<Table>,
    /// The user of the sentinels instead; that of store.sentinel.username, or "gateway".
    #[arg(long)]
    sentinel: bool,
}

/// The command that makes the gateway's user in Redis.
///
/// # Errors
/// The configuration has no such table.
pub(super) fn print_acl(options: &Acl, main: &Store) -> Result<String, String> {
    let store = main.used_for(match options.table {
        None => StoreUse::Main,
        Some(Table::Cache) => StoreUse::Cache,
        Some(Table::Limits) => StoreUse::Limits,
    });
    if options.table.is_some() && store.usage == StoreUse::Main {
        return Err("the configuration has no such table: one user of [store] does all".to_owned());
    }
    if options.sentinel {
        let own = store.sentinel.as_deref().and_then(|sentinel| sentinel.username.as_deref());
        return Ok(sentinel_acl(options.user.as_deref().or(own).unwrap_or(USER)));
    }
    let user = options.user.as_deref().or(store.username.as_deref()).unwrap_or(USER);
    let follow = options.follow || store.cache_epochs == CacheEpochs::Follow;
    let cluster = options.cluster || matches!(store.url, StoreUrl::Cluster { .. });
    let uses: Vec<StoreUse> = store.uses().collect();
    Ok(acl_for(&uses, user, &store.prefix, follow, cluster))
}

/// Prints what is not as it should be with the store, or the stores; exit status 3 where anything
/// is fatal.
pub(super) async fn check(main: Store) -> ExitCode {
    let mut is_usable = true;
    for store in main.all() {
        is_usable &= is_usable_one(store).await;
    }
    if is_usable { ExitCode::SUCCESS } else { ExitCode::from(STORE_UNUSABLE) }
}

async fn is_usable_one(store: &Store) -> bool {
    let table = store.usage.table();
    if store.url == StoreUrl::Memory {
        println!("{table}: memory, nothing to look at");
        return true;
    }
    let findings = selftest(store).await;
    let is_usable = findings.iter().all(|located| !located.finding.is_fatal);
    for Located { servers, finding } in &findings {
        let level = if finding.is_fatal { "error" } else { "warning" };
        println!("{table}: {level}: {} ({})", finding.seen, finding.check);
        if !servers.is_empty() {
            println!("    at: {}", servers.join(", "));
        }
        println!("    suffers: {}\n    help: {}", finding.suffers, finding.remedy);
    }
    if is_usable {
        println!("{table}: ok");
    }
    is_usable
}
