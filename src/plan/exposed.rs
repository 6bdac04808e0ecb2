//! What lets in, or shows, more than was meant: proxies that are everybody, tokens that were meant
//! for others, and secrets that cross a network in clear. Warnings, as the file may be right.

use ipnet::IpNet;

use crate::config::{Answers, Config, KeySource, Problems, Store, StoreUrl, is_private};

/// Networks that are not part of the Internet: nobody reaches a gateway from there who is not let
/// in.
const PRIVATE: [&str; 9] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "127.0.0.0/8",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
    "::1/128",
];
/// The widest public networks, by the length of their prefix, that are taken for one owner's: those
/// of content delivery networks are narrower.
const PREFIX_MIN: (u8, u8) = (9, 19);

/// All of them.
pub(super) fn warn(config: &Config, warnings: &mut Problems) {
    proxies(config, warnings);
    tokens_of_others(config, warnings);
    admin_in_clear(config, warnings);
    redis_in_clear(config, warnings);
    cookies_in_clear(config, warnings);
    log_ins_without_limit(config, warnings);
}

/// Log-ins that anybody may try as often as he likes.
fn log_ins_without_limit(config: &Config, warnings: &mut Problems) {
    for (name, route) in config.routes.iter().filter(|(_, route)| route.limits.is_empty()) {
        let what = if route.login.issues.is_some() {
            "anybody may try passwords here as often as he likes"
        } else if route.answers == Some(Answers::Login) {
            "anybody may begin log-ins here as fast as he likes, and each is kept for a while"
        } else {
            continue;
        };
        let remedy = "write limits = [\"…\"] with a limit whose key is \"address\", such as 20/1m";
        warnings.push(format!("routes.{name}.limits"), what, remedy);
    }
}

/// Cookies of sessions that may be sent in clear, where strangers could listen.
fn cookies_in_clear(config: &Config, warnings: &mut Problems) {
    let make = config.session.as_ref().and_then(|session| session.make.as_ref());
    let is_local = config.server.listen.iter().all(|address| address.ip().is_loopback());
    if make.is_some_and(|make| make.allow_http) && !(is_local && config.server.tls.is_none()) {
        let what = "browsers send the cookie of sessions in clear, too, and whoever reads it is \
                    logged in";
        let remedy = "remove it: it is for development on one machine";
        warnings.push("session.make.allow_http", what, remedy);
    }
}

/// Networks whose word is taken for who a client is, and that strangers are in.
fn proxies(config: &Config, warnings: &mut Problems) {
    let server = &config.server;
    for (key, networks, meant) in [
        ("server.trusted_proxies", &server.trusted_proxies, "proxies"),
        ("server.proxy_protocol_from", &server.proxy_protocol_from, "balancers"),
    ] {
        for network in networks.iter().filter(|network| has_strangers(network)) {
            let what = format!("everybody in {network} may name any address as the client's");
            let remedy = format!("name the addresses of your {meant} alone");
            warnings.push(key, what, remedy);
        }
    }
}

fn has_strangers(network: &IpNet) -> bool {
    let is_wide = match network {
        IpNet::V4(v4) => v4.prefix_len() < PREFIX_MIN.0,
        IpNet::V6(v6) => v6.prefix_len() < PREFIX_MIN.1,
    };
    let mut private = PRIVATE.iter().filter_map(|it| it.parse::<IpNet>().ok());
    is_wide && !private.any(|it| it.contains(network))
}

/// Verifiers whose keys may sign for others, too, and that take whatever they sign. A secret is no
/// exception: an application signs links, invitations and tokens of other services with the one
/// that it has.
fn tokens_of_others(config: &Config, warnings: &mut Problems) {
    for (name, verifier) in &config.auth {
        let is_of_issuer = matches!(
            verifier.keys,
            Some(
                KeySource::Url(_)
                    | KeySource::Jwks(_)
                    | KeySource::PublicKey(_)
                    | KeySource::Secret(_)
            )
        );
        if is_of_issuer && verifier.issuer.is_none() && verifier.audience.is_empty() {
            let what =
                "takes every token that these keys have signed, those for other services too";
            let remedy = "write audience = [\"…\"], as the tokens for this one name it (aud), or \
                          issuer at least";
            warnings.push(format!("auth.{name}"), what, remedy);
        }
    }
}

