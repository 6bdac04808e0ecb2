//! nginx.conf: what it says of HTTP, as a gateway.toml.

mod closed;
mod location;
mod parse;
mod place;
mod reply;
mod scope;
mod server;
mod settings;
mod site;
mod to_https;
mod words;

use std::path::Path;

use self::parse::{Directive, Files};
use self::scope::{Scope, leave};
use self::settings::body_bytes;
use self::site::Site;
use super::networks::network;
use super::sheet::{Left, Sheet};
use super::write::{duration, list, size, table, time};

/// Converts a text that is called `name`; files that it includes are looked for in `folder`. The
/// error is `file:line: what`.
pub(super) fn convert(
    name: &str,
    text: &str,
    folder: &Path,
    sheet: &mut Sheet,
) -> Result<(), String> {
    let mut files = Files::new(folder);
    let all = files.parse(name, text)?;
    for missing in &files.missing {
        let instead = "put it beside the source, and convert again: until then routes that it may \
                       guard answer 403";
        leave(&missing.include, &missing.why, instead, sheet);
    }
    let top = Scope::default().enter(
        // A part of a configuration may begin inside http.
        &[],
        sheet,
    );
    let blocks: Vec<&[Directive]> = match all.iter().any(|it| it.name == "http") {
        true => all.iter().filter(|it| it.name == "http").map(Directive::inner).collect(),
        false => vec![&all],
    };
    if !blocks.iter().any(|block| block.iter().any(|it| it.name == "server")) {
        return Err(format!(
            "{name}:1: no server is in it; give the file that has the http block, or one with a \
             server in it"
        ));
    }
    for other in all.iter().filter(|it| matches!(it.name.as_str(), "stream" | "mail")) {
        leave(other, "Portcullis speaks HTTP alone", "keep nginx for it", sheet);
    }
    for block in blocks {
        http(block, (&top, folder), sheet);
    }
    Ok(())
}

fn http<'d>(block: &'d [Directive], (top, folder): (&Scope<'d>, &Path), sheet: &mut Sheet) {
    let scope = top.enter(block, sheet).without_missing();
    let mut site = Site::read(block, sheet);
    folder.clone_into(&mut site.folder);
    let body = body_bytes(&scope, sheet);
    let mut limits = vec![("body_bytes", size(body))];
    if let Some(idle) = scope.value("keepalive_timeout").and_then(time).filter(|it| !it.is_zero()) {
        limits.push(("idle_timeout", duration(idle)));
    }
    sheet.server().note("client_max_body_size is 1m in nginx where nothing is written.");
    sheet.server().set("limits", table(&limits));
    let servers: Vec<server::Server<'d>> = block
        .iter()
        .filter(|directive| directive.name == "server")
        .map(|directive| server::read(directive, &scope, sheet))
        .collect();
    site.loses_clients = !real_ip(block, sheet);
    server::write(&servers, &site, body, sheet);
}

/// set_real_ip_from, wherever it stands: proxies are believed on all routes here. Whether clients
/// have the addresses that they had.
fn real_ip(block: &[Directive], sheet: &mut Sheet) -> bool {
    let servers = || block.iter().filter(|it| it.name == "server");
    let all: Vec<&Directive> = block.iter().chain(servers().flat_map(Directive::inner)).collect();
    if let Some(first) = servers().find_map(believes)
        && servers().any(|it| believes(it).is_none())
    {
        let instead = "see that no client has an address in it";
        leave(first, "a proxy is believed on all routes here, or on none", instead, sheet);
    }
    let named = |name: &'static str| {
        let named = all.iter().filter(move |it| it.name == name);
        named.inspect(|it| it.seen.see())
    };
    let header = named("real_ip_header").next();
    let field = header.map_or("X-Real-IP", |it| it.arg(0)).to_ascii_lowercase();
    let mut networks = Vec::new();
    let mut is_whole = true;
    for directive in named("set_real_ip_from") {
        match network(directive.arg(0)) {
            Some(network) => networks.push(network.to_string()),
            None => {
                is_whole &= directive.arg(0) == "unix:";
                leave(directive, "it is no network", "write trusted_proxies", sheet);
            }
        }
    }
    networks.dedup();
    match (field.as_str(), networks.is_empty()) {
        (_, true) | ("proxy_protocol", _) => is_whole,
        ("x-forwarded-for", false) => {
            sheet.server().note("set_real_ip_from: proxies whose X-Forwarded-For is believed.");
            sheet.server().set("trusted_proxies", list(&networks));
            is_whole
        }
        _ => {
            sheet.left(Left {
                at: header.map_or_else(String::new, |it| it.at()),
                what: format!("real_ip_header {field}"),
                why: "the client's address is read from X-Forwarded-For or Forwarded".to_owned(),
                instead: "have the proxy send one of them, and name it in trusted_proxies"
                    .to_owned(),
            });
            false
        }
    }
}

/// The first proxy that a server believes.
fn believes(server: &Directive) -> Option<&Directive> {
    server.inner().iter().find(|it| it.name == "set_real_ip_from")
}
