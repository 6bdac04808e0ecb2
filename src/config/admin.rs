//! `[admin]`: the listener for health, metrics and operations.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use toml::de::DeValue;

use super::origin::{Origin, origin};
use super::reader::Section;
use super::value::{Mistake, Read, address, choice, duration, flag, text};
use crate::base::units::Secret;

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Never the public listener.
    pub listen: SocketAddr,
    /// Whether nobody else is on the network that it is reached by: it speaks HTTP in clear.
    pub private_network: bool,
    /// Bearer token of the operations under `/v1/`; without one they answer loopback only.
    pub token: Option<Secret>,
    /// The same for those that only look.
    pub read_token: Option<Secret>,
    /// What the dashboard may do.
    pub dashboard: Dashboard,
    /// Origins of the dashboard's own page beside that of `Host`, behind proxies that change it.
    pub origins: Vec<Origin>,
    /// Findings that are known and count nowhere, by their ids.
    pub mute: Vec<String>,
    /// How long a revocation lasts when the request does not say when the token expires.
    pub revocation_ttl: Duration,
}

/// What the dashboard may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dashboard {
    /// Whatever its user may.
    Operate,
    /// It only looks.
    Read,
    /// There is none.
    Off,
}

impl Dashboard {
    /// As the configuration has them.
    const WORDS: [(&'static str, Self); 3] =
        [("operate", Self::Operate), ("read", Self::Read), ("off", Self::Off)];

    /// Its word in the configuration.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, it)| *it == self).map_or("", |(word, _)| word)
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9901)),
            private_network: false,
            token: None,
            read_token: None,
            dashboard: Dashboard::Operate,
            origins: Vec::new(),
            mute: Vec::new(),
            revocation_ttl: Duration::from_secs(720 * 60 * 60),
        }
    }
}

/// Reads `[admin]`.
pub(super) fn read(admin: &mut Section<'_>) -> Admin {
    let default = Admin::default();
    let token = admin.secret("token");
    let read_token = admin.secret("read_token");
    if read_token.is_some() && !admin.has("token") && !admin.is_survey() {
        let what = "without admin.token whoever is on this machine operates with no token at all";
        admin.problem("read_token", what, "set admin.token, too");
    }
    if read_token.is_some() && read_token == token {
        let what = "is the value of admin.token, so whoever reads could operate";
        admin.problem("read_token", what, "give it a value of its own");
    }
    Admin {
        listen: admin.or_env("listen", default.listen, address),
        private_network: admin.or("private_network", default.private_network, flag),
        token,
        read_token,
        dashboard: admin.or("dashboard", default.dashboard, choice(&Dashboard::WORDS)),
        origins: admin.list_or_empty("origins", one_origin),
        mute: admin.list_or_empty("mute", one_id),
        revocation_ttl: admin.or("revocation_ttl", default.revocation_ttl, duration),
    }
}

/// One page's origin: whoever has any other name of a domain must not operate the gateway.
fn one_origin(value: &DeValue<'_>) -> Read<Origin> {
    if value.as_str().is_some_and(|text| text.contains('*')) {
        let what = "would let every page of a domain operate the gateway";
        return Err(Mistake::new(what, "name each origin, such as \"https://ops.example.com\""));
    }
    origin(value)
}

/// The id of one finding. That there is such a finding now is not asked for.
fn one_id(value: &DeValue<'_>) -> Read<String> {
    let id = text(value)?;
    if id.contains('*') {
        let what = "names no finding: ids are taken whole";
        let help = "write each id, such as \"cache_poor_search\", as `portcullis status` shows it";
        return Err(Mistake::new(what, help));
    }
    Ok(id)
}
