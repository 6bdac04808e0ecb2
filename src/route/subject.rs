//! Subjects of messages that are made of a request's path. What a client wrote reaches a subject as
//! one token of letters, digits, `-` and `_`, or not at all: a dot would choose another subject,
//! and a wildcard many.

use super::pattern::{PathPattern, placeholders};
use crate::base::addressed::Addressed;
use crate::base::http::path::Reading;
use crate::base::http::percent;

/// Longest subject that a route may write, in bytes.
const SUBJECT_BYTES_MAX: usize = 255;
/// Longest token that a request may put into a subject, in bytes.
const TOKEN_BYTES_MAX: usize = 128;

/// A subject with parameters of the route's path in it: `orders.{id}.get`.
#[derive(Debug, Clone)]
pub struct Subject {
    tokens: Vec<Token>,
    /// The placeholders of the path by their segments.
    names: Vec<Option<String>>,
    pattern: PathPattern,
    reading: Reading,
}

#[derive(Debug, Clone)]
enum Token {
    /// As it is written.
    Literal(String),
    /// What stands for the placeholder at this place of the pattern.
    Parameter(usize),
}

impl Subject {
    /// Parses a subject for the paths that `pattern`, written as `route`, matches. The error says
    /// what is accepted.
    pub fn parse(
        text: &str,
        (route, pattern): (&str, &PathPattern),
        reading: Reading,
    ) -> Result<Self, &'static str> {
        if text.len() > SUBJECT_BYTES_MAX {
            return Err("a subject has at most 255 bytes");
        }
        let names: Vec<_> = placeholders(route).map(|name| name.map(str::to_owned)).collect();
        let tokens = if text.starts_with("{\"") {
            vec![Token::Literal(object(text)?)]
        } else {
            text.split('.').map(|token| parse_token(token, &names)).collect::<Result<_, _>>()?
        };
        Ok(Self { tokens, names, pattern: pattern.clone(), reading })
    }

    /// Where a request for this path goes, which is canonical and which the pattern matches.
    /// Nothing where a parameter cannot be a token.
    pub fn fill(&self, path: &str) -> Option<Addressed> {
        let pieces = self.pattern.split(self.reading, path);
        let mut subject = String::with_capacity(SUBJECT_BYTES_MAX);
        for (at, token) in self.tokens.iter().enumerate() {
            if at > 0 {
                subject.push('.');
            }
            subject.push_str(match token {
                Token::Literal(text) => text,
                Token::Parameter(index) => {
                    let (piece, _) = pieces.get(*index)?;
                    if !is_token(piece) {
                        return None;
                    }
                    piece
                }
            });
        }
        let named = self.names.iter().zip(&pieces);
        let parameters = named.filter_map(|(name, (piece, _))| {
            let value = percent::decode(piece.as_bytes());
            Some((name.clone()?, String::from_utf8_lossy(&value).into_owned()))
        });
        Some(Addressed { subject, parameters: parameters.collect() })
    }
}

fn parse_token(token: &str, names: &[Option<String>]) -> Result<Token, &'static str> {
    let name = token.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
    if let Some(name) = name {
        let at = names.iter().position(|known| known.as_deref() == Some(name));
        return at.map(Token::Parameter).ok_or("a {parameter} is one of the route's path");
    }
    if is_plain(token) {
        return Ok(Token::Literal(token.to_owned()));
    }
    Err("a subject is tokens of letters, digits, - and _ with dots between them; \
         a {parameter} is a whole token: \"orders.{id}.get\"")
}

/// A pattern of NestJS that is an object: its subject is its JSON.
fn object(text: &str) -> Result<String, &'static str> {
    const HELP: &str = "an object is written as JSON with sorted keys and without blanks, dots, \
                        * and >: {\"cmd\":\"sum\"}";
    let value: serde_json::Value = serde_json::from_str(text).map_err(|_| HELP)?;
    let is_fit = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'.' | b'*' | b'>');
    let canonical = value.to_string();
    if canonical == text && text.bytes().all(is_fit) { Ok(canonical) } else { Err(HELP) }
}

fn is_token(text: &str) -> bool {
    text.len() <= TOKEN_BYTES_MAX && is_plain(text)
}

fn is_plain(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    !text.is_empty() && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subject(text: &str, route: &str) -> Result<Subject, &'static str> {
        let pattern = PathPattern::parse(route).unwrap();
        Subject::parse(text, (route, &pattern), Reading::default())
    }

    fn filled(text: &str, route: &str, path: &str) -> Option<String> {
        Some(subject(text, route).unwrap().fill(path)?.subject)
    }

    #[test]
    fn parameters_of_the_path_become_tokens() {
        let is = |text, route, path, made: &str| {
            assert_eq!(filled(text, route, path).as_deref(), Some(made), "{text} {path}");
        };
        is("orders.get", "/orders/{id}", "/orders/7", "orders.get");
        is("orders.{id}.get", "/orders/{id}", "/orders/a-B_7", "orders.a-B_7.get");
        is("{b}.{a}", "/{a}/x/{b}/*", "/1/x/2/3/4", "2.1");
        is("{\"cmd\":\"sum\",\"v\":1}", "/sum", "/sum", "{\"cmd\":\"sum\",\"v\":1}");
        let made = subject("orders", "/{shop}/{id}").unwrap().fill("/a%20b/%C3%A9").unwrap();
        let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(made.parameters, [named("shop", "a b"), named("id", "é")]);
    }

    #[test]
    fn what_cannot_be_one_token_has_no_subject() {
        let long = "x".repeat(TOKEN_BYTES_MAX + 1);
        for piece in ["a.b", "*", "%3E", "a%20b", "%C3%A9", "a~b", "a:b", "$SYS", &long] {
            let path = format!("/orders/{piece}");
            assert_eq!(filled("orders.{id}", "/orders/{id}", &path), None, "{piece}");
        }
        let longest = "x".repeat(TOKEN_BYTES_MAX);
        assert!(filled("{id}", "/{id}", &format!("/{longest}")).is_some());
    }

    #[test]
    fn subjects_that_are_none_are_refused() {
        let long = "x".repeat(SUBJECT_BYTES_MAX + 1);
        for text in [
            "",
            ".",
            "a.",
            "a..b",
            "a.*",
            ">",
            "a b",
            "a.{no}",
            "a-{id}",
            "{rest}",
            "a\n",
            "é",
            "{\"v\": 1}",
            "{\"v\":1,\"a\":2}",
            "{\"a\":\"x.y\"}",
            "{\"a\":\"*\"}",
            "{\"a\"",
            &long,
        ] {
            assert!(subject(text, "/orders/{id}/*").is_err(), "{text:?}");
        }
    }

    proptest! {
        /// Whatever a client asks for, its subject is one that the operator meant.
        #[test]
        fn a_path_adds_no_token_and_no_wildcard(path in "/[ -~]{0,40}/[ -~]{0,40}") {
            let Some(made) = filled("a.{x}.b", "/{y}/{x}", &path) else { return Ok(()) };
            let tokens: Vec<&str> = made.split('.').collect();
            prop_assert_eq!(tokens.len(), 3);
            prop_assert!(tokens[0] == "a" && tokens[2] == "b" && is_token(tokens[1]));
        }
    }
}
