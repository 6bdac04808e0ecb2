//! Follows the files of certificates: who renews them swaps the files, and tells nobody.

use std::sync::Arc;
use std::time::Duration;

use crate::observe::TlsMeter;
use crate::tls::{Live, Looked};

/// How often the files are looked at.
pub(super) const PERIOD: Duration = Duration::from_secs(5);

/// Looks at the files once, and says what came of it.
pub(super) async fn look(live: &Arc<Live>, meter: &TlsMeter) {
    let now = jiff::Timestamp::now().as_second();
    let looking = Arc::clone(live);
    match tokio::task::spawn_blocking(move || looking.look(now)).await {
        Ok(Looked::Swapped) => {
            meter.reloaded("applied");
            tracing::info!("the certificates of server.tls were read anew");
        }
        Ok(Looked::Refused(Some(why))) => {
            meter.reloaded("refused");
            tracing::warn!(
                "the changed files of server.tls are not used, and the former certificates stay: \
                 {why}\n    help: put the certificate and its key in place; both are looked at \
                 again every {PERIOD:?}"
            );
        }
        Ok(Looked::Same | Looked::Refused(None)) | Err(_) => {}
    }
}
