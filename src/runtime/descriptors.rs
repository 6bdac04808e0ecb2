//! Whether the files that the process may open (`ulimit -n`) suffice for what is configured.

use std::path::Path;

use crate::base::file::{self, FILE_BYTES_MAX};
use crate::config::{Config, StoreUrl};

/// Beside what is configured: the admin listener's 64 connections, refused clients that read their
/// 503 (128), listeners, event queues, the log, files that are read, fetches of keys.
const RESERVE: usize = 256;
/// Connections to Redis beside one for each serving thread.
const STORE_LINKS: usize = 8;

/// How many files may be open, and how many may be needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptors {
    /// The soft limit, `ulimit -n`.
    pub allowed: usize,
    /// What the configuration may need.
    pub needed: usize,
    /// What to say where that is more.
    pub shortage: Option<String>,
}

impl Descriptors {
    /// Those of this process. On systems without `/proc`, or a limit, nobody knows.
    pub fn of(config: &Config) -> Option<Self> {
        let limits = file::read(Path::new("/proc/self/limits"), FILE_BYTES_MAX).unwrap_or_default();
        let limits = String::from_utf8_lossy(&limits);
        let (soft, hard) = open_files(&limits)?;
        let needed = Needed::of(config);
        let shortage = needed.shortage(soft, hard);
        Some(Self { allowed: soft, needed: needed.all(), shortage })
    }
}

/// Warns when they do not.
pub fn warn_of_descriptors(config: &Config) {
    if let Some(text) = Descriptors::of(config).and_then(|it| it.shortage) {
        tracing::warn!("{text}");
    }
}

/// The soft and the hard limit; nothing where there is none.
fn open_files(limits: &str) -> Option<(usize, usize)> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace();
    let soft = numbers.next()?.parse().ok()?;
    // "unlimited" is more than any number.
    let hard = numbers.next().and_then(|hard| hard.parse().ok()).unwrap_or(usize::MAX);
    Some((soft, hard))
}

/// What files are needed for.
#[derive(Debug)]
struct Needed {
    clients: usize,
    upstreams: usize,
    own: usize,
}

impl Needed {
    fn of(config: &Config) -> Self {
        let max_connections = config.upstreams.values().map(|upstream| match upstream.nats {
            Some(_) => 1,
            None => upstream.max_connections,
        });
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let servers = config.store.all().filter(|store| store.url != StoreUrl::Memory).count();
        let links = servers.saturating_mul(threads.saturating_add(STORE_LINKS));
        Self {
            clients: config.server.limits.connections,
            upstreams: max_connections.fold(0, usize::saturating_add),
            own: links.saturating_add(threads.saturating_mul(4)).saturating_add(RESERVE),
        }
    }

    fn all(&self) -> usize {
        self.clients.saturating_add(self.upstreams).saturating_add(self.own)
    }

    fn shortage(&self, soft: usize, hard: usize) -> Option<String> {
        let Self { clients, upstreams, own } = self;
        let needed = self.all();
        if needed <= soft {
            return None;
        }
        let hard = if hard < needed {
            format!(" (the hard limit is {hard}: whoever starts the gateway must raise it)")
        } else {
            String::new()
        };
        Some(format!(
            "ulimit -n allows {soft} open files, and the configuration may need {needed}: \
             {clients} for server.limits.connections, {upstreams} for \
             upstreams.NAME.max_connections, {own} for the gateway itself; beyond the limit, \
             clients are not accepted\n    \
             help: raise it with `ulimit -n {needed}` before the start, LimitNOFILE={needed} in a \
             systemd unit, or `docker run --ulimit nofile={needed}`{hard}; or lower \
             server.limits.connections"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max processes             100                  200             processes\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(open_files(limits), Some((1024, 524_288)));
        let endless = "Max open files            unlimited            unlimited        files\n";
        assert_eq!(open_files(endless), None);
        let open = "Max open files            1024            unlimited            files\n";
        assert_eq!(open_files(open), Some((1024, usize::MAX)));
        assert_eq!(open_files(""), None);
    }

    #[test]
    fn a_shortage_is_told_with_its_numbers() {
        let shortage = |config: &Config, soft, hard| Needed::of(config).shortage(soft, hard);
        let mut config = Config::default();
        config.server.limits.connections = 1000;
        assert_eq!(shortage(&config, usize::MAX, usize::MAX), None);
        let said = shortage(&config, 1024, 4096).unwrap();
        assert!(said.contains("allows 1024") && said.contains("1000 for server"), "{said}");
        assert!(said.contains("LimitNOFILE=") && !said.contains("hard limit"), "{said}");
        assert!(shortage(&config, 512, 512).unwrap().contains("the hard limit is 512"));
        config.server.limits.connections = usize::MAX;
        assert!(shortage(&config, 1024, 4096).is_some());
    }
}
