//! What follows when a request of a queue ends: `on_dead`, `template`, `callback` and
//! `on_dead_line` of `[queues.NAME]`.

use std::sync::Arc;

use super::callback::{self, Callback};
use super::reader::Section;
use super::value::{choice, text};

/// The queue that callbacks wait in.
pub const CALLBACKS: &str = "callbacks";

/// What follows when a request of a queue ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueEnds {
    /// The queue that gets one that undoes it, when it could not be delivered.
    pub on_dead: Option<String>,
    /// The route whose method and path those have that other queues put in here.
    pub template: Option<String>,
    /// Who is told how they ended.
    pub callback: Option<Arc<Callback>>,
    /// Whether one that could not be delivered holds up those with the same order key.
    pub holds_line: bool,
}

/// Reads these keys of `[queues.NAME]`.
pub(super) fn read(queue: &mut Section<'_>) -> QueueEnds {
    let words = [("continue", false), ("stop", true)];
    QueueEnds {
        on_dead: queue.get("on_dead", text),
        template: queue.optional("template", read_template).flatten(),
        callback: queue.optional("callback", callback::read).flatten().map(Arc::new),
        holds_line: queue.or("on_dead_line", false, choice(&words)),
    }
}

fn read_template(template: &mut Section<'_>) -> Option<String> {
    template.need("route", "\"refund\"", text)
}
