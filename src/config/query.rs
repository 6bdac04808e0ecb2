//! `query = { … }` of a route's cache: which parameters of a query make no difference.

use toml::de::DeValue;

use super::reader::Section;
use super::value::{Mistake, Read, echo, flag, string};

/// `query = { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Which parameters matter.
    pub parameters: Parameters,
    /// Whether their order does not.
    pub sort: bool,
}

/// Names as they stand in a query, each of which may end in `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parameters {
    /// `ignore`: all but these.
    AllBut(Vec<String>),
    /// `keep`: these alone.
    Only(Vec<String>),
}

/// Reads `query = { … }`.
pub(super) fn read(query: &mut Section<'_>) -> Query {
    if query.has("ignore") && query.has("keep") {
        let remedy = "remove one of the two: \"ignore\" names the parameters that make no \
                      difference, \"keep\" those that do";
        query.problem("keep", "says in another way what ignore says", remedy);
    }
    let keeps = query.has("keep");
    let (ignored, kept) = (query.list("ignore", name), query.list_or_empty("keep", name));
    let parameters = match ignored {
        _ if keeps => Parameters::Only(kept),
        ignored => Parameters::AllBut(ignored.unwrap_or_default()),
    };
    let sort = query.get("sort", flag);
    let is_wrong = query.has("sort") && sort.is_none();
    let sort = sort.unwrap_or(false);
    if !query.has("ignore") && !keeps && !sort && !is_wrong {
        let remedy = "name parameters with ignore or keep, or write sort = true, or remove it";
        query.problem("", "names nothing", remedy);
    }
    Query { parameters, sort }
}

/// A name, or the beginning of names. It is compared with what clients write, escapes and all, so
/// what cannot stand in a name there would never be met.
fn name(value: &DeValue<'_>) -> Read<String> {
    let text = string(value, "a parameter's name in quotes, such as \"utm_*\"")?;
    let literal = text.strip_suffix('*').unwrap_or(text);
    let is_plain = |b: u8| (0x21..=0x7E).contains(&b) && !b"&=#*".contains(&b);
    if literal.is_empty() || literal.len() > 256 || !literal.bytes().all(is_plain) {
        let what = format!("{} cannot be the name of a query parameter", echo(text));
        return Err(Mistake::new(
            what,
            "write it as it stands in the URL, escapes and all, such as \"fbclid\"; \"utm_*\" \
             stands for all that begin so",
        ));
    }
    Ok(text.to_owned())
}
