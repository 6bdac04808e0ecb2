//! The query and the path of an operation, decoded.

use super::reply::Fault;

/// Names and values of a query, in order.
pub(super) fn pairs(query: Option<&str>) -> Result<Vec<(String, String)>, Fault> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((percent_decoded(name)?, percent_decoded(value)?))
        })
        .collect()
}

/// Percent-encoded UTF-8 (RFC 3986 §2.1); a `+` is a plus, as there.
pub(super) fn percent_decoded(text: &str) -> Result<String, Fault> {
    let wrong = || Fault::Invalid(format!("{text:?} is not percent-encoded: write %25 for %."));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = after.split_at_checked(2).ok_or_else(wrong)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let (high, low) = digit(digits[0]).zip(digit(digits[1])).ok_or_else(wrong)?;
        bytes.push(high << 4 | low);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_as_rfc_3986_says() {
        let decoded = pairs(Some("a=1%2B1&b=x+y&%C3%A9=%25&c&&d=e=f")).ok().unwrap();
        let expected = [("a", "1+1"), ("b", "x+y"), ("é", "%"), ("c", ""), ("d", "e=f")];
        assert_eq!(decoded, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(pairs(None).ok().unwrap(), []);
        for wrong in ["a=%", "a=%4", "a=%4g", "%zz=1", "a=%ff", "a=%+1"] {
            assert!(pairs(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
