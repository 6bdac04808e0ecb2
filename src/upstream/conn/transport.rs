//! The way to one server: its addresses, TCP, and TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use crate::base::socket::{Encrypted, Socket};
use crate::config;
use crate::upstream::failure::Failure;

/// How long one address of a server is tried alone (RFC 8305 §5, Connection Attempt Delay).
const ADDRESS_DELAY: Duration = Duration::from_millis(250);

/// Where a server is, and how it is spoken to.
#[derive(Debug)]
pub(in crate::upstream) struct Transport {
    host: String,
    port: u16,
    /// The name that led to it, where `host` is one of its addresses.
    name: Option<String>,
    tls: Option<Box<Tls>>,
    /// The url of the place that it is on NATS, where it is one.
    nats: Option<Box<str>>,
}

#[derive(Debug)]
struct Tls {
    client: Arc<ClientConfig>,
    /// What the server must prove.
    name: ServerName<'static>,
}

impl Transport {
    /// The way to `server`, through `tls` where it is behind `https://`.
    pub(in crate::upstream) fn new(
        server: &config::Endpoint,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Self {
        let secure = |(name, client): (&ServerName<'static>, &Arc<ClientConfig>)| {
            Box::new(Tls { client: Arc::clone(client), name: name.clone() })
        };
        Self {
            host: server.host.trim_matches(['[', ']']).to_owned(),
            port: server.port,
            name: server.name.clone(),
            tls: server.tls.as_ref().zip(tls).map(secure),
            nats: None,
        }
    }

    /// The same, of servers of NATS, to which nothing here connects.
    pub(in crate::upstream) fn of_nats(self, nats: &config::Nats) -> Self {
        let urls: Vec<String> = nats.servers.iter().map(config::NatsServer::url).collect();
        Self { nats: Some(urls.join(",").into()), ..self }
    }

    /// The server's address as the configuration writes it.
    pub(in crate::upstream) fn url(&self) -> String {
        if let Some(url) = &self.nats {
            return url.to_string();
        }
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }

    /// Its url, and its host and port as the configuration names them.
    pub(in crate::upstream) fn place(&self) -> (String, String, u16) {
        let host = self.name.as_ref().unwrap_or(&self.host);
        (self.url(), host.clone(), self.port)
    }

    /// Host and port as the server knows itself: by its name, where it has one.
    pub(in crate::upstream) fn host(&self) -> String {
        match &self.name {
            Some(name) => format!("{name}:{}", self.port),
            None => self.authority(),
        }
    }

    fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Whether it is the way to `server`.
    pub(in crate::upstream) fn leads_to(&self, server: &config::Endpoint) -> bool {
        self.host == server.host.trim_matches(['[', ']'])
            && self.port == server.port
            && self.name == server.name
            && self.tls.as_ref().map(|tls| &tls.name) == server.tls.as_ref()
    }

    /// Connects, and has the server prove who it is before anything is sent.
    ///
    /// # Errors
    /// [`Failure::Connect`], [`Failure::Tls`] and, after the deadline, [`Failure::ConnectTimeout`].
    pub(in crate::upstream) async fn connect(&self, deadline: Instant) -> Result<Socket, Failure> {
        self.connect_offering(None, deadline).await
    }

    /// The same, for HTTP/1.1 alone, whatever else is offered otherwise.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(in crate::upstream) async fn connect_for_http1(
        &self,
        deadline: Instant,
    ) -> Result<Socket, Failure> {
        self.connect_offering(Some(vec![b"http/1.1".to_vec()]), deadline).await
    }

    /// `protocols`: what is offered (ALPN), where it is not what it always is.
    async fn connect_offering(
        &self,
        protocols: Option<Vec<Vec<u8>>>,
        deadline: Instant,
    ) -> Result<Socket, Failure> {
        let tcp = timeout_at(deadline, self.tcp()).await;
        let tcp = tcp.map_err(|_| Failure::ConnectTimeout)?.map_err(Failure::Connect)?;
        let Some(tls) = &self.tls else { return Ok(Socket::Plain(tcp)) };
        let connector = TlsConnector::from(Arc::clone(&tls.client));
        let name = tls.name.clone();
        let handshake = match protocols {
            None => connector.connect(name, tcp),
            Some(protocols) => connector.with_alpn(protocols).connect(name, tcp),
        };
        let shaken = timeout_at(deadline, handshake).await;
        let stream = shaken.map_err(|_| Failure::silent())?.map_err(Failure::unshaken)?;
        Ok(Socket::Tls(Box::new(Encrypted { stream: stream.into(), says: None })))
    }

    async fn tcp(&self) -> io::Result<TcpStream> {
        let mut addresses = tokio::net::lookup_host((self.host.as_str(), self.port)).await?;
        let nowhere = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let first = addresses.next().ok_or_else(nowhere)?;
        let tcp = match addresses.next() {
            None => TcpStream::connect(first).await?,
            Some(second) => in_turn([first, second].into_iter().chain(addresses)).await?,
        };
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }
}

/// A connection to the first of several addresses that takes one. Each is tried when the one
/// before it has failed, or has said nothing for [`ADDRESS_DELAY`] and is still waited for.
async fn in_turn(mut addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    loop {
        let next = addresses.next();
        let is_last = next.is_none();
        if let Some(address) = next {
            attempts.spawn(TcpStream::connect(address));
        }
        let ended = if is_last {
            attempts.join_next().await
        } else {
            match timeout(ADDRESS_DELAY, attempts.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        };
        match ended {
            Some(Ok(Ok(tcp))) => return Ok(tcp),
            Some(Ok(Err(error))) => failure = error,
            Some(Err(error)) => failure = error.into(),
            None if is_last => return Err(failure),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// A port that refuses connections for as long as this is held.
    fn dead() -> (TcpSocket, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[tokio::test]
    async fn the_first_address_that_answers_is_taken() {
        let (_one, first) = dead();
        let (_two, second) = dead();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        let tcp = in_turn([first, second, alive].into_iter()).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), alive);
        let error = in_turn([first, second].into_iter()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    /// Nobody answers at an address of TEST-NET-1 (RFC 5737), whether it is unreachable or silent.
    #[tokio::test]
    async fn one_that_says_nothing_holds_nobody_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        let silent = "192.0.2.1:80".parse().unwrap();
        let tcp = in_turn([silent, alive].into_iter()).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), alive);
    }
}
