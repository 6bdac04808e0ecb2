//! Whether the files that the process may open (`ulimit -n`) suffice for what is configured.

use std::path::Path;

use crate::base::file::{self, FILE_BYTES_MAX};
use crate::config::{Config, StoreUrl};

/// Beside what is configured: the admin listener's 64 connections, refused clients that read their
/// 503 (128), listeners, event queues, the log, files that are read, fetches of keys.
const RESERVE: usize = 256;
/// Connections to Redis beside one for each serving thread.
const STORE_LINKS: usize = 8;

/// Warns when they do not. On systems without `/proc` nobody knows.
pub(super) fn warn(config: &Config) {
    let limits = file::read(Path::new("/proc/self/limits"), FILE_BYTES_MAX).unwrap_or_default();
    let limits = String::from_utf8_lossy(&limits);
    if let Some(text) = open_files(&limits).and_then(|(soft, hard)| shortage(config, soft, hard)) {
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

fn shortage(config: &Config, soft: usize, hard: usize) -> Option<String> {
    let clients = config.server.limits.connections;
    let max_connections = config.upstreams.values().map(|upstream| upstream.max_connections);
    let upstreams = max_connections.fold(0, usize::saturating_add);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let servers = config.store.all().filter(|store| store.url != StoreUrl::Memory).count();
    let links = servers.saturating_mul(threads.saturating_add(STORE_LINKS));
    let own = links.saturating_add(threads.saturating_mul(4)).saturating_add(RESERVE);
    let needed = clients.saturating_add(upstreams).saturating_add(own);
    if needed <= soft {
        return None;
    }
    let hard = if hard < needed {
        format!(" (the hard limit is {hard}: whoever starts the gateway must raise it)")
    } else {
        String::new()
    };
    Some(format!(
        "ulimit -n allows {soft} open files, and the configuration may need {needed}: {clients} \
         for server.limits.connections, {upstreams} for upstreams.NAME.max_connections, {own} for \
         the gateway itself; beyond the limit, clients are not accepted\n    \
         help: raise it with `ulimit -n {needed}` before the start, LimitNOFILE={needed} in a \
         systemd unit, or `docker run --ulimit nofile={needed}`{hard}; or lower \
         server.limits.connections"
    ))
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
