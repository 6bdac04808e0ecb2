//! nginx.conf as directives with their lines: its words, its blocks, and the files that it
//! includes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::tree::Seen;
use crate::base::file;
use crate::config::glob;

/// Largest file that is read, in bytes.
const BYTES_MAX: u64 = 4 << 20;
/// Most files that are read, the first one among them.
const FILES_MAX: usize = 200;
/// How deep blocks may lie in each other, and files include others.
const DEPTH_MAX: usize = 32;
/// Most directives of all files.
const DIRECTIVES_MAX: usize = 100_000;

/// One directive with what is in its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    /// Its name.
    pub(super) name: String,
    /// What follows, without quotes.
    pub(super) args: Vec<String>,
    /// What is in its braces, where it has some.
    pub(super) block: Option<Vec<Self>>,
    /// Its file.
    pub(super) file: Arc<str>,
    /// Its line, from 1.
    pub(super) line: usize,
    /// Whether somebody has looked at it.
    pub(super) seen: Seen,
}

impl Directive {
    /// An argument; empty where it is not there.
    pub(super) fn arg(&self, at: usize) -> &str {
        self.args.get(at).map_or("", String::as_str)
    }

    /// The value of an argument `name=value`.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        self.args.iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='))
    }

    /// Whether a word is among the arguments.
    pub(super) fn has(&self, word: &str) -> bool {
        self.args.iter().any(|arg| arg == word)
    }

    /// What is in its block.
    pub(super) fn inner(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// File and line.
    pub(super) fn at(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }

    /// As it was written, more or less.
    pub(super) fn text(&self) -> String {
        let mut text = self.name.clone();
        for arg in self.args.iter().take(8) {
            text.push(' ');
            text.extend(arg.chars().take(80));
        }
        text
    }
}

/// Why a file cannot be used: `file:line: what`.
pub(super) type Fault = String;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
    End,
}

/// A file that was named and is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    /// The directive that names it.
    pub(super) include: Directive,
    /// Why it is not there.
    pub(super) why: String,
}

/// Reads a configuration and what it includes.
pub(super) struct Files {
    folder: PathBuf,
    read: usize,
    directives: usize,
    /// Files that are not there.
    pub(super) missing: Vec<Missing>,
}

