//! Finds out whether an address that gives no connection speaks TLS where clear text was expected,
//! or the other way round. Neither says so by itself: Redis hangs up on the one, and waits for the
//! end of a line on the other.

use std::io::ErrorKind;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::dial::connect;
use super::says::Condition;
use crate::base::client_tls::client_config;
use crate::config::{self, StoreUrl};

/// What is the matter with the address, where it is that. Within `store.connect_timeout`.
pub(super) async fn find(settings: &config::Store, address: &StoreUrl) -> Option<Condition> {
    let StoreUrl::Redis { host, port, .. } = address else { return None };
    let found = async {
        if settings.tls.is_some() {
            speaks_clear(host, *port).await.then_some(Condition::NoTls)
        } else {
            speaks_tls(host, *port).await.then_some(Condition::WantsTls)
        }
    };
    tokio::time::timeout(settings.connect_timeout, found).await.ok().flatten()
}

/// Whether there is a handshake; it may fail, because nobody is believed.
async fn speaks_tls(host: &str, port: u16) -> bool {
    let name = ServerName::try_from(host.to_owned());
    let (Ok(name), Ok(client)) = (name, client_config(&[], None)) else { return false };
    let Ok(stream) = connect(host, port).await else { return false };
    match TlsConnector::from(Arc::new(client)).connect(name, stream).await {
        Ok(_) => true,
        Err(error) => {
            let inner = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
            error.kind() == ErrorKind::InvalidData
                && !matches!(inner, None | Some(rustls::Error::InvalidMessage(_)))
        }
    }
}

/// Whether a command in clear is answered as Redis does.
async fn speaks_clear(host: &str, port: u16) -> bool {
    let Ok(mut stream) = connect(host, port).await else { return false };
    let mut first = [0];
    let asked = stream.write_all(b"PING\r\n").await;
    asked.is_ok() && stream.read_exact(&mut first).await.is_ok() && matches!(first, [b'+' | b'-'])
}
