//! Why there is no response, or not all of it.

use std::io::ErrorKind;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection could be made.
    #[error("cannot connect to the upstream")]
    Connect(#[source] std::io::Error),
    /// No connection within `connect_timeout`.
    #[error("the upstream did not accept a connection within connect_timeout")]
    ConnectTimeout,
    /// All `max_connections` are busy.
    #[error("all connections to the upstream are busy; max_connections bounds them")]
    Busy,
    /// No response head within `response_timeout`.
    #[error("the upstream did not answer within response_timeout")]
    Timeout,
    /// The connection ended or broke before the response.
    #[error("the upstream ended the exchange before it answered")]
    Broken(#[source] Option<hyper::Error>),
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
    pub(super) fn lost(error: Option<hyper::Error>) -> Self {
        match error {
            Some(error) if error.is_parse_too_large() => Self::HeadTooLarge,
            error => Self::Broken(error),
        }
    }

    /// Whether no server is to blame: this process has no more files, ports or memory.
    pub(super) fn is_our_own(&self) -> bool {
        const NO_MORE_FILES: [i32; 2] = [23, 24];
        let Self::Connect(error) = self else { return false };
        matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::OutOfMemory)
            || error.raw_os_error().is_some_and(|code| NO_MORE_FILES.contains(&code))
    }

    /// Whether the upstream may have acted on the request.
    pub fn may_have_acted(&self) -> bool {
        match self {
            Self::Timeout
            | Self::Broken(_)
            | Self::CutOff(_)
            | Self::HeadTooLarge
            | Self::Malformed(_) => true,
            Self::Connect(_) | Self::ConnectTimeout | Self::Busy | Self::Shared => false,
        }
    }
}

/// Why a response body ended early. The client sees a cut-off message, never a clean end.
#[derive(Debug, thiserror::Error)]
pub enum DownloadFault {
    /// The upstream cut it off or broke its framing.
    #[error("the upstream cut the response off")]
    Broken(#[source] hyper::Error),
    /// It paused for longer than `read_timeout`.
    #[error("the upstream paused for longer than read_timeout")]
    Stalled,
    /// Its stream of events paused for longer than `stream_timeout`.
    #[error("the upstream's stream of events paused for longer than stream_timeout")]
    Silent,
}
