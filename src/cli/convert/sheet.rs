//! The gateway.toml that a conversion makes, table by table with a comment on each thing, and the
//! list of what it leaves out.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::super::plain::plain;
use super::write::{key, list, quoted};

/// What stands before each thing that a person must say.
pub(super) const FILL_IN: &str = concat!("TO", "DO");
/// What a closed route answers.
const REFUSED: &str = "{ status = 403 }";
/// Longest line of a comment, in characters.
const COLUMNS_MAX: usize = 96;
/// Most tables that are written: a gateway.toml has at most 4 MiB.
const TABLES_MAX: usize = 5_000;

/// Something of the source that the file does not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    /// File and line.
    pub(super) at: String,
    /// What stands there.
    pub(super) what: String,
    /// Why it is not carried over.
    pub(super) why: String,
    /// What to do in its place.
    pub(super) instead: String,
}

/// One table with its comments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    notes: Vec<String>,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    Note(String),
    Key(String, String),
}

impl Table {
    /// A table that begins with this comment.
    pub(super) fn new(note: impl Into<String>) -> Self {
        Self { notes: vec![note.into()], lines: Vec::new() }
    }

    /// One more comment before the table.
    pub(super) fn head(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// A comment before the next key.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.lines.push(Line::Note(note.into()));
    }

    /// A key with its value as TOML has it; one that is there already is replaced.
    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        for line in &mut self.lines {
            if let Line::Key(known, old) = line
                && known == name
            {
                *old = value;
                return;
            }
        }
        self.lines.push(Line::Key(name.to_owned(), value));
    }

    /// Whether a key is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.lines.iter().any(|line| matches!(line, Line::Key(known, _) if known == name))
    }

    /// Whether requests get something: an upstream's answer, or content of the file.
    pub(super) fn is_open(&self) -> bool {
        self.value("respond").is_none_or(|it| it.contains("status = 2"))
    }

    /// Refuses all requests, unless none gets anything anyway.
    pub(super) fn close(&mut self, note: impl Into<String>) {
        if self.is_open() {
            self.note(note);
            self.set("respond", REFUSED);
        }
    }

    /// The strings of a list that [`list`] wrote.
    pub(super) fn list_of(&self, name: &str) -> Vec<String> {
        self.value(name).and_then(|value| serde_json::from_str(value).ok()).unwrap_or_default()
    }

    /// The value of a key.
    fn value(&self, name: &str) -> Option<&str> {
        self.keys().into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Takes a key away.
    pub(super) fn remove(&mut self, name: &str) {
        self.lines.retain(|line| !matches!(line, Line::Key(known, _) if known == name));
    }

    /// The keys and values alone: tables with the same ones do the same.
    fn keys(&self) -> Vec<(&str, &str)> {
        self.lines.iter().filter_map(Line::as_key).collect()
    }

    fn render(&self, header: &str) -> String {
        let mut text: String = self.notes.iter().map(|note| comment(note)).collect();
        text += &format!("{header}\n");
        for line in &self.lines {
            text += &match line {
                Line::Note(note) => comment(note),
                Line::Key(name, value) => format!("{} = {value}\n", key(name)),
            };
        }
        text
    }
}

impl Line {
    fn as_key(&self) -> Option<(&str, &str)> {
        match self {
            Self::Key(name, value) => Some((name, value)),
            Self::Note(_) => None,
        }
    }
}

/// A route, before it has a name of its own.
#[derive(Debug, Clone, Default)]
pub(super) struct Route {
    /// What it is to be called.
    pub(super) name: String,
    /// Which host; every one without it.
    pub(super) host: Option<String>,
    /// Its path pattern.
    pub(super) path: String,
    /// Its methods; the usual ones where there is none.
    pub(super) methods: Vec<String>,
    /// What is done with it.
    pub(super) table: Table,
    /// Where it stands in the source.
    pub(super) at: String,
}

/// The whole file.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    server: Table,
    tls: Option<Table>,
    named: Vec<(String, String, Table)>,
    certificates: Vec<Table>,
    listen: Vec<String>,
    names: BTreeSet<(String, String)>,
    /// Routes by host, path and methods, with the names that they have.
    taken: BTreeMap<(Option<String>, String, Vec<String>), String>,
    left: Vec<Left>,
    /// What was closed in the source and is open here: the list begins with it.
    opened: Vec<Left>,
    known_left: BTreeSet<(String, String, String)>,
}

impl Sheet {
    /// `[server]`.
    pub(super) fn server(&mut self) -> &mut Table {
        &mut self.server
    }

    /// `[server.tls]`, which is there from now on.
    pub(super) fn tls(&mut self) -> &mut Table {
        self.tls.get_or_insert_with(|| Table::new("TLS to clients."))
    }

