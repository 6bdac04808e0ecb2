//! Makes connections to Redis, each read through a guard that knows where replies begin and end.
//! One that is too long, that nobody asked for or that is no RESP3 ends the connection before it is
//! in memory.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;

use super::connect_error::ConnectError;
use super::framing::{Fault, Framing};
use super::says::{Condition, Says};
use crate::config::{self, StoreUrl};

/// How long the kernel keeps unacknowledged data before it gives the connection up.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection and the task that drives it, which ends with this.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) handle: MultiplexedConnection,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Connects to the server of `settings` and logs in. The caller has a deadline around it.
pub(super) async fn dial(
    settings: &config::Store,
    config: AsyncConnectionConfig,
    says: &Arc<Says>,
) -> Result<Connection, ConnectError> {
    // Our own deadline is around every exchange; the library's would be a second timer.
    let config = config.set_response_timeout(None);
    match &settings.url {
        StoreUrl::Unix { path } => {
            let stream = UnixStream::connect(path).await.map_err(redis::RedisError::from)?;
            log_in(stream, settings, 0, config, says).await
        }
        StoreUrl::Redis { host, port, db } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await;
            let stream = stream.map_err(redis::RedisError::from)?;
            // Without these it is slower to answer and slower to fail, and works all the same.
            let _ = stream.set_nodelay(true);
            let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(TCP_USER_TIMEOUT));
            log_in(stream, settings, *db, config, says).await
        }
        StoreUrl::Memory => Err(ConnectError::Timeout),
    }
}

async fn log_in<S>(
    stream: S,
    settings: &config::Store,
    db: i64,
    config: AsyncConnectionConfig,
    says: &Arc<Says>,
) -> Result<Connection, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // RESP3, because only it reports a closed connection to an idle client.
    let mut redis = RedisConnectionInfo::default()
        .set_db(db)
        .set_protocol(ProtocolVersion::RESP3)
        // Telling the server our library's name needs a right of its own since Redis 7.2.
        .set_skip_set_lib_name();
    if let Some(username) = &settings.username {
        redis = redis.set_username(username);
    }
    if let Some(password) = &settings.password {
        redis = redis.set_password(String::from_utf8_lossy(password.expose()));
    }
    let guarded = Guarded {
        stream,
        replies: Framing::new(settings.reply_bytes),
        commands: Framing::new(u64::MAX),
        waiting: 0,
        says: Arc::clone(says),
    };
    let (handle, driver) = MultiplexedConnection::new_with_config(&redis, guarded, config).await?;
    Ok(Connection { handle, driver: tokio::spawn(driver).abort_handle() })
}

/// A socket whose replies are watched.
#[derive(Debug)]
struct Guarded<S> {
    stream: S,
    replies: Framing,
    commands: Framing,
    /// Commands that were not answered yet.
    waiting: u64,
    says: Arc<Says>,
}

impl<S> Guarded<S> {
    /// What the server sent is a reply to what was asked, or the end of the connection.
    fn hear(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let replies = self.replies.read(bytes)?;
        self.waiting = self.waiting.checked_sub(replies).ok_or(Fault::Unasked)?;
        Ok(())
    }
}

/// An error of a kind that the library takes for the end of the connection.
fn ended(fault: Fault) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, fault)
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let new = buffer.filled().get(before..).unwrap_or_default();
        Poll::Ready(self.hear(new).map_err(|fault| {
            self.says.note(match fault {
                Fault::TooLong => Condition::ReplyTooLong,
                Fault::Garbled | Fault::Unasked => Condition::ForeignReply,
            });
            ended(fault)
        }))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        let commands = self.commands.read(bytes.get(..written).unwrap_or_default());
        self.waiting += commands.map_err(ended)?;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn guarded() -> (Guarded<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (stream, server) = tokio::io::duplex(1024);
        let says = Arc::new(Says::default());
        let (replies, commands) = (Framing::new(100), Framing::new(u64::MAX));
        (Guarded { stream, replies, commands, waiting: 0, says }, server)
    }

    /// What a client reads that has sent these commands when the server answers this.
    async fn exchange(commands: &str, answer: &str) -> std::io::Result<usize> {
        let (mut guarded, mut server) = guarded();
        guarded.write_all(commands.as_bytes()).await?;
        server.write_all(answer.as_bytes()).await?;
        guarded.read(&mut [0; 1024]).await
    }

    #[tokio::test]
    async fn as_many_replies_as_commands_pass() {
        const PING: &str = "*1\r\n$4\r\nPING\r\n";
        assert_eq!(exchange(PING, "+PONG\r\n").await.unwrap(), 7);
        assert_eq!(
            exchange(&PING.repeat(2), ":1\r\n:2\r\n>1\r\n+invalidate\r\n").await.unwrap(),
            25
        );
        for (commands, answer) in
            [("", "+OK\r\n"), (PING, ":1\r\n:1\r\n"), (PING, "$1000\r\n"), (PING, "what?\r\n")]
        {
            let error = exchange(commands, answer).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{answer}");
        }
    }
}
