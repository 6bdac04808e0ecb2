//! A strict reader of `/metrics`: everything that a scraper or `promtool check metrics` would
//! complain about is a panic here.

use std::collections::{BTreeMap, BTreeSet};

/// Words in names that are no base units.
const NO_BASE_UNITS: [&str; 9] = [
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "kilobytes",
    "megabytes",
    "ms",
    "percent",
];

/// Label names and values, as they were escaped, in order.
type Labels = Vec<(String, String)>;

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    /// Type by family. A counter's family ends with `_total` in both formats.
    pub(crate) families: BTreeMap<String, String>,
    /// Value by name and labels.
    pub(crate) series: BTreeMap<(String, Labels), f64>,
}

impl Exposition {
    /// Reads the Prometheus text format 0.0.4.
    pub(crate) fn text(text: &str) -> Self {
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "not of this format");
        Self::read(text, false)
    }

    /// Reads OpenMetrics 1.0.
    pub(crate) fn open_metrics(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("the end is marked");
        assert!(!body.contains("# EOF"), "the end is marked once");
        Self::read(body, true)
    }

    /// The value of one series; labels in any order.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut wanted: Labels =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        wanted.sort();
        self.series.get(&(name.to_owned(), wanted)).copied()
    }

    /// Whether any series has this label.
    pub(crate) fn mentions(&self, name: &str, value: &str) -> bool {
        let label = (name.to_owned(), value.to_owned());
        self.series.keys().any(|(_, labels)| labels.contains(&label))
    }

    fn read(text: &str, is_open: bool) -> Self {
        assert!(text.ends_with('\n') && !text.contains('\r'), "whole lines");
        let mut read = Self::default();
        let (mut helped, mut current) = (BTreeSet::new(), String::new());
        let mut buckets: BTreeMap<(String, Labels), Vec<(f64, f64)>> = BTreeMap::new();
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let (keyword, rest) = comment.split_once(' ').expect(line);
                let (name, what) = rest.split_once(' ').expect(line);
                check_name(name);
                assert!(!what.trim().is_empty(), "{line}");
                match keyword {
                    "HELP" => assert!(helped.insert(name.to_owned()), "twice: {line}"),
                    "UNIT" => assert!(is_open && name.ends_with(&format!("_{what}")), "{line}"),
                    "TYPE" => {
                        let total = if is_open && what == "counter" { "_total" } else { "" };
                        current = format!("{name}{total}");
                        assert_eq!(current.ends_with("_total"), what == "counter", "{line}");
                        assert!(["counter", "gauge", "histogram"].contains(&what), "{line}");
                        let known = read.families.insert(current.clone(), what.to_owned());
                        assert!(known.is_none(), "twice: {line}");
                    }
                    _ => panic!("{line}"),
                }
                continue;
            }
            let (name, mut labels, value) = sample(line);
            let kind = read.families.get(&current).unwrap_or_else(|| panic!("no TYPE: {line}"));
            if kind != "histogram" {
                assert_eq!(name, current, "not with its family: {line}");
            } else if name == format!("{current}_bucket") {
                let le = labels.iter().position(|(name, _)| name == "le").expect("a bound");
                let bound = labels.remove(le).1;
                let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
                buckets.entry((current.clone(), labels)).or_default().push((bound, value));
                continue;
            } else {
                let ends = [format!("{current}_sum"), format!("{current}_count")];
                assert!(ends.contains(&name), "not with its family: {line}");
            }
            assert!(kind == "gauge" || value >= 0.0, "{line}");
            let known = read.series.insert((name, labels), value);
            assert!(known.is_none(), "twice: {line}");
        }
        let helps = helped.len();
        assert_eq!(helps, read.families.len(), "each family has its HELP and TYPE: {helped:?}");
        for ((name, labels), buckets) in buckets {
            let sorted = buckets.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1);
            let (bound, all) = *buckets.last().unwrap();
            let count = read.series.get(&(format!("{name}_count"), labels.clone()));
            assert!(sorted, "{name} {labels:?}: {buckets:?}");
            assert!(bound.is_infinite() && count == Some(&all), "{name} {labels:?}: {buckets:?}");
        }
        read
    }
}

fn check_name(name: &str) {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    assert!(name.bytes().all(plain) && !name.as_bytes()[0].is_ascii_digit(), "{name}");
    let odd = name.split('_').find(|word| NO_BASE_UNITS.contains(word));
    assert_eq!(odd, None, "no base unit: {name}");
}

/// Name, labels sorted by their names, value.
fn sample(line: &str) -> (String, Labels, f64) {
    let (series, value) = line.rsplit_once(' ').expect(line);
    let (name, mut rest) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').expect(line)),
        None => (series, ""),
    };
    check_name(name);
    let mut labels = Labels::new();
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").expect(line);
        check_name(label);
        let mut end = None;
        let mut bytes = after.bytes().enumerate();
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'"' => {
                    end = Some(at);
                    break;
                }
                b'\\' => {
                    let escaped = bytes.next().map(|(_, byte)| byte);
                    assert!(matches!(escaped, Some(b'\\' | b'"' | b'n')), "{line}");
                }
                _ => {}
            }
        }
        let end = end.expect(line);
        labels.push((label.to_owned(), after[..end].to_owned()));
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    labels.sort();
    assert!(labels.windows(2).all(|two| two[0].0 != two[1].0), "a label twice: {line}");
    (name.to_owned(), labels, value.parse().expect(line))
}
