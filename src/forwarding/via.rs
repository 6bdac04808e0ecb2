//! `Via` (RFC 9110 §7.6.3): the gateway's name in the chain of those that a request has passed, and
//! whether it has passed here already.

use http::header::VIA;
use http::{HeaderMap, HeaderValue, Version};

/// The gateway under its name.
#[derive(Debug, Clone)]
pub struct Via {
    name: String,
    http1: HeaderValue,
    http2: HeaderValue,
}

impl Via {
    /// A gateway of this name, which is a token; nothing where it is none.
    pub fn new(name: &str) -> Option<Self> {
        let line = |version: &str| HeaderValue::try_from(format!("{version} {name}")).ok();
        Some(Self { name: name.to_owned(), http1: line("1.1")?, http2: line("2")? })
    }

    /// Whether a request with these fields comes from here.
    pub fn has_passed(&self, fields: &HeaderMap) -> bool {
        let lines = fields.get_all(VIA).iter().filter_map(|line| line.to_str().ok());
        let mut hops = lines.flat_map(|line| line.split(','));
        // A member is a protocol, a name and a comment.
        let is_ours = |name: &str| name.eq_ignore_ascii_case(&self.name);
        hops.any(|hop| hop.split_ascii_whitespace().nth(1).is_some_and(is_ours))
    }

    /// Adds the gateway to the chain of a request that came in this version of HTTP.
    pub fn stamp(&self, version: Version, fields: &mut HeaderMap) {
        let line = if version == Version::HTTP_2 { &self.http2 } else { &self.http1 };
        fields.append(VIA, line.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_knows_its_own_name_among_others() {
        let via = Via::new("edge").unwrap();
        for (line, expected) in [
            ("1.1 edge", true),
            ("1.0 a.test:80 (old, x), 2 EDGE (Portcullis)", true),
            ("HTTP/1.1 edge", true),
            ("1.1 edge2, 1.1 an.edge", false),
            ("edge", false),
            ("edge 1.1", false),
            ("", false),
        ] {
            let mut fields = HeaderMap::new();
            fields.append(VIA, HeaderValue::from_static("1.1 first"));
            fields.append(VIA, HeaderValue::try_from(line).unwrap());
            assert_eq!(via.has_passed(&fields), expected, "{line}");
            via.stamp(Version::HTTP_11, &mut fields);
            via.stamp(Version::HTTP_2, &mut fields);
            let lines: Vec<_> = fields.get_all(VIA).iter().collect();
            assert_eq!(lines[2..], ["1.1 edge", "2 edge"]);
            assert!(via.has_passed(&fields));
        }
    }
}
