//! `${NAME}` and `${NAME:-default}` in values: what the environment says takes their place, once
//! the file is parsed. So no value can end its string, and keys stay as they are.

use std::borrow::Cow;
use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::problem::{Problems, join};
use super::value::echo;

/// Most bytes that variables may add to all files: 4 MiB.
const ADDED_BYTES_MAX: usize = 4 << 20;

/// One variable that a value names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) name: String,
    /// The environment says nothing, and the value that the file has for this case holds.
    pub(super) is_default: bool,
}

/// What a value took from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    /// In their order, each once.
    pub(super) variables: Vec<Variable>,
    /// The value is one variable and nothing else, so that its text may stand for another type.
    pub(super) is_whole: bool,
    /// Something is wrong, which is reported already.
    pub(super) is_missing: bool,
    /// What became of the value.
    pub(super) value: String,
    /// How many bytes of that stand in the file, before the first that the environment gave.
    pub(super) written: usize,
}

impl Taken {
    /// The variables that the environment says something for, as they are written; nothing where
    /// all of it stands in the file.
    pub(super) fn given(&self) -> Option<String> {
        let given = self.variables.iter().filter(|it| !it.is_default);
        let names: Vec<String> = given.map(|it| format!("${{{}}}", it.name)).collect();
        (!names.is_empty()).then(|| names.join(" and "))
    }

    /// The variables that together with what stands in the file make the text begin so, though the
    /// file itself does not say it.
    pub(super) fn makes(&self, text: &str, beginning: &str) -> Option<String> {
        let is_made = text.starts_with(beginning) && self.written < beginning.len();
        self.given().filter(|_| is_made)
    }
}

/// Puts what the environment says into values.
pub(super) struct Variables<'e> {
    env: &'e dyn Fn(&str) -> Option<String>,
    /// What was taken, by the path of the value.
    pub(super) taken: BTreeMap<String, Taken>,
    pub(super) problems: Problems,
    bytes_left: usize,
}

impl<'e> Variables<'e> {
    /// Nothing is taken yet.
    pub(super) fn new(env: &'e dyn Fn(&str) -> Option<String>) -> Self {
        let (taken, problems) = (BTreeMap::new(), Problems::default());
        Self { env, taken, problems, bytes_left: ADDED_BYTES_MAX }
    }

    /// All values of a table.
    pub(super) fn fill_table(&mut self, path: &str, table: &mut DeTable<'_>) {
        for (key, value) in table.iter_mut() {
            let path = join(path, key.get_ref());
            self.fill(&path, value.get_mut());
        }
    }

    /// One value.
    pub(super) fn fill(&mut self, path: &str, value: &mut DeValue<'_>) {
        match value {
            DeValue::Table(table) => self.fill_table(path, table),
            DeValue::Array(items) => {
                for (position, item) in items.iter_mut().enumerate() {
                    self.fill(&format!("{path}[{position}]"), item.get_mut());
                }
            }
            DeValue::String(text) if text.contains("${") => {
                let filled = self.filled(path, text);
                *text = Cow::Owned(filled);
            }
            _ => {}
        }
    }

    fn filled(&mut self, path: &str, text: &str) -> String {
        let mut taken = Taken {
            variables: Vec::new(),
            is_whole: false,
            is_missing: false,
            value: String::new(),
            written: 0,
        };
        let (mut filled, mut rest) = (String::new(), text);
        let mut written = None;
        while let Some(at) = rest.find('$') {
            let (before, from) = rest.split_at(at);
            filled += before;
            rest = if let Some(after) = from.strip_prefix("$${") {
                filled += "${";
                after
            } else if let Some(inner) = from.strip_prefix("${") {
                let (reference, after) = inner.split_once('}').unwrap_or((inner, ""));
                taken.is_whole = filled.is_empty() && text.len() == reference.len() + 3;
                match self.value_of(reference, inner.len() > reference.len(), &mut taken) {
                    Ok((value, is_default)) => {
                        if !is_default && !value.is_empty() {
                            written.get_or_insert(filled.len());
                        }
                        filled += &value;
                    }
                    Err((what, remedy)) => {
                        taken.is_missing = true;
                        self.problems.push(path, what, remedy);
                    }
                }
                after
            } else {
                filled.push('$');
                from.get(1..).unwrap_or_default()
            };
        }
        filled += rest;
        if !taken.variables.is_empty() || taken.is_missing {
            taken.written = written.unwrap_or(filled.len());
            taken.value.clone_from(&filled);
            self.taken.insert(path.to_owned(), taken);
        }
        filled
    }

