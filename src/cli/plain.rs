//! Text of strangers, servers and files as a terminal may print it.

/// The text on one line, and without what a terminal obeys or nobody sees: escapes stand for that.
pub(super) fn plain(text: &str) -> String {
    let shown = text
        .chars()
        .map(|c| if is_unseen(c) { c.escape_unicode().to_string() } else { c.to_string() });
    shown.collect()
}

/// What nobody sees, or a terminal obeys.
pub(super) fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202f}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_terminal_obeys_what_is_printed() {
        for (text, expected) in [
            ("tea, größer – ✖", "tea, größer – ✖"),
            ("a\u{1b}[2J", "a\\u{1b}[2J"),
            // The one character that begins what a terminal obeys (ECMA-48 §5.4).
            ("a\u{9b}2J\u{7f}", "a\\u{9b}2J\\u{7f}"),
            ("a\nb\r", "a\\u{a}b\\u{d}"),
            ("\u{202e}gpj.exe", "\\u{202e}gpj.exe"),
        ] {
            assert_eq!(plain(text), expected);
        }
    }
}
