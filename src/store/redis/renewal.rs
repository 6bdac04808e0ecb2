//! Follows the files of what connections to Redis are made with. What has changed is proved by one
//! connection before any other is touched: the passwords of connections that stand are not looked
//! at by Redis any more, so a mistake would only be met with at the next outage.

use std::sync::{Arc, Weak};

use tokio::sync::Notify;

use super::connect_error::ConnectError;
use super::dial::{Call, Purpose};
use super::files::Looks;
use super::topology::Topology;

/// Looks at the files, again and again. Ends when the store is dropped.
pub(super) async fn follow(topology: Weak<Topology>, look_now: Arc<Notify>) {
    let mut looks = Looks::default();
    loop {
        Looks::next(&look_now).await;
        let Some(topology) = topology.upgrade() else { return };
        looks.tell(topology.common.table, look(&topology).await);
    }
}

/// True when the files had changed, and what is in them is used from now on.
async fn look(topology: &Topology) -> Result<bool, String> {
    let (settings, credentials) = (&topology.settings, &topology.common.credentials);
    let Some(change) = credentials.changed().await? else { return Ok(false) };
    let Some(node) = &topology.any_node() else { return Err("no server is known".to_owned()) };
    let call = Call { settings, node, material: &change.material, purpose: Purpose::Probe };
    let proof = async {
        let connection = call.dial(|_| {}).await?;
        connection.run(&redis::cmd("PING")).await.map_err(ConnectError::from)
    };
    match tokio::time::timeout(settings.connect_timeout, proof).await {
        Ok(Ok(_)) => {
            credentials.adopt(change);
            Ok(true)
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(ConnectError::Timeout.to_string()),
    }
}