/// A token that crosses a network on which others may be.
fn admin_in_clear(config: &Config, warnings: &mut Problems) {
    let admin = &config.admin;
    let is_here = admin.listen.ip().to_canonical().is_loopback();
    if admin.token.is_some() && !is_here && !admin.private_network {
        let what = "the listener speaks HTTP in clear, beyond this machine too, and whoever is on \
                    the way there reads the token";
        let remedy = "listen on 127.0.0.1, or say private_network = true in [admin] where nobody \
                      else is on that network";
        warnings.push("admin.listen", what, remedy);
    }
}

/// Stores that are reached by a public network without TLS.
fn redis_in_clear(config: &Config, warnings: &mut Problems) {
    let is_used = |store: &&Store| store.uses().any(|usage| config.store.has(usage));
    for store in config.store.all().filter(is_used) {
        let Some(host) = public_host(store).filter(|_| !store.private_network) else { continue };
        let table = store.usage.table();
        let what = format!(
            "{host} is reached in clear by a public name or address: whoever is on the way reads \
             and changes what is stored, and the password"
        );
        let remedy = format!(
            "write rediss:// (or [{table}.tls]), or private_network = true in [{table}] where \
             nobody else is on that network"
        );
        warnings.push(format!("{table}.url"), what, remedy);
    }
}

