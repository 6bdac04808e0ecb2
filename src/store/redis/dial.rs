//! Makes connections to Redis: connects and logs in.

use std::sync::Arc;
use std::time::Duration;

use redis::PushInfo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::connect_error::ConnectError;
use super::connection::Connection;
use super::node::Node;
use super::says::Says;
use crate::config::{self, StoreUrl};

/// How long the kernel keeps unacknowledged data before it gives the connection up.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);
/// Who logs in with a password alone.
const DEFAULT_USER: &str = "default";

/// Connects to a server and logs in, as `settings` say. `on_push` is as in [`Connection::start`].
/// The caller has a deadline around it. Must be called within a tokio runtime.
pub(super) async fn dial<F>(
    settings: &config::Store,
    node: &Node,
    on_push: F,
) -> Result<Connection, ConnectError>
where
    F: FnMut(PushInfo) + Send + 'static,
{
    let says = &node.says;
    match node.address() {
        StoreUrl::Unix { path } => {
            let stream = UnixStream::connect(path).await.map_err(redis::RedisError::from)?;
            log_in(stream, settings, 0, says, on_push).await
        }
        StoreUrl::Redis { host, port, db } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await;
            let stream = stream.map_err(redis::RedisError::from)?;
            // Without these it is slower to answer and slower to fail, and works all the same.
            let _ = stream.set_nodelay(true);
            let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(TCP_USER_TIMEOUT));
            log_in(stream, settings, *db, says, on_push).await
        }
        // No server.
        _ => Err(ConnectError::Timeout),
    }
}

async fn log_in<S, F>(
    stream: S,
    settings: &config::Store,
    db: i64,
    says: &Arc<Says>,
    on_push: F,
) -> Result<Connection, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: FnMut(PushInfo) + Send + 'static,
{
    let connection = Connection::start(stream, settings.reply_bytes, says, on_push);
    // RESP3, because it tells of changed keys on the connection that asks for them.
    let mut hello = redis::cmd("HELLO");
    hello.arg(3);
    if let Some(password) = &settings.password {
        let username = settings.username.as_deref().unwrap_or(DEFAULT_USER);
        hello.arg("AUTH").arg(username).arg(password.expose());
    }
    connection.run(&hello).await?;
    if db != 0 {
        connection.run(redis::cmd("SELECT").arg(db)).await?;
    }
    Ok(connection)
}
