//! Servers that are the gateway itself, by any of the addresses that its listeners have. Whoever
//! reaches the admin listener from this machine may operate the gateway, and what is sent to a
//! public one comes back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::{Config, Endpoint, Lookup, Problems};

/// Refuses upstreams with a server that is a listener of this gateway, and callbacks to its admin
/// listener. A callback to a public one is a request like any other.
pub(super) fn servers(config: &Config, problems: &mut Problems) {
    let mut refuse = |key: String, server: &Endpoint, may_be_public: bool| {
        let Endpoint { host, port, .. } = server;
        let admin = config.admin.listen;
        if is_at(server, admin) {
            let what = format!(
                "{host}:{port} is this gateway's own admin listener ({admin}), so its clients \
                 could operate it"
            );
            let remedy = "name the service's own address, or give admin.listen another port";
            problems.push(key, what, remedy);
            return;
        }
        let public = config.server.listeners().map(|(address, _)| address);
        if let Some(public) =
            public.filter(|_| !may_be_public).find(|public| is_at(server, *public))
        {
            let what = format!(
                "{host}:{port} is this gateway's own listener ({public}), so each request would \
                 come back to it"
            );
            let remedy = "name the service's own address, or give server.listen another port";
            problems.push(key, what, remedy);
        }
    };
    for (name, upstream) in &config.upstreams {
        for (key, servers) in [("servers", &upstream.servers), ("readers", &upstream.readers)] {
            for server in servers {
                refuse(format!("upstreams.{name}.{key}"), server, false);
            }
        }
    }
    for (name, queue) in &config.queues {
        let callback = queue.ends.callback.iter();
        for server in callback.flat_map(|callback| &callback.upstream.servers) {
            refuse(format!("queues.{name}.callback.url"), server, true);
        }
    }
}

/// Whether a connection to a server is one to a listener, as far as their addresses say. Which
/// other addresses this machine has is not known here.
fn is_at(server: &Endpoint, listener: SocketAddr) -> bool {
    if server.lookup == Lookup::Services || server.port != listener.port() {
        return false;
    }
    let ip = listener.ip().to_canonical();
    addresses(&server.host).into_iter().any(|address| match ip {
        _ if address == ip => true,
        IpAddr::V4(v4) => v4.is_unspecified() && address.is_ipv4() && address.is_loopback(),
        // Such a socket takes connections over IPv4, too.
        IpAddr::V6(v6) => v6.is_unspecified() && address.is_loopback(),
    })
}

/// What a host stands for on any machine; nothing where only DNS knows.
fn addresses(host: &str) -> Vec<IpAddr> {
    let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let numeric = host.parse::<IpAddr>().or_else(|error| numeric(&host).ok_or(error));
    match numeric.map(|address| address.to_canonical()) {
        // A connection to no address in particular is one to this machine.
        Ok(IpAddr::V4(address)) if address.is_unspecified() => vec![v4],
        Ok(IpAddr::V6(address)) if address.is_unspecified() => vec![v6, v4],
        Ok(address) => vec![address],
        Err(_) if host == "localhost" || host.ends_with(".localhost") => vec![v4, v6],
        Err(_) => Vec::new(),
    }
}

/// The address that the system's resolver reads from a host without asking anybody (`inet_aton`,
/// POSIX `inet_addr`): one to four numbers between dots, decimal, octal behind `0` or hexadecimal
/// behind `0x`, of which the last one fills what is left.
fn numeric(host: &str) -> Option<IpAddr> {
    let numbers: Vec<u32> = host.split('.').map(number).collect::<Option<_>>()?;
    let (last, bytes) = numbers.split_last()?;
    let left = 4_u32.checked_sub(u32::try_from(bytes.len()).ok()?).filter(|left| *left > 0)?;
    if u64::from(*last) >= 1 << (8 * left) {
        return None;
    }
    let mut address = *last;
    for (at, byte) in (1_u32..).zip(bytes) {
        address |= u32::from(u8::try_from(*byte).ok()?) << (32 - 8 * at);
    }
    Some(Ipv4Addr::from(address).into())
}

