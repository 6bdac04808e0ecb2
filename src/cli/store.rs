//! What concerns Redis before the gateway runs: whether it can do what is asked of it, and the user
//! that it needs.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::secrets::WithoutSecrets;
use crate::base::terminal::out_line;
use crate::config::{CacheEpochs, Config, Store, StoreUrl, StoreUse};
use crate::store::{AclFor, Located, acl_for, events_acl, operator_acl, selftest, sentinel_acl};

/// Exit status where nothing can be right with the store.
const STORE_UNUSABLE: u8 = 3;
/// What the user is called where the configuration names none.
const USER: &str = "gateway";
/// The same of who may only look.
const OPERATOR: &str = "operator";

/// A table of the configuration that may have a user of its own.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Table {
    Cache,
    Limits,
    Queue,
}

/// How a user is written down.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Setuser,
    File,
    Secret,
}

impl Format {
    /// A command of Redis that makes a user, in this form. A whole file of users has nobody else in
    /// it, and Redis's own first user may do all and needs no password unless the file says
    /// otherwise.
    fn write(self, command: &str) -> String {
        let line = || command.replacen("ACL SETUSER ", "user ", 1);
        match self {
            Self::Setuser => command.to_owned(),
            Self::File => line(),
            Self::Secret => format!(
                "apiVersion: v1\nkind: Secret\nmetadata:\n  name: redis-users\ntype: Opaque\n\
                 stringData:\n  users.acl: |\n    user default off\n    {}",
                line()
            ),
        }
    }
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
    /// The user of [store.cache], [store.limits] or [store.queue] instead; that of [store].
    #[arg(long = "for", value_name = "TABLE")]
    table: Option<Table>,
    /// The user of [store.operator] instead, who may only look; that one's name, or "operator".
    #[arg(long, conflicts_with = "sentinel")]
    operator: bool,
    /// First part of every key; that of store.prefix.
    #[arg(long)]
    prefix: Option<String>,
    /// For redis-cli, as a line of Redis's file of users, or as a Secret of Kubernetes with a whole
    /// file, in which the user `default` is off.
    #[arg(long, value_enum, default_value_t = Format::Setuser)]
    format: Format,
    /// The user of the sentinels instead; that of store.sentinel.username, or "gateway".
    #[arg(long)]
    sentinel: bool,
    #[command(flatten)]
    pub(super) secrets: WithoutSecrets,
}

/// The command that makes the gateway's user in Redis.
///
/// # Errors
/// The configuration has no such table.
pub(super) fn print_acl(options: &Acl, config: &Config) -> Result<String, String> {
    let main = &config.store;
    let store = main.used_for(match options.table {
        None => StoreUse::Main,
        Some(Table::Cache) => StoreUse::Cache,
        Some(Table::Limits) => StoreUse::Limits,
        Some(Table::Queue) => StoreUse::Queue,
    });
    if options.table.is_some() && store.usage == StoreUse::Main {
        return Err("the configuration has no such table: one user of [store] does all".to_owned());
    }
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if options.prefix.as_ref().is_some_and(|it| it.is_empty() || !it.bytes().all(is_plain)) {
        return Err("the prefix is made of letters, digits, `_`, `.` and `-`".to_owned());
    }
    let (user, format) = (options.user.as_deref(), options.format);
    let prefix = options.prefix.as_deref().unwrap_or(&store.prefix);
    if options.sentinel {
        let own = store.sentinel.as_deref().and_then(|sentinel| sentinel.username.as_deref());
        return Ok(format.write(&sentinel_acl(user.or(own).unwrap_or(USER))));
    }
    if options.operator {
        let own = store.operator.as_deref().map(|operator| &*operator.username);
        return Ok(format.write(&operator_acl(user.or(own).unwrap_or(OPERATOR), prefix)));
    }
    let user = user.or(store.username.as_deref()).unwrap_or(USER);
    let beside = AclFor {
        follow: options.follow || store.cache_epochs == CacheEpochs::Follow,
        cluster: options.cluster || matches!(store.url, StoreUrl::Cluster { .. }),
        fsync: store.waits_for_disk(),
    };
    let uses: Vec<StoreUse> = store.uses().collect();
    let mut line = acl_for(&uses, (user, prefix), beside);
    if uses.contains(&StoreUse::Main) {
        line += &events_acl(config.events.values().map(|events| &events.from), &store.url);
    }
    Ok(format.write(&line))
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
        out_line(&format!("{table}: memory, nothing to look at"));
        return true;
    }
    let findings = selftest(store).await;
    let is_usable = findings.iter().all(|located| !located.finding.is_fatal);
    for Located { servers, finding } in &findings {
        let level = if finding.is_fatal { "error" } else { "warning" };
        out_line(&format!("{table}: {level}: {} ({})", finding.seen, finding.check));
        if !servers.is_empty() {
            out_line(&format!("    at: {}", servers.join(", ")));
        }
        out_line(&format!("    suffers: {}\n    help: {}", finding.suffers, finding.remedy));
    }
    if is_usable {
        out_line(&format!("{table}: ok"));
    }
    is_usable
}
