//! JSON as a terminal may print it: what nobody sees, or a terminal obeys, stands as an escape, so
//! it is the same JSON for programs.

use std::fmt::Write as _;

use serde_json::Value;

use super::plain::is_unseen;

/// An answer on several lines. Strings in it may be what strangers have sent.
pub(super) fn json_text(answer: &Value) -> String {
    let text = format!("{answer:#}");
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        // What stands outside of strings is visible, apart from the ends of lines.
        if c == '\n' || !is_unseen(c) {
            shown.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _ = write!(shown, "\\u{unit:04x}");
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_terminal_obeys_what_is_printed_and_programs_read_the_same() {
        let answer = json!({
            "path": "/a\u{9b}2J\u{1b}[2J\u{7f}", "größer\u{202e}": ["\u{e0041}", "a\nb – ✖"],
        });
        let text = json_text(&answer);
        assert!(!text.chars().any(|c| c != '\n' && is_unseen(c)), "{text:?}");
        for part in ["/a\\u009b2J\\u001b[2J\\u007f", "größer\\u202e", "\\udb40\\udc41", "– ✖"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), answer);
    }
}
