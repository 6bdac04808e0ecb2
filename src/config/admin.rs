//! `[admin]`: the listener for health, metrics and operations.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::reader::Section;
use super::value::{address, duration};
use crate::base::units::Secret;

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Never the public listener.
    pub listen: SocketAddr,
    /// Bearer token of the operations under `/v1/`; without one they answer loopback only.
    pub token: Option<Secret>,
    /// How long a revocation lasts when the request does not say when the token expires.
    pub revocation_ttl: Duration,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9901)),
            token: None,
            revocation_ttl: Duration::from_secs(720 * 60 * 60),
        }
    }
}

/// Reads `[admin]`.
pub(super) fn read(admin: &mut Section<'_>) -> Admin {
    let default = Admin::default();
    admin.not_built("read_token", "whoever reads would need the token that operates");
    admin.not_built("dashboard", "there would be no dashboard");
    admin.not_built("origins", "requests of web pages would be refused");
    Admin {
        listen: admin.or_env("listen", default.listen, address),
        token: admin.secret("token"),
        revocation_ttl: admin.or("revocation_ttl", default.revocation_ttl, duration),
    }
}
