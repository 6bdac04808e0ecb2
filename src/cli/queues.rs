//! `queues` and `deliveries`: what waits to be delivered, what could not be, and what to do about
//! it.

use std::path::Path;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::json::json_text;
use super::operate::{EXIT, Target};
use super::plain::plain;
use super::remote::{Failure, Remote};
use crate::base::http::percent;

/// Options of `queues`.
#[derive(Debug, Args)]
#[command(after_help = EXIT)]
pub(super) struct Queues {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print the gateway's answer as it came.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Have nothing delivered of a queue, at any gateway, until it is resumed.
    Pause {
        /// The queue, by its name in [queues].
        queue: String,
        /// Why, for those who look.
        #[arg(long)]
        why: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Have a queue delivered again.
    Resume {
        /// The queue, by its name in [queues].
        queue: String,
        #[command(flatten)]
        target: Target,
    },
}

/// Options of `deliveries`.
#[derive(Debug, Args)]
#[command(after_help = EXIT)]
pub(super) struct Deliveries {
    #[command(subcommand)]
    action: Deed,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// List the deliveries of a queue that are not done, the oldest first: 100 at most.
    List {
        /// The queue, by its name in [queues].
        queue: String,
        /// Those in this state: waiting, behind, delivering, retrying or dead.
        #[arg(long)]
        state: Option<String>,
        /// Those behind this one.
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// Print the gateway's answer as it came.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Show one delivery.
    Show {
        /// Its id.
        id: String,
        #[command(flatten)]
        target: Target,
    },
    /// Have a dead delivery tried again, or with --queue all that are dead.
    Requeue {
        /// Its id.
        #[arg(required_unless_present = "queue", conflicts_with = "queue")]
        id: Option<String>,
        /// All dead ones of this queue, 1000 at most.
        #[arg(long, value_name = "NAME")]
        queue: Option<String>,
        /// Of these, those that died of this, such as exhausted.
        #[arg(long, requires = "queue")]
        error: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Have a delivery that waits not delivered.
    Cancel {
        /// Its id.
        id: String,
        #[command(flatten)]
        target: Target,
    },
}

fn segment(text: &str) -> String {
    percent::encode(text.as_bytes()).to_string()
}

/// Carries out `queues`; what to print.
pub(super) fn queues(options: &Queues, path: &Path) -> Result<String, Failure> {
    match &options.action {
        None => {
            let remote = options.target.find(path)?;
            let answer = remote.send((Method::GET, "/v1/queues"), &json!({}), &["queues"])?;
            Ok(if options.json { json_text(&answer) } else { tell_queues(&answer) })
        }
        Some(Action::Pause { queue, why, target }) => {
            let body = why.as_ref().map_or_else(|| json!({}), |why| json!({ "why": why }));
            let at = format!("/v1/queues/{}/pause", segment(queue));
            change(&target.find(path)?, &at, &body, &["paused"])?;
            Ok(format!("paused: {queue}"))
        }
        Some(Action::Resume { queue, target }) => {
            let at = format!("/v1/queues/{}/resume", segment(queue));
            change(&target.find(path)?, &at, &json!({}), &["paused"])?;
            Ok(format!("resumed: {queue}"))
        }
    }
}

fn change(remote: &Remote, at: &str, body: &Value, members: &[&str]) -> Result<Value, Failure> {
    remote.send((Method::POST, at), body, members)
}

fn tell_queues(answer: &Value) -> String {
    let mut lines = Vec::new();
    for (name, queue) in answer["queues"].as_object().into_iter().flatten() {
        let count = |name: &str| queue["items"][name].as_u64().unwrap_or_default();
        let number = |name: &str| queue[name].as_u64().unwrap_or_default();
        let mut line = format!(
            "{name}  {} of {} open ({} due, {} later, {} behind, {} under way), {} dead, {} bytes",
            number("open"),
            number("max_items"),
            count("waiting"),
            count("later"),
            count("behind"),
            count("delivering"),
            count("dead"),
            number("bytes")
        );
        if let Some(seconds) = queue["oldest_seconds"].as_u64() {
            line += &format!(", the oldest {seconds} s old");
        }
        if let Some(why) = queue["paused"]["why"].as_str() {
            line += &format!("; paused: {why}");
        }
        lines.push(plain(&line));
    }
    match answer["store"].as_str() {
        Some("evicting") => {
            lines.push("the store may evict what waits: nothing is accepted".to_owned());
        }
        Some("unknown") => lines.push("the store has not been reached yet".to_owned()),
        _ => {}
    }
    if lines.is_empty() { "no queue is configured".to_owned() } else { lines.join("\n") }
}

/// Carries out `deliveries`; what to print.
pub(super) fn deliveries(options: &Deliveries, path: &Path) -> Result<String, Failure> {
    match &options.action {
        Deed::List { queue, state, after, json, target } => {
            let pairs = [("state", state), ("after", after)];
            let given = pairs.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
            let given: Vec<String> =
                given.map(|(name, value)| format!("{name}={}", segment(value))).collect();
            let at = format!("/v1/queues/{}/items?{}", segment(queue), given.join("&"));
            let remote = target.find(path)?;
            let answer = remote.send((Method::GET, &at), &json!({}), &["items"])?;
            Ok(if *json { json_text(&answer) } else { tell_items(&answer) })
        }
        Deed::Show { id, target } => {
            let at = format!("/v1/deliveries/{}", segment(id));
            let remote = target.find(path)?;
            let answer = remote.send((Method::GET, &at), &json!({}), &["id", "state"])?;
            Ok(json_text(&answer))
        }
        Deed::Requeue { id: Some(id), target, .. } => {
            let at = format!("/v1/deliveries/{}/requeue", segment(id));
            change(&target.find(path)?, &at, &json!({}), &["id", "state"])?;
            Ok(format!("waits again: {id}"))
        }
        Deed::Requeue { id: None, queue, error, target } => {
            let queue = queue.as_deref().unwrap_or_default();
            let at = format!("/v1/queues/{}/requeue", segment(queue));
            let body = error.as_ref().map_or_else(|| json!({}), |it| json!({ "error": it }));
            let answer = change(&target.find(path)?, &at, &body, &["requeued"])?;
            let count = answer["requeued"].as_u64().unwrap_or_default();
            Ok(format!("wait again: {count} of {queue}"))
        }
        Deed::Cancel { id, target } => {
            let at = format!("/v1/deliveries/{}/cancel", segment(id));
            change(&target.find(path)?, &at, &json!({}), &["id", "state"])?;
            Ok(format!("cancelled: {id}"))
        }
    }
}

fn tell_items(answer: &Value) -> String {
    let items = answer["items"].as_array().map_or(&[][..], Vec::as_slice);
    if items.is_empty() {
        return "none".to_owned();
    }
    let mut lines: Vec<String> = items.iter().map(|item| plain(&line(item))).collect();
    if let Some(next) = answer["next"].as_str() {
        lines.push(format!("more: --after {next}"));
    }
    lines.join("\n")
}

/// One delivery: its id, where it stands, what it is, and why it is not done.
fn line(item: &Value) -> String {
    let text = |name: &str| item[name].as_str().unwrap_or("-");
    let mut line = format!(
        "{}  {}  {} {}  accepted {}  {} failures",
        text("id"),
        text("state"),
        text("method"),
        text("path"),
        text("accepted_at"),
        item["failures"].as_u64().unwrap_or_default()
    );
    if let Some(status) = item["status"].as_u64() {
        line += &format!("  {status}");
    }
    if let Some(error) = item["error"].as_str() {
        line += &format!("  {error}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_one_line() {
        let queue = json!({
            "items": { "waiting": 3, "later": 2, "behind": 1, "delivering": 4, "dead": 5 },
            "open": 10, "max_items": 100, "bytes": 2048, "oldest_seconds": 7,
            "paused": { "why": "moved\u{1b}[2J", "seconds_left": null },
        });
        let answer = json!({ "store": "safe", "queues": { "mail": queue } });
        let expected = "mail  10 of 100 open (3 due, 2 later, 1 behind, 4 under way), 5 dead, \
                        2048 bytes, the oldest 7 s old; paused: moved\\u{1b}[2J";
        assert_eq!(tell_queues(&answer), expected);
        assert_eq!(tell_queues(&json!({ "queues": {} })), "no queue is configured");
        let evicting = json!({ "store": "evicting", "queues": {} });
        assert!(tell_queues(&evicting).contains("may evict"));
    }

    #[test]
    fn a_delivery_is_one_line_and_a_page_says_where_the_next_begins() {
        let item = json!({
            "id": "x", "state": "dead", "method": "POST", "path": "/mail", "failures": 3,
            "accepted_at": "2026-11-30T09:12:40.000Z", "status": 500, "error": "exhausted",
        });
        let expected = "x  dead  POST /mail  accepted 2026-11-30T09:12:40.000Z  3 failures  500  \
                        exhausted";
        let page = json!({ "items": [item], "next": "y" });
        assert_eq!(tell_items(&page), format!("{expected}\nmore: --after y"));
        assert_eq!(tell_items(&json!({ "items": [], "next": null })), "none");
    }
}