impl Files {
    /// What is included stands in this folder, unless it says another place.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), read: 1, directives: 0, missing: Vec::new() }
    }

    /// The directives of a text.
    pub(super) fn parse(&mut self, name: &str, text: &str) -> Result<Vec<Directive>, Fault> {
        self.of_file(name, text, 0)
    }

    fn of_file(&mut self, name: &str, text: &str, depth: usize) -> Result<Vec<Directive>, Fault> {
        let file: Arc<str> = name.into();
        let mut tokens = Lexer { rest: text, line: 1 };
        let mut open: Vec<(Directive, Vec<Directive>)> = Vec::new();
        let mut here: Vec<Directive> = Vec::new();
        let mut words: Vec<String> = Vec::new();
        let mut begin = 1;
        loop {
            let token =
                tokens.next(&words).map_err(|what| format!("{file}:{}: {what}", tokens.line))?;
            let at = |line: usize, what: &str| format!("{file}:{line}: {what}");
            let Some(token) = token else { break };
            let line = tokens.line;
            match token {
                Token::Word(word) => {
                    if words.is_empty() {
                        begin = line;
                    }
                    words.push(word);
                }
                Token::End | Token::Open => {
                    let is_block = token == Token::Open;
                    let made = self
                        .directive(std::mem::take(&mut words), is_block, (&file, begin))
                        .map_err(|what| at(line, &what))?;
                    if is_block {
                        if open.len() >= DEPTH_MAX {
                            let what = format!("blocks lie more than {DEPTH_MAX} deep");
                            return Err(at(line, &what));
                        }
                        open.push((made, std::mem::take(&mut here)));
                    } else if made.name == "include" {
                        here.extend(self.include(&made, depth)?);
                    } else {
                        here.push(made);
                    }
                }
                Token::Close => {
                    if !words.is_empty() {
                        return Err(at(line, "a } stands where a ; is missing"));
                    }
                    let (mut block, around) =
                        open.pop().ok_or_else(|| at(line, "a } closes nothing"))?;
                    block.block = Some(std::mem::replace(&mut here, around));
                    here.push(block);
                }
            }
        }
        if let Some((block, _)) = open.last() {
            return Err(format!("{}: the block of {} is never closed", block.at(), block.name));
        }
        if !words.is_empty() {
            return Err(format!("{file}:{begin}: the last directive does not end with a ;"));
        }
        Ok(here)
    }

    /// A directive of these words.
    fn directive(
        &mut self,
        words: Vec<String>,
        is_block: bool,
        (file, line): (&Arc<str>, usize),
    ) -> Result<Directive, String> {
        self.directives += 1;
        if self.directives > DIRECTIVES_MAX {
            return Err(format!("more than {DIRECTIVES_MAX} directives"));
        }
        let mut words = words.into_iter();
        let name = words.next().ok_or("a directive has no name")?;
        let block = is_block.then(Vec::new);
        let (args, file) = (words.collect(), Arc::clone(file));
        Ok(Directive { name, args, block, file, line, seen: Seen::default() })
    }

    /// What stands in the files that a directive names.
    fn include(&mut self, include: &Directive, depth: usize) -> Result<Vec<Directive>, Fault> {
        let pattern = include.arg(0);
        // What types files have is nobody's business but a file server's.
        if pattern.ends_with("mime.types") {
            return Ok(Vec::new());
        }
        if depth >= DEPTH_MAX {
            let what = format!("files include each other more than {DEPTH_MAX} deep");
            return Err(format!("{}: {what}", include.at()));
        }
        let mut all = Vec::new();
        let (found, why) = match self.find(pattern) {
            Ok(found) => {
                // A folder of files may be empty; anything else was to be there.
                let (folder, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
                let may_be_none = name.contains('*') && !glob::is_glob(folder);
                let is_missing = found.is_empty() && !may_be_none;
                (found, is_missing.then(|| "the file is not there".to_owned()))
            }
            Err(why) => (Vec::new(), Some(why)),
        };
        if let Some(why) = why {
            self.miss(include, why, &mut all);
        }
        for path in found {
            self.read += 1;
            if self.read > FILES_MAX {
                return Err(format!("{}: more than {FILES_MAX} files", include.at()));
            }
            let read = file::read(&path, BYTES_MAX).map_err(|fault| fault.to_string());
            match read.and_then(|bytes| String::from_utf8(bytes).map_err(|it| it.to_string())) {
                Ok(text) => {
                    let name =
                        path.strip_prefix(&self.folder).unwrap_or(&path).display().to_string();
                    all.extend(self.of_file(&name, &text, depth + 1)?);
                }
                Err(why) => self.miss(include, why, &mut all),
            }
        }
        Ok(all)
    }

    /// A file that is not there. Its directive stays: nobody knows what the file guarded.
    fn miss(&mut self, include: &Directive, why: String, all: &mut Vec<Directive>) {
        self.missing.push(Missing { include: include.clone(), why });
        all.push(include.clone());
    }

    /// The files that a pattern names and that are there, in order.
    fn find(&self, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let found = glob::files(&self.folder, pattern)?;
        Ok(found.iter().map(|path| self.folder.join(path)).filter(|path| path.exists()).collect())
    }
}

/// The words of a text.
struct Lexer<'t> {
    rest: &'t str,
    line: usize,
}

