//! Locations as routes: where their requests go, and what of their paths becomes.

use super::super::pattern::{Mapping, Simple, alternatives, begin, is_plain_path, of_prefix};
use super::super::sheet::{FILL_IN, Left, Route, Sheet, Table};
use super::super::write::{quoted, table};
use super::closed::{find, keep_closed, tell_opened};
use super::parse::Directive;
use super::place::{Kind, Location};
use super::reply::{Of, of_return, redirect, shielded};
use super::scope::{Scope, leave};
use super::settings::{Settings, content_type};
use super::site::{Pass, Site};

/// One server's view of its locations.
pub(super) struct Writer<'s, 'd> {
    pub(super) site: &'s Site<'d>,
    pub(super) host: Option<&'s str>,
    pub(super) name: Option<&'s str>,
    pub(super) scheme: &'static str,
    pub(super) body: u64,
    /// Why none of its routes may be open.
    pub(super) shut: Option<&'static str>,
}

/// The locations of a block, and those within them.
pub(super) fn all<'d>(
    block: &'d [Directive],
    scope: &Scope<'d>,
    within: Option<&str>,
    sheet: &mut Sheet,
) -> Vec<Location<'d>> {
    let mut found = Vec::new();
    for directive in block.iter().filter(|directive| directive.name == "location") {
        let inner = scope.enter(directive.inner(), sheet);
        for kind in kinds(directive, sheet) {
            found.push(Location {
                kind,
                scope: inner.clone(),
                block: directive.inner(),
                at: directive.at(),
                expression: directive.args.join(" "),
                firm: directive.arg(0) == "^~",
                ignores_case: directive.arg(0) == "~*",
                within: within.map(str::to_owned),
            });
        }
        let is_prefix = |it: &&str| it.starts_with('/') && !directive.arg(0).starts_with('~');
        let prefix = directive.args.last().map(String::as_str).filter(is_prefix);
        found.extend(all(directive.inner(), &inner, prefix.or(within), sheet));
    }
    found
}

/// How the requests of a location are chosen: once for each alternative of an expression.
fn kinds(directive: &Directive, sheet: &mut Sheet) -> Vec<Kind> {
    let is_expression = matches!(directive.arg(0), "~" | "~*");
    let regex = directive.arg(1);
    // What is captured is counted, and an alternative captures nothing.
    let captures = directive.inner().iter().flat_map(|it| &it.args).any(|it| it.contains('$'));
    if is_expression && !captures {
        let simple: Option<Vec<Kind>> =
            alternatives(regex).iter().map(|it| Simple::parse(it).map(Kind::Pattern)).collect();
        if let Some(kinds) = simple {
            return kinds;
        }
    }
    match kind(directive) {
        Ok(kind) => vec![kind],
        Err((why, instead)) => {
            leave(directive, why, instead, sheet);
            match directive.args.last() {
                _ if is_expression && captures => vec![Kind::Blind(begin(regex))],
                _ if is_expression => {
                    alternatives(regex).iter().map(|it| Kind::Blind(begin(it))).collect()
                }
                Some(path) if path.starts_with('/') => vec![Kind::Blind(path.clone())],
                _ => Vec::new(),
            }
        }
    }
}

fn kind(directive: &Directive) -> Result<Kind, (&'static str, &'static str)> {
    const PATH: (&str, &str) =
        ("the path holds characters that are written another way here", "write its route by hand");
    let path = directive.args.last().map(String::as_str).unwrap_or_default();
    match (directive.args.len(), directive.arg(0)) {
        (2, "=") if is_plain_path(path) => Ok(Kind::Exact(path.to_owned())),
        (2, "^~") | (1, _) if is_plain_path(path) => Ok(Kind::Prefix(path.to_owned())),
        (2, "~" | "~*") => Simple::parse(path).map(Kind::Pattern).ok_or((
            "a path pattern is made of whole segments, and this expression is not",
            "write routes for the paths that it means; until then they go where other routes say",
        )),
        (1, name) if name.starts_with('@') => {
            Err(("requests are not sent on inside", "name the upstream where it is meant"))
        }
        _ => Err(PATH),
    }
}