    /// Whether there is TLS to clients.
    pub(super) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// An address to listen on in clear.
    pub(super) fn listen(&mut self, address: String) {
        if !self.listen.contains(&address) {
            self.listen.push(address);
        }
    }

    /// A certificate with its key.
    pub(super) fn certificate(&mut self, table: Table) {
        let files = |of: &Table| ["cert", "key"].map(|name| of.value(name).map(str::to_owned));
        if let Some(known) = self.certificates.iter_mut().find(|it| files(it) == files(&table)) {
            if table.has("default") {
                known.set("default", "true");
            }
            return;
        }
        self.certificates.push(table);
    }

    /// Something that is left out; the same thing once.
    pub(super) fn left(&mut self, left: Left) {
        let known = (left.at.clone(), left.what.clone(), left.why.clone());
        if self.known_left.insert(known) {
            self.left.push(left);
        }
    }

    /// Something that was closed and is open now: the list begins with it.
    pub(super) fn opened(&mut self, mut left: Left) {
        left.what = format!("open now: {}", left.what);
        if !self.opened.contains(&left) {
            self.opened.push(left);
        }
    }

    /// What was left out so far.
    pub(super) fn all_left(&self) -> Vec<&Left> {
        self.opened.iter().chain(&self.left).collect()
    }

    /// A table of `section` under this name, or another one where that is taken; the name it has.
    /// One with the same keys is used again.
    pub(super) fn named(&mut self, section: &str, wanted: &str, table: Table) -> String {
        let wanted = plain_name(wanted);
        let same = self.named.iter().find(|(of, name, known)| {
            of == section && is_name_like(name, &wanted) && known.keys() == table.keys()
        });
        if let Some((_, name, _)) = same {
            return name.clone();
        }
        let mut name = wanted.clone();
        let mut number = 2_u32;
        while !self.names.insert((section.to_owned(), name.clone())) {
            name = format!("{wanted}-{number}");
            number += 1;
        }
        if self.named.len() < TABLES_MAX {
            self.named.push((section.to_owned(), name.clone(), table));
        }
        name
    }

    /// A limit that refuses whoever is in these networks, as `what` does there; the name it has.
    pub(super) fn block(&mut self, what: &str, networks: &[IpNet]) -> String {
        let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        let mut limit = Table::new(format!(
            "{what}: whoever is in these networks gets a 403. It counts nothing that matters."
        ));
        limit.set("key", "[\"address\"]");
        limit.set("allow", "[\"1000000/1s\"]");
        limit.set("scope", "\"local\"");
        limit.set("shadow", "true");
        limit.set("block", list(&networks));
        self.named("limits", "networks", limit)
    }

    /// Whether a route with this host and path, and no methods of its own, is there.
    pub(super) fn has_route(&self, host: Option<&str>, path: &str) -> bool {
        self.taken.contains_key(&(host.map(str::to_owned), path.to_owned(), Vec::new()))
    }

    /// The paths of a host whose routes give nobody anything.
    pub(super) fn closed_paths(&self, host: Option<&str>) -> BTreeSet<String> {
        let own = self.taken.iter().filter(|((of, ..), _)| of.as_deref() == host);
        let is_closed = |name: &str| {
            let mut routes =
                self.named.iter().filter(|(of, known, _)| of == "routes" && known == name);
            routes.any(|(_, _, table)| !table.is_open())
        };
        own.filter(|(_, name)| is_closed(name)).map(|((_, path, _), _)| path.clone()).collect()
    }

    /// A route, unless another one matches the same.
    pub(super) fn route(&mut self, route: Route) {
        let Route { name, host, path, methods, table: said, at } = route;
        let mut sorted = methods.clone();
        sorted.sort_unstable();
        let place = (host.clone(), path.clone(), sorted);
        if let Some(taken) = self.taken.get(&place) {
            let is_closed = !said.is_open();
            if is_closed {
                let taken = taken.clone();
                self.close_route(&taken, &at);
            }
            let answers = if is_closed { ": one of them refuses, and both do now" } else { "" };
            let host = host.unwrap_or_else(|| "every host".to_owned());
            return self.left(Left {
                at,
                what: format!("{path} on {host}"),
                why: format!(
                    "another route has the same host and path; which port a request came to makes \
                     no difference here{answers}"
                ),
                instead: "give it a host of its own, or run a second gateway on that port"
                    .to_owned(),
            });
        }
        if self.named.len() >= TABLES_MAX {
            return self.left(Left {
                at,
                what: format!("{path} and what follows"),
                why: format!("more than {TABLES_MAX} tables"),
                instead: "split the source, and convert its parts".to_owned(),
            });
        }
        let mut table = Table { notes: said.notes, lines: Vec::new() };
        if let Some(host) = host {
            table.set("host", quoted(&host));
        }
        table.set("path", quoted(&path));
        if !methods.is_empty() {
            table.set("methods", list(&methods));
        }
        table.lines.extend(said.lines);
        // Routes differ in host and path, so none is another one's.
        let name = self.named("routes", &name, table);
        self.taken.insert(place, name);
    }

