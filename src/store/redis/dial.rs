//! Makes connections to Redis: connects, begins TLS and logs in.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::PushInfo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connect_error::ConnectError;
use super::connection::Connection;
use super::credentials::{Material, Tls};
use super::node::Node;
use crate::base::instance;
use crate::config::{self, StoreUrl};

/// How long the kernel keeps unacknowledged data before it gives the connection up.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);
/// Who logs in with a password alone.
const DEFAULT_USER: &str = "default";
/// Most handshakes of TLS at a time in this process. One costs Redis 0.4 ms of its only thread.
const HANDSHAKES_MAX: usize = 4;

static HANDSHAKES: Semaphore = Semaphore::const_new(HANDSHAKES_MAX);

/// What a connection is for; `CLIENT LIST` shows it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Requests,
    /// Pieces of cached bodies, from a replica.
    Reads,
    Revocations,
    Epochs,
    /// Events of applications.
    Events,
    /// Who has which slots of a Redis Cluster.
    Map,
    /// Where the primary is.
    Sentinel,
    Probe,
    /// Replicas.
    Wait,
    /// Who may only look.
    Operator,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requests => "requests",
            Self::Reads => "reads",
            Self::Revocations => "revocations",
            Self::Epochs => "epochs",
            Self::Events => "events",
            Self::Map => "map",
            Self::Sentinel => "sentinel",
            Self::Probe => "probe",
            Self::Wait => "wait",
            Self::Operator => "operator",
        })
    }
}

/// A connection to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) settings: &'a config::Store,
    pub(super) node: &'a Node,
    pub(super) material: &'a Material,
    pub(super) purpose: Purpose,
}

impl Call<'_> {
    /// Connects to the server and logs in. `on_push` is as in [`Connection::start`]. The caller has
    /// a deadline around it. Must be called within a tokio runtime.
    pub(super) async fn dial<F>(self, on_push: F) -> Result<Connection, ConnectError>
    where
        F: FnMut(PushInfo) + Send + 'static,
    {
        match self.node.address() {
            StoreUrl::Unix { path } => {
                let stream = UnixStream::connect(path).await.map_err(redis::RedisError::from)?;
                self.log_in(stream, 0, on_push).await
            }
            StoreUrl::Redis { host, port, db } => {
                let stream = connect(host, *port).await.map_err(redis::RedisError::from)?;
                match &self.material.tls {
                    None => self.log_in(stream, *db, on_push).await,
                    Some(tls) => {
                        // Until the server has answered: its part of the handshake may come late.
                        let _permit = HANDSHAKES.acquire().await;
                        let stream = encrypt(stream, host, tls).await?;
                        self.log_in(Box::new(stream), *db, on_push).await
                    }
                }
            }
            // No server, or several, each of which is called by its own address.
            StoreUrl::Memory | StoreUrl::Cluster { .. } | StoreUrl::Sentinel { .. } => {
                Err(ConnectError::Timeout)
            }
        }
    }

    async fn log_in<S, F>(self, stream: S, db: i64, on_push: F) -> Result<Connection, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: FnMut(PushInfo) + Send + 'static,
    {
        let Self { settings, node, material, purpose } = self;
        let connection = Connection::start(stream, settings.reply_bytes, &node.says, on_push);
        // RESP3, because it tells of changed keys on the connection that asks for them.
        let mut hello = redis::cmd("HELLO");
        hello.arg(3);
        if let Some(password) = &material.password {
            hello.arg("AUTH").arg(user(settings)).arg(password.expose());
        }
        hello.arg("SETNAME").arg(format!("portcullis:{}:{purpose}", instance::name()));
        connection.run(&hello).await?;
        if db != 0 {
            connection.run(redis::cmd("SELECT").arg(db)).await?;
        }
        Ok(connection)
    }
}

/// Who logs in.
pub(super) fn user(settings: &config::Store) -> &str {
    settings.username.as_deref().unwrap_or(DEFAULT_USER)
}

/// A connection over TCP.
pub(super) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    // Without these it is slower to answer and slower to fail, and works all the same.
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(TCP_USER_TIMEOUT));
    Ok(stream)
}

async fn encrypt(
    stream: TcpStream,
    host: &str,
    tls: &Tls,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let client = tls.client.as_ref().map_err(|why| ConnectError::Files(why.clone()))?;
    let name = match &tls.server_name {
        Some(name) => name.clone(),
        None => ServerName::try_from(host.to_owned())
            .map_err(|error| redis::RedisError::from(io::Error::other(error)))?,
    };
    let connector = TlsConnector::from(Arc::clone(client));
    Ok(connector.connect(name, stream).await.map_err(redis::RedisError::from)?)
}
