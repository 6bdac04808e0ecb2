//! Why a request ends at the gateway.

use http::StatusCode;

use crate::auth::Denied;
use crate::base::body::UploadFault;
use crate::cors::ForeignPage;
use crate::deliver::Refused;
use crate::events;
use crate::guard::{BadHandshake, Malformed};
use crate::idempotency::NotOnce;
use crate::limit::Exceeded;
use crate::oidc;
use crate::route::NoRoute;
use crate::runtime::NotMade;
use crate::session::{CrossSite, NoSession};
use crate::signing;
use crate::store::StoreError;
use crate::tunnel::End;
use crate::upstream::Failure;

/// Why a request ends here.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// Not well formed.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// No route.
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    /// The connection is for hosts of whose clients TLS asks something else (RFC 9110 §15.5.20).
    #[error("TLS asks something else of the host's clients than it asked on this connection")]
    Misdirected,
    /// The request has passed here already.
    #[error("the request has passed this gateway before, as its Via says")]
    Loop,
    /// A preflight of a page that may not call the route.
    #[error(transparent)]
    ForeignPage(#[from] ForeignPage),
    /// Not permitted.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Nobody can say whether the token was revoked.
    #[error("revocation is unknown: {0}")]
    RevocationUnknown(#[source] StoreError),
    /// Over a limit.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// No session.
    #[error("{why}")]
    NoSession {
        /// Why there is none that is in force.
        #[source]
        why: NoSession,
        /// Whether the route knows callers by credentials, too, so that others could help.
        takes_credentials: bool,
    },
    /// Its idempotency key, or that it has none.
    #[error(transparent)]
    NotOnce(#[from] NotOnce),
    /// `only-if-cached`, and it is not.
    #[error("the client asked for a cached response only, and there is none")]
    OnlyIfCached,
    /// The body of a stored response, which its origin had just confirmed, is gone.
    #[error("the body of a stored response is gone from the store")]
    CacheLost,
    /// The client's body.
    #[error(transparent)]
    Upload(#[from] UploadFault),
    /// The time of a gRPC call is over.
    #[error("the call took longer than its client waits, or its route allows")]
    DeadlineExceeded {
        /// Whether the client's own time was the shorter one.
        is_clients: bool,
    },
    /// Nothing of a gRPC call has moved for the route's `grpc.idle_timeout`.
    #[error("nothing of the call moved within idle_timeout")]
    CallIdle,
    /// What let the caller of a gRPC call in has ended before the call.
    #[error("the call was ended: {}", .0.word())]
    CallEnded(End),
    /// The upstream.
    #[error(transparent)]
    Upstream(#[from] Failure),
    /// It is not accepted for later, or nothing is told of what was.
    #[error(transparent)]
    Delivery(#[from] Refused),
    /// The event that it brings is not taken.
    #[error(transparent)]
    Event(#[from] events::Refused),
    /// Nothing that its upstream would believe can be said of its caller.
    #[error("the caller cannot be asserted: {0}")]
    NotAsserted(&'static str),
    /// No tokens are issued for what it shows.
    #[error(transparent)]
    Refresh(#[from] signing::Refused),
    /// A page of another site may have sent it, and a session would say who calls.
    #[error(transparent)]
    CrossSite(#[from] CrossSite),
    /// Its answer was to log the caller in.
    #[error(transparent)]
    NotLoggedIn(#[from] NotMade),
    /// Nobody has logged in at a provider, or is not logged out by it.
    #[error(transparent)]
    Oidc(#[from] oidc::Fault),
    /// The gateway fails on purpose, for a test.
    #[error("the route's faults have chosen this request")]
    Injected(StatusCode),
    /// The client's handshake.
    #[error(transparent)]
    Handshake(#[from] BadHandshake),
    /// The upstream said that it speaks WebSocket from here on, and does not.
    #[error("the upstream's answer to the WebSocket handshake is wrong: {0}")]
    UpgradeRefused(&'static str),
}
