//! Which of the two text formats a scraper gets.

/// A format of `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What the `Accept` fields ask for (RFC 9110 §12.5.1). OpenMetrics only for those who name it
    /// and like it no less than the other: whoever asks for nothing, or for anything, gets what
    /// every scraper reads.
    pub fn accepted<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let (mut text, mut open_metrics) = (None, None);
        for range in lines.flat_map(|line| line.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut is_ours) = (1.0, true);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                let value = value.trim().trim_matches('"');
                match &*name.trim().to_ascii_lowercase() {
                    "q" => quality = value.parse().unwrap_or(0.0_f64).clamp(0.0, 1.0),
                    // What is written here is 1.0; who reads the draft before it reads it too.
                    "version" => is_ours = matches!(value, "0.0.1" | "0.0.4" | "1.0.0"),
                    _ => {}
                }
            }
            // The more a range says, the more it counts.
            let (format, weight) = match &*kind {
                "application/openmetrics-text" if is_ours => (&mut open_metrics, 2),
                "application/*" => (&mut open_metrics, 1),
                "text/plain" => (&mut text, 2),
                "text/*" => (&mut text, 1),
                "*/*" => (&mut text, 0),
                _ => continue,
            };
            // Of two ranges for the same, such as two versions, the better liked one counts.
            if format.is_none_or(|known| (weight, quality) > known) {
                *format = Some((weight, quality));
            }
        }
        let quality = |known: Option<(u8, f64)>| known.map_or(0.0, |(_, quality)| quality);
        let (text, open_metrics) = (quality(text), quality(open_metrics));
        if open_metrics > 0.0 && open_metrics >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Format::{OpenMetrics, Text};
    use super::*;

    #[test]
    fn a_scraper_gets_what_it_asks_for() {
        for (accept, expected) in [
            (&[][..], Text),
            (&["*/*"], Text),
            (&["text/plain"], Text),
            (&["text/plain; version=0.0.4"], Text),
            (&["application/openmetrics-text"], OpenMetrics),
            (&["Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8"], OpenMetrics),
            (&["application/openmetrics-text;version=7.0.0"], Text),
            (&["application/openmetrics-text;q=0.5,text/plain;q=0.5"], OpenMetrics),
            (&["application/openmetrics-text;q=0.4, text/plain;q=0.5"], Text),
            (&["application/openmetrics-text;q=0"], Text),
            (&["application/openmetrics-text;q=0,*/*"], Text),
            (&["text/plain;q=0.1", "application/openmetrics-text;q=0.2"], OpenMetrics),
            (&["application/*;q=0.5, text/*;q=0.2"], OpenMetrics),
            (&["text/html, application/json;q=0.9"], Text),
            (&["application/openmetrics-text;q=x, text/plain"], Text),
            (&["", ";;=,,q=1"], Text),
            // Prometheus 2.42.
            (
                &["application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                   version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"],
                OpenMetrics,
            ),
            // A browser.
            (&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], Text),
        ] {
            assert_eq!(Format::accepted(accept.iter().copied()), expected, "{accept:?}");
        }
    }
}
