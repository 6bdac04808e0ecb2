//! The principal that an operator names: of the kinds that the limit counts by, since no request
//! could ever be counted by another.

use std::net::IpAddr;
use std::sync::Arc;

use crate::base::facts::ClientAddr;
use crate::config::LimitKey;
use crate::store::keys::{parse_principal, principal_parts, push_principal_part};

/// What a limit may count.
#[derive(Debug)]
pub struct Countable<'a> {
    /// The limit's name.
    pub policy: &'a str,
    /// By what it counts.
    pub key: &'a [LimitKey],
    /// What stands before the claims of callers, one for each verifier.
    pub qualifiers: &'a [Option<Arc<str>>],
    /// The names of all routes.
    pub routes: &'a [&'a str],
}

/// An address that stands for any (RFC 5737).
const ADDRESS: &str = "192.0.2.1";

impl Countable<'_> {
    /// The principal in the spelling of the store's keys.
    ///
    /// # Errors
    /// No request is counted so; what to write in its place.
    pub fn principal(&self, text: &str) -> Result<String, String> {
        let parts = principal_parts(text).unwrap_or_default();
        let counted = self.counted(&parts).and_then(|text| parse_principal(&text));
        counted.ok_or_else(|| self.refusal(text, &parts))
    }

    /// The same as text, with addresses as they are counted; nothing where a part is of a kind that
    /// the limit's key lacks, or there are more of them or fewer.
    fn counted(&self, parts: &[(String, &str)]) -> Option<String> {
        if parts.len() != self.key.len() {
            return None;
        }
        let counted = self.key.iter().zip(parts).map(|(wanted, (kind, value))| {
            // A request that lacks what is counted counts for its address.
            let is_address = kind == "address" && *wanted != LimitKey::Route;
            if is_address {
                let ip: IpAddr = value.parse().ok()?;
                return Some(format!("address={}", ClientAddr::new(ip).principal()));
            }
            let is_there = *wanted != LimitKey::Route || self.is_route(value);
            let is_kind = is_there && self.kinds(wanted).contains(kind);
            is_kind.then(|| format!("{kind}={value}"))
        });
        Some(counted.collect::<Option<Vec<_>>>()?.join("|"))
    }

    fn is_route(&self, value: &str) -> bool {
        let asked = parse_principal(&format!("route={value}"));
        self.routes.iter().any(|name| {
            let mut known = String::new();
            push_principal_part(&mut known, &["route"], name.as_bytes());
            Some(known) == asked
        })
    }

    /// How a part may begin, the most likely first.
    fn kinds(&self, wanted: &LimitKey) -> Vec<String> {
        match wanted {
            LimitKey::Address => vec!["address".to_owned()],
            LimitKey::Session => vec!["session".to_owned()],
            LimitKey::Route => vec!["route".to_owned()],
            LimitKey::Header(name) => vec![format!("header:{name}")],
            LimitKey::Claim(name) => {
                let of = |it: &Option<Arc<str>>| match it {
                    Some(verifier) => format!("{verifier}/claim:{name}"),
                    None => format!("claim:{name}"),
                };
                let mut kinds: Vec<String> = self.qualifiers.iter().map(of).collect();
                kinds.sort();
                kinds.dedup();
                if kinds.is_empty() { vec![format!("claim:{name}")] } else { kinds }
            }
        }
    }

    fn refusal(&self, text: &str, parts: &[(String, &str)]) -> String {
        let kinds = self.key.iter().map(|wanted| self.kinds(wanted).join(" or "));
        let kinds: Vec<String> = kinds.collect();
        let forms = self.key.iter().enumerate().map(|(at, wanted)| {
            // What was asked for, where it was the same in another spelling.
            let asked = parts.get(at).filter(|_| parts.len() == self.key.len());
            self.form(wanted, asked)
        });
        let form = forms.collect::<Vec<_>>().join("|");
        let or_address = match self.key {
            [LimitKey::Address | LimitKey::Route] => String::new(),
            [_] => format!(", or address={ADDRESS} for who has none"),
            _ => String::new(),
        };
        let (policy, kinds) = (self.policy, kinds.join(", then "));
        format!(
            "{text:?} is no key of the limit {policy}, which counts by {kinds}. Write \
             {form}{or_address}."
        )
    }

    /// How a part is written, with the value that was asked for where it can be meant.
    fn form(&self, wanted: &LimitKey, asked: Option<&(String, &str)>) -> String {
        let kind = self.kinds(wanted).into_iter().next().unwrap_or_default();
        let value = asked.map(|(_, value)| *value).filter(|value| !value.is_empty());
        let value = match wanted {
            LimitKey::Address => value.filter(|it| it.parse::<IpAddr>().is_ok()).or(Some(ADDRESS)),
            LimitKey::Route => {
                value.filter(|it| self.is_route(it)).or(self.routes.first().copied())
            }
            // What is an address belongs to whoever has no claim, header or session.
            _ => asked.filter(|(kind, _)| kind != "address" && kind != "route").and(value),
        };
        format!("{kind}={}", value.unwrap_or("…"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_kinds_that_the_limit_counts_by() {
        let sub = || LimitKey::Claim("sub".to_owned());
        let header = || LimitKey::Header("x-key".parse().expect("a name"));
        let (none, users) = ([None], [Some(Arc::from("users")), Some(Arc::from("staff"))]);
        let principal = |key: &[LimitKey], qualifiers: &[Option<Arc<str>>], text: &str| {
            Countable { policy: "api", key, qualifiers, routes: &["shop"] }.principal(text)
        };
        for (key, qualifiers, text, expected) in [
            (vec![sub()], none.as_slice(), "claim:sub=42", "claim:sub=42"),
            (vec![sub()], &[], "claim:sub=json=42", "claim:sub=json=42"),
            (vec![sub()], &none, "address=::ffff:192.0.2.1", "address=192.0.2.1"),
            (vec![sub()], &users, "staff/claim:sub=42", "staff/claim:sub=42"),
            (vec![LimitKey::Address], &none, "address=2001:db8::7", "address=2001:db8::"),
            (vec![LimitKey::Session], &none, "session=s1", "session=s1"),
            (
                vec![sub(), header(), LimitKey::Route],
                &none,
                "claim:sub=42|address=192.0.2.1|route=shop",
                "claim:sub=42|address=192.0.2.1|route=shop",
            ),
        ] {
            assert_eq!(principal(&key, qualifiers, text).as_deref(), Ok(expected), "{text}");
        }
        for (key, qualifiers, text, says) in [
            (vec![LimitKey::Address], none.as_slice(), "ip=192.0.2.7", "Write address=192.0.2.7."),
            (vec![LimitKey::Address], &none, "address=localhost", "Write address=192.0.2.1."),
            (vec![LimitKey::Address], &none, "claim:sub=42", "counts by address. Write address="),
            (vec![sub()], &none, "sub=42", "Write claim:sub=42, or address=192.0.2.1 for who"),
            (vec![sub()], &none, "42", "Write claim:sub=…, or"),
            (vec![sub()], &none, "", "Write claim:sub=…, or"),
            (vec![sub()], &none, "address=localhost", "Write claim:sub=…, or"),
            (vec![sub()], &none, "users/claim:sub=42", "Write claim:sub=42, or"),
            (
                vec![sub()],
                &users,
                "claim:sub=42",
                "staff/claim:sub or users/claim:sub. Write staff",
            ),
            (vec![header()], &none, "x-key=a", "Write header:x-key=a, or"),
            (vec![LimitKey::Route], &none, "route=shp", "Write route=shop."),
            (vec![LimitKey::Route], &none, "address=192.0.2.1", "Write route=shop."),
            (vec![sub(), LimitKey::Route], &none, "claim:sub=42", "claim:sub=…|route=shop."),
            (vec![sub()], &none, "claim:sub=42|route=shop", "Write claim:sub=…, or"),
        ] {
            let refused = principal(&key, qualifiers, text).expect_err(text);
            assert!(refused.contains(says), "{text}: {refused}");
            assert!(refused.contains("is no key of the limit api"), "{refused}");
        }
    }
}
