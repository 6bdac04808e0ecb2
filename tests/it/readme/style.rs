//! What a reader is spared: long sentences, lines that must be scrolled, links to nowhere.

use std::path::Path;

use super::pages::{self, Page, ROOT};

/// Most columns of a line, but for rows of tables.
const COLUMNS_MAX: usize = 100;
/// Most words of a sentence.
const WORDS_MAX: usize = 25;
/// Most lines of the README.
const README_LINES_MAX: usize = 150;

/// The sentences of a page, each with the line on which its paragraph begins. Code in backquotes is
/// one word; headings, tables and comments are none.
fn sentences(page: &Page) -> Vec<(usize, String)> {
    let mut paragraphs: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (number, line) in page.prose() {
        let text = line.trim();
        if text.is_empty() || text.starts_with(['#', '|']) || text.starts_with("<!--") {
            is_open = false;
            continue;
        }
        let item = text.strip_prefix("- ");
        match paragraphs.last_mut() {
            Some((_, paragraph)) if is_open && item.is_none() => paragraph.extend([" ", text]),
            _ => paragraphs.push((number, item.unwrap_or(text).to_owned())),
        }
        is_open = true;
    }
    let mut sentences = Vec::new();
    for (number, paragraph) in paragraphs {
        let outside = |(at, part): (usize, &str)| match at % 2 {
            0 => part.to_owned(),
            _ => "code".to_owned(),
        };
        let plain: String = paragraph.split('`').enumerate().map(outside).collect();
        let ends = [". ", "? ", "! ", ".) "];
        let mut rest = plain.as_str();
        while let Some(end) = ends.iter().filter_map(|end| rest.find(end)).min() {
            sentences.push((number, rest[..=end].to_owned()));
            rest = rest[end + 1..].trim_start_matches(')').trim_start();
        }
        sentences.push((number, rest.to_owned()));
    }
    sentences
}

#[test]
fn sentences_are_found() {
    let text = "# No\n\nOne `a. b` two. Three\nfour?\n\n| no. no |\n- Five.\n- Six\n  seven.\n";
    let page = Page { path: "x.md".to_owned(), text: text.to_owned() };
    let found = sentences(&page);
    let found: Vec<(usize, &str)> = found.iter().map(|(at, text)| (*at, text.as_str())).collect();
    assert_eq!(found, [(3, "One code two."), (3, "Three four?"), (7, "Five."), (8, "Six seven.")]);
}

#[test]
fn sentences_are_short() {
    let mut long = Vec::new();
    for page in pages::all() {
        for (number, sentence) in sentences(&page) {
            let is_word = |word: &&str| word.chars().any(char::is_alphanumeric);
            let words = sentence.split_whitespace().filter(is_word).count();
            if words > WORDS_MAX {
                long.push(format!("{}:{number}: {words} words: {sentence}", page.path));
            }
        }
    }
    assert!(long.is_empty(), "at most {WORDS_MAX} words:\n{}", long.join("\n"));
}

#[test]
fn lines_are_short() {
    let mut long = Vec::new();
    let annotated = pages::page("gateway.toml");
    for page in pages::all().into_iter().chain([annotated]) {
        for (number, line) in page.text.lines().enumerate() {
            if line.chars().count() > COLUMNS_MAX && !line.starts_with('|') {
                long.push(format!("{}:{}", page.path, number + 1));
            }
        }
    }
    assert!(long.is_empty(), "more than {COLUMNS_MAX} columns:\n{}", long.join("\n"));
}

#[test]
fn a_newcomer_reads_the_readme_in_three_minutes() {
    let lines = pages::page("README.md").text.lines().count();
    assert!(lines <= README_LINES_MAX, "{lines} lines; what is more belongs to docs/");
}

#[test]
fn every_page_is_reached_from_the_readme() {
    let readme = pages::page("README.md").text;
    let recipes = pages::page("docs/recipes/README.md").text;
    for page in pages::all() {
        let is_linked = match page.path.strip_prefix("docs/recipes/") {
            Some(name) if name != "README.md" => recipes.contains(&format!("]({name}")),
            _ => readme.contains(&format!("]({}", page.path)),
        };
        assert!(is_linked || page.path == "README.md", "README.md does not link {}", page.path);
    }
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for page in pages::all() {
        let folder = Path::new(&page.path).parent().unwrap();
        for (number, line) in page.prose() {
            for rest in line.split("](").skip(1) {
                let target = rest.split(')').next().unwrap();
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                let path = match file {
                    "" => page.path.clone(),
                    _ => folder.join(file).to_str().unwrap().to_owned(),
                };
                let leads = Path::new(ROOT).join(&path).exists()
                    && (anchor.is_empty()
                        || pages::page(&path).anchors().contains(&anchor.to_owned()));
                if !leads && !file.starts_with("https://") {
                    broken.push(format!("{}:{number}: {target}", page.path));
                }
            }
        }
    }
    assert!(broken.is_empty(), "these lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn the_comparison_names_files_that_exist() {
    let text = pages::page("docs/comparison.md").text;
    for name in text.split('`').skip(1).step_by(2) {
        let path =
            name.strip_prefix("it/").map_or(name.to_owned(), |rest| format!("tests/it/{rest}"));
        let is_file = ["tests/it/", "src/"].iter().any(|folder| path.starts_with(folder));
        let is_there = Path::new(ROOT).join(&path).exists();
        assert!(is_there || !is_file, "there is no {path}");
    }
}
