//! The house rules that no compiler checks: who may import whom, what every file begins with, how
//! long things get, what must not be left behind, and that the reference configuration is complete.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Most columns of a line, in characters.
const COLUMNS_MAX: usize = 100;
/// Most lines of a file under `src`.
const LINES_MAX: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under these folders, by its path from the root, and its text.
fn sources(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let mut waiting: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap();
            waiting.extend(entries.map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
        }
    }
    found.sort();
    assert!(found.len() > 10, "{folders:?} has only {} files", found.len());
    found
}

/// The module under `src` that a file belongs to: `src/auth/keys.rs` is of `auth`.
fn module(path: &Path) -> String {
    let first = path.iter().nth(1).unwrap().to_str().unwrap();
    first.strip_suffix(".rs").unwrap_or(first).to_owned()
}

/// Whether a file, or the rest of it, is only there for its module's own tests.
fn without_tests<'a>(path: &Path, text: &'a str) -> &'a str {
    let is_test = path.iter().any(|part| part == "tests" || part == "tests.rs");
    let end = if is_test { Some(0) } else { text.find("#[cfg(test)]\nmod tests {") };
    &text[..end.unwrap_or(text.len())]
}

/// The rooms that a file names: in imports of every form, and in its code.
fn imports(path: &Path, text: &str) -> BTreeSet<String> {
    let place = place(path);
    let file = File::read(text);
    let paths = file.uses.iter().map(|import| &import.path).chain(&file.paths);
    let room = |path: &Place| {
        let ups = path.iter().take_while(|word| *word == "super").count();
        let below_root = match path.first()?.as_str() {
            "crate" => 1,
            // Above the file's own room there is the root.
            "super" if ups >= place.len() => ups,
            _ => return None,
        };
        path.get(below_root).cloned()
    };
    paths.filter_map(room).collect()
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::a::B;\n// use crate::no;\nuse crate::{c, d::{E, F},\n    g as h};\n\
                use super::no;\nuse super::super::{k::L, m};\npub(in super::super) struct N;\n\
                fn f(x: &crate::i::J) -> mycrate::K { crate::l(); super::super::o::p() }\n";
    let expected = ["a", "c", "d", "g", "i", "k", "l", "m", "o"].map(str::to_owned);
    assert_eq!(imports(Path::new("src/room/file.rs"), text), BTreeSet::from(expected));
    for (path, text, expected) in [
        ("src/room/mod.rs", "use super::b::C;", &["b"][..]),
        ("src/room.rs", "use super::b::C;", &["b"]),
        ("src/room/file.rs", "use super::b::C;", &[]),
        ("src/room/deep/file.rs", "use super::super::b::C;", &[]),
        ("src/room/deep/file.rs", "use super::super::super::b::C;", &["b"]),
    ] {
        let expected = expected.iter().map(|room| (*room).to_owned()).collect();
        assert_eq!(imports(Path::new(path), text), expected, "{path}: {text}");
    }
}

/// Modules by rank, from the map in `lib.rs`: the one list. Imports go strictly downwards, so
/// modules of one rank never import each other.
fn ranks() -> BTreeMap<String, u8> {
    table("src/lib.rs", "//! ")
}

/// The rows `| rank | modules | … |` of a file, each of which may name several modules.
fn table(file: &str, prefix: &str) -> BTreeMap<String, u8> {
    let text = std::fs::read_to_string(root().join(file)).unwrap();
    let mut ranks = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix(prefix)) {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (Some(rank), Some(modules)) = (cells.next(), cells.next()) else { continue };
        let Ok(rank) = rank.parse() else { continue };
        for module in modules.split('`').skip(1).step_by(2) {
            let known = ranks.insert(module.to_owned(), rank);
            assert!(known.is_none(), "{file} ranks {module} twice");
        }
    }
    assert!(ranks.len() > 10, "{file} ranks only {ranks:?}");
    ranks
}

