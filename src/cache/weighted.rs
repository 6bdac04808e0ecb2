//! The normal form of a list of weighted preferences (RFC 9110 §12.4.2 and §12.5): Accept,
//! Accept-Charset, Accept-Encoding, Accept-Language.
//!
//! Two lists of one form mean the same. What breaks the grammar, or says two things of one name,
//! keeps its order and its odd parts: nobody knows what an origin makes of it.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use super::text;

/// A weight of 1, in thousandths: what a member without one has.
const WHOLE: u16 = 1000;

/// One member.
struct Member {
    /// In normal form.
    text: Vec<u8>,
    /// How much of it stands before the weight.
    name_bytes: usize,
    /// In thousandths.
    weight: u16,
    /// Whether its weight, if it has one, can be read.
    is_sound: bool,
}

/// The members of a list in normal form. `ordered`: whether members of one weight keep their order,
/// which some origins look at.
pub(super) fn normal(list: &[u8], ordered: bool) -> Vec<u8> {
    let all: Vec<Member> = text::members(list).map(Member::read).collect();
    let mut said = HashSet::with_capacity_and_hasher(all.len(), RandomState::default());
    let mut members: Vec<&Member> = all.iter().filter(|it| said.insert(&*it.text)).collect();
    let mut named = HashSet::with_capacity_and_hasher(members.len(), RandomState::default());
    if !members.iter().all(|member| member.is_sound && named.insert(member.name())) {
        // A repeat may be what counts there.
        members = all.iter().collect();
    } else if ordered {
        members.sort_by_key(|member| std::cmp::Reverse(member.weight));
    } else {
        members.sort_unstable_by(|one, other| one.text.cmp(&other.text));
    }
    let texts: Vec<&[u8]> = members.iter().map(|member| &*member.text).collect();
    texts.join(&b","[..])
}

impl Member {
    /// Names have no case, the values of parameters may have one. A weight is written as short as
    /// it can be, and one of 1 at the end not at all.
    fn read(member: &[u8]) -> Self {
        let mut parts = text::parts(member, b';').map(<[u8]>::trim_ascii).peekable();
        let mut text = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut name_bytes, mut weight, mut is_sound) = (None, WHOLE, true);
        while let Some(part) = parts.next() {
            let (name, value) = match part.iter().position(|byte| *byte == b'=') {
                Some(at) => {
                    let (name, value) = part.split_at(at);
                    (name, value.get(1..))
                }
                None => (part, None),
            };
            let is_weight = name.trim_ascii().eq_ignore_ascii_case(b"q");
            let read =
                value.filter(|_| is_weight).and_then(|value| thousandths(value.trim_ascii()));
            if is_weight && (read.is_none() || name_bytes.is_some()) {
                is_sound = false;
            } else if let Some(read) = read {
                name_bytes = Some(text.len());
                weight = read;
                if read < WHOLE || parts.peek().is_some() {
                    text.extend_from_slice(b";q=");
                    push_weight(&mut text, read);
                }
                continue;
            }
            text.push(b';');
            text.extend(name.iter().map(u8::to_ascii_lowercase));
            if let Some(value) = value {
                text.push(b'=');
                text.extend_from_slice(value);
            }
        }
        let name_bytes = name_bytes.unwrap_or(text.len());
        Self { text, name_bytes, weight, is_sound }
    }

    fn name(&self) -> &[u8] {
        self.text.get(..self.name_bytes).unwrap_or_default()
    }
}

/// A weight in thousandths; nothing if it breaks the grammar (RFC 9110 §12.4.2).
fn thousandths(weight: &[u8]) -> Option<u16> {
    let weight = std::str::from_utf8(weight).ok()?;
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let fraction: u16 = format!("{fraction:0<3}").parse().ok()?;
    match (whole, fraction) {
        ("0", fraction) => Some(fraction),
        ("1", 0) => Some(WHOLE),
        _ => None,
    }
}

fn push_weight(text: &mut Vec<u8>, thousandths: u16) {
    let written = match thousandths {
        0 => "0".to_owned(),
        WHOLE => "1".to_owned(),
        part => format!("0.{part:03}"),
    };
    let short = if written.contains('.') { written.trim_end_matches('0') } else { &written };
    text.extend_from_slice(short.as_bytes());
}
