//! The form that all configuration files have: `portcullis fmt`. Only spaces, the ends of lines and
//! empty lines change; what is written, its order and its comments stay.

use std::path::Path;

use toml_parser::lexer::TokenKind;

use super::source::File;

/// How far what stands in brackets is moved to the right, in spaces.
const INDENT: usize = 4;

/// The text of a file called `name` in that form. Each key has its line without spaces before it,
/// one space stands around `=` and behind commas, and one empty line before each table and the
/// comment right above it.
///
/// # Errors
/// Ready-to-print text, when it is not TOML.
pub fn formatted(name: &str, text: &str) -> Result<String, String> {
    File::main(name, Path::new(""), text).table()?;
    let mut writer = Writer::default();
    for token in toml_parser::Source::new(text).lex() {
        let written = text.get(token.span().start()..token.span().end()).unwrap_or_default();
        match token.kind() {
            TokenKind::Whitespace | TokenKind::Eof => {}
            TokenKind::Newline => writer.end_line(),
            TokenKind::Comment => writer.add(TokenKind::Comment, written.trim_end()),
            kind => writer.add(kind, written),
        }
    }
    Ok(writer.finish())
}

/// What a line is for. A value in brackets may have several lines in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Header,
    Comment,
    Key,
}

struct Line {
    purpose: Purpose,
    text: String,
    /// An empty line stands before it.
    is_apart: bool,
}

#[derive(Default)]
struct Writer {
    lines: Vec<Line>,
    /// The one that is being written.
    current: Option<Line>,
    /// The token before, and how many lines have ended since.
    before: Option<TokenKind>,
    ended: usize,
    /// How far the line at hand is moved, and the one in which each open bracket stands.
    indent: usize,
    open: Vec<usize>,
}

impl Writer {
    fn end_line(&mut self) {
        self.ended += 1;
        if self.open.is_empty() {
            self.lines.extend(self.current.take());
        }
    }

    fn add(&mut self, kind: TokenKind, written: &str) {
        let is_closing =
            matches!(kind, TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket);
        match &mut self.current {
            None => {
                let purpose = match kind {
                    TokenKind::LeftSquareBracket => Purpose::Header,
                    TokenKind::Comment => Purpose::Comment,
                    _ => Purpose::Key,
                };
                let (text, is_apart) = (written.to_owned(), self.ended > 1);
                self.current = Some(Line { purpose, text, is_apart });
                self.indent = 0;
            }
            Some(line) if self.ended > 0 => {
                let is_first = matches!(
                    self.before,
                    Some(TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket)
                );
                if self.ended > 1 && !is_first && !is_closing {
                    line.text.push('\n');
                }
                let around = self.open.last().copied().unwrap_or_default();
                self.indent = if is_closing { around } else { around + INDENT };
                line.text += &format!("\n{:1$}{written}", "", self.indent);
            }
            Some(line) => {
                if is_spaced(line.purpose, self.before, kind) {
                    line.text.push(' ');
                }
                line.text += written;
            }
        }
        let is_header = self.current.as_ref().is_some_and(|it| it.purpose == Purpose::Header);
        match kind {
            _ if is_header => {}
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => {
                self.open.push(self.indent);
            }
            _ if is_closing => {
                self.open.pop();
            }
            _ => {}
        }
        (self.before, self.ended) = (Some(kind), 0);
    }

    fn finish(mut self) -> String {
        self.lines.extend(self.current.take());
        let mut lines = self.lines;
        let mut is_header_next = false;
        for at in (0..lines.len()).rev() {
            let Some((before, [line, ..])) = lines.split_at_mut_checked(at) else { continue };
            is_header_next = match line.purpose {
                Purpose::Header => true,
                Purpose::Comment => is_header_next,
                Purpose::Key => false,
            };
            // A comment belongs to the table right below it.
            let is_below_comment = !line.is_apart
                && before.last().is_some_and(|line| line.purpose == Purpose::Comment);
            if is_header_next && !is_below_comment {
                line.is_apart = true;
                is_header_next = false;
            }
        }
        let mut text = String::new();
        for line in lines {
            if line.is_apart && !text.is_empty() {
                text.push('\n');
            }
            text += &line.text;
            text.push('\n');
        }
        text
    }
}

