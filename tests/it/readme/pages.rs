//! The pages of the documentation, cut into blocks, prose and links.

use std::path::Path;

pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A page, by its path from the root.
pub(crate) struct Page {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A fenced block.
#[derive(Debug)]
pub(crate) struct Block {
    /// Where it begins, as `page:line`.
    pub(crate) at: String,
    /// What stands after the fence.
    pub(crate) language: String,
    /// Its lines.
    pub(crate) text: String,
    /// Why it is not executed, from the comment above it.
    pub(crate) left_out: Option<String>,
    /// Whether nothing but empty lines is between it and the block before.
    pub(crate) follows: bool,
}

/// Begins the comment above a block that is not executed; the reason follows.
const NOT_EXECUTED: &str = "<!-- not executed: ";

/// README.md and everything in `docs` and `docs/recipes`.
pub(crate) fn all() -> Vec<Page> {
    let names = |folder: &'static str| {
        let entries = std::fs::read_dir(Path::new(ROOT).join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|it| it.ends_with(".md")).map(move |it| format!("{folder}/{it}"))
    };
    let mut paths: Vec<String> = names("docs").chain(names("docs/recipes")).collect();
    paths.push("README.md".to_owned());
    paths.sort();
    paths.iter().map(|path| page(path)).collect()
}

/// One page.
pub(crate) fn page(path: &str) -> Page {
    let text = std::fs::read_to_string(Path::new(ROOT).join(path));
    Page { path: path.to_owned(), text: text.unwrap_or_else(|error| panic!("{path}: {error}")) }
}

impl Page {
    /// Its fenced blocks.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let (mut inside, mut follows, mut left_out) = (false, false, None);
        for (number, line) in self.text.lines().enumerate() {
            if let Some(language) = line.strip_prefix("```") {
                inside = !inside;
                if inside {
                    blocks.push(Block {
                        at: format!("{}:{}", self.path, number + 1),
                        language: language.to_owned(),
                        text: String::new(),
                        left_out: left_out.take(),
                        follows,
                    });
                }
                follows = true;
            } else if inside {
                let block = blocks.last_mut().unwrap();
                block.text.extend([line, "\n"]);
            } else if !line.is_empty() {
                follows = false;
                left_out = line.strip_prefix(NOT_EXECUTED).map(|reason| {
                    reason.strip_suffix(" -->").expect("one line of comment").to_owned()
                });
            }
        }
        assert!(!inside, "{}: a block does not end", self.path);
        blocks
    }

    /// Its lines outside of blocks, with their numbers.
    pub(crate) fn prose(&self) -> Vec<(usize, &str)> {
        let mut inside = false;
        let mut prose = Vec::new();
        for (number, line) in self.text.lines().enumerate() {
            if line.starts_with("```") {
                inside = !inside;
            } else if !inside {
                prose.push((number + 1, line));
            }
        }
        prose
    }

    /// The anchors of its headings, as they are made from them on a page.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let headings = self.prose().into_iter().filter(|(_, line)| line.starts_with('#'));
        let slug = |heading: &str| -> String {
            let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            let text = heading.trim_start_matches('#').trim().to_lowercase();
            text.chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
        };
        headings.map(|(_, line)| slug(line)).collect()
    }
}
