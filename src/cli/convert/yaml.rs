//! YAML, and JSON as a part of it, as a [`Node`]: bounded in depth and in what aliases stand for,
//! so that no file grows beyond what it is.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::tree::{DEPTH_MAX, NODES_MAX, Node, Value};

/// Why a document cannot be used: the line, and what is there.
pub(super) type Fault = (usize, String);

/// The one that is being read, around those that it lies in.
enum Open {
    List(Vec<Node>),
    Map(Vec<(String, Node)>, Option<String>),
}

/// What is read so far.
#[derive(Default)]
struct Reader {
    open: Vec<(Open, usize, usize)>,
    anchors: HashMap<usize, Node>,
    count: usize,
    root: Option<Node>,
}

/// Reads the first document.
pub(super) fn parse(text: &str) -> Result<Node, Fault> {
    let mut reader = Reader::default();
    let mut documents = 0_usize;
    for event in Parser::new_from_str(text) {
        let (event, span) = event
            .map_err(|error| (error.marker().line(), format!("is no YAML: {}", error.info())))?;
        let line = span.start.line();
        match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err((line, "begins a second document".to_owned()));
                }
            }
            Event::Scalar(text, style, anchor, _) => {
                let is_plain = style == ScalarStyle::Plain;
                let is_null = is_plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if is_null { Value::Null } else { Value::Text(text.into_owned()) };
                reader.add(Node::new(line, value), anchor)?;
            }
            Event::SequenceStart(anchor, _) => {
                reader.begin(Open::List(Vec::new()), anchor, line)?
            }
            Event::MappingStart(anchor, _) => {
                reader.begin(Open::Map(Vec::new(), None), anchor, line)?;
            }
            Event::SequenceEnd | Event::MappingEnd => reader.end()?,
            Event::Alias(anchor) => {
                let named = reader.anchors.get(&anchor).cloned();
                let node =
                    named.ok_or((line, "an alias names what is not there yet".to_owned()))?;
                reader.count_up(node.count().saturating_sub(1), line)?;
                reader.add(node, 0)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
    }
    reader.root.ok_or((1, "is empty".to_owned()))
}

impl Reader {
    fn count_up(&mut self, more: usize, line: usize) -> Result<(), Fault> {
        self.count = self.count.saturating_add(more);
        if self.count > NODES_MAX {
            let what = format!("has more than {NODES_MAX} things, counted with its aliases");
            return Err((line, what));
        }
        Ok(())
    }

    fn begin(&mut self, open: Open, anchor: usize, line: usize) -> Result<(), Fault> {
        if self.open.len() >= DEPTH_MAX {
            return Err((line, format!("lies more than {DEPTH_MAX} deep")));
        }
        self.open.push((open, anchor, line));
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        let Some((open, anchor, line)) = self.open.pop() else { return Ok(()) };
        let value = match open {
            Open::List(items) => Value::List(items),
            Open::Map(entries, _) => Value::Map(entries),
        };
        self.add(Node::new(line, value), anchor)
    }

    /// Puts a thing where it belongs.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        self.count_up(1, node.line)?;
        if anchor > 0 {
            // A copy counts as an alias does.
            self.count_up(node.count().saturating_sub(1), node.line)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|(open, _, _)| open) {
            None => self.root = Some(node),
            Some(Open::List(items)) => items.push(node),
            Some(Open::Map(entries, name)) => match name.take() {
                None => *name = Some(node.text().unwrap_or_default().to_owned()),
                Some(name) if name == "<<" => merge(entries, &node),
                Some(name) => entries.push((name, node)),
            },
        }
        Ok(())
    }
}

/// What `<<` brings in stands behind what the map says itself.
fn merge(entries: &mut Vec<(String, Node)>, node: &Node) {
    for one in node.items() {
        for (name, node) in one.entries().iter().rev() {
            entries.insert(0, (name.clone(), node.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_found_with_their_lines() {
        let node =
            parse("a: 1\nb:\n  - x: {y: 'true'}\n  - ~\nc: &c {d: e}\nf:\n  <<: *c\n").unwrap();
        assert_eq!(node.get("a").number(), Some(1));
        let x = &node.get("b").items()[0];
        assert_eq!((x.line, x.get("x").get("y").is_true()), (3, true));
        assert!(!node.get("b").items()[1].is_some());
        assert_eq!(node.get("f").get("d").text(), Some("e"));
        let json = parse("{\n  \"a\": [1, \"b\"],\n  \"c\": null\n}").unwrap();
        assert_eq!(json.get("a").texts(), ["1", "b"]);
        for (text, line) in [("a: [", 2), ("a: *b", 1), ("", 1), ("a: 1\n---\nb: 2", 2)] {
            let fault = parse(text).unwrap_err();
            assert!(fault.0 <= line, "{text}: {fault:?}");
        }
    }

    #[test]
    fn what_grows_is_refused() {
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let inner = vec![format!("*a{}", level - 1); 9].join(", ");
            laughs += &format!("a{level}: &a{level} [{inner}]\n");
        }
        assert!(parse(&laughs).unwrap_err().1.contains("with its aliases"));
        assert!(parse(&"[".repeat(10_000)).is_err());
        assert!(parse(&"- ".repeat(10_000)).is_err());
    }
}
