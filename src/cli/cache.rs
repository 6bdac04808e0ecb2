//! `portcullis cache`: what the cache of a running gateway saves, and whether a URL is stored.

use std::path::Path;

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::json::json_text;
use super::operate::{EXIT, Target};
use super::plain::plain;
use super::remote::Failure;
use crate::base::http::percent;

/// Options of `cache`.
#[derive(Debug, Args)]
#[command(after_help = EXIT)]
pub(super) struct Cache {
    /// Only this route, by its name in [routes].
    #[arg(long, value_name = "NAME", conflicts_with = "url")]
    route: Option<String>,
    /// What is stored for this URL, such as http://shop.example.com/products/42; without a scheme,
    /// both are looked up.
    #[arg(long)]
    url: Option<String>,
    /// A claim of the caller whose response is meant, where the route's cache is parted by it. May
    /// be repeated; the value may be JSON.
    #[arg(long = "claim", value_name = "NAME=VALUE", requires = "url")]
    claims: Vec<String>,
    /// Print the gateway's answer as it came.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Asks, and says what to print.
pub(super) fn show(options: &Cache, path: &Path) -> Result<String, Failure> {
    let remote = options.target.find(path)?;
    let encoded = |text: &String| percent::encode(text.as_bytes());
    let of = match (&options.url, &options.route) {
        (Some(url), _) => {
            let claims = options.claims.iter().map(|claim| format!("&claim={}", encoded(claim)));
            format!("/v1/cache/entry?url={}{}", encoded(url), claims.collect::<String>())
        }
        (None, Some(route)) => format!("/v1/cache?route={}", encoded(route)),
        (None, None) => "/v1/cache".to_owned(),
    };
    let members: &[&str] =
        if options.url.is_some() { &["url", "variants"] } else { &["routes", "near"] };
    let answer = remote.send((Method::GET, &of), &json!({}), members)?;
    Ok(match () {
        () if options.json => json_text(&answer),
        () if options.url.is_some() => entry(&answer),
        () => routes(&answer),
    })
}

/// One block for each route, and the memory of the gateway.
fn routes(answer: &Value) -> String {
    let mut lines = Vec::new();
    for (name, route) in answer["routes"].as_object().into_iter().flatten() {
        lines.push(format!("route    {name}"));
        for (window, told) in route["windows"].as_object().into_iter().flatten() {
            lines.push(format!("hits     {}", window_line(window, told)));
        }
        let ttl = route["mean_ttl_s"].as_u64();
        let ttl = ttl.map(|ttl| format!(", fresh for {ttl} s on average")).unwrap_or_default();
        lines.push(format!("stored   {}{ttl}", number(route, "stored")));
        let reasons = route["not_kept"].as_object().into_iter().flatten();
        let mut reasons: Vec<(&String, u64)> =
            reasons.map(|(reason, count)| (reason, count.as_u64().unwrap_or_default())).collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        if !reasons.is_empty() {
            let told = reasons.iter().map(|(reason, count)| format!("{reason} {count}"));
            lines.push(format!("not kept {}", told.collect::<Vec<_>>().join(", ")));
        }
        lines.extend(hints(route));
        lines.push(String::new());
    }
    if lines.is_empty() {
        lines.push("no route has a cache".to_owned());
    }
    let near = &answer["near"];
    let (bytes, most) = (number(near, "bytes"), number(near, "max"));
    let evictions = number(near, "evictions");
    lines.push(format!("near     {bytes} of {most} bytes, {evictions} evictions"));
    lines.extend(hints(answer));
    printed(&lines)
}

fn window_line(window: &str, told: &Value) -> String {
    let over = if window == "start" {
        "since the start".to_owned()
    } else {
        format!("in the last {window}")
    };
    let requests = number(told, "requests");
    let Some(ratio) = told["ratio"].as_f64() else {
        return format!("{requests} requests {over}");
    };
    let level = told["level"].as_str().map(|level| format!(": {level}")).unwrap_or_default();
    format!("{:.0} % of {requests} requests {over}{level}", ratio * 100.0)
}

fn hints(of: &Value) -> Vec<String> {
    let told = of["hints"].as_array().into_iter().flatten();
    told.map(|hint| format!("hint     {}: {}", text(hint, "what"), text(hint, "do"))).collect()
}

/// One line for the URL, and one for each variant.
fn entry(answer: &Value) -> String {
    let mut lines = vec![format!("{} on the route {}", text(answer, "url"), text(answer, "route"))];
    for variant in answer["variants"].as_array().into_iter().flatten() {
        let places = words(&variant["where"]).join("+");
        let (status, bytes) = (number(variant, "status"), number(variant, "bytes"));
        let ttl = variant["ttl_s"].as_i64().unwrap_or_default();
        let fresh = if ttl > 0 {
            format!("fresh for {ttl} of {} s", number(variant, "lifetime_s"))
        } else {
            format!("stale for {} s", ttl.unsigned_abs())
        };
        let (scheme, upstream) = (text(variant, "scheme"), text(variant, "upstream"));
        let mut line =
            format!("  {places}: {status}, {bytes} bytes, {fresh}, {scheme}, of {upstream}");
        let tags = words(&variant["tags"]);
        if !tags.is_empty() {
            line += &format!(", tags {}", tags.join(" "));
        }
        for (name, value) in variant["vary"].as_object().into_iter().flatten() {
            let value = value.as_str().map_or("absent", |value| value);
            line += &format!(", {name} {value}");
        }
        if let Some(why) = variant["why"].as_str() {
            line += &format!(", not used: {why}");
        }
        lines.push(line);
    }
    if answer["more"] == true {
        lines.push("  and more variants".to_owned());
    }
    printed(&lines)
}

/// URLs, tags and languages are what strangers have sent.
fn printed(lines: &[String]) -> String {
    lines.iter().map(|line| plain(line)).collect::<Vec<_>>().join("\n")
}

fn words(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn text<'a>(of: &'a Value, name: &str) -> &'a str {
    of.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(of: &Value, name: &str) -> String {
    of.get(name).map(Value::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_have_sent_is_printed_plainly() {
        let answer = json!({
            "url": "h/\u{9b}2J", "route": "r", "more": false, "variants": [{
                "where": ["store"], "scheme": "http", "upstream": "u", "status": 200, "ttl_s": 1,
                "lifetime_s": 2, "bytes": 3, "tags": ["a\nb"], "vary": { "x-a": "\u{1b}[31m" },
            }],
        });
        let expected = "h/\\u{9b}2J on the route r\n  store: 200, 3 bytes, fresh for 1 of 2 s, \
                        http, of u, tags a\\u{a}b, x-a \\u{1b}[31m";
        assert_eq!(entry(&answer), expected);
    }
}