    /// What `NAME` or `NAME:-default` stands for, and whether that is the default.
    fn value_of(
        &mut self,
        reference: &str,
        is_closed: bool,
        taken: &mut Taken,
    ) -> Result<(String, bool), (String, String)> {
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        if !is_closed || !is_name(name) {
            let what = "has a `${` that begins no variable".to_owned();
            let remedy = "write ${NAME} or ${NAME:-default}; $${ stands for ${ itself";
            return Err((what, remedy.to_owned()));
        }
        if default.is_some_and(|it| it.contains("${")) {
            // The first `}` ends it, so that it would be half of what was meant.
            let what = format!("the default of {} has a variable inside", echo(name));
            let remedy = format!("write plain text: ${{{name}:-TEXT}}");
            return Err((what, remedy));
        }
        // As in a shell, an empty one is none where there is a default.
        let found = (self.env)(name).filter(|it| default.is_none() || !it.is_empty());
        let is_default = found.is_none();
        let variable = Variable { name: name.to_owned(), is_default };
        if !taken.variables.contains(&variable) {
            taken.variables.push(variable);
        }
        let Some(value) = found.or_else(|| default.map(str::to_owned)) else {
            let what = format!("the environment variable {} is not set", echo(name));
            let remedy =
                format!("set it before the gateway starts, or write a default: ${{{name}:-…}}");
            return Err((what, remedy));
        };
        let Some(left) = self.bytes_left.checked_sub(value.len()) else {
            let what = format!("with it, variables come to more than {ADDED_BYTES_MAX} bytes");
            return Err((what, "name long variables less often".to_owned()));
        };
        self.bytes_left = left;
        Ok((value, is_default))
    }
}

fn is_name(name: &str) -> bool {
    let is_first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    name.bytes().next().is_some_and(is_first)
        && name.bytes().all(|b| is_first(b) || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("shop".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICKY" => Some("\"] ${HOST}".to_owned()),
            "LONG" => Some("x".repeat(ADDED_BYTES_MAX / 2)),
            _ => None,
        }
    }

    /// What a value becomes, and what is wrong with it.
    fn filled(text: &str) -> (String, Vec<String>) {
        let mut variables = Variables::new(&env);
        let mut value = DeValue::String(text.into());
        variables.fill("a.b", &mut value);
        let problems = variables.problems.iter().map(|it| it.what.clone()).collect();
        (value.as_str().unwrap_or_default().to_owned(), problems)
    }

    #[test]
    fn variables_and_defaults_take_their_place() {
        for (text, expected) in [
            ("${HOST}", "shop"),
            ("http://${HOST}:${PORT:-80}/", "http://shop:80/"),
            ("${HOST:-other}${HOST}", "shopshop"),
            ("${EMPTY:-full}", "full"),
            ("<${EMPTY}>", "<>"),
            ("${UNSET:-}", ""),
            ("${UNSET:-a:-b}", "a:-b"),
            // What was taken is not looked at again.
            ("${TRICKY}", "\"] ${HOST}"),
            ("${UNSET:-$HOST}", "$HOST"),
            ("$${HOST}", "${HOST}"),
            ("$HOST $ $$ 5$", "$HOST $ $$ 5$"),
            ("é${HOST}é", "éshopé"),
        ] {
            assert_eq!(filled(text), (expected.to_owned(), Vec::new()), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_taken_is_said() {
        for (text, expected) in [
            ("${UNSET}", "the environment variable \"UNSET\" is not set"),
            ("${HOST", "begins no variable"),
            ("${}", "begins no variable"),
            ("${1ST}", "begins no variable"),
            ("${HO ST}", "begins no variable"),
            ("${HOST-x}", "begins no variable"),
            ("${UNSET:-${HOST}}", "the default of \"UNSET\" has a variable inside"),
            ("${HOST:-a${UNSET:-b}}", "the default of \"HOST\" has a variable inside"),
            ("${UNSET:-$${HOST}", "the default of \"UNSET\" has a variable inside"),
        ] {
            let (_, problems) = filled(text);
            assert!(problems.len() == 1 && problems[0].contains(expected), "{text}: {problems:?}");
        }
        assert!(filled("${LONG}${LONG}").1.is_empty());
        assert!(filled("${LONG}${LONG}x${HOST}").1[0].contains("come to more than"));
    }

    #[test]
    fn only_values_are_filled_and_it_is_known_which() {
        let text = "x = { \"${HOST}\" = [\"a\", \"${HOST}\"] }\ny = \"${UNSET:-7}!\"\nz = \"$${\"";
        let mut table = DeTable::parse(text).unwrap().into_inner();
        let mut variables = Variables::new(&env);
        variables.fill_table("", &mut table);
        let taken: Vec<(&str, bool, bool)> = variables
            .taken
            .iter()
            .map(|(path, it)| (path.as_str(), it.is_whole, it.variables[0].is_default))
            .collect();
        assert_eq!(taken, [("x.\"${HOST}\"[1]", true, false), ("y", false, true)]);
        assert_eq!(table.get("y").unwrap().get_ref().as_str(), Some("7!"));
        assert_eq!(table.get("z").unwrap().get_ref().as_str(), Some("${"));
    }
}