impl<'d> Location<'d> {
    fn own(&self, name: &str) -> Option<&'d Directive> {
        self.block.iter().find(|directive| directive.name == name)
    }

    /// The longest prefix that is a prefix of a path, and not the path with its slash.
    pub(super) fn prefix(&self) -> Option<&str> {
        match &self.kind {
            Kind::Prefix(prefix) => Some(prefix),
            _ => None,
        }
    }

    pub(super) fn label(&self) -> &str {
        match &self.kind {
            Kind::Exact(path) | Kind::Prefix(path) => path,
            Kind::Pattern(simple) => &simple.path,
            Kind::Blind(begin) if begin.is_empty() => "of an expression",
            Kind::Blind(begin) => begin,
        }
    }

    /// What its paths begin with.
    pub(super) fn begin(&self) -> &str {
        match &self.kind {
            Kind::Exact(path) | Kind::Prefix(path) | Kind::Blind(path) => path,
            Kind::Pattern(simple) => simple.begin(),
        }
    }

    /// Whether all that it answers is a refusal. What is gone or under repair is no secret.
    pub(super) fn refuses(&self) -> bool {
        let code = |it: &Directive| {
            it.arg(0).parse::<u16>().is_ok_and(|code| (400..500).contains(&code) && code != 410)
        };
        let denies = self.scope.all("allow").first();
        let denies = denies.is_some_and(|it| it.name == "deny" && it.arg(0) == "all");
        match self.own("return") {
            Some(answer) => code(answer),
            None => denies,
        }
    }
}

