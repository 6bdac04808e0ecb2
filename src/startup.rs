//! What every command that serves does first: diagnostics, then the listeners; and how it ends, or
//! is followed by another process.

pub mod diagnostics;
pub mod handover;
pub mod signals;
pub mod sockets;
pub mod watch;

use std::sync::Arc;

use self::sockets::Sockets;
use crate::admin::Admin;
use crate::runtime::Gateway;
use crate::server::Server;
use crate::{courier, feed, warm};

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
    tokio::spawn(courier::keep(Arc::downgrade(gateway)));
    tokio::spawn(feed::keep(Arc::downgrade(gateway)));
    for (public, speaks_tls) in server.addresses() {
        let kind = if speaks_tls { "tls" } else { "public" };
        tracing::info!("listening {kind}={public}");
    }
    if let Ok(address) = admin.address() {
        tracing::info!("listening admin={address}");
    }
    Ok((server, admin))
}
