//! The pages that a sitemap names (sitemaps.org), as far as they are on one host. Not a reader of
//! XML: what stands between `<loc>` and `</loc>` is all that is wanted.

use http::Uri;

/// The paths, with their queries, of the pages on `host`.
pub(super) fn paths<'a>(text: &'a str, host: &'a str) -> impl Iterator<Item = String> + 'a {
    let places = text.split("<loc>").skip(1).filter_map(|rest| Some(rest.split_once("</loc>")?.0));
    places.filter_map(move |place| {
        let place = place.trim();
        let place =
            place.strip_prefix("<![CDATA[").map_or(place, |rest| rest.trim_end_matches("]]>"));
        let place = place.replace("&amp;", "&").replace("&apos;", "'").replace("&quot;", "\"");
        let uri: Uri = place.parse().ok()?;
        let is_here = uri.host().is_some_and(|named| named.eq_ignore_ascii_case(host));
        is_here.then(|| uri.path_and_query().map(|path| path.as_str().to_owned()))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_the_host_are_taken() {
        let text =
            "<urlset><url><loc>https://Shop.test/a?x=1&amp;y=2</loc><lastmod>2026</lastmod></url>
            <url><loc> http://shop.test:8080/b </loc></url><loc>http://other.test/c</loc>
            <loc><![CDATA[http://shop.test/d]]></loc><loc>/relative</loc><loc>http://shop.test/cut";
        let found: Vec<String> = paths(text, "shop.test").collect();
        assert_eq!(found, ["/a?x=1&y=2", "/b", "/d"]);
        assert_eq!(paths("", "shop.test").count(), 0);
    }
}