impl<'d> Writer<'_, 'd> {
    /// The routes of all locations.
    pub(super) fn write(&self, locations: &[Location<'d>], sheet: &mut Sheet) {
        for location in locations {
            if !matches!(location.kind, Kind::Blind(_)) {
                self.write_one(location, locations, sheet);
            }
        }
        for location in locations {
            match &location.kind {
                Kind::Prefix(prefix) if prefix.len() > 1 && prefix.ends_with('/') => {
                    self.bare(location, prefix.trim_end_matches('/'), locations, sheet);
                }
                Kind::Pattern(Simple { bare: Some(bare), .. }) => {
                    self.as_others(bare, &location.at, locations, sheet);
                }
                _ => {}
            }
        }
        // By now it is known which of them are closed.
        for location in locations.iter().filter(|it| !matches!(it.kind, Kind::Blind(_))) {
            let closed = sheet.closed_paths(self.host);
            let is_open = |other: &Location<'_>| {
                let own = self.mappings(other).unwrap_or_default();
                own.is_empty() || own.iter().any(|it| !closed.contains(&it.path))
            };
            tell_opened(location, locations, &is_open, sheet);
        }
    }

    fn settings<'w>(&'w self, scope: &'w Scope<'d>) -> Settings<'w, 'd> {
        Settings { scope, site: self.site, body: self.body }
    }

    fn write_one(&self, location: &Location<'d>, all: &[Location<'d>], sheet: &mut Sheet) {
        let mut routes: Vec<(Mapping, Table)> = Vec::new();
        if location.own("return").is_none() {
            for rewrite in location.block.iter().filter(|it| it.name == "rewrite") {
                routes.extend(self.rewrite(rewrite, Some(location), all, sheet));
            }
        }
        match self.mappings(location) {
            Ok(mappings) => {
                for mapping in mappings {
                    // What a rewrite does with all of a path comes before what follows it.
                    if routes.iter().any(|(known, _)| known.path == mapping.path) {
                        continue;
                    }
                    let made = self.table(location, mapping.replace.as_deref(), sheet);
                    routes.push((mapping, made));
                }
            }
            Err(why) => self.closed(location, why, &mut routes, sheet),
        }
        for (mapping, mut made) in routes {
            keep_closed(&mut made, location, all, sheet);
            self.put(mapping, made, &location.at, sheet);
        }
    }

    /// A route, unless a rewrite took its path before.
    pub(super) fn put(&self, mapping: Mapping, mut made: Table, at: &str, sheet: &mut Sheet) {
        made.head(format!("From {at}."));
        if let Some(note) = mapping.note {
            made.head(format!("Not quite the same: {note}."));
        }
        if let Some(why) = self.shut {
            made.close(format!("{FILL_IN}: closed, because {why}."));
        }
        let host = self.host.map(str::to_owned);
        let name = format!("{} {}", self.host.unwrap_or_default(), mapping.path);
        let route = Route {
            name,
            host,
            path: mapping.path,
            table: made,
            at: at.to_owned(),
            methods: vec![],
        };
        sheet.route(route);
    }

    /// What cannot be said must not be open, or another route would have its requests.
    fn closed(
        &self,
        location: &Location<'d>,
        why: &str,
        routes: &mut Vec<(Mapping, Table)>,
        sheet: &mut Sheet,
    ) {
        let pass = location.own("proxy_pass");
        sheet.left(Left {
            at: pass.map_or_else(|| location.at.clone(), Directive::at),
            what: pass.map_or_else(|| location.label().to_owned(), Directive::text),
            why: why.to_owned(),
            instead: "the route answers 404; write rewrite and upstream by hand".to_owned(),
        });
        let mut made = Table::new(format!("{FILL_IN}: where its requests go."));
        made.set("respond", "{ status = 404 }");
        let path = match &location.kind {
            Kind::Prefix(prefix) => format!("{}/*", prefix.trim_end_matches('/')),
            Kind::Exact(path) => path.clone(),
            Kind::Pattern(simple) => simple.path.clone(),
            Kind::Blind(_) => return,
        };
        routes.push((Mapping::new(path, None), made));
    }

    fn mappings(&self, location: &Location<'d>) -> Result<Vec<Mapping>, &'static str> {
        let pass = match location.own("proxy_pass") {
            Some(pass) if location.own("return").is_none() => Some(Pass::parse(pass.arg(0))?),
            _ => None,
        };
        let uri = pass.as_ref().and_then(|pass| pass.uri.as_deref());
        match &location.kind {
            Kind::Exact(path) => {
                if uri.is_some_and(|uri| !is_plain_path(uri)) {
                    return Err(
                        "the path of proxy_pass holds characters that are not carried over",
                    );
                }
                let replace = uri.filter(|uri| uri != path).map(str::to_owned);
                Ok(vec![Mapping::new(path.clone(), replace)])
            }
            Kind::Prefix(prefix) => of_prefix(prefix, uri),
            Kind::Pattern(simple) => {
                Ok(vec![Mapping { note: simple.note, ..Mapping::new(simple.path.clone(), None) }])
            }
            Kind::Blind(_) => Ok(Vec::new()),
        }
    }

    /// What is done with the requests of a location, as the table of a route.
    fn table(&self, location: &Location<'d>, replace: Option<&str>, sheet: &mut Sheet) -> Table {
        let mut made = Table::default();
        let mut proxied = false;
        let settings = self.settings(&location.scope);
        if let Some(directive) = location.own("return") {
            let args = match &location.kind {
                Kind::Pattern(simple) => captured(simple, &directive.args),
                _ => directive.args.clone(),
            };
            self.respond(&mut made, (directive, &args), &location.scope, sheet);
        } else if settings.networks(&mut made, sheet) {
            made.note("deny all.");
            made.set("respond", "{ status = 403 }");
        } else if let Some(pass) = location.own("proxy_pass").map(|it| Pass::parse(it.arg(0))) {
            if let Ok(pass) = pass {
                self.proxied(&mut made, &pass, (&location.scope, replace), sheet);
            }
            proxied = true;
        } else if let Some(pass) = location.own("grpc_pass").and_then(|it| Pass::of_grpc(it.arg(0)))
        {
            made.note("As in nginx, a call may last as long as its client says.");
            made.set("grpc", "{ deadline = \"0s\" }");
            self.proxied(&mut made, &pass, (&location.scope, None), sheet);
            proxied = true;
        } else {
            self.files(&mut made, location, sheet);
        }
        close_guarded(&mut made, &location.scope);
        settings.of_all(&mut made, sheet);
        if proxied {
            location.scope.leave_unseen(sheet);
        }
        made
    }

    /// Answers as `return` says.
    pub(super) fn respond(
        &self,
        made: &mut Table,
        (directive, args): (&Directive, &[String]),
        scope: &Scope<'d>,
        sheet: &mut Sheet,
    ) {
        let of = Of { name: self.name, scheme: self.scheme, content_type: content_type(scope) };
        match of_return(args, &of) {
            Ok(respond) => made.set("respond", respond),
            Err(why) => {
                leave(directive, why, "the route answers 404; write respond by hand", sheet);
                made.set("respond", "{ status = 404 }");
            }
        }
    }

    fn proxied(
        &self,
        made: &mut Table,
        pass: &Pass,
        (scope, replace): (&Scope<'d>, Option<&str>),
        sheet: &mut Sheet,
    ) {
        made.set("upstream", quoted(&self.site.upstream(pass, scope, sheet)));
        let mut rewrite = Vec::new();
        rewrite.extend(replace.map(|replace| ("replace", quoted(replace))));
        if let Some(host) = told_host(scope, pass, sheet) {
            rewrite.push(("host", quoted(&host)));
        }
        if !rewrite.is_empty() {
            made.set("rewrite", table(&rewrite));
        }
        self.settings(scope).of_proxied(made, sheet);
    }

    fn files(&self, made: &mut Table, location: &Location<'d>, sheet: &mut Sheet) {
        let scope = &location.scope;
        if let Some(handler) = location.block.iter().find(|it| is_handler(it)) {
            let text = handler.text();
            // All others are listed wherever they stand.
            if handler.name == "grpc_pass" {
                let why = "it is made of variables, and upstreams are named here";
                leave(handler, why, "name an upstream with protocol = \"h2\"", sheet);
            }
            made.note(format!("{FILL_IN}: {text} answered here; name an upstream that does."));
            return made.set("respond", "{ status = 404 }");
        }
        let served = ["try_files", "alias", "root"].iter().find_map(|name| scope.last(name));
        let what = served.map_or_else(|| format!("location {}", location.label()), Directive::text);
        sheet.left(Left {
            at: location.at.clone(),
            what,
            why: "Portcullis serves no files".to_owned(),
            instead: "put a file server behind it, and write upstream in place of respond"
                .to_owned(),
        });
        made.note(format!("{FILL_IN}: files were served here; name the upstream that has them."));
        made.set("respond", "{ status = 404 }");
    }

    /// A rewrite as a route of its own, in a location or in the server.
    pub(super) fn rewrite(
        &self,
        rewrite: &'d Directive,
        location: Option<&Location<'d>>,
        all: &[Location<'d>],
        sheet: &mut Sheet,
    ) -> Option<(Mapping, Table)> {
        let instead = "write a route for the paths that it means";
        let (regex, to, flag) = (rewrite.arg(0), rewrite.arg(1), rewrite.arg(2));
        let simple = Simple::parse(regex).or_else(|| Simple::parse(&format!("^{regex}")));
        let template = simple.as_ref().and_then(|simple| simple.template(to));
        let (Some(simple), Some(template)) = (simple, template) else {
            leave(rewrite, "a path pattern is made of whole segments", instead, sheet);
            return None;
        };
        // In a location it is for the location's own requests.
        let part = match location {
            Some(location) => within(&simple, &template, location),
            None => Some((simple.path.clone(), template)),
        };
        let Some((path, template)) = part else {
            leave(rewrite, "it is not for all of its location, or for more", instead, sheet);
            return None;
        };
        let mapping = Mapping { note: simple.note, ..Mapping::new(path, None) };
        let mut made = Table::default();
        let goes = template.contains("://");
        let code = if flag == "permanent" { 301 } else { 302 };
        if goes || matches!(flag, "permanent" | "redirect") {
            let of = Of { name: self.name, scheme: self.scheme, content_type: "" };
            match redirect(code, &shielded(&template), &of) {
                Ok(respond) => made.set("respond", respond),
                Err(why) => {
                    leave(rewrite, why, instead, sheet);
                    return None;
                }
            }
            return Some((mapping, made));
        }
        // With break it is this location's, otherwise the one's that the new path belongs to.
        let plain = template.replace("{rest}", "");
        let of = if flag == "break" { location } else { find(&plain, all) };
        let pass = of.and_then(|of| Some((of, Pass::parse(of.own("proxy_pass")?.arg(0)).ok()?)));
        let Some((of, pass)) = pass.filter(|(_, pass)| flag == "break" || pass.uri.is_none())
        else {
            leave(rewrite, "what the new path leads to is not plain", instead, sheet);
            return None;
        };
        self.rewritten(&mut made, (of, &pass, &template), all, sheet);
        Some((mapping, made))
    }

    /// What is done with a rewritten path: what its location does.
    fn rewritten(
        &self,
        made: &mut Table,
        (of, pass, template): (&Location<'d>, &Pass, &str),
        all: &[Location<'d>],
        sheet: &mut Sheet,
    ) {
        if self.settings(&of.scope).networks(made, sheet) {
            made.set("respond", "{ status = 403 }");
        }
        self.proxied(made, pass, (&of.scope, Some(template)), sheet);
        close_guarded(made, &of.scope);
        self.settings(&of.scope).of_all(made, sheet);
        keep_closed(made, of, all, sheet);
    }

    /// A path that is a location's without its slash: nginx sends clients to the one with it.
    fn bare(&self, of: &Location<'d>, path: &str, all: &[Location<'d>], sheet: &mut Sheet) {
        if sheet.has_route(self.host, path) {
            return;
        }
        let has_prefix = all.iter().any(|location| location.prefix() == Some(path));
        if of.own("proxy_pass").is_none() || of.own("return").is_some() || has_prefix {
            return self.as_others(path, &of.at, all, sheet);
        }
        let mut made = Table::new(format!("nginx sends clients of {path} to {path}/."));
        let place = quoted(&format!("{path}/"));
        made.set("respond", table(&[("status", "301".to_owned()), ("location", place)]));
        self.put(Mapping::new(path, None), made, &of.at, sheet);
    }

    /// A path that a pattern of ours covers and the source's does not: it goes where it went.
    pub(super) fn as_others(&self, path: &str, at: &str, all: &[Location<'d>], sheet: &mut Sheet) {
        if sheet.has_route(self.host, path) {
            return;
        }
        let uri = |of: &Location<'d>| {
            let pass = Pass::parse(of.own("proxy_pass")?.arg(0)).ok()?;
            let behind = path.strip_prefix(of.prefix()?)?;
            Some(format!("{}{behind}", pass.uri?))
        };
        let made = match find(path, all) {
            Some(of) => {
                let mut made = self.table(of, uri(of).as_deref(), sheet);
                keep_closed(&mut made, of, all, sheet);
                made
            }
            None => {
                let mut made = Table::default();
                made.set("respond", "{ status = 404 }");
                made
            }
        };
        self.put(Mapping::new(path, None), made, at, sheet);
    }
}

/// Whether a directive answers requests, by something else than files or HTTP.
fn is_handler(directive: &Directive) -> bool {
    let name = directive.name.as_str();
    (name.ends_with("_pass") && name != "proxy_pass")
        || name.starts_with("content_by_lua")
        || matches!(name, "js_content" | "perl" | "stub_status" | "empty_gif")
}

/// The part of a rewrite that is for a location, and its template for that part.
fn within(simple: &Simple, template: &str, location: &Location<'_>) -> Option<(String, String)> {
    let whole = || Some((simple.path.clone(), template.to_owned()));
    match &location.kind {
        Kind::Prefix(prefix) => simple.below(prefix, template),
        Kind::Exact(path) if simple.path == *path => whole(),
        Kind::Exact(path) => {
            let base = simple.path.strip_suffix("/*").filter(|_| simple.is_tree())?;
            let behind = path.strip_prefix(base)?.strip_prefix('/')?;
            Some((path.clone(), template.replace("{rest}", behind)))
        }
        Kind::Pattern(own) if own.path == simple.path => whole(),
        Kind::Pattern(_) | Kind::Blind(_) => None,
    }
}

/// The arguments of a `return` with what an expression captures, kept apart from variables.
fn captured(simple: &Simple, args: &[String]) -> Vec<String> {
    let fill = |arg: &String| simple.template(arg).map_or_else(|| arg.clone(), |it| shielded(&it));
    args.iter().map(fill).collect()
}

/// The Host that the upstream sees, where it is not the client's.
fn told_host(scope: &Scope<'_>, pass: &Pass, sheet: &mut Sheet) -> Option<String> {
    let written = scope.all("proxy_set_header").iter();
    let written = written.rev().find(|it| it.arg(0).eq_ignore_ascii_case("host"));
    let Some(directive) = written else { return Some(pass.target.clone()) };
    match directive.arg(1) {
        "$host" | "$http_host" | "$host:$server_port" => None,
        "$proxy_host" => Some(pass.target.clone()),
        text if text.contains('$') || text.is_empty() => {
            let why = "the Host is the client's own, or one that is written";
            leave(directive, why, "write rewrite = { host = \"…\" } on the route", sheet);
            None
        }
        text => Some(text.to_owned()),
    }
}

/// A route that is guarded by what is not carried over must not be open.
pub(super) fn close_guarded(made: &mut Table, scope: &Scope<'_>) {
    // `return` comes before all guards but conditions, and what a missing file may hold.
    let is_first = !["if", "include"].iter().any(|name| scope.guards().contains(name));
    if scope.guards().is_empty() || !made.is_open() || (made.has("respond") && is_first) {
        return;
    }
    let names: Vec<&str> = scope.guards().iter().copied().collect();
    made.note(format!(
        "{FILL_IN}: closed, because {} guarded it and is not carried over. Guard it, then remove \
         this line.",
        names.join(", ")
    ));
    made.set("respond", "{ status = 403 }");
}
