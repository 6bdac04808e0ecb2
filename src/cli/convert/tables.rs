//! TOML as a [`Node`].

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::tree::{DEPTH_MAX, NODES_MAX, Node, Value};
use super::yaml::Fault;

/// Reads a document.
pub(super) fn parse(text: &str) -> Result<Node, Fault> {
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (line(text, at), format!("is no TOML: {}", error.message()))
    })?;
    let starts: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    let mut walk = Walk { starts, count: 0 };
    let entries = walk.entries(table.get_ref(), 0)?;
    Ok(Node::new(1, Value::Map(entries)))
}

fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

struct Walk {
    /// Where lines end, in bytes.
    starts: Vec<usize>,
    count: usize,
}

impl Walk {
    fn entries(&mut self, table: &DeTable<'_>, depth: usize) -> Result<Vec<(String, Node)>, Fault> {
        let mut entries = Vec::new();
        for (name, value) in table {
            // A table's own span is its header or nothing; that of its name is where people look.
            let line = self.line(name.span().start);
            entries.push((name.get_ref().to_string(), self.node(value, line, depth + 1)?));
        }
        // A table sorts its names; the order of the source is the one that people know.
        entries.sort_by_key(|(_, node)| node.line);
        Ok(entries)
    }

    fn node(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        line: usize,
        depth: usize,
    ) -> Result<Node, Fault> {
        self.count += 1;
        if depth > DEPTH_MAX || self.count > NODES_MAX {
            let what =
                format!("is more than {DEPTH_MAX} deep, or has more than {NODES_MAX} things");
            return Err((line, what));
        }
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => Value::Text(number.to_string()),
            DeValue::Float(number) => Value::Text(number.to_string()),
            DeValue::Boolean(is_true) => Value::Text(is_true.to_string()),
            DeValue::Datetime(time) => Value::Text(time.to_string()),
            DeValue::Array(items) => {
                let node = |item: &Spanned<DeValue<'_>>| {
                    let line = self.line(item.span().start).max(line);
                    self.node(item, line, depth + 1)
                };
                Value::List(items.iter().map(node).collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => Value::Map(self.entries(table, depth)?),
        };
        Ok(Node::new(line, value))
    }

    fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|end| *end < at) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_found_with_their_lines() {
        let node = parse("a = 1\n[b]\nc = [\"x\", true]\n[[b.d]]\ne = 1.5\n").unwrap();
        assert_eq!(node.get("a").number(), Some(1));
        assert_eq!(node.get("b").get("c").texts(), ["x", "true"]);
        assert_eq!(node.get("b").get("c").line, 3);
        assert_eq!(node.get("b").get("d").items()[0].get("e").text(), Some("1.5"));
        assert_eq!(parse("a = 1\nb = \n").unwrap_err().0, 2);
    }
}
