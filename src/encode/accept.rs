//! `Accept-Encoding`: the coding that a client wants most, of those that there are here (RFC 9110
//! §12.5.3).

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// The weight of what is wanted without one, in thousandths.
const FULL: u16 = 1000;

/// A coding of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 7932
    Brotli,
    /// RFC 8878, within the window of RFC 9659
    Zstd,
    /// RFC 1952
    Gzip,
}

impl Coding {
    /// Those that there are. Among those of one weight the first is taken: it makes the least of
    /// text.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// Its name in the registry of content codings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether a client means it by this name.
    fn is_named(self, name: &str) -> bool {
        name.eq_ignore_ascii_case(self.name())
            || self == Self::Gzip && name.eq_ignore_ascii_case("x-gzip")
    }
}

/// The coding that these fields of a request ask for; nothing where the client wants the content as
/// it is at least as much, or does not say.
pub(super) fn wanted(fields: &HeaderMap) -> Option<Coding> {
    if !fields.contains_key(ACCEPT_ENCODING) {
        return None;
    }
    let members = || {
        let lines = fields.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).map(member)
    };
    let named = |is_meant: &dyn Fn(&str) -> bool| {
        members().filter(|(name, _)| is_meant(name)).map(|(_, weight)| weight).max()
    };
    let any = named(&|name| name == "*");
    let weight = |coding: Coding| named(&|name| coding.is_named(name)).or(any).unwrap_or(0);
    // Unless it is named, anything that is wanted at all comes before it.
    let plain = named(&|name| name.eq_ignore_ascii_case("identity")).unwrap_or(0);
    let mut best = None;
    for coding in Coding::ALL {
        let weight = weight(coding);
        if weight > best.map_or(0, |(_, most)| most) {
            best = Some((coding, weight));
        }
    }
    best.filter(|(_, weight)| *weight >= plain).map(|(coding, _)| coding)
}

/// A name and its weight in thousandths, which is none where it cannot be read.
fn member(text: &str) -> (&str, u16) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    (name, weight.map_or(FULL, |digits| thousandths(digits).unwrap_or(0)))
}

/// `0`, `0.5`, `1.000` (RFC 9110 §12.4.2).
fn thousandths(text: &str) -> Option<u16> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = part.bytes().all(|byte| byte.is_ascii_digit());
    if !matches!(whole, "0" | "1") || part.len() > 3 || !is_digits {
        return None;
    }
    let part: u16 = format!("{part:0<3}").parse().ok()?;
    let weight = if whole == "1" { FULL + part } else { part };
    (weight <= FULL).then_some(weight)
}
