//! `return` and redirects by `rewrite`, as `respond` has them.

use super::super::write::{quoted, table};

/// What is answered without an upstream, or why it cannot be said.
pub(super) type Reply = Result<String, &'static str>;

/// What is known of the server that answers.
pub(super) struct Of<'s> {
    /// Its own name.
    pub(super) name: Option<&'s str>,
    /// `http` or `https`.
    pub(super) scheme: &'s str,
    /// The type of what it returns.
    pub(super) content_type: &'s str,
}

/// `return CODE`, `return CODE TEXT`, `return CODE URL` or `return URL`.
pub(super) fn of_return(args: &[String], of: &Of<'_>) -> Reply {
    let first = args.first().map(String::as_str).unwrap_or_default();
    let second = args.get(1).map(String::as_str);
    let Ok(code) = first.parse::<u16>() else { return redirect(302, first, of) };
    match (code, second) {
        (301 | 302 | 303 | 307 | 308, Some(target)) => redirect(code, target, of),
        (301 | 302 | 303 | 307 | 308, None) => Err("a redirect without a place leads nowhere"),
        (444, _) => Err("a connection is not closed without an answer here"),
        (200..=599, text) => content(code, text.unwrap_or_default(), of),
        _ => Err("the status is not one that can be answered"),
    }
}

fn content(code: u16, text: &str, of: &Of<'_>) -> Reply {
    if text.contains('$') {
        return Err("the text is made of variables");
    }
    let mut entries = vec![("status", code.to_string())];
    if !text.is_empty() && !matches!(code, 204 | 205 | 304) {
        entries.push(("body", quoted(text)));
        entries.push(("content_type", quoted(of.content_type)));
    }
    Ok(table(&entries))
}

/// A redirect to a template with `$host`, `$request_uri` and the like in it.
pub(super) fn redirect(code: u16, target: &str, of: &Of<'_>) -> Reply {
    let location = location(target, of)?;
    Ok(table(&[("status", code.to_string()), ("location", quoted(&location))]))
}

fn location(target: &str, of: &Of<'_>) -> Result<String, &'static str> {
    const WHY: &str = "it is made of variables that a location cannot hold";
    let target = target.replace("${", "$").replace('}', "");
    // Those with braces are placeholders by now; what is left of `$` are variables.
    let mut text = target.replace("\u{1}", "{").replace("\u{2}", "}");
    if let Some(rest) = text.strip_prefix("$scheme") {
        text = format!("{}{rest}", of.scheme);
    }
    text = text.replace("$http_host", "{host}").replace("$host", "{host}");
    if text.contains("$server_name") {
        text = text.replace("$server_name", of.name.ok_or(WHY)?);
    }
    for query in ["$is_args$args", "?$args", "?$query_string"] {
        // The query stays anyway.
        text = text.strip_suffix(query).map(str::to_owned).unwrap_or(text);
    }
    for whole in ["$request_uri", "$uri"] {
        if let Some(before) = text.strip_suffix(whole) {
            text = format!("{}/{{path}}", before.strip_suffix('/').unwrap_or(before));
        }
    }
    if text.contains('$') || text.contains('#') {
        return Err(WHY);
    }
    Ok(text)
}

/// The template with its placeholders as [`redirect`] keeps them apart from `${name}`.
pub(super) fn shielded(template: &str) -> String {
    template.replace('{', "\u{1}").replace('}', "\u{2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: Of<'_> = Of { name: Some("shop.test"), scheme: "https", content_type: "text/plain" };

    #[test]
    fn what_is_returned_is_what_is_answered() {
        for (args, expected) in [
            (vec!["204"], "{ status = 204 }"),
            (vec!["200", "ok"], r#"{ status = 200, body = "ok", content_type = "text/plain" }"#),
            (
                vec!["301", "https://$host$request_uri"],
                r#"{ status = 301, location = "https://{host}/{path}" }"#,
            ),
            (
                vec!["308", "$scheme://${server_name}/x$is_args$args"],
                r#"{ status = 308, location = "https://shop.test/x" }"#,
            ),
            (vec!["/login"], r#"{ status = 302, location = "/login" }"#),
        ] {
            let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
            assert_eq!(of_return(&args, &OF).as_deref(), Ok(expected), "{args:?}");
        }
        for args in
            [vec!["444"], vec!["301"], vec!["200", "$x"], vec!["302", "/$arg_next"], vec!["7"]]
        {
            let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
            assert!(of_return(&args, &OF).is_err(), "{args:?}");
        }
    }

    #[test]
    fn placeholders_of_a_rewrite_stay() {
        let made = redirect(301, &shielded("/new/{rest}"), &OF);
        assert_eq!(made.as_deref(), Ok(r#"{ status = 301, location = "/new/{rest}" }"#));
    }
}