/// A server of a store that is reached in clear and not by a private name or address.
fn public_host(store: &Store) -> Option<&str> {
    let mut clear: Vec<&String> = Vec::new();
    match &store.url {
        StoreUrl::Memory | StoreUrl::Unix { .. } => {}
        StoreUrl::Redis { host, .. } if store.tls.is_none() => clear.push(host),
        StoreUrl::Cluster { seeds } if store.tls.is_none() => {
            clear.extend(seeds.iter().map(|(host, _)| host));
        }
        StoreUrl::Sentinel { sentinels, .. }
            if store.tls.is_none()
                || store.sentinel.as_ref().is_none_or(|sentinel| sentinel.tls.is_none()) =>
        {
            clear.extend(sentinels.iter().map(|(host, _)| host));
        }
        StoreUrl::Redis { .. } | StoreUrl::Cluster { .. } | StoreUrl::Sentinel { .. } => {}
    }
    clear.into_iter().map(String::as_str).find(|host| !is_private(host))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config;
    use crate::plan::Plan;

    /// The keys that are warned of.
    fn warned(text: &str) -> Vec<String> {
        let text = format!(
            "{text}\n[upstreams.shop]\nservers = [\"http://127.0.0.1:1\", \"http://127.0.0.1:2\"]\n\
             [routes.r]\npath = \"/\"\nupstream = \"shop\"\n"
        );
        let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
        assert!(loaded.problems.is_empty(), "{}", loaded.source.render(&loaded.problems));
        let plan = Plan::compile(loaded.config).unwrap();
        plan.warnings.iter().map(|it| it.path.clone()).collect()
    }

    #[test]
    fn a_proxy_is_not_everybody() {
        for (network, has_strangers) in [
            ("0.0.0.0/0", true),
            ("::/0", true),
            ("0.0.0.0/1", true),
            ("172.0.0.0/8", true),
            ("10.0.0.0/7", true),
            ("2000::/3", true),
            ("10.0.0.0/8", false),
            ("172.16.0.0/12", false),
            ("fc00::/7", false),
            // As content delivery networks name theirs.
            ("104.16.0.0/13", false),
            ("2400:cb00::/32", false),
            ("203.0.113.7", false),
        ] {
            for key in ["trusted_proxies", "proxy_protocol_from"] {
                let expected = has_strangers.then(|| format!("server.{key}"));
                let text = format!("[server]\n{key} = [\"{network}\"]");
                assert_eq!(warned(&text), Vec::from_iter(expected), "{text}");
            }
        }
    }

    #[test]
    fn a_log_in_has_a_limit() {
        let login = "upstream = 'shop'\nissues = { session = true, sub = '/id' }";
        for (route, expected) in [
            (login.to_owned(), true),
            (format!("{login}\nlimits = ['few']"), false),
            ("upstream = 'shop'".to_owned(), false),
        ] {
            let said = warned(&format!(
                "[session]\nmake = {{}}\n[limits.few]\nkey = ['address']\nallow = ['9/1m']\n\
                 [routes.login]\npath = '/login'\n{route}"
            ));
            let expected = expected.then_some("routes.login.limits");
            assert_eq!(said, Vec::from_iter(expected), "{route}");
        }
    }

    #[test]
    fn keys_of_an_issuer_want_an_audience_or_an_issuer() {
        let url = "jwks_url = 'https://login.example/jwks'";
        let secret = "secret = '0123456789abcdef0123456789abcdef'";
        for (keys, algorithm, expected) in [
            (url.to_owned(), "ES256", true),
            (format!("{url}\nissuer = 'https://login.example'"), "ES256", false),
            (format!("{url}\naudience = ['shop']"), "ES256", false),
            (secret.to_owned(), "HS256", true),
            (format!("{secret}\nissuer = 'https://login.example'"), "HS256", false),
            (format!("{secret}\naudience = ['shop']"), "HS256", false),
        ] {
            let said = warned(&format!("[auth.users]\nalgorithms = ['{algorithm}']\n{keys}"));
            assert_eq!(said, Vec::from_iter(expected.then_some("auth.users")), "{keys}");
        }
    }

    #[test]
    fn a_token_does_not_cross_a_network_of_others() {
        let token = "token = 'operators-0123456789'";
        for (listen, more, expected) in [
            ("0.0.0.0:9901", token, true),
            ("[::]:9901", token, true),
            ("10.0.0.7:9901", token, true),
            ("0.0.0.0:9901", "", false),
            ("127.0.0.1:9901", token, false),
            ("[::1]:9901", token, false),
            ("0.0.0.0:9901", "token = 'operators-0123456789'\nprivate_network = true", false),
        ] {
            let said = warned(&format!("[admin]\nlisten = '{listen}'\n{more}"));
            assert_eq!(said, Vec::from_iter(expected.then_some("admin.listen")), "{listen} {more}");
        }
    }

    #[test]
    fn redis_is_not_reached_in_clear_over_the_internet() {
        for (url, more, expected) in [
            ("redis://203.0.113.7", "", true),
            ("redis://redis.example.com:6379", "", true),
            ("redis-cluster://10.0.0.7:1,redis.example.com:1", "", true),
            ("redis-sentinel://s.example.com:1/main", "", true),
            ("redis-sentinel://s.example.com:1/main", "tls = {}", true),
            ("redis-sentinel://s.example.com:1/main", "tls = {}\nsentinel.tls = {}", false),
            ("redis://redis.example.com", "private_network = true", false),
            ("rediss://redis.example.com", "", false),
            ("redis://127.0.0.1", "", false),
            ("redis://10.0.0.7", "", false),
            ("redis://redis", "", false),
            ("redis://redis.shop.svc.cluster.local", "", false),
            ("redis+unix:///run/redis.sock", "", false),
            ("memory:", "", false),
        ] {
            let said = warned(&format!("[store]\nurl = '{url}'\n{more}"));
            assert_eq!(said, Vec::from_iter(expected.then_some("store.url")), "{url} {more}");
        }
        let separate = warned(
            "[store]\nurl = 'rediss://redis.example.com'\n[store.cache]\n\
             url = 'redis://cache.example.com'",
        );
        assert_eq!(separate, ["store.cache.url"]);
        let queue = "queue_url = 'redis://queue.example.com'";
        assert_eq!(warned(&format!("[store]\nurl = 'redis://10.0.0.7'\n{queue}")), [""; 0]);
    }
}
