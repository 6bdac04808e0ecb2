//! The query and the path of an operation, decoded.

use super::reply::Fault;
use crate::base::http::percent;

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
    let bytes = percent::decode_strictly(text.as_bytes()).ok_or_else(wrong)?;
    String::from_utf8(bytes.into_owned()).map_err(|_| wrong())
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
