//! Services of Kong with their upstreams and targets, as upstreams.

use std::time::Duration;

use super::super::effects::{At, Effects};
use super::super::sheet::{Sheet, Table};
use super::super::tree::Node;
use super::super::write::{duration, list, quoted, table};
use super::document::{Service, fill_in};

/// The upstream that has the name of a host.
fn named<'d>(root: &'d Node, host: &str) -> Option<&'d Node> {
    let host = host.split(':').next().unwrap_or_default();
    let mut all = root.get("upstreams").items().iter();
    all.find(|it| it.get("name").text() == Some(host)).map(Node::looked_at)
}

/// The Host that servers see: that of an upstream, where it has one.
pub(super) fn told_host(root: &Node, host: &str) -> String {
    let of_upstream = named(root, host).and_then(|it| it.get("host_header").text());
    of_upstream.unwrap_or(host).to_owned()
}

/// The upstream of a service, as it is called in the file.
pub(super) fn of_service(
    name: &str,
    root: &Node,
    service: &Service<'_>,
    effects: &Effects,
    sheet: &mut Sheet,
) -> String {
    let label = service.node.get("name").text().unwrap_or("service");
    let mut made = Table::new(format!("Service {label}, {name}:{}.", service.node.line));
    match named(root, &service.host) {
        Some(upstream) => targets(name, root, (upstream, service), &mut made, sheet),
        None => {
            let host = service.host.split(':').next().unwrap_or_default();
            made.set("servers", list(&[format!("{}://{host}:{}", service.scheme, service.port)]));
        }
    }
    if let Some(time) = millis(service.node.get("connect_timeout")) {
        made.set("connect_timeout", duration(time));
    }
    let waits = ["read_timeout", "write_timeout"].map(|key| millis(service.node.get(key)));
    if let Some(time) = waits.into_iter().flatten().max() {
        made.set("response_timeout", duration(time));
        made.set("read_timeout", duration(time));
    }
    if let Some(retries) = service.node.get("retries").number().filter(|retries| *retries > 0) {
        made.note("Only what surely took no effect, and methods that may be repeated.");
        let attempts = retries.saturating_add(1).clamp(2, 10).to_string();
        let on = list(&["connect", "refused", "reset", "timeout"]);
        made.set("retry", table(&[("attempts", attempts), ("on", on)]));
    }
    for (key, value) in &effects.upstream {
        made.set(key, value.clone());
    }
    sheet.named("upstreams", label, made)
}

/// Milliseconds, of a day at most.
fn millis(node: &Node) -> Option<Duration> {
    let longest = 24 * 60 * 60 * 1000;
    node.number().filter(|it| *it > 0).map(|it| Duration::from_millis(it.min(longest)))
}

fn targets(
    name: &str,
    root: &Node,
    (upstream, service): (&Node, &Service<'_>),
    made: &mut Table,
    sheet: &mut Sheet,
) {
    let label = upstream.get("name").text().unwrap_or_default();
    let at = At { name, what: label };
    let own = upstream.get("targets").items().iter();
    let of_root = root.get("targets").items().iter();
    let of_root = of_root.filter(|it| {
        let of = it.get("upstream");
        of.text().or_else(|| of.get("name").text()) == Some(label)
    });
    let mut servers = Vec::new();
    for target in own.chain(of_root) {
        let Some(address) = target.looked_at().get("target").text() else { continue };
        let address =
            if address.contains(':') { address.to_owned() } else { format!("{address}:8000") };
        let url = quoted(&format!("{}://{address}", service.scheme));
        match target.get("weight").number() {
            // Kong sends nothing there.
            Some(0) => {}
            None | Some(100) => servers.push(url),
            Some(weight) => {
                servers.push(table(&[("url", url), ("weight", weight.to_string())]));
            }
        }
    }
    if servers.is_empty() {
        made.head(fill_in("no target of it can be used; name a server."));
        servers.push(quoted("http://127.0.0.1:3000"));
    }
    let many = servers.len() > 1;
    made.set("servers", format!("[{}]", servers.join(", ")));
    match balance(upstream) {
        Some(balance) => made.set("balance", quoted(&balance)),
        None => at.leave(
            upstream.get("hash_on"),
            "servers are chosen by address, claim, header, cookie or path",
            "write balance = \"hash:claim:sub\" for one by consumer",
            sheet,
        ),
    }
    health(upstream.get("healthchecks"), many, made, (at, sheet));
}

fn balance(upstream: &Node) -> Option<String> {
    let algorithm = upstream.get("algorithm").text();
    let hash_on = upstream.get("hash_on").text().unwrap_or("none");
    let of = |key: &str| Some(upstream.get(key).text()?.to_ascii_lowercase());
    Some(match (algorithm, hash_on) {
        (Some("least-connections"), _) => "p2c".to_owned(),
        (Some("latency"), _) => "ewma".to_owned(),
        (None | Some("round-robin"), "none") => "round-robin".to_owned(),
        (_, "ip") => "hash:address".to_owned(),
        (_, "path") => "hash:path".to_owned(),
        (_, "header") => format!("hash:header:{}", of("hash_on_header")?),
        (_, "cookie") => format!("hash:cookie:{}", upstream.get("hash_on_cookie").text()?),
        (_, "none") => "p2c".to_owned(),
        _ => return None,
    })
}

fn health(checks: &Node, many: bool, made: &mut Table, (at, sheet): (At<'_>, &mut Sheet)) {
    let active = checks.get("active");
    let number = |node: &Node, outer: &str, key: &str| node.get(outer).get(key).number();
    let interval = number(active, "healthy", "interval").filter(|it| *it > 0);
    let other = number(active, "unhealthy", "interval").filter(|it| *it > 0);
    match (interval, other) {
        (None, None) => active.settle(),
        (Some(one), Some(other)) if one != other => {
            let why = "a check has one interval, whatever its server answers";
            at.leave(active.get("unhealthy"), why, "write interval in health", sheet);
        }
        _ => {}
    }
    if let Some(interval) = interval {
        let path = active.get("http_path").text().unwrap_or("/");
        let mut entries = vec![("path", quoted(path))];
        entries.push(("interval", quoted(&format!("{interval}s"))));
        if let Some(timeout) = active.get("timeout").number().filter(|it| *it > 0) {
            entries.push(("timeout", quoted(&format!("{}s", timeout.min(interval)))));
        }
        let count = |outer, key| number(active, outer, key).filter(|it| (1..=100).contains(it));
        entries.extend(count("unhealthy", "http_failures").map(|it| ("down", it.to_string())));
        entries.extend(count("healthy", "successes").map(|it| ("up", it.to_string())));
        made.set("health", table(&entries));
    }
    let passive = checks.get("passive");
    let unhealthy = passive.get("unhealthy");
    let failures =
        ["http_failures", "tcp_failures", "timeouts"].map(|key| unhealthy.get(key).number());
    let least = failures.into_iter().flatten().filter(|it| *it > 0).min();
    if least.is_none() {
        passive.settle();
    }
    if let Some(failures) = least.filter(|_| many) {
        made.set("eject", table(&[("failures", failures.min(1_000).to_string())]));
    }
}
