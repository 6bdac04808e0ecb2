//! What every command that serves does first: diagnostics, then the listeners; and how it ends, or
//! is followed by another process.

pub mod handover;
pub mod signals;
pub mod sockets;
pub mod watch;

use std::sync::Arc;

use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use self::sockets::Sockets;
use crate::admin::Admin;
use crate::config::Level;
use crate::observe::AUDIT;
use crate::runtime::Gateway;
use crate::server::Server;
use crate::warm;

/// Diagnostics go to stderr; stdout belongs to the access log.
pub fn init_diagnostics(level: Level) {
    let level = match level {
        Level::Error => tracing::Level::ERROR,
        Level::Warn => tracing::Level::WARN,
        Level::Info => tracing::Level::INFO,
        Level::Debug => tracing::Level::DEBUG,
    };
    let is_wanted = filter_fn(move |line| is_told(*line.level(), line.target(), level))
        // What operators do is told at this level, and nothing beyond it is looked at in vain.
        .with_max_level_hint(level.max(tracing::Level::INFO));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_filter(is_wanted);
    // Only the first call counts; a reload cannot change the level.
    let _ = tracing_subscriber::registry().with(lines).try_init();
}

/// Whether a line of this level and target is written. What operators do is, always.
fn is_told(line: tracing::Level, target: &str, level: tracing::Level) -> bool {
    line <= level || target == AUDIT
}

/// Opens the listeners, or takes those that are open, and says where they are.
pub async fn bind(
    gateway: &Arc<Gateway>,
    sockets: &mut Sockets,
) -> Result<(Server, Admin), String> {
    let server = Server::bind(gateway, |name, address| sockets.listen(name, address)).await;
    let server = server.map_err(|error| error.to_string())?;
    let address = gateway.running().plan.config.admin.listen;
    let listener = sockets.listen("admin", address).map_err(|error| {
        format!(
            "cannot listen on {address}: {error}; is another process using it? change admin.listen"
        )
    })?;
    let admin = Admin::new(gateway, listener);
    sockets.close_others();
    tokio::spawn(warm::keep(Arc::downgrade(gateway)));
    for (public, speaks_tls) in server.addresses() {
        let kind = if speaks_tls { "tls" } else { "public" };
        tracing::info!("listening {kind}={public}");
    }
    if let Ok(address) = admin.address() {
        tracing::info!("listening admin={address}");
    }
    Ok((server, admin))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn the_audit_does_not_depend_on_the_level() {
        for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG] {
            assert!(is_told(Level::INFO, AUDIT, level));
        }
        assert!(!is_told(Level::INFO, "portcullis::cli", Level::ERROR));
        assert!(is_told(Level::ERROR, "portcullis::cli", Level::ERROR));
    }
}
