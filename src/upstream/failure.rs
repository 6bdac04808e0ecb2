//! Why there is no response, or not all of it.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error as TlsError};

use super::connection_error::ConnectionError;

/// Within which a place at a busy upstream is likely to be free again.
const PERMIT_SOON: Duration = Duration::from_secs(1);

/// Within which NATS, or a service on it, is likely to be back.
const BACK_SOON: Duration = Duration::from_secs(1);

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection could be made.
    #[error("cannot connect to the upstream")]
    Connect(#[source] io::Error),
    /// No connection within `connect_timeout`.
    #[error("the upstream did not accept a connection within connect_timeout")]
    ConnectTimeout,
    /// There is no connection with NATS, and nothing was sent.
    #[error("there is no connection with NATS at the moment")]
    Disconnected,
    /// Nobody listens to the subject of the message.
    #[error("no service listens to the subject on NATS")]
    NoResponders,
    /// The message would be longer than NATS takes.
    #[error("the request is longer than the messages that NATS takes")]
    TooLong,
    /// The service reads JSON, and the body is none: it would never answer.
    #[error("the request body is not JSON")]
    NotJson,
    /// The service has answered with an error of which no status is made.
    #[error("the service answered with an error: {0}")]
    Failed(String),
    /// No TLS with a server; nothing was sent to it.
    #[error("there is no TLS with the upstream")]
    Tls(#[source] Box<TlsFault>),
    /// All `max_requests` are in progress, or all `max_connections` are busy.
    #[error("all places at the upstream are taken; max_requests and max_connections bound them")]
    Busy,
    /// All servers are out.
    #[error("no server of the upstream is in: they are ejected, down or taken out by hand")]
    Unavailable(Duration),
    /// No name among the servers has an address.
    #[error("no name among the servers of the upstream has an address")]
    Unresolved,
    /// The upstream's breaker is open, for so long.
    #[error("too many requests to the upstream failed, and its breaker is open")]
    Open(Duration),
    /// No response head within `response_timeout`.
    #[error("the upstream did not answer within response_timeout")]
    Timeout,
    /// The same, while the client still owed a part of its body.
    #[error("the upstream did not answer within response_timeout, and waits for the body")]
    Starved,
    /// No response head within the time that the whole request has.
    #[error("the upstream did not answer within the deadline of the route")]
    Deadline,
    /// The connection ended or broke before the response.
    #[error("the upstream ended the exchange before it answered")]
    Broken(#[source] Option<ConnectionError>),
    /// The body broke off, or was withdrawn, before the response: no server is to blame.
    #[error("the request was withdrawn before the upstream answered")]
    Withdrawn,
    /// Every server that was asked says that it has not looked at the request.
    #[error("the upstream turned the request away")]
    TurnedAway(#[source] ConnectionError),
    /// The body was announced, and broke off before its first byte.
    #[error("the upstream ended the exchange before the first byte of the response's body")]
    CutOff(#[source] DownloadFault),
    /// Another request for the same got no answer, and this one waited for it.
    #[error("the upstream did not answer a request for the same a moment ago")]
    Shared,
    /// The response head is longer than its bounds.
    #[error(
        "the upstream's head is beyond the bounds `header_bytes` (its size) or `headers` (its \
         fields) of its table [upstreams.NAME], or announces an impossible length"
    )]
    HeadTooLarge,
    /// The response cannot be passed on safely.
    #[error("the upstream's response is malformed: {0}")]
    Malformed(&'static str),
}

impl Failure {
    /// Of an exchange whose connection ended.
    pub(super) fn lost(error: Option<ConnectionError>) -> Self {
        match error {
            Some(ConnectionError::Http1(error)) if error.is_parse_too_large() => Self::HeadTooLarge,
            error => match error.as_ref().and_then(TlsFault::of_exchange) {
                Some(fault) => Self::Tls(Box::new(fault)),
                None => Self::Broken(error),
            },
        }
    }

    /// Of a TLS handshake that did not end in time.
    pub(super) fn silent() -> Self {
        Self::Tls(Box::new(TlsFault::Silent))
    }

    /// Of a server that speaks another HTTP than the one that it must.
    pub(super) fn not_http2() -> Self {
        Self::Tls(Box::new(TlsFault::NotHttp2))
    }

    /// Of a server with which HTTP/2 did not begin, or that said GOAWAY before the first request.
    pub(super) fn without_http2(error: h2::Error) -> Self {
        let is_goaway = error.is_go_away() && error.is_remote();
        if is_goaway || error.reason() == Some(h2::Reason::NO_ERROR) {
            return Self::TurnedAway(error.into());
        }
        let error = ConnectionError::from(error);
        match TlsFault::of_exchange(&error) {
            Some(fault) => Self::Tls(Box::new(fault)),
            None => Self::Connect(io::Error::other(format!(
                "the server did not begin HTTP/2; does it speak it? ({error})"
            ))),
        }
    }

    /// Of a TLS handshake that failed.
    pub(super) fn unshaken(error: io::Error) -> Self {
        Self::Tls(Box::new(TlsFault::of_handshake(error)))
    }

    /// Of a connection for a tunnel, to a server that may speak HTTP/2 alone.
    pub(super) fn of_tunnel(self) -> Self {
        match self {
            Self::Tls(fault) if matches!(*fault, TlsFault::NoProtocol) => {
                Self::Tls(Box::new(TlsFault::NotHttp1))
            }
            failure => failure,
        }
    }

    /// Whether a server has taken up all the time that there was for a connection.
    pub fn has_waited_to_connect(&self) -> bool {
        match self {
            Self::ConnectTimeout => true,
            Self::Tls(fault) => matches!(**fault, TlsFault::Silent),
            _ => false,
        }
    }

    /// Whether no server is to blame: this process has no more files, ports, memory or places, or
    /// wanted a tunnel where there is none.
    pub(super) fn is_our_own(&self) -> bool {
        const NO_MORE_FILES: [i32; 2] = [23, 24];
        let error = match self {
            Self::Connect(error) => error,
            Self::Busy => return true,
            Self::Tls(fault) => return matches!(**fault, TlsFault::NotHttp1),
            _ => return false,
        };
        matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::OutOfMemory)
            || error.raw_os_error().is_some_and(|code| NO_MORE_FILES.contains(&code))
    }

    /// Whether the client is to blame, before anything was sent.
    pub(super) fn is_clients(&self) -> bool {
        matches!(self, Self::TooLong | Self::NotJson)
    }

    /// Whether the upstream has failed: not where the client is the cause, nor where the gateway
    /// had no room or no time.
    pub fn is_upstreams(&self) -> bool {
        match self {
            Self::Busy | Self::Starved | Self::Deadline | Self::Withdrawn | Self::Shared => false,
            failure => !failure.is_our_own() && !failure.is_clients(),
        }
    }

    /// Whether a server was waited for, by this request or by another one for the same.
    pub fn has_waited(&self) -> bool {
        !matches!(
            self,
            Self::Busy
                | Self::Unavailable(_)
                | Self::Unresolved
                | Self::Open(_)
                | Self::Disconnected
                | Self::TooLong
                | Self::NotJson
        )
    }

    /// The code with which the server has reset the stream of HTTP/2.
    pub fn reset_code(&self) -> Option<u32> {
        match self {
            Self::Broken(Some(error)) | Self::TurnedAway(error) => error.reset_code(),
            Self::CutOff(fault) => fault.reset_code(),
            _ => None,
        }
    }

    /// Whether the upstream may have acted on the request.
    pub fn may_have_acted(&self) -> bool {
        self.consequence().may_have_acted
    }

    /// Whether nobody has looked at the request, and for another reason than want of room: those
    /// who stand in for these servers may take it.
    pub fn is_others_turn(&self) -> bool {
        !self.may_have_acted() && !matches!(self, Self::Busy | Self::Shared)
    }

    /// Whether others who ask for the same would fail alike, and need not ask themselves.
    pub fn is_shared(&self) -> bool {
        self.consequence().is_shared
    }

    /// How long the client is to wait before it asks again (RFC 9110 §10.2.3), where waiting is
    /// likely to help.
    pub fn retry_after(&self) -> Option<Duration> {
        self.consequence().retry_after
    }

    /// The one place that says what follows from each failure.
    fn consequence(&self) -> Consequence {
        let unread = Consequence { may_have_acted: false, is_shared: true, retry_after: None };
        match self {
            Self::Timeout
            | Self::Starved
            | Self::Deadline
            | Self::Broken(_)
            | Self::Withdrawn
            | Self::CutOff(_)
            | Self::HeadTooLarge
            | Self::Failed(_)
            | Self::Malformed(_) => Consequence { may_have_acted: true, ..unread },
            Self::Connect(_)
            | Self::ConnectTimeout
            | Self::Tls(_)
            | Self::TurnedAway(_)
            | Self::Unresolved
            | Self::Shared => unread,
            Self::Unavailable(left) => Consequence { retry_after: Some(*left), ..unread },
            Self::Disconnected | Self::NoResponders => {
                Consequence { retry_after: Some(BACK_SOON), ..unread }
            }
            // Another client's request is another one.
            Self::TooLong | Self::NotJson => Consequence { is_shared: false, ..unread },
            // To ask costs nothing, and says more than that another one has asked.
            Self::Open(left) => {
                Consequence { is_shared: false, retry_after: Some(*left), ..unread }
            }
            // It may be this client alone who has used up its share.
            Self::Busy => {
                Consequence { is_shared: false, retry_after: Some(PERMIT_SOON), ..unread }
            }
        }
    }
}

/// What follows from a failure.
struct Consequence {
    may_have_acted: bool,
    is_shared: bool,
    retry_after: Option<Duration>,
}

/// Why there is no TLS with a server.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// It has not answered the handshake in time.
    #[error("the handshake did not end within connect_timeout; does the server speak TLS?")]
    Silent,
    /// It has answered something else: it may speak in clear, or another protocol.
    #[error("the server does not speak TLS there ({0})")]
    Foreign(TlsError),
    /// It has not proved who it is.
    #[error("{0}; {help}", help = help(.0))]
    Unproved(TlsError),
    /// It does not speak HTTP/2 under TLS, and nothing else was offered.
    #[error("the server does not choose HTTP/2 (ALPN); see protocol")]
    NotHttp2,
    /// It speaks HTTP/2 alone, and is asked for a tunnel.
    #[error(
        "the server does not choose HTTP/1.1 (ALPN), which opens WebSockets; give their route an \
         upstream that speaks it"
    )]
    NotHttp1,
    /// It speaks nothing of what was offered.
    #[error("the server chooses no HTTP that it was offered (ALPN); see protocol")]
    NoProtocol,
    /// It does not take the gateway's certificate, or wants one.
    #[error("the server refuses the gateway ({0:?}); see tls.client_cert")]
    Refused(AlertDescription),
    /// Anything else.
    #[error("{0}")]
    Broken(io::Error),
}

