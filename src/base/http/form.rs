//! Forms (`application/x-www-form-urlencoded`, as the URL standard has them): read by the names
//! that are wanted, each of which may stand once, and written.

use super::percent;

/// Why a form is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misread {
    /// A name that is wanted stands twice (RFC 6749 §3.1).
    Repeated,
    /// An escape is none, or what it stands for is no text.
    Escape,
}

/// The values of these names, in their order; of an absent one, nothing. Others are ignored.
///
/// # Errors
/// See [`Misread`].
pub fn read<const N: usize>(form: &[u8], names: [&str; N]) -> Result<[Option<String>; N], Misread> {
    let mut values = [const { None }; N];
    for pair in form.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (name, value) = pair.split_at(at);
        let name = decoded(name)?;
        let place = names.iter().zip(&mut values).find(|(known, _)| **known == name);
        let Some((_, place)) = place else { continue };
        if place.replace(decoded(value.strip_prefix(b"=").unwrap_or_default())?).is_some() {
            return Err(Misread::Repeated);
        }
    }
    Ok(values)
}

/// A form of these names and values.
pub fn write(pairs: &[(&str, &str)]) -> String {
    let mut form = String::new();
    for (name, value) in pairs {
        if !form.is_empty() {
            form.push('&');
        }
        form.push_str(name);
        form.push('=');
        form.push_str(&percent::encode(value.as_bytes()));
    }
    form
}

/// A name or a value.
fn decoded(text: &[u8]) -> Result<String, Misread> {
    let spaced: Vec<u8> =
        text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let bytes = percent::decode_strictly(&spaced).ok_or(Misread::Escape)?;
    String::from_utf8(bytes.into_owned()).map_err(|_| Misread::Escape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_stands_once_and_what_is_written_is_read() {
        let written = write(&[("a", "1 &=+%é"), ("b", "")]);
        assert_eq!(written, "a=1%20%26%3D%2B%25%C3%A9&b=");
        let read_back = read(written.as_bytes(), ["b", "a", "c"]).unwrap();
        assert_eq!(read_back, [Some(String::new()), Some("1 &=+%é".to_owned()), None]);
        assert_eq!(read(b"&%61=+1&y", ["a", "y"]), Ok([Some(" 1".into()), Some(String::new())]));
        assert_eq!(read(b"a=1&b=2&a=1", ["a"]), Err(Misread::Repeated));
        assert_eq!(read(b"a=1&%61", ["a"]), Err(Misread::Repeated));
        assert_eq!(read(b"x=%zz&a=1", ["a"]), Ok([Some("1".to_owned())]), "of no interest");
        for bad in [&b"a=%2"[..], b"a=%ff", b"%=1", b"a=%g1"] {
            assert_eq!(read(bad, ["a"]), Err(Misread::Escape), "{bad:?}");
        }
    }
}
