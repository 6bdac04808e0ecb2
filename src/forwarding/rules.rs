//! Fields that messages are given or lose on their way, as the operator says.

use http::{HeaderMap, HeaderName};

use crate::base::http::fields::{is_framing, is_of_connection, is_of_content, is_told_by_gateway};
use crate::config::HeaderRules;

use super::fields::X_REQUEST_ID;

/// What is done, in this order.
#[derive(Debug, Default)]
pub struct Rules(Vec<HeaderRules>);

impl Rules {
    /// First what holds for all routes, then what the route says: its word is the last.
    pub fn new(all: &HeaderRules, route: &HeaderRules) -> Self {
        Self([all, route].into_iter().filter(|rules| !rules.is_empty()).cloned().collect())
    }

    /// Whether nothing is done.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Does it.
    pub fn apply(&self, headers: &mut HeaderMap) {
        self.0.iter().for_each(|rules| apply(rules, headers));
    }
}

/// Removes, sets, adds.
pub fn apply(rules: &HeaderRules, headers: &mut HeaderMap) {
    for name in &rules.remove {
        headers.remove(name);
    }
    for (name, value) in &rules.set {
        headers.insert(name, value.clone());
    }
    for (name, value) in &rules.add {
        headers.append(name, value.clone());
    }
}

/// Why no rule may touch a field of a request; nothing where it may. `owned` are the names, in
/// lower case and with dashes, that carry claims, sessions and marks on any route.
pub fn forbidden_in_requests(owned: &[String], name: &HeaderName) -> Option<&'static str> {
    // Many upstreams read `x_user_id` as `x-user-id`.
    let plain = name.as_str().replace(['_', '.'], "-");
    let is_ours = is_told_by_gateway(&plain)
        || owned.contains(&plain)
        || plain == "via"
        || plain == "client-cert"
        || plain.starts_with("x-client-cert-");
    if is_ours {
        return Some("is one in which the gateway itself tells the upstream who calls, and how");
    }
    of_the_hop(&plain)
}

/// The same of a response.
pub fn forbidden_in_responses(name: &HeaderName) -> Option<&'static str> {
    let plain = name.as_str();
    if *name == X_REQUEST_ID || plain == "x-portcullis-degraded" {
        return Some("is one in which the gateway itself tells the client of its request");
    }
    if is_of_content(plain) {
        return Some("describes the content, which only its maker knows");
    }
    of_the_hop(plain)
}

fn of_the_hop(name: &str) -> Option<&'static str> {
    let is_made_anew = is_of_connection(name)
        || is_framing(name)
        || name.starts_with("sec-websocket-")
        || name.starts_with("grpc-");
    is_made_anew.then_some("belongs to one connection or to the framing, which the gateway makes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(
        remove: &[&'static str],
        set: &[[&'static str; 2]],
        add: &[[&'static str; 2]],
    ) -> HeaderRules {
        let name = HeaderName::from_static;
        let line = |[key, value]: &[&'static str; 2]| (name(key), value.parse().unwrap());
        HeaderRules {
            remove: remove.iter().map(|it| name(it)).collect(),
            set: set.iter().map(line).collect(),
            add: add.iter().map(line).collect(),
        }
    }

    #[test]
    fn what_is_removed_set_and_added_comes_in_this_order_and_the_route_last() {
        let all =
            rules(&["server"], &[["x-frame-options", "DENY"], ["x-a", "all"]], &[["x-b", "2"]]);
        let route = rules(&[], &[["x-a", "route"]], &[["x-b", "3"], ["server", "none"]]);
        let mut headers = HeaderMap::new();
        for (name, value) in [("server", "x"), ("server", "y"), ("x-a", "1"), ("x-b", "1")] {
            headers.append(name, value.parse().unwrap());
        }
        Rules::new(&all, &route).apply(&mut headers);
        let all = |name: &str| headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all("server"), ["none"]);
        assert_eq!(all("x-frame-options"), ["DENY"]);
        assert_eq!(all("x-a"), ["route"]);
        assert_eq!(all("x-b"), ["1", "2", "3"]);
        let nothing = HeaderRules::default();
        assert!(Rules::new(&nothing, &nothing).is_empty());
    }

    #[test]
    fn no_rule_touches_what_is_of_a_connection_or_the_gateways_own() {
        let owned = ["x-user-id".to_owned()];
        for name in [
            "connection",
            "host",
            "content-length",
            "transfer-encoding",
            "te",
            "expect",
            "upgrade",
            "x-forwarded-for",
            "forwarded",
            "x-request-id",
            "traceparent",
            "x-real-ip",
            "x-user-id",
            "x_user_id",
            "x.user.id",
            "client-cert",
            "x-client-cert-san",
            "via",
            "sec-websocket-key",
            "grpc-timeout",
            "proxy-authorization",
        ] {
            let name = HeaderName::from_static(name);
            assert!(forbidden_in_requests(&owned, &name).is_some(), "{name}");
        }
        for name in ["authorization", "cookie", "accept-encoding", "user-agent", "x-env", "range"] {
            let name = HeaderName::from_static(name);
            assert!(forbidden_in_requests(&owned, &name).is_none(), "{name}");
        }
        for name in [
            "connection",
            "content-length",
            "transfer-encoding",
            "trailer",
            "content-encoding",
            "content-type",
            "x-request-id",
            "sec-websocket-accept",
            "grpc-status",
        ] {
            let name = HeaderName::from_static(name);
            assert!(forbidden_in_responses(&name).is_some(), "{name}");
        }
        for name in ["server", "set-cookie", "cache-control", "x-user-id", "vary", "date"] {
            let name = HeaderName::from_static(name);
            assert!(forbidden_in_responses(&name).is_none(), "{name}");
        }
    }
}