fn help(error: &TlsError) -> &'static str {
    match error {
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "a private authority must be named as tls.ca_file"
        }
        TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the name in the certificate must be the host of the url, or tls.server_name",
        _ => "the server needs another certificate",
    }
}

impl TlsFault {
    /// Of a handshake that failed.
    fn of_handshake(error: io::Error) -> Self {
        let said = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
        match said {
            Some(error @ TlsError::InvalidMessage(_)) => Self::Foreign(error.clone()),
            Some(error @ TlsError::InvalidCertificate(_)) => Self::Unproved(error.clone()),
            Some(TlsError::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
                Self::NoProtocol
            }
            Some(TlsError::AlertReceived(alert)) if is_about_us(*alert) => Self::Refused(*alert),
            _ => Self::Broken(error),
        }
    }

    /// Of an exchange, where the server ended TLS because of the gateway's certificate. In TLS 1.3
    /// it looks at that after the handshake is over for the client (RFC 8446 §4.4.2.4), and before
    /// it reads a request.
    fn of_exchange(error: &ConnectionError) -> Option<Self> {
        let error = match error {
            ConnectionError::Http1(error) => error.source()?.downcast_ref::<io::Error>()?,
            // h2 keeps the text alone.
            ConnectionError::Http2(error) => {
                let text = error.get_io()?.to_string();
                let is_alert = text.starts_with("received fatal alert: ");
                return is_alert.then(|| Self::Broken(io::Error::other(text)));
            }
            ConnectionError::PingLost => return None,
        };
        match error.get_ref()?.downcast_ref::<TlsError>()? {
            TlsError::AlertReceived(alert) if is_about_us(*alert) => Some(Self::Refused(*alert)),
            _ => None,
        }
    }
}

/// Whether an alert is about the certificate of whoever gets it (RFC 8446 §6.2).
fn is_about_us(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}

/// Why a response body ended early. The client sees a cut-off message, never a clean end.
#[derive(Debug, thiserror::Error)]
pub enum DownloadFault {
    /// The upstream cut it off or broke its framing.
    #[error("the upstream cut the response off")]
    Broken(#[source] ConnectionError),
    /// It paused for longer than `read_timeout`.
    #[error("the upstream paused for longer than read_timeout")]
    Stalled,
    /// Its stream of events paused for longer than `stream_timeout`.
    #[error("the upstream's stream of events paused for longer than stream_timeout")]
    Silent,
}

impl DownloadFault {
    /// The code with which the server has reset the stream of HTTP/2.
    pub fn reset_code(&self) -> Option<u32> {
        let Self::Broken(error) = self else { return None };
        error.reset_code()
    }
}
