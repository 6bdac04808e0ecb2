//! WebSockets and streams of events through the gateway: who may open one, what passes, what bounds
//! it, what ends it.

mod bounds;
mod ends;
mod events;
mod http2;
mod opening;
mod passing;

use crate::support::websocket::{Handshakes, WebSocket, echo, upstream};
use crate::support::{AUTH, Gateway, Upstream, eventually};

/// A gateway before an upstream of WebSockets.
struct Stage {
    gateway: Gateway,
    upstream: Upstream,
    handshakes: Handshakes,
}

impl Stage {
    /// Echoes; `tunnel` is what `[routes.live.tunnel]` says.
    fn echoing(tunnel: &str) -> Self {
        Self::serving(echo, tunnel)
    }

    /// Serves WebSockets as `serve` does.
    fn serving(serve: impl Fn(WebSocket) + Send + Sync + 'static, tunnel: &str) -> Self {
        let (upstream, handshakes) = upstream(serve);
        let gateway = Gateway::start(&config(&upstream, "", tunnel));
        Self { gateway, upstream, handshakes }
    }

    /// Opens one on the public route.
    fn open(&self) -> WebSocket {
        WebSocket::open(self.gateway.public, "/live/1", "")
    }

    /// The access line of the only tunnel, once there is one.
    fn line(&self) -> serde_json::Value {
        let mut lines = Vec::new();
        eventually("there is an access line", || {
            lines = self.gateway.access_lines();
            !lines.is_empty()
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }
}

/// `server` is what `[server.limits]` says; `/live` is for everybody, `/mine` for users.
fn config(upstream: &Upstream, server: &str, tunnel: &str) -> String {
    format!(
        "{AUTH}
        [server.limits]\n{server}
        {}
        [routes.live]
        path = \"/live/*\"
        upstream = \"shop\"
        upgrade = [\"websocket\"]
        [routes.live.tunnel]\n{tunnel}
        [routes.mine]
        path = \"/mine/*\"
        upstream = \"shop\"
        auth = \"users\"
        upgrade = [\"websocket\"]
        [routes.mine.tunnel]\n{tunnel}
        [routes.plain]
        path = \"/*\"
        upstream = \"shop\"
        ",
        upstream.table("shop")
    )
}
