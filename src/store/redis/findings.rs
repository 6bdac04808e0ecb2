//! What looks at Redis have found while the gateway runs.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::Finding;

/// What one look looked at, and what is not as it should be.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    pub(super) checks: BTreeSet<&'static str>,
    pub(super) findings: Vec<Finding>,
}

/// What was looked at, and what was found; by the server's name.
#[derive(Debug, Default)]
pub(super) struct Found(BTreeMap<String, Report>);

impl Found {
    /// Takes what a look found, in place of what an earlier one found at the same things. Returns
    /// what is new.
    pub(super) fn take(&mut self, server: &str, report: Report) -> Vec<Finding> {
        let known = self.0.entry(server.to_owned()).or_default();
        let is_known = |it: &Finding| known.findings.iter().any(|old| old.check == it.check);
        let new = report.findings.iter().filter(|it| !is_known(it)).cloned().collect();
        known.findings.retain(|old| !report.checks.contains(&old.check));
        known.findings.extend(report.findings);
        known.checks.extend(report.checks);
        new
    }

    /// Each check that was made, and whether it found nothing anywhere.
    pub(super) fn checks(&self) -> Vec<(&'static str, bool)> {
        let mut checks: BTreeMap<&'static str, bool> = BTreeMap::new();
        for report in self.0.values() {
            for check in &report.checks {
                checks.entry(check).or_insert(true);
            }
            for finding in &report.findings {
                checks.insert(finding.check, false);
            }
        }
        checks.into_iter().collect()
    }

    /// What was found, with where.
    pub(super) fn findings(&self) -> Vec<(String, Finding)> {
        let of = |(server, report): (&String, &Report)| {
            report.findings.iter().map(|it| (server.clone(), it.clone())).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(checks: &[&'static str], found: &[&'static str]) -> Report {
        let finding = |check: &&'static str| Finding::warning(check, "seen", "all", "help");
        Report {
            checks: checks.iter().copied().collect(),
            findings: found.iter().map(finding).collect(),
        }
    }

    #[test]
    fn what_is_found_is_news_once_and_again_after_it_was_over() {
        let mut found = Found::default();
        let names = |new: Vec<Finding>| new.iter().map(|it| it.check).collect::<Vec<_>>();
        let whole = ["clock", "memory", "rights"];
        assert_eq!(names(found.take("a", report(&whole, &["rights", "memory"]))).len(), 2);
        assert!(found.take("a", report(&["clock", "memory"], &["memory"])).is_empty());
        assert_eq!(found.checks(), [("clock", true), ("memory", false), ("rights", false)]);
        assert_eq!(names(found.take("b", report(&["clock"], &["clock"]))), ["clock"]);
        assert!(found.take("a", report(&["clock", "memory"], &[])).is_empty());
        assert_eq!(found.checks(), [("clock", false), ("memory", true), ("rights", false)]);
        assert_eq!(names(found.take("a", report(&["memory"], &["memory"]))), ["memory"]);
        let all: Vec<_> = found.findings().into_iter().map(|(at, it)| (at, it.check)).collect();
        let expected = [("a", "rights"), ("a", "memory"), ("b", "clock")];
        assert_eq!(all, expected.map(|(at, check)| (at.to_owned(), check)));
    }
}