#[test]
fn every_module_has_one_rank_and_the_maps_agree() {
    let ranks = ranks();
    let mut modules: BTreeSet<String> = sources(&["src"]).iter().map(|(p, _)| module(p)).collect();
    modules.remove("lib");
    assert_eq!(ranks.keys().cloned().collect::<BTreeSet<_>>(), modules, "the map in src/lib.rs");
    assert_eq!(table("ARCHITECTURE.md", ""), ranks, "the map in ARCHITECTURE.md");
}

#[test]
fn imports_go_downwards() {
    let ranks = ranks();
    let mut wrong = Vec::new();
    for (path, text) in sources(&["src"]) {
        let own = module(&path);
        let Some(from) = ranks.get(&own) else { continue };
        for other in imports(&path, without_tests(&path, &text)) {
            if other != own && ranks.get(&other).is_none_or(|rank| rank >= from) {
                wrong.push(format!("{} (rank {from}) imports {other}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports go strictly downwards:\n{}", wrong.join("\n"));
}

/// Who imports whom.
type Arrows<T> = BTreeMap<T, BTreeSet<T>>;

/// Takes away what imports nothing that is left, until nothing can be taken: what is left imports
/// each other in circles, or imports those that do.
fn without_leaves<T: Ord + Clone>(mut arrows: Arrows<T>) -> Arrows<T> {
    while let Some(leaf) = arrows
        .iter()
        .find(|(_, others)| !others.iter().any(|other| arrows.contains_key(other)))
        .map(|(name, _)| name.clone())
    {
        arrows.remove(&leaf);
    }
    arrows
}

/// Where a module or an item is, from the root of the crate: `["auth", "keys", "KeySet"]`.
type Place = Vec<String>;

/// Where the module of a file under `src` is.
fn place(path: &Path) -> Place {
    let path = path.with_extension("");
    let words = path.iter().skip(1).map(|word| word.to_str().unwrap().to_owned());
    words.filter(|word| word != "mod").collect()
}

/// What one file of a room imports.
#[derive(Default)]
struct File {
    uses: Vec<Use>,
    /// Paths in its code, as they are written.
    paths: Vec<Place>,
}

/// One import.
struct Use {
    /// It hands on what it imports.
    is_public: bool,
    path: Place,
    /// The name that it has here.
    name: String,
}

impl File {
    fn read(text: &str) -> Self {
        let mut file = Self::default();
        let mut code = String::new();
        let mut lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        while let Some(line) = lines.next() {
            let (visibility, import) = match line.trim_start().split_once("use ") {
                Some((before, rest)) if before.is_empty() || is_visibility(before) => {
                    (before, rest)
                }
                _ => {
                    code.extend([line, "\n"]);
                    continue;
                }
            };
            let mut tree = import.to_owned();
            while !tree.contains(';') {
                tree.push_str(lines.next().unwrap_or(";"));
            }
            let tree = tree.split(';').next().unwrap_or_default();
            flatten(tree, &[], &mut |path, name| {
                let is_public = !visibility.is_empty();
                file.uses.push(Use { is_public, path, name });
            });
        }
        // `pub(in crate::a)` names whom an item is shown to, and imports nothing.
        file.paths = paths(&code.replace("pub(in crate::", "pub("));
        file
    }
}

/// `pub ` or `pub(…) `.
fn is_visibility(text: &str) -> bool {
    text.starts_with("pub") && !text.contains(';') && !text.contains('{')
}

/// Hands over every path of a tree of imports, and its name.
fn flatten(tree: &str, above: &[String], found: &mut impl FnMut(Place, String)) {
    let tree = tree.trim();
    let (begin, inner) = match tree.split_once('{') {
        Some((begin, rest)) => (begin, Some(rest.rsplit_once('}').map_or(rest, |it| it.0))),
        None => (tree, None),
    };
    let (begin, alias) = match begin.split_once(" as ") {
        Some((begin, alias)) => (begin, Some(alias.trim().to_owned())),
        None => (begin, None),
    };
    let words = begin.split("::").map(str::trim).filter(|word| !word.is_empty());
    let mut path: Place = above.iter().cloned().chain(words.map(str::to_owned)).collect();
    let Some(inner) = inner else {
        // `a::{self}` is `a`.
        if path.len() > 1 && path.last().is_some_and(|word| word == "self") {
            path.pop();
        }
        let name = alias.or_else(|| path.last().cloned()).unwrap_or_default();
        return found(path, name);
    };
    let mut depth = 0;
    let parts = inner.split(|c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    for part in parts.filter(|part| !part.trim().is_empty()) {
        flatten(part, &path, found);
    }
}

/// The paths of more than one word in code.
fn paths(code: &str) -> Vec<Place> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = code;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        if !is_word(first) || is_word(before) || matches!(before, ':' | '$') {
            before = first;
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let mut path = Vec::new();
        loop {
            let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            path.push(rest[..end].to_owned());
            before = 'x';
            rest = &rest[end..];
            match rest.strip_prefix("::") {
                Some(after) if after.starts_with(is_word) => rest = after,
                _ => break,
            }
        }
        if path.len() > 1 {
            found.push(path);
        }
    }
    found
}

/// What only the cache's room may call of the store: whoever else did would read past purges that
/// the store has not taken yet.
const OF_THE_CACHE: [&str; 14] = [
    "variants",
    "variant_names",
    "epochs",
    "tags",
    "known_epochs",
    "remember",
    "write_chunks",
    "extend_chunks",
    "chunks",
    "has_chunks",
    "drop_chunks",
    "purge",
    "withdraw_all",
    "found",
];

#[test]
fn only_the_cache_asks_the_store_about_the_cache() {
    let mut wrong = Vec::new();
    for (path, text) in sources(&["src"]) {
        if matches!(&*module(&path), "caching" | "store") {
            continue;
        }
        // A call may stand on a line of its own.
        let code: String = text.split_whitespace().collect();
        for name in OF_THE_CACHE {
            if code.contains(&format!("store.{name}(")) {
                wrong.push(format!("{} calls store.{name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "by way of caching::HttpCache, please:\n{}", wrong.join("\n"));
}

#[test]
fn only_the_topology_chooses_connections_to_redis() {
    let mut found = BTreeSet::new();
    for (path, text) in sources(&["src/store/redis"]) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let code = without_tests(&path, &text);
        if ["Link::start(", " Call {"].iter().any(|call| code.contains(call)) {
            found.insert(name);
        }
    }
    // A link makes its connections anew by itself, a server has those of each thread, whoever looks
    // for a cluster asks its seeds, an ear hears of one server of it, an operator looks at each,
    // and three others try what nobody uses yet.
    let expected = [
        "ear", "link", "looking", "operator", "renewal", "selftest", "sentinel", "server",
        "topology",
    ];
    let expected = expected.map(str::to_owned);
    assert_eq!(found, BTreeSet::from(expected), "who chooses connections to Redis");
}

#[test]
fn paths_and_imports_are_read_in_every_form() {
    let file = File::read(
        "use a::b;\npub(super) use c::{self, d::{E as F, G}};\n// use no;\n\
         fn f(x: &h::I) { j::k::<L>(m::N { o }); $crate::p(); q }\nuse r::{\n    s,\n};\n",
    );
    let words = |path: &Place| path.join("::");
    let uses: Vec<String> = file
        .uses
        .iter()
        .map(|it| format!("{} {} {}", it.is_public, words(&it.path), it.name))
        .collect();
    let expected = ["false a::b b", "true c c", "true c::d::E F", "true c::d::G G", "false r::s s"];
    assert_eq!(uses, expected);
    assert_eq!(file.paths.iter().map(words).collect::<Vec<_>>(), ["h::I", "j::k", "m::N"]);
}

/// The files of all rooms, by where their modules are.
struct Rooms(BTreeMap<Place, File>);

impl Rooms {
    fn read() -> Self {
        let mut files = BTreeMap::new();
        for (path, text) in sources(&["src"]) {
            let code = without_tests(&path, &text);
            if code.is_empty() {
                continue;
            }
            files.insert(place(&path), File::read(code));
        }
        Self(files)
    }

    /// A path as a file writes it, from the root; nothing when it leaves the crate.
    fn absolute(&self, file: &Place, path: &[String]) -> Option<Place> {
        let (first, rest) = path.split_first()?;
        let base = match first.as_str() {
            "crate" => &[],
            "self" => file.as_slice(),
            "super" => {
                let above = file.split_last()?.1.to_vec();
                return if rest.first().is_some_and(|word| word == "super") {
                    self.absolute(&above, rest)
                } else {
                    Some([&above, rest].concat())
                };
            }
            _ => {
                let child = [file.as_slice(), std::slice::from_ref(first)].concat();
                return self.0.contains_key(&child).then(|| [&child, rest].concat());
            }
        };
        Some([base, rest].concat())
    }

    /// The file in which an item is defined, through whatever re-exports it.
    fn home(&self, item: &[String], seen: &mut Vec<Place>) -> Option<Place> {
        let (file, rest) = (1..=item.len())
            .rev()
            .map(|length| item.split_at(length))
            .find(|(file, _)| self.0.contains_key(*file))?;
        let file = file.to_vec();
        let Some(name) = rest.first() else { return Some(file) };
        let handed_on = self.0[&file].uses.iter().find(|import| import.name == *name);
        let further = handed_on.and_then(|import| self.absolute(&file, &import.path));
        match further {
            Some(further) if !seen.contains(&further) => {
                seen.push(further.clone());
                let item = [&further, &rest[1..]].concat();
                self.home(&item, seen).or(Some(file))
            }
            _ => Some(file),
        }
    }

    /// Which files of one room import which. What a module only hands on from its children is no
    /// import; what it uses of them is, and then they must not use what it defines itself.
    fn arrows(&self) -> Arrows<Place> {
        let mut arrows: Arrows<Place> = BTreeMap::new();
        for (place, file) in &self.0 {
            let imported = file.uses.iter().map(|import| (import.is_public, import.path.clone()));
            let written = file.paths.iter().map(|path| {
                // The first word may be a module that was imported.
                let import = file.uses.iter().find(|import| import.name == path[0]);
                let path = match import {
                    Some(import) => [&import.path, &path[1..]].concat(),
                    None => path.clone(),
                };
                (false, path)
            });
            for (is_public, path) in imported.chain(written) {
                let item = self.absolute(place, &path);
                let Some(home) = item.and_then(|item| self.home(&item, &mut Vec::new())) else {
                    continue;
                };
                let is_handed_on = is_public && home.starts_with(place);
                if home != *place && home.first() == place.first() && !is_handed_on {
                    arrows.entry(place.clone()).or_default().insert(home);
                }
            }
        }
        arrows
    }
}

#[test]
fn there_are_no_circles_inside_rooms() {
    let arrows = Rooms::read().arrows();
    assert!(arrows.len() > 50, "{arrows:?}");
    let left = without_leaves(arrows);
    // What no circle leads to is only above one.
    let mut turned: Arrows<Place> = BTreeMap::new();
    for (from, to) in left.iter().flat_map(|(from, all)| all.iter().map(move |to| (from, to))) {
        turned.entry(to.clone()).or_default().insert(from.clone());
        turned.entry(from.clone()).or_default();
    }
    let circles: Vec<String> = without_leaves(turned)
        .into_iter()
        .filter(|(place, _)| left.contains_key(place))
        .map(|(place, by)| format!("{} is imported by {by:?}", place.join("/")))
        .collect();
    assert!(circles.is_empty(), "files import each other in circles:\n{}", circles.join("\n"));
}

#[test]
fn functions_are_short_and_ask_for_little() {
    let text = std::fs::read_to_string(root().join("clippy.toml")).unwrap();
    for threshold in ["too-many-lines-threshold = 60", "too-many-arguments-threshold = 5"] {
        assert!(text.lines().any(|line| line == threshold), "clippy.toml lacks {threshold}");
    }
    // Clippy looks at the number of arguments by itself, and at lines only when it is told to.
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let lints = manifest.split("[lints.clippy]").nth(1).unwrap_or_default();
    let lints = lints.split("\n[").next().unwrap_or_default();
    let looks = |line: &str| line == "too_many_lines = \"warn\"";
    assert!(lints.lines().any(looks), "Cargo.toml does not turn too_many_lines on");
    // In pieces, so that this file does not find itself. An `expect` without a reason, or without
    // need, does not pass clippy.
    let allowed = ["lines", "arguments"].map(|what| format!("{}{what}", "allow(clippy::too_many_"));
    let excused = sources(&["src", "tests"]).into_iter().filter_map(|(path, text)| {
        allowed.iter().any(|allow| text.contains(allow)).then_some(path)
    });
    let excused: Vec<PathBuf> = excused.collect();
    assert!(excused.is_empty(), "write `#[expect(…, reason = \"…\")]` in {excused:?}");
}

/// Whether this is the name of a refusal.
fn is_code(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// The codes of a file: what stands beside a status in its table, and what its functions `code`
/// say.
fn codes(file: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join(file)).unwrap();
    let mut codes = BTreeSet::new();
    for rest in text.split("StatusCode::").skip(1) {
        let Some((_, rest)) = rest.split_once(',') else { continue };
        let code = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
        codes.extend(code.filter(|code| is_code(code)).map(str::to_owned));
    }
    for body in text.split("fn code(&self) -> &'static str {").skip(1) {
        let body = body.split("\n    }\n").next().unwrap_or_default();
        codes.extend(body.split('"').skip(1).step_by(2).map(str::to_owned));
    }
    assert!(codes.len() > 5, "{file} has only {codes:?}");
    codes
}

/// Files of tests that meet refusals of the admin listener alone, some of which have the same name.
const OF_THE_ADMIN_LISTENER: [&str; 2] = ["tests/it/admin.rs", "tests/it/sessions/operated.rs"];

/// The names in quotes that stand in a test of refusals: in a function that reads the `reason` of a
/// line or the code of an answer, or calls one of its file that does.
fn met_codes(text: &str) -> BTreeSet<String> {
    let functions: Vec<&str> = text.split("fn ").skip(1).collect();
    let name = |function: &str| function.split(['(', '<']).next().unwrap_or_default().to_owned();
    let reads = |function: &&str| {
        ["\"reason\"", "problem", "code("].iter().any(|mark| function.contains(mark))
    };
    let mut readers: BTreeSet<String> = functions.iter().copied().filter(reads).map(name).collect();
    loop {
        let calls =
            |function: &&str| readers.iter().any(|reader| function.contains(&format!("{reader}(")));
        let more: BTreeSet<String> = functions.iter().copied().filter(calls).map(name).collect();
        if more.is_subset(&readers) {
            break;
        }
        readers.extend(more);
    }
    let of_readers = functions.into_iter().filter(|function| readers.contains(&name(function)));
    let quoted = of_readers.flat_map(|function| function.split('"').skip(1).step_by(2));
    let codes = quoted.map(|text| text.trim_start_matches("urn:portcullis:problem:"));
    codes.filter(|code| is_code(code)).map(str::to_owned).collect()
}

#[test]
fn a_code_is_met_where_an_answer_is_looked_at() {
    let text = "fn code(r: &R) -> S { r.0 }\nfn is(r: &R) { assert_eq!(code(r), \"a\") }\n\
                #[test]\nfn one() { is(&get(\"b\")) }\n#[test]\nfn other() { say(\"c\") }\n\
                fn line() { x[\"reason\"] == \"d\" }\nfn ends() { \"urn:portcullis:problem:e\" }\n";
    let expected = ["a", "b", "d", "e", "reason"].map(str::to_owned);
    assert_eq!(met_codes(text), BTreeSet::from(expected));
}

#[test]
fn every_code_of_a_refusal_is_met_in_a_test() {
    let tests = sources(&["tests/it"]).into_iter();
    let of_requests =
        tests.filter(|(path, _)| OF_THE_ADMIN_LISTENER.iter().all(|admin| !path.ends_with(admin)));
    let met: BTreeSet<String> = of_requests.flat_map(|(_, text)| met_codes(&text)).collect();
    for file in [
        "src/proxy/rejection/rows.rs",
        "src/proxy/rejection/delivery_rows.rs",
        "src/proxy/rejection/signed_rows.rs",
        "src/auth/challenge.rs",
    ] {
        let unmet: Vec<_> = codes(file).into_iter().filter(|code| !met.contains(code)).collect();
        assert!(unmet.is_empty(), "no test under tests/it meets {unmet:?} of {file}");
    }
}

/// How many cells a row of a table has.
fn cells(row: &str) -> usize {
    let row = row.trim().replace("\\|", "");
    row.trim_start_matches('|').trim_end_matches('|').split('|').count()
}

#[test]
fn every_row_of_a_table_has_the_cells_of_its_header() {
    let docs = std::fs::read_dir(root().join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path());
    let pages = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|page| root().join(page));
    let mut wrong = Vec::new();
    let mut tables = 0;
    for page in docs.chain(pages).filter(|page| page.extension().is_some_and(|it| it == "md")) {
        let text = std::fs::read_to_string(&page).unwrap();
        let (mut is_code, mut columns) = (false, None);
        for (number, line) in text.lines().enumerate() {
            is_code ^= line.trim_start().starts_with("```");
            if is_code || !line.starts_with('|') {
                columns = None;
                continue;
            }
            tables += usize::from(columns.is_none());
            let header = *columns.get_or_insert(cells(line));
            if cells(line) != header {
                wrong.push(format!("{}:{}", page.display(), number + 1));
            }
        }
    }
    assert!(tables > 20, "only {tables} tables");
    assert!(wrong.is_empty(), "rows with other cells than their header:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    for (path, text) in sources(&["src", "tests"]) {
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! "), "{} has no `//!` header", path.display());
        assert!(first.len() > 20, "the header of {} says nothing", path.display());
    }
}

#[test]
fn lines_and_files_are_short() {
    let mut long = Vec::new();
    for (path, text) in sources(&["src", "tests", "benches"]) {
        for (number, line) in text.lines().enumerate() {
            if line.chars().count() > COLUMNS_MAX {
                long.push(format!("{}:{}", path.display(), number + 1));
            }
        }
        let lines = text.lines().count();
        if path.starts_with("src") && lines > LINES_MAX {
            long.push(format!("{} has {lines} lines", path.display()));
        }
    }
    assert!(long.is_empty(), "too long:\n{}", long.join("\n"));
}

/// `XGROUP DELCONSUMER` drops what the consumer has claimed, for ever (redis#9745).
#[test]
fn no_consumer_of_a_stream_is_ever_deleted() {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join("src/store/scripts")).expect("the scripts") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a script");
        found.extend(text.contains("DELCONSUMER").then_some(path));
    }
    for (path, text) in sources(&["src"]) {
        found.extend(text.to_uppercase().contains("DELCONSUMER").then_some(path));
    }
    assert!(found.is_empty(), "these delete consumers: {found:?}");
}

#[test]
fn nothing_is_left_behind() {
    // In pieces, so that this file does not find itself.
    let marks = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["HA", "CK"]].map(|two| two.concat());
    let machines = ["/home/", "/root/", "/Users/", "/tmp/"].map(|path| path.to_owned());
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut left = Vec::new();
    for (path, text) in sources(&["src", "tests", "benches"]) {
        if path.ends_with("tidy.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split(|c| !is_word(c)).collect();
            let marked = marks.iter().any(|mark| words.contains(&mark.as_str()));
            let placed = machines.iter().any(|machine| line.contains(machine.as_str()));
            if marked || placed || line.contains(root().to_str().unwrap()) {
                left.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
}

/// The keys that `gateway.toml` shows, commented examples included, with `NAME` for names.
fn shown_keys() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("gateway.toml")).unwrap();
    let mut shown = BTreeSet::new();
    let mut table = String::new();
    for line in text.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if line.starts_with('[') && line.ends_with(']') {
            let mut parts: Vec<&str> = line.trim_matches(['[', ']']).split('.').collect();
            const NAMED: [&str; 8] = [
                "auth",
                "providers",
                "signers",
                "limits",
                "queues",
                "events",
                "upstreams",
                "routes",
            ];
            if NAMED.contains(&parts[0]) && parts.len() > 1 {
                parts[1] = "NAME";
            }
            table = parts.join(".");
            // A list of tables is itself a key.
            shown.insert(table.clone());
        } else if let Some((key, value)) = line.split_once(" = ") {
            let dot = if table.is_empty() { "" } else { "." };
            shown.insert(format!("{table}{dot}{key}"));
            for part in value.split(['{', ',']).filter_map(|part| part.split_once(" = ")) {
                shown.insert(format!("{table}.{key}.{}", part.0.trim()));
            }
        }
    }
    shown
}

#[test]
fn the_reference_configuration_shows_every_key() {
    let shown = shown_keys();
    let known = portcullis::config::known_keys();
    assert!(known.len() > 50, "{known:?}");
    let missing: Vec<_> = known.iter().filter(|key| !shown.contains(*key)).collect();
    assert!(missing.is_empty(), "gateway.toml does not show {missing:?}");
}

/// Most lines of a file of the dashboard, and of all together.
const UI_LINES_MAX: [usize; 2] = [400, 4_500];
/// The one address that SVG is made by. Nothing is ever fetched from it.
const SVG: &str = "http://www.w3.org/2000/svg";

/// The files of the dashboard, by their paths below its folder.
fn ui_files() -> Vec<(String, String)> {
    let folder = root().join("src/admin/ui");
    let (mut waiting, mut found) = (vec![folder.clone()], Vec::new());
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let name = path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
            found.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// What is wrong with a line of the dashboard: it makes markup or code from text, has what its
/// policy forbids, or names another host.
fn ui_fault(line: &str) -> Option<&'static str> {
    let forbidden = ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
        .into_iter()
        .chain(["new Function", "javascript:", " style=", "\"style\"", "://"]);
    let line = line.replace(SVG, "");
    let is_handler = |word: &str| {
        let name = word.strip_prefix("on").and_then(|rest| rest.split_once('='));
        name.is_some_and(|(name, _)| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase())
        })
    };
    let is_markup = line.split_whitespace().any(is_handler);
    if is_markup { Some("on…=") } else { forbidden.into_iter().find(|it| line.contains(it)) }
}

#[test]
fn what_the_dashboard_must_not_have_is_found() {
    for line in ["a.innerHTML = b", "<p style=\"c\">", "<p onclick=\"d\">", "e(\"https://f\")"] {
        assert!(ui_fault(line).is_some(), "{line}");
    }
    for line in ["const online = 1;", "on: { click }", &format!("const NS = \"{SVG}\";")] {
        assert_eq!(ui_fault(line), None, "{line}");
    }
}

#[test]
fn the_dashboard_is_small_plain_and_served_whole() {
    let table = std::fs::read_to_string(root().join("src/admin/ui.rs")).unwrap();
    let (mut wrong, mut lines) = (Vec::new(), 0);
    let files = ui_files();
    assert!(files.len() > 10, "{files:?}");
    for (name, text) in &files {
        let begin = text.strip_prefix("<!doctype html>\n").unwrap_or(text);
        if !["// ", "/* ", "<!-- "].iter().any(|comment| begin.starts_with(comment)) {
            wrong.push(format!("{name} does not say what it is for"));
        }
        if !table.contains(&format!(", \"{name}\"),")) {
            wrong.push(format!("{name} is not served by src/admin/ui.rs"));
        }
        if text.lines().count() > UI_LINES_MAX[0] {
            wrong.push(format!("{name} has more than {} lines", UI_LINES_MAX[0]));
        }
        lines += text.lines().count();
        for (number, line) in text.lines().enumerate() {
            let place = format!("{name}:{}", number + 1);
            if line.chars().count() > COLUMNS_MAX {
                wrong.push(format!("{place} has more than {COLUMNS_MAX} columns"));
            }
            wrong.extend(ui_fault(line).map(|fault| format!("{place} has {fault:?}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(lines <= UI_LINES_MAX[1], "the dashboard has {lines} lines");
}