    /// Of two routes for the same requests the closed one holds.
    fn close_route(&mut self, taken: &str, at: &str) {
        let routes = self.named.iter_mut().filter(|(of, _, _)| of == "routes");
        for (_, _, table) in routes.filter(|(_, name, _)| name == taken) {
            table.close(format!("{FILL_IN}: closed, because {at} refuses the same requests."));
        }
    }

    /// The file, with the list of what was left out at its end.
    pub(super) fn render(&self, from: &str) -> String {
        let mut text = comment(&format!(
            "Made by `portcullis convert` from {from}. What could not be carried over is listed \
             at the end. `portcullis check` looks at this file, `portcullis run` serves it."
        ));
        text.push('\n');
        text += &self.render_server();
        text += "\n# Health, metrics and operations. Keep it on loopback or on a private network.\n\
                 [admin]\nlisten = \"127.0.0.1:9901\"\n\n\
                 # With several gateways, write the Redis that they share.\n\
                 [store]\nurl = \"memory:\"\n";
        for section in ["auth", "limits", "upstreams", "routes"] {
            for (_, name, table) in self.named.iter().filter(|(of, _, _)| of == section) {
                text += &format!("\n{}", table.render(&format!("[{section}.{name}]")));
            }
        }
        text + &self.render_left()
    }

    fn render_server(&self) -> String {
        let mut server = self.server.clone();
        if server.notes.is_empty() {
            server.head("Where clients reach the gateway, and what one of them may take.");
        }
        let mut listen = self.listen.clone();
        // In Linux such an address takes both kinds of clients, and two listeners would meet.
        let both = |address: &String| {
            address.strip_prefix("0.0.0.0").is_some_and(|port| {
                self.listen.iter().any(|other| other.strip_prefix("[::]") == Some(port))
            })
        };
        listen.retain(|address| !both(address));
        if listen.is_empty() && self.tls.is_none() {
            server.note("Nothing in the source says where to listen.");
            listen.push("0.0.0.0:8080".to_owned());
        }
        let mut text = String::new();
        // Without an address in clear, those of server.listen are the ones of TLS.
        let mut tls = self.tls.clone();
        if let Some(tls) = &mut tls
            && listen.is_empty()
        {
            server.set("listen", tls.value("listen").unwrap_or("[\"0.0.0.0:8443\"]"));
            tls.remove("listen");
        } else {
            server.set("listen", list(&listen));
        }
        text += &server.render("[server]");
        if let Some(tls) = tls {
            text += &format!("\n{}", tls.render("[server.tls]"));
            for certificate in &self.certificates {
                text += &format!("\n{}", certificate.render("[[server.tls.certificates]]"));
            }
        }
        text
    }

    fn render_left(&self) -> String {
        let all = self.all_left();
        if all.is_empty() {
            return String::new();
        }
        let mut text = "\n# Not carried over:\n".to_owned();
        for left in all {
            text += &comment(&format!("- {}: {}: {}", left.at, left.what, left.why));
            text += &comment(&format!("  help: {}", left.instead));
        }
        text
    }
}

/// Whether a name is the wanted one, or one that was made of it.
fn is_name_like(name: &str, wanted: &str) -> bool {
    name.strip_prefix(wanted).is_some_and(|rest| {
        rest.is_empty()
            || rest.strip_prefix('-').is_some_and(|it| it.bytes().all(|it| it.is_ascii_digit()))
    })
}

/// Text as a name that TOML takes without quotes.
pub(super) fn plain_name(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars().take(64) {
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = name.trim_end_matches('-');
    if name.is_empty() { "all".to_owned() } else { name.to_owned() }
}

/// Lines of comment that say this, in words that fit.
pub(super) fn comment(text: &str) -> String {
    let text = plain(text);
    let indent = if text.starts_with("- ") || text.starts_with("  ") { "  " } else { "" };
    let mut lines = String::new();
    let mut line = if text.starts_with("  ") { "  ".to_owned() } else { String::new() };
    for word in text.split_whitespace() {
        let is_first = line.trim().is_empty();
        if !is_first && line.chars().count() + 1 + word.chars().count() > COLUMNS_MAX {
            lines += &format!("# {line}\n");
            line = indent.to_owned();
        } else if !is_first {
            line.push(' ');
        }
        line += word;
    }
    lines + &format!("# {line}\n")
}
