//! Servers that send whoever asks in clear to https: by `return`, by `rewrite`, in one location, or
//! under conditions that look at the host or the scheme, as certbot writes them.

use super::parse::Directive;

/// Where requests are sent, under https.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Target<'d> {
    /// Their own host.
    #[default]
    Own,
    /// One that is written.
    Host(&'d str),
}

/// What a server does with requests in clear.
#[derive(Debug, Clone, Default)]
pub(super) struct ToHttps<'d> {
    /// Where they are sent.
    pub(super) target: Target<'d>,
    /// Locations that are for challenges of certificates, and send nobody anywhere.
    pub(super) challenges: Vec<&'d Directive>,
    /// Whether conditions say it.
    pub(super) by_condition: bool,
    /// Whether requests in clear are sent away, and others are served.
    pub(super) is_of_clear: bool,
}

/// Reads the block of a server; nothing where it serves requests in clear.
pub(super) fn of_server(block: &[Directive]) -> Option<ToHttps<'_>> {
    let named = |name: &'static str| block.iter().filter(move |it| it.name == name);
    let mut of_clear = named("if").filter(|it| is_of_clear(it));
    if let Some(target) = of_clear.find_map(|it| sent(it.inner())) {
        let made = ToHttps { target, by_condition: true, is_of_clear: true, ..ToHttps::default() };
        return Some(made);
    }
    // It comes before all locations.
    if let Some(target) = sent(block) {
        return Some(ToHttps { target, ..ToHttps::default() });
    }
    let (mut challenges, mut rest) = (Vec::new(), Vec::new());
    for location in named("location") {
        let path = location.args.last().map(String::as_str).unwrap_or_default();
        let is_challenge = path.trim_start_matches('^').starts_with("/.well-known/");
        if is_challenge { challenges.push(location) } else { rest.push(location) }
    }
    match rest.as_slice() {
        [] => {}
        [whole] if matches!(whole.args.join(" ").as_str(), "/" | "^~ /") => {
            let target = sent(whole.inner())?;
            return Some(ToHttps { target, challenges, ..ToHttps::default() });
        }
        _ => return None,
    }
    // What no condition fits is refused.
    let refuses = named("return").next().is_some_and(is_refusal);
    let conditions: Vec<&Directive> = named("if").collect();
    let of_host = |it: &&Directive| condition(it).starts_with("$host = ");
    if !conditions.iter().all(of_host) {
        return None;
    }
    let targets: Option<Vec<Target<'_>>> = conditions.iter().map(|it| sent(it.inner())).collect();
    let other = |one, other| if one == other { one } else { Target::Own };
    let target = targets?.into_iter().reduce(other)?;
    let made = ToHttps { target, challenges, by_condition: true, is_of_clear: false };
    refuses.then_some(made)
}

/// Whether a condition sends requests to https, or is one of those that [`of_server`] looks for.
pub(super) fn leads(directive: &Directive) -> bool {
    let is_known = is_of_clear(directive) || condition(directive).starts_with("$host = ");
    is_known && sent(directive.inner()).is_some()
}

/// Whether all that a server does is to refuse.
pub(super) fn only_refuses(block: &[Directive]) -> bool {
    !block.iter().any(|it| matches!(it.name.as_str(), "location" | "if" | "rewrite"))
        && block.iter().find(|it| it.name == "return").is_some_and(is_refusal)
}

/// Whether a `return` refuses.
pub(super) fn is_refusal(directive: &Directive) -> bool {
    directive.arg(0).parse::<u16>().is_ok_and(|code| (400..500).contains(&code))
}

/// The condition of an `if`, without its parentheses and quotes.
fn condition(directive: &Directive) -> String {
    let text = directive.args.join(" ");
    text.trim_start_matches('(').trim_end_matches(')').trim().to_owned()
}

fn is_of_clear(directive: &Directive) -> bool {
    matches!(
        condition(directive).as_str(),
        "$scheme = http"
            | "$scheme != https"
            | "$https ="
            | "$https != on"
            | "$server_port = 80"
            | "$server_port != 443"
    )
}

/// Where a block sends all of its requests.
fn sent(block: &[Directive]) -> Option<Target<'_>> {
    let first = block.iter().find(|it| matches!(it.name.as_str(), "return" | "rewrite"))?;
    let target = match first.name.as_str() {
        "return" if matches!(first.arg(0), "301" | "302" | "303" | "307" | "308") => first.arg(1),
        "return" if first.args.len() == 1 => first.arg(0),
        "rewrite" if first.arg(0) == "^" => first.arg(1),
        "rewrite" if matches!(first.arg(0), "^(.*)$" | "^(.*)" | "^/(.*)$" | "^/(.*)") => {
            let with_slash = first.arg(0).starts_with("^/");
            let host = first.arg(1).strip_suffix(if with_slash { "/$1" } else { "$1" })?;
            return host_of(host);
        }
        _ => return None,
    };
    let target = target.trim_end_matches('?');
    host_of(["$request_uri", "$uri$is_args$args"].iter().find_map(|it| target.strip_suffix(it))?)
}

fn host_of(target: &str) -> Option<Target<'_>> {
    let host = target.strip_prefix("https://")?;
    if matches!(host, "$host" | "$http_host" | "$server_name" | "${host}" | "${server_name}") {
        return Some(Target::Own);
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    (!host.is_empty() && host.bytes().all(is_plain)).then_some(Target::Host(host))
}