/// A number as C writes it.
fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    // A sign is none of them.
    let is_plain = digits.bytes().all(|digit| digit.is_ascii_alphanumeric());
    is_plain.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::tests::problems_of;
    use super::numeric;

    fn refused(listeners: &str, server: &str) -> Vec<String> {
        problems_of(&format!(
            "{listeners}[upstreams.shop]\nservers = [\"http://other.test:1\", \"{server}\"]\n\
             [routes.r]\npath = \"/\"\nupstream = \"shop\"\n"
        ))
    }

    #[test]
    fn no_server_is_a_listener_of_the_gateway() {
        let own = "upstreams.shop.servers".to_owned();
        let admin = |listen: &str| format!("[admin]\nlisten = \"{listen}\"\n");
        let public =
            |listen: &str| format!("[server]\nlisten = [\"127.0.0.1:81\", \"{listen}\"]\n");
        for (listen, server, is_own) in [
            ("127.0.0.1:90", "http://127.0.0.1:90", true),
            ("127.0.0.1:90", "https://localhost:90", true),
            ("127.0.0.1:90", "http://LocalHost:90", true),
            ("127.0.0.1:90", "http://a.localhost:90", true),
            ("127.0.0.1:90", "http://0.0.0.0:90", true),
            ("127.0.0.1:90", "http://[::]:90", true),
            ("127.0.0.1:90", "http://[::ffff:127.0.0.1]:90", true),
            ("127.0.0.1:90", "http://127.1:90", true),
            ("127.0.0.1:90", "http://127.0.1:90", true),
            ("127.0.0.1:90", "http://2130706433:90", true),
            ("127.0.0.1:90", "http://0x7f000001:90", true),
            ("127.0.0.1:90", "http://0X7F.0.0.1:90", true),
            ("127.0.0.1:90", "http://0177.0.0.01:90", true),
            ("127.0.0.1:90", "http://127.1.:90", true),
            ("127.0.0.1:90", "http://0:90", true),
            ("127.0.0.1:90", "http://127.2:90", false),
            ("127.0.0.1:90", "http://127.0.0.2:90", false),
            ("127.0.0.1:90", "http://[::1]:90", false),
            ("127.0.0.1:90", "http://127.0.0.1:91", false),
            ("127.0.0.1:90", "http://shop.test:90", false),
            ("127.0.0.1:80", "http://127.0.0.1", true),
            ("127.0.0.1:443", "https://127.0.0.1", true),
            ("0.0.0.0:90", "http://127.0.0.1:90", true),
            ("0.0.0.0:90", "http://127.8.8.8:90", true),
            ("0.0.0.0:90", "http://127.9:90", true),
            ("[::]:90", "http://0x7f.1:90", true),
            ("10.0.0.7:90", "http://10.7:90", true),
            ("0.0.0.0:90", "http://localhost:90", true),
            ("0.0.0.0:90", "http://0.0.0.0:90", true),
            ("0.0.0.0:90", "http://[::1]:90", false),
            ("0.0.0.0:90", "http://10.0.0.7:90", false),
            ("[::]:90", "http://[::1]:90", true),
            ("[::]:90", "http://127.0.0.1:90", true),
            ("[::]:90", "http://[::]:90", true),
            ("[::]:90", "http://10.0.0.7:90", false),
            ("[::1]:90", "http://localhost:90", true),
            ("[::1]:90", "http://127.0.0.1:90", false),
            ("[::ffff:127.0.0.1]:90", "http://127.0.0.1:90", true),
            ("10.0.0.7:90", "http://10.0.0.7:90", true),
            ("10.0.0.7:90", "http://localhost:90", false),
        ] {
            let expected = if is_own { vec![own.clone()] } else { Vec::new() };
            for listeners in [admin(listen), public(listen)] {
                assert_eq!(refused(&listeners, server), expected, "{listeners} {server}");
            }
        }
        // Which port that is, nobody knows before it is open.
        assert!(refused(&admin("127.0.0.1:0"), "http://127.0.0.1:9901").is_empty());
        assert!(refused(&admin("127.0.0.1:9902"), "srv+http://_a._tcp.localhost.test").is_empty());
    }

    #[test]
    fn numbers_are_read_as_the_resolver_reads_them() {
        for (host, address) in [
            ("127.0.0.1", "127.0.0.1"),
            ("1.2.772", "1.2.3.4"),
            ("1.131844", "1.2.3.4"),
            ("16909060", "1.2.3.4"),
            ("0x1020304", "1.2.3.4"),
            ("0100401404", "1.2.3.4"),
            ("01.0x2.3.4", "1.2.3.4"),
            ("4294967295", "255.255.255.255"),
            ("00", "0.0.0.0"),
        ] {
            assert_eq!(numeric(host), Some(address.parse().unwrap()), "{host}");
        }
        for host in [
            "",
            ".",
            "1.",
            "1..2",
            "1.2.3.4.5",
            "256.1.1.1",
            "1.2.3.256",
            "1.2.65536",
            "1.16777216",
            "4294967296",
            "08",
            "0x",
            "0xg",
            "+1",
            "1.-1",
            "a",
            "1.a",
            "1.2.3.4a",
        ] {
            assert_eq!(numeric(host), None, "{host}");
        }
    }

    #[test]
    fn readers_and_what_is_called_back_are_no_admin_listeners() {
        let with = |more: &str| {
            problems_of(&format!(
                "[admin]\nlisten = \"127.0.0.1:90\"\n[server]\nlisten = [\"0.0.0.0:91\"]\n\
                 [upstreams.shop]\nservers = [\"http://10.0.0.7:1\"]\n{more}\n\
                 [routes.r]\npath = \"/\"\nupstream = \"shop\"\n"
            ))
        };
        let callback = |url: &str| {
            let secret = "0123456789abcdef01234567";
            with(&format!(
                "[queues.mail]\ndurable = false\n\
                 callback = {{ url = \"{url}\", secret = \"{secret}\" }}"
            ))
        };
        let readers = with("readers = [\"http://localhost:90\"]");
        assert_eq!(readers, ["upstreams.shop.readers"]);
        assert_eq!(callback("http://localhost:90/v1/x"), ["queues.mail.callback.url"]);
        assert_eq!(callback("http://localhost:91/told"), [""; 0]);
    }
}