/// Whether a space stands between two tokens of one line.
fn is_spaced(purpose: Purpose, before: Option<TokenKind>, next: TokenKind) -> bool {
    use TokenKind::{
        Atom, Comma, Comment, Equals, LeftCurlyBracket, RightCurlyBracket, RightSquareBracket,
    };
    match (before, next) {
        (_, Comment) => true,
        _ if purpose == Purpose::Header => false,
        (_, Comma) | (Some(Comma), RightSquareBracket) => false,
        (Some(LeftCurlyBracket), RightCurlyBracket) => false,
        (Some(Equals | Comma | LeftCurlyBracket), _) | (_, Equals | RightCurlyBracket) => true,
        // A date and a time.
        (Some(Atom), Atom) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toml::de::{DeTable, DeValue};

    use super::*;

    fn form(text: &str) -> String {
        formatted("t.toml", text).unwrap()
    }

    #[test]
    fn spaces_and_empty_lines_are_those_of_all_files() {
        const WRITTEN: &str = "\n\n# about all\n\n\
            include=[ 'a' ,'b' , ]  # why\n\n\n  x . y={a=1,b = [ ]}\n\
            time = 1979-05-27 07:32:00.5\nnone = {  }\n\
            # about server   \n[ server ]\n\n\n  drain = \"30s\"\t\n\
            list = [\n\n1,# one\n  # two\n\n\n2\n\n]\ndeep = [{ a = 1 }, {\nb = 2\n}]\r\n\
            [[server.tls]]   # a list\n# alone\n\n\
            [ log . \"a b\" ]\ntext = \"\"\"\n  kept  \n\n\n\"\"\"\n\n\n";
        const FORM: &str = "# about all\n\n\
            include = ['a', 'b',] # why\n\nx.y = { a = 1, b = [] }\n\
            time = 1979-05-27 07:32:00.5\nnone = {}\n\n\
            # about server\n[server]\n\ndrain = \"30s\"\n\
            list = [\n    1, # one\n    # two\n\n    2\n]\ndeep = [{ a = 1 }, {\n    b = 2\n}]\n\n\
            [[server.tls]] # a list\n# alone\n\n\
            [log.\"a b\"]\ntext = \"\"\"\n  kept  \n\n\n\"\"\"\n";
        assert_eq!(form(WRITTEN), FORM);
        assert_eq!(form(FORM), FORM);
        assert_eq!(
            (form(""), form("\n\n"), form("#")),
            (String::new(), String::new(), "#\n".into())
        );
    }

    #[test]
    fn what_is_no_toml_stays_as_it_is() {
        let fault = formatted("t.toml", "[server]\ndrain = 30s\n").unwrap_err();
        assert!(fault.starts_with("t.toml:2:9: "), "{fault}");
    }

    #[test]
    fn the_reference_file_has_this_form() {
        let reference = include_str!("../../gateway.toml");
        assert_eq!(form(reference), reference);
    }

    /// What a table says, without places.
    fn said(value: &DeValue<'_>) -> String {
        match value {
            DeValue::Table(table) => {
                let entries = table.iter().map(|(key, value)| (key.get_ref(), value.get_ref()));
                let entries = entries.map(|(key, value)| format!("{key:?}={}", said(value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
            }
            DeValue::Array(items) => {
                let items = items.iter().map(|item| said(item.get_ref()));
                format!("[{}]", items.collect::<Vec<_>>().join(","))
            }
            DeValue::String(text) => format!("{text:?}"),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Datetime(time) => time.to_string(),
        }
    }

    fn said_by(text: &str) -> String {
        said(&DeValue::Table(DeTable::parse(text).unwrap().into_inner()))
    }

    /// The comments, in order.
    fn comments(text: &str) -> Vec<String> {
        let tokens = toml_parser::Source::new(text).lex();
        let comments = tokens.filter(|token| token.kind() == TokenKind::Comment);
        let text = |span: toml_parser::Span| text[span.start()..span.end()].trim_end().to_owned();
        comments.map(|token| text(token.span())).collect()
    }

    /// A value, however it is written.
    fn value() -> impl Strategy<Value = String> {
        let plain = prop::sample::select(vec![
            "1",
            "0x1F",
            "1.5e-3",
            "true",
            "\"a # b = [\"",
            "'c,d'",
            "1979-05-27 07:32:00.25",
            "\"\"\"\n x \n\n\"\"\"",
            "'''\n#y'''",
            "inf",
            "07:32:00",
            "\"\"",
        ]);
        let space = prop::sample::select(vec!["", " ", "\t ", "\n", " # c\n", "\n\n\n", "\r\n"]);
        plain.prop_map(str::to_owned).prop_recursive(3, 12, 3, move |inner| {
            let items = prop::collection::vec((space.clone(), inner.clone(), space.clone()), 0..3);
            let pairs = prop::collection::vec((space.clone(), inner, space.clone()), 0..3);
            let list = items.prop_map(|items| {
                let items = items.iter().map(|(a, item, b)| format!("{a}{item}{b},"));
                format!("[{}]", items.collect::<String>())
            });
            let table = pairs.prop_map(|pairs| {
                let pairs = pairs.iter().enumerate();
                let pairs = pairs.map(|(key, (a, item, b))| format!("{a}k{key} ={item}{b}"));
                format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
            });
            prop_oneof![list, table]
        })
    }

    proptest! {
        #[test]
        fn only_the_form_changes_and_only_once(
            entries in prop::collection::vec(
                (0..5u8, value(), prop::sample::select(vec!["", " ", "\t", "\n", "\n\n\n"])),
                0..8,
            )
        ) {
            let written = entries.iter().enumerate().map(|(at, (kind, value, space))| {
                let space_in_line = space.trim_matches('\n');
                match kind {
                    0 => format!("{space}[ t{at} . \"a b\"]{space_in_line}# h\n"),
                    1 => format!("{space}[[t{at}]]\n"),
                    2 => format!("{space}# c {at} [ = {space_in_line}\n"),
                    3 => format!("{space}a{at} . 'b.c'{space_in_line}={value} # d\n"),
                    _ => format!("{space}k{at}={value}{space_in_line}\r\n"),
                }
            });
            let written = written.collect::<String>();
            let form = form(&written);
            prop_assert_eq!(said_by(&form), said_by(&written));
            prop_assert_eq!(comments(&form), comments(&written));
            prop_assert_eq!(formatted("t.toml", &form).unwrap(), form.clone());
            prop_assert!(!form.contains("\n\n\n") || written.contains("\"\"\""), "{}", form);
        }

        #[test]
        fn no_text_is_too_much(text in "[\\[\\]{}=.,\"'#a-z0-9 \n\r\t]{0,80}") {
            if let Ok(form) = formatted("t.toml", &text) {
                prop_assert_eq!(said_by(&form), said_by(&text));
                prop_assert_eq!(formatted("t.toml", &form), Ok(form.clone()));
            }
        }
    }
}
