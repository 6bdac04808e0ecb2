//! What TLS to clients means for answers: redirects to it, and browsers that are told to stay.

use http::HeaderValue;
use http::uri::PathAndQuery;

use crate::base::facts::{Peer, Target};
use crate::config;

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// What the gateway itself says of TLS.
#[derive(Debug, Clone, Default)]
pub struct Edge {
    /// Where requests in clear are sent: the port of the first TLS listener.
    redirect_to: Option<u16>,
    /// Whether a listener in clear has the port of HTTP itself. A balancer may say that clients
    /// connected to it there, and pass them on to another one.
    listens_on_http_port: bool,
    /// `Strict-Transport-Security` (RFC 6797 §6.1).
    pub hsts: Option<HeaderValue>,
}

impl Edge {
    /// What is written in `[server.tls]`.
    pub(super) fn of(server: &config::Server) -> Self {
        let Some(tls) = &server.tls else { return Self::default() };
        let redirect_to = tls.listen.first().filter(|_| tls.redirect).map(|address| address.port());
        let listens_on_http_port = server.listen.iter().any(|it| it.port() == HTTP_PORT);
        let seconds = tls.hsts.as_secs();
        let hsts = (seconds > 0).then(|| format!("max-age={seconds}"));
        Self {
            redirect_to,
            listens_on_http_port,
            hsts: hsts.and_then(|text| HeaderValue::try_from(text).ok()),
        }
    }

    /// Whether requests in clear are sent to TLS.
    pub fn redirects(&self) -> bool {
        self.redirect_to.is_some()
    }

    /// Where a request in clear is sent instead; nothing where it may stay.
    ///
    /// A client that has named no port is not told of one where ports are mapped on the way:
    /// neither 80 nor 443 is a listener's then.
    pub fn redirect(&self, peer: &Peer, target: &Target) -> Option<HeaderValue> {
        let listener = self.redirect_to?;
        let authority = &target.authority;
        if authority.host().is_empty() {
            return None;
        }
        let is_direct = self.listens_on_http_port && peer.local.port() == HTTP_PORT;
        let is_mapped = !authority.names_port() && !is_direct;
        let port = if is_mapped { HTTPS_PORT } else { listener };
        let path = PathAndQuery::as_str(&target.path_and_query);
        let location = match port {
            HTTPS_PORT => format!("https://{}{path}", authority.host()),
            port => format!("https://{}:{port}{path}", authority.host()),
        };
        HeaderValue::try_from(location).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::facts::ClientAddr;
    use crate::base::http::authority::Authority;

    #[test]
    fn a_redirect_leads_to_the_port_where_tls_is_spoken() {
        for (clear, told, tls, host, location) in [
            (80, 80, 443, "shop.test", "https://shop.test/a?b"),
            (80, 80, 8443, "shop.test", "https://shop.test:8443/a?b"),
            (80, 80, 443, "shop.test:80", "https://shop.test/a?b"),
            // Ports are mapped on the way: 80 to 8080 and 443 to 8443.
            (8080, 8080, 8443, "shop.test", "https://shop.test/a?b"),
            (8080, 8080, 8443, "shop.test:8080", "https://shop.test:8443/a?b"),
            (8080, 8080, 8443, "[::1]:8080", "https://[::1]:8443/a?b"),
            // By a balancer that says so.
            (8080, 80, 8443, "shop.test", "https://shop.test/a?b"),
        ] {
            let listens_on_http_port = clear == HTTP_PORT;
            let edge = Edge { redirect_to: Some(tls), listens_on_http_port, hsts: None };
            let client = ClientAddr::new([192, 0, 2, 1].into());
            let peer = Peer::new(client, ([127, 0, 0, 1], told).into(), None);
            let target = Target {
                authority: Authority::parse(host.as_bytes()).unwrap(),
                path_and_query: PathAndQuery::from_static("/a?b"),
            };
            let redirect = edge.redirect(&peer, &target);
            assert_eq!(redirect.unwrap(), location, "{clear} {told} {tls} {host}");
            assert_eq!(Edge::default().redirect(&peer, &target), None);
        }
    }
}