impl Lexer<'_> {
    fn skip(&mut self, bytes: usize) {
        let (gone, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.line += gone.matches('\n').count();
        self.rest = rest;
    }

    /// The next token; `words` are those of the directive so far.
    fn next(&mut self, words: &[String]) -> Result<Option<Token>, String> {
        loop {
            let blank = self.rest.len() - self.rest.trim_start().len();
            self.skip(blank);
            if !self.rest.starts_with('#') {
                break;
            }
            self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
        }
        let Some(first) = self.rest.chars().next() else { return Ok(None) };
        match first {
            '{' if words.first().is_some_and(|name| name.ends_with("_by_lua_block")) => {
                self.skip_program()?;
                Ok(Some(Token::End))
            }
            '{' | '}' | ';' => {
                self.skip(1);
                Ok(Some(match first {
                    '{' => Token::Open,
                    '}' => Token::Close,
                    _ => Token::End,
                }))
            }
            '"' | '\'' => self.quoted(first).map(Some),
            _ => Ok(Some(self.word())),
        }
    }

    /// A program in another language, in braces of its own.
    fn skip_program(&mut self) -> Result<(), String> {
        let mut depth = 0_usize;
        for (at, c) in self.rest.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth <= 1 => {
                    self.skip(at + 1);
                    return Ok(());
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
        Err("a block is never closed".to_owned())
    }

    fn quoted(&mut self, quote: char) -> Result<Token, String> {
        let mut word = String::new();
        let mut chars = self.rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.skip(at + 1);
                return Ok(Token::Word(word));
            }
            match (c, chars.peek().map(|it| it.1)) {
                // nginx takes a \ away before these alone.
                ('\\', Some(next)) if next == quote || next == '\\' => {
                    word.push(next);
                    chars.next();
                }
                ('\\', Some('n')) => {
                    word.push('\n');
                    chars.next();
                }
                ('\\', Some('t')) => {
                    word.push('\t');
                    chars.next();
                }
                _ => word.push(c),
            }
        }
        Err(format!("a {quote} is never closed"))
    }

    fn word(&mut self) -> Token {
        let mut word = String::new();
        let mut end = self.rest.len();
        let mut chars = self.rest.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => {
                    word.push(c);
                    if let Some((_, next)) = chars.next() {
                        word.push(next);
                    }
                }
                // `${name}`
                '{' if word.ends_with('$') => {
                    word.push(c);
                    for (_, inner) in chars.by_ref() {
                        word.push(inner);
                        if inner == '}' {
                            break;
                        }
                    }
                }
                ';' | '{' => {
                    end = at;
                    break;
                }
                _ if c.is_whitespace() => {
                    end = at;
                    break;
                }
                _ => word.push(c),
            }
        }
        self.skip(end);
        Token::Word(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Directive>, Fault> {
        Files::new(Path::new("nowhere")).parse("nginx.conf", text)
    }

    #[test]
    fn words_blocks_and_lines_are_as_nginx_reads_them() {
        let text = "# x\nhttp {\n  a 'b c' \"d\\\"e\";\n  location ~ \\.php$ {\n    f ${g}h;\n }\n\
                    x_by_lua_block { if a { \"}\" } }\n}\n";
        let text = text.replace("\"}\"", "b");
        let all = parse(&text).unwrap();
        let [http] = all.as_slice() else { panic!("{all:?}") };
        let [a, location, lua] = http.inner() else { panic!("{http:?}") };
        assert_eq!(
            (a.args.as_slice(), a.line),
            (["b c".to_owned(), "d\"e".to_owned()].as_slice(), 3)
        );
        assert_eq!((location.arg(1), location.line), ("\\.php$", 4));
        assert_eq!(location.inner()[0].arg(0), "${g}h");
        assert_eq!((lua.name.as_str(), lua.line), ("x_by_lua_block", 7));
    }

    #[test]
    fn what_is_no_configuration_is_told_with_its_line() {
        for (text, expected) in [
            ("a", "nginx.conf:1: the last directive does not end with a ;"),
            ("\na {", "nginx.conf:2: the block of a is never closed"),
            ("}", "nginx.conf:1: a } closes nothing"),
            ("a { b }", "nginx.conf:1: a } stands where a ; is missing"),
            (";", "nginx.conf:1: a directive has no name"),
            ("\n\na 'b", "nginx.conf:3: a ' is never closed"),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected);
        }
        assert!(parse(&"a {".repeat(10_000)).unwrap_err().contains("more than 32 deep"));
        assert!(parse(&"a;".repeat(200_000)).unwrap_err().contains("more than 100000 directives"));
        let missing = &mut Files::new(Path::new("nowhere"));
        let left = missing
            .parse("x", "include a.conf; include mime.types; include b/*; include c/*/d.conf;")
            .unwrap();
        let names: Vec<&str> = left.iter().map(|it| it.arg(0)).collect();
        assert_eq!(names, ["a.conf", "c/*/d.conf"]);
        assert_eq!(missing.missing.len(), 2);
    }
}
