//! Follows the files of what connections to Redis are made with. What has changed is proved by one
//! connection before any other is touched: the passwords of connections that stand are not looked
//! at by Redis any more, so a mistake would only be met with at the next outage.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::connect_error::ConnectError;
use super::credentials::{Change, Credentials};
use super::dial::{Call, Purpose};
use super::node::Node;
use crate::config;

/// Pause between two looks at the files.
const LOOK_PAUSE: Duration = Duration::from_secs(30);

/// Looks at the files, again and again. Ends when the store is dropped.
pub(super) async fn follow(
    credentials: Weak<Credentials>,
    node: Weak<Node>,
    settings: config::Store,
) {
    let mut said = String::new();
    loop {
        let Some(strong) = credentials.upgrade() else { return };
        // A reload has a look taken at once.
        let _ = tokio::time::timeout(LOOK_PAUSE, strong.look.notified()).await;
        let Some(node) = node.upgrade() else { return };
        match look(&strong, &node, &settings).await {
            Ok(true) => tracing::info!("the changed files of [store] are used for Redis"),
            Ok(false) => {}
            Err(why) => {
                if said != why {
                    tracing::warn!(
                        "the changed files of [store] are not used, and connections to Redis stay \
                         as they are: {why}\n    help: put in place what Redis accepts; it is \
                         looked at again every {LOOK_PAUSE:?}, and at a reload"
                    );
                }
                said = why;
                continue;
            }
        }
        said.clear();
    }
}

/// True when the files had changed, and what is in them is used from now on.
async fn look(
    credentials: &Arc<Credentials>,
    node: &Arc<Node>,
    settings: &config::Store,
) -> Result<bool, String> {
    let Some(change) = reread(credentials).await? else { return Ok(false) };
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

/// Redis refused what is in force: what the files hold now can only be better. True when it is
/// something else.
pub(super) async fn on_refusal(credentials: &Arc<Credentials>) -> bool {
    match reread(credentials).await {
        Ok(Some(change)) => {
            credentials.adopt(change);
            true
        }
        // What is wrong with the files is said by who follows them.
        Ok(None) | Err(_) => false,
    }
}

async fn reread(credentials: &Arc<Credentials>) -> Result<Option<Change>, String> {
    if !credentials.have_files() {
        return Ok(None);
    }
    let reading = Arc::clone(credentials);
    let read = tokio::task::spawn_blocking(move || reading.reread()).await;
    read.map_err(|error| error.to_string())?
}
